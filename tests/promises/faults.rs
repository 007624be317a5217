//! What breaks around a backup: each fault is told with its next step, turns the exit code, an alert
//! and health, leaves nothing half-made, and takes nothing that was there before.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::disk::Disk;
use crate::support::free_port;
use crate::support::postgres::{Database, Postgres};
use crate::support::process::{self, Process};
use crate::support::program::{Output, Respaldo};
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::{
    DumpLock, HEAD, LOCAL, assert_listed_verify, assert_no_leftovers, assert_no_process,
    backups_in, chat, database_job, files_job, last_run, listed, local_root, offsite, offsite_root,
    status, wait_for_waiter,
};
use crate::support::slack::Slack;

/// Uncompressed, so that a small database takes several parts of 8 MiB.
const PLAIN: &str = "schedule = \"@yearly\"\ncompression = \"none\"";

fn database(scale: u32) -> Database {
    let database = Postgres::start().database("faults");
    if scale > 0 {
        database.pgbench(scale);
    }
    database
}

/// The state of each destination of the only job.
fn health(report: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let places = report["jobs"][0]["destinations"].as_array().unwrap().iter();
    places.map(|place| (text(&place["name"]), text(&place["status"]))).collect()
}

fn states(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned())).collect()
}

/// A message, the words it must hold, and a next step.
#[track_caller]
fn says(output: &Output, words: &[&str]) {
    for word in words {
        assert!(output.stderr.contains(word), "no {word:?} in: {}", output.stderr);
    }
    assert!(output.stderr.contains("\nhint: "), "no next step in: {}", output.stderr);
}

#[track_caller]
fn told(message: &Value, words: &[&str]) {
    for word in words {
        assert!(message.to_string().contains(word), "no {word:?} in: {message:#}");
    }
}

fn pg_dump_of(pid: i32) -> Process {
    let mut found = process::children_named(pid, "pg_dump");
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn pg_dump_killed_half_way_commits_nothing_and_turns_health() {
    let (database, s3, slack) = (database(4), S3::start(), Slack::start());
    let respaldo = Respaldo::new(&format!(
        "{}{}{}{}",
        HEAD.replace("2s", "60s"),
        offsite(&s3),
        chat(&slack),
        database_job("db", &database, PLAIN)
    ));
    respaldo.run(&["backup", "db"]).expect(0);
    s3.faults.set(Rule::on("PUT", "partNumber=2"), Act::Hang);
    let running = respaldo.start(&["backup", "db"]);
    s3.faults.wait_for("PUT", "partNumber=2", 2);
    pg_dump_of(running.pid()).signal(Signal::KILL);
    s3.faults.clear();
    let output = running.finish(std::time::Duration::from_secs(60)).expect(1);
    assert!(output.stderr.contains("pg_dump was killed (signal: 9"), "{}", output.stderr);
    assert_eq!(last_run(&respaldo, "db")["state"], "failed");
    assert_no_leftovers(&respaldo, "db", Some(&s3));
    assert_eq!(backups_in(&offsite_root(&s3), "db").len(), 1);
    told(&slack.wait_for(1)[0], &["db failed", "pg_dump was killed"]);
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    let (code, report) = daemon.health();
    assert_eq!((code, report["status"].as_str()), (503, Some("failing")), "{report:#}");
    assert_eq!(health(&report), states(&[("offsite", "failing")]));
}

#[test]
fn pg_dump_killed_before_its_first_byte_is_no_empty_success() {
    let (database, s3) = (database(1), S3::start());
    let job = database_job("db", &database, PLAIN);
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}{job}", offsite(&s3)));
    let lock = DumpLock::take(&database);
    let running = respaldo.start(&["backup", "db"]);
    wait_for_waiter(&database);
    pg_dump_of(running.pid()).signal(Signal::KILL);
    running.finish(std::time::Duration::from_secs(60)).expect(1);
    drop(lock);
    assert!(backups_in(&local_root(&respaldo), "db").is_empty());
    assert!(backups_in(&offsite_root(&s3), "db").is_empty());
    assert_no_leftovers(&respaldo, "db", Some(&s3));
}

