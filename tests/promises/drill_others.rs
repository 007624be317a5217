//! Drills of what is no PostgreSQL, of encrypted backups and from several places; and what people and
//! health hear of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::files::make_tree;
use super::mysql::EVERYTHING;
use crate::support::config::{HEAD, LOCAL, text};
use crate::support::mariadb::{Mariadb, quote};
use crate::support::program::Respaldo;
use crate::support::scene::chat;
use crate::support::slack::Slack;
use crate::support::stored::{Stored, sign};
use crate::support::tool;

fn newest(respaldo: &Respaldo, job: &str) -> Stored {
    Stored::newest(&respaldo.path("backups"), job)
}

#[track_caller]
fn drill(respaldo: &Respaldo, job: &str, code: i32) -> Value {
    let report = respaldo.run(&["drill", job, "--json"]).expect(code).json();
    let left: Vec<_> = fs::read_dir(respaldo.path("data/spool")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    report
}

/// Not proven, for a reason with `said` in it.
#[track_caller]
fn fails(respaldo: &Respaldo, job: &str, said: &str) {
    let report = drill(respaldo, job, 1);
    let all = format!("{} {}", report["failures"], report["unprovable"]);
    assert!(all.contains(said), "{said} in {all}");
}

fn sqlite(path: &Path, sql: &str) {
    tool(Command::new("sqlite3").arg(path).arg(sql));
}

const SHOP: &str = "CREATE TABLE t (n INTEGER PRIMARY KEY, m TEXT);
    INSERT INTO t VALUES (1, 'a'), (2, 'b'); CREATE VIEW v AS SELECT * FROM t";

fn shop(more: &str) -> Respaldo {
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.shop]\nretries = 0\n\
         source = {{ sqlite = \"@DIR@/shop.db\", fingerprint = \"content\" }}\n{more}"
    ));
    sqlite(&respaldo.path("shop.db"), SHOP);
    respaldo
}

#[test]
fn sqlite_is_proven_and_a_changed_row_is_named() {
    let respaldo = shop("drill = { checks = [\"SELECT count(*) = 2 FROM v\"] }\n");
    respaldo.run(&["backup", "shop"]).expect(0);
    let report = drill(&respaldo, "shop", 0);
    assert_eq!(report["tables"][0]["found"]["rows"], 2);
    assert_eq!(report["checks"][0]["ok"], true);

    let other = respaldo.path("other.db");
    sqlite(&other, &SHOP.replace("'b'", "'c'"));
    let stored = newest(&respaldo, "shop");
    stored.forge(0, &fs::read(&other).unwrap());
    sign(&respaldo, &stored);
    fails(&respaldo, "shop", "table main.t has its 2 rows, but not what was in them");
}

#[test]
fn files_are_proven_entry_by_entry() {
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.media]\nretries = 0\nsource = {{ files = \"@DIR@/media\" }}\n\
         drill = {{ programs = [[\"sh\", \"-c\", \"test -e $RESPALDO_PATH/sparse\"]] }}\n"
    ));
    make_tree(&respaldo.path("media"));
    respaldo.run(&["backup", "media"]).expect(0);
    drill(&respaldo, "media", 0);

    // One file fewer than was counted, in an archive that is whole.
    let stored = newest(&respaldo, "media");
    let counted = stored.manifest()["sources"][0]["fingerprint"]["objects"]["files"].clone();
    let mut manifest = stored.manifest();
    manifest["sources"][0]["fingerprint"]["objects"]["files"] =
        json!(counted.as_u64().unwrap() + 1);
    stored.write_manifest(&manifest);
    sign(&respaldo, &stored);
    fails(&respaldo, "media", "files, and there were");
    Stored::flip(&stored.artifact(0));
    fails(&respaldo, "media", "media.tar.zst");
}

