//! What is stored is read back: all of it by a share at a time, by its digests alone, and by each
//! engine's own reader; what is found damaged is told of once, and once more when it is mended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::config::{HEAD, LOCAL, postgres};
use crate::support::postgres::Postgres;
use crate::support::program::Respaldo;
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::{assert_no_leftovers, chat, last_run, offsite, offsite_root};
use crate::support::shop::Shop;
use crate::support::slack::Slack;
use crate::support::stored::Stored;
use crate::support::tool;

const DAYS: u32 = 7;

/// Six backups in a folder and on S3, one of each of the first days of November, and nothing read yet.
fn twelve_copies(slack: Option<&Slack>) -> Shop {
    let mut shop = Shop::with_s3("local = {}, offsite = {}");
    shop.more = format!(
        "schedule = \"0 12 * * *\"\nverify = {{ schedule = \"0 13 * * *\", days = {DAYS} }}\n{}",
        slack.map(chat).unwrap_or_default()
    );
    shop.keep("local = {}, offsite = {}");
    shop.november(1..=6);
    shop
}

/// What was read by the run of that day, and its exit code.
fn due(shop: &Shop, day: u32) -> (Vec<Value>, i32) {
    shop.at(&format!("2025-11-{day:02} 13:00:00"));
    let done = shop.respaldo.run(&["verify", "shop", "--due", "--json"]);
    (done.json().as_array().unwrap().clone(), done.code)
}

fn name(read: &Value) -> (String, String) {
    let text = |key: &str| read[key].as_str().unwrap().to_owned();
    (text("id"), text("destination"))
}

#[test]
fn a_share_of_each_day_reads_every_copy_within_its_days() {
    let shop = twelve_copies(None);
    let mut last: BTreeMap<(String, String), Timestamp> = BTreeMap::new();
    let mut order = Vec::new();
    for day in 6..=20 {
        let (read, code) = due(&shop, day);
        assert_eq!(code, 0, "{read:#?}");
        assert!((1..=6).contains(&read.len()), "day {day} is no share: {}", read.len());
        for read in &read {
            let at: Timestamp = read["checked_at"].as_str().unwrap().parse().unwrap();
            assert_eq!((&read["ok"], &read["depth"]), (&json!(true), &json!("whole")));
            if let Some(before) = last.insert(name(read), at) {
                let days = at.duration_since(before).as_hours() / 24;
                assert!(days < i64::from(DAYS), "{:?} waited for {days} days", name(read));
            }
            order.push(name(read));
        }
        if day == 6 + DAYS {
            assert_eq!(last.len(), 12, "not read within {DAYS} days: {last:#?}");
        }
    }
    // The oldest first, and both destinations in each run.
    assert!(order[0].0.starts_with("20251101") && order[1].0.starts_with("20251101"), "{order:?}");
    assert_ne!(order[0].1, order[1].1);
    assert_eq!(order[..12].iter().collect::<BTreeSet<_>>().len(), 12, "one twice before all once");

    let list = shop.respaldo.run(&["list", "--json"]).expect(0).json();
    for backup in list.as_array().unwrap() {
        for held in backup["destinations"].as_array().unwrap() {
            let key =
                (backup["id"].as_str().unwrap().into(), held["name"].as_str().unwrap().into());
            let at: Timestamp = held["verified_at"].as_str().unwrap().parse().unwrap();
            assert_eq!(last[&key].duration_since(at).as_secs(), 0, "{backup:#}");
            assert_eq!(held["damaged"], false);
        }
    }
    let run = last_run(&shop.respaldo, "shop");
    assert_eq!((&run["kind"], &run["state"]), (&json!("verify"), &json!("succeeded")));
    assert!(run["plain_bytes"].as_u64().unwrap() > 0, "{run:#}");
    let log = fs::read_to_string(run["log"].as_str().unwrap()).unwrap();
    assert!(log.contains("is whole"), "{log}");
}

