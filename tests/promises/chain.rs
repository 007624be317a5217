//! Only what has changed: base backups of PostgreSQL 17 that stand on one another come back as one, are
//! never parted by retention or sync, and give way to a full one wherever old pages could come back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::stock_tools::{commands, shell};
use super::wal::{catch_up, check, set};
use crate::support::config::{HEAD, LOCAL, s3, text};
use crate::support::postgres::{Database, Outside, Postgres};
use crate::support::program::{Output, Respaldo};
use crate::support::recovered::names;
use crate::support::s3::{Act, Rule, S3};
use crate::support::stored::Stored;
use crate::support::{eventually, tool};

pub const ROWS: &str = "SELECT count(*), sum(hashtextextended(o::text, 0)) FROM orders o";

/// A server that notes what changes, and the job that backs it up.
pub struct Scene {
    pub server: Postgres,
    pub database: Database,
    programs: Outside,
}

impl Scene {
    pub fn of(server: Postgres) -> Self {
        set(&server, "max_slot_wal_keep_size", "1GB");
        let database = server.existing("postgres");
        database.psql("CREATE TABLE orders (id bigserial PRIMARY KEY, filler text)");
        let programs = server.outside();
        Self { server, database, programs }
    }

    /// Version 17 as its own user would have it.
    pub fn seventeen() -> Self {
        Self::summarizing(Postgres::seventeen())
    }

    pub fn summarizing(server: Postgres) -> Self {
        let scene = Self::of(server);
        set(&scene.server, "summarize_wal", "on");
        scene
    }

    /// `[jobs.db]`; `source` are further keys of the source, `more` further lines of the job.
    fn job(&self, source: &str, more: &str) -> String {
        let (url, password) = (text(&self.database.url()), text(self.database.password()));
        format!(
            "[jobs.db]\nretries = 0\nschedule = \"0 2 1 1 *\"\n\
             source = {{ postgres = {url}, password = {password}, kind = \"physical\"{source} }}\n\
             {more}\n[jobs.db.wal]\nevery = \"250ms\"\n"
        )
    }

    /// As [`Self::job`], with the programs of its version.
    pub fn chained(&self, more: &str) -> String {
        let bin = self.programs.bin();
        let source = format!(", bin_dir = {}", text(bin.to_str().unwrap()));
        self.job(&source, &format!("incremental = \"0 3 1 1 *\"\n{more}"))
    }

    pub fn write(&self, rows: u32) {
        self.database.psql(&format!(
            "INSERT INTO orders (filler) SELECT repeat(md5(random()::text), 20) FROM generate_series(1, {rows})"
        ));
    }

    pub fn rows(&self) -> String {
        self.database.psql(ROWS)
    }

    /// Does `work` while somebody writes, changes and deletes all the time.
    fn under_writes(&self, work: impl FnOnce()) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    self.write(200);
                    self.database.psql(
                        "UPDATE orders SET filler = md5(filler) WHERE id % 7 = 0;
                         DELETE FROM orders WHERE id % 11 = 0",
                    );
                }
            });
            work();
            over.store(true, Ordering::Relaxed);
            writer.join().unwrap();
        });
    }
}

fn full(respaldo: &Respaldo) {
    respaldo.run(&["backup", "db"]).expect(0);
}

/// Asks for an incremental one, and gives what was said of it.
#[track_caller]
fn changes(respaldo: &Respaldo, code: i32) -> Value {
    respaldo.run(&["backup", "db", "--incremental", "--json"]).expect(code).json()[0].clone()
}

/// Every backup, oldest first: its id, its kind, and what it stands on.
fn chain(respaldo: &Respaldo) -> Vec<(String, String, Option<String>)> {
    let all = respaldo.run(&["list", "db", "--json"]).expect(0).json();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut all: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (text(&one["id"]).unwrap(), text(&one["kind"]).unwrap(), text(&one["since"])))
        .collect();
    all.sort();
    all
}

pub fn kinds(respaldo: &Respaldo) -> Vec<String> {
    chain(respaldo).into_iter().map(|(_, kind, _)| kind).collect()
}

