//! The API: every operation of its document for the right role and refused to everybody else, what each
//! of them does, and that no answer gives away a secret.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::config::{HEAD, LOCAL};
use crate::support::http::{self, Reply};
use crate::support::postgres::Postgres;
use crate::support::process;
use crate::support::program::{Daemon, Respaldo};
use crate::support::s3::S3;
use crate::support::scene;
use crate::support::slack::Slack;
use crate::support::{DEADLINE, eventually, testbed, tool};

const ROLES: [&str; 3] = ["viewer", "operator", "admin"];

/// A job that is done at once and one that never ends, and a token of each role.
struct Shop {
    respaldo: Respaldo,
    daemon: Daemon,
    tokens: Vec<String>,
}

fn shop() -> Shop {
    let respaldo = Respaldo::new(&format!(
        "timezone = \"UTC\"\n{HEAD}{LOCAL}[jobs.shop]\nsource = {{ sqlite = \"@DIR@/shop.db\" }}\n\
         keep = {{ local = {{ days = 7 }} }}\ncatch_up = false\nretries = 0\n\
         verify = {{ schedule = \"@yearly\" }}\n\
         [jobs.slow]\nsource = {{ command = [\"sleep\", \"600\"] }}\ncatch_up = false\nretries = 0\n"
    ));
    tool(
        Command::new("sqlite3")
            .arg(respaldo.path("shop.db"))
            .arg("CREATE TABLE t AS SELECT 1 AS n"),
    );
    respaldo.run(&["backup", "shop"]).expect(0);
    let make = |role| {
        let made = respaldo.run(&["token", "create", role, "--role", role]).expect(0);
        made.stdout.trim().to_owned()
    };
    let tokens = ROLES.map(make).to_vec();
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    Shop { respaldo, daemon, tokens }
}

impl Shop {
    /// As who has that role.
    fn ask(&self, role: &str, method: &str, path: &str, body: Option<&str>) -> Reply {
        let token = &self.tokens[ROLES.iter().position(|known| *known == role).unwrap()];
        self.ask_with(Some(token), method, path, body)
    }

    fn ask_with(&self, token: Option<&str>, method: &str, path: &str, body: Option<&str>) -> Reply {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers: Vec<(&str, &str)> = Vec::new();
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        headers.extend(body.map(|_| ("content-type", "application/json")));
        http::request(self.respaldo.port, method, path, &headers, body.unwrap_or("")).unwrap()
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let reply = self.ask("admin", "GET", &format!("/api/v1/{path}"), None);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        reply.json()
    }

    #[track_caller]
    fn post(&self, path: &str, body: Option<Value>, status: u16) -> Reply {
        let body = body.map(|body| body.to_string());
        let reply = self.ask("operator", "POST", &format!("/api/v1/{path}"), body.as_deref());
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
        reply
    }

    /// Waits until a run is in one of these states.
    fn wait_for_run(&self, run: &Value, states: &[&str]) -> Value {
        let path = format!("runs/{run}");
        let is_so = || states.contains(&self.get(&path)["state"].as_str().unwrap());
        eventually(&format!("run {run} is {states:?}"), is_so);
        self.get(&path)
    }

    fn newest(&self) -> String {
        self.get("jobs/shop/backups")[0]["id"].as_str().unwrap().to_owned()
    }

    /// A connection on which a run is followed, after its head.
    fn follow(&self, run: &Value) -> (u16, BufReader<TcpStream>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.respaldo.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let token = &self.tokens[0];
        let head = format!(
            "GET /api/v1/runs/{run}/events HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut status = String::new();
        reader.read_line(&mut status).unwrap();
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 2 {
            line.clear();
        }
        (status.split(' ').nth(1).unwrap().parse().unwrap(), reader)
    }
}

/// An operation of the document, with the role that it takes.
struct Operation {
    method: String,
    path: String,
    role: String,
    takes_body: bool,
    query: bool,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            found.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                role: operation["security"][0]["token"][0].as_str().unwrap().to_owned(),
                takes_body: operation["requestBody"].is_object(),
                query: parameters.iter().any(|parameter| parameter["in"] == "query"),
            });
        }
    }
    found
}

