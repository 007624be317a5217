//! A backup is called proven only when it was restored somewhere and holds what its source held; what
//! keeps it from that is named. The place is respaldo's own, and nothing of it stays.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::streams::everything;
use crate::support::config::{HEAD, LOCAL, postgres, text};
use crate::support::postgres::{Database, Postgres};
use crate::support::process;
use crate::support::program::{Output, Respaldo};
use crate::support::stored::{Stored, sign};
use crate::support::temp_folder;

/// A job of one database, with content hashes; `source` and `job` are further keys.
fn job(database: &Database, source: &str, job: &str) -> Respaldo {
    let source = postgres(database, &format!(", fingerprint = \"content\"{source}"));
    Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\nretries = 0\n{source}{job}\n"))
}

fn newest(respaldo: &Respaldo) -> Stored {
    Stored::newest(&respaldo.path("backups"), "db")
}

/// Puts a dump of the database as it is now in the place of the one that was stored.
fn put_in_its_place(respaldo: &Respaldo, database: &Database, more: &[&str]) {
    let mut pg_dump = database.client("pg_dump");
    let output = pg_dump.args(["-Fc", "-Z0"]).args(more).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let stored = newest(respaldo);
    stored.forge(0, &output.stdout);
    sign(respaldo, &stored);
}

/// Not proven, for a reason with `said` in it, and nothing of the drill stays.
#[track_caller]
fn fails(respaldo: &Respaldo, said: &str) -> Output {
    let output = respaldo.run(&["drill", "db", "--json"]).expect(1);
    let report = output.json();
    assert_eq!(report["proven"], false, "{report:#}");
    let all = format!("{} {}", report["failures"], report["unprovable"]);
    assert!(all.contains(said), "{said} in {all}");
    assert!(!newest(respaldo).path("marks/proof.json").exists());
    assert_nothing_stays(respaldo);
    output
}

#[track_caller]
fn assert_nothing_stays(respaldo: &Respaldo) {
    let spool = fs::read_dir(respaldo.path("data/spool")).into_iter().flatten();
    let left: Vec<PathBuf> = spool.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [] as [PathBuf; 0]);
}

fn shop(name: &str) -> Database {
    let database = Postgres::start().database(name);
    database.psql(
        "CREATE TABLE orders AS SELECT n AS id, md5(n::text) AS m FROM generate_series(1, 2000) n;
         ALTER TABLE orders ADD PRIMARY KEY (id);
         CREATE TABLE users AS SELECT n AS id FROM generate_series(1, 50) n;
         CREATE FUNCTION total() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM public.orders'",
    );
    database
}

fn table<'a>(report: &'a Value, name: &str) -> &'a Value {
    let tables = report["tables"].as_array().unwrap();
    tables.iter().find(|table| table["table"] == name).unwrap_or_else(|| panic!("{report:#}"))
}

/// Each with an archive of its own, a schema alone, a large table alone.
const PARTED: &str = ", schemas = \"each\", streams = 2, streams_above = \"1MiB\"";

#[test]
fn everything_is_proven_whole_and_in_parts() {
    for source in ["", PARTED] {
        let database = everything(Postgres::start(), "proven");
        let respaldo = job(&database, source, "");
        respaldo.run(&["backup", "db"]).expect(0);
        let output = respaldo.run(&["drill", "db", "--json"]).expect(0);
        let report = output.json();
        let tables = report["tables"].as_array().unwrap();
        assert!(tables.len() > 15 && tables.iter().all(|table| table["ok"] == true), "{report:#}");
        assert_eq!(report["failures"], json!([]));
        let logs = fs::read_dir(respaldo.path("data/logs/db")).unwrap();
        let logs: String = logs.map(|l| fs::read_to_string(l.unwrap().path()).unwrap()).collect();
        assert!(!logs.contains("password file"), "a warning of what is no trouble: {logs}");
        let large = table(&report, "large");
        assert_eq!(large["expected"], large["found"]);
        assert!(large["found"]["hash"].as_str().is_some_and(|hash| hash.len() == 32), "{large}");
        let last = output.stderr.lines().last().unwrap();
        assert!(last.starts_with("proven: ") && last.contains("tables, "), "{last}");
        let proof = fs::read(newest(&respaldo).path("marks/proof.json")).unwrap();
        let proof: Value = serde_json::from_slice(&proof).unwrap();
        assert_eq!(proof["tables"], tables.len());
        let page = fs::read_to_string(report["report"].as_str().unwrap()).unwrap();
        assert!(page.contains("public.large") && page.contains("Proven"), "{page}");
        assert_nothing_stays(&respaldo);
    }
}