/// The newest one is full, and says why.
#[track_caller]
pub fn forced(respaldo: &Respaldo, why: &str) {
    let said = changes(respaldo, 0);
    assert!(said["warnings"].to_string().contains(why), "{why} in {said:#}");
    assert_eq!(kinds(respaldo).last().unwrap(), "full", "{why}");
}

/// The newest one holds only the changes since the one before it.
#[track_caller]
pub fn stands(respaldo: &Respaldo) {
    let said = changes(respaldo, 0);
    assert_eq!(said["warnings"], serde_json::json!([]), "{said:#}");
    let all = chain(respaldo);
    let [.., (below, ..), (_, kind, since)] = &all[..] else { panic!("{all:?}") };
    assert_eq!((kind.as_str(), since.as_ref()), ("incremental", Some(below)), "{all:?}");
}

pub fn recover(respaldo: &Respaldo, folder: &Path, words: &[&str]) -> Output {
    let given = ["restore", "db", "--yes", "--data-dir", folder.to_str().unwrap()];
    respaldo.run(&[&given[..], words].concat())
}

#[test]
fn a_chain_of_six_comes_back_at_its_end_and_at_a_moment_in_its_midst() {
    let scene = Scene::seventeen();
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", scene.chained("")));
    // What does not change is in the first of them alone.
    scene
        .database
        .psql("CREATE TABLE still AS SELECT md5(n::text) FROM generate_series(1, 300000) n");
    scene.write(20_000);
    let daemon = respaldo.daemon();
    eventually("the first base backup", || !chain(&respaldo).is_empty());
    let mut midst = None;
    for n in 0..6 {
        scene.under_writes(|| stands(&respaldo));
        if n == 2 {
            midst = Some((scene.database.psql("SELECT clock_timestamp()"), scene.rows()));
        }
    }
    let all = chain(&respaldo);
    assert_eq!(all.iter().filter(|(_, kind, _)| kind == "incremental").count(), 6, "{all:?}");
    scene.write(10);
    let rows = scene.rows();
    catch_up(&respaldo, &scene.server);
    let checked = check(&respaldo, 0);
    assert_eq!(checked["places"][0]["bases"][6]["since"], all[5].0.as_str(), "{checked:#}");
    scene.server.stop();
    daemon.kill9();

    // A chain is worth what it takes: the last of it is a fraction of the first.
    let stored = |n: usize| {
        let stored = Stored { folder: respaldo.path("backups/db").join(&all[n].0) };
        fs::metadata(stored.artifact(0)).unwrap().len()
    };
    assert!(stored(6) * 2 < stored(0), "{} of {}", stored(6), stored(0));

    let (time, then) = midst.unwrap();
    for (words, rows, base) in
        [(&["--latest"][..], &rows, &all[6].0), (&["--to-time", &time], &then, &all[3].0)]
    {
        let recovered = scene.server.on_another(|folder| {
            let said = recover(&respaldo, folder, words).expect(0);
            assert!(said.stderr.contains(&format!("base backup {base}")), "{}", said.stderr);
            assert!(said.stderr.contains("down to the full backup"), "{}", said.stderr);
            assert!(names(folder).iter().all(|name| !name.starts_with("respaldo.")));
            let owner = |path: &Path| fs::metadata(path).unwrap().uid();
            assert_ne!(owner(&folder.join("PG_VERSION")), 0, "root owns it");
            assert_eq!(owner(&folder.join("PG_VERSION")), owner(&folder.join("base")));
        });
        assert_eq!(&recovered.psql("postgres", ROWS), rows, "{words:?}");
        // Its indexes fit its tables.
        recovered
            .psql("postgres", "SET enable_seqscan = off; SELECT count(*) FROM orders WHERE id > 0");
        recovered.psql("postgres", "INSERT INTO orders (filler) VALUES ('and on')");
    }
    // To its end and, in turn, to a moment before it: a time where the server was asked for its own
    // position in between, a position where it was not.
    for to_end in [true, false] {
        let drilled = respaldo.run(&["drill", "db", "--json"]).expect(0).json();
        assert_eq!(drilled["id"], all[6].0.as_str());
        assert_eq!(drilled["proven"], true, "{drilled:#}");
        let notes = drilled["notes"].to_string();
        assert!(notes.contains("recovered to "), "{drilled:#}");
        assert_eq!(notes.contains("recovered to the end of the log"), to_end, "{drilled:#}");
    }
    respaldo.run(&["verify", "db"]).expect(0);
}

