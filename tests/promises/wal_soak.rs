//! Everything goes wrong at once, over and over, while somebody writes: respaldo is killed, its spool lost, the
//! destination cut for longer than a segment, the server crashes and is promoted. No transaction that was
//! committed is missing in the end, or the hole was recorded, told, and followed by a new base backup.

use std::time::Duration;

use jiff::Timestamp;

use super::wal::{catch_up, check_any, has_backup, job, kill, server, status, switch, write};
use crate::support::config::s3;
use crate::support::eventually;
use crate::support::program::Respaldo;
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::{HEAD, chat};
use crate::support::slack::Slack;
use crate::support::writer::Writer;

/// Numbers that are others each time, and that can be had again by their seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Rounds, of which in each third the spool is lost.
fn rounds() -> u64 {
    if std::env::var_os("RESPALDO_SOAK").is_some() { 30 } else { 6 }
}

/// What the destination does to what is stored there.
fn cut(dice: &mut Dice) -> Act {
    match dice.below(4) {
        0 => Act::Status(503),
        1 => Act::LoseAnswer,
        2 => Act::CutRequest(20_000),
        _ => Act::Hang,
    }
}

#[test]
fn killed_cut_off_crashed_and_promoted_it_loses_nothing_silently() {
    let (server, store, slack) = (server(), S3::start(), Slack::start());
    let database = server.existing("postgres");
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{}{}{}",
        s3("offsite", &store, "app"),
        chat(&slack),
        job(&server, "")
    ));
    let seed = Timestamp::now().as_nanosecond() as u64 | 1;
    let (mut dice, rounds) = (Dice(seed), rounds());
    let first = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    kill(first);
    let (mut committed, mut spools, mut cuts, mut crashes, mut promotions) = (0, 0, 0, 0, 0);
    let mut writer = Writer::start(&database);
    for round in 0..rounds {
        let daemon = respaldo.daemon();
        daemon.wait_for_log("is received from");
        write(&server, 300);
        if round % 3 == 1 {
            // Longer than a segment, and over the kill.
            let act = cut(&mut dice);
            store.faults.set(Rule::on("PUT", "/wal/"), act);
            eprintln!("round {round}: the destination does {act:?}");
            for _ in 0..2 {
                switch(&server);
            }
            cuts += 1;
        }
        if round % 2 == 0 {
            switch(&server);
        }
        // Somewhere between receiving and storing.
        std::thread::sleep(Duration::from_millis(dice.below(900)));
        if round % 5 == 3 {
            // In the midst of its transactions, with respaldo alive.
            server.kill9();
            crashes += 1;
            if round % 10 == 3 {
                server.start_on_a_new_timeline();
                promotions += 1;
            } else {
                server.start_again();
            }
            committed += writer.ended().len() as u64;
            writer = Writer::start(&database);
        }
        kill(daemon);
        if round % 3 == 0 {
            std::fs::remove_dir_all(respaldo.path("data/wal")).unwrap();
            spools += 1;
        }
        switch(&server);
        store.faults.clear();
    }
    committed += writer.ended().len() as u64;
    let daemon = respaldo.daemon();
    catch_up(&respaldo, &server);
    let checked = check_any(&respaldo);
    let gaps = checked["recorded_gaps"].as_array().unwrap().len();
    eprintln!(
        "seed {seed}: {rounds} kills, {spools} spools lost, {cuts} cuts, {crashes} crashes, \
         {promotions} of them with a promotion, {committed} transactions; {gaps} gaps"
    );
    eventually("a base backup behind the last gap", || {
        respaldo.run(&["wal", "check", "db"]).code == 0
    });
    if gaps > 0 {
        let told = || slack.messages().iter().any(|one| one.to_string().contains("has a gap"));
        eventually("somebody hears of the gap", told);
    }
    assert_eq!(status(&respaldo).unwrap()["state"], "streaming");
    assert_eq!(daemon.terminate(), 0);

    // Not what we think that we have: what a server makes of it.
    let rows = "SELECT count(*), min(n), max(n) FROM ticks";
    let there = server.psql("postgres", rows);
    let recovered = server.on_another(|folder| {
        let to = folder.to_str().unwrap();
        respaldo.run(&["restore", "db", "--latest", "--yes", "--data-dir", to]).expect(0);
    });
    assert_eq!(recovered.psql("postgres", rows), there, "seed {seed}");
    let count: u64 = there.split('|').next().unwrap().parse().unwrap();
    assert!(count >= committed, "the server itself lost something: {there}, {committed}");
}
