//! A server comes back as it was at any moment that was archived: prepared by respaldo, started without
//! it. What is missing or wrong is said before a server is let near it, and nothing half-made starts.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use respaldo::model::{Segment, WalFile};
use respaldo::pipeline::{Seal, generate, sha256};

use crate::support::eventually;
use crate::support::postgres::Postgres;
use crate::support::program::{Output, Respaldo};
use crate::support::recovered::{Primary, SIZE, lsn, names};
use crate::support::stored::Stored;
use crate::support::temp_folder;

const ID: &str = "20251124T020000Z";
/// Larger than a segment of the log.
const MUCH: &str =
    "INSERT INTO orders SELECT n, repeat(md5(n::text), 60) FROM generate_series(1, 12000) n";
const ROWS: &str = "SELECT count(*), sum(hashtextextended(o::text, 0)) FROM orders o";

/// Everything that a recovery is told, beside the folder.
fn recover(respaldo: &Respaldo, primary: &Primary, folder: &Path, words: &[&str]) -> Output {
    let (url, folder) = (primary.url(), folder.to_str().unwrap());
    let given = ["restore", "db", "--from", &url, "--trust", "--yes", "--data-dir", folder];
    respaldo.run(&[&given[..], words].concat())
}

/// A stock server on what was recovered.
fn server(respaldo: &Respaldo, primary: &Primary, words: &[&str]) -> Postgres {
    primary.server.on_another(|folder| {
        let said = recover(respaldo, primary, folder, words).expect(0);
        assert!(said.stderr.contains("is ready"), "{}", said.stderr);
    })
}

fn primary(server: Postgres, respaldo: &Respaldo) -> Primary {
    let primary = Primary::of(server, respaldo.path("backups"));
    primary.database.psql("CREATE TABLE orders (id int, m text)");
    primary
}

/// What was noted at some moments of a server's life.
struct Moments {
    before_delete: (String, String),
    named: String,
    at_lsn: (String, String),
    last: String,
}

/// A base backup, much work, a bad DELETE, and work after it; then the server is killed.
fn live(primary: &Primary) -> Moments {
    let database = &primary.database;
    database.psql("INSERT INTO orders VALUES (0, 'before')");
    primary.base(ID);
    database.psql(MUCH);
    let named = database.psql(ROWS);
    database.psql("SELECT pg_create_restore_point('release it''s 7')");
    database.psql(MUCH);
    let rows = database.psql(ROWS);
    let time = database.psql("SELECT clock_timestamp()");
    database.psql("DELETE FROM orders WHERE id % 2 = 0");
    let at_lsn = (database.psql("SELECT pg_current_wal_insert_lsn()"), database.psql(ROWS));
    database.psql("TRUNCATE orders");
    database.psql("INSERT INTO orders VALUES (1, 'after')");
    let last = database.psql(ROWS);
    primary.ship();
    primary.server.stop();
    Moments { before_delete: (time, rows), named, at_lsn, last }
}

fn comes_back(primary: &Primary, respaldo: &Respaldo) {
    let moments = live(primary);
    let (time, rows) = &moments.before_delete;
    let (at, then) = &moments.at_lsn;
    let all: [(&[&str], &str); 4] = [
        (&["--to-time", time], rows),
        (&["--to-name", "release it's 7"], &moments.named),
        (&["--to-lsn", at], then),
        (&["--latest"], &moments.last),
    ];
    for (words, rows) in all {
        let recovered = server(respaldo, primary, words);
        assert_eq!(recovered.psql("postgres", ROWS), rows, "{words:?}");
        assert_eq!(recovered.psql("postgres", "SELECT pg_is_in_recovery()"), "f", "{words:?}");
        // It is a server to go on with.
        recovered.psql("postgres", "INSERT INTO orders VALUES (2, 'and on')");
    }
}