#[test]
fn the_daemon_takes_changes_on_schedule() {
    let scene = Scene::seventeen();
    let job = scene.chained("").replace("0 3 1 1 *", "* * * * *");
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{job}"));
    let daemon = respaldo.daemon();
    eventually("a full backup, and one on it", || kinds(&respaldo).len() >= 2);
    assert_eq!(kinds(&respaldo)[..2], ["full", "incremental"]);
    let runs = respaldo.run(&["status", "--json"]).expect(0).json();
    let runs = runs["runs"].as_array().unwrap();
    let run = runs.iter().find(|run| run["kind"] == "incremental").unwrap();
    assert_eq!(run["trigger"], "schedule", "{run:#}");
    let (status, health) = daemon.health();
    assert_eq!(status, 200, "{health:#}");
    assert_eq!(daemon.terminate(), 0);
}

/// What stands in RESTORE.md, done by hand, with nothing of respaldo.
#[test]
fn restore_md_puts_a_chain_together() {
    let scene = Scene::seventeen();
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", scene.chained("")));
    scene.write(5_000);
    full(&respaldo);
    for _ in 0..2 {
        scene.under_writes(|| stands(&respaldo));
    }
    let rows = scene.rows();
    // What was written behind it is not in it.
    stands(&respaldo);
    scene.write(10);
    let fetched = respaldo.path("fetched");
    tool(Command::new("cp").arg("-r").arg(respaldo.path("backups/db")).arg(&fetched));
    let ids = Stored::ids(&fetched, ".");
    let ids: Vec<&String> = ids.iter().filter(|id| id.starts_with("20")).collect();
    assert_eq!(ids.len(), 4);
    for id in &ids {
        shell(&fetched.join(id), &scene.database, &commands(&fetched.join(id)));
    }
    let restored = fetched.join(ids[3]).join("restored");
    let owner = fs::metadata(fetched.join(ids[3]).join("restored-base/PG_VERSION")).unwrap();
    let recovered = scene.server.on_another(|folder| {
        tool(Command::new("cp").arg("-a").arg(&restored).arg(folder));
        let to = format!("{}:{}", owner.uid(), owner.gid());
        tool(Command::new("chown").args(["-R", &to]).arg(folder));
        tool(Command::new("chmod").arg("0700").arg(folder));
    });
    assert_eq!(recovered.psql("postgres", ROWS), rows);
}