#[test]
fn a_damaged_copy_is_told_of_once_and_again_when_it_is_whole() {
    let slack = Slack::start();
    let shop = twelve_copies(Some(&slack));
    let copy = Stored::all(&shop.local(), "shop").remove(0);
    let (id, file) = (copy.id(), copy.artifact(0));
    Stored::flip(&file);
    let (read, code) = due(&shop, 6);
    assert_eq!(code, 1);
    let wrong: Vec<&Value> = read.iter().filter(|read| read["ok"] == false).collect();
    assert_eq!(wrong.len(), 1, "{read:#?}");
    assert_eq!(name(wrong[0]), (id.clone(), "local".into()));
    let told = slack.wait_for(1)[0].to_string();
    for word in
        ["has a backup that is damaged", &format!("{id} on local"), "brings it from 'offsite'"]
    {
        assert!(told.contains(word), "{word:?} is not in {told}");
    }
    let run = last_run(&shop.respaldo, "shop");
    assert_eq!((&run["kind"], &run["state"]), (&json!("verify"), &json!("failed")));
    assert!(run["hint"].as_str().unwrap().contains("respaldo sync shop"), "{run:#}");
    let listed = shop.respaldo.run(&["list"]).expect(0).stdout;
    assert!(listed.contains("local (damaged)"), "{listed}");

    // It is looked at again each time, is still damaged, and nobody hears of it once more.
    let (read, code) = due(&shop, 7);
    assert_eq!((code, name(&read[0])), (1, (id.clone(), "local".into())));
    // What the hint says mends it.
    fs::rename(&copy.folder, shop.respaldo.path("away")).unwrap();
    shop.respaldo.run(&["sync", "shop"]).expect(0);
    let (read, code) = due(&shop, 8);
    assert_eq!((code, name(&read[0])), (0, (id.clone(), "local".into())));
    let told = slack.wait_for(2);
    assert_eq!(told.len(), 2, "{told:#?}");
    let told = told[1].to_string();
    assert!(told.contains("recovered") && told.contains("whole again"), "{told}");

    // One that vanished is damage too; told, and over once the catalog knows that it is gone.
    let other = Stored::all(&shop.local(), "shop").remove(1);
    fs::remove_dir_all(&other.folder).unwrap();
    let mut day = 8;
    while slack.messages().len() < 3 {
        day += 1;
        assert!(day < 8 + DAYS, "nobody saw that {} is gone", other.id());
        due(&shop, day);
    }
    let told = slack.messages()[2].to_string();
    assert!(told.contains(&format!("{} on local", other.id())), "{told}");
}

/// A time of the day so far from now that what is due is every copy, and no share of them.
fn half_a_day_away() -> String {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    format!("0 {} * * *", (since.as_secs() / 3600 + 12) % 24)
}

/// A store that does not answer says nothing of what lies there.
#[test]
fn what_can_not_be_read_is_not_called_damaged() {
    let (s3, slack) = (S3::start(), Slack::start());
    let head = HEAD.replacen("[server]", "stall = \"2s\"\n[server]", 1);
    let respaldo = Respaldo::new(&format!(
        "{head}{LOCAL}{}[jobs.media]\nsource = {{ files = \"@DIR@/media\" }}\nretries = 0\n\
         schedule = \"@daily\"\nverify = {{ schedule = \"{}\", days = 1 }}\n{}",
        offsite(&s3),
        half_a_day_away(),
        chat(&slack)
    ));
    respaldo.write("media/a.jpg", "picture");
    respaldo.run(&["backup", "media"]).expect(0);
    // From the first question on, in the middle of a file, and because it may not be read.
    for (part, act) in
        [("", Act::Hang), ("media.tar.zst", Act::CutResponse(20)), ("", Act::Status(403))]
    {
        s3.faults.set(Rule::on("GET", part), act);
        let done = respaldo.run(&["verify", "media", "--due", "--json"]).expect(3);
        s3.faults.clear();
        let read = done.json();
        assert_eq!((read.as_array().unwrap().len(), &read[0]["destination"]), (1, &json!("local")));
        assert!(done.stderr.contains("on offsite"), "{}", done.stderr);
        assert_eq!(last_run(&respaldo, "media")["state"], "partial");
        assert_eq!(slack.attempts(), 0, "{:?}", slack.messages());
    }
    let list = respaldo.run(&["list", "--json"]).expect(0).json();
    let held = list[0]["destinations"].as_array().unwrap();
    let offsite = held.iter().find(|held| held["name"] == "offsite").unwrap();
    assert_eq!((&offsite["verified_at"], &offsite["damaged"]), (&Value::Null, &json!(false)));
    // It is due again at once, and whole.
    let read = respaldo.run(&["verify", "media", "--due", "--json"]).expect(0).json();
    assert!(
        read.as_array().unwrap().iter().any(|read| read["destination"] == "offsite"),
        "{read:#}"
    );
}

#[test]
fn a_verification_is_cancelled_and_remembers_what_it_has_read() {
    let s3 = S3::start();
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}{}[jobs.media]\nsource = {{ files = \"@DIR@/media\" }}\nretries = 0\n\
         verify = {{ schedule = \"{}\", days = 1 }}\n",
        offsite(&s3),
        half_a_day_away()
    ));
    respaldo.write("media/a.jpg", "picture");
    respaldo.run(&["backup", "media"]).expect(0);
    let file = Stored::newest(&offsite_root(&s3), "media").artifact(0);
    let file = file.file_name().unwrap().to_str().unwrap().to_owned();
    s3.faults.set(Rule::on("GET", &file), Act::Hang);
    let running = respaldo.start(&["verify", "media", "--due"]);
    // Once it hangs, the one in the folder is read.
    s3.faults.wait_for("GET", &file, 1);
    let run = last_run(&respaldo, "media");
    assert_eq!((&run["kind"], &run["state"]), (&json!("verify"), &json!("running")));
    respaldo.run(&["cancel", &run["id"].to_string()]).expect(0);
    running.finish(std::time::Duration::from_secs(60)).expect(1);
    s3.faults.clear();
    assert_eq!(last_run(&respaldo, "media")["state"], "cancelled");
    let list = respaldo.run(&["list", "--json"]).expect(0).json();
    let held = list[0]["destinations"].as_array().unwrap();
    let read: Vec<&Value> = held.iter().filter(|held| !held["verified_at"].is_null()).collect();
    assert_eq!((read.len(), &read[0]["name"]), (1, &json!("local")), "{held:#?}");

    // Killed half-way, it leaves nothing behind, and the next one goes on.
    s3.faults.set(Rule::on("GET", &file), Act::Hang);
    let seen = s3.faults.count("GET", &file);
    let running = respaldo.watch(&["verify", "media", "--due"]);
    s3.faults.wait_for("GET", &file, seen + 1);
    running.kill9();
    s3.faults.clear();
    assert_eq!(last_run(&respaldo, "media")["state"], "interrupted");
    assert_no_leftovers(&respaldo, "media", Some(&s3));
    let read = respaldo.run(&["verify", "media", "--due", "--json"]).expect(0).json();
    let names: BTreeSet<(String, String)> = read.as_array().unwrap().iter().map(name).collect();
    assert!(names.iter().any(|(_, destination)| destination == "offsite"), "{names:?}");
}

