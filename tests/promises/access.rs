//! Who is let in over HTTP, and who is not: tokens and roles, the page's cookie, names and origins of
//! requests, and what becomes of those who guess.

use serde_json::Value;

use crate::support::config::{HEAD, LOCAL};
use crate::support::http::{self, Reply};
use crate::support::program::{Daemon, Respaldo};

const FIXED: &str = "fixed-operator-token-0123";

/// `server` are further lines of its section.
fn respaldo(server: &str) -> Respaldo {
    let respaldo = Respaldo::new(&config(server));
    respaldo.write("media/a.jpg", "a");
    respaldo.write("token", &format!("{FIXED}\n"));
    respaldo
}

fn config(server: &str) -> String {
    format!(
        "{HEAD}{server}\n[server.tokens.ci]\nrole = \"operator\"\ntoken_file = \"@DIR@/token\"\n\
         {LOCAL}[jobs.media]\nsource = {{ files = \"@DIR@/media\" }}\ncatch_up = false\n"
    )
}

fn daemon(respaldo: &Respaldo) -> Daemon {
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    daemon
}

fn token(respaldo: &Respaldo, name: &str, role: &str) -> String {
    let made = respaldo.run(&["token", "create", name, "--role", role]).expect(0);
    made.stdout.trim().to_owned()
}

fn ask(
    respaldo: &Respaldo,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    http::request(respaldo.port, method, path, headers, body).unwrap()
}

fn who(respaldo: &Respaldo, token: &str) -> Reply {
    ask(respaldo, "GET", "/api/v1/whoami", &[("authorization", &format!("Bearer {token}"))], "")
}

#[track_caller]
fn assert_problem(reply: &Reply, status: u16) -> Value {
    assert_eq!(reply.status, status, "{}", reply.body);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let problem = reply.json();
    assert_eq!(problem["status"], status);
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    problem
}

