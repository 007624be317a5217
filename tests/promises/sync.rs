//! A destination that was down catches up: what another one has is brought there, byte for byte, and
//! only what is whole and would be kept; beside running backups, and again after a kill.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::DEADLINE;
use crate::support::program::Respaldo;
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::{
    HEAD, LOCAL, assert_listed_verify, assert_no_leftovers, chat, last_run, listed, offsite,
    offsite_root, status,
};
use crate::support::shop::{Shop, minutes, noons};
use crate::support::slack::Slack;
use crate::support::stored::Stored;
use crate::support::tool;

const SECOND: &str = "[destinations.second]\nurl = \"file://@DIR@/second\"\n";
/// Uncompressed, in volumes of which each takes several parts of 8 MiB.
const JOB: &str = "[jobs.shop]\nsource = { sqlite = \"@DIR@/shop.db\" }\nretries = 0\n\
    compression = \"none\"\nvolume_size = \"9MiB\"\nschedule = \"@yearly\"\n";

/// Three destinations, one of them on S3, and somebody who is told.
struct Three {
    respaldo: Respaldo,
    s3: S3,
    slack: Slack,
}

impl Three {
    fn new() -> Self {
        Self::with(HEAD)
    }

    fn with(head: &str) -> Self {
        let (s3, slack) = (S3::start(), Slack::start());
        let places = format!("{LOCAL}{SECOND}{}", offsite(&s3));
        let respaldo = Respaldo::new(&format!("{head}{places}{}{JOB}", chat(&slack)));
        let sql = "CREATE TABLE t (a); INSERT INTO t VALUES (randomblob(20000000))";
        tool(Command::new("sqlite3").arg(respaldo.path("shop.db")).arg(sql));
        Self { respaldo, s3, slack }
    }

    /// A backup that the store refuses.
    fn partial(&self) -> Stored {
        self.s3.faults.set(Rule::on("PUT", ""), Act::Status(403));
        self.respaldo.run(&["backup", "shop"]).expect(3);
        self.s3.faults.clear();
        Stored::newest(&self.respaldo.path("backups"), "shop")
    }

    fn sync(&self, more: &[&str], code: i32) -> Value {
        let arguments = [&["sync", "shop", "--json"], more].concat();
        self.respaldo.run(&arguments).expect(code).json()[0].clone()
    }

    fn remote(&self, id: &str) -> Stored {
        Stored { folder: offsite_root(&self.s3).join("shop").join(id) }
    }

    fn health(&self) -> Value {
        let status = status(&self.respaldo);
        let places = status["jobs"][0]["destinations"].as_array().unwrap();
        places.iter().find(|place| place["name"] == "offsite").unwrap()["status"].clone()
    }

    fn sync_runs(&self) -> usize {
        let status = status(&self.respaldo);
        status["runs"].as_array().unwrap().iter().filter(|run| run["kind"] == "sync").count()
    }
}

/// Every file of a backup with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    let name = |path: &Path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
    files.map(|entry| (name(entry.path()), fs::read(entry.path()).unwrap())).collect()
}

#[track_caller]
fn assert_identical(one: &Stored, other: &Stored) {
    let (one, other) = (contents(&one.folder), contents(&other.folder));
    assert!(one.keys().eq(other.keys()), "{:?} and {:?}", one.keys(), other.keys());
    assert!(one.len() >= 8, "{:?}", one.keys());
    for (name, bytes) in &one {
        assert!(bytes == &other[name], "{name} is not the same");
    }
}

