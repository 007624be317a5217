//! What a destination may be asked for: a store that will not delete is obeyed, one where nothing may be
//! deleted is left alone, and what lies in an archive tier is said to.

use serde_json::{Value, json};

use super::places::noise;
use crate::support::config::{HEAD, moto, s3};
use crate::support::moto::Moto;
use crate::support::program::Respaldo;
use crate::support::s3::{Act, Rule, S3};

/// A job of a folder that keeps its newest backup only, on `destination`, with two backups made.
fn two_backups(destination: &str) -> Respaldo {
    let respaldo = one_backup(destination);
    respaldo.run(&["backup", "media"]).expect(0);
    respaldo
}

fn one_backup(destination: &str) -> Respaldo {
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{destination}[jobs.media]\nretries = 0\nkeep = {{ offsite = {{ last = 1 }} }}\n\
         compression = \"none\"\nsource = {{ files = \"@DIR@/media\" }}\n"
    ));
    respaldo.write("media/a", "a");
    std::fs::write(respaldo.path("media/noise"), noise(9_000_000)).unwrap();
    respaldo.run(&["backup", "media"]).expect(0);
    respaldo
}

fn ids(respaldo: &Respaldo) -> Vec<String> {
    let list = respaldo.run(&["list", "media", "--json"]).expect(0).json();
    let mut ids: Vec<String> =
        list.as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[test]
fn what_an_object_lock_keeps_is_retained_and_no_error() {
    let server = Moto::start();
    server.make_lockable_bucket("locked");
    let respaldo = one_backup(&moto("offsite", &server, "locked", "x"));
    server.lock("locked", "2099-01-02T03:04:05Z");
    respaldo.run(&["backup", "media"]).expect(0);
    let ids = ids(&respaldo);
    assert_eq!(ids.len(), 2);
    // The bucket has versions: a delete would have hidden it behind a marker.
    let manifest = format!("/locked/x/media/{}/manifest.json", ids[0]);
    assert_eq!(server.ask("HEAD", &manifest, "").status, 200);
    let pruned = respaldo.run(&["prune", "media", "--json"]).expect(0).json();
    assert_eq!(pruned[0]["deleted"], json!([]));
    assert_eq!(pruned[0]["retained"][0]["id"], ids[0].as_str());
    assert_eq!(pruned[0]["retained"][0]["until"], "2099-01-02T03:04:05Z");
    let said = respaldo.run(&["prune", "media"]).expect(0);
    assert!(said.stdout.contains("retained until 2099-01-02"), "{}", said.all());
    assert_eq!(self::ids(&respaldo), ids);
    respaldo.run(&["verify", "media", &ids[0]]).expect(0);
    // Two of three are kept by the store now: nobody is troubled with that either.
    server.lock("locked", "2099-01-02T03:04:05Z");
    for _ in 0..2 {
        respaldo.run(&["backup", "media"]).expect(0);
        server.lock("locked", "2099-01-02T03:04:05Z");
    }
    let pruned = respaldo.run(&["prune", "media", "--json"]).expect(0).json();
    assert_eq!(pruned[0]["retained"].as_array().unwrap().len(), 3, "{pruned}");
    assert_eq!((&pruned[0]["held"], &pruned[0]["warnings"]), (&Value::Null, &json!([])));
    let runs = respaldo.run(&["status", "--json"]).expect(0).json();
    assert_eq!(runs["unsent_messages"], json!(0));
    assert!(
        runs["runs"].as_array().unwrap().iter().all(|run| run["state"] == "succeeded"),
        "{runs}"
    );
}

#[test]
fn nothing_is_deleted_where_append_only_says_so() {
    let server = S3::start();
    // Its credentials give no right to.
    server.faults.set(Rule::on("DELETE", ""), Act::Status(403));
    server.faults.set(Rule::on("POST", "?delete"), Act::Status(403));
    let offsite = s3("offsite", &server, "x") + "append_only = true\n";
    let respaldo = two_backups(&offsite);
    assert_eq!(ids(&respaldo).len(), 2);
    respaldo.run(&["config", "check"]).expect(0);
    respaldo.run(&["config", "check"]).expect(0);
    let pruned = respaldo.run(&["prune", "media", "--json"]).expect(0).json();
    assert_eq!((&pruned[0]["append_only"], &pruned[0]["deleted"]), (&json!(true), &json!([])));
    let goes = |decision: &Value| decision["keep"] == false;
    assert_eq!(pruned[0]["decisions"].as_array().unwrap().iter().filter(|d| goes(d)).count(), 1);
    let said = respaldo.run(&["prune", "media"]).expect(0);
    assert!(said.stdout.contains("stays (append_only)"), "{}", said.all());

    // A run that breaks off: its leftovers stay, and nobody is troubled with what could not be undone.
    server.faults.set(Rule::on("PUT", "media.tar?partNumber=2"), Act::Status(403));
    let failed = respaldo.run(&["backup", "media"]).expect(1);
    assert!(!failed.stderr.contains("stays open"), "{}", failed.stderr);
    assert!(!failed.stderr.contains("leftover"), "{}", failed.stderr);
    server.faults.clear();
    let before = server.objects();
    server.faults.set(Rule::on("DELETE", ""), Act::Status(403));
    respaldo.run(&["backup", "media"]).expect(0);
    assert!(before.iter().all(|object| server.objects().contains(object)));
    assert_eq!(server.faults.count("POST", "?delete"), 0, "a delete was tried");
    let deletes = server.faults.requests().into_iter().filter(|seen| seen.method == "DELETE");
    let deletes: Vec<_> = deletes.filter(|seen| !seen.target.contains("uploadId=")).collect();
    assert!(deletes.is_empty(), "{deletes:?}");
    assert_eq!(ids(&respaldo).len(), 3);
    // Two of three would go: that is no clock that jumped, where none does.
    let pruned = respaldo.run(&["prune", "media", "--json"]).expect(0).json();
    assert_eq!(pruned[0]["held"], Value::Null);
}

#[test]
fn lifecycle_prints_rules_that_match_the_policy() {
    let server = S3::start();
    let offsite = s3("offsite", &server, "x") + "append_only = true\n";
    let plain = s3("plain", &server, "y");
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{offsite}{plain}[destinations.local]\nurl = \"file://@DIR@/backups\"\n\
         [jobs.db]\nsource = {{ sqlite = \"@DIR@/x.db\" }}\n\
         keep = {{ offsite = {{ days = 30, monthly = 12 }}, plain = {{ days = 3 }}, local = {{}} }}\n\
         [jobs.media]\nsource = {{ files = \"@DIR@/media\" }}\nkeep = {{ offsite = {{ last = 3 }} }}\n"
    ));
    let printed = respaldo.run(&["lifecycle", "--json"]).expect(0);
    let rules = printed.json();
    assert_eq!(rules[0]["destination"], "offsite");
    let of = &rules[0]["rules"]["Rules"];
    assert_eq!(of.as_array().unwrap().len(), 2, "{of}");
    assert_eq!(of[0]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"], 7);
    assert_eq!(
        (&of[1]["Filter"]["Prefix"], &of[1]["Expiration"]["Days"]),
        (&json!("x/db/2"), &json!(403))
    );
    // Where respaldo deletes, no rule does.
    assert_eq!(rules[1]["rules"]["Rules"].as_array().unwrap().len(), 1);
    assert_eq!(rules.as_array().unwrap().len(), 2);
    for part in ["no rule for media", "local: no rules", "deletes the last one too"] {
        assert!(printed.stderr.contains(part), "{}", printed.stderr);
    }
    let plain = respaldo.run(&["lifecycle"]).expect(0);
    assert!(plain.stdout.contains("\"x/db/2\"") && plain.stderr.contains("aws s3api put-bucket"));
    assert!(server.faults.requests().is_empty(), "a store was asked");
}

