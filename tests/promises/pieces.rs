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
