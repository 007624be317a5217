//! A server's disk is never filled by what it keeps for us: shown on a disk that is small enough to be filled,
//! with the destination away, then respaldo gone too, and writes going on all the time.

use super::wal::{
    backups, catch_up, check, check_any, has_backup, job, kill, lsn, set, status, switch,
};
use crate::support::config::s3;
use crate::support::disk::Disk;
use crate::support::eventually;
use crate::support::postgres::Postgres;
use crate::support::program::Respaldo;
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::{HEAD, chat};
use crate::support::slack::Slack;

const MIB: u64 = 1 << 20;

/// Writes more than the disk could hold; each write is one that a server with a full disk would refuse.
/// `keeps_up` is waited for before the server looks at what it can remove.
fn write_more_than_fits(server: &Postgres, disk: &Disk, keeps_up: impl Fn() -> bool) {
    let mut least = u64::MAX;
    for n in 0..24 {
        switch(server);
        if n % 3 == 2 {
            eventually("somebody keeps up", &keeps_up);
            server.psql("postgres", "CHECKPOINT");
        }
        least = least.min(disk.free_bytes());
    }
    assert!(least > 32 * MIB, "only {least} bytes were free");
}

#[test]
fn a_small_disk_is_not_filled_whatever_is_away() {
    // A real file system of its own, for the server's data alone.
    let disk = Disk::on_a_loop_device(320);
    let (store, slack) = (S3::start(), Slack::start());
    let server = Postgres::fresh_in(disk.path());
    set(&server, "max_wal_size", "32MB");
    set(&server, "max_slot_wal_keep_size", "96MB");
    server.psql("postgres", "CREATE TABLE t (n bigserial PRIMARY KEY, filler text)");
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{}{}{}",
        s3("offsite", &store, "app"),
        chat(&slack),
        job(&server, "")
    ));
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    catch_up(&respaldo, &server);
    let heard =
        |words: &str| slack.messages().iter().any(|message| message.to_string().contains(words));

    // The destination is away. What the server gives up we have received: nothing is lost.
    store.faults.set(Rule::on("PUT", "/wal/"), Act::Status(503));
    let receives =
        "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= pg_current_wal_flush_lsn()";
    write_more_than_fits(&server, &disk, || server.psql("postgres", receives) != "0");
    eventually("somebody hears that it keeps much", || heard("keep too much"));
    daemon.wait_for_log("has given the replication slot up");
    assert_eq!(status(&respaldo).unwrap()["gaps"], serde_json::json!([]));

    // Respaldo and what it had received are gone as well: nobody but the server itself can help it.
    kill(daemon);
    std::fs::remove_dir_all(respaldo.path("data/wal")).unwrap();
    let before = backups(&respaldo);
    write_more_than_fits(&server, &disk, || true);
    let slot = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'respaldo_db'";
    assert_eq!(server.psql("postgres", slot), "lost");

    store.faults.clear();
    let daemon = respaldo.daemon();
    eventually("the gap", || !check_any(&respaldo)["recorded_gaps"].as_array().unwrap().is_empty());
    eventually("somebody hears of the gap", || heard("has a gap"));
    eventually("a new base backup", || backups(&respaldo) > before);
    catch_up(&respaldo, &server);
    let checked = check(&respaldo, 0);
    let gap = &checked["recorded_gaps"][0];
    assert!(lsn(gap["to"].as_str().unwrap()) > lsn(gap["from"].as_str().unwrap()), "{gap:#}");
    server.psql("postgres", "INSERT INTO t (filler) VALUES ('and on')");
    drop(daemon);
    drop(server);
}
