//! Parts of a backup come back beside what is there, with all that belongs to them and nothing twice; and no
//! part takes the place of a whole.

use std::time::Duration;

use serde_json::Value;

use crate::support::config::{HEAD, LOCAL, postgres};
use crate::support::postgres::{Database, Postgres};
use crate::support::program::{Output, Respaldo};
use crate::support::stored::Stored;

/// A job of one database, backed up.
fn backed_up(database: &Database, source: &str) -> Respaldo {
    let source = postgres(database, source);
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\nretries = 0\n{source}"))
        .deadline(Duration::from_secs(240));
    respaldo.run(&["backup", "db"]).expect(0);
    respaldo
}

fn restore(respaldo: &Respaldo, more: &[&str]) -> Output {
    respaldo.run(&[&["restore", "db", "--yes"], more].concat())
}

fn artifact(respaldo: &Respaldo, is_it: impl Fn(&Value) -> bool) -> String {
    let manifest = Stored::newest(&respaldo.path("backups"), "db").manifest();
    let artifacts = manifest["artifacts"].as_array().unwrap();
    let found = artifacts.iter().find(|artifact| is_it(&artifact["content"]));
    found.unwrap_or_else(|| panic!("{artifacts:#?}"))["name"].as_str().unwrap().to_owned()
}

#[test]
fn a_part_does_not_take_the_place_of_the_whole() {
    let server = Postgres::start();
    let database = server.database("parts");
    database.psql(
        "CREATE SCHEMA tenant_a; CREATE TABLE tenant_a.t AS SELECT 1 AS a;
         CREATE TABLE public.large AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n;
         ANALYZE",
    );
    let more = ", schemas = [\"tenant_a\"], streams = 2, streams_above = \"64KiB\"";
    let respaldo = backed_up(&database, more);
    database.psql("INSERT INTO tenant_a.t VALUES (2)");
    let live = database.fingerprint();
    let schema = artifact(&respaldo, |content| content["schema"] == "tenant_a");
    let large = artifact(&respaldo, |content| content.to_string().contains("large"));
    let globals = artifact(&respaldo, |content| content == "globals");
    for (name, piece) in
        [(&schema, "--schema tenant_a"), (&large, "--table public.large"), (&globals, "")]
    {
        for dry in [&[][..], &["--dry-run"]] {
            let code = if dry.is_empty() { 2 } else { 0 };
            let said = restore(&respaldo, &[&["--artifact", name], dry].concat()).expect(code);
            let all = said.all();
            assert!(all.contains("only a part of the backup is loaded"), "{all}");
            assert!(all.contains(piece) && all.contains("--database NEW_NAME"), "{all}");
        }
        let names = server.psql("postgres", "SELECT datname FROM pg_database");
        let alike = names.lines().filter(|name| name.starts_with(&database.name));
        assert_eq!(alike.count(), 1, "{names}");
        assert_eq!(database.fingerprint(), live);
    }
    // What was hinted at works; and whoever names the database means it, and is told.
    restore(&respaldo, &["--schema", "tenant_a", "--into", "back"]).expect(0);
    assert_eq!(database.psql("SELECT count(*) FROM back.t"), "1");
    let new = server.existing(&format!("{}_new", database.name));
    restore(&respaldo, &["--artifact", &schema, "--database", &new.name]).expect(0);
    assert_eq!(new.psql("SELECT count(*) FROM tenant_a.t"), "1");
    let again = ["--artifact", &schema, "--database", &new.name, "--dry-run"];
    let said = restore(&respaldo, &again).expect(0).all();
    assert!(said.contains("note: only a part of the backup is loaded"), "{said}");
}

/// Partitions beside and in another schema, one of them parted again; and large, so that they may lie in
/// archives of their own.
const EVENTS: &str = "
    CREATE SCHEMA parts;
    CREATE TABLE events (id int, at date, note text, PRIMARY KEY (id, at, note)) PARTITION BY RANGE (at);
    CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE parts.\"events 2025\" PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
        PARTITION BY LIST (note);
    CREATE TABLE parts.rest PARTITION OF parts.\"events 2025\" DEFAULT;
    CREATE TABLE other AS SELECT n, md5(n::text) FROM generate_series(1, 3000) n;
    CREATE VIEW seen AS SELECT * FROM events;
    INSERT INTO events SELECT n, '2024-01-01'::date + n % 700, 'note ' || n FROM generate_series(1, 9000) n;
    ANALYZE";