#[test]
fn what_is_not_as_it_was_is_named() {
    let database = shop("spoiled");
    let respaldo = job(&database, "", "");
    respaldo.run(&["backup", "db"]).expect(0);
    respaldo.run(&["drill", "db"]).expect(0);
    fs::remove_file(newest(&respaldo).path("marks/proof.json")).unwrap();

    put_in_its_place(&respaldo, &database, &["--exclude-table-data=users"]);
    fails(&respaldo, "table public.users has 0 rows, and had 50");
    database.psql("UPDATE orders SET m = 'other' WHERE id = 700");
    put_in_its_place(&respaldo, &database, &[]);
    let report = fails(&respaldo, "table public.orders has its 2000 rows, but not what").json();
    assert_eq!(table(&report, "orders")["ok"], false);
    assert_eq!(table(&report, "users")["ok"], true);
    database.psql("UPDATE orders SET m = md5(id::text) WHERE id = 700; DROP FUNCTION total()");
    put_in_its_place(&respaldo, &database, &[]);
    fails(&respaldo, "0 functions, and there were 1");
}

#[test]
fn what_is_damaged_or_of_somebody_else_or_old_is_named() {
    let database = shop("damaged");
    let respaldo = job(&database, "", "max_age = \"26h\"");
    respaldo.run(&["backup", "db"]).expect(0);
    let stored = newest(&respaldo);
    let file = stored.artifact(0);
    let whole = fs::read(&file).unwrap();
    Stored::flip(&file);
    fails(&respaldo, "dump.zst on 'local'");
    fs::write(&file, &whole[..whole.len() - 100]).unwrap();
    fails(&respaldo, "dump.zst on 'local'");
    fs::write(&file, &whole).unwrap();

    let manifest = fs::read_to_string(stored.path("manifest.json")).unwrap();
    fs::write(stored.path("manifest.json"), manifest.replace("\"rows\": 50", "\"rows\": 49"))
        .unwrap();
    let changed = fs::read_to_string(stored.path("manifest.json")).unwrap();
    assert_ne!(changed, manifest);
    fails(&respaldo, "not the one that was signed");
    fs::write(stored.path("manifest.json"), &manifest).unwrap();

    // Yesterday's, and whole.
    let old = stored.copy_as("20251124T020000Z");
    sign(&respaldo, &old);
    fs::remove_dir_all(&stored.folder).unwrap();
    fails(&respaldo, "the newest backup on 'local' is 20251124T020000Z");
}

#[test]
fn what_is_missing_here_is_said_with_how_to_get_it() {
    let database = shop("lacking");
    let respaldo = job(&database, "", "");
    respaldo.run(&["backup", "db"]).expect(0);
    let stored = newest(&respaldo);
    let manifest = stored.manifest();
    let mut other = manifest.clone();
    other["sources"][0]["extensions"].as_array_mut().unwrap().push(json!("no_such 1.0"));
    stored.write_manifest(&other);
    sign(&respaldo, &stored);
    let output = fails(&respaldo, "extensions are not installed here: no_such");
    assert!(output.stderr.contains("postgresql-15-no-such"), "{}", output.stderr);
    assert_eq!(output.json()["failures"], json!([]), "nothing was found wrong");

    let mut other = manifest.clone();
    other["sources"][0]["server_version"] = json!("16.1");
    stored.write_manifest(&other);
    sign(&respaldo, &stored);
    let output = fails(&respaldo, "no PostgreSQL 16 server is installed here");
    assert!(output.stderr.contains("install postgresql-16"), "{}", output.stderr);

    let mut other = manifest;
    other["sources"][0]["collation"] = json!("xx_XX.UTF-8");
    stored.write_manifest(&other);
    sign(&respaldo, &stored);
    fails(&respaldo, "the locale 'xx_XX.UTF-8' is not installed here");
}