#[test]
fn a_table_that_may_not_be_read_fails_the_run_and_names_the_grant() {
    let database = database(1);
    let role = format!("{}_reader", database.name);
    database.psql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'reader-password'"));
    let job = database_job("db", &database, PLAIN)
        .replace("postgres://postgres@", &format!("postgres://{role}@"))
        .replace(
            &toml::Value::String(database.password().into()).to_string(),
            "\"reader-password\"",
        );
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{job}"));
    let output = respaldo.run(&["backup", "db"]).expect(1);
    says(&output, &["permission denied for table", "GRANT pg_read_all_data"]);
    assert!(backups_in(&local_root(&respaldo), "db").is_empty());
    database.psql(&format!("DROP ROLE {role}"));
}

#[test]
fn a_wrong_password_is_told_once_and_never_shown() {
    let (database, slack) = (database(0), Slack::start());
    let right = toml::Value::String(database.password().to_owned()).to_string();
    let job = database_job("db", &database, PLAIN)
        .replace(&right, "\"wrong-password-0815\"")
        .replace("retries = 0", "retries = 5");
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}{job}", chat(&slack)));
    let daemon = respaldo.daemon();
    daemon.wait_for_log("the run failed");
    let message = slack.wait_for(1).remove(0);
    told(&message, &["db failed", "the server refused the password of 'postgres'"]);
    daemon.wait_for_log("told 'chat'");
    let (code, report) = daemon.health();
    assert_eq!((code, report["status"].as_str()), (503, Some("never")));
    let log = daemon.log().join("\n");
    assert!(!log.contains("is tried again"), "it will not mend by itself: {log}");
    assert_eq!(daemon.terminate(), 0);
    let runs = status(&respaldo)["runs"].as_array().unwrap().clone();
    assert_eq!(runs.len(), 1, "{runs:#?}");
    let output = respaldo.run(&["backup", "db"]).expect(1);
    says(&output, &["check password_file or DB_PASSWORD"]);
    for text in [log, output.all(), message.to_string(), runs[0].to_string()] {
        assert!(!text.contains("wrong-password-0815"), "{text}");
    }
}

#[test]
fn a_database_or_server_that_is_not_there_is_named() {
    let database = database(0);
    let job = database_job("db", &database, PLAIN);
    let missing = job.replace(&database.name, "no_such_database");
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{missing}"));
    let output = respaldo.run(&["backup", "db"]).expect(1);
    says(&output, &["no_such_database", "no such database on this server"]);
    let (right, wrong) = (format!(":{}/", database.port()), format!(":{}/", free_port()));
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", job.replace(&right, &wrong)));
    let output = respaldo.run(&["backup", "db"]).expect(1);
    says(&output, &["is the server up", wrong.trim_matches([':', '/'])]);
    assert!(backups_in(&local_root(&respaldo), "db").is_empty());
}

#[test]
fn a_database_that_fails_for_a_moment_is_tried_again() {
    let server = Postgres::fresh();
    let database = server.database("again");
    let slack = Slack::start();
    let job = database_job("db", &database, PLAIN).replace("retries = 0", "retries = 1");
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}{job}", chat(&slack)));
    server.stop();
    let daemon = respaldo.daemon();
    daemon.wait_for_log("is tried again in");
    server.start_again();
    daemon.wait_for_log("is committed");
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(last_run(&respaldo, "db")["trigger"], "retry");
    assert_eq!(slack.attempts(), 0, "nobody is told of what a retry mended");
}