#[test]
fn a_partitioned_table_comes_with_its_partitions() {
    let server = Postgres::start();
    let database = server.database("partitioned");
    database.psql(EVENTS);
    let live = database.fingerprint();
    let count = |table: &str| database.psql(&format!("SELECT count(*) FROM {table}"));
    for (n, more) in ["", ", streams = 2, streams_above = \"64KiB\""].into_iter().enumerate() {
        let respaldo = backed_up(&database, more);
        let into = format!("back_{n}");
        restore(&respaldo, &["--table", "public.events", "--into", &into]).expect(0);
        let differ = format!("SELECT count(*) FROM (TABLE events EXCEPT TABLE {into}.events) d");
        assert_eq!(
            (database.psql(&differ), count(&format!("{into}.events"))),
            ("0".into(), "9000".into())
        );
        database.psql(&format!("DROP SCHEMA {into} CASCADE"));
        assert_eq!(database.fingerprint(), live, "{more}");

        // Those that are missing come back, once.
        database.psql("DELETE FROM events WHERE id % 3 = 0");
        let words = ["--table", "public.events", "--into", &into, "--where", "id % 3 = 0"];
        let said = restore(&respaldo, &words).expect(0).all();
        assert!(said.contains("3000 rows came back to \"public\".\"events\""), "{said}");
        database.psql(&format!("DROP SCHEMA {into} CASCADE"));
        assert_eq!(database.fingerprint(), live, "{more}");

        // A partition alone is nobody's partition where it comes to.
        database.psql("DROP TABLE events_2024");
        let alone = ["--table", "public.events_2024", "--into", &into];
        let said = restore(&respaldo, &alone).expect(0).all();
        let came: u32 = count(&format!("{into}.events_2024")).parse().unwrap();
        let left: u32 = count("events").parse().unwrap();
        assert!(came > 3000 && came + left == 9000, "{came} and {left}");
        let words = said.split_once("to be one: ").unwrap().1.lines().next().unwrap();
        database.psql(&format!(
            "{words}; ALTER TABLE {into}.events_2024 SET SCHEMA public; DROP SCHEMA {into}"
        ));

        let new = server.existing(&format!("{}_{n}", database.name));
        restore(&respaldo, &["--table", "public.events", "--database", &new.name]).expect(0);
        assert_eq!(new.psql("SELECT count(*) FROM events"), "9000");
        assert_eq!(new.psql("SELECT count(*) FROM other"), "0");
        let said = restore(&respaldo, &["--table", "public.seen", "--into", &into]).expect(1);
        assert!(said.stderr.contains("has no rows of the table 'public.seen'"), "{}", said.stderr);
        assert!(said.stderr.contains("hint: "), "{}", said.stderr);
        assert_eq!(database.fingerprint(), live, "{more}");
    }
}

/// Everybody is in `people`, by way of three tables in two schemas.
const PEOPLE: &str = "
    CREATE SCHEMA hr;
    CREATE TABLE people (id int PRIMARY KEY, name text);
    CREATE TABLE employees (boss int, PRIMARY KEY (id)) INHERITS (people);
    CREATE TABLE hr.bosses (bonus int, PRIMARY KEY (id)) INHERITS (employees);
    INSERT INTO people SELECT n, 'p' FROM generate_series(1, 7) n;
    INSERT INTO employees SELECT n, 'e', 1 FROM generate_series(11, 15) n;
    INSERT INTO hr.bosses SELECT n, 'b', 1, 2 FROM generate_series(21, 23) n";

#[test]
fn what_heirs_hold_comes_back_to_them_and_not_to_their_parent() {
    let database = Postgres::start().database("heirs");
    database.psql(PEOPLE);
    let respaldo = backed_up(&database, "");
    let whole = database.fingerprint();
    let counts = || {
        database.psql(
            "SELECT (SELECT count(*) FROM people), (SELECT count(*) FROM ONLY people),
                    (SELECT count(*) FROM ONLY employees), (SELECT count(*) FROM hr.bosses)",
        )
    };
    assert_eq!(counts(), "15|7|5|3");
    let cases = [
        (&["--schema", "public"][..], "12|7|5|0"),
        (&["--schema", "hr"], "13|5|5|3"),
        (&["--table", "public.people"], "15|7|5|3"),
        (&["--table", "public.employees"], "13|5|5|3"),
        (&["--table", "hr.bosses"], "12|5|4|3"),
    ];
    // Of what is deleted that comes back which was asked for; nothing becomes an heir of what is there.
    for (piece, after) in cases {
        database.psql("DELETE FROM people WHERE id IN (1, 2) OR name = 'b'");
        if piece[1] != "hr" {
            database.psql("DELETE FROM people WHERE id = 11");
        }
        assert!(counts().ends_with("|0"), "{}", counts());
        let back = ["--into", "back", "--where", "true"];
        restore(&respaldo, &[piece, &back[..]].concat()).expect(0);
        assert_eq!(counts(), after, "{piece:?}");
        restore(&respaldo, &["--schema", "public", "--into", "back_2", "--where", "true"])
            .expect(0);
        restore(&respaldo, &["--schema", "hr", "--into", "back_3", "--where", "true"]).expect(0);
        database.psql(
            "DROP SCHEMA back CASCADE; DROP SCHEMA back_2 CASCADE; DROP SCHEMA back_3 CASCADE",
        );
        assert_eq!(database.fingerprint(), whole, "{piece:?}");
    }
}
