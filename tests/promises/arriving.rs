//! A restore does not wait for its archive: a large table is loaded, indexed and counted while what lies behind it
//! is still coming. All of it comes back as it was, and where the archive breaks off nothing has changed.

use std::fs;
use std::time::Duration;

use super::postgres::{EVERYTHING, contents};
use crate::support::config::{HEAD, LOCAL, postgres, s3};
use crate::support::eventually;
use crate::support::postgres::{Database, Postgres};
use crate::support::program::{Output, Respaldo};
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::assert_no_process;
use crate::support::stored::Stored;

/// Two large tables with all that hangs on such, and small ones that refer to them and are referred to; some of these
/// are many bytes together. The first large one is the second of all in an archive.
const LARGE: &str = "
    CREATE TABLE a_small (id int PRIMARY KEY, name text);
    INSERT INTO a_small SELECT n, 'name ' || n FROM generate_series(0, 99) n;
    CREATE TABLE ledger (id int PRIMARY KEY, whose int NOT NULL, what text, UNIQUE (whose, id));
    INSERT INTO ledger SELECT n, n % 100, repeat(md5(n::text), 31) FROM generate_series(1, 36000) n;
    CREATE INDEX ledger_what ON ledger (left(what, 4)); COMMENT ON INDEX ledger_what IS 'of words';
    CREATE INDEX ledger_later ON ledger (whose) WHERE whose > 90; ALTER TABLE ledger CLUSTER ON ledger_pkey;
    COMMENT ON CONSTRAINT ledger_pkey ON ledger IS 'its key';
    CREATE STATISTICS ledger_pairs (dependencies) ON id, whose FROM ledger;
    ALTER TABLE ledger ADD FOREIGN KEY (whose) REFERENCES a_small;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RAISE 'not any more'; END $f$;
    CREATE TRIGGER closed BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION refuse();
    REVOKE INSERT ON ledger FROM CURRENT_USER;
    CREATE TABLE middle_1 AS SELECT * FROM ledger WHERE id < 12000; ALTER TABLE middle_1 ADD PRIMARY KEY (id);
    CREATE TABLE middle_2 AS SELECT * FROM middle_1; CREATE INDEX ON middle_2 (id, whose);
    CREATE TABLE middle_3 AS SELECT * FROM middle_1; ALTER TABLE middle_3 ADD FOREIGN KEY (id) REFERENCES middle_1;
    CREATE TABLE visits (at date NOT NULL, n int, words text) PARTITION BY RANGE (at);
    CREATE TABLE visits_now PARTITION OF visits FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE visits_old PARTITION OF visits DEFAULT;
    INSERT INTO visits SELECT '2023-12-01'::date + n % 360, n, repeat(md5(n::text), 31) FROM generate_series(1, 39000) n;
    ALTER TABLE visits ADD PRIMARY KEY (at, n); CREATE INDEX ON visits (n);
    CREATE MATERIALIZED VIEW words AS SELECT left(what, 1) AS first, count(*) FROM ledger GROUP BY 1;
    CREATE UNIQUE INDEX ON words (first);
    CREATE TABLE z_small (id int PRIMARY KEY, of int REFERENCES ledger, at date, n int, FOREIGN KEY (at, n) REFERENCES visits);
    INSERT INTO z_small SELECT n, n FROM generate_series(1, 500) n; CREATE INDEX ON z_small (of);
    ANALYZE;";