#[test]
fn every_operation_takes_its_role_and_refuses_everybody_else() {
    let shop = shop();
    let id = shop.newest();
    let artifact = shop.get(&format!("backups/shop/{id}"))["artifacts"][0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let operations = operations(&shop.get("openapi.json"));
    assert!(operations.len() >= 27, "{}", operations.len());
    let roles: BTreeSet<&str> =
        operations.iter().map(|operation| operation.role.as_str()).collect();
    assert_eq!(roles, ROLES.into());
    for operation in &operations {
        let name = if operation.path.contains("artifacts") { &artifact } else { "nobody" };
        let path = operation.path.replace("{job}", "shop").replace("{id}", &id);
        let path = path.replace("{run}", "1").replace("{name}", name);
        let method = operation.method.as_str();
        let what = format!("{method} {path}");
        assert_eq!(shop.ask_with(None, method, &path, None).status, 401, "{what}");
        let wrong = shop.ask_with(Some("rsp_wrong"), method, &path, None);
        assert!([401, 429].contains(&wrong.status), "{what}: {}", wrong.status);
        let needed = ROLES.iter().position(|role| *role == operation.role).unwrap();
        for role in &ROLES[..needed] {
            let reply = shop.ask(role, method, &path, None);
            assert_eq!(reply.status, 403, "{what} as {role}: {}", reply.body);
            assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}");
        }
        if method != "GET" {
            // A browser in which an administrator is logged in, on somebody else's page.
            let cookie = format!("respaldo={}", shop.tokens[2]);
            let headers = [("cookie", cookie.as_str()), ("origin", "http://evil.example")];
            let reply = http::request(shop.respaldo.port, method, &path, &headers, "").unwrap();
            assert_eq!(reply.status, 403, "{what} from another site");
        }
        for role in &ROLES[needed..] {
            let reply = shop.ask(role, method, &path, None);
            let fine = [200, 201, 202, 204, 404, 409, 422].contains(&reply.status);
            assert!(
                fine && (method != "GET" || reply.status == 200),
                "{what} as {role}: {reply:?}"
            );
        }
        if operation.takes_body {
            let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(70_000));
            for (body, wanted) in
                [("{", 400), ("{\"nope\":1}", 422), ("[]", 422), (huge.as_str(), 413)]
            {
                let reply = shop.ask(&operation.role, method, &path, Some(body));
                assert_eq!(reply.status, wanted, "{what}: {:.200}", reply.body);
                assert_eq!(
                    reply.header("content-type"),
                    Some("application/problem+json"),
                    "{what}"
                );
            }
        }
        if operation.query {
            let reply = shop.ask(&operation.role, method, &format!("{path}?nope=1"), None);
            assert_eq!(reply.status, 400, "{what}: {}", reply.body);
        }
        for (good, bad) in [("shop", "SHOP"), (id.as_str(), "latest"), ("runs/1", "runs/x")] {
            if path.contains(good) {
                let reply = shop.ask(&operation.role, method, &path.replace(good, bad), None);
                assert_eq!(reply.status, 404, "{what} with {bad}: {}", reply.body);
            }
        }
    }
    assert_eq!(shop.daemon.terminate(), 0);
}

#[test]
fn no_route_of_the_api_is_outside_its_document() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api");
    let text = |name: &str| std::fs::read_to_string(format!("{source}{name}")).unwrap();
    // The document itself is the one route that is not in the document.
    assert_eq!(text("/v1.rs").matches(".route(").count(), 1);
    assert_eq!(text(".rs").matches("\"/api/").count(), 0);
}

