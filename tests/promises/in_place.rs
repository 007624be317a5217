//! A live database that is overwritten: all that was there is in a backup first, whatever the job leaves
//! out and whichever database it is; and what is wrong is noticed while there is a way back.

use crate::support::config::{HEAD, LOCAL, postgres, text};
use crate::support::mariadb::Mariadb;
use crate::support::postgres::{Database, Postgres};
use crate::support::program::{Output, Respaldo};
use crate::support::stored::Stored;
use crate::support::tool;

const SHOP: &str =
    "CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders SELECT generate_series(1, 300);
    CREATE TABLE audit (id int); INSERT INTO audit SELECT generate_series(1, 500);
    CREATE TABLE sessions (id int); INSERT INTO sessions SELECT generate_series(1, 7);";

fn job(name: &str, database: &Database, source: &str) -> String {
    format!("[jobs.{name}]\nretries = 0\n{}\n", postgres(database, source))
}

fn in_place(respaldo: &Respaldo, more: &[&str]) -> Output {
    respaldo.run(&[&["restore"], more, &["--in-place", "--yes"]].concat())
}

/// Runs the commands by which a restore says that what was there comes back.
fn bring_back(respaldo: &Respaldo, said: &str) -> usize {
    let commands = said.split("`respaldo ").skip(1).filter_map(|rest| rest.split_once("` brings"));
    let commands: Vec<&str> = commands.map(|(command, _)| command).collect();
    for command in &commands {
        let words: Vec<&str> = command.split(' ').chain(["--yes"]).collect();
        respaldo.run(&words).expect(0);
    }
    commands.len()
}

#[test]
fn what_a_job_leaves_out_is_saved_before_it_is_dropped() {
    let database = Postgres::start().database("left_out");
    database.psql(SHOP);
    let left_out = ", exclude_tables = [\"public.audit\"], exclude_rows = [\"public.sessions\"]";
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", job("db", &database, left_out)));
    respaldo.run(&["backup", "db"]).expect(0);
    let live = database.fingerprint();
    let said = in_place(&respaldo, &["db"]).expect(0).all();
    assert_eq!(database.psql("SELECT to_regclass('audit') IS NULL"), "t");
    assert_eq!(database.psql("SELECT count(*) FROM sessions"), "0");
    assert_eq!(bring_back(&respaldo, &said), 1, "{said}");
    assert_eq!(database.fingerprint(), live);
}

#[test]
fn another_database_is_saved_before_it_is_overwritten() {
    let server = Postgres::start();
    let (database, staging) = (server.database("prod"), server.database("staging"));
    database.psql(SHOP);
    staging.psql("CREATE TABLE precious AS SELECT generate_series(1, 42) AS n");
    let (whole, before) = (database.fingerprint(), staging.fingerprint());
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", job("db", &database, "")));
    respaldo.run(&["backup", "db"]).expect(0);
    let said = in_place(&respaldo, &["db", "--database", &staging.name]).expect(0).all();
    assert_eq!(staging.fingerprint(), whole);
    assert_eq!(bring_back(&respaldo, &said), 1, "{said}");
    assert_eq!((staging.fingerprint(), database.fingerprint()), (before, whole));
}

#[test]
fn each_of_several_jobs_is_saved_before_it_is_overwritten() {
    let server = Postgres::start();
    let (one, two) = (server.database("one"), server.database("two"));
    one.psql(SHOP);
    two.psql(SHOP);
    let respaldo =
        Respaldo::new(&format!("{HEAD}{LOCAL}{}{}", job("one", &one, ""), job("two", &two, "")));
    respaldo.run(&["backup", "one"]).expect(0);
    respaldo.run(&["backup", "two"]).expect(0);
    one.psql("DELETE FROM audit");
    two.psql("INSERT INTO orders VALUES (301)");
    let before = (one.fingerprint(), two.fingerprint());
    let said = in_place(&respaldo, &["--all", "one", "two"]).expect(0).all();
    assert_ne!((one.fingerprint(), two.fingerprint()), before);
    assert_eq!(bring_back(&respaldo, &said), 2, "{said}");
    assert_eq!((one.fingerprint(), two.fingerprint()), before);
}

#[test]
fn a_row_too_few_or_an_erasure_that_fails_rolls_all_of_it_back() {
    let database = Postgres::start().database("rolled_back");
    database.psql(SHOP);
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", job("db", &database, "")));
    respaldo.run(&["backup", "db"]).expect(0);
    let stored = Stored::newest(&respaldo.path("backups"), "db");

    // What was erased since is erased before anybody sees it.
    let delete = "DELETE FROM orders WHERE id = 7 AND '\\x' <> ''; DELETE FROM audit";
    respaldo.run(&["erase", "db", "--sql", delete, "--yes"]).expect(0);
    let said = in_place(&respaldo, &["db"]).expect(0).all();
    assert!(
        said.contains("1 erasures were reapplied") && !said.contains("not as it was"),
        "{said}"
    );
    assert_eq!(database.psql("SELECT count(*) FROM orders"), "299");
    assert_eq!(database.psql("SELECT count(*) FROM audit"), "0");

    let live = database.fingerprint();
    let fewer = respaldo.path("fewer.dump");
    tool(database.client("pg_dump").args(["-Fc", "-f"]).arg(&fewer));
    stored.forge(0, &std::fs::read(&fewer).unwrap());
    let id = stored.id();
    let said = in_place(&respaldo, &["db", &id, "--trust"]).expect(1).all();
    assert!(said.contains("other rows than it had") && said.contains("rolled back"), "{said}");
    assert_eq!(database.fingerprint(), live);
    in_place(&respaldo, &["db", &id, "--trust", "--unchecked"]).expect(0);

    respaldo.run(&["erase", "db", "--sql", "DELETE FROM nowhere", "--yes"]).expect(0);
    let live = database.fingerprint();
    let said = in_place(&respaldo, &["db", &id, "--trust", "--unchecked"]).expect(1).all();
    assert!(said.contains("nowhere") && said.contains("rolled back"), "{said}");
    assert_eq!(database.fingerprint(), live);
}

#[test]
fn another_mysql_database_is_saved_before_it_is_overwritten() {
    let server = Mariadb::start();
    let (database, other) = (server.database("prod"), server.database("other"));
    database.sql("CREATE TABLE t (n INT PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_30");
    other.sql("CREATE TABLE precious (n INT); INSERT INTO precious VALUES (42)");
    let (whole, before) = (database.contents(), other.contents());
    let (url, password) = (text(&database.url_of(Mariadb::USER)), text(&server.password));
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\nsource = {{ mysql = {url}, password = {password} }}\n"
    ));
    respaldo.run(&["backup", "db"]).expect(0);
    let said = in_place(&respaldo, &["db", "--database", &other.name]).expect(0).all();
    assert_eq!(other.contents(), whole);
    assert_eq!(bring_back(&respaldo, &said), 1, "{said}");
    assert_eq!((other.contents(), database.contents()), (before, whole));
}
