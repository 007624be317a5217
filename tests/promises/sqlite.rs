//! An SQLite database is copied consistently while another process writes to it; one that is damaged
//! is not taken for a backup.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::config::{HEAD, LOCAL, text};
use crate::support::guard::Guard;
use crate::support::program::Respaldo;
use crate::support::stored::Stored;
use crate::support::tool;

/// Moves money between accounts without end, each time in one transaction with a line in a log.
const WRITER: &str = r#"
import random, sqlite3, sys
path, mode = sys.argv[1:]
db = sqlite3.connect(path, timeout=60, isolation_level=None)
db.execute(f"PRAGMA journal_mode = {mode}")
db.execute("PRAGMA synchronous = OFF")
db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER, padding BLOB)")
db.execute("CREATE TABLE log (n INTEGER PRIMARY KEY, moved INTEGER)")
db.execute("BEGIN")
for n in range(4000):
    db.execute("INSERT INTO accounts VALUES (?, 100, randomblob(2000))", (n,))
db.execute("COMMIT")
n = 0
while True:
    n += 1
    one, other, moved = random.randrange(4000), random.randrange(4000), random.randrange(100)
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE accounts SET balance = balance - ? WHERE id = ?", (moved, one))
    db.execute("INSERT INTO log VALUES (?, ?)", (n, moved))
    db.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", (moved, other))
    db.execute("COMMIT")
    if n % 20 == 0:
        print("committed", n, flush=True)
"#;

/// A job `shop` of one file in the test's own folder.
fn shop(name: &str) -> Respaldo {
    let path = text(&format!("@DIR@/{name}"));
    let source = format!("source = {{ sqlite = {path} }}\n");
    Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.shop]\nretries = 0\n{source}"))
}

fn sqlite(path: &Path, sql: &str) -> String {
    tool(Command::new("sqlite3").arg(path).arg(sql)).trim_end().to_owned()
}

/// The number of the newest commit that the writer has told of.
fn committed(lines: &[String]) -> u64 {
    lines.iter().rev().find_map(|line| line.strip_prefix("committed ")?.parse().ok()).unwrap()
}

fn is_consistent_while_written(mode: &str) {
    let respaldo = shop("shop.db");
    let path = respaldo.path("shop.db");
    let words = ["/usr/bin/python3", "-c", WRITER, path.to_str().unwrap(), mode].map(AsRef::as_ref);
    let writer = Guard::run(&words);
    writer.wait_for_line("committed ");
    for round in 0..4 {
        let before = committed(&writer.lines.all());
        respaldo.run(&["backup", "shop"]).expect(0);
        let after = writer.lines.wait_until("the writer to go on", |lines| {
            Some(committed(lines)).filter(|now| *now > before)
        });
        let target = respaldo.path(&format!("restored-{round}.db"));
        respaldo.run(&["restore", "shop", "--to", target.to_str().unwrap(), "--yes"]).expect(0);
        assert_eq!(sqlite(&target, "PRAGMA integrity_check"), "ok");
        assert_eq!(sqlite(&target, "SELECT sum(balance), count(*) FROM accounts"), "400000|4000");
        let log = sqlite(&target, "SELECT count(*), max(n) FROM log");
        let (count, max) = log.split_once('|').unwrap();
        assert_eq!(count, max, "a transaction is missing in the midst");
        let count: u64 = count.parse().unwrap();
        assert!(count >= before, "{count} of {before} to {after}: what was committed is missing");
    }
    respaldo.run(&["verify", "shop"]).expect(0);
    drop(writer);
    assert_eq!(sqlite(&path, "SELECT sum(balance) FROM accounts"), "400000");
}

#[test]
fn a_database_in_wal_mode_is_consistent_while_it_is_written() {
    is_consistent_while_written("wal");
}

#[test]
fn a_database_with_a_rollback_journal_is_consistent_while_it_is_written() {
    is_consistent_while_written("delete");
}

fn ids(respaldo: &Respaldo) -> Vec<String> {
    Stored::ids(&respaldo.path("backups"), "shop")
}

