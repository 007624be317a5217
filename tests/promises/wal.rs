//! The log of a server that is backed up whole: stored as it comes, let go only when it is stored, and
//! never with a hole that nobody hears of.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::config::{LOCAL, s3, text};
use crate::support::eventually;
use crate::support::postgres::{Database, Postgres};
use crate::support::program::{Daemon, Respaldo};
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::{HEAD, chat};
use crate::support::slack::Slack;

/// A server that bounds what a slot keeps.
pub fn server() -> Postgres {
    bounded(Postgres::fresh())
}

pub fn bounded(server: Postgres) -> Postgres {
    set(&server, "max_slot_wal_keep_size", "1GB");
    server.psql("postgres", "CREATE TABLE t (n bigserial PRIMARY KEY, filler text)");
    server
}

pub fn set(server: &Postgres, name: &str, value: &str) {
    server.psql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'"));
    server.psql("postgres", "SELECT pg_reload_conf()");
    let now = || server.psql("postgres", &format!("SHOW {name}"));
    eventually("the new setting", || now() == value);
}

/// `[jobs.db]`, whose log is stored every quarter of a second.
pub fn job(server: &Postgres, more: &str) -> String {
    let database: Database = server.existing("postgres");
    let (url, password) = (text(&database.url()), text(database.password()));
    // Others may not drop it when this is gone.
    std::mem::forget(database);
    format!(
        "[jobs.db]\nretries = 0\nschedule = \"0 2 1 1 *\"\nsource = {{ postgres = {url}, password = {password}, kind = \"physical\" }}\n\
         {more}\n[jobs.db.wal]\nevery = \"250ms\"\n"
    )
}

pub fn write(server: &Postgres, rows: u32) {
    server.psql("postgres", &format!(
        "INSERT INTO t (filler) SELECT repeat(md5(random()::text), 30) FROM generate_series(1, {rows})"
    ));
}

/// Ends the segment that is being written.
pub fn switch(server: &Postgres) {
    write(server, 10);
    server.psql("postgres", "SELECT pg_switch_wal()");
}

pub fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
}

pub fn current(server: &Postgres) -> u64 {
    lsn(&server.psql("postgres", "SELECT pg_current_wal_flush_lsn()"))
}

fn kept_from(server: &Postgres) -> u64 {
    lsn(&server.psql(
        "postgres",
        "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'respaldo_db'",
    ))
}

pub fn status(respaldo: &Respaldo) -> Option<Value> {
    let output = respaldo.run(&["wal", "status", "db", "--json"]);
    (output.code == 0).then(|| output.json())
}

/// What is stored in one place at least.
pub fn stored(respaldo: &Respaldo) -> u64 {
    status(respaldo).map_or(0, |status| lsn(status["stored_lsn"].as_str().unwrap()))
}

/// Waits until all that the server has written now is stored.
pub fn catch_up(respaldo: &Respaldo, server: &Postgres) {
    let now = current(server);
    eventually("what was written is stored", || stored(respaldo) >= now);
}

pub fn has_backup(respaldo: &Respaldo) -> bool {
    backups(respaldo) > 0
}

pub fn backups(respaldo: &Respaldo) -> usize {
    respaldo.run(&["list", "--json"]).expect(0).json().as_array().map_or(0, Vec::len)
}

/// Files of the log below a destination's root, by name.
pub fn files(root: &Path) -> Vec<(String, PathBuf)> {
    let all = walkdir::WalkDir::new(root.join("db/wal")).into_iter().filter_map(Result::ok);
    let files = all.filter(|entry| entry.file_type().is_file());
    let mut files: Vec<(String, PathBuf)> = files
        .map(|entry| (entry.file_name().to_str().unwrap().to_owned(), entry.into_path()))
        .collect();
    files.sort();
    files
}

pub fn check(respaldo: &Respaldo, code: i32) -> Value {
    respaldo.run(&["wal", "check", "db", "--json"]).expect(code).json()
}

pub fn kill(daemon: Daemon) {
    // Its receiver ends with it.
    for process in daemon.kill9() {
        eventually("the end of what it had started", || !process.is_alive());
    }
}

