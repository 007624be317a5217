//! The command line as scripts rely on it: the shape of every JSON, every help text, every exit code,
//! data on stdout and talk on stderr. What changes a snapshot here breaks somebody's script.

use std::fs;
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use serde_json::{Map, Value, json};

use crate::support::config::{HEAD, LOCAL, postgres};
use crate::support::hook::Hook;
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::stored::Stored;
use crate::support::{eventually, tool};

/// One job of each source in a folder, and `shop` in a second one that can be spoiled.
struct Shop {
    respaldo: Respaldo,
    database: Database,
}

fn shop() -> Shop {
    let database = Postgres::start().database("shop");
    database.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n");
    let respaldo = Respaldo::new(&format!(
        "timezone = \"UTC\"\n{HEAD}{LOCAL}[destinations.second]\nurl = \"file://@DIR@/second\"\n\
         [jobs.db]\nschedule = \"@daily\"\nkeep = {{ local = {{ days = 7 }} }}\nretries = 0\n{}\
         [jobs.media]\nkeep = {{ local = {{}} }}\nsource = {{ files = \"@DIR@/media\" }}\n\
         [jobs.shop]\nschedule = \"@daily\"\nkeep = {{ local = {{ last = 2 }}, second = {{ days = 7 }} }}\n\
         retries = 0\nsource = {{ sqlite = \"@DIR@/shop.db\" }}\n",
        postgres(&database, "")
    ));
    tool(Command::new("sqlite3").arg(respaldo.path("shop.db")).arg("CREATE TABLE t AS SELECT 1"));
    respaldo.write("media/a.jpg", "a");
    Shop { respaldo, database }
}

impl Shop {
    /// The second destination takes nothing from now on.
    fn spoil_second(&self) {
        let second = self.respaldo.path("second");
        drop(fs::remove_dir_all(&second));
        fs::write(second, "no folder").unwrap();
    }

    /// A snapshot's text: what differs from run to run or from machine to machine is named instead.
    fn redacted(&self, mut value: Value) -> String {
        self.redact("", &mut value);
        serde_json::to_string_pretty(&value).unwrap()
    }

    fn redact(&self, key: &str, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact(key, item)),
            Value::Object(fields) => {
                // Each key in its place, whatever order a map has.
                let mut sorted: Vec<(String, Value)> = std::mem::take(fields).into_iter().collect();
                sorted.sort_by(|one, other| one.0.cmp(&other.0));
                *fields = Map::from_iter(sorted);
                fields.iter_mut().for_each(|(key, value)| self.redact(key, value));
            }
            Value::Number(_) if key.contains("bytes") || key.contains("seconds") => {
                *value = json!(format!("[{key}]"));
            }
            Value::String(text) => *value = json!(self.redact_text(key, text)),
            _ => {}
        }
    }

    fn redact_text(&self, key: &str, text: &str) -> String {
        let is_time = text.parse::<jiff::Timestamp>().is_ok();
        let is_id = text.len() == 16 && text.ends_with('Z') && text.contains('T');
        if is_time || is_id || key.contains("sha256") {
            return if is_id {
                "[id]".into()
            } else if is_time {
                "[time]".into()
            } else {
                "[sha256]".into()
            };
        }
        if [
            "respaldo",
            "server_version",
            "tool",
            "system_id",
            "snapshot_lsn",
            "reads_with",
            "extensions",
            "collation_version",
            "host",
        ]
        .contains(&key)
        {
            return format!("[{key}]");
        }
        let text = text.replace(self.respaldo.folder().to_str().unwrap(), "[folder]");
        let text = text.replace(&self.database.name, "[database]");
        let text = text.replace(&format!(":{}/", self.database.port()), ":[port]/");
        let text = without_ids(&text);
        if key == "report" {
            return text[..text.rfind('/').unwrap()].to_owned() + "/[id].html";
        }
        if key == "log" { text[..text.rfind('_').unwrap()].to_owned() + "_[id].log" } else { text }
    }

    fn json(&self, arguments: &[&str], code: i32) -> String {
        self.redacted(self.respaldo.run(arguments).expect(code).json())
    }
}

/// `[id]` for each `20251124T020000Z` in a sentence.
fn without_ids(text: &str) -> String {
    let mut text = text.to_owned();
    let is_id = |part: &str| part.parse::<respaldo::model::BackupId>().is_ok();
    let ids: Vec<String> =
        text.split(['/', ' ', ':', '\'']).filter(|part| is_id(part)).map(str::to_owned).collect();
    for id in ids {
        text = text.replace(&id, "[id]");
    }
    text
}

