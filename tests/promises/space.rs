//! Room for what comes: told once before a disk is full, in time and not again and again.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use serde_json::Value;

use crate::support::disk::Disk;
use crate::support::eventually;
use crate::support::program::Respaldo;
use crate::support::scene::{HEAD, chat, files_job, status};
use crate::support::slack::Slack;

fn on(disk: &Disk, more: &str) -> String {
    format!("[destinations.disk]\nurl = \"file://{}/b\"\n{more}\n", disk.path().display())
}

fn place(respaldo: &Respaldo, name: &str) -> Value {
    let status = status(respaldo);
    let places = status["space"].as_array().unwrap();
    places.iter().find(|place| place["destination"] == name).unwrap_or(&Value::Null).clone()
}

fn count(respaldo: &Respaldo, sql: &str) -> i64 {
    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    catalog.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn looks(respaldo: &Respaldo) -> i64 {
    count(respaldo, "SELECT count(*) FROM space WHERE destination = 'disk'")
}

/// Starts the daemon, which looks at once, and ends it when `is_there` too.
fn start_until(respaldo: &Respaldo, is_there: impl Fn() -> bool) {
    let before = looks(respaldo);
    let daemon = respaldo.daemon();
    eventually("what the daemon sees", || looks(respaldo) > before && is_there());
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn a_disk_that_gets_low_is_told_once_and_its_recovery_too() {
    let (disk, slack) = (Disk::new(32), Slack::start());
    let job = files_job(
        "media",
        "schedule = \"@yearly\"\ncompression = \"none\"\nkeep = { disk = { last = 1 } }",
    );
    let respaldo = Respaldo::new(&format!("{HEAD}{}{}{job}", on(&disk, ""), chat(&slack)));
    respaldo.write("media/noise", &"n".repeat(4 << 20));
    respaldo.run(&["backup", "media"]).expect(0);
    let seen = place(&respaldo, "disk");
    assert_eq!((&seen["low"], &seen["fills_at"]), (&false.into(), &Value::Null), "{seen:#}");
    assert_eq!(seen["total_bytes"], 32 << 20);
    assert_eq!(seen["floor_bytes"].as_u64(), seen["next_backup_bytes"].as_u64().map(|n| 2 * n));
    assert!(place(&respaldo, "(data_dir)")["free_bytes"].as_u64().unwrap() > 0);

    // Less than two backups: each start looks, and says it once.
    let ballast = disk.fill(6 << 20);
    let low = |wanted: bool| place(&respaldo, "disk")["low"] == wanted;
    start_until(&respaldo, || slack.messages().len() == 1);
    let told = slack.wait_for(1)[0].to_string();
    for said in ["nearly full", "only 6", "take about 4", "disk", "make room, keep fewer backups"] {
        assert!(told.contains(said), "no {said:?} in {told}");
    }
    start_until(&respaldo, || low(true));
    let warned = respaldo.run(&["status"]).expect(0).stderr;
    assert!(warned.contains("is free on 'disk'"), "{warned}");
    let warned = respaldo.run(&["config", "check"]).expect(0).stderr;
    assert!(warned.contains("warning: 6.") && warned.contains("is free on 'disk'"), "{warned}");

    // A little more is no recovery: the next backup would make it low again.
    std::fs::remove_file(ballast).unwrap();
    let ballast = disk.fill(10 << 20);
    start_until(&respaldo, || low(false));
    let owed = "SELECT count(*) FROM facts WHERE name = 'disk-low:disk'";
    assert_eq!(count(&respaldo, owed), 1, "its recovery was told too early");
    std::fs::remove_file(ballast).unwrap();
    respaldo.run(&["backup", "media"]).expect(0);
    let all = slack.wait_for(2);
    assert!(all[1].to_string().contains("there is room again"), "{}", all[1]);
    respaldo.run(&["backup", "media"]).expect(0);
    assert_eq!(slack.messages().len(), 2, "{:#?}", slack.messages());
}

#[test]
fn a_run_of_the_daemon_that_takes_the_room_is_told_of() {
    let (disk, slack) = (Disk::new(32), Slack::start());
    let job = files_job("media", "schedule = \"@yearly\"\ncompression = \"none\"");
    let respaldo = Respaldo::new(&format!("{HEAD}{}{}{job}", on(&disk, ""), chat(&slack)));
    respaldo.write("media/noise", &"n".repeat(12 << 20));
    // Nothing was there yet, so it runs at once; two more like it don't fit.
    let daemon = respaldo.daemon();
    let told = slack.wait_for(1)[0].to_string();
    assert!(told.contains("nearly full") && told.contains("take about 12"), "{told}");
    drop(daemon);
}

#[test]
fn what_is_low_can_be_said_and_a_backup_that_may_not_fit_is_warned_of() {
    let disk = Disk::new(32);
    let job = files_job("media", "compression = \"none\"");
    let config = |free: &str| format!("{HEAD}{}{job}", on(&disk, free));
    let respaldo = Respaldo::new(&config("free = \"50%\""));
    respaldo.write("media/noise", &"n".repeat(8 << 20));
    respaldo.run(&["backup", "media"]).expect(0);
    assert_eq!(place(&respaldo, "disk")["low"], false);
    assert_eq!(place(&respaldo, "disk")["floor_bytes"], 16 << 20);
    respaldo.write_config(&config("free = \"30MiB\""));
    assert_eq!(place(&respaldo, "disk")["low"], true);
    respaldo.write_config(&config("free = \"0%\""));
    assert_eq!(place(&respaldo, "disk")["low"], false);

    // The run goes on, for this backup may be smaller: and it is.
    disk.fill(6 << 20);
    respaldo.write("media/noise", &"n".repeat(1 << 20));
    let made = respaldo.run(&["backup", "media", "--json"]).expect(0).json();
    let warnings = made[0]["warnings"].to_string();
    assert!(warnings.contains("free on 'disk'; the last backup took 8"), "{warnings}");

    respaldo.write_config(&config("free = \"a lot\""));
    let refused = respaldo.run(&["config", "check"]).expect(2).stderr;
    assert!(refused.contains("destinations.disk.free can't be \"a lot\""), "{refused}");
    respaldo.write_config(&config("free = \"5%\"").replace("file://", "s3://bucket"));
    let refused = respaldo.run(&["config", "check"]).expect(2).stderr;
    assert!(refused.contains("destinations.disk.free") && refused.contains("sftp://"), "{refused}");
}