#[test]
fn all_that_is_written_is_stored_within_moments_and_a_base_backup_has_its_log() {
    let (server, store) = (server(), S3::start());
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}{}{}",
        s3("offsite", &store, "app"),
        job(&server, "")
    ));
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    write(&server, 2000);
    catch_up(&respaldo, &server);
    let checked = check(&respaldo, 0);
    for place in checked["places"].as_array().unwrap() {
        let base = &place["bases"][0];
        let (from, to) = (base["from_lsn"].as_str().unwrap(), base["to_lsn"].as_str().unwrap());
        assert!(lsn(to) > lsn(from), "{checked:#}");
    }
    let status = status(&respaldo).unwrap();
    assert_eq!(status["state"], "streaming", "{status:#}");
    assert!(status["rpo_seconds"].as_i64().unwrap() < 10, "{status:#}");
    // Of the newest segment there are pieces; once it is complete they go.
    let pieces =
        |root: &Path| files(root).iter().filter(|(name, _)| name.contains(".piece")).count();
    assert!(pieces(&respaldo.path("backups")) > 0);
    // What would be lost is known of each place, and not of the job alone.
    for place in status["places"].as_array().unwrap() {
        assert!(place["rpo_seconds"].as_i64().unwrap() < 10, "{status:#}");
    }
    let said = respaldo.run(&["wal", "status", "db"]).expect(0).stdout;
    assert_eq!(said.matches("missing there: the last").count(), 2, "{said}");
    switch(&server);
    catch_up(&respaldo, &server);
    let old = |root: &Path| {
        let newest = files(root).iter().map(|(name, _)| name[..24].to_owned()).max().unwrap();
        files(root).iter().any(|(name, _)| name.contains(".piece") && !name.starts_with(&newest))
    };
    eventually("pieces of complete segments are gone", || !old(&respaldo.path("backups")));
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn the_server_keeps_what_is_not_stored_yet() {
    let (server, store) = (server(), S3::start());
    let respaldo =
        Respaldo::new(&format!("{HEAD}{}{}", s3("offsite", &store, "app"), job(&server, "")));
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    switch(&server);
    catch_up(&respaldo, &server);
    eventually("the slot moves", || kept_from(&server) + (16 << 20) > current(&server));

    store.faults.set(Rule::on("PUT", "/wal/"), Act::Status(503));
    let kept = kept_from(&server);
    for _ in 0..3 {
        switch(&server);
    }
    // It was received, and tried.
    store.faults.wait_for("PUT", "/wal/", 1);
    daemon.wait_for_log("is not stored");
    assert!(kept_from(&server) <= kept + (16 << 20), "the slot went on without the store");
    let behind = stored(&respaldo);
    assert!(behind + (32 << 20) < current(&server));
    store.faults.clear();
    catch_up(&respaldo, &server);
    eventually("the slot moves again", || kept_from(&server) + (16 << 20) > current(&server));
    check(&respaldo, 0);
    drop(daemon);
}

#[test]
fn killed_at_any_moment_with_its_spool_lost_it_goes_on_without_a_gap() {
    let server = server();
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", job(&server, "")));
    let first = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    kill(first);
    let rounds: u64 = 5;
    for round in 0..rounds {
        let daemon = respaldo.daemon();
        daemon.wait_for_log("is received from");
        write(&server, 500);
        if round % 2 == 0 {
            switch(&server);
        }
        // Somewhere between receiving and storing.
        std::thread::sleep(Duration::from_millis(round * 97 % 700));
        kill(daemon);
        if round % 3 == 0 {
            std::fs::remove_dir_all(respaldo.path("data/wal")).unwrap();
        }
        switch(&server);
    }
    let daemon = respaldo.daemon();
    catch_up(&respaldo, &server);
    let checked = check(&respaldo, 0);
    assert_eq!(checked["recorded_gaps"], serde_json::json!([]));
    assert!(status(&respaldo).unwrap()["gaps"].as_array().unwrap().is_empty());
    drop(daemon);
}

