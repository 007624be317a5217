//! `kill -9` at any instant: the next start tells the truth about every run, leaves no child and no
//! lock behind, cleans its own leftovers, and loses no committed backup.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::postgres::{Database, Postgres};
use crate::support::process::Process;
use crate::support::program::Respaldo;
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::{
    DumpLock, HEAD, LOCAL, assert_listed_verify, assert_no_leftovers, assert_no_process,
    backups_in, chat, database_job, last_run, listed, local_root, offsite, offsite_root, status,
    wait_for_waiter,
};
use crate::support::slack::Slack;

/// Uncompressed, so that a small database takes several parts of 8 MiB.
const PLAIN: &str = "schedule = \"@yearly\"\ncompression = \"none\"";

/// One that keeps few, so that a run also deletes.
const KEEP: &str = "keep = { local = { last = 3 }, offsite = { last = 3 } }";

fn config(database: &Database, s3: &S3) -> String {
    let job = database_job("db", database, &format!("{PLAIN}\n{KEEP}"));
    format!("{HEAD}{LOCAL}{}{job}", offsite(s3))
}

fn only_offsite(database: &Database, s3: &S3) -> String {
    format!("{HEAD}{}{}", offsite(s3), database_job("db", database, PLAIN))
}

/// Some 60 MB, dumped as 40.
fn database() -> Database {
    let database = Postgres::start().database("crash");
    database.pgbench(4);
    database
}

/// Between nothing and `most`, by chance.
fn chance(most: Duration) -> Duration {
    let (_, bits) = uuid::Uuid::new_v4().as_u64_pair();
    most.mul_f64((bits & 0xffff_ffff) as f64 / f64::from(u32::MAX))
}

fn kill9(respaldo: &Respaldo, command: &[&str], after: Duration) -> Vec<Process> {
    let running = respaldo.start(command);
    std::thread::sleep(after);
    let family = running.descendants();
    running.signal(Signal::KILL);
    family
}

/// What the start after a kill owes: everything told, everything cleared, nothing lost.
fn assert_recovered(respaldo: &Respaldo, database: &Database, s3: &S3, before: &BTreeSet<String>) {
    assert_no_leftovers(respaldo, "db", Some(s3));
    assert_no_process(database);
    let on = |name: &str| -> BTreeSet<String> {
        let held = listed(respaldo, "db").into_iter();
        held.filter(|(_, places)| places.contains(name)).map(|(id, _)| id).collect()
    };
    for (name, root) in [("local", local_root(respaldo)), ("offsite", offsite_root(s3))] {
        let there: BTreeSet<String> = backups_in(&root, "db").into_keys().collect();
        assert_eq!(on(name), there, "the list and {name} differ");
    }
    let run = last_run(respaldo, "db");
    let Some(id) = run["backup"].as_str() else { return };
    let places = status(respaldo)["jobs"][0]["destinations"].as_array().unwrap().clone();
    let held = places.iter().filter(|place| on(place["name"].as_str().unwrap()).contains(id));
    let expected = match held.count() {
        0 => "interrupted",
        all if all == places.len() => "succeeded",
        _ => "partial",
    };
    assert_eq!(run["state"], expected, "{run:#}");
    if expected != "succeeded" {
        let now: BTreeSet<String> = listed(respaldo, "db").into_keys().collect();
        assert!(now.is_superset(before), "lost: {before:?} became {now:?}");
    }
}

/// How many open uploads the catalog knows nothing of: those of a kill between the store's answer
/// and the catalog's. They are left to the bucket's own rule, and taken away here.
fn forget_unknown_uploads(respaldo: &Respaldo, s3: &S3) -> usize {
    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    let mut known = catalog.prepare("SELECT upload FROM uploads").unwrap();
    let known: BTreeSet<String> =
        known.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let unknown: Vec<String> = s3.incomplete_uploads().difference(&known).cloned().collect();
    for entry in std::fs::read_dir(s3.folder().parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if unknown.iter().any(|id| path.to_string_lossy().contains(id.as_str())) {
            std::fs::remove_file(path).unwrap();
        }
    }
    unknown.len()
}

fn killed_at_random_instants(rounds: u32) {
    let (database, s3) = (database(), S3::start());
    let respaldo = Respaldo::new(&config(&database, &s3));
    let started = Instant::now();
    respaldo.run(&["backup", "db"]).expect(0);
    let whole = started.elapsed().mul_f64(1.1);
    let mut unknown = 0;
    for round in 0..rounds {
        let before: BTreeSet<String> = listed(&respaldo, "db").into_keys().collect();
        let after = chance(whole);
        eprintln!("round {round}: kill after {after:?}");
        for process in kill9(&respaldo, &["backup", "db"], after) {
            process.wait_gone();
        }
        s3.wait_for_the_dead();
        unknown += forget_unknown_uploads(&respaldo, &s3);
        if round % 2 == 0 {
            // A daemon's start cleans as a command's does; it obeys SIGTERM once it is done.
            let daemon = respaldo.daemon();
            daemon.wait_for_log("on http://");
            assert_eq!(daemon.terminate(), 0);
        } else {
            status(&respaldo);
        }
        assert_recovered(&respaldo, &database, &s3, &before);
    }
    assert!(unknown <= 1 + rounds as usize / 25, "{unknown} uploads were never remembered");
    respaldo.run(&["backup", "db"]).expect(0);
    assert_listed_verify(&respaldo, "db");
    let last = last_run(&respaldo, "db")["backup"].as_str().unwrap().to_owned();
    assert_eq!(listed(&respaldo, "db")[&last].len(), 2);
}

