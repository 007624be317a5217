//! A database in several archives of one moment: each schema alone, large tables beside the others,
//! while people write and change tables; put together again by stock tools and by respaldo.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use super::postgres::{EVERYTHING, contents};
use super::stock_tools::{commands, fetched, shell};
use crate::support::config::{HEAD, LOCAL, postgres, text};
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::scene::{backups_in, wait_for_waiter};
use crate::support::stored::Stored;
use crate::support::{eventually, tool};

/// What [`EVERYTHING`] lacks of everything; `@` is a word of this test's own.
const MORE: &str = r#"
CREATE ROLE "own er@" NOLOGIN;
CREATE EXTENSION hstore; CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
CREATE FOREIGN TABLE far_away (a int) SERVER far;
CREATE SCHEMA auth; CREATE SCHEMA sales; CREATE SCHEMA hr; CREATE SCHEMA tenant_a;
CREATE SCHEMA tenant_b; CREATE SCHEMA "te,nant c"; CREATE SCHEMA nothing_in_it;
CREATE TYPE sales.span AS RANGE (subtype = float8);
CREATE TYPE auth.pair AS (one int, two text);
CREATE TABLE auth.users (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, p auth.pair, attributes hstore);
INSERT INTO auth.users (p, attributes) SELECT ROW(n, 'x' || n)::auth.pair, hstore('k', n::text) FROM generate_series(1, 2000) n;
CREATE TABLE sales.orders (id int PRIMARY KEY, buyer bigint REFERENCES auth.users, during sales.span, price float8);
INSERT INTO sales.orders SELECT n, n, sales.span(n, n + 0.1), n / 3.0 FROM generate_series(1, 2000) n;
ALTER TABLE auth.users ADD favourite int REFERENCES sales.orders;
CREATE TABLE hr.people (id int, name text COLLATE "C", words tsvector);
CREATE TABLE hr.bosses (bonus int, since date) INHERITS (hr.people);
ALTER TABLE hr.people ADD later text DEFAULT 'later';
INSERT INTO hr.people VALUES (1, 'a', to_tsvector('simple', 'a b'));
INSERT INTO hr.bosses VALUES (2, 'b', to_tsvector('simple', 'c'), 7, '2020-02-29', 'now');
ALTER TABLE hr.bosses OWNER TO "own er@";
CREATE TABLE tenant_a.ledger (id serial, at timestamptz DEFAULT now(), amount int);
CREATE TABLE tenant_b.ledger (id serial, at timestamptz DEFAULT now(), amount int);
CREATE TABLE "te,nant c"."x""y" (a text);
INSERT INTO "te,nant c"."x""y" VALUES ('it''s'), (NULL);
CREATE UNLOGGED TABLE tenant_a.unlogged AS SELECT 1 AS a;
CREATE TABLE public.large AS SELECT n, md5(n::text) AS m, repeat('z', 50) AS z FROM generate_series(1, 60000) n;
ALTER TABLE public.large ADD PRIMARY KEY (n);
CREATE TABLE public.larger AS SELECT n, md5(n::text) AS m FROM generate_series(1, 90000) n;
CREATE VIEW sales.big AS SELECT * FROM sales.orders WHERE price > 100;
CREATE VIEW sales.bigger AS SELECT b.*, u.p FROM sales.big b JOIN auth.users u ON u.id = b.buyer;
CREATE RULE nobody AS ON DELETE TO sales.big DO INSTEAD NOTHING;
CREATE FUNCTION public.audit() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN END $f$;
CREATE EVENT TRIGGER "ev t@" ON ddl_command_end EXECUTE FUNCTION public.audit();
ALTER EVENT TRIGGER "ev t@" DISABLE;
CREATE PUBLICATION "pub@" FOR TABLE auth.users, sales.orders;
CREATE TEXT SEARCH CONFIGURATION sales.plain (COPY = simple);
CREATE COLLATION sales.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
ALTER DEFAULT PRIVILEGES IN SCHEMA sales GRANT SELECT ON TABLES TO "own er@";
GRANT USAGE ON SCHEMA tenant_a TO "own er@"; GRANT SELECT (amount) ON tenant_a.ledger TO "own er@";
ANALYZE;
"#;