#[test]
fn what_the_server_has_removed_is_a_gap_that_is_told_and_followed_by_a_new_full_backup() {
    let (server, slack) = (server(), Slack::start());
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}{}", chat(&slack), job(&server, "")));
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    catch_up(&respaldo, &server);
    assert_eq!(daemon.terminate(), 0);
    let before = backups(&respaldo);

    respaldo.run(&["wal", "detach", "db"]).expect(0);
    set(&server, "max_wal_size", "32MB");
    for _ in 0..6 {
        switch(&server);
        server.psql("postgres", "CHECKPOINT");
    }
    let daemon = respaldo.daemon();
    daemon.wait_for_log("is received from");
    eventually("the gap", || !check_any(&respaldo)["recorded_gaps"].as_array().unwrap().is_empty());
    eventually("a new base backup", || backups(&respaldo) > before);
    catch_up(&respaldo, &server);
    let checked = check(&respaldo, 0);
    let gap = &checked["recorded_gaps"][0];
    assert!(lsn(gap["to"].as_str().unwrap()) > lsn(gap["from"].as_str().unwrap()), "{gap:#}");
    let told = || slack.messages().iter().any(|message| message.to_string().contains("has a gap"));
    eventually("somebody hears of the gap", told);
    // Once, and not at each start.
    assert_eq!(daemon.terminate(), 0);
    let daemon = respaldo.daemon();
    daemon.wait_for_log("is received from");
    switch(&server);
    catch_up(&respaldo, &server);
    assert_eq!(check(&respaldo, 0)["recorded_gaps"].as_array().unwrap().len(), 1);
    drop(daemon);
}

pub fn check_any(respaldo: &Respaldo) -> Value {
    respaldo.run(&["wal", "check", "db", "--json"]).json()
}

#[test]
fn a_hole_that_nobody_recorded_is_found() {
    let server = server();
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", job(&server, "")));
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    for _ in 0..3 {
        switch(&server);
    }
    catch_up(&respaldo, &server);
    assert_eq!(daemon.terminate(), 0);
    check(&respaldo, 0);
    let root = respaldo.path("backups");
    let all = files(&root);
    let whole: Vec<_> = all.iter().filter(|(name, _)| !name.contains(".piece")).collect();
    let (name, path) = &whole[whole.len() - 2];
    let bytes = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    let checked = check(&respaldo, 1);
    let troubles = checked["places"][0]["troubles"].to_string();
    assert!(troubles.contains("the log is missing from"), "{checked:#}");
    // Another content under the same segment's name.
    std::fs::write(path, &bytes).unwrap();
    let (start, ending) = (&name[..24], name.split_once('.').unwrap().1);
    std::fs::write(path.with_file_name(format!("{start}-{}.{ending}", "0".repeat(32))), &bytes)
        .unwrap();
    let checked = check(&respaldo, 1);
    assert!(checked["places"][0]["troubles"].to_string().contains("two contents"), "{checked:#}");
}

#[test]
fn another_server_is_refused_until_somebody_says_that_it_is_the_one() {
    let (server, slack) = (server(), Slack::start());
    let head = format!("{HEAD}{LOCAL}{}", chat(&slack));
    let respaldo = Respaldo::new(&format!("{head}{}", job(&server, "")));
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    assert_eq!(daemon.terminate(), 0);
    let other = bounded(Postgres::fresh());
    respaldo.write_config(&format!("{head}{}", job(&other, "")));
    std::fs::remove_file(respaldo.path("data/catalog.sqlite3")).unwrap();
    let daemon = respaldo.daemon();
    daemon.wait_for_log("holds the log of another server");
    assert_eq!(
        files(&respaldo.path("backups")).iter().filter(|(name, _)| name.is_empty()).count(),
        0
    );
    let servers = || std::fs::read_dir(respaldo.path("backups/db/wal")).unwrap().count();
    assert_eq!(servers(), 1, "something of another server was stored");
    eventually("somebody hears of it", || {
        slack
            .messages()
            .iter()
            .any(|message| message.to_string().contains("stopped storing its log"))
    });
    respaldo.run(&["wal", "adopt", "db"]).expect(0);
    eventually("its log", || servers() == 2);
    let system_id = other.psql("postgres", "SELECT system_identifier FROM pg_control_system()");
    assert_eq!(
        deeds(&respaldo, "wal_adopt"),
        [("begun", &*system_id), ("done", &*system_id)].map(owned)
    );
    drop(daemon);
}