#[test]
fn one_of_three_that_refuses_is_told_of_and_repaired_byte_for_byte() {
    let three = Three::new();
    let local = three.partial();
    assert!(three.slack.wait_for(1)[0].to_string().contains("partly"));
    assert_eq!(
        (last_run(&three.respaldo, "shop")["state"].clone(), three.health()),
        (json!("partial"), json!("never"))
    );
    three.respaldo.run(&["pin", "shop", &local.id(), "--note", "before the move"]).expect(0);

    // While it refuses, each try says so, and people hear of it once.
    three.s3.faults.set(Rule::on("PUT", ""), Act::Status(403));
    for _ in 0..2 {
        let failed = three.sync(&[], 1);
        assert_eq!(failed["repairs"][0]["state"], "failed", "{failed:#}");
        let error = failed["repairs"][0]["error"].as_str().unwrap();
        assert!(error.contains("offsite"), "{error}");
    }
    three.s3.faults.clear();
    let told = three.slack.wait_for(2)[1].to_string();
    assert!(told.contains("is not the same on every destination"), "{told}");
    assert_eq!(three.health(), "never");

    let before = three.s3.objects();
    let found = three.sync(&["--dry-run"], 0);
    assert_eq!(found["repairs"].as_array().unwrap().len(), 1, "{found:#}");
    assert_eq!((&found["repairs"][0]["state"], &found["run"]), (&json!("missing"), &Value::Null));
    assert_eq!(three.s3.objects(), before);

    let runs = three.sync_runs();
    let done = three.sync(&[], 0);
    assert_eq!(
        (&done["repairs"][0]["state"], &done["repairs"][0]["from"]),
        (&json!("copied"), &json!("local"))
    );
    let remote = three.remote(&local.id());
    assert_identical(&local, &remote);
    assert!(remote.path("marks/pin.json").exists());
    assert_eq!(remote.manifest()["artifacts"][0]["volumes"].as_array().unwrap().len(), 3);
    assert_eq!(three.health(), "healthy");
    assert_no_leftovers(&three.respaldo, "shop", Some(&three.s3));
    assert_listed_verify(&three.respaldo, "shop");
    tool(
        Command::new("sha256sum").args(["--quiet", "-c", "SHA256SUMS"]).current_dir(&remote.folder),
    );
    let run = last_run(&three.respaldo, "shop");
    assert_eq!((&run["kind"], &run["state"]), (&json!("sync"), &json!("succeeded")));
    let log = fs::read_to_string(run["log"].as_str().unwrap()).unwrap();
    assert!(log.contains("is on 'offsite' now, from 'local'"), "{log}");
    assert!(three.slack.wait_for(3)[2].to_string().contains("recovered"));

    // Nothing is left to do, and that leaves no trace.
    let idle = three.respaldo.run(&["sync", "shop"]).expect(0);
    assert!(idle.stderr.contains("nothing is missing"), "{}", idle.stderr);
    assert_eq!(three.sync_runs(), runs + 1);
    assert_eq!(three.slack.messages().len(), 3);
    let list = three.respaldo.run(&["list", "--json"]).expect(0).json();
    let held = list[0]["destinations"].as_array().unwrap();
    assert!(
        held.iter().all(|held| held["state"] == "stored" && held["pinned"] == true),
        "{list:#}"
    );
}

#[test]
fn a_damaged_copy_is_told_of_and_never_spread() {
    let three = Three::new();
    let local = three.partial();
    let second = Stored { folder: three.respaldo.path("second/shop").join(local.id()) };
    Stored::flip(&local.path("shop.sqlite3.001"));
    let done = three.sync(&[], 0);
    assert_eq!(done["repairs"][0]["from"], "second", "{done:#}");
    let warning = done["warnings"][0].as_str().unwrap();
    assert!(warning.contains("shop.sqlite3.001 on 'local' is damaged"), "{warning}");
    assert_identical(&second, &three.remote(&local.id()));
    assert!(three.slack.wait_for(2)[1].to_string().contains("is damaged"));

    // A second one, of which no copy is whole.
    let local = three.partial();
    let second = Stored { folder: three.respaldo.path("second/shop").join(local.id()) };
    Stored::flip(&local.path("shop.sqlite3"));
    fs::write(second.path("SHA256SUMS"), "other").unwrap();
    let failed = three.sync(&[], 1);
    assert!(failed["repairs"][0]["error"].as_str().unwrap().contains("is damaged"), "{failed:#}");
    assert!(!three.remote(&local.id()).path("manifest.json").exists());
    assert_eq!(three.s3.incomplete_uploads().len(), 0);
    assert!(!listed(&three.respaldo, "shop")[&local.id()].contains("offsite"));
    assert_eq!(three.health(), "failing");
}

#[test]
fn what_nobody_here_has_signed_is_not_spread() {
    let three = Three::new();
    let local = three.partial();
    let mut manifest = local.manifest();
    manifest["label"] = json!("forged");
    local.write_manifest(&manifest);
    fs::remove_dir_all(three.respaldo.path("second/shop")).unwrap();
    let failed = three.sync(&[], 1);
    assert!(failed.to_string().contains("it is not signed"), "{failed:#}");
    assert!(!three.remote(&local.id()).folder.join("manifest.json").exists());
}

#[test]
fn what_was_erased_on_one_does_not_come_back_from_another() {
    let three = Three::new();
    let local = three.partial();
    let second = Stored { folder: three.respaldo.path("second/shop").join(local.id()) };
    fs::create_dir(second.path("marks")).unwrap();
    fs::write(second.path("marks/tombstone.json"), "{}\n").unwrap();
    let done = three.sync(&[], 0);
    assert_eq!(done["repairs"][0]["from"], "second", "{done:#}");
    assert!(three.remote(&local.id()).path("marks/tombstone.json").exists());
}