#[test]
fn a_server_comes_back_as_it_was_at_any_moment() {
    let respaldo = Respaldo::without_config();
    let primary = primary(Postgres::fresh(), &respaldo);
    comes_back(&primary, &respaldo);
    // What lies behind the end of the log is not there, and is not pretended to be.
    let said =
        recover(&respaldo, &primary, &respaldo.path("a"), &["--to-time", "2099-01-01 00:00Z"]);
    assert!(said.expect(0).stderr.contains("nothing in the log is later"), "silent");
    let said =
        recover(&respaldo, &primary, &respaldo.path("b"), &["--to-name", "no such"]).expect(2);
    assert!(said.stderr.contains("newest first: release it's 7"), "{}", said.stderr);
    assert!(!respaldo.path("b/PG_VERSION").exists());
}

#[test]
fn a_server_of_seventeen_comes_back_too() {
    let respaldo = Respaldo::without_config();
    let primary = primary(Postgres::seventeen(), &respaldo);
    comes_back(&primary, &respaldo);
}

#[test]
fn what_is_encrypted_comes_back_with_its_key_alone() {
    let respaldo = Respaldo::without_config();
    let (key, public) = generate();
    let key = respaldo.write("key.txt", key.expose());
    let mut primary = primary(Postgres::fresh(), &respaldo);
    primary.seal = Some(Seal::age(&[public]).unwrap());
    primary.base(ID);
    primary.database.psql(MUCH);
    primary.ship();
    let rows = primary.database.psql(ROWS);
    assert!(primary.stored().iter().all(|path| path.to_str().unwrap().ends_with(".zst.age")));
    let said = recover(&respaldo, &primary, &respaldo.path("shut"), &[]).expect(2);
    assert!(said.stderr.contains("--identity"), "{}", said.stderr);
    assert_eq!(names(&respaldo.path("shut")), [] as [&str; 0]);
    let recovered = server(&respaldo, &primary, &["--identity", key.to_str().unwrap()]);
    assert_eq!(recovered.psql("postgres", ROWS), rows);
}

#[test]
fn a_promoted_servers_timeline_is_followed() {
    let respaldo = Respaldo::without_config();
    let primary = primary(Postgres::fresh(), &respaldo);
    primary.base(ID);
    primary.database.psql(MUCH);
    primary.ship();
    let first = primary.database.psql(ROWS);
    let fork = primary.caught_up();
    // What comes after the pieces was never shipped: the promoted server never knew of it.
    let promoted = server(&respaldo, &primary, &["--latest"]);
    let promoted = Primary::of(promoted, respaldo.path("backups"));
    promoted.database.psql("DELETE FROM orders WHERE id % 3 = 0");
    promoted.database.psql(MUCH);
    promoted.ship();
    let second = promoted.database.psql(ROWS);
    assert!(promoted.stored().iter().any(|path| path.ends_with("00000002.history")));
    let plan = recover(&respaldo, &primary, &respaldo.path("dry"), &["--dry-run"]).expect(0);
    assert!(plan.stderr.contains("from timeline 1 to 2"), "{}", plan.stderr);
    let recovered = server(&respaldo, &primary, &["--latest"]);
    assert_eq!(recovered.psql("postgres", ROWS), second);
    assert_ne!(first, second);
    let timeline = recovered.psql("postgres", "SELECT timeline_id FROM pg_control_checkpoint()");
    assert_eq!(timeline, "3");
    let before = server(&respaldo, &primary, &["--to-lsn", &fork]);
    assert_eq!(before.psql("postgres", ROWS), first);
}

/// A server whose archive has four whole segments after the base backup.
fn archived(respaldo: &Respaldo) -> (Primary, Vec<(u64, PathBuf)>) {
    let primary = primary(Postgres::fresh(), respaldo);
    let base = primary.base(ID);
    for _ in 0..4 {
        primary.database.psql("INSERT INTO orders VALUES (1, 'x'); SELECT pg_switch_wal()");
    }
    let stop = Segment::at(1, base.stop_lsn, SIZE).number;
    let whole = primary.ship().into_iter().filter(|(number, _)| *number > stop).collect();
    (primary, whole)
}

/// Refused with these words, and nothing that could be taken for a server is there.
#[track_caller]
fn refused(respaldo: &Respaldo, primary: &Primary, words: &[&str], code: i32, said: &str) {
    let folder = respaldo.path("refused");
    let output = recover(respaldo, primary, &folder, words).expect(code);
    assert!(output.stderr.contains(said), "{said} in {}", output.stderr);
    assert!(output.stderr.contains("\nhint: "), "no next step: {}", output.stderr);
    assert!(!folder.join("PG_VERSION").exists(), "{words:?}");
}

