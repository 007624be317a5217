//! The daemon keeps the log of a server that is written to all the time, until that is killed with all its
//! processes: it comes back as it was one moment before an accident, and to its end without anything
//! that was said to be safe. On every version that the tests have.

use jiff::Timestamp;
use respaldo::model::Heartbeats;
use serde_json::Value;

use crate::support::config::{HEAD, postgres, s3, text};
use crate::support::eventually;
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::recovered::{lsn, names};
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::last_run;
use crate::support::writer::{Committed, Writer};

/// Larger than a segment of the log.
const MUCH: &str =
    "INSERT INTO orders SELECT n, repeat(md5(n::text), 60) FROM generate_series(1, 12000) n";
const ROWS: &str = "SELECT count(*), sum(hashtextextended(o::text, 0)) FROM orders o";

/// A daemon that keeps the log of `server`, with a first base backup; `more` are further keys of the source.
fn kept(server: &Postgres, store: &S3, database: &Database, more: &str) -> Respaldo {
    server.psql("postgres", "ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'");
    server.psql("postgres", "SELECT pg_reload_conf()");
    let bound = || server.psql("postgres", "SHOW max_slot_wal_keep_size");
    eventually("the new setting", || bound() == "1GB");
    database.psql("CREATE TABLE orders (id int, m text); INSERT INTO orders VALUES (0, 'before')");
    let source = postgres(database, &format!(", kind = \"physical\"{more}"));
    let offsite = s3("offsite", store, "app");
    Respaldo::new(&format!(
        "{HEAD}{offsite}[jobs.db]\nretries = 0\n{source}\
         drill = {{ checks = [\"SELECT count(*) > 0 FROM orders\"] }}\n[jobs.db.wal]\nevery = \"250ms\"\n"
    ))
}

fn status(respaldo: &Respaldo) -> Value {
    respaldo.run(&["wal", "status", "db", "--json"]).expect(0).json()
}

/// A stock server on what `words` recover to.
fn recovered(respaldo: &Respaldo, server: &Postgres, words: &[&str]) -> Postgres {
    server.on_another(|folder| {
        let given = ["restore", "db", "--yes", "--data-dir", folder.to_str().unwrap()];
        let said = respaldo.run(&[&given[..], words].concat()).expect(0);
        assert!(said.stderr.contains("signature: good"), "{}", said.stderr);
    })
}

/// The newest tick there; those before it are there too, for one follows the other.
fn newest(server: &Postgres) -> u64 {
    let (count, newest) = (
        server.psql("postgres", "SELECT count(*) FROM ticks"),
        server.psql("postgres", "SELECT max(n) FROM ticks"),
    );
    assert_eq!(count, newest, "a tick is missing in the middle");
    newest.parse().unwrap()
}

/// The newest position that the server itself has said, for drills.
fn heartbeat(respaldo: &Respaldo) -> u64 {
    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    let kept = "SELECT value FROM facts WHERE name = 'wal-heartbeats:db'";
    let text: Option<String> = catalog.query_row(kept, [], |row| row.get(0)).ok();
    let beats: Option<Heartbeats> = text.map(|text| serde_json::from_str(&text).unwrap());
    beats.and_then(|kept| Some(kept.beats.last()?.lsn.0)).unwrap_or(0)
}