#[test]
fn json_of_backup() {
    let shop = shop();
    assert_snapshot!(shop.json(&["backup", "--all", "--label", "pre-migration", "--json"], 0));
    shop.spoil_second();
    assert_snapshot!("json_of_backup_partial", shop.json(&["backup", "shop", "--json"], 3));
    shop.database.psql("ALTER TABLE t RENAME TO u");
    Postgres::start().psql("postgres", &format!("DROP DATABASE {}", shop.database.name));
    let failed = shop.json(&["backup", "db", "--json"], 1);
    // The line of PostgreSQL's own source, which sqlx tells.
    let parts = failed.split(" at line ");
    let parts = parts.map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
    assert_snapshot!("json_of_backup_failed", parts.collect::<String>());
}

#[test]
fn json_of_list_show_verify_and_prune() {
    let shop = shop();
    shop.respaldo.run(&["backup", "--all", "--label", "pre-migration"]).expect(0);
    // Newest first: which of three in a second that is, is not the contract's.
    let mut listed = shop.respaldo.run(&["list", "--json"]).expect(0).json();
    listed.as_array_mut().unwrap().sort_by_key(|backup| backup["job"].to_string());
    assert_snapshot!("json_of_list", shop.redacted(listed));
    let from = format!("file://{}", shop.respaldo.path("backups").display());
    assert_snapshot!(
        "json_of_list_from",
        shop.json(&["list", "shop", "--from", &from, "--json"], 0)
    );
    let id = Stored::newest(&shop.respaldo.path("backups"), "db").id();
    assert_snapshot!("json_of_show", shop.json(&["show", "db", &id, "--json"], 0));
    assert_snapshot!("json_of_verify", shop.json(&["verify", "shop", "--json"], 0));
    assert_snapshot!("json_of_prune", shop.json(&["prune", "--dry-run", "--json"], 0));
    assert_snapshot!("json_of_status", shop.json(&["status", "--json"], 0));
    let report = ["report", "--month", "2020-01", "--json"];
    assert_snapshot!("json_of_report", shop.json(&report, 0));
    assert_snapshot!("json_of_drill", shop.json(&["drill", "shop", "--json"], 0));
}

#[test]
fn json_of_sync_pin_and_import() {
    let shop = shop();
    shop.respaldo.run(&["backup", "shop"]).expect(0);
    let second = shop.respaldo.path("second");
    let id = Stored::newest(&second, "shop").id();
    assert_snapshot!("json_of_pin", shop.json(&["pin", "shop", &id, "--json"], 0));
    assert_snapshot!("json_of_unpin", shop.json(&["unpin", "shop", &id, "--json"], 0));
    fs::remove_dir_all(second.join("shop").join(&id)).unwrap();
    assert_snapshot!("json_of_sync_dry_run", shop.json(&["sync", "--dry-run", "--json"], 0));
    assert_snapshot!("json_of_sync", shop.json(&["sync", "shop", "--json"], 0));
    fs::remove_dir_all(second.join("shop").join(&id)).unwrap();
    shop.spoil_second();
    assert_snapshot!("json_of_sync_failed", shop.json(&["sync", "shop", "--json"], 1));
    tool(
        Command::new("touch")
            .args(["-d", "2025-11-24T02:00:00Z"])
            .arg(shop.respaldo.write("old/x.txt", "x")),
    );
    let dump = shop.respaldo.path("old/shop.db");
    tool(Command::new("sqlite3").arg(&dump).arg("CREATE TABLE u AS SELECT 2"));
    let folder = shop.respaldo.path("old").display().to_string();
    let import = ["import", &folder, "--job", "shop", "--dry-run", "--json"];
    assert_snapshot!("json_of_import", shop.json(&import, 0));
}

#[test]
fn json_of_alert_test() {
    let hook = Hook::start();
    hook.answer(403);
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.media]\nsource = {{ files = \"@DIR@/media\" }}\n\
         [alerts.hook]\nwebhook = {{ url = \"{}\" }}\n",
        hook.url()
    ));
    let tried = respaldo.run(&["alert", "test", "--json"]).expect(1).json();
    assert_snapshot!("json_of_alert_test", serde_json::to_string_pretty(&tried).unwrap());
}

