//! What becomes of backups after they are made: pinned and let go, taken by a cold destination only
//! once in a period, kept when the newest one is suspiciously small.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::config::{HEAD, LOCAL, postgres};
use crate::support::postgres::Postgres;
use crate::support::program::Respaldo;
use crate::support::s3::{Act, Rule};
use crate::support::scene::{chat, status};
use crate::support::shop::{Shop, decisions, minutes, noons};
use crate::support::slack::Slack;
use crate::support::stored::Stored;
use crate::support::tool;

fn sqlite(shop: &Shop, sql: &str) {
    tool(Command::new("sqlite3").arg(shop.respaldo.path("shop.db")).arg(sql));
}

/// The health of one destination in `status --json`.
fn place(shop: &Shop, name: &str) -> Value {
    let status = status(&shop.respaldo);
    let places = status["jobs"][0]["destinations"].as_array().unwrap();
    places.iter().find(|place| place["name"] == name).unwrap().clone()
}

#[test]
fn a_pin_holds_on_every_destination_until_it_is_taken_off() {
    let shop = Shop::with_s3("local = {}, offsite = {}");
    shop.november(1..=4);
    let (first, second) = (shop.ids()[0].clone(), shop.ids()[1].clone());
    let pinned = shop.respaldo.run(&["pin", "shop", &first, "--note", "audit", "--json"]).expect(0);
    let held = pinned.json().as_array().unwrap().iter().filter(|p| p["pinned"] == true).count();
    assert_eq!(held, 2, "{}", pinned.stdout);
    let local = Stored::all(&shop.local(), "shop").remove(0);
    let mark: Value =
        serde_json::from_slice(&fs::read(local.path("marks/pin.json")).unwrap()).unwrap();
    assert_eq!((&mark["pinned"], &mark["note"]), (&json!(true), &json!("audit")));

    // One destination does not answer: it is told, and the sync brings the pin there.
    let faults = &shop.s3.as_ref().unwrap().faults;
    faults.set(Rule::any(), Act::Status(403));
    let partial = shop.respaldo.run(&["pin", "shop", &second]).expect(3);
    assert!(partial.stderr.contains("on offsite is not pinned"), "{}", partial.stderr);
    assert!(partial.stderr.contains("hint: `respaldo sync shop`"), "{}", partial.stderr);
    faults.clear();
    let synced = shop.respaldo.run(&["sync", "shop", "--json"]).expect(0).json();
    assert_eq!(
        (&synced[0]["repairs"][0]["what"], &synced[0]["repairs"][0]["destination"]),
        (&json!("pin"), &json!("offsite"))
    );

    shop.keep("local = { last = 1 }, offsite = { last = 1 }");
    shop.prune(&["--yes"]).expect(0);
    assert_eq!(minutes(&shop.ids()), noons(&[1, 2, 4]));
    assert_eq!(minutes(&shop.remote()), noons(&[1, 2, 4]));

    // Taken off here while the other one is down; the newer word wins there too.
    faults.set(Rule::any(), Act::Status(403));
    shop.at("2025-11-04 13:00:00").respaldo.run(&["unpin", "shop", &first]).expect(3);
    faults.clear();
    shop.respaldo.run(&["sync", "shop"]).expect(0);
    shop.prune(&["--yes"]).expect(0);
    assert_eq!(minutes(&shop.ids()), noons(&[2, 4]));
    assert_eq!(minutes(&shop.remote()), noons(&[2, 4]));
    shop.respaldo.run(&["unpin", "shop", "20200101T000000Z"]).expect(2);
    shop.respaldo.run(&["pin", "shop", &second, "--note", &"x".repeat(501)]).expect(2);
}

#[test]
fn a_backup_is_pinned_as_it_is_made() {
    let shop = Shop::with_s3("local = { last = 1 }, offsite = { last = 1 }");
    shop.at("2025-11-01 12:00:00").respaldo.run(&["backup", "shop", "--pin"]).expect(0);
    shop.november(2..=4);
    assert_eq!(minutes(&shop.ids()), noons(&[1, 4]));
    assert_eq!(minutes(&shop.remote()), noons(&[1, 4]));
}

#[test]
fn a_cold_destination_takes_the_first_of_each_month() {
    let mut shop = Shop::with_s3("");
    shop.more = "schedule = \"@daily\"\n".to_owned();
    let keep = "local = { days = 3 }, offsite = { accept = \"monthly\", yearly = 5, monthly = 24 }";
    shop.keep(keep);
    shop.at("2025-10-30 12:00:00").backup().expect(0);
    shop.at("2025-10-31 12:00:00").backup().expect(0);
    shop.november(1..=4);
    assert_eq!(
        minutes(&shop.remote()),
        [&["20251030T120000Z".to_owned()][..], &noons(&[1])].concat()
    );
    let list = shop.respaldo.run(&["list", "--json"]).expect(0).json();
    assert_eq!(list[0]["destinations"].as_array().unwrap().len(), 1, "it misses nothing: {list:#}");
    let sync = shop.respaldo.run(&["sync"]).expect(0);
    assert!(sync.stderr.contains("nothing is missing"), "{}", sync.stderr);

    // A month is no age for it, and a run that fails is none of its business.
    shop.at("2025-11-30 12:00:00").backup().expect(0);
    fs::rename(shop.respaldo.path("shop.db"), shop.respaldo.path("away")).unwrap();
    shop.at("2025-11-30 13:00:00").backup().expect(1);
    fs::rename(shop.respaldo.path("away"), shop.respaldo.path("shop.db")).unwrap();
    assert_eq!(place(&shop, "local")["status"], "failing");
    assert_eq!(place(&shop, "offsite")["status"], "healthy");
    let allowed = place(&shop, "offsite")["max_age_seconds"].as_i64().unwrap();
    assert!((32 * 86_400..34 * 86_400).contains(&allowed), "{allowed}");
    shop.at("2025-11-30 14:00:00").backup().expect(0);
    shop.at("2025-12-04 12:00:00");
    assert_eq!(place(&shop, "offsite")["status"], "late");

    // It is down on the first: partial, and the sync brings that very one.
    let faults = &shop.s3.as_ref().unwrap().faults;
    faults.set(Rule::on("PUT", ""), Act::Status(403));
    shop.backup().expect(3);
    faults.clear();
    assert_eq!(place(&shop, "offsite")["status"], "failing");
    shop.at("2025-12-04 13:00:00").respaldo.run(&["sync"]).expect(0);
    assert_eq!(minutes(&shop.remote()).last().unwrap(), "20251204T120000Z");
    assert_eq!(place(&shop, "offsite")["status"], "healthy");
    shop.at("2025-12-05 12:00:00").backup().expect(0);
    assert_eq!(minutes(&shop.remote()).len(), 3);
}