#[test]
fn a_backup_is_asked_for_followed_looked_at_pinned_and_taken_away() {
    let shop = shop();
    let run = shop.post("jobs/shop/backup", Some(json!({ "label": "pre-migration" })), 202).json()
        ["run"]
        .clone();
    let (status, reader) = shop.follow(&run);
    assert_eq!(status, 200);
    let events: Vec<String> = reader.lines().map(|line| line.unwrap()).collect();
    let last = events.iter().rposition(|line| line == "event: end").expect("it did not end");
    let end: Value =
        serde_json::from_str(events[last + 1].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((&end["id"], &end["state"]), (&run, &"succeeded".into()), "{events:#?}");
    assert!(
        events.iter().any(|line| line.starts_with("data: ") && line.contains("is committed")),
        "{events:#?}"
    );
    let seen = shop.get(&format!("runs/{run}"));
    assert_eq!((&seen["trigger"], &seen["label"]), (&"manual".into(), &"pre-migration".into()));

    let log = shop.ask("viewer", "GET", &format!("/api/v1/runs/{run}/log"), None);
    assert!(log.body.contains("is committed") && log.body.ends_with('\n'), "{}", log.body);
    let next: usize = log.header("x-next-offset").unwrap().parse().unwrap();
    assert_eq!(next, log.body.len());
    let rest = shop.ask("viewer", "GET", &format!("/api/v1/runs/{run}/log?offset=10"), None);
    assert_eq!(rest.body, log.body[10..]);

    // One page after the other.
    let first = shop.get("runs?limit=1");
    assert_eq!((&first["runs"][0]["id"], &first["next"]), (&run, &run));
    let second = shop.get(&format!("runs?limit=1&before={run}"));
    assert_eq!(second["runs"][0]["id"], 1);
    assert_eq!(shop.get("runs?before=1")["runs"], json!([]));
    for (filter, count) in
        [("job=shop", 2), ("job=slow", 0), ("kind=drill", 0), ("state=succeeded&kind=backup", 2)]
    {
        let found = shop.get(&format!("runs?{filter}"));
        assert_eq!(found["runs"].as_array().unwrap().len(), count, "{filter}");
    }
    for wrong in ["limit=0", "limit=1001", "before=x", "kind=nope", "state=", "job=../x"] {
        let reply = shop.ask("viewer", "GET", &format!("/api/v1/runs?{wrong}"), None);
        assert_eq!(reply.status, 400, "{wrong}: {}", reply.body);
    }

    let id = shop.newest();
    let shown = shop.get(&format!("backups/shop/{id}"));
    assert_eq!(
        (&shown["label"], &shown["destinations"][0]["pinned"]),
        (&"pre-migration".into(), &false.into())
    );
    let kept = &shown["retention"][0];
    assert_eq!((&kept["destination"], &kept["keep"]), (&"local".into(), &true.into()));
    assert!(!kept["reasons"].as_array().unwrap().is_empty(), "{kept}");
    let plan = shop.get("jobs/shop/plan");
    assert_eq!(plan[0]["decisions"].as_array().unwrap().len(), 2, "{plan}");
    shop.post(&format!("backups/shop/{id}/pin"), Some(json!({ "note": "kept" })), 200);
    let pinned = || shop.get(&format!("backups/shop/{id}"))["destinations"][0]["pinned"].clone();
    assert_eq!(pinned(), true);
    shop.post(&format!("backups/shop/{id}/unpin"), None, 200);
    assert_eq!(pinned(), false);
    shop.post("backups/shop/20200101T000000Z/pin", None, 404);

    let artifact = &shown["artifacts"][0];
    let name = artifact["name"].as_str().unwrap();
    let bytes =
        download(&shop, &format!("/api/v1/backups/shop/{id}/artifacts/{name}?destination=local"));
    assert_eq!(bytes.len() as u64, artifact["stored_bytes"].as_u64().unwrap());
    assert_eq!(hex::encode(Sha256::digest(&bytes)), artifact["stored_sha256"].as_str().unwrap());
    for (path, status) in [
        (format!("backups/shop/{id}/artifacts/nope"), 404),
        (format!("backups/shop/{id}/artifacts/..%2Fmanifest.json"), 404),
        (format!("backups/shop/{id}/artifacts/{name}?destination=nope"), 404),
        (format!("backups/nope/{id}/artifacts/{name}"), 404),
    ] {
        let reply = shop.ask("admin", "GET", &format!("/api/v1/{path}"), None);
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
    }

    let plan = shop.post("jobs/shop/restore-plan", Some(json!({ "id": id })), 200).json();
    assert_eq!(plan["command"], format!("respaldo restore shop {id} --destination local"));
    assert!(!plan["lines"].as_array().unwrap().is_empty(), "{plan}");
    shop.post("jobs/shop/restore-plan", Some(json!({ "id": "20200101T000000Z" })), 404);
    shop.post("jobs/shop/restore-plan", Some(json!({ "database": "x; rm -rf /" })), 422);

    let drill = shop.post("jobs/shop/drill", None, 202).json()["run"].clone();
    let verify = shop.post("jobs/shop/verify", None, 202).json()["run"].clone();
    shop.post("jobs/slow/verify", None, 409);
    for run in [&drill, &verify] {
        assert_eq!(shop.wait_for_run(run, &["succeeded", "failed"])["state"], "succeeded");
    }
    let drills = shop.get("drills?job=shop");
    assert_eq!((&drills[0]["run"], &drills[0]["proven"]), (&drill, &true.into()), "{drills}");
    assert_eq!(shop.get("jobs").as_array().unwrap().len(), 2);
    assert_eq!(shop.get("health")["jobs"][0]["job"], "shop");
    assert!(
        shop.get("status")["runs"].is_array()
            && shop.get("report?month=2025-01")["jobs"].is_array()
    );

    let audit = shop.get("audit?limit=1000");
    let rows = audit["events"].as_array().unwrap();
    for (action, actor) in [
        ("backup", "token:operator"),
        ("pin", "token:operator"),
        ("unpin", "token:operator"),
        ("drill", "token:operator"),
        ("verify", "token:operator"),
        ("download", "token:admin"),
    ] {
        for outcome in ["begun", "done"] {
            let found = rows.iter().any(|row| {
                row["action"] == action
                    && row["outcome"] == outcome
                    && row["actor"] == actor
                    && row["from"] == "127.0.0.1"
            });
            assert!(found, "{action} {outcome} by {actor} is not in {rows:#?}");
        }
    }
    assert_eq!(shop.daemon.terminate(), 0);
}

/// The bytes themselves.
fn download(shop: &Shop, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", shop.respaldo.port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!(
        "GET {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        shop.tokens[2]
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    let end = reply.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    assert!(reply.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&reply));
    reply.split_off(end + 4)
}

