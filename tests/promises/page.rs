//! The page in a real browser: every screen is readable, light and dark, wide and on a phone; it works
//! without a script and follows a run with one; whoever may not do a thing is not offered it.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

use crate::support::http;
use crate::support::program::Respaldo;
use crate::support::{testbed, tool};

/// A database that is well, and another job that fails; `media` takes some seconds.
const CONFIG: &str = r#"
data_dir = "@DIR@/data"
timezone = "America/Lima"
[server]
listen = "127.0.0.1:@PORT@"
[destinations.local]
url = "file://@DIR@/backups"
[destinations.slow]
url = "file://@DIR@/slow"
bandwidth = "8MB/s"
[jobs.shop]
schedule = ["0 1 * * *", "30 13 * * *"]
source = { sqlite = "@DIR@/shop.db" }
keep = { local = { days = 7 } }
drill = { schedule = "0 3 * * sun" }
[jobs.media]
schedule = "0 3 * * sun"
source = { sqlite = "@DIR@/media.db" }
keep = { slow = { days = 30 } }
catch_up = false
[jobs.broken]
schedule = "0 4 * * *"
source = { command = ["sh", "-c", "echo '<b>no</b> & never' >&2; exit 1"], name = "broken" }
keep = { local = {} }
retries = 0
"#;

fn scene() -> (Respaldo, String) {
    let respaldo = Respaldo::new(CONFIG);
    tool(Command::new("sqlite3").arg(respaldo.path("shop.db")).arg(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO orders SELECT i, 'thing ' || i FROM n;",
    ));
    // It does not compress, so that it takes some seconds on its slow destination.
    tool(Command::new("sqlite3").arg(respaldo.path("media.db")).arg(
        "CREATE TABLE film (id INTEGER PRIMARY KEY, frame BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)
         INSERT INTO film SELECT i, randomblob(8000) FROM n;",
    ));
    for _ in 0..2 {
        respaldo.run(&["backup", "shop"]).expect(0);
    }
    respaldo.run(&["backup", "media"]).expect(0);
    respaldo.run(&["backup", "broken"]).expect(1);
    respaldo.run(&["drill", "shop"]).expect(0);
    let token = respaldo.run(&["token", "create", "ops", "--role", "admin"]).expect(0).stdout;
    (respaldo, token.trim().to_owned())
}

