//! The schedule under a clock that is set back, and over a reload and a start between a time and its jitter.

use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use respaldo::schedule::Schedule;

use crate::support::DEADLINE;
use crate::support::program::Daemon;
use crate::support::scene::status;
use crate::support::shop::Shop;

fn shop(lines: &str) -> Shop {
    let mut shop = Shop::new("local = {}");
    shop.more = format!("{lines}\ncatch_up = false\n");
    shop.keep("local = {}");
    shop
}

/// Once it is, its times are armed.
fn wait_until_ready(daemon: &Daemon) {
    let started = Instant::now();
    daemon.wait_for_log("on http://");
    while daemon.get("/readyz").status != 200 {
        assert!(started.elapsed() < DEADLINE, "never ready: {:#?}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_clock_that_was_set_back_does_not_stop_the_schedule() {
    let shop = shop("schedule = \"* * * * *\"");
    shop.at("2025-11-24 12:00:40");
    let daemon = shop.respaldo.daemon();
    wait_until_ready(&daemon);
    shop.at("2025-11-22 12:00:30");
    daemon.wait_for_log("the clock was set back from 2025-11-24T");
    daemon.wait_for_log("backup 20251122T");
    assert_eq!(daemon.terminate(), 0);
}

/// When `shop` starts for noon of that day.
fn start_for_noon(day: &str) -> Timestamp {
    let noon: Timestamp = format!("{day}T12:00:00Z").parse().unwrap();
    let jitter = SignedDuration::from_hours(1);
    let schedule = Schedule::parse(["0 12 * * *"], TimeZone::UTC, jitter, noon).unwrap();
    let start = schedule.start("shop", noon);
    assert!(start.duration_since(noon).as_secs() > 60, "choose another day: {start}");
    start
}

#[test]
fn a_time_whose_jitter_has_not_passed_outlives_a_start_and_a_reload() {
    let shop = shop("schedule = \"0 12 * * *\"\njitter = \"1h\"");
    for (round, reload) in [(1, false), (2, true)] {
        let day = format!("2025-11-2{round}");
        let start = start_for_noon(&day);
        let before = start - SignedDuration::from_secs(15);
        shop.at(&before.strftime("%Y-%m-%d %H:%M:%S").to_string());
        let daemon = shop.respaldo.daemon();
        wait_until_ready(&daemon);
        if reload {
            daemon.reload();
            daemon.wait_for_log("the config was read again");
        }
        daemon.wait_for_log("is committed");
        assert_eq!(daemon.terminate(), 0);
        let status = status(&shop.respaldo);
        let runs = status["runs"].as_array().unwrap();
        assert_eq!(runs.len(), round, "{runs:#?}");
        let asked: Timestamp = runs[0]["requested_at"].as_str().unwrap().parse().unwrap();
        assert!(asked >= start, "{asked} for {start}");
    }
}