#[test]
fn a_run_is_followed_by_so_many_and_no_more_and_cancelled() {
    let shop = shop();
    let run = shop.post("jobs/slow/backup", None, 202).json()["run"].clone();
    shop.wait_for_run(&run, &["running"]);
    let mut listeners: Vec<_> = (0..32).map(|_| shop.follow(&run)).collect();
    assert!(listeners.iter().all(|(status, _)| *status == 200));
    assert_eq!(shop.follow(&run).0, 503);
    // A seat is free again when somebody goes.
    drop(listeners.pop());
    eventually("a seat is free", || shop.follow(&run).0 == 200);
    shop.post(&format!("runs/{run}/cancel"), None, 202);
    assert_eq!(shop.wait_for_run(&run, &["cancelled", "failed"])["state"], "cancelled");
    let (_, mut first) = listeners.remove(0);
    let mut told = String::new();
    first.read_to_string(&mut told).unwrap();
    assert!(told.contains("event: progress") && told.contains("event: end"), "{told}");
    assert!(told.contains("\"state\":\"cancelled\""), "{told}");
    shop.post(&format!("runs/{run}/cancel"), None, 409);
    shop.post("runs/999/cancel", None, 404);
    assert_eq!(shop.daemon.terminate(), 0);
}

#[test]
fn tokens_and_the_config_are_in_an_administrators_hand() {
    let shop = shop();
    let admin = |method: &str, path: &str, body: Option<&str>| {
        shop.ask("admin", method, &format!("/api/v1/{path}"), body)
    };
    let made = admin("POST", "tokens", Some("{\"name\":\"anna\",\"role\":\"viewer\",\"days\":1}"));
    assert_eq!(made.status, 201, "{}", made.body);
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let who = || shop.ask_with(Some(&token), "GET", "/api/v1/whoami", None).status;
    assert_eq!(who(), 200);
    let same = admin("POST", "tokens", Some("{\"name\":\"anna\",\"role\":\"viewer\"}"));
    assert_eq!(same.status, 409);
    for wrong in [
        "{\"name\":\"A\",\"role\":\"viewer\"}",
        "{\"name\":\"b\",\"role\":\"root\"}",
        "{\"name\":\"b\",\"role\":\"viewer\",\"days\":0}",
    ] {
        assert_eq!(admin("POST", "tokens", Some(wrong)).status, 422, "{wrong}");
    }
    assert!(shop.get("tokens").to_string().contains("\"anna\""));
    assert_eq!(admin("DELETE", "tokens/anna", None).status, 204);
    assert_eq!(who(), 401);
    assert_eq!(admin("DELETE", "tokens/anna", None).status, 404);

    let config = std::fs::read_to_string(shop.respaldo.path("respaldo.toml")).unwrap();
    shop.respaldo
        .write_config(&format!("{config}[jobs.third]\nsource = {{ files = \"@DIR@/x\" }}\n"));
    let reloaded = admin("POST", "reload", None);
    assert_eq!(reloaded.status, 200, "{}", reloaded.body);
    assert_eq!(shop.get("jobs").as_array().unwrap().len(), 3);
    shop.respaldo.write_config("nonsense = 1");
    let refused = admin("POST", "reload", None);
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("nonsense"), "{}", refused.body);
    assert_eq!(shop.get("jobs").as_array().unwrap().len(), 3);
    assert_eq!(shop.daemon.terminate(), 0);
}