#[test]
fn whatever_could_bring_old_pages_back_makes_it_a_full_one() {
    let scene = Scene::seventeen();
    let server = &scene.server;
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", scene.chained("max_chain = 2")));
    forced(&respaldo, "there is no base backup yet");
    stands(&respaldo);
    stands(&respaldo);
    forced(&respaldo, "the chain has 2 incremental backups already");

    set(server, "summarize_wal", "off");
    forced(&respaldo, "the server's summarize_wal is off");
    let said = respaldo.run(&["config", "check"]).expect(1);
    assert!(said.stdout.contains("ALTER SYSTEM SET summarize_wal = 'on'"), "{}", said.stdout);
    set(server, "summarize_wal", "on");
    stands(&respaldo);
    respaldo.run(&["config", "check"]).expect(0);

    // The server itself says that it can't tell what has changed.
    scene.write(100);
    scene.database.psql("CHECKPOINT");
    let noted = "SELECT max(end_lsn) >= (SELECT redo_lsn FROM pg_control_checkpoint()) FROM pg_available_wal_summaries()";
    eventually("what was written is noted", || scene.database.psql(noted) == "t");
    let summaries = server.data().join("pg_wal/summaries");
    for name in names(&summaries) {
        fs::remove_file(summaries.join(name)).unwrap();
    }
    forced(&respaldo, "summar");
    stands(&respaldo);

    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    let system = scene.database.psql("SELECT system_identifier FROM pg_control_system()");
    let end = scene.database.psql("SELECT pg_current_wal_flush_lsn()");
    let gap = "INSERT INTO wal_gaps VALUES ('db', ?, 1, ?, ?, 0, 'removed')";
    catalog.execute(gap, [&system, &end, &end]).unwrap();
    forced(&respaldo, "the log has a gap");
    stands(&respaldo);

    server.enable_checksums();
    forced(&respaldo, "checksums of pages were turned on");
    stands(&respaldo);

    scene.write(10);
    server.stop();
    server.start_on_a_new_timeline();
    forced(&respaldo, "from timeline 1 to 2");
    stands(&respaldo);

    // What it would stand on is nowhere any more.
    let below = chain(&respaldo).pop().unwrap().0;
    fs::rename(respaldo.path("backups/db").join(&below), respaldo.path("away")).unwrap();
    forced(&respaldo, &format!("no destination has all that {below} needs"));
    // A new one within the same second has its id.
    assert!(chain(&respaldo).iter().all(|(id, kind, _)| *id != below || kind == "full"));
}

#[test]
fn a_new_installation_reads_the_list_where_it_can_and_makes_a_full_one_where_it_can_not() {
    let scene = Scene::seventeen();
    let (_, public) = respaldo::pipeline::generate();
    let sealed = format!("encrypt = {{ age = [{}] }}", text(&public));
    for (more, kind) in [("", "incremental"), (&*sealed, "full")] {
        let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", scene.chained(more)));
        full(&respaldo);
        stands(&respaldo);
        let kept = respaldo.path("data/chains/db");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(names(&kept), [chain(&respaldo).pop().unwrap().0]);
        assert_eq!(mode(&kept.join(&names(&kept)[0])), 0o600);

        fs::remove_dir_all(respaldo.path("data")).unwrap();
        respaldo.run(&["catalog", "rebuild"]).expect(0);
        let said = changes(&respaldo, 0);
        assert_eq!(kinds(&respaldo).last().unwrap(), kind, "{said:#}");
        let why = said["warnings"].to_string();
        assert_eq!(why.contains("is not at hand"), kind == "full", "{why}");
        // From here on it goes on as before.
        stands(&respaldo);
        if kind == "incremental" {
            // The upper part of the chain is signed by this installation, the lower one by the other.
            let folder = respaldo.path("recovered");
            let said = recover(&respaldo, &folder, &["--latest"]).expect(1);
            assert!(said.stderr.contains("a key that is not known here"), "{}", said.stderr);
            assert!(said.stderr.contains("--trust") && !folder.exists(), "{}", said.stderr);
            recover(&respaldo, &folder, &["--latest", "--trust"]).expect(0);
        }
        scene.database.psql("SELECT pg_drop_replication_slot('respaldo_db')");
    }
}