#[test]
fn a_gap_a_conflict_and_damage_are_refused_before_a_server_starts() {
    let respaldo = Respaldo::without_config();
    let (primary, whole) = archived(&respaldo);
    assert!(whole.len() >= 4, "{whole:?}");
    let (missing, path) = whole[1].clone();
    let kept = fs::read(&path).unwrap();
    let name = Segment { timeline: 1, number: missing }.name(SIZE);

    fs::remove_file(&path).unwrap();
    let gap = format!("segment {name} is missing");
    refused(&respaldo, &primary, &["--latest"], 1, &gap);
    let behind = Segment { timeline: 1, number: missing + 1 }.start(SIZE).to_string();
    refused(&respaldo, &primary, &["--to-lsn", &behind], 2, &gap);
    // The server would promote where the gap begins, and say nothing.
    refused(&respaldo, &primary, &["--to-time", "2099-01-01 00:00Z"], 1, "behind a gap");
    let before = Segment { timeline: 1, number: missing }.start(SIZE).to_string();
    recover(&respaldo, &primary, &respaldo.path("before"), &["--to-lsn", &before]).expect(0);

    fs::write(&path, &kept).unwrap();
    let segment = Segment { timeline: 1, number: missing };
    let other = vec![7; 16 << 20];
    let twice = primary.put(&WalFile::whole(segment, sha256(&other)), &other);
    refused(&respaldo, &primary, &["--latest"], 1, &format!("two contents of segment {name}"));
    fs::remove_file(twice).unwrap();

    let mut changed = zstd::decode_all(&kept[..]).unwrap();
    changed[5000] ^= 1;
    fs::write(&path, zstd::encode_all(&changed[..], 1).unwrap()).unwrap();
    refused(&respaldo, &primary, &["--latest"], 1, "it is not what its name says");
    fs::write(&path, &kept[..kept.len() / 2]).unwrap();
    refused(&respaldo, &primary, &["--latest"], 1, &format!("fetch {name}"));

    // What went wrong left nothing in the way.
    fs::write(&path, &kept).unwrap();
    recover(&respaldo, &primary, &respaldo.path("refused"), &["--latest"]).expect(0);
    let rows = server(&respaldo, &primary, &["--latest"]).psql("postgres", ROWS);
    assert_eq!(rows, primary.database.psql(ROWS));
}

#[test]
fn what_can_not_be_meant_is_refused_and_nothing_is_touched() {
    let respaldo = Respaldo::without_config();
    let (primary, _) = archived(&respaldo);
    respaldo.write("refused/precious", "mine");
    refused(&respaldo, &primary, &["--latest"], 2, "is not empty");
    assert_eq!(fs::read_to_string(respaldo.path("refused/precious")).unwrap(), "mine");
    fs::remove_dir_all(respaldo.path("refused")).unwrap();
    refused(&respaldo, &primary, &["--to-lsn", "0/10"], 2, "not a base backup");
    refused(&respaldo, &primary, &["--to-lsn", "F/0"], 2, "can't be reached");
    refused(&respaldo, &primary, &["--to-time", "2001-01-01 00:00Z"], 2, "not a base backup");
    refused(&respaldo, &primary, &["--to-time", "soon"], 2, "'soon' is no moment");
    let url = primary.url();
    let folder = respaldo.path("refused");
    let unsigned =
        ["restore", "db", "--from", &url, "--yes", "--data-dir", folder.to_str().unwrap()];
    let said = respaldo.run(&unsigned).expect(1);
    assert!(said.stderr.contains("not signed"), "{}", said.stderr);
    assert!(!folder.exists(), "made before anything was decided");
    let dry = recover(&respaldo, &primary, &folder, &["--dry-run"]).expect(0);
    assert!(dry.stderr.contains("the log leads from"), "{}", dry.stderr);
    assert!(!folder.exists(), "--dry-run made it");
}