#[test]
fn a_copy_that_somebody_deleted_comes_back() {
    let three = Three::new();
    three.respaldo.run(&["backup", "shop"]).expect(0);
    let local = Stored::newest(&three.respaldo.path("backups"), "shop");
    let before = contents(&local.folder);
    fs::remove_dir_all(&local.folder).unwrap();
    three.sync(&[], 0);
    assert!(contents(&local.folder) == before);
    assert_listed_verify(&three.respaldo, "shop");
}

#[test]
fn a_sync_that_is_killed_goes_on_and_one_beside_a_backup_is_left_in_peace() {
    let three = Three::with(&HEAD.replace("2s", "60s"));
    let local = three.partial();
    let volume = format!("{}/shop.sqlite3.001", local.id());
    three.s3.faults.set(Rule::on("PUT", &volume), Act::Hang);
    let running = three.respaldo.watch(&["sync", "shop"]);
    three.s3.faults.wait_for("PUT", &volume, 1);
    // A second one does not get in its way.
    let busy = three.respaldo.run(&["sync", "shop"]).expect(1);
    assert!(busy.stderr.contains("is running"), "{}", busy.stderr);
    running.kill9();
    three.s3.faults.clear();
    three.s3.wait_for_the_dead();
    assert!(!three.remote(&local.id()).path("manifest.json").exists());

    three.s3.faults.set(Rule::on("PUT", &volume).times(1), Act::Hang);
    let seen = three.s3.faults.count("PUT", &volume);
    let running = three.respaldo.start(&["sync", "shop"]);
    three.s3.faults.wait_for("PUT", &volume, seen + 1);
    // A backup, with its retention and its clearing up of leftovers, while the sync is half-way.
    three.respaldo.run(&["backup", "shop"]).expect(0);
    three.respaldo.run(&["prune", "shop"]).expect(0);
    assert!(three.remote(&local.id()).path("shop.sqlite3").exists(), "it was cleared away");
    three.s3.faults.clear();
    running.finish(DEADLINE).expect(0);
    assert_identical(&local, &three.remote(&local.id()));
    assert_no_leftovers(&three.respaldo, "shop", Some(&three.s3));
    assert_listed_verify(&three.respaldo, "shop");
}

#[test]
fn only_what_the_destination_would_keep_is_brought_there() {
    let shop = Shop::with_s3("local = {}, offsite = { last = 2, monthly = 2 }");
    shop.at("2025-10-30 12:00:00").backup().expect(0);
    let faults = &shop.s3.as_ref().unwrap().faults;
    faults.set(Rule::any(), Act::Status(403));
    for day in 1..=5 {
        shop.at(&format!("2025-11-{day:02} 12:00:00")).backup().expect(3);
    }
    faults.clear();
    assert_eq!(minutes(&shop.remote()), ["20251030T120000Z"]);
    shop.at("2025-11-05 13:00:00").respaldo.run(&["sync"]).expect(0);
    let kept = [&["20251030T120000Z".to_owned()][..], &noons(&[4, 5])].concat();
    assert_eq!(minutes(&shop.remote()), kept);
    // And the next prune agrees.
    shop.prune(&["--yes"]).expect(0);
    assert_eq!(minutes(&shop.remote()), kept);
    shop.respaldo.run(&["sync"]).expect(0);
    assert_eq!(minutes(&shop.remote()), kept);
}

#[test]
fn the_daemon_repairs_every_hour_and_is_quiet_when_nothing_is_missing() {
    let mut shop = Shop::with_s3("local = {}, offsite = {}");
    shop.more = "catch_up = false\n".to_owned();
    shop.keep("local = {}, offsite = {}");
    let faults = shop.s3.as_ref().unwrap().faults.clone();
    faults.set(Rule::on("PUT", ""), Act::Status(403));
    shop.at("2025-11-24 12:00:00").backup().expect(3);
    faults.clear();
    shop.at("2025-11-24 12:59:57");
    let daemon = shop.respaldo.daemon();
    daemon.wait_for_log("is on 'offsite' now, from 'local'");
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(shop.ids(), shop.remote());
    let runs = |shop: &Shop| status(&shop.respaldo)["runs"].as_array().unwrap().len();
    assert_eq!(
        (last_run(&shop.respaldo, "shop")["trigger"].clone(), runs(&shop)),
        (json!("schedule"), 2)
    );

    // The next hour finds nothing; the one after is asked of a store that is down.
    shop.at("2025-11-24 13:59:57");
    let looks = faults.count("GET", "list-type=2");
    let daemon = shop.respaldo.daemon();
    faults.wait_for("GET", "list-type=2", looks + 2);
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(runs(&shop), 2);

    shop.more = "catch_up = false\nsync = false\n".to_owned();
    shop.keep("local = {}, offsite = {}");
    let shown = shop.respaldo.run(&["config", "show"]).expect(0).stdout;
    assert!(shown.contains("sync = false"), "{shown}");
}