fn owned((outcome, subject): (&str, &str)) -> (String, String) {
    (outcome.to_owned(), subject.to_owned())
}

/// What the audit says of one kind of deed: outcome and subject.
fn deeds(respaldo: &Respaldo, action: &str) -> Vec<(String, String)> {
    let rows = respaldo.run(&["audit", "--json"]).expect(0).json();
    let mut of: Vec<&Value> =
        rows.as_array().unwrap().iter().filter(|row| row["action"] == action).collect();
    of.sort_by_key(|row| row["seq"].as_i64());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of.into_iter().map(|row| (text(&row["outcome"]), text(&row["subject"]))).collect()
}

#[test]
fn detaching_is_a_deed_that_is_written_down() {
    let server = server();
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", job(&server, "")));
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    // While somebody keeps the log it is refused, and that is written down too.
    let refused = respaldo.run(&["wal", "detach", "db"]).expect(2);
    assert!(refused.stderr.contains("is being kept"), "{}", refused.stderr);
    assert_eq!(daemon.terminate(), 0);
    respaldo.run(&["wal", "detach", "db"]).expect(0);
    let slots = server.psql("postgres", "SELECT count(*) FROM pg_replication_slots");
    assert_eq!(slots, "0");
    let outcomes: Vec<String> =
        deeds(&respaldo, "wal_detach").into_iter().map(|deed| deed.0).collect();
    assert_eq!(outcomes, ["begun", "failed", "begun", "done"]);
}

#[test]
fn a_server_that_is_not_ready_is_refused_with_what_makes_it_so() {
    let server = Postgres::fresh();
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", job(&server, "")));
    let refused = respaldo.run(&["backup", "db"]).expect(1);
    assert!(
        refused.stderr.contains("ALTER SYSTEM SET max_slot_wal_keep_size"),
        "{}",
        refused.stderr
    );
    set(&server, "max_slot_wal_keep_size", "1GB");
    server.psql("postgres", "CREATE ROLE someone LOGIN PASSWORD 'x'");
    let as_someone = |config: &str| {
        let url = server.existing("postgres");
        let mine = config.replace("postgres://postgres@", "postgres://someone@");
        let mine = mine.replace(&text(url.password()), "\"x\"");
        std::mem::forget(url);
        respaldo.write_config(&mine);
        respaldo.run(&["backup", "db"]).expect(1).stderr
    };
    let config = format!("{HEAD}{LOCAL}{}", job(&server, ""));
    let said = as_someone(&config);
    assert!(said.contains("ALTER ROLE \"someone\" REPLICATION;"), "{said}");
    server.psql("postgres", "ALTER ROLE someone REPLICATION");
    let said = as_someone(&config);
    assert!(said.contains("GRANT pg_monitor TO \"someone\";"), "{said}");
}

#[test]
fn a_command_keeps_the_log_itself_while_no_daemon_does() {
    let server = server();
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", job(&server, "")));
    respaldo.run(&["backup", "db"]).expect(0);
    let checked = check(&respaldo, 0);
    assert_eq!(checked["places"][0]["bases"].as_array().unwrap().len(), 1, "{checked:#}");
    // What comes after is kept by the server until somebody keeps the log again.
    write(&server, 100);
    assert!(kept_from(&server) <= current(&server));
    respaldo.run(&["backup", "db"]).expect(0);
    assert_eq!(check(&respaldo, 0)["recorded_gaps"], serde_json::json!([]));
}

#[test]
fn what_lies_before_the_oldest_base_backup_goes_and_nothing_else() {
    let server = server();
    let config = format!("{HEAD}{LOCAL}{}", job(&server, "keep = { local = { last = 2 } }"));
    let respaldo = Respaldo::new(&config);
    for _ in 0..2 {
        respaldo.run(&["backup", "db"]).expect(0);
        switch(&server);
    }
    let root = respaldo.path("backups");
    let first = files(&root)[0].0.clone();
    respaldo.run(&["backup", "db"]).expect(0);
    // Pruned after the log was looked at: it goes with the next.
    respaldo.run(&["backup", "db"]).expect(0);
    assert_eq!(backups(&respaldo), 2);
    assert!(!files(&root).iter().any(|(name, _)| *name == first), "{first} is still there");
    check(&respaldo, 0);
}