pub fn everything(server: &Postgres, name: &str) -> Database {
    let database = server.database(name);
    database.psql(EVERYTHING);
    let word = database.name.rsplit('_').next().unwrap();
    database.psql(&MORE.replace('@', word));
    database
}

/// One connection that writes two rows in two schemas by one transaction, again and again, and
/// draws from sequences, until it is told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u32>>,
}

impl Writer {
    fn start(database: &Database) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut psql = database.client("psql");
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut written = 0;
            while !told.load(Ordering::Relaxed) {
                let sql = "BEGIN; INSERT INTO tenant_a.ledger (amount) SELECT n FROM generate_series(1, 50) n;
                    INSERT INTO tenant_b.ledger (amount) SELECT -n FROM generate_series(1, 50) n;
                    INSERT INTO public.large SELECT max(n) + 1, 'new' FROM public.large;
                    UPDATE public.larger SET m = 'changed' WHERE n % 1000 = 1; COMMIT";
                tool(psql_of(&mut psql).args(["-Xqc", sql]));
                written += 1;
            }
            written
        });
        Self { stop, thread: Some(thread) }
    }

    fn stop(mut self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// The same command once more.
fn psql_of(like: &mut Command) -> Command {
    let mut command = Command::new(like.get_program());
    command.env_clear().current_dir("/");
    for (name, value) in like.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
}

/// Compares every table with what the manifest says of the moment, by SQL of the test's own.
#[track_caller]
fn assert_is_the_moment(print: &Value, database: &Database) -> usize {
    let tables = print["tables"].as_array().unwrap();
    for table in tables {
        let (schema, name) = (table["schema"].as_str().unwrap(), table["table"].as_str().unwrap());
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let full = format!("{}.{}", quote(schema), quote(name));
        let literal = full.replace('\'', "''");
        let columns = database.psql(&format!(
            "SELECT string_agg(format('t.%I', attname), ', ' ORDER BY attname COLLATE \"C\") FROM pg_attribute
             WHERE attrelid = '{literal}'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
        ));
        let found = database.psql(&format!(
            "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres';
             SET extra_float_digits = 3; SET search_path = pg_catalog;
             SELECT count(*) || ' ' || coalesce(sum(hashtextextended((ROW({columns}))::text COLLATE \"C\", 0)), 0)
             FROM ONLY {full} AS t"
        ));
        let (rows, sum) = found.split_once(' ').unwrap();
        let sum: i128 = sum.parse().unwrap();
        assert_eq!(table["rows"].to_string(), rows, "{full}");
        assert_eq!(table["hash"], format!("{sum:032x}"), "{full}");
    }
    tables.len()
}

fn job(database: &Database, more: &str) -> Respaldo {
    let bin = text(&database.bin().display().to_string());
    let more = &format!("{more}, bin_dir = {bin}");
    Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\n{}", postgres(database, more)))
}

const EACH: &str =
    ", schemas = \"each\", streams = 3, streams_above = \"1MiB\", fingerprint = \"content\"";
const LARGE: &str = ", schemas = [\"*\", \"!public\"], streams = 3, streams_above = \"1MiB\", fingerprint = \"content\"";

/// Backed up while it is written to, put together by the commands of RESTORE.md, and compared with
/// its moment.
fn comes_back_from_its_pieces(server: &Postgres, more: &str) {
    let source = everything(server, "pieces");
    let respaldo = job(&source, more);
    let writer = Writer::start(&source);
    respaldo.run(&["backup", "db"]).expect(0);
    assert!(writer.stop() > 0);
    respaldo.run(&["verify", "db"]).expect(0);

    let manifest = Stored::newest(&respaldo.path("backups"), "db").manifest();
    let print = &manifest["sources"][0]["fingerprint"];
    let folder = fetched(&respaldo, "db");
    shell(&folder, &source, &commands(&folder));
    let whole = server.existing(&format!("{}_restored", source.name));
    assert!(assert_is_the_moment(print, &whole) > 15, "{print:#}");
    // One transaction wrote both: a torn moment shows here.
    let sums = "SELECT (SELECT sum(amount) FROM tenant_a.ledger) + (SELECT sum(amount) FROM tenant_b.ledger)";
    assert_eq!(whole.psql(sums), "0");
    // Every definition is there, in the order of a dump; rows and sequences have moved on.
    assert_eq!(definitions(&whole), definitions(&source));
    // A tenant restores alone.
    let alone = server.existing(&format!("{}_tenant_a_restored", source.name));
    assert_eq!(alone.psql("SELECT count(*) > 0 FROM tenant_a.ledger"), "t");

    let other = server.existing(&format!("{}_by_respaldo", source.name));
    respaldo.run(&["restore", "db", "--database", &other.name, "--yes"]).expect(0);
    assert_is_the_moment(print, &other);
    assert_eq!(definitions(&other), definitions(&source));
    assert_eq!(contents(&other), contents(&whole), "by respaldo and by hand");

    let name = format!("{}_c", source.name);
    let artifact = artifact_of(&manifest, "schema", "te,nant c");
    respaldo
        .run(&["restore", "db", "--artifact", &artifact, "--database", &name, "--yes"])
        .expect(0);
    assert_eq!(server.existing(&name).psql("SELECT count(*) FROM \"te,nant c\".\"x\"\"y\""), "2");
}

fn artifact_of(manifest: &Value, kind: &str, of: &str) -> String {
    let artifacts = manifest["artifacts"].as_array().unwrap();
    let found = artifacts.iter().find(|artifact| artifact["content"][kind] == *of);
    found.unwrap_or_else(|| panic!("no {kind} {of}: {artifacts:#?}"))["name"]
        .as_str()
        .unwrap()
        .into()
}

fn definitions(database: &Database) -> String {
    let dump = tool(database.client("pg_dump").args(["--format=plain", "--schema-only"]));
    dump.lines()
        .filter(|line| !line.contains("restrict "))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn each_schema_and_parallel_streams_come_back_by_stock_tools() {
    comes_back_from_its_pieces(Postgres::start(), EACH);
}

#[test]
fn large_tables_in_archives_of_their_own_come_back_by_stock_tools() {
    let server = Postgres::start();
    comes_back_from_its_pieces(server, LARGE);
}

#[test]
fn the_same_on_postgresql_17() {
    comes_back_from_its_pieces(&Postgres::seventeen(), EACH);
}

#[test]
fn the_same_on_postgresql_18() {
    comes_back_from_its_pieces(&Postgres::eighteen(), EACH);
}

#[test]
fn the_artifacts_are_named_for_what_they_hold() {
    let source = everything(Postgres::start(), "names");
    let respaldo = job(&source, LARGE);
    respaldo.run(&["backup", "db"]).expect(0);
    let manifest = Stored::newest(&respaldo.path("backups"), "db").manifest();
    let names: BTreeSet<&str> = manifest["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["name"].as_str().unwrap())
        .collect();
    let main = format!("{}.dump.zst", source.name);
    for name in [
        &main,
        "globals.sql.zst",
        "server.json.zst",
        "schema.auth.dump.zst",
        "schema.tenant_a.dump.zst",
        "schema.Ünï_côdé.dump.zst",
        "table.public.large.dump.zst",
        "table.public.larger.dump.zst",
    ] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    let server: Value = serde_json::from_str(&tool(
        Command::new("zstd")
            .arg("-dc")
            .arg(Stored::newest(&respaldo.path("backups"), "db").path("server.json.zst")),
    ))
    .unwrap();
    assert!(server["settings"]["max_connections"].is_string(), "{server:#}");
    assert!(server["archiver"]["failed_count"].is_number(), "{server:#}");
    assert!(server["hba"][0]["type"].is_string(), "{server:#}");
}

/// pg_dump, with a gate before one of its parts.
fn gated(respaldo: &Respaldo, gate: &str) -> (PathBuf, PathBuf) {
    let (bin, fifo) = (respaldo.path("bin"), respaldo.path("gate"));
    fs::create_dir(&bin).unwrap();
    tool(Command::new("mkfifo").arg(&fifo));
    let real = "/usr/lib/postgresql/15/bin";
    for program in ["pg_dumpall", "pg_restore", "psql"] {
        std::os::unix::fs::symlink(format!("{real}/{program}"), bin.join(program)).unwrap();
    }
    let script = format!("#!/bin/sh\nFIFO={}\nREAL={real}/pg_dump\n{gate}\n", fifo.display());
    respaldo.write_program("bin/pg_dump", &script);
    (bin, fifo)
}

fn in_background(database: &Database, sql: &str) -> std::process::Child {
    let mut psql = database.client("psql");
    psql.args(["-Xqc", sql]).stdin(Stdio::null()).spawn().unwrap()
}

/// Waits until so many sessions of respaldo's hold a lock on a table.
fn wait_for_locks(database: &Database, table: &str, count: usize) {
    let sql = format!(
        "DO $$ BEGIN FOR i IN 1..6000 LOOP PERFORM pg_stat_clear_snapshot(); \
         IF (SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
             WHERE l.relation = '{table}'::regclass AND l.granted AND a.application_name LIKE 'respaldo%') >= {count} \
         THEN RETURN; END IF; PERFORM pg_sleep(0.01); END LOOP; RAISE 'nobody locks it'; END $$"
    );
    database.psql(&sql);
}

fn parted_job(source: &Database, bin: &Path) -> String {
    let bin = text(&bin.display().to_string());
    let more = format!(
        ", bin_dir = {bin}, streams = 2, streams_above = \"64KiB\", fingerprint = \"content\""
    );
    format!("{HEAD}{LOCAL}[jobs.db]\n{}", postgres(source, &more))
}

fn three_tables(name: &str) -> Database {
    let source = Postgres::start().database(name);
    source.psql(
        "CREATE TABLE small (a int); INSERT INTO small SELECT generate_series(1, 100);
         CREATE TABLE emptied AS SELECT n, md5(n::text) AS m FROM generate_series(1, 50000) n;
         CREATE TABLE rewritten AS SELECT n, md5(n::text) AS m FROM generate_series(1, 50000) n;
         ANALYZE",
    );
    source
}

/// A TRUNCATE and a change of a column's type that come once every stream has begun wait for the
/// backup, which has every row.
#[test]
fn a_truncate_between_the_snapshot_and_the_last_stream_loses_nothing() {
    let source = three_tables("emptied");
    let respaldo = Respaldo::new(HEAD);
    // Every archive is held back until the gate opens, so that each table's own session stays in its COPY.
    let gate = "case \"$*\" in *--version*) exec $REAL \"$@\" ;; esac\n\
                $REAL \"$@\" | { read -r _ < $FIFO; cat; }";
    let (bin, fifo) = gated(&respaldo, gate);
    respaldo.write_config(&parted_job(&source, &bin));
    let running = respaldo.start(&["backup", "db"]);
    for table in ["emptied", "rewritten"] {
        eventually("the table's own session has begun", || {
            let copies = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND query LIKE 'COPY public.{table} %'"
            );
            source.psql(&copies) == "1"
        });
    }
    let mut truncate = in_background(&source, "TRUNCATE emptied");
    let mut alter = in_background(&source, "ALTER TABLE rewritten ALTER n TYPE bigint");
    wait_for_waiter(&source);
    fs::write(&fifo, "go\n").unwrap();
    running.finish(std::time::Duration::from_secs(120)).expect(0);
    assert!(truncate.wait().unwrap().success() && alter.wait().unwrap().success());
    assert_eq!(source.psql("SELECT count(*) FROM emptied"), "0", "it went on afterwards");

    let manifest = Stored::newest(&respaldo.path("backups"), "db").manifest();
    let other = Postgres::start().existing(&format!("{}_back", source.name));
    respaldo.run(&["restore", "db", "--database", &other.name, "--yes"]).expect(0);
    assert_eq!(other.psql("SELECT count(*) FROM emptied"), "50000");
    assert_eq!(other.psql("SELECT count(*) FROM rewritten"), "50000");
    assert_is_the_moment(&manifest["sources"][0]["fingerprint"], &other);
}

/// One that comes before a stream has begun would wait for us, and the stream for it, for ever: the
/// run gives way, says so, and has kept nothing that lacks rows.
#[test]
fn a_truncate_before_a_stream_has_begun_ends_the_run_and_not_the_rows() {
    let source = three_tables("gives_way");
    let respaldo = Respaldo::new(HEAD);
    let gate = "case \"$*\" in *table=*emptied*) test -e $FIFO.open || { read -r _ < $FIFO; touch $FIFO.open; } ;; esac\n\
                exec $REAL \"$@\"";
    let (bin, fifo) = gated(&respaldo, gate);
    respaldo.write_config(&parted_job(&source, &bin));
    let running = respaldo.start(&["backup", "db"]);
    wait_for_locks(&source, "emptied", 1);
    let mut truncate = in_background(&source, "TRUNCATE emptied");
    wait_for_waiter(&source);
    fs::write(&fifo, "go\n").unwrap();
    let said = running.finish(std::time::Duration::from_secs(120)).expect(1).all();
    assert!(
        said.contains("is about to be changed while it is backed up: TRUNCATE emptied"),
        "{said}"
    );
    assert!(truncate.wait().unwrap().success());
    assert!(backups_in(&respaldo.path("backups"), "db").is_empty());
    respaldo.run(&["backup", "db"]).expect(0);
    let manifest = Stored::newest(&respaldo.path("backups"), "db").manifest();
    assert_is_the_moment(&manifest["sources"][0]["fingerprint"], &source);
}

#[test]
fn every_database_of_a_server_and_a_folder_in_one_backup() {
    let server = Postgres::fresh();
    let databases = ["one", "two", "three"].map(|name| {
        let database = server.database(name);
        database.psql(&format!(
            "CREATE TABLE t AS SELECT n, '{name}' AS x FROM generate_series(1, 1000) n"
        ));
        database
    });
    let first = &databases[0];
    let url = text(&first.url().replace(&first.name, "postgres"));
    let password = text(first.password());
    let config = |databases: &str| {
        format!(
            "{HEAD}{LOCAL}[[jobs.all.sources]]\npostgres = {url}\npassword = {password}\ndatabases = {databases}\n\
             [[jobs.all.sources]]\nfiles = \"@DIR@/media\"\n"
        )
    };
    let respaldo = Respaldo::new(&config("\"all\""));
    respaldo.write("media/picture", "light");
    respaldo.run(&["backup", "all"]).expect(0);
    // A new one is picked up, a dropped one is not missed, and none is asked for by name in vain.
    let fourth = server.database("four");
    fourth.psql("CREATE TABLE t AS SELECT 1 AS n, 'four' AS x");
    respaldo.run(&["backup", "all"]).expect(0);
    respaldo.run(&["verify", "all"]).expect(0);
    let manifest = Stored::newest(&respaldo.path("backups"), "all").manifest();
    let sources: Vec<&str> = manifest["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    for database in databases.iter().chain([&fourth]) {
        assert!(sources.contains(&database.name.as_str()), "{sources:?}");
    }
    assert!(sources.last().unwrap().ends_with("/media"), "{sources:?}");
    let lsns: BTreeSet<String> = manifest["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["snapshot_lsn"].to_string())
        .collect();
    assert!(lsns.len() > 1, "each has a moment of its own: {lsns:?}");

    // One of them, by its artifact, into another database; a name can't mean them all.
    let said = respaldo.run(&["restore", "all", "--database", "x", "--dry-run"]).expect(2).all();
    assert!(said.contains("--artifact"), "{said}");
    let back = server.existing(&format!("{}_back", fourth.name));
    let artifact = format!("{}.dump.zst", fourth.name);
    respaldo
        .run(&["restore", "all", "--artifact", &artifact, "--database", &back.name, "--yes"])
        .expect(0);
    assert_eq!(back.fingerprint(), fourth.fingerprint());
    // All of it at once, each to its own name.
    for database in &databases {
        database.psql("DELETE FROM t");
    }
    let new = respaldo.path("new").display().to_string();
    respaldo.run(&["restore", "all", "--to", &new, "--yes"]).expect(0);
    for database in &databases {
        assert_eq!(database.psql("SELECT count(*) FROM t"), "1000");
    }
    assert_eq!(fs::read_to_string(respaldo.path("new/picture")).unwrap(), "light");

    respaldo.write_config(&config("[\"postgres\", \"gone\"]"));
    let said = respaldo.run(&["backup", "all"]).expect(1).all();
    assert!(said.contains("there is no database 'gone' on the server"), "{said}");
}

#[test]
fn a_database_that_is_in_no_job_is_named() {
    let server = Postgres::fresh();
    let (one, other) = (server.database("one"), server.database("other"));
    let respaldo = job(&one, "");
    let said = respaldo.run(&["config", "check"]).expect(0).all();
    assert!(said.contains(&format!("the database '{}' on", other.name)), "{said}");
    assert!(said.contains("is in no job"), "{said}");
    assert!(!said.contains(&format!("the database '{}' on", one.name)), "{said}");
    respaldo.daemon().wait_for_log(&format!("the database '{}' on", other.name));
    respaldo.write_config(&format!(
        "{HEAD}{LOCAL}[jobs.db]\n{}",
        postgres(&one, ", databases = \"all\"")
    ));
    let said = respaldo.run(&["config", "check"]).expect(0).all();
    assert!(!said.contains("is in no job"), "{said}");
}

#[test]
fn a_new_schema_is_picked_up_and_a_dropped_one_reported() {
    let source = Postgres::start().database("schemas");
    source.psql("CREATE SCHEMA one; CREATE TABLE one.t (a int); CREATE SCHEMA tenant_1");
    let respaldo = job(&source, ", schemas = [\"tenant_*\", \"one\"]");
    respaldo.run(&["backup", "db"]).expect(0);
    source.psql("DROP SCHEMA one CASCADE; CREATE SCHEMA tenant_2");
    let said = respaldo.run(&["backup", "db"]).expect(0).all();
    assert!(said.contains("schema 'one' of") && said.contains("is no longer there"), "{said}");
    let manifest = Stored::newest(&respaldo.path("backups"), "db").manifest();
    artifact_of(&manifest, "schema", "tenant_2");
}

#[test]
fn what_is_excluded_is_left_out_and_nothing_else() {
    let server = Postgres::start();
    let source = server.database("excluded");
    source.psql(
        "CREATE SCHEMA audit; CREATE TABLE audit.log AS SELECT generate_series(1, 10) n;
         CREATE TABLE tmp_1 AS SELECT 1 AS a; CREATE TABLE kept AS SELECT generate_series(1, 5) n;
         CREATE TABLE sessions AS SELECT generate_series(1, 7) n",
    );
    let more = ", exclude_tables = [\"public.tmp_*\", \"*.nope\"], exclude_rows = [\"audit.*\", \"public.sessions\"]";
    let respaldo = job(&source, more);
    let said = respaldo.run(&["backup", "db"]).expect(0).all();
    assert!(said.contains("exclude_tables: '*.nope' matches no table"), "{said}");
    let other = server.existing(&format!("{}_back", source.name));
    respaldo.run(&["restore", "db", "--database", &other.name, "--yes"]).expect(0);
    let counts = "SELECT (SELECT count(*) FROM audit.log), (SELECT count(*) FROM kept),
        (SELECT count(*) FROM sessions), to_regclass('tmp_1') IS NULL";
    assert_eq!(other.psql(counts), "0|5|0|t");
    let manifest = Stored::newest(&respaldo.path("backups"), "db").manifest();
    let tables = manifest["sources"][0]["fingerprint"]["tables"].as_array().unwrap().clone();
    assert_eq!(tables.len(), 1, "{tables:?}");
    assert_eq!((tables[0]["table"].as_str(), tables[0]["rows"].as_i64()), (Some("kept"), Some(5)));
}