#[test]
fn what_lies_in_an_archive_tier_is_not_read_and_its_thaw_is_explained() {
    let server = Moto::start();
    server.make_bucket("cold");
    let offsite = moto("offsite", &server, "cold", "x") + "storage_class = \"DEEP_ARCHIVE\"\n";
    let respaldo = two_backups(&offsite);
    // Manifests are read at any time: the older one was pruned.
    let ids = ids(&respaldo);
    assert_eq!(ids.len(), 1);
    let verified = respaldo.run(&["verify", "media", "--json"]).expect(0);
    assert_eq!(verified.json()[0]["archived"], json!(["media.tar"]), "{}", verified.stdout);
    let said = verified.stderr;
    assert!(said.contains("archived, not read in full") && !said.contains(": whole"), "{said}");
    assert!(said.contains("warning: media.tar: archived, not read"), "{said}");
    let to = respaldo.path("back");
    let restore = ["restore", "media", "--to", to.to_str().unwrap(), "--yes"];
    let failed = respaldo.run(&restore).expect(1);
    let key = format!("x/media/{}/media.tar", ids[0]);
    let command = format!("aws s3api restore-object --bucket cold --key {key} --restore-request");
    assert!(failed.stderr.contains(&command), "{}", failed.stderr);
    // Thawed, it is read.
    let request = "<RestoreRequest><Days>1</Days></RestoreRequest>";
    let thawed = server.ask("POST", &format!("/cold/{key}?restore"), request);
    assert_eq!(thawed.status, 202, "{}", thawed.body);
    respaldo.run(&["verify", "media"]).expect(0);
    respaldo.run(&restore).expect(0);
}

#[test]
fn what_must_be_thawed_is_asked_last_and_never_drilled() {
    let server = Moto::start();
    server.make_bucket("both");
    // By its name the frozen one would come first.
    let cold = moto("a_cold", &server, "both", "cold") + "storage_class = \"GLACIER\"\n";
    let warm = moto("b_warm", &server, "both", "warm");
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{cold}{warm}[jobs.media]\nretries = 0\nsource = {{ files = \"@DIR@/media\" }}\n"
    ));
    respaldo.write("media/a", "a");
    respaldo.run(&["backup", "media"]).expect(0);
    for _ in 0..2 {
        let drilled = respaldo.run(&["drill", "media", "--json"]).expect(0).json();
        assert_eq!((&drilled["destination"], &drilled["proven"]), (&json!("b_warm"), &json!(true)));
    }
    let to = respaldo.path("back");
    for id in ["latest", &ids(&respaldo)[0]] {
        respaldo.run(&["restore", "media", id, "--to", to.to_str().unwrap(), "--yes"]).expect(0);
        assert_eq!(std::fs::read_to_string(to.join("a")).unwrap(), "a");
        std::fs::remove_dir_all(&to).unwrap();
    }
    let said = respaldo.run(&["drill", "media", "--destination", "a_cold"]).expect(1).all();
    assert!(said.contains("aws s3api restore-object"), "{said}");
}
