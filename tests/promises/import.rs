//! The dumps of an old script are taken in as they are: listed, verified, restored and pruned like
//! the rest; and what is damaged, encrypted or something else is told and left.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::config::{HEAD, LOCAL, postgres, text};
use crate::support::mariadb::Mariadb;
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::shop::{Shop, minutes};
use crate::support::stored::Stored;
use crate::support::tool;

fn shell(folder: &Path, commands: &str) {
    tool(Command::new("bash").args(["-euo", "pipefail", "-c", commands]).current_dir(folder));
}

fn dump(database: &Database, folder: &Path, name: &str, arguments: &[&str]) {
    let mut pg_dump = database.client("pg_dump");
    tool(pg_dump.args(arguments).arg(format!("--file={}", folder.join(name).display())));
}

/// A job of a database, and the folder of the script that was there before.
fn old(database: &Database) -> Respaldo {
    let second = "[destinations.second]\nurl = \"file://@DIR@/second\"\n";
    let respaldo = Respaldo::new(&format!(
        "timezone = \"America/Lima\"\n{HEAD}{LOCAL}{second}[jobs.db]\nretries = 0\n\
         keep = {{ local = {{}}, second = {{ last = 1 }} }}\n{}",
        postgres(database, "")
    ));
    fs::create_dir(respaldo.path("old")).unwrap();
    respaldo
}

fn import(respaldo: &Respaldo, job: &str, more: &[&str], code: i32) -> Vec<Value> {
    let folder = respaldo.path("old").display().to_string();
    let arguments = [&["import", &folder, "--job", job, "--json"], more].concat();
    respaldo.run(&arguments).expect(code).json().as_array().unwrap().clone()
}

fn states(report: &[Value]) -> Vec<(&str, &str)> {
    report.iter().map(|l| (l["file"].as_str().unwrap(), l["state"].as_str().unwrap())).collect()
}