/// Code of the dump that tries to run a program of the machine, by each way out of its role.
const TRIES: &str = "
    CREATE FUNCTION tries(x int) RETURNS bool LANGUAGE plpgsql AS $f$
    DECLARE way text; BEGIN
      FOREACH way IN ARRAY ARRAY['SELECT 1', 'RESET ROLE', 'RESET SESSION AUTHORIZATION',
          'SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres'] LOOP
        BEGIN
          EXECUTE way;
          EXECUTE 'COPY (SELECT 1) TO PROGRAM ''touch @''';
        EXCEPTION WHEN OTHERS THEN NULL; END;
      END LOOP; RETURN true; END $f$;
    CREATE TABLE direct (a int CHECK (tries(a)));
    INSERT INTO direct VALUES (1);
    CREATE FUNCTION pretends(x int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS
      'BEGIN RETURN public.tries(x); END';
    CREATE INDEX ON direct (pretends(a));
    CREATE TABLE whole_row (a int);
    CREATE FUNCTION of_row(r whole_row) RETURNS bool LANGUAGE sql AS 'SELECT public.tries(r.a)';
    ALTER TABLE whole_row ADD CHECK (of_row(whole_row));
    INSERT INTO whole_row VALUES (1);
    CREATE MATERIALIZED VIEW m AS SELECT tries(1) AS t;
    CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
      'BEGIN PERFORM public.tries(1); END';
    CREATE EVENT TRIGGER \"tries_@word\" ON ddl_command_end EXECUTE FUNCTION on_ddl()";

#[test]
fn code_in_a_dump_gets_nowhere() {
    let folder = temp_folder("drilled");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let file = folder.path().join("got-here");
    for format in ["", ", format = \"plain\""] {
        let database = Postgres::start().database("hostile");
        let tries = TRIES.replace("@word", "x").replace('@', file.to_str().unwrap());
        // In a plain dump nobody but a superuser could make an event trigger.
        let plain = tries.split("CREATE FUNCTION on_ddl").next().unwrap();
        database.psql(if format.is_empty() { &tries } else { plain });
        assert!(file.exists(), "it works where it may");
        let respaldo = job(&database, format, "drill = { checks = [\"SELECT public.tries(1)\"] }");
        respaldo.run(&["backup", "db"]).expect(0);
        fs::remove_file(&file).unwrap();
        let report = respaldo.run(&["drill", "db", "--json"]).expect(0).json();
        assert_eq!(table(&report, "direct")["ok"], true);
        assert!(!file.exists(), "a dump ran a program ({format})");
    }
}

#[test]
fn a_plain_dump_is_proven_too() {
    let database = shop("plain");
    database.psql(
        "CREATE SCHEMA far; CREATE ROLE plain_owner; CREATE TABLE far.t AS SELECT 1 AS a;
         ALTER TABLE far.t OWNER TO plain_owner; CREATE EXTENSION hstore",
    );
    let respaldo = job(&database, ", format = \"plain\"", "");
    respaldo.run(&["backup", "db"]).expect(0);
    let report = respaldo.run(&["drill", "db", "--json"]).expect(0).json();
    assert_eq!(report["tables"].as_array().unwrap().len(), 3);
    database.psql("DROP TABLE far.t; DROP ROLE plain_owner");
}

#[test]
fn the_live_server_is_not_needed_and_checks_are_asked() {
    let server = Postgres::fresh();
    let database = server.database("live");
    database.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 10) n");
    let mut respaldo = job(
        &database,
        "",
        "[jobs.db.drill]\nchecks = [\"SELECT count(*) = 10 FROM t\"]\n\
         programs = [[\"sh\", \"-c\", \"test $RESPALDO_JOB = db && psql -Atc 'SELECT max(n) FROM t' | grep -x 10\"]]",
    );
    respaldo.run(&["backup", "db"]).expect(0);
    server.stop();
    let report = respaldo.run(&["drill", "db", "--json"]).expect(0).json();
    assert_eq!(report["checks"].as_array().unwrap().len(), 2, "{report:#}");
    server.start_again();
    respaldo = job(
        &database,
        "",
        "[jobs.db.drill]\nchecks = [\"SELECT count(*) > 10 FROM t\", \"SELECT nonsense\"]\nprograms = [[\"false\"]]",
    );
    respaldo.run(&["backup", "db"]).expect(0);
    let report = fails(&respaldo, "'SELECT count(*) > 10 FROM t': it is not true").json();
    assert_eq!(report["failures"].as_array().unwrap().len(), 3, "{report:#}");
}