#[test]
fn a_base_backup_without_its_log_is_not_committed() {
    let (server, store) = (server(), S3::start());
    let first = job(&server, "deadline = \"10s\"");
    let respaldo = Respaldo::new(&format!("{HEAD}{}{first}", s3("offsite", &store, "app")));
    store.faults.set(Rule::on("PUT", "/wal/"), Act::Status(503));
    respaldo.run(&["backup", "db"]).expect(1);
    assert_eq!(backups(&respaldo), 0, "it counts though its log is nowhere");
    assert!(
        !store.objects().iter().any(|key| key.ends_with("manifest.json")),
        "{:?}",
        store.objects()
    );
    store.faults.clear();
    respaldo.run(&["backup", "db"]).expect(0);
    check(&respaldo, 0);

    // What is known of the log of an earlier server says nothing of this one's.
    let other = bounded(Postgres::fresh());
    while current(&other) < current(&server) {
        switch(&other);
    }
    (0..4).for_each(|_| switch(&server));
    respaldo.run(&["backup", "db"]).expect(0);
    let head = format!("{HEAD}{}", s3("offsite", &store, "app"));
    respaldo.write_config(&format!("{head}{}", job(&other, "deadline = \"10s\"")));
    let refused = respaldo.run(&["backup", "db"]).expect(1);
    assert!(refused.stderr.contains("respaldo wal adopt db"), "{}", refused.stderr);
    respaldo.run(&["wal", "adopt", "db"]).expect(0);
    // Not even what is stored is known: it stays at what was.
    store.faults.set(Rule::on("", "wal"), Act::Status(503));
    let there = backups(&respaldo);
    respaldo.run(&["backup", "db"]).expect(1);
    assert_eq!(backups(&respaldo), there, "it counts though its log is nowhere");
    store.faults.clear();
    respaldo.run(&["backup", "db"]).expect(0);
    assert_eq!(backups(&respaldo), there + 1);
}

#[test]
fn a_promoted_server_is_followed_to_its_new_timeline() {
    let server = server();
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", job(&server, "")));
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    switch(&server);
    write(&server, 100);
    catch_up(&respaldo, &server);
    server.stop();
    server.start_on_a_new_timeline();
    switch(&server);
    catch_up(&respaldo, &server);
    let checked = check(&respaldo, 0);
    assert_eq!(checked["places"][0]["timelines"], serde_json::json!([1, 2]), "{checked:#}");
    assert_eq!(checked["places"][0]["bases"][0]["timeline"], 2, "{checked:#}");
    assert_eq!(checked["recorded_gaps"], serde_json::json!([]));
    assert!(files(&respaldo.path("backups")).iter().any(|(name, _)| name == "00000002.history"));
    drop(daemon);
}

#[test]
fn a_promotion_right_at_the_beginning_of_a_segment_is_followed() {
    let server = server();
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", job(&server, "")));
    respaldo.run(&["backup", "db"]).expect(0);
    // The base backup has ended the segment, and nothing was written since.
    server.stop();
    server.start_on_a_new_timeline();
    let daemon = respaldo.daemon();
    write(&server, 100);
    catch_up(&respaldo, &server);
    let checked = check(&respaldo, 0);
    assert_eq!(checked["places"][0]["timelines"], serde_json::json!([1, 2]), "{checked:#}");
    assert_eq!(checked["recorded_gaps"], serde_json::json!([]));
    drop(daemon);
}

