//! What is kept is what the policy says, on each destination by itself, end to end: with the real
//! program, on a folder and on S3, under a clock that the test sets. And what would destroy waits
//! for a person.

use std::fs;

use serde_json::{Value, json};

use crate::support::s3::{Act, Rule};
use crate::support::shop::{Shop, decisions, minutes, noons};
use crate::support::stored::Stored;

#[test]
fn each_destination_keeps_by_its_own_rules() {
    let shop = Shop::with_s3("local = { days = 7 }, offsite = { last = 2, weekly = 3 }");
    shop.november(1..=20);
    // Younger than seven days, to the second: the thirteenth is that old, or a moment older.
    let local = minutes(&shop.ids());
    assert_eq!(local.last(), Some(&noons(&[20])[0]));
    assert!(
        local == noons(&[14, 15, 16, 17, 18, 19, 20])
            || local == noons(&[13, 14, 15, 16, 17, 18, 19, 20]),
        "{local:?}"
    );
    // The last two, and the newest of the weeks that end on the 9th, the 16th and the 23rd.
    assert_eq!(minutes(&shop.remote()), noons(&[9, 16, 19, 20]));

    let listed = shop.respaldo.run(&["list", "--json"]).expect(0).json();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), local.len() + 1, "what is on one of the two is listed once");
    let state = |backup: &Value, name: &str| {
        let all = backup["destinations"].as_array().unwrap();
        all.iter().find(|d| d["name"] == name).unwrap()["state"].as_str().unwrap().to_owned()
    };
    let oldest = listed.last().unwrap();
    assert_eq!(
        (state(oldest, "local"), state(oldest, "offsite")),
        ("missing".into(), "stored".into())
    );
    shop.respaldo.run(&["verify", "shop", "latest"]).expect(0);
}

#[test]
fn a_dry_run_gives_each_a_reason_and_deletes_nothing() {
    let shop = Shop::with_s3("local = {}, offsite = {}");
    shop.november(1..=6);
    shop.keep("local = { last = 4, yearly = 1 }, offsite = { last = 5 }");
    let plans = shop.prune(&["--dry-run", "--json"]).expect(0).json();
    let (local, offsite) = (decisions(&plans[0]), decisions(&plans[1]));
    assert_eq!(local[0], (true, "newest, last, yearly 2025".into()));
    assert_eq!(local[3], (true, "last".into()));
    assert_eq!(local[4], (false, "no rule keeps it".into()));
    assert_eq!(offsite.iter().filter(|(keep, _)| *keep).count(), 5);
    assert_eq!(plans[0]["deleted"], json!([]));
    let table = shop.prune(&["--dry-run"]).expect(0).stdout;
    assert_eq!(table.lines().filter(|line| line.contains("would delete")).count(), 3, "{table}");
    assert_eq!((shop.ids().len(), shop.remote().len()), (6, 6));
    let plans = shop.prune(&["--json"]).expect(0).json();
    assert_eq!(plans[0]["deleted"].as_array().unwrap().len(), 2);
    assert_eq!(
        (minutes(&shop.ids()), minutes(&shop.remote())),
        (noons(&[3, 4, 5, 6]), noons(&[2, 3, 4, 5, 6]))
    );
}

#[test]
fn the_newest_never_goes_and_a_clock_that_jumped_waits_for_a_person() {
    let shop = Shop::with_s3("local = { days = 7 }, offsite = { days = 7 }");
    shop.november(1..=6);
    shop.at("2026-11-24 12:00:00");
    for more in [&[][..], &["--json"]] {
        let held = shop.prune(more).expect(1);
        for part in ["more than half", "did the clock jump?", "respaldo prune JOB --yes"] {
            assert!(held.stderr.contains(part), "{}", held.stderr);
        }
    }
    assert_eq!((shop.ids().len(), shop.remote().len()), (6, 6));
    assert_eq!(shop.prune(&["--dry-run", "--json"]).expect(0).json()[0]["held"], "more_than_half");
    // A backup under that clock is a backup, and prunes nothing either.
    shop.backup().expect(0);
    assert_eq!((shop.ids().len(), shop.remote().len()), (7, 7));
    shop.prune(&["--yes"]).expect(0);
    assert_eq!(shop.ids(), shop.remote());
    assert_eq!(shop.ids().len(), 1);
    // Also a year later, and with every rule against it.
    shop.keep("local = { last = 0 }, offsite = { days = 1 }");
    shop.at("2028-01-01 00:00:00").prune(&["--yes"]).expect(0);
    assert_eq!((shop.ids().len(), shop.remote().len()), (1, 1));
}