#[test]
fn dumps_of_every_kind_become_backups_that_restore() {
    let database = Postgres::start().database("import");
    database.pgbench(1);
    let before = database.fingerprint();
    let respaldo = old(&database);
    let folder = respaldo.path("old");
    dump(&database, &folder, "shop_20251124_020000.sql", &["--format=plain"]);
    shell(&folder, "gzip -k shop_20251124_020000.sql; mv shop_20251124_020000.sql.gz shop_20251123_020000.sql.gz
        md5sum \"$PWD/shop_20251123_020000.sql.gz\" > shop_20251123_020000.sql.gz.md5");
    dump(&database, &folder, "shop_2025-11-25.backup", &["--format=custom"]);
    shell(&folder, "touch -d '2025-11-25T12:34:56Z' shop_2025-11-25.backup
        sha256sum shop_2025-11-25.backup > shop_2025-11-25.backup.sha256
        zstd -q -o noted.sql.zst shop_20251124_020000.sql; touch -d 2025-11-22T10:00:00Z noted.sql.zst
        ln -s shop_20251124_020000.sql latest.sql");

    let planned = import(&respaldo, "db", &["--dry-run"], 0);
    assert_eq!(
        planned.iter().filter(|line| line["state"] == "importable").count(),
        4,
        "{planned:#?}"
    );
    assert!(!respaldo.path("backups/db").exists());

    let report = import(&respaldo, "db", &[], 0);
    let ids: Vec<&str> = report.iter().map(|line| line["id"].as_str().unwrap()).collect();
    let [noted, custom, gzip, plain] = ids[..] else { panic!("{report:#?}") };
    assert_eq!(
        (noted, gzip, plain, custom),
        ("20251122T100000Z", "20251123T070000Z", "20251124T070000Z", "20251125T123456Z")
    );
    // The second destination keeps one only, and gets no more than that.
    assert_eq!(Stored::ids(&respaldo.path("second"), "db"), [custom]);
    assert_eq!(Stored::ids(&respaldo.path("backups"), "db"), [noted, gzip, plain, custom]);
    let stored = |id: &str| Stored { folder: respaldo.path("backups/db").join(id) };
    let gz = "shop_20251123_020000.sql.gz";
    assert!(fs::read(stored(gzip).path(gz)).unwrap() == fs::read(folder.join(gz)).unwrap());
    shell(&stored(gzip).folder, "sha256sum --quiet -c SHA256SUMS; gunzip -t *.gz");
    let manifest = stored(gzip).manifest();
    assert_eq!((&manifest["label"], &manifest["kind"]), (&json!("imported"), &json!("full")));
    assert_eq!(manifest["artifacts"][0]["compression"], "gzip");
    let bytes = fs::metadata(folder.join("shop_20251124_020000.sql")).unwrap().len();
    assert_eq!(manifest["artifacts"][0]["plain_bytes"], bytes);
    assert_eq!(stored(custom).manifest()["artifacts"][0]["name"], "shop_2025-11-25.dump");

    for id in [noted, gzip, plain, custom] {
        respaldo.run(&["verify", "db", id, "--destination", "local"]).expect(0);
        let name = format!("back_{}", id.to_lowercase());
        respaldo.run(&["restore", "db", id, "--database", &name, "--yes"]).expect(0);
        assert_eq!(Postgres::start().existing(&name).fingerprint(), before, "{id}");
    }

    // Once more: each is known. And a backup of our own goes on beside them.
    let again = import(&respaldo, "db", &["--move"], 0);
    assert!(again.iter().all(|line| line["state"] == "known"), "{again:#?}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 7, "what was not imported now is not moved");
    respaldo.run(&["backup", "db"]).expect(0);
    assert_eq!(Stored::ids(&respaldo.path("second"), "db").len(), 1);
    respaldo.run(&["verify", "db"]).expect(0);
}

#[test]
fn what_is_damaged_encrypted_or_something_else_is_not_taken() {
    let database = Postgres::start().database("import_bad");
    database.psql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 5000) n");
    let respaldo = old(&database);
    let folder = respaldo.path("old");
    dump(&database, &folder, "a_20251120_020000.sql", &["--format=plain"]);
    shell(&folder, "gzip -c a_20251120_020000.sql > whole.sql.gz
        head -c 9000 whole.sql.gz > cut.sql.gz
        cp whole.sql.gz wrong.sql.gz; echo \"$(printf 0%.0s {1..64})  wrong.sql.gz\" > wrong.sql.gz.sha256
        rm whole.sql.gz; head -c 3000 a_20251120_020000.sql > short.sql
        echo '-- PostgreSQL database cluster dump' > server.sql
        printf 'age-encryption.org/v1\\n-> X25519 x' > secret.sql.age
        printf '\\x8c\\x0d\\x04' > secret.dump.gpg
        echo notes > notes.txt; printf -- '-- MySQL dump 10.13\\n-- Dump completed\\n' > my.sql
        mkdir deeper; cp a_20251120_020000.sql deeper; tar -czf media_20251120_020000.tgz deeper
        echo x > gone.sql.md5");
    // It would go into the database that is there, whatever one is named.
    dump(&database, &folder, "into.sql", &["--format=plain", "--create"]);
    let report = import(&respaldo, "db", &[], 3);
    assert_eq!(
        states(&report),
        [
            ("a_20251120_020000.sql", "imported"),
            ("cut.sql.gz", "refused"),
            ("gone.sql.md5", "left"),
            ("into.sql", "left"),
            ("media_20251120_020000.tgz", "left"),
            ("my.sql", "left"),
            ("notes.txt", "left"),
            ("secret.dump.gpg", "refused"),
            ("secret.sql.age", "refused"),
            ("server.sql", "left"),
            ("short.sql", "refused"),
            ("wrong.sql.gz", "refused"),
        ]
    );
    let reason = |n: usize| report[n]["reason"].as_str().unwrap();
    for (n, words) in [
        (1, "cut.sql.gz"),
        (3, "it says itself into which database it goes"),
        (4, "it is a backup of files, and this job's are of postgres"),
        (5, "it is a backup of mysql"),
        (7, "it is encrypted, and what is in it can't be told: decrypt it first"),
        (9, "whole server (pg_dumpall)"),
        (10, "it has no closing line"),
        (11, "it is damaged"),
    ] {
        assert!(reason(n).contains(words), "{}", reason(n));
    }
    assert_eq!(Stored::ids(&respaldo.path("backups"), "db").len(), 1);
    let nowhere = respaldo.run(&["import", "/nowhere", "--job", "db"]).expect(2);
    assert!(nowhere.stderr.contains("hint: "), "{}", nowhere.stderr);
}

#[test]
fn databases_and_media_move_in_and_retention_counts_them() {
    let shop = Shop::new("local = { daily = 3 }");
    shop.at("2025-11-24 12:00:00");
    let folder = shop.respaldo.path("old");
    fs::create_dir(&folder).unwrap();
    for day in 18..=23 {
        let file = format!("shop-2025-11-{day}-0200.db");
        tool(
            Command::new("sqlite3")
                .arg(folder.join(&file))
                .arg(format!("CREATE TABLE t AS SELECT {day} d")),
        );
        shell(&folder, &format!("sha256sum {file} > {file}.sha256"));
    }
    let report = import(&shop.respaldo, "shop", &["--move"], 0);
    let count = |state: &str| report.iter().filter(|line| line["state"] == state).count();
    assert_eq!((count("imported"), count("unwanted")), (3, 3), "{report:#?}");
    assert_eq!(minutes(&shop.ids()), ["20251121T020000Z", "20251122T020000Z", "20251123T020000Z"]);
    // What no rule keeps stays where it was, and so does its digest.
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 6);
    let to = shop.respaldo.path("back.db").display().to_string();
    shop.respaldo.run(&["restore", "shop", "20251122T020000Z", "--to", &to, "--yes"]).expect(0);
    let day = tool(Command::new("sqlite3").arg(&to).arg("SELECT d FROM t"));
    assert_eq!(day.trim(), "22");
    shop.backup().expect(0);
    assert_eq!(minutes(&shop.ids()), ["20251122T020000Z", "20251123T020000Z", "20251124T120000Z"]);
}

#[test]
fn a_dump_of_mariadb_moves_in_and_restores() {
    let server = Mariadb::start();
    let database = server.database("import");
    database
        .sql("CREATE TABLE t (n INT, name TEXT); INSERT INTO t SELECT seq, 'ñ' FROM seq_1_to_500");
    let (url, password) = (text(&database.url_of(Mariadb::USER)), text(&server.password));
    let respaldo = Respaldo::new(&format!(
        "timezone = \"UTC\"\n{HEAD}{LOCAL}[jobs.db]\nretries = 0\n\
         source = {{ mysql = {url}, password = {password} }}\n"
    ));
    fs::create_dir(respaldo.path("old")).unwrap();
    for (name, more) in [("backup_20251124_020000.sql", ""), ("bound.sql", "--databases")] {
        let mut dump = server.client("mariadb-dump");
        dump.args([more, &database.name].iter().filter(|argument| !argument.is_empty()));
        fs::write(respaldo.path("old").join(name), tool(&mut dump)).unwrap();
    }
    shell(&respaldo.path("old"), "gzip backup_20251124_020000.sql");
    let report = import(&respaldo, "db", &[], 0);
    assert_eq!(
        states(&report),
        [("backup_20251124_020000.sql.gz", "imported"), ("bound.sql", "left")]
    );
    respaldo.run(&["verify", "db"]).expect(0);
    let other = server.existing(&format!("{}_back", database.name));
    respaldo.run(&["restore", "db", &format!("--database={}", other.name), "--yes"]).expect(0);
    assert_eq!(other.contents(), database.contents());
}

#[test]
fn an_import_that_was_killed_is_begun_anew() {
    let database = Postgres::start().database("killed");
    database.psql("CREATE TABLE t AS SELECT 1 AS a");
    let mut half_there = 0;
    for nth in 1.. {
        let respaldo = old(&database);
        let folder = respaldo.path("old");
        dump(&database, &folder, "shop_20251124_020000.sql", &["--format=plain"]);
        let words = ["import", folder.to_str().unwrap(), "--job", "db"];
        let killed = respaldo.run_killed_at("renameat2", nth, &words);
        let begun = Stored::all(&respaldo.path("backups"), "db");
        half_there += usize::from(begun.iter().any(|half| !half.path("manifest.json").exists()));
        import(&respaldo, "db", &[], 0);
        // One place may have had all of it already.
        respaldo.run(&["sync", "db"]).expect(0);
        respaldo.run(&["verify", "db"]).expect(0);
        if killed.code == 0 {
            break;
        }
    }
    assert!(half_there > 0, "it was never killed in the midst of it");
}