#[test]
fn no_answer_no_page_and_nothing_that_is_kept_gives_a_secret_away() {
    let database = Postgres::start().database("whispers");
    database.psql("CREATE TABLE t AS SELECT 1 AS n");
    let (s3, slack) = (S3::start(), Slack::start());
    let fixed = "hunter2-fixed-admin-token";
    let config = format!(
        "{}[server.tokens.fixed]\nrole = \"admin\"\ntoken = \"{fixed}\"\n{}{}{}\
         [alerts.mail]\nemail = {{ from = \"a@b.pe\", to = [\"c@d.pe\"], smtp = \"smtp://u@127.0.0.1:1?tls=none\", \
         password = \"hunter2-smtp\" }}\n{}",
        scene::HEAD,
        scene::LOCAL,
        scene::offsite(&s3),
        scene::chat(&slack),
        scene::database_job(
            "db",
            &database,
            "schedule = \"@yearly\"\nverify = { schedule = \"@yearly\" }"
        )
    );
    let respaldo = Respaldo::new(&config).env("RUST_LOG", "respaldo=trace,info");
    let made = respaldo.run(&["token", "create", "anna", "--role", "admin"]).expect(0);
    let token = made.stdout.trim().to_owned();
    let daemon = respaldo.daemon();
    daemon.wait_for_log("is committed");
    let secrets =
        [database.password(), s3.secret_key, slack.token, "hunter2-smtp", fixed, token.as_str()];
    let bearer = format!("Bearer {token}");
    let ask = |method: &str, path: &str| {
        let headers = [("authorization", bearer.as_str())];
        http::request(respaldo.port, method, path, &headers, "").unwrap()
    };
    // Failures have words of their own.
    for path in ["jobs/db/backup", "jobs/db/drill", "jobs/db/restore-plan", "reload"] {
        let reply = ask("POST", &format!("/api/v1/{path}"));
        assert!(reply.status < 300, "{path}: {}", reply.body);
    }
    http::request(
        respaldo.port,
        "POST",
        "/login",
        &[("content-type", "application/x-www-form-urlencoded")],
        &format!("token={fixed}"),
    )
    .unwrap();
    let mut seen: Vec<(String, Vec<u8>)> = Vec::new();
    let id = ask("GET", "/api/v1/jobs/db/backups").json()[0]["id"].as_str().unwrap().to_owned();
    let document = ask("GET", "/api/v1/openapi.json").json();
    let gets = operations(&document)
        .into_iter()
        .filter(|one| one.method == "GET" && !one.path.contains("artifacts"));
    for operation in gets {
        let path = operation.path.replace("{job}", "db").replace("{id}", &id).replace("{run}", "1");
        let reply = ask("GET", &path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        seen.push((path, format!("{:?}{}", reply.headers, reply.body).into_bytes()));
    }
    assert!(seen.len() > 15);
    for path in [
        "/",
        "/jobs/db",
        "/runs",
        "/runs/1",
        "/drills",
        "/storage",
        "/audit",
        "/login",
        "/health",
        "/metrics",
        &format!("/jobs/db/backups/{id}"),
    ] {
        let reply = ask("GET", path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        seen.push((path.to_owned(), format!("{:?}{}", reply.headers, reply.body).into_bytes()));
    }
    // What runs has no secret in its arguments.
    let own = process::mentioning(respaldo.folder().to_str().unwrap());
    assert!(!own.is_empty());
    seen.extend(
        own.into_iter().map(|process| {
            (format!("arguments of {}", process.name), process.command.into_bytes())
        }),
    );
    seen.push(("log".into(), daemon.log().join("\n").into_bytes()));
    assert_eq!(daemon.terminate(), 0);
    let folders = [respaldo.path("data"), scene::local_root(&respaldo), scene::offsite_root(&s3)];
    let files = folders.iter().flat_map(walkdir::WalkDir::new).filter_map(Result::ok);
    for file in files.filter(|file| file.file_type().is_file()) {
        seen.push((file.path().display().to_string(), std::fs::read(file.path()).unwrap()));
    }
    for wanted in ["catalog.sqlite3", "manifest.json", "config.toml", "RESTORE.md"] {
        assert!(seen.iter().any(|(name, _)| name.ends_with(wanted)), "{wanted}");
    }
    for (name, bytes) in &seen {
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {name}: {}", String::from_utf8_lossy(bytes));
        }
    }
}

#[test]
fn whatever_its_document_allows_and_forbids_the_api_answers_as_it_says() {
    let shop = shop();
    let schemathesis = testbed("venv/bin/schemathesis");
    // Names that are there, so that it comes as far as the work itself.
    shop.respaldo.write(
        "schemathesis.toml",
        &format!(
            "[auth.openapi.token]\nbearer = \"${{TOKEN}}\"\n[parameters]\n\"path.job\" = \"shop\"\n\
             \"path.id\" = \"{}\"\n\"path.run\" = 1\n[[operations]]\n\
             include-path = \"/api/v1/backups/{{job}}/{{id}}/artifacts/{{name}}\"\n\
             [operations.parameters]\n\"path.name\" = \"shop.sqlite3.zst\"\n",
            shop.newest()
        ),
    );
    let url = format!("http://127.0.0.1:{}", shop.respaldo.port);
    let document = shop.respaldo.write("openapi.json", &shop.get("openapi.json").to_string());
    let mut command = Command::new(schemathesis);
    command
        .arg("--config-file")
        .arg(shop.respaldo.path("schemathesis.toml"))
        .args(["run", "--url", &url, "--max-examples", "20", "--seed", "1", "--no-shrink"])
        .args(["--phases", "examples,coverage,fuzzing", "--checks", "all"])
        // It guesses more often than ten times a minute, and is told to wait.
        .args(["--exclude-checks", "ignored_auth"])
        .args(["--continue-on-failure", "--request-timeout", "30"])
        .args(["--suppress-health-check", "all"])
        .arg(document)
        .current_dir(shop.respaldo.folder())
        .env("TOKEN", &shop.tokens[2]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        !shop.daemon.log().iter().any(|line| line.contains("panicked")),
        "{:#?}",
        shop.daemon.log()
    );
    assert_eq!(shop.daemon.terminate(), 0);
}