/// A store that fails in some way: the local backup is whole, the run partial, people are told, and
/// told once more when it is over.
fn store_fails(fault: impl FnOnce(&S3), words: &[&str]) {
    let (database, s3, slack) = (database(1), S3::start(), Slack::start());
    let job = database_job("db", &database, PLAIN);
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}{}{job}", offsite(&s3), chat(&slack)));
    fault(&s3);
    let output = respaldo.run(&["backup", "db"]).expect(3);
    says(&output, words);
    s3.faults.clear();
    assert_eq!(last_run(&respaldo, "db")["state"], "partial");
    let partial = listed(&respaldo, "db");
    assert_eq!(partial.len(), 1);
    assert!(partial.values().all(|places| places.iter().eq(["local"])), "{partial:?}");
    respaldo.run(&["verify", "db", "latest", "--destination", "local"]).expect(0);
    told(&slack.wait_for(1)[0], &["partly", "offsite"]);
    let report = status(&respaldo);
    assert_eq!(health(&report), states(&[("local", "healthy"), ("offsite", "never")]));
    respaldo.run(&["backup", "db"]).expect(0);
    assert_no_leftovers(&respaldo, "db", Some(&s3));
    assert_listed_verify(&respaldo, "db");
    let report = status(&respaldo);
    assert_eq!(health(&report), states(&[("local", "healthy"), ("offsite", "healthy")]));
    told(&slack.wait_for(2)[1], &["recovered"]);
    respaldo.run(&["backup", "db"]).expect(0);
    assert_eq!(slack.messages().len(), 2, "{:#?}", slack.messages());
}

#[test]
fn a_store_that_answers_500_makes_the_run_partial() {
    store_fails(|s3| s3.faults.set(Rule::on("PUT", ""), Act::Status(500)), &["offsite"]);
}

#[test]
fn a_store_that_forbids_makes_the_run_partial() {
    let words = ["the store refuses: check the access key", "'backups'"];
    store_fails(|s3| s3.faults.set(Rule::any(), Act::Status(403)), &words);
}

#[test]
fn a_store_that_does_not_know_the_key_makes_the_run_partial() {
    store_fails(|s3| s3.faults.set(Rule::any(), Act::RejectCredentials), &["the store refuses"]);
}

#[test]
fn a_bucket_that_is_gone_makes_the_run_partial() {
    let words = ["there is no bucket 'backups'"];
    store_fails(|s3| s3.faults.set(Rule::any(), Act::Status(404)), &words);
}

#[test]
fn a_store_that_says_nothing_makes_the_run_partial() {
    let words = ["no progress for 2 s", "longer `stall`"];
    store_fails(|s3| s3.faults.set(Rule::on("PUT", ""), Act::Hang), &words);
}

#[test]
fn a_connection_cut_in_every_part_makes_the_run_partial() {
    let cut = |s3: &S3| s3.faults.set(Rule::on("PUT", "partNumber"), Act::CutRequest(1 << 20));
    store_fails(cut, &["offsite"]);
}

#[test]
fn a_store_that_fails_only_at_the_manifest_makes_the_run_partial() {
    let refuse = |s3: &S3| s3.faults.set(Rule::on("PUT", "manifest.json"), Act::Status(403));
    store_fails(refuse, &["manifest.json", "the store refuses"]);
}

#[test]
fn nobody_listening_at_the_store_makes_the_run_partial() {
    let (database, s3, slack) = (database(1), S3::start(), Slack::start());
    let down = offsite(&s3).replace(&s3.endpoint(), &format!("http://127.0.0.1:{}", free_port()));
    let job = database_job("db", &database, PLAIN);
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{down}{}{job}", chat(&slack)));
    let output = respaldo.run(&["backup", "db"]).expect(3);
    says(&output, &["offsite failed"]);
    told(&slack.wait_for(1)[0], &["partly", "offsite"]);
    respaldo.run(&["verify", "db", "latest", "--destination", "local"]).expect(0);
}

#[test]
fn where_the_only_store_fails_the_run_fails() {
    let (database, s3, slack) = (database(1), S3::start(), Slack::start());
    let job = database_job("db", &database, PLAIN);
    let respaldo = Respaldo::new(&format!("{HEAD}{}{}{job}", offsite(&s3), chat(&slack)));
    s3.faults.set(Rule::any(), Act::Status(403));
    let output = respaldo.run(&["backup", "db"]).expect(1);
    says(&output, &["the store refuses"]);
    told(&slack.wait_for(1)[0], &["db failed", "the store refuses"]);
    s3.faults.clear();
    assert!(listed(&respaldo, "db").is_empty());
    respaldo.run(&["backup", "db"]).expect(0);
    assert_no_leftovers(&respaldo, "db", Some(&s3));
    told(&slack.wait_for(2)[1], &["recovered"]);
}