#[test]
fn json_of_health() {
    let shop = shop();
    shop.respaldo.run(&["backup", "--all"]).expect(0);
    let daemon = shop.respaldo.daemon();
    daemon.wait_for_log("next run");
    eventually("it takes runs", || daemon.get("/readyz").status == 200);
    let reply = daemon.get("/health");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    assert_snapshot!("json_of_health", shop.redacted(reply.json()));
    assert_snapshot!("json_of_health_job", shop.redacted(daemon.get("/health/shop").json()));
    assert_eq!(shop.json(&["health", "--json"], 0), shop.redacted(reply.json()));
    assert_eq!(daemon.get("/health/nothing").status, 404);
    assert_eq!((daemon.get("/livez").status, daemon.get("/readyz").status), (200, 200));
    assert_eq!(daemon.terminate(), 0);
    let gone = shop.respaldo.run(&["health", "--json"]).expect(1);
    assert!(gone.stderr.contains("hint: "), "{}", gone.stderr);
}

/// The keys of an object, in order.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn json_of_tokens_and_audit() {
    let respaldo = Respaldo::new(&format!(
        "{HEAD}[server.tokens.ci]\nrole = \"viewer\"\ntoken = \"fixed-viewer-token-0123\"\n{LOCAL}\
         [jobs.media]\nsource = {{ files = \"@DIR@/media\" }}\n"
    ));
    let create = ["token", "create", "anna", "--role", "admin", "--expires", "90d", "--json"];
    let made = respaldo.run(&create).expect(0).json();
    assert_eq!(keys(&made), ["expires_at", "name", "role", "token"]);
    let list = respaldo.run(&["token", "list", "--json"]).expect(0).json();
    let of_token = ["created_at", "expires_at", "from", "name", "revoked_at", "role", "used_at"];
    for token in list.as_array().unwrap() {
        assert_eq!(keys(token), of_token);
    }
    assert_eq!((&list[0]["from"], &list[1]["from"]), (&"config".into(), &"catalog".into()));
    let audit = respaldo.run(&["audit", "--json"]).expect(0).json();
    assert_eq!(audit.as_array().unwrap().len(), 2);
    for row in audit.as_array().unwrap() {
        assert_eq!(
            keys(row),
            [
                "action", "actor", "at", "detail", "from", "intent", "job", "outcome", "seq",
                "subject"
            ]
        );
    }
}

#[test]
fn the_help_of_every_command() {
    let bare = Respaldo::without_config();
    let mut text = String::new();
    for command in [
        "",
        "run",
        "backup",
        "list",
        "show",
        "verify",
        "restore",
        "drill",
        "prune",
        "sync",
        "pin",
        "unpin",
        "import",
        "status",
        "health",
        "token",
        "token create",
        "token list",
        "token revoke",
        "alert",
        "alert test",
        "config",
        "config check",
        "config show",
        "config schema",
        "config init",
        "catalog",
        "catalog rebuild",
        "audit",
        "cancel",
    ] {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let help = bare.run(&arguments).expect(0);
        assert_eq!(help.stderr, "");
        text += &format!("$ respaldo {}\n{}\n", arguments.join(" "), help.stdout);
    }
    assert_snapshot!(text);
    let version = bare.run(&["--version"]).expect(0).stdout;
    assert_eq!(version, format!("respaldo {}\n", respaldo::model::VERSION));
}

