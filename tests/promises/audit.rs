//! Who did what, when, from where: nothing is missing in the audit, nothing is changed in it, and a
//! deed that was cut off is seen.

use std::process::Command;

use serde_json::Value;

use crate::support::config::{HEAD, LOCAL};
use crate::support::http;
use crate::support::program::Respaldo;
use crate::support::tool;

const TOKEN: &str = "fixed-operator-token-0123";

fn shop() -> Respaldo {
    let respaldo = Respaldo::new(&format!(
        "timezone = \"UTC\"\n{HEAD}[server.tokens.ci]\nrole = \"operator\"\ntoken = \"{TOKEN}\"\n{LOCAL}\
         [jobs.shop]\nsource = {{ sqlite = \"@DIR@/shop.db\" }}\nkeep = {{ local = {{ last = 1 }} }}\n\
         catch_up = false\nretries = 0\nverify = {{ schedule = \"@yearly\" }}\n"
    ));
    tool(Command::new("sqlite3").arg(respaldo.path("shop.db")).arg("CREATE TABLE t AS SELECT 1"));
    respaldo
}

/// The whole audit, oldest first.
fn audit(respaldo: &Respaldo) -> Vec<Value> {
    let rows = respaldo.run(&["audit", "--json"]).expect(0).json();
    rows.as_array().unwrap().iter().rev().cloned().collect()
}

/// Action and outcome of each row, in order.
fn deeds(rows: &[Value]) -> Vec<(&str, &str)> {
    rows.iter()
        .map(|row| (row["action"].as_str().unwrap(), row["outcome"].as_str().unwrap()))
        .collect()
}

fn person() -> String {
    let user = Command::new("id").arg("-un").output().unwrap();
    format!("cli:{}", String::from_utf8(user.stdout).unwrap().trim())
}

#[test]
fn what_a_person_does_at_the_command_line_is_written_down_before_and_after() {
    let respaldo = shop();
    respaldo.run(&["backup", "shop"]).expect(0);
    let id =
        respaldo.run(&["list", "--json"]).expect(0).json()[0]["id"].as_str().unwrap().to_owned();
    respaldo.run(&["pin", "shop", &id, "--note", "kept for Anna"]).expect(0);
    respaldo.run(&["unpin", "shop", &id]).expect(0);
    respaldo.run(&["verify", "shop"]).expect(0);
    respaldo.run(&["verify", "shop", "--due"]).expect(0);
    respaldo.run(&["drill", "shop"]).expect(0);
    respaldo.run(&["restore", "shop", "--yes"]).expect(0);
    respaldo.run(&["undo", "shop", "--yes"]).expect(0);
    respaldo.run(&["erase", "shop", "--sql", "DELETE FROM t", "--yes"]).expect(0);
    respaldo.run(&["token", "create", "anna", "--role", "viewer"]).expect(0);
    respaldo.run(&["token", "revoke", "anna"]).expect(0);
    respaldo.run(&["cancel", "1"]).expect(2);
    // `last = 1`: the third one deletes the second; the first is the one that is proven.
    respaldo.run(&["backup", "shop"]).expect(0);
    let list = respaldo.run(&["list", "--json"]).expect(0).json();
    let doomed = list[0]["id"].clone();
    respaldo.run(&["backup", "shop"]).expect(0);
    // Looking changes nothing, and is not written down.
    respaldo.run(&["list"]).expect(0);
    respaldo.run(&["prune", "--dry-run"]).expect(0);
    respaldo.run(&["restore", "shop", "--dry-run"]).expect(0);

    let rows = audit(&respaldo);
    let pairs = [
        ("backup", "done"),
        ("pin", "done"),
        ("unpin", "done"),
        ("verify", "done"),
        ("verify", "done"),
        ("drill", "done"),
        ("restore", "done"),
        ("undo", "done"),
        ("erase", "done"),
        ("token_create", "done"),
        ("token_revoke", "done"),
        ("cancel", "failed"),
    ];
    let mut expected: Vec<(&str, &str)> = pairs
        .iter()
        .flat_map(|(action, outcome)| [(*action, "begun"), (*action, *outcome)])
        .collect();
    // Retention is a part of the run.
    expected.extend([("backup", "begun"), ("backup", "done"), ("backup", "begun")]);
    expected.extend([("prune", "begun"), ("prune", "done"), ("backup", "done")]);
    assert_eq!(deeds(&rows), expected, "{rows:#?}");
    let person = person();
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(
            (row["actor"].as_str(), row["from"].as_str()),
            (Some(person.as_str()), Some("local"))
        );
        assert_eq!(row["seq"], number + 1);
        if row["outcome"] != "begun" {
            let intent = row["intent"].as_u64().unwrap();
            let begun = &rows[usize::try_from(intent).unwrap() - 1];
            assert_eq!((&begun["action"], &begun["outcome"]), (&row["action"], &"begun".into()));
        }
    }
    let row = |action: &str| rows.iter().find(|row| row["action"] == action).unwrap();
    assert_eq!(row("pin")["subject"], id.as_str());
    assert_eq!(row("pin")["detail"], "kept for Anna");
    assert!(row("restore")["detail"].as_str().unwrap().contains(&id), "{}", row("restore"));
    assert_eq!(row("prune")["detail"], doomed);
    assert_eq!(row("token_create")["subject"], "anna");
    let table = respaldo.run(&["audit", "--since", "1h", "--job", "shop"]).expect(0).stdout;
    assert!(table.contains("kept for Anna") && !table.contains("token_create"), "{table}");
    assert!(!table.contains("not ended"), "{table}");
    assert_eq!(respaldo.run(&["audit", "--since", "0s", "--json"]).expect(0).stdout.trim(), "[]");
}