fn browse(respaldo: &Respaldo, token: &str, flow: &str, paths: &[&str]) -> Value {
    let shots = respaldo.path("shots");
    std::fs::create_dir_all(&shots).unwrap();
    let said = tool(
        Command::new(testbed("venv/bin/python"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/browser.py"))
            .args([&format!("http://127.0.0.1:{}", respaldo.port), token])
            .arg(shots)
            .arg(flow)
            .args(paths),
    );
    let seen: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(seen["console"], serde_json::json!([]), "{seen:#}");
    seen
}

#[test]
fn every_screen_is_readable_in_any_light_and_on_a_phone() {
    let (respaldo, token) = scene();
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    let list = respaldo.run(&["list", "shop", "--json"]).expect(0).json();
    let backup = format!("/jobs/shop/backups/{}", list[0]["id"].as_str().unwrap());
    let paths = [
        "/",
        "/jobs/shop",
        "/jobs/broken",
        &backup,
        "/runs",
        "/runs?job=shop",
        "/runs/1",
        "/drills",
        "/storage",
        "/audit",
    ];
    let seen = browse(&respaldo, &token, "screens", &paths);
    let screens = seen["screens"].as_array().unwrap();
    assert_eq!(screens.len(), 4 * (paths.len() + 1));
    for screen in screens {
        assert_eq!(screen["violations"], serde_json::json!([]), "{screen:#}");
        assert!(screen["too_wide"].as_i64().unwrap() <= 0, "{screen:#}");
    }
    let heading = |path: &str| {
        let screen = screens.iter().find(|screen| screen["path"] == path).unwrap();
        screen["heading"].as_str().unwrap().to_owned()
    };
    assert_eq!(heading("/"), "The backups of broken need a look.");
    assert!(heading("/jobs/shop").starts_with("shop"));
    let cookie = format!("respaldo={token}");
    let missing = http::request(respaldo.port, "GET", "/jobs/nobody", &[("cookie", &cookie)], "");
    let missing = missing.unwrap();
    assert!(missing.status == 404 && missing.body.contains("Not here"), "{missing:?}");
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn the_page_follows_a_run_to_its_end_by_itself() {
    let (respaldo, token) = scene();
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    let seen = browse(&respaldo, &token, "live", &["/jobs/media"]);
    assert_eq!(seen["state"], "succeeded", "{seen:#}");
    assert_eq!(seen["arrivals"], serde_json::json!([]), "nothing was loaded anew: {seen:#}");
    let numbers = |name: &str| -> Vec<i64> {
        seen[name].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect()
    };
    let mut progress = numbers("progress");
    assert!(progress.is_sorted(), "{progress:?}");
    progress.dedup();
    assert!(progress.len() > 2, "it was seen to go on: {progress:?}");
    assert!(numbers("lines").iter().any(|lines| *lines > 0), "the log grew: {seen:#}");
    assert!(seen["log"].as_str().unwrap().contains("is committed"), "{seen:#}");
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn without_a_script_it_works_too() {
    let (respaldo, token) = scene();
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    let seen = browse(&respaldo, &token, "plain", &["/jobs/media"]);
    assert_eq!(seen["sentence"], "The backups of broken need a look.");
    assert!(["queued", "running"].contains(&seen["begun"].as_str().unwrap()), "{seen:#}");
    assert_eq!(seen["left"], "/login");
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn it_can_be_used_by_keyboard_and_heard() {
    let (respaldo, token) = scene();
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    let seen = browse(&respaldo, &token, "keyboard", &[]);
    assert_eq!(seen["skip"], "Skip to the content");
    assert_eq!((&seen["seen"], &seen["inside"]), (&Value::Bool(true), &Value::Bool(true)));
    let pictures: Vec<&str> =
        seen["pictures"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let strip = "the last 2 backups: 2 succeeded, 0 partial or cancelled, 0 failed";
    assert!(pictures.contains(&strip), "{pictures:?}");
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn it_offers_and_does_no_more_than_a_role_may() {
    let respaldo = Respaldo::new(CONFIG);
    tool(Command::new("sqlite3").arg(respaldo.path("shop.db")).arg("CREATE TABLE orders (id)"));
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    let token = |name: &str, role: &str| {
        let made = respaldo.run(&["token", "create", name, "--role", role]).expect(0).stdout;
        format!("respaldo={}", made.trim())
    };
    let (viewer, operator) = (token("anna", "viewer"), token("ops", "operator"));
    let ask = |method: &str, path: &str, cookie: &str, body: &str| {
        let origin = format!("http://127.0.0.1:{}", respaldo.port);
        let form = ("content-type", "application/x-www-form-urlencoded");
        let headers = [("cookie", cookie), ("origin", origin.as_str()), form];
        http::request(respaldo.port, method, path, &headers, body).unwrap()
    };
    for path in ["/", "/jobs/shop", "/runs", "/runs/1", "/drills", "/storage", "/audit"] {
        let nobody = ask("GET", path, "", "");
        assert_eq!((nobody.status, nobody.header("location")), (303, Some("/login")), "{path}");
    }
    assert_eq!(ask("GET", "/audit", &operator, "").status, 403);
    assert!(!ask("GET", "/", &operator, "").body.contains("/audit"));
    for (cookie, may) in [(&viewer, false), (&operator, true)] {
        let offered = ask("GET", "/jobs/shop", cookie, "").body.contains("Back up now");
        let done = ask("POST", "/jobs/shop/run", cookie, "kind=backup");
        assert_eq!((offered, done.status), (may, if may { 303 } else { 403 }), "{done:?}");
    }
    for (path, body, status) in [
        ("/jobs/shop/run", "kind=restore", 404),
        ("/jobs/nobody/run", "kind=backup", 404),
        ("/jobs/shop/run", "kind=backup&label=x", 422),
        ("/runs/none/cancel", "", 404),
    ] {
        assert_eq!(ask("POST", path, &operator, body).status, status, "{path} {body}");
    }
    let audit = respaldo.run(&["audit", "--job", "shop", "--json"]).expect(0).json();
    let rows = audit.as_array().unwrap();
    let asked = rows.iter().filter(|row| row["action"] == "backup" && row["actor"] == "token:ops");
    assert_eq!(asked.count(), 2, "its intent and its outcome: {audit:#}");
    assert_eq!(daemon.terminate(), 0);
}