#[test]
fn a_drill_that_is_killed_leaves_nothing() {
    let database = shop("killed");
    let respaldo = job(&database, "", "drill = { checks = [\"SELECT pg_sleep(600) IS NULL\"] }")
        .env("RUST_LOG", "info");
    respaldo.run(&["backup", "db"]).expect(0);
    let drill = respaldo.watch(&["drill", "db"]);
    drill.wait_for_log("is loaded, in");
    let family = drill.kill9();
    assert!(family.iter().any(|process| process.name == "postgres"), "{family:#?}");
    family.iter().for_each(process::Process::wait_gone);
    assert!(fs::read_dir(respaldo.path("data/spool")).unwrap().next().is_some());
    respaldo.run(&["status"]).expect(0);
    assert_nothing_stays(&respaldo);
}

#[test]
fn on_a_named_server_only_what_was_made_is_touched() {
    let ground = Postgres::fresh();
    ground.psql("postgres", "CREATE DATABASE precious");
    // Its name alone does not make it ours.
    ground.psql("postgres", "CREATE DATABASE respaldo_drill_of_somebody");
    let there = || {
        ground.psql(
            "postgres",
            "SELECT string_agg(name, ' ' ORDER BY name) FROM (SELECT datname AS name FROM pg_database
             UNION ALL SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_') AS all_names",
        )
    };
    let before = there();
    let database = everything(Postgres::start(), "elsewhere");
    let source = postgres(&database, ", fingerprint = \"content\"");
    let config = |more: &str| {
        format!(
            "{HEAD}{LOCAL}[jobs.db]\n{source}[jobs.db.drill]\nserver_password = {}\n\
             server = \"postgres://postgres@127.0.0.1:{}/postgres\"\n{more}",
            text(&ground.password),
            ground.port
        )
    };
    let respaldo = Respaldo::new(&config("")).env("RUST_LOG", "info");
    respaldo.run(&["backup", "db"]).expect(0);
    let output = respaldo.run(&["drill", "db", "--json"]).expect(0);
    assert!(output.json()["tables"].as_array().unwrap().len() > 15);
    assert!(!output.all().contains(&ground.password));
    assert_eq!(there(), before);

    respaldo.write_config(&config("checks = [\"SELECT pg_sleep(600) IS NULL\"]\n"));
    let drill = respaldo.watch(&["drill", "db"]);
    drill.wait_for_log("is loaded, in");
    drill.kill9().iter().for_each(process::Process::wait_gone);
    assert_ne!(there(), before, "it was killed in the middle");
    // Its sessions end when the server finds that nobody is there any more.
    ground.psql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname ~ '^respaldo_drill_'",
    );
    respaldo.write_config(&config(""));
    respaldo.run(&["drill", "db"]).expect(0);
    assert_eq!(there(), before);
}

fn a_newer_one_is_proven_on_its_own_major(server: &Postgres) {
    let programs = server.outside();
    let bin = text(programs.bin().to_str().unwrap());
    let database = everything(server, "newer");
    let respaldo = job(&database, &format!("{PARTED}, bin_dir = {bin}"), "");
    respaldo.run(&["backup", "db"]).expect(0);
    let report = respaldo.run(&["drill", "db", "--json"]).expect(0).json();
    assert!(report["tables"].as_array().unwrap().len() > 15, "{report:#}");
}

#[test]
fn seventeen_is_proven_on_a_seventeen() {
    a_newer_one_is_proven_on_its_own_major(&Postgres::seventeen());
}

#[test]
fn eighteen_is_proven_on_an_eighteen() {
    a_newer_one_is_proven_on_its_own_major(&Postgres::eighteen());
}

#[test]
fn the_daemon_drills_on_schedule() {
    let database = everything(Postgres::start(), "scheduled");
    let source = postgres(&database, "");
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\nschedule = \"@daily\"\n{source}drill = {{ schedule = \"* * * * *\" }}\n"
    ));
    let daemon = respaldo.daemon();
    daemon.wait_for_log("is committed");
    daemon.wait_for_log("a backup of 'db' is proven");
    let reports = respaldo.path("data/drills/db");
    let json = fs::read_dir(reports).unwrap().map(|entry| entry.unwrap().path());
    let json = json.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    let report: Value = serde_json::from_slice(&fs::read(json.max().unwrap()).unwrap()).unwrap();
    let tables = report["tables"].as_array().unwrap();
    // `auto`: a drill comes next, so that there is a hash of each table.
    let matched = |table: &&Value| table["ok"] == true && table["found"]["hash"].is_string();
    assert!(
        tables.len() > 15 && tables.iter().filter(matched).count() == tables.len(),
        "{report:#}"
    );
    assert_eq!(daemon.terminate(), 0);
}