#[test]
fn mariadb_is_proven_on_a_server_of_its_own() {
    let server = Mariadb::fresh();
    let database = server.database("drilled");
    database.sql(EVERYTHING);
    let url = text(&database.url_of(Mariadb::USER));
    let password = text(&server.password);
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\nretries = 0\nsource = {{ mysql = {url}, password = {password} }}\n\
         drill = {{ checks = [\"SELECT doubled(2) = 4\"] }}\n"
    ));
    respaldo.run(&["backup", "db"]).expect(0);
    server.sql("", &format!("DROP DATABASE {}", quote(&database.name)));
    let of_a_live_server = Path::new("/tmp").join(format!("#sql-temptable-{}", database.name));
    fs::write(&of_a_live_server, "rows").unwrap();
    let report = drill(&respaldo, "db", 0);
    fs::remove_file(of_a_live_server).expect("a drill left other servers' temporary tables alone");
    let tables = report["tables"].as_array().unwrap();
    assert!(tables.len() > 5 && tables.iter().all(|table| table["ok"] == true), "{report:#}");
    assert!(!server.has_database(&database.name), "the live server was left alone");

    let stored = newest(&respaldo, "db");
    let dump = tool(Command::new("zstd").args(["-dc"]).arg(stored.artifact(0)));
    stored.forge(0, dump.replace("('señor')", "('señor'),('señora')").as_bytes());
    sign(&respaldo, &stored);
    fails(&respaldo, "db", ".latin has 2 rows, and had 1");
}

#[test]
fn a_commands_output_needs_a_program() {
    let config = |drill: &str| {
        format!(
            "{HEAD}{LOCAL}[jobs.x]\nretries = 0\nsource = {{ command = [\"echo\", \"hello\"] }}\n{drill}"
        )
    };
    let respaldo = Respaldo::new(&config(""));
    respaldo.run(&["backup", "x"]).expect(0);
    fails(&respaldo, "x", "only a program of yours can tell");
    for (word, code) in [("hello", 0), ("bye", 1)] {
        respaldo.write_config(&config(&format!(
            "drill = {{ programs = [[\"sh\", \"-c\", \"grep -q {word} $RESPALDO_PATH\"]] }}\n"
        )));
        drill(&respaldo, "x", code);
    }
}

#[test]
fn an_encrypted_backup_is_unprovable_without_its_key() {
    let keys = Respaldo::without_config();
    let key = keys.path("key");
    tool(Command::new("age-keygen").arg("-o").arg(&key));
    let public = tool(Command::new("age-keygen").arg("-y").arg(&key)).trim().to_owned();
    let respaldo = shop(&format!("encrypt = {{ age = [\"{public}\"] }}\n"));
    respaldo.run(&["backup", "shop"]).expect(0);
    let output = respaldo.run(&["drill", "shop"]).expect(1);
    assert!(output.stderr.contains("drill.identity_file"), "{}", output.stderr);
    assert!(output.stderr.contains("not provable here: "), "{}", output.stderr);

    // On another host, which has the key and no config.
    let from = format!("file://{}", respaldo.path("backups").display());
    let more = ["--identity", key.to_str().unwrap()];
    keys.run(&[&["drill", "shop", "--from", &from][..], &more].concat()).expect(1);
    keys.run(&[&["drill", "shop", "--from", &from, "--trust"][..], &more].concat()).expect(0);
    let mark = newest(&respaldo, "shop").path("marks/proof.json");
    let mark: Value = serde_json::from_slice(&fs::read(mark).unwrap()).unwrap();
    assert!(mark["seconds"].is_number() && mark["rows"].is_null(), "{mark}");

    let respaldo = shop(&format!(
        "encrypt = {{ age = [\"{public}\"] }}\ndrill = {{ identity_file = {} }}\n",
        text(key.to_str().unwrap())
    ));
    respaldo.run(&["backup", "shop"]).expect(0);
    drill(&respaldo, "shop", 0);
}

#[test]
fn destinations_take_turns_and_people_hear_once() {
    let slack = Slack::start();
    let respaldo = shop(&format!(
        "schedule = \"@daily\"\ndrill = {{ schedule = \"@weekly\" }}\n\
         [destinations.second]\nurl = \"file://@DIR@/second\"\n{}",
        chat(&slack)
    ));
    respaldo.run(&["backup", "shop"]).expect(0);
    let status = |respaldo: &Respaldo| {
        let status = respaldo.run(&["status", "--json"]).expect(0).json();
        (status["jobs"][0]["status"].clone(), status["jobs"][0]["last_proven"].is_string())
    };
    assert_eq!(status(&respaldo), (json!("unproven"), false));

    // It does not hold; that is told once, and what holds is told again.
    let stored = newest(&respaldo, "shop");
    let manifest = fs::read(stored.path("manifest.json")).unwrap();
    fs::write(stored.path("manifest.json"), [&manifest[..], b"\n"].concat()).unwrap();
    let mut seen = Vec::new();
    for code in [1, 0, 1, 0] {
        let report = drill(&respaldo, "shop", code);
        seen.push(report["destination"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen, ["local", "second", "local", "second"]);
    assert_eq!(
        slack.messages().len(),
        1,
        "the second place is no comfort: {:#?}",
        slack.messages()
    );
    fs::write(stored.path("manifest.json"), &manifest).unwrap();
    drill(&respaldo, "shop", 0);
    let messages: Vec<String> = slack.messages().iter().map(Value::to_string).collect();
    assert!(messages.len() == 2 && messages[1].contains("proven again"), "{messages:#?}");
    assert_eq!(status(&respaldo), (json!("healthy"), true));
    let list = respaldo.run(&["list", "--json"]).expect(0).json();
    let held = list[0]["destinations"].as_array().unwrap();
    let second = held.iter().find(|held| held["name"] == "second").unwrap();
    assert!(second["proven"] == true && second["proven_at"].is_string(), "{list:#}");
}