#[test]
fn a_token_opens_until_it_is_revoked() {
    let respaldo = respaldo("");
    let daemon = daemon(&respaldo);
    assert_problem(&ask(&respaldo, "GET", "/api/v1/whoami", &[], ""), 401);
    assert_problem(&who(&respaldo, "rsp_wrong"), 401);
    let fixed = who(&respaldo, FIXED).json();
    assert_eq!((fixed["name"].as_str(), fixed["role"].as_str()), (Some("ci"), Some("operator")));

    let made = respaldo.run(&["token", "create", "anna", "--role", "admin"]).expect(0);
    let token = made.stdout.trim();
    assert!(token.starts_with("rsp_") && token.len() == 47, "{token}");
    let reply = who(&respaldo, token);
    assert_eq!((reply.status, reply.json()["role"].as_str()), (200, Some("admin")));
    assert_problem(&who(&respaldo, &token[..46]), 401);
    // A name is somebody's.
    respaldo.run(&["token", "create", "anna", "--role", "viewer"]).expect(2);
    respaldo.run(&["token", "create", "ci", "--role", "viewer"]).expect(2);
    respaldo.run(&["token", "create", "bob", "--role", "root"]).expect(2);

    let list = respaldo.run(&["token", "list", "--json"]).expect(0).json();
    let names: Vec<&str> =
        list.as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ci", "anna"]);
    assert!(list[1]["used_at"].is_string() && list[1]["revoked_at"].is_null(), "{list}");

    respaldo.run(&["token", "revoke", "anna"]).expect(0);
    assert_problem(&who(&respaldo, token), 401);
    respaldo.run(&["token", "revoke", "anna"]).expect(2);
    // The name is free again, and the old token stays what it is.
    respaldo.run(&["token", "create", "anna", "--role", "viewer"]).expect(0);
    assert_problem(&who(&respaldo, token), 401);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn a_token_opens_no_longer_than_it_should() {
    let respaldo = respaldo("");
    let daemon = daemon(&respaldo);
    let made = respaldo.run(&[
        "token",
        "create",
        "anna",
        "--role",
        "viewer",
        "--expires",
        "90d",
        "--json",
    ]);
    let made = made.expect(0).json();
    let token = made["token"].as_str().unwrap();
    assert_eq!(who(&respaldo, token).status, 200);
    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    let left: i64 = catalog
        .query_row("SELECT expires_at - created_at FROM tokens", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 90 * 24 * 3_600_000);
    catalog.execute("UPDATE tokens SET expires_at = ?", [made_at(&catalog)]).unwrap();
    assert_problem(&who(&respaldo, token), 401);
    assert_eq!(daemon.terminate(), 0);
}

fn made_at(catalog: &rusqlite::Connection) -> i64 {
    catalog.query_row("SELECT created_at FROM tokens", [], |row| row.get(0)).unwrap()
}

#[test]
fn nobody_is_let_in_without_a_token_unless_reading_is_open() {
    let respaldo = respaldo("anonymous = \"read\"");
    let daemon = daemon(&respaldo);
    let reply = ask(&respaldo, "GET", "/api/v1/whoami", &[], "");
    assert_eq!((reply.status, reply.json()["role"].as_str()), (200, Some("viewer")));
    // A wrong token is wrong all the same; one in a cookie is taken back.
    assert_problem(&who(&respaldo, "rsp_wrong"), 401);
    let stale = ask(&respaldo, "GET", "/api/v1/whoami", &[("cookie", "respaldo=rsp_old")], "");
    assert_problem(&stale, 401);
    assert!(stale.header("set-cookie").unwrap().starts_with("respaldo=; "), "{stale:?}");
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn whoever_guesses_has_to_wait_and_whoever_knows_does_not() {
    let respaldo = respaldo("");
    let token = token(&respaldo, "anna", "viewer");
    let daemon = daemon(&respaldo);
    // A minute may begin in between: then it takes twice as many.
    let replies: Vec<Reply> = (0..21).map(|n| who(&respaldo, &format!("rsp_{n}"))).collect();
    assert!(replies[..10].iter().all(|reply| reply.status == 401), "{replies:?}");
    let last = replies.iter().find(|reply| reply.status == 429).expect("nobody had to wait");
    assert_problem(last, 429);
    let wait: u64 = last.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(who(&respaldo, &token).status, 200);
    assert_eq!(daemon.health().0, 503);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn the_page_is_opened_by_a_cookie_that_scripts_and_other_sites_can_not_use() {
    let respaldo = respaldo("");
    let daemon = daemon(&respaldo);
    let form = ask(&respaldo, "GET", "/login", &[], "");
    assert!(form.status == 200 && form.body.contains("name=\"token\""), "{form:?}");
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let origin = format!("http://127.0.0.1:{}", respaldo.port);
    let from = ("origin", origin.as_str());
    let wrong = ask(&respaldo, "POST", "/login", &[kind, from], "token=wrong");
    assert_eq!((wrong.status, wrong.header("location")), (303, Some("/login?wrong")));
    assert_eq!(wrong.header("set-cookie"), None);
    let body = format!("token={FIXED}");
    let right = ask(&respaldo, "POST", "/login", &[kind, from], &body);
    assert_eq!((right.status, right.header("location")), (303, Some("/")));
    let cookie = right.header("set-cookie").unwrap();
    assert_eq!(cookie, format!("respaldo={FIXED}; Path=/; HttpOnly; SameSite=Strict"));
    let cookie = ("cookie", cookie.split(';').next().unwrap());
    assert_eq!(ask(&respaldo, "GET", "/api/v1/whoami", &[cookie], "").json()["name"], "ci");
    // Another site's form or script, in a browser that would send the cookie.
    for from in
        [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
    {
        assert_problem(&ask(&respaldo, "POST", "/logout", &[cookie, from], ""), 403);
        assert_problem(&ask(&respaldo, "POST", "/login", &[kind, from], &body), 403);
    }
    assert_problem(&ask(&respaldo, "POST", "/logout", &[cookie], ""), 403);
    let out = ask(&respaldo, "POST", "/logout", &[cookie, from], "");
    assert_eq!((out.status, out.header("location")), (303, Some("/login")));
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));

    respaldo.write_config(&config("secure_cookies = true"));
    daemon.reload();
    daemon.wait_for_log("was read again");
    let right = ask(&respaldo, "POST", "/login", &[kind, from], &body);
    assert!(right.header("set-cookie").unwrap().ends_with("; Secure"));
    assert_eq!(daemon.terminate(), 0);
}

/// One request in the words given, and the status of the answer.
fn raw(respaldo: &Respaldo, request: &str) -> u16 {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", respaldo.port)).unwrap();
    stream.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    stream.write_all(request.replace('\n', "\r\n").as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_name_that_is_not_ours_is_refused_so_that_no_site_can_have_a_browser_ask() {
    let respaldo = respaldo("hosts = [\"backups.example.com\"]");
    let daemon = daemon(&respaldo);
    let status =
        |path: &str, host: &str| raw(&respaldo, &format!("GET {path} HTTP/1.0\nHost: {host}\n\n"));
    for host in ["127.0.0.1:1", "localhost", "[::1]:80", "respaldo:8080", "BACKUPS.example.com"] {
        assert_eq!(status("/login", host), 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.nip.io:8080", "www.backups.example.com"] {
        assert_eq!(status("/login", host), 421, "{host}");
        assert_eq!(status("/health", host), 421, "{host}");
        assert_eq!(status("/livez", host), 200, "{host}");
    }
    assert_eq!(status("/login", "a b"), 400);
    assert_eq!(status("/login", "localhost\nHost: evil.example"), 400);
    assert_eq!(raw(&respaldo, "GET http://evil.example/login HTTP/1.0\nHost: localhost\n\n"), 400);
    assert_eq!(raw(&respaldo, "GET http://evil.example/login HTTP/1.0\n\n"), 421);
    // A probe of HTTP/1.0; no browser is one.
    assert_eq!(raw(&respaldo, "GET /login HTTP/1.0\n\n"), 200);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn every_answer_tells_browsers_what_they_may_not_do() {
    let respaldo = respaldo("");
    let daemon = daemon(&respaldo);
    for path in ["/health", "/livez", "/login", "/api/v1/whoami", "/nothing", "/api/v1/nothing"] {
        let reply = ask(&respaldo, "GET", path, &[], "");
        let policy = reply.header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{path} {name}");
        }
        assert!(["no-referrer", "same-origin"].contains(&reply.header("referrer-policy").unwrap()));
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
    assert_problem(&ask(&respaldo, "GET", "/api/v1/nothing", &[], ""), 404);
    assert_problem(&ask(&respaldo, "DELETE", "/login", &[], ""), 405);
    let large = "x".repeat(70_000);
    let kind = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(ask(&respaldo, "POST", "/login", &[kind], &large).status, 413);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn who_says_nothing_is_not_waited_for() {
    use std::io::{Read, Write};
    let respaldo = respaldo("");
    let daemon = daemon(&respaldo);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", respaldo.port)).unwrap();
    stream.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: local").unwrap();
    let mut told = Vec::new();
    // It is closed, long before the deadline.
    stream.read_to_end(&mut told).unwrap();
    assert!(!told.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&told));
    assert_eq!(daemon.terminate(), 0);
}