#[test]
fn a_store_that_fails_now_and_then_is_tried_again() {
    let (database, s3) = (database(1), S3::start());
    let job = database_job("db", &database, PLAIN);
    let respaldo = Respaldo::new(&format!("{}{}{job}", HEAD.replace("2s", "30s"), offsite(&s3)));
    s3.faults.set(Rule::any().every(3), Act::Status(500));
    respaldo.run(&["backup", "db"]).expect(0);
    respaldo.run(&["verify", "db"]).expect(0);
    assert!(s3.faults.hits() >= 5, "{}", s3.faults.hits());
    s3.faults.clear();
    assert_no_leftovers(&respaldo, "db", Some(&s3));
}

#[test]
fn the_manifests_answer_may_be_lost() {
    let (database, s3) = (database(1), S3::start());
    let job = database_job("db", &database, PLAIN);
    let respaldo = Respaldo::new(&format!("{}{}{job}", HEAD.replace("2s", "30s"), offsite(&s3)));
    s3.faults.set(Rule::on("PUT", "manifest.json").times(1), Act::LoseAnswer);
    respaldo.run(&["backup", "db"]).expect(0);
    assert_eq!(s3.faults.hits(), 1);
    assert_no_leftovers(&respaldo, "db", Some(&s3));
    assert_listed_verify(&respaldo, "db");
    assert_eq!(listed(&respaldo, "db").len(), 1);
}

#[test]
fn a_store_that_loses_the_end_of_a_part_without_a_word_is_found_out() {
    let (database, s3) = (database(1), S3::start());
    let job = database_job("db", &database, PLAIN);
    let respaldo = Respaldo::new(&format!("{HEAD}{}{job}", offsite(&s3)));
    s3.faults.set(Rule::on("POST", "uploadId="), Act::Hang);
    let running = respaldo.start(&["backup", "db"]);
    s3.faults.wait_for("POST", "uploadId=", 1);
    let parts = std::fs::read_dir(s3.folder().parent().unwrap()).unwrap();
    let last = parts
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with(".part-2"));
    let last = std::fs::OpenOptions::new().write(true).open(last.unwrap()).unwrap();
    last.set_len(last.metadata().unwrap().len() - 1).unwrap();
    s3.faults.clear();
    let output = running.finish(std::time::Duration::from_secs(60)).expect(1);
    assert!(output.stderr.contains("bytes were sent, but the store holds"), "{}", output.stderr);
    assert!(listed(&respaldo, "db").is_empty());
    assert_no_leftovers(&respaldo, "db", Some(&s3));
}

#[test]
fn a_disk_that_fills_up_hands_over_to_the_store() {
    let (database, s3, slack) = (database(4), S3::start(), Slack::start());
    let disk = Disk::new(24);
    let local = LOCAL.replace("@DIR@", disk.path().to_str().unwrap());
    let job = database_job("db", &database, PLAIN);
    let respaldo = Respaldo::new(&format!("{HEAD}{local}{}{}{job}", offsite(&s3), chat(&slack)));
    let free = disk.free_bytes();
    let output = respaldo.run(&["backup", "db"]).expect(3);
    says(&output, &["local failed", "the disk is full"]);
    let partial = listed(&respaldo, "db");
    assert_eq!(partial.len(), 1);
    assert!(partial.values().all(|places| places.iter().eq(["offsite"])), "{partial:?}");
    respaldo.run(&["verify", "db", "latest", "--destination", "offsite"]).expect(0);
    assert!(free - disk.free_bytes() < 1 << 20, "{free} free became {}", disk.free_bytes());
    assert!(backups_in(&disk.path().join("backups"), "db").is_empty());
    told(&slack.wait_for(1)[0], &["partly", "the disk is full"]);
}