#[test]
fn every_exit_code_is_the_one_that_was_promised() {
    let shop = shop();
    let respaldo = &shop.respaldo;
    respaldo.run(&["backup", "--all"]).expect(0);
    let local = respaldo.path("backups");
    let id = Stored::newest(&local, "shop").id();
    let folder = respaldo.path("media").display().to_string();
    let missing = "20200101T000000Z";
    for (code, arguments) in [
        (0, &["list"][..]),
        (0, &["list", "db"]),
        (0, &["show", "shop", &id]),
        (0, &["verify", "shop"]),
        (0, &["verify", "shop", "latest", "--destination", "second"]),
        (0, &["prune"]),
        (0, &["status"]),
        (0, &["config", "show"]),
        (0, &["config", "schema"]),
        (0, &["config", "check"]),
        (0, &["catalog", "rebuild"]),
        (0, &["backup", "shop", "media", "--label", "x"]),
        (0, &["restore", "shop", "--to", "/nowhere/x.db", "--dry-run"]),
        (1, &["health"]),
        (2, &[]),
        (2, &["nothing"]),
        (2, &["backup"]),
        (2, &["backup", "nothing"]),
        (2, &["backup", "--all", "shop"]),
        (2, &["list", "nothing"]),
        (2, &["list", "--nothing"]),
        (2, &["show", "shop"]),
        (2, &["show", "shop", "latest"]),
        (2, &["show", "shop", missing]),
        (2, &["verify", "shop", missing]),
        (2, &["verify", "shop", "--destination", "nothing"]),
        (2, &["restore", "shop"]),
        (2, &["restore", "shop", missing, "--to", "/nowhere/x.db", "--yes"]),
        (2, &["restore", "media", "--to", &folder, "--yes"]),
        (2, &["restore", "shop", "--to", "/nowhere/x.db"]),
        (0, &["drill", "shop"]),
        (2, &["drill", "nothing"]),
        (2, &["drill", "shop", "--destination", "nothing"]),
        (0, &["sync"]),
        (0, &["sync", "shop", "--dry-run"]),
        (0, &["pin", "shop", &id]),
        (0, &["unpin", "shop", &id]),
        (0, &["import", &folder, "--job", "media", "--dry-run"]),
        (2, &["sync", "nothing"]),
        (2, &["pin", "shop", missing]),
        (2, &["unpin", "shop", "latest"]),
        (2, &["import", &folder]),
        (2, &["import", "/nowhere", "--job", "media"]),
        (2, &["prune", "nothing"]),
        (2, &["cancel", "1"]),
        (2, &["cancel", "9999"]),
        (2, &["cancel", "x"]),
        (2, &["config", "nothing"]),
        (2, &["--config", "/nowhere.toml", "list"]),
    ] {
        let output = respaldo.run(arguments);
        assert_eq!(output.code, code, "{arguments:?}: {output:?}");
        if code > 0 {
            assert_eq!(output.stdout, "", "{arguments:?}: an error on stdout");
            assert!(output.stderr.contains("error: "), "{arguments:?}: {}", output.stderr);
            assert!(!output.stderr.contains("panicked"), "{arguments:?}: {}", output.stderr);
        }
    }
    shop.spoil_second();
    respaldo.run(&["backup", "shop"]).expect(3);
    fs::remove_file(respaldo.path("shop.db")).unwrap();
    // The worst of several counts.
    respaldo.run(&["backup", "media", "shop"]).expect(1);
    respaldo.run(&["verify", "shop"]).expect(1);
}

#[test]
fn stdout_carries_data_and_nothing_else() {
    let shop = shop();
    for arguments in
        [&["backup", "--all"][..], &["verify", "shop"], &["sync"], &["catalog", "rebuild"]]
    {
        let output = shop.respaldo.run(arguments).expect(0);
        assert_eq!(output.stdout, "", "{arguments:?}");
        assert_ne!(output.stderr, "", "{arguments:?}");
    }
    let list = shop.respaldo.run(&["list"]).expect(0).stdout;
    assert_eq!(list.lines().count(), 4, "{list}");
    assert!(list.starts_with("JOB"), "{list}");
    assert!(list.lines().all(|line| line == line.trim_end()), "{list}");
}

/// A listener that has had enough (`| head -1`) before the first word.
#[test]
fn a_reader_that_has_enough_is_no_error() {
    let shop = shop();
    shop.respaldo.run(&["backup", "shop"]).expect(0);
    let id = Stored::newest(&shop.respaldo.path("backups"), "shop").id();
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["show", "shop", &id],
        &["status"],
        &["prune", "--dry-run"],
        &["config", "show"],
        &["config", "schema"],
        &["--help"],
        &["verify", "shop", "--json"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_respaldo"))
            .arg("--config")
            .arg(shop.respaldo.path("respaldo.toml"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(writer)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {} {said}", output.status);
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
}

/// What a command says on a terminal of its own.
fn on_a_terminal(shop: &Shop, variables: &[(&str, &str)]) -> String {
    let command = format!(
        "{} --config {} backup shop",
        env!("CARGO_BIN_EXE_respaldo"),
        shop.respaldo.path("respaldo.toml").display()
    );
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .envs([("TERM", "xterm-256color")])
        .env_remove("NO_COLOR")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("script is missing (bsdutils)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a terminal would show a colour: `ESC [ ... m`.
fn is_coloured(text: &str) -> bool {
    text.split("\u{1b}[").skip(1).any(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != ';');
        end.is_some_and(|end| rest[end..].starts_with('m') && !["", "0"].contains(&&rest[..end]))
    })
}

#[test]
fn no_color_means_no_colour() {
    let shop = shop();
    fs::remove_file(shop.respaldo.path("shop.db")).unwrap();
    let coloured = on_a_terminal(&shop, &[]);
    assert!(coloured.contains("the run failed") && is_coloured(&coloured), "{coloured:?}");
    let plain = on_a_terminal(&shop, &[("NO_COLOR", "1")]);
    assert!(plain.contains("the run failed") && !is_coloured(&plain), "{plain:?}");
    let piped = shop.respaldo.run(&["backup", "shop"]).expect(1);
    assert!(!piped.all().contains('\u{1b}'), "{piped:?}");
}