#[test]
fn a_restore_that_was_killed_is_seen() {
    let respaldo = shop();
    respaldo.run(&["backup", "shop"]).expect(0);
    // Killed when it is about to put the file in place: by renames, or by a link.
    let killed = respaldo.run_killed_at(
        "rename,renameat,renameat2,link,linkat",
        1,
        &["restore", "shop", "--yes"],
    );
    assert!(killed.code < 0, "{killed:?}");
    let rows = audit(&respaldo);
    let last = rows.last().unwrap();
    assert_eq!(
        (&last["action"], &last["outcome"]),
        (&"restore".into(), &"begun".into()),
        "{rows:#?}"
    );
    let table = respaldo.run(&["audit"]).expect(0).stdout;
    assert!(table.contains("begun, and not ended"), "{table}");
}

#[test]
fn nothing_in_the_audit_is_changed_or_deleted() {
    let respaldo = shop();
    respaldo.run(&["token", "create", "anna", "--role", "viewer"]).expect(0);
    let before = audit(&respaldo);
    assert_eq!(before.len(), 2);
    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    for sql in [
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit (seq, at, actor, origin, action, outcome)
         VALUES (1, 0, 'nobody', 'local', 'restore', 'done')",
    ] {
        let error = catalog.execute(sql, []).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{sql}: {error}");
    }
    assert_eq!(audit(&respaldo), before);
}

