//! What is lost on a destination is told, kept where anything is left of it, and never mistaken: a
//! manifest that is gone, backups that are gone, a place that is not the one it was, a manifest that
//! came too late, and a pin that comes while retention is at work.

use std::fs;

use crate::support::DEADLINE;
use crate::support::s3::{Act, Rule};
use crate::support::scene::{chat, last_run, listed, status};
use crate::support::shop::{Shop, minutes, noons};
use crate::support::slack::Slack;
use crate::support::stored::Stored;

/// On a folder and on S3, both keeping all, with somebody who is told.
fn shop(slack: &Slack) -> Shop {
    let mut shop = Shop::with_s3("local = {}, offsite = {}");
    shop.more = chat(slack);
    shop.keep("local = {}, offsite = {}");
    shop
}

fn told(slack: &Slack, words: &str) -> usize {
    slack.messages().iter().filter(|message| message.to_string().contains(words)).count()
}

#[test]
fn a_backup_whose_manifest_is_lost_stays_and_is_told_of_until_somebody_acts() {
    let slack = Slack::start();
    let shop = shop(&slack);
    shop.november(1..=3);
    let all = Stored::all(&shop.local(), "shop");
    shop.respaldo.run(&["pin", "shop", &all[0].id()]).expect(0);
    // One of them for ever, and one that no rule would keep for long.
    for lost in &all[..2] {
        fs::remove_file(lost.path("manifest.json")).unwrap();
    }
    shop.keep("local = { last = 1 }, offsite = {}");
    for day in 4..=5 {
        shop.november(day..=day);
        let run = last_run(&shop.respaldo, "shop");
        for lost in &all[..2] {
            assert!(lost.path("shop.sqlite3.zst").exists(), "{} was deleted", lost.id());
            let words = format!("'local': {} is damaged: it has no manifest", lost.id());
            assert!(run["warnings"].to_string().contains(&words), "{run:#}");
        }
    }
    assert!(told(&slack, "it has no manifest") >= 1, "{:?}", slack.messages());
    assert_eq!(minutes(&shop.ids()), noons(&[1, 2, 5]));
    // A year later it is no leftover either.
    shop.at("2026-11-24 12:00:00").prune(&["--yes"]).expect(0);
    assert!(all[1].path("shop.sqlite3.zst").exists());
    // As the warning says: from another destination it comes anew, where it would be kept.
    shop.keep("local = {}, offsite = {}");
    shop.respaldo.run(&["sync", "shop"]).expect(0);
    let pruned = shop.prune(&["--json"]).expect(0);
    assert!(!pruned.all().contains("damaged"), "{}", pruned.all());
    for lost in &all[..2] {
        shop.respaldo.run(&["verify", "shop", &lost.id(), "--destination", "local"]).expect(0);
    }
}

#[test]
fn a_store_that_once_does_not_find_a_manifest_loses_no_backup() {
    let slack = Slack::start();
    let shop = shop(&slack);
    shop.november(1..=2);
    let key = format!("{}/manifest.json", shop.remote()[0]);
    shop.s3.as_ref().unwrap().faults.set(Rule::on("", &key).times(1), Act::Status(404));
    shop.november(3..=3);
    assert_eq!(shop.s3.as_ref().unwrap().faults.hits(), 1);
    assert_eq!(minutes(&shop.remote()), noons(&[1, 2, 3]));
    shop.november(4..=4);
    let listed = shop.respaldo.run(&["verify", "shop", &shop.remote()[0]]).expect(0);
    assert!(listed.all().contains("offsite"), "{}", listed.all());
}

#[test]
fn backups_that_vanish_are_told_in_one_sentence() {
    let slack = Slack::start();
    let shop = shop(&slack);
    shop.november(1..=5);
    let all = Stored::all(&shop.local(), "shop");
    shop.respaldo.run(&["pin", "shop", &all[1].id()]).expect(0);
    for gone in &all[..3] {
        fs::remove_dir_all(&gone.folder).unwrap();
    }
    let words = "3 backups, one of them pinned, are no longer on 'local'";
    // Whoever only looks sees it, and the next run all the same.
    for look in [&["--dry-run"][..], &["--dry-run", "--json"]] {
        assert!(shop.prune(look).expect(0).all().contains(words));
    }
    assert!(shop.respaldo.run(&["sync", "shop", "--dry-run"]).expect(0).all().contains(words));
    shop.november(6..=6);
    let run = last_run(&shop.respaldo, "shop");
    assert!(run["warnings"].to_string().contains(words), "{run:#}");
    assert_eq!(told(&slack, words), 1, "{:?}", slack.messages());
    // What retention deletes is not missed.
    shop.keep("local = { last = 1 }, offsite = {}");
    shop.november(7..=8);
    assert!(!last_run(&shop.respaldo, "shop").to_string().contains("no longer"));
    // A sync tells it too, and brings it again.
    shop.keep("local = {}, offsite = {}");
    shop.respaldo.run(&["sync", "shop"]).expect(0);
    fs::remove_dir_all(&Stored::all(&shop.local(), "shop")[0].folder).unwrap();
    shop.respaldo.run(&["sync", "shop"]).expect(0);
    assert_eq!(told(&slack, "1 backup is no longer on 'local'"), 1, "{:?}", slack.messages());
    assert_eq!(shop.ids(), shop.remote());
    let again = shop.respaldo.run(&["sync", "shop"]).expect(0);
    assert!(!again.all().contains("no longer"), "{}", again.all());
}

