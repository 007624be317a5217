//! A month's report says what was made, missed, read back, proven and deleted: by what really
//! happened under a clock that the test sets, to people, to programs, and on a page of its own.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::scene::chat;
use crate::support::shop::Shop;
use crate::support::slack::Slack;
use crate::support::stored::Stored;
use crate::support::tool;

const KEEP: &str = "local = { days = 7 }, offsite = {}";

/// Daily backups of November from the 3rd on; not on the 14th and 15th, when it was off, nor on the 20th,
/// when the database was away; and every third day something was read back.
fn november() -> Shop {
    let slack = Slack::start();
    let mut shop = Shop::with_s3(KEEP);
    shop.more = format!(
        "schedule = \"0 12 * * *\"\nverify = {{ schedule = \"0 13 * * *\", days = 30 }}\n{}",
        chat(&slack)
    );
    shop.keep(KEEP);
    for day in (3..=30).filter(|day| ![14, 15].contains(day)) {
        let database = shop.respaldo.path("shop.db");
        let away = shop.respaldo.path("away");
        if day == 20 {
            fs::rename(&database, &away).unwrap();
        }
        shop.at(&format!("2025-11-{day:02} 12:00:00"));
        shop.backup().expect(i32::from(day == 20));
        if day == 20 {
            fs::rename(&away, &database).unwrap();
        }
        if day % 3 == 0 {
            shop.at(&format!("2025-11-{day:02} 13:00:00"));
            shop.respaldo.run(&["verify", "shop", "--due"]).expect(0);
        }
    }
    shop.at("2025-12-03 09:00:00");
    shop
}

/// What the drills' own runs write down.
fn drilled(shop: &Shop, rows: &[(&str, bool, f64, &str)]) {
    for (at, proven, seconds, failure) in rows {
        let sql = format!(
            "INSERT INTO drills (job, backup, destination, run, at, proven, seconds, tables, rows, failure)
             VALUES ('shop', '20251109T120000Z', 'offsite', 1, unixepoch('{at}') * 1000, {proven}, {seconds}, 1, 0,
             nullif('{failure}', ''))"
        );
        let catalog = shop.respaldo.path("data/catalog.sqlite3");
        tool(Command::new("sqlite3").arg(catalog).arg(sql));
    }
}

fn report(shop: &Shop, more: &[&str]) -> Value {
    shop.respaldo.run(&[&["report", "--json"], more].concat()).expect(0).json()
}

#[test]
fn a_month_is_told_as_it_was() {
    let shop = november();
    let report = report(&shop, &[]);
    assert_eq!(report["month"], "2025-11", "the last that is over: {report:#}");
    assert_eq!((&report["complete"], &report["well"]), (&json!(true), &json!(false)));
    assert_eq!(
        (&report["from"], &report["to"]),
        (&json!("2025-11-01T00:00:00Z"), &json!("2025-12-01T00:00:00Z"))
    );
    let job = &report["jobs"][0];
    let made = &job["backups"];
    // Known since the 3rd: 28 days, of which three have no backup.
    assert_eq!(
        (&made["planned"], &made["made"], &made["missed"], &made["failed"]),
        (&json!(28), &json!(25), &json!(3), &json!(1)),
        "{made:#}"
    );
    assert_eq!(
        made["missed_at"],
        json!(["2025-11-14T12:00:00Z", "2025-11-15T12:00:00Z", "2025-11-20T12:00:00Z"])
    );
    let newest = Stored::newest(&shop.local(), "shop").manifest();
    assert_eq!(made["newest"], newest["id"]);
    assert_eq!(made["stored_bytes"], newest["artifacts"][0]["stored_bytes"]);
    let gap = job["rpo"]["longest_gap_seconds"].as_i64().unwrap();
    assert!((3 * 86_400 - 60..3 * 86_400 + 60).contains(&gap), "from the 13th to the 16th: {gap}");
    let age = job["rpo"]["age_at_end_seconds"].as_i64().unwrap();
    assert!((12 * 3_600 - 60..=12 * 3_600).contains(&age), "{age}");
    assert_eq!(job["failures"].as_array().unwrap().len(), 1);
    assert!(job["failures"][0]["at"].as_str().unwrap().starts_with("2025-11-20T12:00"), "{job:#}");
    let read = &job["verification"];
    assert_eq!((&read["days"], &read["overdue"]), (&json!(30), &json!(0)));
    assert!(read["reads"].as_u64().unwrap() >= 10 && read["damaged_reads"] == 0, "{read:#}");

    let place = |name: &str| {
        let places = job["destinations"].as_array().unwrap();
        places.iter().find(|place| place["name"] == name).unwrap().clone()
    };
    let (local, offsite) = (place("local"), place("offsite"));
    assert_eq!((&local["retention"], &offsite["retention"]), (&json!({ "days": 7 }), &json!({})));
    assert_eq!(local["copies"], shop.ids().len());
    assert_eq!(offsite["copies"], 25);
    // What the folder no longer has was pruned, each once, and is named.
    assert_eq!(local["pruned"].as_array().unwrap().len(), 25 - shop.ids().len(), "{local:#}");
    assert!(local["pruned"][0].as_str().unwrap().starts_with("20251103T1200"), "{local:#}");
    assert_eq!((&offsite["pruned"], &offsite["off_site"]), (&json!([]), &json!(true)));
    assert_eq!(job["copies"]["met"], true, "{job:#}");
    let summary = report["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("Not all is well: shop: 3 of 28 planned backups were not made"),
        "{summary}"
    );

    // Another month, in which nothing was known of it yet; and one that has just begun.
    let october = self::report(&shop, &["--month", "2025-10"]);
    assert_eq!(october["jobs"][0]["backups"]["planned"], 0);
    assert_eq!(october["jobs"][0]["findings"], json!(["there was no backup at all"]));
    let december = self::report(&shop, &["--month", "2025-12"]);
    assert_eq!(
        (&december["complete"], &december["to"]),
        (&json!(false), &december["generated_at"])
    );
    assert_eq!(december["jobs"][0]["backups"]["missed"], 1, "of the 1st; the 2nd may still come");
    let refused = shop.respaldo.run(&["report", "--month", "november"]).expect(2);
    assert!(refused.stderr.contains("is not a month"), "{}", refused.stderr);
}

