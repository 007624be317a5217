//! A log is kept for as long as `wal.keep` says, and old base backups come to their own end without it.

use serde_json::Value;

use super::wal::{catch_up, check, check_any, files, has_backup, job, server, switch, write};
use crate::support::config::{LOCAL, s3};
use crate::support::eventually;
use crate::support::postgres::Postgres;
use crate::support::program::Respaldo;
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::{HEAD, chat};
use crate::support::slack::Slack;

fn config(server: &Postgres, window: &str) -> String {
    let keep = format!("keep = {{ local = \"{window}\" }}\nevery = ");
    format!("{HEAD}{LOCAL}{}", job(server, "").replace("every = ", &keep))
}

fn bases(checked: &Value) -> Vec<Value> {
    checked["places"][0]["bases"].as_array().unwrap().clone()
}

/// Numbers of the segments that lie there whole.
fn segments(respaldo: &Respaldo) -> Vec<u64> {
    let files = files(&respaldo.path("backups"));
    let whole = files.iter().filter(|(name, _)| name.len() > 40 && !name.contains(".piece"));
    whole.map(|(name, _)| u64::from_str_radix(&name[16..24], 16).unwrap()).collect()
}

#[test]
fn older_log_goes_and_old_base_backups_come_to_their_own_end() {
    let server = server();
    // Every moment since a second ago: the newest base backup that is older leads to them.
    let respaldo = Respaldo::new(&config(&server, "1s"));
    let count = || server.psql("postgres", "SELECT count(*) FROM t");
    let mut rows = Vec::new();
    for _ in 0..3 {
        write(&server, 50);
        rows.push(count());
        respaldo.run(&["backup", "db"]).expect(0);
        for _ in 0..2 {
            switch(&server);
        }
        // Older than the window when the next one is made.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    respaldo.run(&["backup", "db"]).expect(0);
    let daemon = respaldo.daemon();
    for _ in 0..3 {
        switch(&server);
    }
    catch_up(&respaldo, &server);
    assert_eq!(daemon.terminate(), 0);

    let checked = check(&respaldo, 0);
    let bases = bases(&checked);
    assert_eq!(bases.len(), 4, "{checked:#}");
    let own_end: Vec<bool> =
        bases.iter().map(|base| base["own_end_only"].as_bool().unwrap()).collect();
    // The third one too, where the fourth took longer than the window.
    assert!(own_end.starts_with(&[true, true]) && !own_end[3], "{checked:#}");
    assert!(bases.iter().all(|base| base["ends_in_gap"] == false), "{checked:#}");
    let said = respaldo.run(&["wal", "check", "db"]).expect(0).stderr;
    let at_own_end = own_end.iter().filter(|is| **is).count();
    assert_eq!(said.matches("can be recovered at its own end").count(), at_own_end, "{said}");
    let held = segments(&respaldo);
    let whole = held.last().unwrap() - held.first().unwrap() + 1;
    assert!((held.len() as u64) < whole, "nothing went: {held:?}");

    // The oldest one is good for its own end, and says that it is for nothing later.
    let (id, end) = (bases[0]["id"].as_str().unwrap(), bases[0]["from_lsn"].as_str().unwrap());
    let old = server.on_another(|folder| {
        let to = folder.to_str().unwrap();
        respaldo.run(&["restore", "db", id, "--to-lsn", end, "--yes", "--data-dir", to]).expect(0);
    });
    assert_eq!(old.psql("postgres", "SELECT count(*) FROM t"), rows[0]);
    let to = respaldo.path("refused");
    let to = to.to_str().unwrap();
    let refused = respaldo.run(&["restore", "db", id, "--latest", "--yes", "--data-dir", to]);
    let refused = refused.expect(1).stderr;
    assert!(refused.contains(&format!("--to-lsn {end}")), "{refused}");
    let latest = server.on_another(|folder| {
        let to = folder.to_str().unwrap();
        respaldo.run(&["restore", "db", "--latest", "--yes", "--data-dir", to]).expect(0);
    });
    assert_eq!(latest.psql("postgres", "SELECT count(*) FROM t"), count());

    // What went on purpose is no gap when the window is a longer one later.
    respaldo.write_config(&config(&server, "30d"));
    check(&respaldo, 0);
    // What goes otherwise is.
    let files = files(&respaldo.path("backups"));
    let newest = files.iter().rfind(|(name, _)| name.len() > 40 && !name.contains(".piece"));
    let at = newest.unwrap().0[..24].to_owned();
    let before = u64::from_str_radix(&at[16..], 16).unwrap() - 1;
    let name = format!("{}{before:08X}", &at[..16]);
    let (_, path) = files.iter().find(|(one, _)| one.starts_with(&name)).unwrap();
    std::fs::remove_file(path).unwrap();
    let checked = check_any(&respaldo);
    assert_eq!(checked["ok"], false, "{checked:#}");
}

#[test]
fn what_one_place_let_go_before_another_was_back_is_a_gap_that_is_told() {
    let (server, store, slack) = (server(), S3::start(), Slack::start());
    let local = config(&server, "1s");
    let respaldo =
        Respaldo::new(&format!("{local}{}{}", s3("offsite", &store, "app"), chat(&slack)));
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    catch_up(&respaldo, &server);
    store.faults.set(Rule::on("PUT", ""), Act::Status(503));
    for _ in 0..3 {
        for _ in 0..2 {
            switch(&server);
        }
        // On the folder alone; each lets go of what lay before the one before it.
        respaldo.run(&["backup", "db"]).expect(3);
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    store.faults.clear();
    eventually("the gap", || !check_any(&respaldo)["recorded_gaps"].as_array().unwrap().is_empty());
    let told = || slack.messages().iter().any(|message| message.to_string().contains("has a gap"));
    eventually("somebody hears of the gap", told);
    respaldo.run(&["backup", "db"]).expect(0);
    catch_up(&respaldo, &server);
    check(&respaldo, 0);
    drop(daemon);
}

#[test]
fn a_window_of_a_place_that_the_job_does_not_have_is_refused() {
    let server = server();
    let wrong = config(&server, "7d").replace("local = \"7d\"", "elsewhere = \"7d\"");
    let respaldo = Respaldo::new(&wrong);
    let said = respaldo.run(&["config", "check"]).expect(2).stderr;
    assert!(said.contains("jobs.db.wal.keep.elsewhere"), "{said}");
    assert!(said.contains("hint: it has: local"), "{said}");
}