#[test]
fn a_place_that_is_not_mounted_gets_no_backup_until_somebody_says_that_it_is_meant() {
    let slack = Slack::start();
    let shop = shop(&slack);
    shop.november(1..=3);
    let pinned = shop.ids()[0].clone();
    shop.respaldo.run(&["pin", "shop", &pinned]).expect(0);
    let (here, away) = (shop.local(), shop.respaldo.path("away"));
    fs::rename(&here, &away).unwrap();
    fs::create_dir(&here).unwrap();
    let said = shop.at("2025-11-04 12:00:00").backup().expect(3).all();
    for words in
        ["3 backups of 'shop' that should be there", "mounted", "respaldo prune shop --adopt"]
    {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    assert_eq!(shop.remote().len(), 4);
    for (command, code) in [("sync", 1), ("prune", 1)] {
        let said = shop.respaldo.run(&[command, "shop"]).expect(code).all();
        assert!(said.contains("that should be there"), "{said}");
    }
    let files = walkdir::WalkDir::new(&here).into_iter().map(Result::unwrap);
    let files: Vec<_> = files.filter(|entry| entry.file_type().is_file()).collect();
    assert!(files.is_empty(), "{files:?}");
    let status = status(&shop.respaldo);
    assert_eq!(status["jobs"][0]["destinations"][0]["status"], "failing", "{status:#}");
    // It is mounted again, and nothing was forgotten meanwhile.
    fs::remove_dir_all(&here).unwrap();
    fs::rename(&away, &here).unwrap();
    shop.respaldo.run(&["sync", "shop"]).expect(0);
    shop.november(5..=5);
    assert_eq!(minutes(&shop.ids()), noons(&[1, 2, 3, 4, 5]));
    assert!(!last_run(&shop.respaldo, "shop").to_string().contains("no longer"));
    // Its owner.json alone is no loss.
    fs::remove_file(here.join("shop/owner.json")).unwrap();
    shop.november(6..=6);
    // It was emptied on purpose.
    fs::rename(&here, &away).unwrap();
    fs::create_dir(&here).unwrap();
    let said = shop.prune(&["--adopt"]).expect(0).all();
    assert!(said.contains("6 backups, one of them pinned, are no longer on 'local'"), "{said}");
    shop.november(7..=7);
    shop.respaldo.run(&["sync", "shop"]).expect(0);
    assert_eq!(shop.ids(), shop.remote());
}

#[test]
fn a_pin_that_comes_while_retention_deletes_holds_or_is_refused() {
    let slack = Slack::start();
    let shop = shop(&slack);
    shop.november(1..=4);
    let all = shop.remote();
    shop.keep("local = {}, offsite = { last = 1 }");
    let faults = &shop.s3.as_ref().unwrap().faults;
    faults.set(Rule::on("POST", "?delete"), Act::Hang);
    let pruning = shop.respaldo.start(&["prune", "shop", "--json"]);
    faults.wait_for("POST", "?delete", 1);
    shop.respaldo.run(&["pin", "shop", &all[1]]).expect(0);
    let refused = shop.respaldo.run(&["pin", "shop", &all[0]]).expect(1).all();
    assert!(refused.contains("is being deleted or changed at this moment"), "{refused}");
    faults.clear();
    let pruned = pruning.finish(DEADLINE).expect(0).json();
    let why = pruned[1]["decisions"][2].clone();
    assert_eq!((&why["keep"], &why["reasons"][0]), (&true.into(), &"pinned".into()), "{why}");
    assert_eq!(minutes(&shop.remote()), noons(&[2, 4]));
}

#[test]
fn a_manifest_that_a_store_took_too_late_makes_no_backup() {
    let slack = Slack::start();
    let shop = shop(&slack);
    let faults = &shop.s3.as_ref().unwrap().faults;
    faults.set(Rule::on("PUT", "manifest.json"), Act::Status(403));
    shop.at("2025-11-01 12:00:00").backup().expect(3);
    faults.clear();
    let local = Stored::newest(&shop.local(), "shop");
    let folder = shop.s3.as_ref().unwrap().folder().join("x/shop").join(local.id());
    let late = Stored { folder };
    assert!(!late.path("shop.sqlite3.zst").exists());
    fs::create_dir_all(&late.folder).unwrap();
    fs::copy(local.path("manifest.json"), late.path("manifest.json")).unwrap();

    let words = format!("{} is no backup: its manifest came alone", local.id());
    let pruned = shop.prune(&["--json"]).expect(0).all();
    assert!(pruned.contains(&words), "{pruned}");
    assert!(!listed(&shop.respaldo, "shop")[&local.id()].contains("offsite"));
    let rebuilt = shop.respaldo.run(&["catalog", "rebuild"]).all();
    assert!(rebuilt.contains(&words), "{rebuilt}");
    let synced = shop.respaldo.run(&["sync", "shop", "--json"]).expect(0).json();
    assert_eq!(synced[0]["repairs"][0]["state"], "copied", "{synced:#}");
    assert!(synced[0]["warnings"].to_string().contains(&words), "{synced:#}");
    shop.respaldo.run(&["verify", "shop", &local.id(), "--destination", "offsite"]).expect(0);
    assert!(!shop.prune(&["--json"]).expect(0).all().contains("came alone"));
}
