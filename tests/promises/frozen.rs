//! What a restore loads lies there as if it had for long: nobody has to write it once more, and nothing that
//! was in a table before is lost by it.

use std::time::Duration;

use crate::support::config::{HEAD, LOCAL, postgres};
use crate::support::postgres::Postgres;
use crate::support::program::Respaldo;

/// Tables of every kind.
const TABLES: &str = r#"
    CREATE TABLE plain AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n;
    CREATE SCHEMA "odd.schema";
    CREATE TABLE "odd.schema"."T "" FROM stdin;" ("a b" int, "c""d" text);
    INSERT INTO "odd.schema"."T "" FROM stdin;" SELECT n, md5(n::text) FROM generate_series(1, 500) n;
    CREATE TABLE parent (n int); CREATE TABLE child (more text) INHERITS (parent);
    INSERT INTO parent SELECT generate_series(1, 300); INSERT INTO child SELECT n, 'x' FROM generate_series(1, 200) n;
    CREATE TABLE empty (n int); CREATE UNLOGGED TABLE unlogged AS SELECT generate_series(1, 100) AS n;
    CREATE TABLE days (at date, n int) PARTITION BY RANGE (at);
    CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE days_2 PARTITION OF days DEFAULT;
    INSERT INTO days SELECT '2024-12-01'::date + n, n FROM generate_series(1, 90) n;
    ANALYZE"#;
/// pg_dump loads the parts of this one by their parent: the values' numbers are others elsewhere, and so each row may
/// belong into another part.
const MOODS: &str = "
    CREATE TYPE mood AS ENUM ('a', 'b', 'c', 'd', 'e');
    CREATE TABLE moods (m mood, n int) PARTITION BY HASH (m);
    CREATE TABLE moods_0 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE moods_1 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    INSERT INTO moods SELECT (enum_range(NULL::mood))[1 + n % 5], n FROM generate_series(1, 1000) n";
const NOT_FROZEN: &str =
    "SELECT string_agg(c.oid::regclass::text, ' ' ORDER BY c.oid::regclass::text)
     FROM pg_class c, pg_visibility_map_summary(c.oid) s
     WHERE relkind = 'r' AND relnamespace::regnamespace::text IN ('public', '\"odd.schema\"')
       AND s.all_frozen < pg_relation_size(c.oid) / 8192";

#[test]
fn rows_come_back_frozen_and_all_of_them() {
    let server = Postgres::start();
    for source in ["", ", streams = 2, streams_above = \"64KiB\"", ", schemas = [\"odd.schema\"]"] {
        let database = server.database("frozen");
        database.psql(TABLES);
        let job = postgres(&database, source);
        let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\nretries = 0\n{job}"))
            .deadline(Duration::from_secs(240));
        respaldo.run(&["backup", "db"]).expect(0);
        let live = database.fingerprint();
        for jobs in ["1", "2"] {
            respaldo.run(&["restore", "db", "--yes", "--jobs", jobs]).expect(0);
            assert_eq!(database.fingerprint(), live, "{source} {jobs}");
            database.psql("CREATE EXTENSION pg_visibility");
            assert_eq!(database.psql(NOT_FROZEN), "", "{source} {jobs}");
        }
        respaldo.run(&["drill", "db"]).expect(0);
    }
}

#[test]
fn what_is_loaded_by_its_parent_is_not_emptied_in_between() {
    let server = Postgres::start();
    let database = server.database("moods");
    database.psql(MOODS);
    let job = postgres(&database, "");
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\nretries = 0\n{job}"));
    respaldo.run(&["backup", "db"]).expect(0);
    for jobs in ["1", "2"] {
        // How many are in which part is not as it was.
        respaldo.run(&["restore", "db", "--yes", "--unchecked", "--jobs", jobs]).expect(0);
        assert_eq!(database.psql("SELECT count(*), sum(n) FROM moods"), "1000|500500");
        database.psql("CREATE EXTENSION pg_visibility");
        // All of them may have come into one.
        assert!(database.psql(NOT_FROZEN).starts_with("moods_"));
    }
}