#[test]
fn a_clock_that_is_behind_stops_pruning_whoever_asks() {
    let shop = Shop::new("local = { last = 2 }");
    shop.november(5..=6);
    let newest = Stored::newest(&shop.local(), "shop");
    for day in 1..5 {
        newest.copy_as(&format!("2025110{day}T120000Z"));
    }
    shop.at("2024-01-01 00:00:00");
    for more in [&[][..], &["--yes"]] {
        let held = shop.prune(more).expect(1);
        assert!(held.stderr.contains("the clock is behind the newest backup"), "{}", held.stderr);
        assert_eq!(shop.ids().len(), 6);
    }
    // A backup that is made now is older than what there is: it is kept, and nothing goes.
    shop.backup().expect(0);
    assert_eq!(shop.ids().len(), 7);
}

#[test]
fn another_owner_of_the_folder_is_left_in_peace_until_it_is_adopted() {
    let shop = Shop::with_s3("local = { last = 2 }, offsite = { last = 2 }");
    shop.november(1..=3);
    // A second installation with the same job on the same destinations: its data folder is new.
    fs::rename(shop.respaldo.path("data"), shop.respaldo.path("first")).unwrap();
    shop.at("2025-11-04 12:00:00");
    shop.backup().expect(0);
    let held = shop.prune(&[]).expect(1);
    for part in ["another respaldo owns", "--adopt"] {
        assert!(held.stderr.contains(part), "{}", held.stderr);
    }
    shop.prune(&["--yes"]).expect(1);
    assert_eq!((shop.ids().len(), shop.remote().len()), (3, 3));
    shop.prune(&["--adopt", "--dry-run"]).expect(0);
    shop.prune(&[]).expect(1);
    shop.prune(&["--adopt"]).expect(0);
    assert_eq!((minutes(&shop.ids()), minutes(&shop.remote())), (noons(&[3, 4]), noons(&[3, 4])));
    // From now on it is this one's, and the first one is held.
    shop.at("2025-11-05 12:00:00").backup().expect(0);
    assert_eq!(minutes(&shop.ids()), noons(&[4, 5]));
    fs::rename(shop.respaldo.path("data"), shop.respaldo.path("second")).unwrap();
    fs::rename(shop.respaldo.path("first"), shop.respaldo.path("data")).unwrap();
    shop.at("2025-11-06 12:00:00").backup().expect(0);
    assert_eq!(minutes(&shop.ids()), noons(&[4, 5, 6]));
}

#[test]
fn an_unfinished_folder_is_left_alone_while_somebody_may_be_writing_it() {
    let shop = Shop::new("local = { last = 1 }");
    shop.november(1..=2);
    let id = "20251103T120000Z";
    let folder = shop.local().join("shop").join(id);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("shop.sqlite3.zst"), "half").unwrap();
    let is_there = || folder.join("shop.sqlite3.zst").exists();
    // Twice the deadline of an hour, and a day.
    for now in ["2025-11-03 12:00:01", "2025-11-03 14:30:00", "2025-11-04 13:59:00"] {
        shop.at(now).prune(&[]).expect(0);
        assert!(is_there(), "{now}");
        let listed = shop.respaldo.run(&["list", "--json"]).expect(0).stdout;
        assert!(!listed.contains(id), "{listed}");
    }
    shop.at("2025-11-04 14:00:02").prune(&["--dry-run"]).expect(0);
    assert!(is_there(), "a dry run cleared it");
    shop.prune(&[]).expect(0);
    assert!(!folder.exists());
    assert_eq!(minutes(&shop.ids()), noons(&[2]));
}