#[test]
fn killed_at_random_instants_it_leaves_nothing_half_made() {
    killed_at_random_instants(6);
}

#[test]
fn soak_killed_at_random_instants_fifty_times() {
    if std::env::var_os("RESPALDO_SOAK").is_some() {
        killed_at_random_instants(50);
    }
}

#[test]
fn a_daemon_killed_at_a_random_instant_makes_up_for_it_at_its_next_start() {
    let (database, s3) = (database(), S3::start());
    let respaldo = Respaldo::new(&config(&database, &s3));
    for _ in 0..3 {
        let daemon = respaldo.daemon();
        daemon.wait_for_log("it runs now");
        std::thread::sleep(chance(Duration::from_millis(600)));
        for process in daemon.kill9() {
            process.wait_gone();
        }
        s3.wait_for_the_dead();
        forget_unknown_uploads(&respaldo, &s3);
        if !listed(&respaldo, "db").is_empty() {
            break;
        }
        assert_recovered(&respaldo, &database, &s3, &BTreeSet::new());
    }
    let daemon = respaldo.daemon();
    if listed(&respaldo, "db").is_empty() {
        daemon.wait_for_log("is committed");
    }
    assert_eq!(daemon.terminate(), 0);
    assert_no_leftovers(&respaldo, "db", Some(&s3));
    assert_listed_verify(&respaldo, "db");
}

/// Kills a backup while the store is silent about one request, and lets another command look.
fn killed_at(config: &str, database: &Database, s3: &S3, method: &str, part: &str) -> Respaldo {
    let respaldo = Respaldo::new(config);
    s3.faults.set(Rule::on(method, part), Act::Hang);
    let running = respaldo.start(&["backup", "db"]);
    s3.faults.wait_for(method, part, 1);
    let family = running.descendants();
    running.signal(Signal::KILL);
    drop(running);
    family.iter().for_each(Process::wait_gone);
    s3.faults.clear();
    s3.wait_for_the_dead();
    status(&respaldo);
    assert_recovered(&respaldo, database, s3, &BTreeSet::new());
    respaldo
}

#[test]
fn killed_between_the_last_byte_and_the_manifest_there_is_no_backup() {
    let (database, s3) = (database(), S3::start());
    let config = only_offsite(&database, &s3);
    let respaldo = killed_at(&config, &database, &s3, "PUT", "manifest.json");
    assert_eq!(last_run(&respaldo, "db")["state"], "interrupted");
    assert!(backups_in(&offsite_root(&s3), "db").is_empty());
    respaldo.run(&["backup", "db"]).expect(0);
    assert_listed_verify(&respaldo, "db");
}

#[test]
fn killed_with_one_manifest_written_the_run_is_partial() {
    let (database, s3) = (database(), S3::start());
    let config = config(&database, &s3);
    let respaldo = Respaldo::new(&config);
    s3.faults.set(Rule::on("PUT", "manifest.json"), Act::Hang);
    let running = respaldo.watch(&["backup", "db"]);
    s3.faults.wait_for("PUT", "manifest.json", 1);
    // The local one is committed at the same time; the silent store is given up after `stall`.
    running.wait_for_log("destination 'offsite' has no backup");
    running.kill9();
    s3.faults.clear();
    s3.wait_for_the_dead();
    status(&respaldo);
    assert_recovered(&respaldo, &database, &s3, &BTreeSet::new());
    assert_eq!(last_run(&respaldo, "db")["state"], "partial");
    assert_listed_verify(&respaldo, "db");
}

#[test]
fn killed_in_an_upload_its_parts_are_taken_back() {
    let (database, s3) = (database(), S3::start());
    for (method, part) in [("PUT", "partNumber=2"), ("POST", "uploadId=")] {
        let config = only_offsite(&database, &s3);
        let respaldo = killed_at(&config, &database, &s3, method, part);
        assert_eq!(last_run(&respaldo, "db")["state"], "interrupted");
    }
    assert!(s3.faults.count("DELETE", "uploadId=") >= 2);
}

#[test]
fn killed_while_it_deletes_an_old_backup_that_one_is_not_listed() {
    let (database, s3) = (Postgres::start().database("prune"), S3::start());
    let respaldo = Respaldo::new(&config(&database, &s3));
    for _ in 0..3 {
        respaldo.run(&["backup", "db"]).expect(0);
    }
    // The manifest goes, and what it described stays.
    s3.faults.set(Rule::on("POST", "?delete").skip(1), Act::Hang);
    let running = respaldo.start(&["backup", "db"]);
    s3.faults.wait_for("POST", "?delete", 2);
    running.signal(Signal::KILL);
    drop(running);
    s3.faults.clear();
    s3.wait_for_the_dead();
    status(&respaldo);
    assert_recovered(&respaldo, &database, &s3, &BTreeSet::new());
    assert_listed_verify(&respaldo, "db");
}