#[test]
fn killed_half_way_it_starts_no_server_and_is_begun_anew() {
    let respaldo = Respaldo::without_config();
    let (primary, whole) = archived(&respaldo);
    let folder = respaldo.path("data");
    let (url, to) = (primary.url(), folder.to_str().unwrap());
    let arguments = ["restore", "db", "--from", &url, "--trust", "--yes", "--data-dir", to];
    let segment = Segment { timeline: 1, number: whole[0].0 }.name(SIZE);
    for reached in ["respaldo.unfinished", "base", &format!("pg_wal/{segment}")] {
        let running = respaldo.start(&arguments);
        eventually(reached, || folder.join(reached).exists());
        running.kill9();
        let begun = names(&folder);
        assert!(!begun.contains(&"PG_VERSION".to_owned()), "killed at {reached}: {begun:?}");
        assert!(begun.contains(&"respaldo.unfinished".to_owned()), "{reached}: {begun:?}");
        fs::write(folder.join("base.of.before"), "what the next one must not keep").unwrap();
    }
    respaldo.run(&arguments).expect(0);
    let made = names(&folder);
    assert!(made.contains(&"PG_VERSION".to_owned()), "{made:?}");
    let ours = |name: &&String| name.starts_with("respaldo.") || name.contains("before");
    assert_eq!(made.iter().find(ours), None);
}

#[test]
fn a_tablespace_goes_where_it_is_told_to() {
    let respaldo = Respaldo::without_config();
    let server = Postgres::fresh();
    let old = temp_folder("old-space");
    let pid = server.pid();
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    std::os::unix::fs::chown(old.path(), Some(owner), None).unwrap();
    server.psql(
        "postgres",
        &format!("CREATE TABLESPACE elsewhere LOCATION '{}'", old.path().display()),
    );
    let primary = primary(server, &respaldo);
    primary
        .database
        .psql("CREATE TABLE far (n int) TABLESPACE elsewhere; INSERT INTO far VALUES (7)");
    let base = primary.base(ID);
    primary.database.psql("INSERT INTO far VALUES (8)");
    primary.ship();
    primary.server.stop();
    let oid = base.tablespaces[0].oid;
    refused(&respaldo, &primary, &["--latest"], 2, &format!("the tablespace {oid} lay in"));
    let new = respaldo.path("space");
    let to = format!("{oid}={}", new.display());
    let before = names(old.path());
    let recovered = self::server(&respaldo, &primary, &["--latest", "--tablespace", &to]);
    assert_eq!(recovered.psql("postgres", "SELECT sum(n) FROM far"), "15");
    let at = recovered.psql("postgres", &format!("SELECT pg_tablespace_location({oid})"));
    assert_eq!(Path::new(&at), new);
    assert_eq!(names(old.path()), before);
}

#[test]
fn the_files_belong_to_whom_they_are_for() {
    let respaldo = Respaldo::without_config();
    let (primary, _) = archived(&respaldo);
    let owners = |folder: &Path| -> BTreeSet<(u32, u32)> {
        let all = walkdir::WalkDir::new(folder).into_iter();
        all.map(|entry| entry.unwrap().metadata().unwrap()).map(|m| (m.uid(), m.gid())).collect()
    };
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    // As root: as the server had them, or as is said.
    let server = fs::metadata(format!("/proc/{}", primary.server.pid())).unwrap();
    recover(&respaldo, &primary, &respaldo.path("as-it-was"), &[]).expect(0);
    let same = BTreeSet::from([(server.uid(), server.gid())]);
    assert_eq!(owners(&respaldo.path("as-it-was")), same);
    recover(&respaldo, &primary, &respaldo.path("given"), &["--owner", "999:998"]).expect(0);
    assert_eq!(owners(&respaldo.path("given")), BTreeSet::from([(999, 998)]));
    assert_eq!(mode(&respaldo.path("given")), 0o700);
    assert_eq!(mode(&respaldo.path("given/postgresql.auto.conf")), 0o600);
    // As somebody else: theirs.
    let home = respaldo.path("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
    let (url, data) = (primary.url(), home.join("data"));
    let given = ["restore", "db", "--from", &url, "--trust", "--yes", "--data-dir"];
    respaldo.run_as_nobody(&[&given[..], &[data.to_str().unwrap()]].concat()).expect(0);
    assert_eq!(owners(&data), BTreeSet::from([(65534, 65534)]));
    let drilled = respaldo.run_as_nobody(&["drill", "db", "--from", &url, "--trust", "--json"]);
    assert_eq!(drilled.expect(0).json()["proven"], true);
}

#[test]
fn a_folder_that_somebody_made_up_is_no_base_backup() {
    let respaldo = Respaldo::without_config();
    let (primary, _) = archived(&respaldo);
    let stored = Stored::newest(&primary.root, "db");
    let stored = Stored { folder: stored.folder.with_file_name(ID) };
    // A link in the place of the log's folder would have it written wherever that leads.
    let inside = respaldo.path("inside");
    let outside = respaldo.path("outside");
    fs::create_dir_all(&inside).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(inside.join("PG_VERSION"), "15\n").unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("pg_wal")).unwrap();
    let tar = std::process::Command::new("tar")
        .args(["-C", inside.to_str().unwrap(), "-cf", "-", "PG_VERSION", "pg_wal"])
        .output()
        .unwrap();
    let name = stored.manifest()["artifacts"][0]["name"].as_str().unwrap().to_owned();
    stored.forge_as(0, &name, &tar.stdout);
    refused(&respaldo, &primary, &["--latest"], 1, "which is no file");
    assert_eq!(names(&outside), [] as [&str; 0]);
}