fn leads_back(server: &Postgres, more: &str) {
    let database = server.existing("postgres");
    let store = S3::start();
    let respaldo = kept(server, &store, &database, more);
    let daemon = respaldo.daemon();
    daemon.wait_for_log("is received from");
    let writer = Writer::start(&database);
    respaldo.run(&["backup", "db"]).expect(0);
    database.psql(MUCH);
    writer.goes_on(20);
    let rows = database.psql(ROWS);
    let not_before = Timestamp::now();
    let time = database.psql("SELECT clock_timestamp()");
    let not_after = Timestamp::now();
    database.psql("DELETE FROM orders WHERE id % 2 = 0");
    let left = database.psql(ROWS);
    let end = lsn(&database.psql("SELECT pg_current_wal_flush_lsn()"));
    eventually("the accident is stored too", || {
        let status = respaldo.run(&["wal", "status", "db", "--json"]);
        status.code == 0 && lsn(status.json()["stored_lsn"].as_str().unwrap()) >= end
    });
    eventually("the server has said where it is", || heartbeat(&respaldo) > end);
    let beat = heartbeat(&respaldo);
    eventually("that is stored too", || {
        let said = status(&respaldo)["stored_lsn"].as_str().map(lsn);
        said.is_some_and(|stored| stored > beat)
    });
    writer.goes_on(200);
    let usual = status(&respaldo)["rpo_seconds"].as_i64().unwrap();
    // The last of it is received and can't be stored: that is what would be lost, and it is said.
    store.faults.set(Rule::on("PUT", "/wal/"), Act::Status(503));
    writer.goes_on(200);
    daemon.wait_for_log("is not stored");
    writer.goes_on(200);
    server.kill9();
    let said = status(&respaldo);
    let written = writer.ended();
    daemon.kill9();
    store.faults.clear();

    // One moment before the accident: all that was committed by then, and nothing that began later.
    let before = recovered(&respaldo, server, &["--to-time", &time]);
    assert_eq!(before.psql("postgres", ROWS), rows);
    let then = newest(&before);
    let number = |found: Option<&Committed>| found.map_or(0, |one| one.n);
    let earlier = number(written.iter().rfind(|one| one.at < not_before));
    let later = number(written.iter().find(|one| one.began > not_after));
    assert!((earlier..later).contains(&then), "{then} is not in {earlier}..{later}");
    drop(before);

    // The end: whatever was committed before what the daemon called safe. What it said would be lost
    // bounds what is.
    let latest = recovered(&respaldo, server, &["--latest"]);
    assert_eq!(latest.psql("postgres", ROWS), left);
    let newest = newest(&latest);
    let safe: Timestamp = said["safe_at"].as_str().unwrap().parse().unwrap();
    let rpo = said["rpo_seconds"].as_i64().unwrap();
    let promised = number(written.iter().rfind(|one| one.at <= safe));
    let killed = written.last().unwrap();
    let last = usize::try_from(newest).ok().and_then(|n| written.get(n - 1)).unwrap_or(killed);
    let lost = killed.at.duration_since(last.at);
    eprintln!(
        "{newest} of {} ticks, safe to {promised}: {lost:#} lost, {rpo} s said; {usual} s before the store was away",
        killed.n
    );
    assert!(newest < killed.n, "nothing was lost, so nothing was shown");
    assert!(newest >= promised, "{newest} of {promised} that were safe at {safe}");
    assert!(lost.as_secs() <= rpo, "{lost:#} lost, {rpo} s said");
    // Seconds, and not a segment: no segment ended in all that time.
    assert!(usual < 30 && rpo < 60, "{usual} {said:#}");
    drop(latest);

    assert_eq!(last_run(&respaldo, "db")["kind"], "restore");
    for moment in ["the end of the log", "20"] {
        let drilled = respaldo.run(&["drill", "db", "--json"]).expect(0).json();
        assert_eq!(drilled["proven"], true, "{drilled:#}");
        let notes = drilled["notes"].to_string();
        assert!(notes.contains(&format!("recovered to {moment}")), "{drilled:#}");
        // Not by our own reading of the log alone: the server had said where it was, and when.
        assert!(notes.contains("by the server's own clock it was at"), "{drilled:#}");
        assert_eq!(drilled["checks"][0]["ok"], true, "{drilled:#}");
    }
    assert!(names(&respaldo.path("data/spool")).iter().all(|name| !name.starts_with("run-")));
}

/// With its own programs, which this machine's packages don't have.
fn a_newer_one_leads_back(server: &Postgres) {
    let programs = server.outside();
    leads_back(server, &format!(", bin_dir = {}", text(programs.bin().to_str().unwrap())));
}

#[test]
fn what_the_daemon_kept_leads_back() {
    leads_back(&Postgres::fresh(), "");
}

#[test]
fn what_the_daemon_kept_of_seventeen_leads_back() {
    a_newer_one_leads_back(&Postgres::seventeen());
}

#[test]
fn what_the_daemon_kept_of_eighteen_leads_back() {
    a_newer_one_leads_back(&Postgres::eighteen());
}