#[test]
fn a_command_killed_before_its_run_began_leaves_no_run_waiting() {
    let (database, s3) = (Postgres::start().database("ghost"), S3::start());
    let respaldo = Respaldo::new(&config(&database, &s3));
    respaldo.run(&["backup", "db"]).expect(0);
    let listings = s3.faults.count("GET", "list-type");
    s3.faults.set(Rule::on("GET", "list-type"), Act::Hang);
    // It looks for an id that is free.
    let running = respaldo.start(&["backup", "db"]);
    s3.faults.wait_for("GET", "list-type", listings + 1);
    running.signal(Signal::KILL);
    drop(running);
    s3.faults.clear();
    s3.wait_for_the_dead();
    status(&respaldo);
    assert_no_leftovers(&respaldo, "db", Some(&s3));
}

#[test]
fn sigterm_ends_a_run_within_its_grace_and_the_next_start_makes_up_for_it() {
    let (database, s3, slack) = (database(), S3::start(), Slack::start());
    let respaldo = Respaldo::new(&format!("{}{}", config(&database, &s3), chat(&slack)));
    let lock = DumpLock::take(&database);
    let daemon = respaldo.daemon();
    wait_for_waiter(&database);
    let family = daemon.descendants();
    assert!(family.iter().any(|process| process.name == "pg_dump"), "{family:?}");
    let asked = Instant::now();
    assert_eq!(daemon.terminate(), 0);
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(9), "docker would have killed it: {took:?}");
    assert!(family.iter().all(|process| !process.is_alive()), "{family:?}");
    assert_eq!(last_run(&respaldo, "db")["state"], "interrupted");
    assert_recovered(&respaldo, &database, &s3, &BTreeSet::new());
    drop(lock);
    let daemon = respaldo.daemon();
    daemon.wait_for_log("is committed");
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(last_run(&respaldo, "db")["trigger"], "catch_up");
    assert_listed_verify(&respaldo, "db");
    let told: Vec<Value> = slack.messages();
    assert!(told.iter().any(|message| message.to_string().contains("interrupted")), "{told:?}");
}

#[test]
fn sigterm_while_a_store_is_silent_ends_all_the_same() {
    let (database, s3) = (database(), S3::start());
    let patient = only_offsite(&database, &s3).replace("stall = \"2s\"", "stall = \"60s\"");
    let respaldo = Respaldo::new(&patient);
    s3.faults.set(Rule::on("PUT", "partNumber=2"), Act::Hang);
    let daemon = respaldo.daemon();
    s3.faults.wait_for("PUT", "partNumber=2", 1);
    let asked = Instant::now();
    assert_eq!(daemon.terminate(), 0);
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(9), "docker would have killed it: {took:?}");
    assert_no_process(&database);
    s3.faults.clear();
    assert_eq!(last_run(&respaldo, "db")["state"], "interrupted");
    // What the store did not take back then, the next run asks for again.
    respaldo.run(&["backup", "db"]).expect(0);
    assert_recovered(&respaldo, &database, &s3, &BTreeSet::new());
}

#[test]
fn a_command_waits_for_the_daemons_run_of_the_same_job() {
    let (database, s3) = (database(), S3::start());
    let respaldo = Respaldo::new(&config(&database, &s3));
    let lock = DumpLock::take(&database);
    let daemon = respaldo.daemon();
    wait_for_waiter(&database);
    let command = respaldo.watch(&["backup", "db"]);
    command.wait_for_log("is running already: waiting for it");
    drop(lock);
    assert_eq!(command.end(), 0);
    assert_eq!(daemon.terminate(), 0);
    let status = status(&respaldo);
    let mut runs: Vec<&Value> = status["runs"].as_array().unwrap().iter().collect();
    runs.sort_by_key(|run| run["id"].as_i64());
    let [first, second] = runs[..] else { panic!("{runs:#?}") };
    assert_eq!([&first["trigger"], &second["trigger"]], ["catch_up", "manual"]);
    assert_eq!([&first["state"], &second["state"]], ["succeeded", "succeeded"]);
    let at = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(at(&first["finished_at"]) <= at(&second["started_at"]), "{runs:#?}");
    assert_eq!(listed(&respaldo, "db").len(), 2);
}

#[test]
fn a_second_daemon_on_one_data_folder_is_refused() {
    let (database, s3) = (Postgres::start().database("two"), S3::start());
    let respaldo = Respaldo::new(&config(&database, &s3));
    let daemon = respaldo.daemon();
    daemon.wait_for_log("is committed");
    let second = respaldo.run(&["run"]).expect(2);
    assert!(second.all().contains("another daemon uses"), "{}", second.all());
    assert!(second.stderr.contains("\nhint: "), "{}", second.stderr);
    // Killed, it leaves no lock behind.
    daemon.kill9();
    let next = respaldo.daemon();
    next.wait_for_log("on http://");
    assert_eq!(next.terminate(), 0);
}