#[test]
fn a_full_disk_fails_the_run_and_older_backups_stay() {
    let (database, slack) = (database(0), Slack::start());
    let disk = Disk::new(24);
    let local = LOCAL.replace("@DIR@", disk.path().to_str().unwrap());
    let config = |last: u32| {
        let more = format!("{PLAIN}\nkeep = {{ local = {{ last = {last} }} }}");
        format!("{HEAD}{local}{}{}", chat(&slack), database_job("db", &database, &more))
    };
    let respaldo = Respaldo::new(&config(2));
    respaldo.run(&["backup", "db"]).expect(0);
    respaldo.run(&["backup", "db"]).expect(0);
    let before = listed(&respaldo, "db");
    // Retention would take one of them now, but comes only after a backup that was committed.
    respaldo.write_config(&config(1));
    database.pgbench(1);
    let ballast = disk.fill(5 << 20);
    let output = respaldo.run(&["backup", "db"]).expect(1);
    says(&output, &["No space left", "the disk is full: make room"]);
    told(&slack.wait_for(1)[0], &["db failed", "the disk is full"]);
    assert_eq!(listed(&respaldo, "db"), before);
    assert_listed_verify(&respaldo, "db");
    assert_eq!(backups_in(&disk.path().join("backups"), "db").len(), 2);
    assert!(disk.free_bytes() > 4 << 20, "what did not fit stays: {} free", disk.free_bytes());
    std::fs::remove_file(ballast).unwrap();
    respaldo.run(&["backup", "db"]).expect(0);
    told(&slack.wait_for(2)[1], &["recovered"]);
}

#[test]
fn a_folder_that_may_not_be_written_is_told_with_the_exact_chown() {
    use std::os::unix::fs::PermissionsExt;
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", files_job("media", PLAIN)));
    respaldo.write("media/photo", "a photo");
    for (folder, mode) in [("backups", 0o755), ("data", 0o777)] {
        std::fs::create_dir(respaldo.path(folder)).unwrap();
        std::fs::set_permissions(respaldo.path(folder), PermissionsExt::from_mode(mode)).unwrap();
    }
    let output = respaldo.run_as_nobody(&["backup", "media"]).expect(1);
    let chown = format!("chown -R 65534:65534 {}", respaldo.path("backups").display());
    says(&output, &["respaldo runs as uid 65534 (it belongs to uid 0)", &chown]);
    assert!(backups_in(&local_root(&respaldo), "media").is_empty());
}

#[test]
fn a_run_that_takes_too_long_is_ended_at_its_deadline() {
    let (database, s3, slack) = (database(1), S3::start(), Slack::start());
    let job = database_job("db", &database, &format!("{PLAIN}\ndeadline = \"1s\""));
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}{}{job}", offsite(&s3), chat(&slack)));
    let lock = DumpLock::take(&database);
    let output = respaldo.run(&["backup", "db"]).expect(1);
    says(&output, &["longer than its deadline of 1s", "raise `deadline`"]);
    assert_no_process(&database);
    drop(lock);
    assert_eq!(last_run(&respaldo, "db")["state"], "failed");
    assert_no_leftovers(&respaldo, "db", Some(&s3));
    told(&slack.wait_for(1)[0], &["db failed", "deadline"]);
}

#[test]
fn a_run_is_cancelled_from_another_process_and_nobody_is_alarmed() {
    let (database, s3, slack) = (database(1), S3::start(), Slack::start());
    let job = database_job("db", &database, PLAIN);
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}{}{job}", offsite(&s3), chat(&slack)));
    let lock = DumpLock::take(&database);
    let running = respaldo.start(&["backup", "db"]);
    wait_for_waiter(&database);
    let run = last_run(&respaldo, "db");
    assert_eq!(run["state"], "running");
    respaldo.run(&["cancel", &run["id"].to_string()]).expect(0);
    running.finish(std::time::Duration::from_secs(60)).expect(1);
    assert_no_process(&database);
    drop(lock);
    assert_eq!(last_run(&respaldo, "db")["state"], "cancelled");
    assert_no_leftovers(&respaldo, "db", Some(&s3));
    assert_eq!(slack.attempts(), 0);
    respaldo.run(&["cancel", &run["id"].to_string()]).expect(2);
    respaldo.run(&["backup", "db"]).expect(0);
}