#[test]
fn a_damaged_database_is_not_taken_for_a_backup() {
    let respaldo = shop("shop.db");
    let path = respaldo.path("shop.db");
    let make = "CREATE TABLE t (n INTEGER PRIMARY KEY, m); CREATE INDEX i ON t (m); \
         WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3000) \
         INSERT INTO t SELECT n, printf('%0100d', n * 7919 % 3001) FROM c";
    sqlite(&path, make);
    respaldo.run(&["backup", "shop"]).expect(0);
    let good = ids(&respaldo);
    let bytes = fs::read(&path).unwrap();

    let mut garbage = bytes.clone();
    let middle = bytes.len() / 2 / 4096 * 4096;
    garbage[middle..middle + 8192].fill(0xa5);
    let mut swapped = bytes.clone();
    // Two pages in each other's place: each is well formed, and no reader of pages would see it.
    swapped[4096 * 20..4096 * 21].copy_from_slice(&bytes[4096 * 30..4096 * 31]);
    swapped[4096 * 30..4096 * 31].copy_from_slice(&bytes[4096 * 20..4096 * 21]);
    for (what, bytes, part) in [
        ("garbage", &garbage[..], "damaged"),
        ("swapped", &swapped[..], "damaged"),
        ("cut", &bytes[..bytes.len() / 2], "malformed"),
        (
            "text",
            &b"-- not a database at all, but long enough to be looked at\n".repeat(90)[..],
            "not",
        ),
    ] {
        fs::write(&path, bytes).unwrap();
        let failed = respaldo.run(&["backup", "shop"]).expect(1);
        assert!(failed.stderr.contains(part), "{what}: {}", failed.stderr);
        assert!(failed.stderr.contains("hint: "), "{what}: {}", failed.stderr);
        assert_eq!(ids(&respaldo), good, "{what}");
    }
    fs::remove_file(&path).unwrap();
    let failed = respaldo.run(&["backup", "shop"]).expect(1);
    assert!(failed.stderr.contains("mounted and readable"), "{}", failed.stderr);
    assert!(!path.exists(), "an empty database was made in its place");
    assert_eq!(ids(&respaldo), good);
    respaldo.run(&["restore", "shop", "--to", path.to_str().unwrap(), "--yes"]).expect(0);
    assert_eq!(sqlite(&path, "SELECT count(*) FROM t"), "3000");
}

#[test]
fn the_source_is_only_read() {
    let respaldo = shop("shop.db");
    let path = respaldo.path("shop.db");
    sqlite(&path, "CREATE TABLE t AS SELECT 1");
    let before = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
    respaldo.run(&["backup", "shop"]).expect(0);
    assert_eq!(
        (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap()),
        before
    );
    let names = fs::read_dir(respaldo.folder()).unwrap().map(|e| e.unwrap().file_name());
    assert!(!names.into_iter().any(|name| name.to_string_lossy().starts_with("shop.db-")));
}

#[test]
fn a_file_that_is_there_is_never_overwritten() {
    let respaldo = shop("shop.db");
    let path = respaldo.path("shop.db");
    sqlite(&path, "CREATE TABLE t AS SELECT 1");
    respaldo.run(&["backup", "shop"]).expect(0);
    sqlite(&path, "INSERT INTO t VALUES (2)");
    let before = fs::read(&path).unwrap();
    let said =
        respaldo.run(&["restore", "shop", "--to", path.to_str().unwrap(), "--yes"]).expect(2);
    assert!(said.stderr.contains("exists"), "{}", said.stderr);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_database_may_have_any_name() {
    let long = format!("{}.db", "n".repeat(230));
    for name in
        ["it's $HOME.db", ".hidden.db", "new\nline.db", "back\\slash", "ñandú 🦙.sqlite3", &long]
    {
        let respaldo = shop(name);
        sqlite(&respaldo.path(name), "CREATE TABLE t AS SELECT 1");
        respaldo.run(&["backup", "shop"]).expect(0);
        let listed = respaldo.run(&["list", "--json"]).expect(0).json();
        assert_eq!(listed.as_array().unwrap().len(), 1, "{name:?}");
        respaldo.run(&["verify", "shop"]).expect(0);
        let target = respaldo.path("new.db");
        respaldo.run(&["restore", "shop", "--to", target.to_str().unwrap(), "--yes"]).expect(0);
        assert_eq!(sqlite(&target, "SELECT count(*) FROM t"), "1", "{name:?}");
        let stored = Stored::newest(&respaldo.path("backups"), "shop");
        tool(Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(&stored.folder));
    }
}

#[test]
fn a_user_who_may_not_write_beside_a_wal_database_is_told_so() {
    let respaldo = shop("app/shop.db");
    fs::create_dir(respaldo.path("app")).unwrap();
    sqlite(&respaldo.path("app/shop.db"), "PRAGMA journal_mode = wal; CREATE TABLE t AS SELECT 1");
    for folder in ["data", "backups"] {
        fs::create_dir(respaldo.path(folder)).unwrap();
        let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(respaldo.path(folder), everyone).unwrap();
    }
    let failed = respaldo.run_as_nobody(&["backup", "shop"]).expect(1);
    assert!(failed.stderr.contains("-shm"), "{}", failed.stderr);
}