#[test]
fn a_segment_that_is_there_with_another_content_stops_it_and_is_told() {
    let (server, slack) = (server(), Slack::start());
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}{}", chat(&slack), job(&server, "")));
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    switch(&server);
    // At a segment's very beginning the one before it would be named.
    write(&server, 10);
    catch_up(&respaldo, &server);
    let next = server.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    let (_, some) = files(&respaldo.path("backups")).pop().unwrap();
    let planted = some.with_file_name(format!("{next}-{}.zst", "0".repeat(32)));
    std::fs::write(&planted, "not ours").unwrap();
    switch(&server);
    daemon.wait_for_log("with another content");
    eventually("somebody hears of it", || {
        slack
            .messages()
            .iter()
            .any(|message| message.to_string().contains("stopped storing its log"))
    });
    assert_eq!(std::fs::read_to_string(&planted).unwrap(), "not ours");
    assert_eq!(status(&respaldo).unwrap()["state"], "halted");
    let (code, health) = daemon.health();
    assert_eq!(code, 503, "{health:#}");
    std::fs::remove_file(&planted).unwrap();
    // It is tried again, and people hear that it goes on.
    catch_up(&respaldo, &server);
    eventually("somebody hears of the end", || {
        slack.messages().iter().any(|message| message.to_string().contains("is stored again"))
    });
    check(&respaldo, 0);
}

#[test]
fn a_slot_that_keeps_too_much_is_let_go_and_the_gap_is_made_good() {
    let (server, store, slack) = (server(), S3::start(), Slack::start());
    let config = job(&server, "").replace("every = ", "slot_limit = \"40MiB\"\nevery = ");
    let respaldo =
        Respaldo::new(&format!("{HEAD}{}{}{config}", s3("offsite", &store, "app"), chat(&slack)));
    set(&server, "max_wal_size", "32MB");
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    catch_up(&respaldo, &server);
    store.faults.set(Rule::on("PUT", "/wal/"), Act::Status(503));
    for _ in 0..5 {
        switch(&server);
    }
    daemon.wait_for_log("more than slot_limit allows");
    eventually("somebody heard that it keeps much", || {
        slack.messages().iter().any(|message| message.to_string().contains("keep too much"))
    });
    for _ in 0..3 {
        switch(&server);
        server.psql("postgres", "CHECKPOINT");
    }
    store.faults.clear();
    catch_up(&respaldo, &server);
    eventually("all is well again", || respaldo.run(&["wal", "check", "db"]).code == 0);
    drop(daemon);
}

#[test]
fn a_damaged_servers_backup_does_not_count_and_is_told() {
    let (server, slack) = (server(), Slack::start());
    write(&server, 100);
    server.break_page("postgres", "t");
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}{}", chat(&slack), job(&server, "")));
    let daemon = respaldo.daemon();
    eventually("the base backup", || has_backup(&respaldo));
    eventually("somebody hears of it", || {
        slack.messages().iter().any(|message| message.to_string().contains("does not count"))
    });
    let listed = respaldo.run(&["list", "--json"]).expect(0).json();
    assert_eq!(listed[0]["kind"], "suspect", "{listed:#}");
    let (code, health) = daemon.health();
    assert_eq!((code, &health["status"]), (503, &"never".into()), "{health:#}");
    drop(daemon);
}

#[test]
fn a_place_that_was_away_at_a_promotion_gets_its_history_too() {
    let (server, store) = (server(), S3::start());
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}{}{}",
        s3("offsite", &store, "app"),
        job(&server, "")
    ));
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    write(&server, 100);
    catch_up(&respaldo, &server);
    store.faults.set(Rule::on("PUT", "/wal/"), Act::Status(503));
    server.stop();
    server.start_on_a_new_timeline();
    for _ in 0..2 {
        switch(&server);
    }
    let of_the_new = |name: &str| name.starts_with("00000002") && name.contains('-');
    eventually("the new timeline is stored here", || {
        files(&respaldo.path("backups")).iter().any(|(name, _)| of_the_new(name))
    });
    assert_eq!(daemon.terminate(), 0);
    // The next receiver's folder is empty: only the other place has it.
    std::fs::remove_dir_all(respaldo.path("data/wal")).unwrap();
    store.faults.clear();
    let daemon = respaldo.daemon();
    switch(&server);
    eventually("the new timeline is in the store", || {
        store.objects().iter().filter_map(|key| key.rsplit('/').next()).any(of_the_new)
    });
    let objects = store.objects();
    assert!(objects.iter().any(|key| key.ends_with("00000002.history")), "{objects:?}");
    respaldo.run(&["wal", "check", "db"]).expect(0);
    drop(daemon);
}
