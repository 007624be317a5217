//! Materialized views come back filled, also where each schema has an archive of its own; and a drill
//! notices when they do not.

use serde_json::Value;

use super::stock_tools::{commands, fetched, shell};
use crate::support::config::{HEAD, LOCAL, postgres};
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::stored::{Stored, sign};

/// Views of their own schema's rows, of another one's, and of other views; one that was never filled,
/// and one that was before the one it reads was emptied: no dump fills that again.
const VIEWS: &str = r#"
    CREATE SCHEMA tenant_a; CREATE SCHEMA tenant_b; CREATE SCHEMA views;
    CREATE TABLE tenant_a.orders AS SELECT n AS id FROM generate_series(1, 100) n;
    CREATE TABLE tenant_a."o|dd. $(x)*""" AS SELECT 1 AS id;
    CREATE TABLE tenant_a.counted (id serial PRIMARY KEY); INSERT INTO tenant_a.counted DEFAULT VALUES;
    CREATE TABLE tenant_b.orders AS SELECT n AS id FROM generate_series(1, 10) n;
    CREATE TABLE public.rates AS SELECT 2 AS rate;
    CREATE MATERIALIZED VIEW tenant_a.totals AS SELECT count(*) AS n FROM tenant_a.orders;
    CREATE UNIQUE INDEX ON tenant_a.totals (n);
    CREATE MATERIALIZED VIEW tenant_a.both AS SELECT a.n + (SELECT count(*) FROM tenant_b.orders) AS n FROM tenant_a.totals a;
    CREATE MATERIALIZED VIEW views."all | of $ it" AS SELECT n * rate AS n FROM tenant_a.both, public.rates;
    CREATE MATERIALIZED VIEW tenant_a.never AS SELECT 1 AS n WITH NO DATA;
    CREATE MATERIALIZED VIEW tenant_a.emptied AS SELECT 1 AS n;
    CREATE MATERIALIZED VIEW tenant_a.reads_emptied AS SELECT * FROM tenant_a.emptied;
    REFRESH MATERIALIZED VIEW tenant_a.emptied WITH NO DATA"#;

const FILLED: &str =
    "SELECT t.n, b.n, i.n FROM tenant_a.totals t, tenant_a.both b, views.\"all | of $ it\" i";
const POPULATED: &str = "populated materialized views";

/// A job of one database, with schemas of their own.
fn backed_up(name: &str, schemas: &str) -> (Respaldo, Database) {
    let database = Postgres::start().database(name);
    database.psql(VIEWS);
    let source = postgres(&database, &format!(", fingerprint = \"content\"{schemas}"));
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\nretries = 0\n{source}"));
    respaldo.run(&["backup", "db"]).expect(0);
    (respaldo, database)
}

fn newest(respaldo: &Respaldo) -> Stored {
    Stored::newest(&respaldo.path("backups"), "db")
}

#[test]
fn they_come_back_filled_by_every_way() {
    let server = Postgres::start();
    for schemas in [", schemas = [\"tenant_*\"]", ", schemas = \"each\", streams = 2"] {
        let (respaldo, database) = backed_up("filled", schemas);
        respaldo.run(&["drill", "db"]).expect(0);
        assert_eq!(database.psql(FILLED), "100|110|220");

        let folder = fetched(&respaldo, "db");
        shell(&folder, &database, &commands(&folder));
        let by_hand = server.existing(&format!("{}_restored", database.name));
        let by_respaldo = server.existing(&format!("{}_again", database.name));
        respaldo.run(&["restore", "db", "--database", &by_respaldo.name, "--yes"]).expect(0);
        for restored in [&by_hand, &by_respaldo] {
            assert_eq!(restored.psql(FILLED), "100|110|220", "{schemas}");
            assert_eq!(restored.fingerprint(), database.fingerprint(), "{schemas}");
            let next = restored.psql("INSERT INTO tenant_a.counted DEFAULT VALUES RETURNING id");
            assert_eq!(next, "2", "{schemas}");
        }
        // One schema alone has what is filled of its own.
        let alone = server.existing(&format!("{}_tenant_a_restored", database.name));
        assert_eq!(alone.psql("SELECT n FROM tenant_a.totals"), "100");
        respaldo
            .run(&["restore", "db", "--schema", "tenant_a", "--into", "back", "--yes"])
            .expect(0);
        assert_eq!(database.psql("SELECT n FROM back.totals"), "100");
        database.psql("DROP SCHEMA back CASCADE; DELETE FROM tenant_a.orders");
        respaldo.run(&["restore", "db", "--in-place", "--yes"]).expect(0);
        assert_eq!(database.psql(FILLED), "100|110|220", "{schemas}");
    }
}

#[test]
fn a_drill_notices_one_that_is_not_filled_unless_nobody_had_counted() {
    let (respaldo, database) = backed_up("noticed", ", schemas = [\"tenant_*\"]");
    let stored = newest(&respaldo);
    let objects = |manifest: &Value| manifest["sources"][0]["fingerprint"]["objects"].clone();
    assert_eq!(objects(&stored.manifest())[POPULATED], 3);
    // A main archive that leaves out more than rows.
    let mut pg_dump = database.client("pg_dump");
    let rows =
        ["tenant_a.*", "tenant_b.*", "views.*"].map(|rows| format!("--exclude-table-data={rows}"));
    let main = pg_dump.args(["-Fc", "-Z0"]).args(rows).output().unwrap();
    assert!(main.status.success(), "{main:?}");
    let artifacts = stored.manifest()["artifacts"].as_array().unwrap().clone();
    let number = artifacts.iter().position(|artifact| artifact["content"] == "main").unwrap();
    stored.forge(number, &main.stdout);
    sign(&respaldo, &stored);
    let report = respaldo.run(&["drill", "db", "--json"]).expect(1).json();
    let said = report["failures"].to_string();
    assert!(said.contains(&format!("0 {POPULATED}, and there were 3")), "{report:#}");

    // As a backup is that was made before they were counted: nothing is missed, and nothing is too much.
    let mut manifest = stored.manifest();
    let counted = &mut manifest["sources"][0]["fingerprint"]["objects"];
    counted.as_object_mut().unwrap().remove(POPULATED);
    stored.write_manifest(&manifest);
    sign(&respaldo, &stored);
    respaldo.run(&["drill", "db"]).expect(0);
    let (respaldo, _database) = backed_up("uncounted", "");
    let stored = newest(&respaldo);
    let mut manifest = stored.manifest();
    let counted = &mut manifest["sources"][0]["fingerprint"]["objects"];
    counted.as_object_mut().unwrap().remove(POPULATED).unwrap();
    stored.write_manifest(&manifest);
    sign(&respaldo, &stored);
    respaldo.run(&["drill", "db"]).expect(0);
}