/// By the timer, and beside the workers.
#[test]
fn the_daemon_reads_what_is_due_at_its_time() {
    let slack = Slack::start();
    let shop = twelve_copies(Some(&slack));
    Stored::flip(&Stored::all(&shop.local(), "shop")[0].artifact(0));
    shop.at("2025-11-06 12:59:57");
    let daemon = shop.respaldo.daemon();
    daemon.wait_for_log("is damaged");
    assert!(slack.wait_for(1)[0].to_string().contains("has a backup that is damaged"));
    assert_eq!(daemon.terminate(), 0);
    let run = last_run(&shop.respaldo, "shop");
    assert_eq!((&run["trigger"], &run["state"]), (&json!("schedule"), &json!("failed")));
}

/// Everything that digests can say is right here: only who knows the format sees that it is not whole.
#[test]
fn each_engines_own_reader_finds_what_digests_can_not() {
    let server = Postgres::start();
    let database = server.database("depths");
    database.psql("CREATE TABLE t AS SELECT n, md5(n::text) AS m FROM generate_series(1, 20000) n");
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.custom]\n{}[jobs.plain]\n{}\
         [jobs.shop]\nsource = {{ sqlite = \"@DIR@/shop.db\" }}\n\
         [jobs.media]\nsource = {{ files = \"@DIR@/media\" }}\n",
        postgres(&database, ""),
        postgres(&database, ", format = \"plain\""),
    ));
    let sql = "CREATE TABLE t AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c \
               WHERE n < 5000) SELECT n, hex(randomblob(20)) AS m FROM c";
    tool(Command::new("sqlite3").arg(respaldo.path("shop.db")).arg(sql));
    respaldo.write("media/a.jpg", &"picture".repeat(9000));
    respaldo.run(&["backup", "--all"]).expect(0);
    for job in ["custom", "plain", "shop", "media"] {
        let digests = respaldo.run(&["verify", job, "--stored", "--json"]).expect(0).json();
        assert_eq!(digests[0]["depth"], "stored", "{digests:#}");
        let stored = Stored::newest(&respaldo.path("backups"), job);
        let artifacts = stored.manifest()["artifacts"].as_array().unwrap().clone();
        for (n, artifact) in artifacts.iter().enumerate() {
            let kept = stored.copy_as(&format!("2020010{}T000000Z", n + 1));
            let path = stored.artifact(n);
            let plain = Command::new("zstd").arg("-dc").arg(&path).output().unwrap().stdout;
            // A page out of an SQLite file, or the end of what has one.
            kept.forge(n, &plain[..plain.len() / 2]);
            let failures = |more: &[&str]| {
                let id = kept.id();
                let verify = [&["verify", job, &id, "--json"], more].concat();
                let done = respaldo.run(&verify).expect(1).json();
                done[0]["failures"].as_array().unwrap().clone()
            };
            assert_eq!(failures(&["--stored"]), [json!("manifest.sig is missing")], "{job}");
            let (deep, name) = (failures(&[]), artifact["name"].as_str().unwrap());
            let of_it = deep.iter().filter(|said| said.as_str().unwrap().starts_with(name));
            assert_eq!(of_it.count(), 1, "{job}: {name}: {deep:?}");
            fs::remove_dir_all(kept.folder).unwrap();
        }
        // One bit of what is stored is found without looking inside.
        Stored::flip(&stored.artifact(0));
        let failed = respaldo.run(&["verify", job, "--stored"]).expect(1);
        assert!(failed.stderr.contains("is damaged"), "{}", failed.stderr);
    }
}

#[test]
fn what_is_due_is_asked_of_a_job_that_says_so() {
    let shop = Shop::new("local = {}");
    shop.backup().expect(0);
    let refused = shop.respaldo.run(&["verify", "shop", "--due"]).expect(2);
    assert!(refused.stderr.contains("verify = { schedule"), "{}", refused.stderr);
    assert_eq!(last_run(&shop.respaldo, "shop")["kind"], "backup");
}