#[test]
fn a_changed_policy_is_carried_out_by_the_next_backup() {
    let shop = Shop::new("local = {}");
    shop.november(1..=8);
    assert_eq!(shop.ids().len(), 8);
    shop.keep("local = { last = 2 }");
    shop.november(9..=9);
    assert_eq!(minutes(&shop.ids()), noons(&[8, 9]));
}

#[test]
fn a_run_that_failed_prunes_nothing_and_a_destination_that_got_nothing_neither() {
    let shop = Shop::with_s3("local = {}, offsite = {}");
    shop.november(1..=5);
    shop.keep("local = { last = 2 }, offsite = { last = 2 }");
    fs::rename(shop.respaldo.path("shop.db"), shop.respaldo.path("away")).unwrap();
    shop.at("2025-11-06 12:00:00").backup().expect(1);
    assert_eq!((shop.ids().len(), shop.remote().len()), (5, 5));
    fs::rename(shop.respaldo.path("away"), shop.respaldo.path("shop.db")).unwrap();
    let faults = &shop.s3.as_ref().unwrap().faults;
    faults.set(Rule::on("PUT", "shop.sqlite3"), Act::Status(403));
    shop.at("2025-11-07 12:00:00").backup().expect(3);
    assert_eq!(minutes(&shop.ids()), noons(&[5, 7]));
    assert_eq!(minutes(&shop.remote()), noons(&[1, 2, 3, 4, 5]));
}

#[test]
fn a_pinned_backup_stays_and_what_cant_be_read_is_left_for_a_person() {
    let shop = Shop::new("local = {}");
    shop.november(1..=5);
    let all = Stored::all(&shop.local(), "shop");
    fs::create_dir(all[1].path("marks")).unwrap();
    fs::write(all[1].path("marks/pin.json"), "{}\n").unwrap();
    fs::write(all[2].path("manifest.json"), "{ half").unwrap();
    shop.keep("local = { last = 1 }");
    let pruned = shop.prune(&["--yes", "--json"]).expect(0).json();
    assert_eq!(minutes(&shop.ids()), noons(&[2, 3, 5]));
    assert_eq!(
        decisions(&pruned[0]),
        [
            (true, "newest, last".into()),
            (false, "no rule keeps it".into()),
            (true, "pinned".into()),
            (false, "no rule keeps it".into()),
        ]
    );
    let warning = pruned[0]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("20251103T1200"), "{warning}");
    let listed = shop.respaldo.run(&["list", "--json"]).expect(0).json();
    assert_eq!(listed[1]["destinations"][0]["pinned"], true);
}

#[test]
fn a_backup_that_is_being_read_is_not_deleted() {
    let shop = Shop::with_s3("local = {}, offsite = {}");
    shop.november(1..=3);
    shop.keep("local = { last = 1 }, offsite = { last = 1 }");
    let id = shop.ids()[0].clone();
    // A verification that hangs on S3 holds the backup.
    let faults = &shop.s3.as_ref().unwrap().faults;
    faults.set(Rule::on("GET", "shop.sqlite3.zst"), Act::Hang);
    let arguments = ["verify", "shop", &id, "--destination", "offsite"];
    let reading = shop.respaldo.start(&arguments);
    faults.wait_for("GET", "shop.sqlite3.zst", 1);
    let pruned = shop.prune(&["--yes", "--json"]).expect(0).json();
    assert_eq!(decisions(&pruned[1])[2], (true, "in use".into()));
    assert_eq!(minutes(&shop.remote()), noons(&[1, 3]));
    faults.clear();
    reading.finish(crate::support::DEADLINE).expect(0);
    shop.prune(&["--yes"]).expect(0);
    assert_eq!(minutes(&shop.remote()), noons(&[3]));
}