#[test]
fn a_backup_that_shrank_is_told_of_and_holds_back_the_older_ones() {
    let slack = Slack::start();
    let mut shop = Shop::new("local = { last = 3 }");
    shop.more = chat(&slack);
    shop.keep("local = { last = 3 }");
    sqlite(&shop, "INSERT INTO t SELECT randomblob(1000) FROM generate_series(1, 1000)");
    shop.november(1..=3);
    sqlite(&shop, "DELETE FROM t; VACUUM");
    let output =
        shop.at("2025-11-04 12:00:00").respaldo.run(&["backup", "shop", "--json"]).expect(0);
    let warning = output.json()[0]["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("% fewer rows than usual"), "{warning}");
    let listed = shop.respaldo.run(&["list"]).expect(0).stderr;
    assert!(listed.contains("warning: shop 20251104T1200"), "{listed}");
    let listed = shop.respaldo.run(&["list", "--json"]).expect(0).json();
    assert_eq!((&listed[0]["suspect"], &listed[1]["suspect"]), (&json!(true), &json!(false)));
    let told = slack.wait_for(1)[0].to_string();
    for part in ["much smaller than before", "fewer rows than usual", "respaldo prune shop --yes"] {
        assert!(told.contains(part), "{told}");
    }
    // Once, and not again for each destination that is not pruned.
    assert_eq!(slack.messages().len(), 1);
    shop.november(5..=8);
    assert_eq!(minutes(&shop.ids()), noons(&[1, 2, 3, 4, 5, 6, 7, 8]));
    let held = shop.prune(&["--dry-run", "--json"]).expect(0).json();
    assert_eq!(held[0]["held"], "anomaly");
    let held = shop.prune(&[]).expect(1).stderr;
    assert!(held.contains("much smaller than those before it"), "{held}");

    // As before again: it goes on by itself, as far as the policy says.
    sqlite(&shop, "INSERT INTO t SELECT randomblob(1000) FROM generate_series(1, 1000)");
    shop.keep("local = { last = 6 }");
    shop.november(9..=9);
    assert_eq!(minutes(&shop.ids()), noons(&[4, 5, 6, 7, 8, 9]));

    // Emptied on purpose: a person says so, and what is small is usual from then on.
    shop.keep("local = { last = 5 }");
    sqlite(&shop, "DELETE FROM t; VACUUM");
    shop.november(10..=10);
    assert_eq!(shop.ids().len(), 7);
    shop.prune(&["--yes"]).expect(0);
    assert_eq!(minutes(&shop.ids()), noons(&[6, 7, 8, 9, 10]));
    let messages = slack.messages().len();
    shop.november(11..=11);
    assert_eq!(minutes(&shop.ids()), noons(&[7, 8, 9, 10, 11]));
    assert_eq!(slack.messages().len(), messages);
    let plan = shop.prune(&["--dry-run", "--json"]).expect(0).json();
    assert_eq!((&plan[0]["held"], decisions(&plan[0]).len()), (&Value::Null, 5));
}

/// The bytes stay about the same: only who counts rows can tell.
#[test]
fn a_table_that_was_emptied_is_found_by_its_rows() {
    let database = Postgres::start().database("rows");
    database.psql("CREATE TABLE orders AS SELECT n FROM generate_series(1, 1000) n");
    database.psql("CREATE TABLE pictures AS SELECT repeat('picture', 500000) p");
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\nretries = 0\nkeep = {{ local = {{ last = 1 }} }}\n{}",
        postgres(&database, "")
    ));
    respaldo.run(&["backup", "db"]).expect(0);
    database.psql("TRUNCATE orders");
    let report = respaldo.run(&["backup", "db", "--json"]).expect(0).json();
    let warnings = report[0]["warnings"].to_string();
    assert!(warnings.contains("99% fewer rows than usual: 1 after 1001"), "{warnings}");
    assert_eq!(Stored::ids(&respaldo.path("backups"), "db").len(), 2);
}

#[test]
fn the_guard_can_be_set_wider_or_switched_off() {
    for (anomaly, kept) in [("90%", 2), ("off", 2), ("20%", 4)] {
        let mut shop = Shop::new("local = { last = 2 }");
        shop.more = format!("anomaly = \"{anomaly}\"\n");
        shop.keep("local = { last = 2 }");
        sqlite(&shop, "INSERT INTO t SELECT randomblob(1000) FROM generate_series(1, 1000)");
        shop.november(1..=2);
        sqlite(&shop, "DELETE FROM t WHERE rowid > 300; VACUUM");
        shop.november(3..=4);
        assert_eq!(shop.ids().len(), kept, "{anomaly}");
    }
}
