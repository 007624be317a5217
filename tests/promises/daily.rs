//! The main job, as a user has it: the daemon on schedule, a database and a media tree, a local
//! folder and S3 at once; opened with stock tools, restored, compared. A small database in every
//! run of the tests; a gigabyte in `make soak`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::postgres::Postgres;
use crate::support::program::Respaldo;
use crate::support::s3::S3;
use crate::support::scene::{HEAD, LOCAL, PREFIX, database_job, files_job, offsite};
use crate::support::stored::Stored;
use crate::support::{tool, tree};

/// A pgbench scale of 70 is about a gigabyte.
fn scale() -> u32 {
    if std::env::var_os("RESPALDO_SOAK").is_some() { 70 } else { 2 }
}

fn shell(folder: &Path, commands: &str) -> String {
    tool(Command::new("bash").args(["-euo", "pipefail", "-c", commands]).current_dir(folder))
}

fn media(root: &Path) {
    let long = "a-long-name-".repeat(20);
    shell(
        root,
        &format!(
            "mkdir -p media/2025/{long} media/empty; cd media
             for n in $(seq 200); do head -c 20000 /dev/urandom > 2025/$n.jpg; done
             echo x > '2025/{long}/ünï \"côdé\".txt'; printf y > $'line\\nbreak'; printf z > ./-dash
             ln -s 2025 latest; ln -s /nowhere dangling; ln 2025/1.jpg hardlink.jpg
             truncate -s 200M sparse.bin; echo end >> sparse.bin; chmod 600 2025/2.jpg"
        ),
    );
}

/// Two backups that the timer started and nobody else: at the full minute, and at the next one.
#[test]
fn soak_the_daemon_on_schedule_backs_up_a_database_and_its_media() {
    let (database, s3) = (Postgres::start().database("daily"), S3::start());
    database.pgbench(scale());
    let every = "schedule = \"* * * * *\"\ncatch_up = false";
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}{}{}{}",
        offsite(&s3),
        database_job("db", &database, every),
        files_job("media", every)
    ))
    .deadline(Duration::from_secs(600));
    media(respaldo.folder());
    let before = database.fingerprint();

    let daemon = respaldo.daemon();
    daemon.wait_for_log("next run");
    assert_eq!(daemon.health().0, 503, "no backup yet is not health");
    daemon.wait_for_log("[db] backup 2");
    daemon.wait_for_log("[media] backup 2");
    let (status, health) = daemon.health();
    assert_eq!((status, &health["status"]), (200, &"healthy".into()), "{health:#}");
    assert_eq!(daemon.terminate(), 0);

    let places = [respaldo.path("backups"), s3.folder().join(PREFIX)];
    for place in &places {
        for job in ["db", "media"] {
            let stored = Stored::newest(place, job);
            shell(&stored.folder, "sha256sum --quiet -c SHA256SUMS");
            let manifest = stored.manifest();
            let id = stored.id();
            assert!(id.ends_with("00Z") || id.ends_with("01Z") || id.ends_with("02Z"), "{id}");
            assert_eq!(manifest["id"], id);
        }
    }
    let [local, remote] = places;
    let [local, remote] = [Stored::newest(&local, "db"), Stored::newest(&remote, "db")];
    assert_eq!(local.id(), remote.id());
    let same = format!("cmp *.dump.zst {}/*.dump.zst", remote.folder.display());
    shell(&local.folder, &same);

    for (n, stored) in [local, remote].iter().enumerate() {
        let copy = Postgres::start().database(&format!("daily{n}"));
        let mut pg_restore = copy.client("pg_restore");
        let dump = fs::read_dir(&stored.folder).unwrap().map(|e| e.unwrap().path());
        let dump = dump.into_iter().find(|p| p.to_str().unwrap().ends_with(".dump.zst")).unwrap();
        let mut zstd = Command::new("zstd")
            .arg("-dc")
            .arg(dump)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let stream = zstd.stdout.take().unwrap();
        tool(
            pg_restore.arg("--exit-on-error").arg(format!("--dbname={}", copy.name)).stdin(stream),
        );
        assert!(zstd.wait().unwrap().success());
        assert_eq!(copy.fingerprint(), before);
    }

    respaldo.run(&["verify", "db"]).expect(0);
    respaldo.run(&["verify", "media"]).expect(0);
    respaldo
        .run(&["restore", "db", "--destination", "offsite", "--database", "daily_back", "--yes"])
        .expect(0);
    let back = Postgres::start().existing("daily_back");
    assert_eq!(back.fingerprint(), before);
    let to = respaldo.path("back").display().to_string();
    respaldo.run(&["restore", "media", "--destination", "offsite", "--to", &to, "--yes"]).expect(0);
    assert_eq!(tree::listing(&respaldo.path("back")), tree::listing(&respaldo.path("media")));
}
