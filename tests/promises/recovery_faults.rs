//! A destination that fails while a log is fetched from it: tried again, or one clear error; never a folder on
//! which a server would start with less.

use super::wal::{catch_up, has_backup, job, kill, server, switch, write};
use crate::support::config::s3;
use crate::support::eventually;
use crate::support::postgres::Postgres;
use crate::support::program::{Output, Respaldo};
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::HEAD;

/// A server of which a base backup and some segments lie in the store alone.
fn archived() -> (Postgres, S3, Respaldo) {
    let (server, store) = (server(), S3::start());
    let respaldo =
        Respaldo::new(&format!("{HEAD}{}{}", s3("offsite", &store, "app"), job(&server, "")));
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    for _ in 0..3 {
        write(&server, 100);
        switch(&server);
    }
    catch_up(&respaldo, &server);
    kill(daemon);
    (server, store, respaldo)
}

fn recover(respaldo: &Respaldo, folder: &std::path::Path) -> Output {
    let to = folder.to_str().unwrap();
    respaldo.run(&["restore", "db", "--latest", "--yes", "--data-dir", to])
}

#[test]
fn a_destination_that_fails_for_a_moment_is_asked_again() {
    let (server, store, respaldo) = archived();
    let rows = server.psql("postgres", "SELECT count(*) FROM t");
    for act in [Act::Status(503), Act::CutResponse(500), Act::LoseAnswer] {
        store.faults.set(Rule::on("GET", "/wal/").times(1), act);
    }
    // Of one file more often than the client of the store itself asks.
    let one = store.objects().into_iter().rfind(|key| key.contains("/wal/")).unwrap();
    store.faults.set(Rule::on("GET", &one).times(8), Act::Status(503));
    let recovered = server.on_another(|folder| {
        let said = recover(&respaldo, folder).expect(0).stderr;
        assert!(said.contains("; trying again"), "{said}");
    });
    assert_eq!(store.faults.hits(), 3 + 8);
    assert_eq!(recovered.psql("postgres", "SELECT count(*) FROM t"), rows);
}

#[test]
fn a_destination_that_fails_on_is_one_clear_error_and_no_server_starts() {
    let (server, store, respaldo) = archived();
    // Two segments are there, and then none.
    for (n, act) in [Act::Status(503), Act::Status(403)].into_iter().enumerate() {
        store.faults.set(Rule::on("GET", "/wal/").skip(2), act);
        let folder = respaldo.path(&format!("data-{n}"));
        let said = recover(&respaldo, &folder).expect(1).stderr;
        assert!(said.contains("'offsite'"), "{act:?}: {said}");
        assert!(said.contains("\nhint: "), "{act:?}: {said}");
        assert!(!folder.join("PG_VERSION").exists(), "{act:?}");
        store.faults.clear();
    }
    // The same command again goes on as if nothing had been.
    recover(&respaldo, &respaldo.path("data-0")).expect(0);
    drop(server);
}

#[test]
fn a_timeline_without_its_history_is_not_left_out_silently() {
    let server = server();
    let respaldo =
        Respaldo::new(&format!("{HEAD}{}{}", crate::support::config::LOCAL, job(&server, "")));
    let daemon = respaldo.daemon();
    eventually("the first base backup", || has_backup(&respaldo));
    write(&server, 100);
    catch_up(&respaldo, &server);
    server.stop();
    server.start_on_a_new_timeline();
    write(&server, 100);
    switch(&server);
    catch_up(&respaldo, &server);
    assert_eq!(daemon.terminate(), 0);
    let files = super::wal::files(&respaldo.path("backups"));
    let (_, history) = files.iter().find(|(name, _)| name == "00000002.history").unwrap();
    let kept = std::fs::read(history).unwrap();
    std::fs::remove_file(history).unwrap();
    // A server would stop where the first timeline ends, and open.
    let said = recover(&respaldo, &respaldo.path("less")).expect(1).stderr;
    assert!(said.contains("00000002.history is missing"), "{said}");
    assert!(!respaldo.path("less/PG_VERSION").exists());
    let checked = super::wal::check(&respaldo, 1);
    assert!(
        checked["places"][0]["troubles"].to_string().contains("00000002.history"),
        "{checked:#}"
    );
    std::fs::write(history, kept).unwrap();
    recover(&respaldo, &respaldo.path("all")).expect(0);
}