#[test]
fn what_a_kept_backup_stands_on_is_kept_and_the_whole_chain_goes_as_one() {
    let scene = Scene::seventeen();
    let keep = "keep = { local = { last = 1 } }";
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", scene.chained(keep)));
    full(&respaldo);
    stands(&respaldo);
    stands(&respaldo);
    let all = chain(&respaldo);
    assert_eq!(all.len(), 3, "{all:?}");
    let pruned = respaldo.run(&["prune", "db", "--dry-run", "--json"]).expect(0).json();
    let reasons: BTreeMap<&str, String> = pruned[0]["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["id"].as_str().unwrap(), one["reasons"].to_string()))
        .collect();
    for (below, above) in [(0, 1), (1, 2)] {
        let why = &reasons[all[below].0.as_str()];
        assert!(why.contains(&format!("{} stands on it", all[above].0)), "{why}");
    }
    let said = respaldo.run(&["prune", "db", "--dry-run"]).expect(0);
    assert!(said.all().contains("stands on it"), "{}", said.all());
    check(&respaldo, 0);

    // Pinned in its midst: what it stands on stays with it, and what stands on it goes.
    respaldo.run(&["pin", "db", &all[1].0]).expect(0);
    full(&respaldo);
    let left: Vec<String> = chain(&respaldo).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(left[..2], [all[0].0.clone(), all[1].0.clone()]);
    assert_eq!(left.len(), 3);
    check(&respaldo, 0);
    let (folder, id) = (respaldo.path("pinned"), all[1].0.clone());
    let to = ["restore", "db", &id, "--latest", "--yes", "--data-dir", folder.to_str().unwrap()];
    respaldo.run(&to).expect(0);

    respaldo.run(&["unpin", "db", &all[1].0]).expect(0);
    stands(&respaldo);
    assert_eq!(kinds(&respaldo), ["full", "incremental"]);
    let first = Stored { folder: respaldo.path("backups/db").join(&all[0].0) };
    assert!(!first.folder.exists());
}

#[test]
fn a_place_gets_an_incremental_one_only_with_what_it_stands_on_and_in_that_order() {
    let (scene, store) = (Scene::seventeen(), S3::start());
    let places = format!("{LOCAL}{}", s3("offsite", &store, "app"));
    let respaldo = Respaldo::new(&format!("{HEAD}{places}{}", scene.chained("sync = false")));
    store.faults.set(Rule::on("PUT", "/db/20"), Act::Status(403));
    respaldo.run(&["backup", "db"]).expect(3);
    store.faults.clear();
    let base = chain(&respaldo)[0].0.clone();
    let said = changes(&respaldo, 3);
    let offsite = said["destinations"].as_array().unwrap().iter();
    let offsite: Vec<&Value> = offsite.filter(|place| place["name"] == "offsite").collect();
    assert_eq!(offsite[0]["state"], "failed", "{said:#}");
    assert!(offsite[0]["error"].to_string().contains("not all of what"), "{said:#}");
    let top = chain(&respaldo)[1].0.clone();
    let has =
        |id: &str| store.objects().iter().any(|key| key.contains(&format!("{id}/manifest.json")));
    assert!(!has(&base) && !has(&top));

    // Where the full one does not arrive, what stands on it does not either.
    store.faults.set(Rule::on("PUT", &format!("{base}/manifest.json")), Act::Status(403));
    let synced = respaldo.run(&["sync", "db", "--json"]);
    assert_ne!(synced.code, 0, "{}", synced.all());
    assert!(!has(&base) && !has(&top), "{}", synced.all());
    store.faults.clear();
    respaldo.run(&["sync", "db"]).expect(0);
    assert!(has(&base) && has(&top));
    let puts: Vec<String> = store
        .faults
        .requests()
        .into_iter()
        .map(|seen| format!("{seen:?}"))
        .filter(|seen| seen.contains("PUT") && seen.contains("/manifest.json"))
        .collect();
    let last = |id: &str| puts.iter().rposition(|put| put.contains(id)).unwrap();
    assert!(last(&base) < last(&top), "{puts:?}");

    stands(&respaldo);
    check(&respaldo, 0);
    let folder = respaldo.path("from-offsite");
    recover(&respaldo, &folder, &["--latest", "--destination", "offsite"]).expect(0);
    assert!(folder.join("PG_VERSION").is_file());
}

#[test]
fn killed_half_way_a_chain_is_begun_anew() {
    let scene = Scene::seventeen();
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", scene.chained("")));
    scene.write(20_000);
    full(&respaldo);
    stands(&respaldo);
    let folder = respaldo.path("data-dir");
    let given = ["restore", "db", "--latest", "--yes", "--data-dir", folder.to_str().unwrap()];
    for reached in ["respaldo.chain/0/base", "respaldo.chain/1/base", "respaldo.chain/combined"] {
        let running = respaldo.start(&given);
        eventually(reached, || folder.join(reached).exists());
        running.kill9();
        assert!(!folder.join("PG_VERSION").exists(), "killed at {reached}");
        assert!(folder.join("respaldo.unfinished").exists(), "{reached}");
    }
    respaldo.run(&given).expect(0);
    let ours = names(&folder).into_iter().find(|name| name.starts_with("respaldo."));
    assert_eq!(ours, None);
}

#[test]
fn what_a_chain_lacks_is_said_with_the_next_step() {
    let scene = Scene::seventeen();
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", scene.chained("")));
    full(&respaldo);
    stands(&respaldo);
    let url = format!("file://{}", respaldo.path("backups").display());
    // A machine without the programs of that version.
    let other = Respaldo::without_config();
    let folder = other.path("data");
    let to = folder.to_str().unwrap().to_owned();
    let given =
        ["restore", "db", "--latest", "--from", &url, "--trust", "--yes", "--data-dir", &to];
    let said = other.run(&given).expect(1);
    assert!(said.stderr.contains("pg_combinebackup of PostgreSQL 17"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: install postgresql-client-17"), "{}", said.stderr);
    assert!(said.stderr.contains("begin with the full backup"), "{}", said.stderr);
    assert!(!folder.exists());
    // As the hint says: the log leads from the full one to the end.
    let base = chain(&respaldo)[0].0.clone();
    let full =
        ["restore", "db", &base, "--latest", "--from", &url, "--trust", "--yes", "--data-dir", &to];
    other.run(&full).expect(0);

    // Without what it stands on it is passed over, and refused where it is named.
    let top = chain(&respaldo)[1].0.clone();
    fs::remove_dir_all(respaldo.path("backups/db").join(&base)).unwrap();
    let folder = respaldo.path("named");
    let named =
        ["restore", "db", &top, "--latest", "--yes", "--data-dir", folder.to_str().unwrap()];
    let said = respaldo.run(&named).expect(1);
    assert!(said.stderr.contains(&format!("stands on {base}")), "{}", said.stderr);
    assert!(said.stderr.contains("hint: "), "{}", said.stderr);
    recover(&respaldo, &folder, &["--latest"]).expect(2);
    let verified = respaldo.run(&["verify", "db", &top]).expect(1);
    assert!(verified.all().contains("which is not there"), "{}", verified.all());
    let checked = check(&respaldo, 1);
    assert!(checked.to_string().contains("is worth nothing here"), "{checked:#}");
}

#[test]
fn a_chain_with_a_tablespace_is_proven_and_comes_back_where_it_is_told_to() {
    let scene = Scene::seventeen();
    let space = scene.server.data().with_file_name("space");
    fs::create_dir(&space).unwrap();
    let owner = fs::metadata(scene.server.data()).unwrap();
    std::os::unix::fs::chown(&space, Some(owner.uid()), Some(owner.gid())).unwrap();
    // As the server names it.
    let (root, inside) = space.to_str().unwrap().split_once("/trixie/root").unwrap();
    let root = format!("{root}/trixie/root");
    scene.database.psql(&format!("CREATE TABLESPACE elsewhere LOCATION '{inside}'"));
    scene
        .database
        .psql("CREATE TABLE far (n int) TABLESPACE elsewhere; INSERT INTO far VALUES (7)");
    let drill = "drill = { checks = [\"SELECT sum(n) = 15 FROM far\"] }";
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", scene.chained(drill)));
    full(&respaldo);
    scene.database.psql("INSERT INTO far VALUES (8)");
    stands(&respaldo);
    let newest = Stored::newest(&respaldo.path("backups"), "db");
    let newest = if newest.id() == "wal" {
        Stored::all(&respaldo.path("backups"), "db").remove(1)
    } else {
        newest
    };
    assert_eq!(newest.manifest()["artifacts"].as_array().unwrap().len(), 3);
    let drilled = respaldo.run(&["drill", "db", "--json"]).expect(0).json();
    assert_eq!(drilled["proven"], true, "{drilled:#}");

    // A folder has one name for us and another one for the server, in its own root: there ours leads to it too.
    let ours = Path::new(&root).join(root.trim_start_matches('/'));
    fs::create_dir_all(ours.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/", &ours).ok();
    let oid = scene.database.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'elsewhere'");
    scene.server.stop();
    let new = space.with_file_name("new-space");
    let to = format!("{oid}={}", new.display());
    let recovered = scene.server.on_another(|folder| {
        recover(&respaldo, folder, &["--latest", "--tablespace", &to]).expect(0);
    });
    assert_eq!(recovered.psql("postgres", "SELECT sum(n) FROM far"), "15");
    let at = recovered.psql("postgres", &format!("SELECT pg_tablespace_location({oid})"));
    assert_eq!(Path::new(&at), new);
}

#[test]
fn before_seventeen_the_log_is_what_is_incremental_and_nothing_fails() {
    let scene = Scene::of(Postgres::fresh());
    let job = scene.job("", "incremental = \"* * * * *\"");
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{job}"));
    let said = respaldo.run(&["config", "check"]).expect(0);
    let word = "PostgreSQL 15 makes no incremental base backups";
    assert!(said.stdout.contains(word), "{}", said.stdout);
    full(&respaldo);
    let said = respaldo.run(&["backup", "db", "--incremental"]).expect(0);
    assert!(said.stderr.contains(word), "{}", said.stderr);
    assert_eq!(kinds(&respaldo), ["full"]);
    let newest = Stored::all(&respaldo.path("backups"), "db").remove(0);
    assert!(newest.manifest()["sources"][0]["physical"]["since"].is_null());

    let before =
        respaldo.run(&["status", "--json"]).expect(0).json()["runs"].as_array().unwrap().len();
    let daemon = respaldo.daemon();
    daemon.wait_for_log(word);
    assert_eq!(kinds(&respaldo), ["full"]);
    let after =
        respaldo.run(&["status", "--json"]).expect(0).json()["runs"].as_array().unwrap().len();
    assert_eq!(after, before, "a run that can make nothing");
    let (status, health) = daemon.health();
    assert_eq!(status, 200, "{health:#}");
    drop(daemon);
}

#[test]
fn a_chain_of_what_is_no_server_is_refused() {
    let respaldo = Respaldo::new("");
    let media = "[jobs.media]\nsource = { files = \"@DIR@\" }\n";
    for (more, said) in [
        ("incremental = \"@daily\"", "jobs.media.incremental"),
        ("max_chain = 3", "jobs.media.max_chain"),
        ("incrementl = \"@daily\"", "did you mean incremental?"),
    ] {
        respaldo.write_config(&format!("{HEAD}{LOCAL}{media}{more}\n"));
        let refused = respaldo.run(&["config", "check"]).expect(2);
        assert!(refused.stderr.contains(said), "{said} in {}", refused.stderr);
        assert!(refused.stderr.contains("hint: "), "{}", refused.stderr);
    }
    // At the same moment the full one is made, and no other.
    let server = "[jobs.db]\nschedule = \"0 4 * * *\"\nincremental = \"0 */4 * * *\"\n\
        source = { postgres = \"postgres://nobody@127.0.0.1:1/x\", kind = \"physical\" }\n";
    respaldo.write_config(&format!("{HEAD}{LOCAL}{server}"));
    let said = respaldo.run(&["config", "check"]).expect(1).stdout;
    let changes: Vec<&str> = said.lines().filter(|line| line.contains("changes ")).collect();
    assert_eq!(changes.len(), 3, "{said}");
    assert!(changes.iter().all(|line| !line.contains(" 04:00 ")), "{said}");
    let shown = respaldo.run(&["config", "show"]).expect(0).stdout;
    assert!(shown.contains("incremental = [\"0 */4 * * *\"]"), "{shown}");
    assert!(shown.contains("max_chain = 24"), "{shown}");

    respaldo.write_config(&format!("{HEAD}{LOCAL}{media}"));
    let refused = respaldo.run(&["backup", "media", "--incremental"]).expect(2);
    assert!(refused.stderr.contains("makes no incremental backups"), "{}", refused.stderr);
}