/// Large tables that can't do without a small one: by a generated column, a domain's check and an index; and one that
/// has an heir, the rows of which the planner counts with its own.
const NEEDY: &str = "
    CREATE FUNCTION named(int) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT name FROM public.a_small WHERE id = $1';
    CREATE DOMAIN known AS int CHECK (named(VALUE) IS NOT NULL);
    CREATE TABLE coded (id int, name text GENERATED ALWAYS AS (named(id)) STORED, what text);
    INSERT INTO coded (id, what) SELECT n % 100, repeat(md5(n::text), 310) FROM generate_series(1, 3600) n;
    CREATE TABLE checked (id known, what text); INSERT INTO checked SELECT id, what FROM coded;
    CREATE TABLE indexed (id int, what text); INSERT INTO indexed SELECT id, what FROM coded;
    CREATE INDEX indexed_named ON indexed (named(id));
    CREATE TABLE heir () INHERITS (ledger); ALTER TABLE heir ADD UNIQUE (id);
    INSERT INTO heir SELECT n + 40000, 7, 'x' FROM generate_series(1, 5000) n;
    ANALYZE;";
const LONG: Duration = Duration::from_secs(240);

fn large(server: &Postgres, name: &str) -> Database {
    let database = server.database(name);
    database.psql(LARGE);
    database
}

fn restore(respaldo: &Respaldo, more: &[&str]) -> Output {
    respaldo.run(&[&["restore", "db", "--yes"], more].concat())
}

/// Databases that restores have made.
fn beside(server: &Postgres, database: &Database, what: &str) -> Vec<String> {
    let sql = format!("SELECT datname FROM pg_database WHERE datname ^@ '{}{what}'", database.name);
    server.psql("postgres", &sql).lines().map(str::to_owned).collect()
}

fn drop_kept(database: &Database) {
    let server = Postgres::start();
    beside(server, database, "__before_").iter().for_each(|kept| drop(server.existing(kept)));
}

/// Everything that came of a failed restore: nothing.
#[track_caller]
fn assert_nothing_is_left(database: &Database) {
    assert_eq!(beside(Postgres::start(), database, "__"), [""; 0]);
    assert_no_process(database);
}

#[test]
fn what_is_loaded_while_it_arrives_is_all_there() {
    let database = large(Postgres::start(), "arriving");
    database.psql(EVERYTHING);
    database.psql(NEEDY);
    let job = postgres(&database, "");
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\n{job}")).deadline(LONG);
    respaldo.run(&["backup", "db"]).expect(0);
    let (live, text) = (database.fingerprint(), contents(&database));
    restore(&respaldo, &["--jobs", "3"]).expect(0);
    assert_eq!(database.fingerprint(), live);
    assert_eq!(contents(&database), text);
    // Of an expression and of columns together the planner knows only what was there before it was told.
    let known = "SELECT (SELECT count(*) FROM pg_stats WHERE tablename = 'ledger_what'),
        (SELECT count(DISTINCT statistics_name) FROM pg_stats_ext WHERE statistics_name = 'ledger_pairs' AND dependencies IS NOT NULL),
        (SELECT count(DISTINCT tablename) FROM pg_stats WHERE tablename IN ('ledger', 'visits_now', 'a_small', 'z_small'))";
    assert_eq!(database.psql(known), "1|1|4");
    assert_eq!(
        database.psql("SELECT count(DISTINCT inherited) FROM pg_stats WHERE tablename = 'ledger'"),
        "2"
    );
    let by_index =
        "SET enable_seqscan = off; SELECT count(*) FROM indexed WHERE named(id) = 'name 7'";
    assert_eq!(database.psql(by_index), "36");
    database.psql("CREATE EXTENSION pg_visibility");
    let frozen = "SELECT count(*) FROM pg_class c, pg_visibility_map_summary(c.oid) s WHERE relname IN
        ('a_small', 'coded', 'ledger', 'middle_2', 'visits_now') AND all_frozen = pg_relation_size(c.oid) / 8192";
    assert_eq!(database.psql(frozen), "5");
    database.psql("DROP EXTENSION pg_visibility");
    drop_kept(&database);
}