/// `respaldo drill`, as JSON.
fn drill(respaldo: &Respaldo, primary: &Primary, code: i32) -> serde_json::Value {
    let url = primary.url();
    respaldo.run(&["drill", "db", "--from", &url, "--trust", "--json"]).expect(code).json()
}

fn notes(drilled: &serde_json::Value) -> String {
    assert_eq!(drilled["proven"], true, "{drilled:#}");
    drilled["notes"].to_string()
}

/// With a catalog of its own, so that drills take turns; the job is another one.
fn desk() -> Respaldo {
    Respaldo::new(
        "data_dir = \"@DIR@/data\"\n[destinations.local]\nurl = \"file://@DIR@/backups\"\n\
         [jobs.other]\nsource = { files = \"@DIR@\" }\n",
    )
}

#[test]
fn a_drill_recovers_a_server_to_one_moment_after_the_other() {
    let respaldo = desk();
    let (primary, whole) = archived(&respaldo);
    let end = primary.caught_up();
    let latest = notes(&drill(&respaldo, &primary, 0));
    assert!(latest.contains("recovered to the end of the log"), "{latest}");
    let reached = latest.rsplit(": ").next().unwrap().trim_end_matches("\"]").to_owned();
    assert!(lsn(&reached) <= lsn(&end), "{reached} {end}");
    assert!(lsn(&reached) > whole.last().unwrap().0 * SIZE.bytes(), "{reached} {end}");
    let some = notes(&drill(&respaldo, &primary, 0));
    assert!(some.contains("recovered to the position"), "{some}");
    assert!(primary.root.join("db").join(ID).join("marks/proof.json").exists());
    assert_eq!(names(&respaldo.path("data/spool")), [] as [&str; 0]);

    fs::remove_file(&whole[1].1).unwrap();
    let gap = drill(&respaldo, &primary, 1);
    assert!(gap["failures"].to_string().contains("the log has a gap"), "{gap:#}");
    assert_eq!(names(&respaldo.path("data/spool")), [] as [&str; 0]);
}

#[test]
fn a_log_that_can_not_be_read_on_proves_nothing() {
    let respaldo = desk();
    let (primary, whole) = archived(&respaldo);
    // Right by its name, and no log at all: a server would end its recovery there, and open.
    let (number, path) = &whole[1];
    fs::remove_file(path).unwrap();
    let other = vec![7; 16 << 20];
    let segment = Segment { timeline: 1, number: *number };
    primary.put(&WalFile::whole(segment, sha256(&other)), &other);
    refused(&respaldo, &primary, &["--latest"], 1, "can't be read on at");
    let drilled = drill(&respaldo, &primary, 1);
    assert_eq!(drilled["unprovable"], serde_json::Value::Null, "{drilled:#}");
    let failures = drilled["failures"].to_string();
    assert!(failures.contains("can't be read on at"), "{drilled:#}");
    assert_eq!(names(&respaldo.path("data/spool")), [] as [&str; 0]);
}
