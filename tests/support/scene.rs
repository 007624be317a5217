//! What tests of trouble have in common: a config put together from parts, a lock that stops a dump
//! half-way, and a look at everything that a run could have left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};

use serde_json::Value;

use super::postgres::Database;
use super::process;
use super::program::Respaldo;
use super::s3::S3;
use super::slack::Slack;

/// The first part of a config; what follows are sections.
pub const HEAD: &str = "data_dir = \"@DIR@/data\"\nstall = \"2s\"\n\
    [server]\nlisten = \"127.0.0.1:@PORT@\"\n";

pub const LOCAL: &str = "[destinations.local]\nurl = \"file://@DIR@/backups\"\n";

/// Where [`offsite`] keeps its backups in the bucket.
pub const PREFIX: &str = "app";

pub fn offsite(s3: &S3) -> String {
    format!(
        "[destinations.offsite]\nurl = \"s3://{}/{PREFIX}/\"\nendpoint = \"{}\"\n\
         access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
        s3.bucket,
        s3.endpoint(),
        s3.access_key,
        s3.secret_key
    )
}

pub fn chat(slack: &Slack) -> String {
    format!("[alerts.chat]\nslack = {{ webhook = \"{}\" }}\n", slack.webhook())
}

/// `[jobs.NAME]` of a database, tried once; `more` are further lines of it.
pub fn database_job(name: &str, database: &Database, more: &str) -> String {
    let password = toml::Value::String(database.password().to_owned());
    format!(
        "[jobs.{name}]\nsource = {{ postgres = \"{}\", password = {password} }}\nretries = 0\n{more}\n",
        database.url()
    )
}

/// `[jobs.NAME]` of the folder `@DIR@/NAME`, tried once.
pub fn files_job(name: &str, more: &str) -> String {
    format!("[jobs.{name}]\nsource = {{ files = \"@DIR@/{name}\" }}\nretries = 0\n{more}\n")
}

/// An exclusive lock on a view of its own, which pg_dump asks for its definition: a dump that has
/// begun waits for it until it is dropped.
pub struct DumpLock {
    psql: Child,
    stdin: Option<ChildStdin>,
}

impl DumpLock {
    pub fn take(database: &Database) -> Self {
        database.psql("CREATE OR REPLACE VIEW held AS SELECT 1 AS n");
        let mut psql = database
            .client("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = psql.stdin.take().unwrap();
        writeln!(stdin, "BEGIN; LOCK TABLE held; SELECT 'locked';").unwrap();
        let mut said = String::new();
        BufReader::new(psql.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "locked\n");
        Self { psql, stdin: Some(stdin) }
    }
}

impl Drop for DumpLock {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.psql.wait().unwrap();
    }
}

/// Waits until somebody waits for a lock in the database, as a dump does behind a [`DumpLock`].
pub fn wait_for_waiter(database: &Database) {
    let sql = "DO $$ BEGIN FOR i IN 1..6000 LOOP \
        IF EXISTS (SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
            WHERE d.datname = current_database() AND NOT l.granted) THEN RETURN; END IF; \
        PERFORM pg_sleep(0.01); END LOOP; RAISE 'nobody waits'; END $$";
    database.psql(sql);
}

/// Files of a job's backups below a destination's root, by the backup's id.
pub fn backups_in(root: &Path, job: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let folder = root.join(job);
    let files = walkdir::WalkDir::new(&folder).into_iter().filter_map(Result::ok);
    for file in files.filter(|entry| entry.file_type().is_file()) {
        let path = file.path().strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
        if let Some((id, name)) = path.split_once('/') {
            found.entry(id.to_owned()).or_default().insert(name.to_owned());
        }
    }
    found
}

pub fn local_root(respaldo: &Respaldo) -> PathBuf {
    respaldo.path("backups")
}

pub fn offsite_root(s3: &S3) -> PathBuf {
    s3.folder().join(PREFIX)
}

/// `status --json`.
pub fn status(respaldo: &Respaldo) -> Value {
    respaldo.run(&["status", "--json"]).expect(0).json()
}

/// The newest run of a job.
pub fn last_run(respaldo: &Respaldo, job: &str) -> Value {
    let status = status(respaldo);
    let runs = status["runs"].as_array().unwrap();
    let of_job = runs.iter().filter(|run| run["job"] == job);
    of_job.max_by_key(|run| run["id"].as_i64()).unwrap_or(&Value::Null).clone()
}

/// Every listed backup: its id and the destinations that hold it.
pub fn listed(respaldo: &Respaldo, job: &str) -> BTreeMap<String, BTreeSet<String>> {
    let list = respaldo.run(&["list", job, "--json"]).expect(0).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let backups = list.as_array().unwrap().iter().map(|backup| {
        let held = backup["destinations"].as_array().unwrap().iter();
        let held = held.filter(|held| held["state"] == "stored").map(|held| text(&held["name"]));
        (text(&backup["id"]), held.collect())
    });
    backups.collect()
}

/// Every listed backup is whole wherever it is said to be.
#[track_caller]
pub fn assert_listed_verify(respaldo: &Respaldo, job: &str) {
    for (id, places) in listed(respaldo, job) {
        assert!(!places.is_empty(), "{id} is listed, but nowhere");
        for place in places {
            respaldo.run(&["verify", job, &id, "--destination", &place]).expect(0);
        }
    }
}

/// Nothing of a run that is over stays: no folder without a manifest, no draft, no open upload, no
/// spool, no child, no run that still counts as going on.
#[track_caller]
pub fn assert_no_leftovers(respaldo: &Respaldo, job: &str, s3: Option<&S3>) {
    let roots = [Some(local_root(respaldo)), s3.map(offsite_root)];
    for root in roots.into_iter().flatten() {
        for (id, files) in backups_in(&root, job) {
            let whole = files.contains("manifest.json") && files.contains("manifest.sig");
            assert!(whole, "a leftover {id} in {}: {files:?}", root.display());
            let draft = files.iter().find(|name| name.ends_with(".tmp"));
            assert_eq!(draft, None, "a draft in {id}");
        }
    }
    if let Some(s3) = s3 {
        assert_eq!(s3.incomplete_uploads(), BTreeSet::new());
    }
    let spool = std::fs::read_dir(respaldo.path("data/spool")).into_iter().flatten();
    assert_eq!(spool.map(|entry| entry.unwrap().path()).collect::<Vec<_>>(), [] as [PathBuf; 0]);
    let status = status(respaldo);
    // What the daemon has queued it carries out at its next start; a command takes its own with it.
    let open = status["runs"].as_array().unwrap().iter().filter(|run| {
        run["state"] == "running" || (run["state"] == "queued" && run["trigger"] == "manual")
    });
    let open: Vec<_> = open.collect();
    assert!(open.is_empty(), "{open:#?}");
}

/// No process of ours that works on the database is left, once what is dying has died.
pub fn assert_no_process(database: &Database) {
    // psql is this process's own, such as a [`DumpLock`].
    let ours = |process: &process::Process| process.name != "psql";
    for process in process::mentioning(&database.name).into_iter().filter(ours) {
        process.wait_gone();
    }
    assert_eq!(process::mentioning(&database.name).into_iter().find(ours), None);
}