#[test]
fn drills_and_their_times_are_told_with_the_last_word_on_whether_it_restores() {
    let mut shop = Shop::new("local = {}");
    shop.more = "schedule = \"0 12 * * *\"\ndrill = { schedule = \"0 15 * * sun\" }\n".into();
    shop.keep("local = {}");
    shop.november(3..=30);
    shop.at("2025-12-01 09:00:00");
    let none = report(&shop, &[]);
    let findings = |report: &Value| report["jobs"][0]["findings"].clone();
    assert_eq!(findings(&none), json!(["no drill proved that a backup restores"]));
    assert_eq!(none["jobs"][0]["drills"]["planned"], 4, "Sundays since the 3rd");

    drilled(
        &shop,
        &[
            ("2025-10-26 15:00", true, 99.0, ""),
            ("2025-11-09 15:00", true, 12.5, ""),
            ("2025-11-16 15:00", false, 3.0, "t has 4 rows and not 5"),
            ("2025-11-23 15:00", true, 8.25, ""),
        ],
    );
    let well = report(&shop, &[]);
    assert_eq!((findings(&well), &well["well"]), (json!([]), &json!(true)));
    let drills = &well["jobs"][0]["drills"];
    assert_eq!(
        (&drills["held"], &drills["proven"], &drills["failed"]),
        (&json!(3), &json!(2), &json!(1))
    );
    assert_eq!((&drills["rto_seconds"], &drills["longest_seconds"]), (&json!(8.25), &json!(12.5)));
    assert_eq!(
        well["summary"],
        "All is well: 28 of 28 planned backups were made, 2 of 3 drills proved that they restore."
    );
    drilled(&shop, &[("2025-11-30 15:00", false, 1.0, "<b>t</b> is gone & lost")]);
    let failed = report(&shop, &[]);
    assert_eq!(findings(&failed), json!(["the last drill failed: <b>t</b> is gone & lost"]));

    // The page says the same, and nothing in it is anybody's markup but its own.
    let page = shop.respaldo.path("november.html");
    let done = shop.respaldo.run(&["report", "--html", page.to_str().unwrap()]).expect(0);
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains("Not all is well"), "{}", done.stderr);
    let page = fs::read_to_string(page).unwrap();
    for word in [
        "<!doctype html>",
        "class=\"verdict bad\">Not all is well: shop: the last drill failed: &lt;b&gt;t&lt;/b&gt; is gone &amp; lost.",
        "2025-11 (2025-11-01 00:00 UTC to 2025-12-01 00:00 UTC)",
        "8.2 s in the last proven drill, 12.5 s at the most",
        concat!("respaldo ", env!("CARGO_PKG_VERSION")),
        "prefers-color-scheme: dark",
        "@media print",
    ] {
        assert!(page.contains(word), "{word:?} is not in {page}");
    }
    for word in ["<b>", "<script", "src=", "href=", "url(", "@import", "http://", "https://"] {
        assert!(!page.contains(word), "{word:?} is in the page");
    }
    let text = shop.respaldo.run(&["report"]).expect(0).stdout;
    assert!(text.starts_with("Not all is well: shop: the last drill failed"), "{text}");
    assert!(text.contains("28 made; 28 planned, 0 missed"), "{text}");
}

/// What is damaged now, and what nobody has read for too long, is never well.
#[test]
fn a_damaged_or_unread_copy_is_not_well() {
    let mut shop = Shop::new("local = {}");
    shop.more = "verify = { schedule = \"0 13 * * *\", days = 7 }\n".into();
    shop.keep("local = {}");
    shop.november(24..=25);
    Stored::flip(&Stored::all(&shop.local(), "shop")[0].artifact(0));
    shop.at("2025-11-30 13:00:00").respaldo.run(&["verify", "shop", "--due"]).expect(1);
    shop.at("2025-12-01 09:00:00");
    let id = shop.ids()[0].clone();
    let findings = |shop: &Shop| report(shop, &[])["jobs"][0]["findings"].clone();
    assert_eq!(findings(&shop), json!([format!("a stored backup is damaged: {id} on local")]));
    shop.at("2025-12-30 09:00:00");
    let late = findings(&shop);
    assert!(
        late.as_array().unwrap().contains(&json!("2 copies were not read back within 7 days")),
        "{late}"
    );
}