#[test]
fn a_large_table_is_ready_before_the_archive_is_here() {
    // Of its own: as long as a COPY waits for its rows, nobody else can drop a database on that server.
    let (server, s3_server) = (Postgres::fresh(), S3::start());
    let database = large(&server, "coming");
    let job = postgres(&database, "");
    let offsite = s3("offsite", &s3_server, "");
    let respaldo = Respaldo::new(&format!("{HEAD}{offsite}[jobs.db]\n{job}")).deadline(LONG);
    respaldo.run(&["backup", "db"]).expect(0);
    let live = database.fingerprint();
    let listed = respaldo.run(&["list", "--json"]).expect(0).json();
    let bytes = listed[0]["artifacts"][0]["stored_bytes"].as_u64().unwrap();
    let faults = &s3_server.faults;
    faults.set(Rule::on("GET", ".dump.zst").times(1), Act::CutResponse((bytes * 3 / 4) as usize));
    faults.set(Rule::on("GET", ".dump.zst"), Act::Hang);
    let running = respaldo.start(&["restore", "db", "--yes", "--jobs", "2"]);
    // Each with what is made of its rows alone; the small ones are at their end because they are together.
    let ready = "SELECT (SELECT count(*) FROM ledger),
            (SELECT count(*) FROM pg_index WHERE indrelid = 'ledger'::regclass AND indisvalid),
            (SELECT count(*) FROM pg_stats WHERE tablename IN ('ledger', 'ledger_what') AND attname IN ('id', 'left')),
            (SELECT count(*) FROM pg_stats_ext WHERE statistics_name = 'ledger_pairs' AND dependencies IS NOT NULL),
            (SELECT count(*) FROM middle_3), (SELECT count(*) FROM pg_index WHERE indrelid = 'middle_2'::regclass)";
    let new = || beside(&server, &database, "__new_").pop();
    let is_made =
        |new: &String| server.psql(new, "SELECT to_regclass('public.ledger') IS NOT NULL") == "t";
    let is_ready = |new: String| server.psql(&new, ready) == "36000|4|2|1|11999|1";
    eventually("what has come is ready", || new().filter(is_made).is_some_and(is_ready));
    let waiting = "SELECT (SELECT count(*) FROM z_small), (SELECT count(*) FROM pg_constraint WHERE contype = 'f')";
    assert_eq!(server.psql(&new().unwrap(), waiting), "0|0", "the rest is not here");
    faults.clear();
    running.finish(LONG).expect(0);
    assert_eq!(database.fingerprint(), live);
}

#[test]
fn an_archive_that_breaks_off_or_can_not_be_loaded_changes_nothing() {
    let database = large(Postgres::start(), "broken");
    let job = postgres(&database, "");
    let respaldo =
        Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\nretries = 0\n{job}")).deadline(LONG);
    respaldo.run(&["backup", "db"]).expect(0);
    let live = database.fingerprint();
    let stored = Stored::newest(&respaldo.path("backups"), "db");
    let artifact = stored.artifact(0);
    let whole = fs::read(&artifact).unwrap();
    fs::write(&artifact, &whole[..whole.len() * 3 / 4]).unwrap();
    let said = restore(&respaldo, &["--jobs", "2"]).expect(1).all();
    let artifact_name = artifact.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(&format!("read {artifact_name} on 'local'")), "{said}");
    assert_nothing_is_left(&database);
    assert_eq!(database.fingerprint(), live);

    fs::write(&artifact, &whole).unwrap();
    Stored::flip(&artifact);
    let said = restore(&respaldo, &["--jobs", "2"]).expect(1).all();
    assert!(said.contains(artifact_name) && !said.contains("pg_restore"), "{said}");
    assert_nothing_is_left(&database);
    assert_eq!(database.fingerprint(), live);

    // A row of the first large table that no other database takes.
    let check = format!("current_database() = '{}' OR id < 35000", database.name);
    database.psql(&format!("ALTER TABLE ledger ADD CHECK ({check})"));
    respaldo.run(&["backup", "db"]).expect(0);
    let said = restore(&respaldo, &["--jobs", "2"]).expect(1).all();
    assert!(said.contains("violates check constraint"), "{said}");
    assert_nothing_is_left(&database);
    assert_eq!(database.fingerprint(), live);
}