#[test]
fn a_deed_that_can_not_be_written_down_does_not_take_place() {
    let respaldo = shop();
    respaldo.run(&["backup", "shop"]).expect(0);
    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    catalog
        .execute_batch("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        .unwrap();
    let id =
        respaldo.run(&["list", "--json"]).expect(0).json()[0]["id"].as_str().unwrap().to_owned();
    let refused = respaldo.run(&["pin", "shop", &id]).expect(1);
    assert!(refused.stderr.contains("write into the audit"), "{}", refused.stderr);
    let list = respaldo.run(&["list", "--json"]).expect(0).json();
    assert_eq!(list[0]["destinations"][0]["pinned"], false);
    respaldo.run(&["restore", "shop", "--yes"]).expect(1);
}

#[test]
fn who_comes_over_http_is_written_down_once_a_day_and_floods_are_folded() {
    let respaldo = shop();
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    let who = |token: &str| {
        let token = format!("Bearer {token}");
        let headers = [("authorization", token.as_str())];
        http::request(respaldo.port, "GET", "/api/v1/whoami", &headers, "").unwrap().status
    };
    for _ in 0..3 {
        assert_eq!(who(TOKEN), 200);
    }
    for _ in 0..25 {
        assert_ne!(who("rsp_wrong"), 200);
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    http::request(respaldo.port, "POST", "/login", &form, &format!("token={TOKEN}")).unwrap();
    let origin = format!("http://127.0.0.1:{}", respaldo.port);
    let cookie = format!("respaldo={TOKEN}");
    let out = [("cookie", cookie.as_str()), ("origin", origin.as_str())];
    http::request(respaldo.port, "POST", "/logout", &out, "").unwrap();
    daemon.reload();
    daemon.wait_for_log("was read again");
    // What commands do is in the daemon's log as well.
    respaldo.run(&["token", "create", "anna", "--role", "viewer"]).expect(0);
    let line = daemon.wait_for_log("action=token_create outcome=done");
    assert!(
        line.contains(&format!("actor={}", person())) && line.contains("subject=anna"),
        "{line}"
    );
    let rows = audit(&respaldo);
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row["actor"].as_str().unwrap(),
                row["action"].as_str().unwrap(),
                row["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told[..7],
        [
            ("token:ci", "token_use", "done"),
            ("anonymous", "token_use", "refused"),
            ("anonymous", "token_use", "refused"),
            ("token:ci", "login", "done"),
            ("token:ci", "logout", "done"),
            ("signal", "reload", "begun"),
            ("signal", "reload", "done"),
        ],
        "{rows:#?}"
    );
    assert!(rows[..5].iter().all(|row| row["from"] == "127.0.0.1"));
    assert_eq!(rows[2]["detail"], "a wrong token, 10 in this hour");
    assert_eq!(daemon.terminate(), 0);
    // Each row is logged once, also after a restart.
    let again = respaldo.daemon();
    again.wait_for_log("on http://");
    respaldo.run(&["token", "revoke", "anna"]).expect(0);
    again.wait_for_log("action=token_revoke outcome=done");
    assert!(!again.log().iter().any(|line| line.contains("token_create")), "{:#?}", again.log());
    assert_eq!(again.terminate(), 0);
}

#[test]
fn what_the_daemon_deletes_and_what_a_role_may_not_do_is_written_down() {
    let respaldo = shop();
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    let bearer = format!("Bearer {TOKEN}");
    let ask = |method: &str, path: &str| {
        let headers = [("authorization", bearer.as_str())];
        http::request(respaldo.port, method, path, &headers, "").unwrap()
    };
    for count in 1..=2 {
        assert_eq!(ask("POST", "/api/v1/jobs/shop/backup").status, 202);
        daemon.wait_for_logs("is committed", count);
    }
    daemon.wait_for_log("action=prune outcome=done");
    assert_eq!(ask("GET", "/api/v1/audit").status, 403);
    let rows = audit(&respaldo);
    let pruned: Vec<&Value> = rows.iter().filter(|row| row["action"] == "prune").collect();
    assert_eq!(pruned.len(), 2, "{rows:#?}");
    assert!(
        pruned.iter().all(|row| row["actor"] == "daemon" && row["from"] == "local"),
        "{pruned:?}"
    );
    let asked: Vec<&Value> = rows.iter().filter(|row| row["action"] == "backup").collect();
    assert!(asked.len() == 4 && asked.iter().all(|row| row["actor"] == "token:ci"), "{asked:?}");
    assert!(asked[1]["detail"].as_str().unwrap().starts_with("run "), "{asked:?}");
    let refused = rows.last().unwrap();
    assert_eq!((&refused["actor"], &refused["outcome"]), (&"token:ci".into(), &"refused".into()));
    assert!(refused["detail"].as_str().unwrap().starts_with("GET /api/v1/audit"), "{refused}");
    assert_eq!(daemon.terminate(), 0);
}
