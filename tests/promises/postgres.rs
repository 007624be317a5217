//! A PostgreSQL database comes back as it was: odd names, every kind of object, both formats, from
//! each destination; into a new database or in place of the present one, which is kept; and a
//! restore that fails leaves everything as it was.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::config::{HEAD, LOCAL, encode, postgres, s3, text};
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::s3::S3;
use crate::support::tool;

pub const EVERYTHING: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'ok', 'ñandú');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE customers (
    id serial PRIMARY KEY, name text NOT NULL, born date, tags text[], extra jsonb, photo bytea,
    balance numeric(12, 2) DEFAULT 0, seen timestamptz, feels mood, rank positive,
    twice int GENERATED ALWAYS AS (rank * 2) STORED
);
INSERT INTO customers (name, born, tags, extra, photo, balance, seen, feels, rank)
SELECT 'Señora ' || n || E'\t\\ "q"\n', DATE '1970-01-01' + n, ARRAY['a,b', NULL, 'ñ' || n],
    jsonb_build_object('n', n, 'deep', jsonb_build_array(NULL, 'x', 1.5)),
    decode(lpad(to_hex(n), 8, '0'), 'hex'), n / 100.0, 'epoch'::timestamptz + n * INTERVAL '1 hour',
    (ARRAY['sad', 'ok', 'ñandú', NULL]::mood[])[1 + n % 4], 1 + n
FROM generate_series(1, 3000) n;
CREATE SCHEMA "Ünï côdé";
CREATE TABLE "Ünï côdé"."a.b" ("sel""ect" int REFERENCES customers, "de fault" text);
INSERT INTO "Ünï côdé"."a.b" SELECT n, CASE WHEN n % 3 > 0 THEN repeat('ü', n) END
FROM generate_series(1, 400) n;
CREATE TABLE events (at timestamptz NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE events_rest PARTITION OF events DEFAULT;
INSERT INTO events SELECT '2023-12-31'::timestamptz + n * INTERVAL '1 day', 'event ' || n
FROM generate_series(1, 500) n;
CREATE TABLE nothing ();
CREATE TABLE empty (a int);
CREATE INDEX ON customers USING gin (extra);
CREATE UNIQUE INDEX "odd index" ON customers (lower(name)) WHERE rank > 5;
CREATE SEQUENCE tickets START 1000 INCREMENT 7;
SELECT nextval('tickets'), nextval('tickets');
CREATE VIEW rich AS SELECT id, balance FROM customers WHERE balance > 10;
CREATE MATERIALIZED VIEW per_mood AS SELECT feels, count(*) FROM customers GROUP BY 1;
CREATE FUNCTION double(x int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2';
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NEW; END $f$;
CREATE TRIGGER noted BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON customers USING (rank < 10);
COMMENT ON TABLE customers IS 'it''s "commented"; -- $1';
SELECT lo_from_bytea(0, convert_to(repeat('large object ñ ' || n, 9000), 'UTF8'))
FROM generate_series(1, 3) n;
"#;

/// All that a database holds, as SQL text: two of the same content have the same text.
pub fn contents(database: &Database) -> String {
    let dump = tool(database.client("pg_dump").arg("--format=plain"));
    // Its random words differ from dump to dump.
    dump.lines()
        .filter(|line| !line.contains("restrict "))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// A job `db` of one database, locally and on S3.
fn both(database: &Database, s3_server: &S3, format: &str) -> Respaldo {
    Respaldo::new(&format!(
        "{HEAD}{LOCAL}{}[jobs.db]\n{}",
        s3("offsite", s3_server, "a/b"),
        postgres(database, &format!(", format = \"{format}\""))
    ))
}

/// A job `db` of one database, locally.
fn local(database: &Database) -> Respaldo {
    Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\n{}", postgres(database, "")))
}

fn comes_back_whole(format: &str, artifact: &str) {
    let (server, s3) = (Postgres::start(), S3::start());
    let source = server.database("shop");
    source.psql(EVERYTHING);
    let respaldo = both(&source, &s3, format);
    respaldo.run(&["backup", "db"]).expect(0);
    let listed = respaldo.run(&["list", "--json"]).expect(0).json();
    let name = listed[0]["artifacts"][0]["name"].as_str().unwrap();
    assert_eq!(name, format!("{}.{artifact}", source.name));
    respaldo.run(&["verify", "db"]).expect(0);
    for destination in ["local", "offsite"] {
        let other = server.existing(&format!("{}_{destination}", source.name));
        respaldo
            .run(&[
                "restore",
                "db",
                "--destination",
                destination,
                "--database",
                &other.name,
                "--yes",
            ])
            .expect(0);
        assert_eq!(other.fingerprint(), source.fingerprint());
        assert_eq!(contents(&other), contents(&source), "{format} from {destination}");
    }
    assert!(source.fingerprint().contains("customers|3000|"), "the source is untouched");
}

#[test]
fn a_custom_dump_comes_back_whole_from_a_folder_and_from_s3() {
    comes_back_whole("custom", "dump.zst");
}

#[test]
fn a_plain_dump_comes_back_whole_from_a_folder_and_from_s3() {
    comes_back_whole("plain", "sql.zst");
}

#[test]
fn the_present_database_is_replaced_and_kept_under_another_name() {
    let server = Postgres::start();
    let database = server.database("live");
    database.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n");
    let respaldo = local(&database);
    respaldo.run(&["backup", "db"]).expect(0);
    let backed_up = contents(&database);
    database.psql("DELETE FROM t WHERE n > 10; CREATE TABLE later (a int)");
    let present = contents(&database);

    // A client is in it, and stays until it is sent away.
    let mut client = database
        .client("psql")
        .args(["-X", "-A", "-t", "-c", "SELECT 'here'", "-c", "SELECT pg_sleep(600)"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "here\n");

    let said = respaldo.run(&["restore", "db", "--yes"]).expect(0).stderr;
    assert!(!client.wait().unwrap().success(), "the client was still in");
    assert_eq!(contents(&database), backed_up);
    let kept = said.lines().find_map(|line| line.strip_prefix("the former one is kept as '"));
    let kept = kept.unwrap_or_else(|| panic!("not named: {said}")).trim_end_matches('\'');
    let kept = server.existing(kept);
    assert_eq!(contents(&kept), present);
    database.psql("SELECT 1");
    assert!(databases_like(server, &format!("{}__new", database.name)).is_empty());

    // And again: the name of the one that was kept is taken by then.
    let said = respaldo.run(&["restore", "db", "--yes"]).expect(0).stderr;
    assert_eq!(contents(&database), backed_up, "{said}");
    assert_eq!(contents(&kept), present, "the first one that was kept is still there");
    let more = databases_like(server, &format!("{}__before", database.name));
    assert_eq!(more.len(), 2, "{more:?}");
    drop(more.iter().map(|name| server.existing(name)).collect::<Vec<_>>());
}

/// The databases whose name starts so.
fn databases_like(server: &Postgres, start: &str) -> Vec<String> {
    let names = server.psql("postgres", "SELECT datname FROM pg_database ORDER BY 1");
    names.lines().filter(|name| name.starts_with(start)).map(str::to_owned).collect()
}

#[test]
fn an_empty_database_that_is_there_is_filled() {
    let server = Postgres::start();
    let (source, target) = (server.database("full"), server.database("empty"));
    source.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n");
    let respaldo = local(&source);
    respaldo.run(&["backup", "db"]).expect(0);
    let said = respaldo.run(&["restore", "db", "--database", &target.name, "--yes"]).expect(0);
    assert_eq!(contents(&target), contents(&source));
    assert!(said.stderr.contains("with 0 tables, 7 MB and 0 clients"), "{}", said.stderr);
    for name in databases_like(server, &format!("{}__", target.name)) {
        drop(server.existing(&name));
    }
}

#[test]
fn a_restore_without_its_roles_leaves_the_target_and_nothing_else() {
    let server = Postgres::start();
    let source = server.database("owned");
    let role = format!("clerk_{}", source.name);
    source.psql(&format!(
        "CREATE ROLE {role}; CREATE TABLE a AS SELECT n FROM generate_series(1, 100) n; \
         CREATE TABLE b (x int); ALTER TABLE b OWNER TO {role}"
    ));
    let respaldo = local(&source);
    respaldo.run(&["backup", "db"]).expect(0);
    source.psql(&format!("DROP TABLE b; DROP ROLE {role}; DELETE FROM a WHERE n > 50"));
    let before = contents(&source);

    for target in [source.name.clone(), format!("{}_new", source.name)] {
        let failed = respaldo.run(&["restore", "db", "--database", &target, "--yes"]).expect(2);
        assert!(failed.stderr.contains(&format!("these roles are missing: {role}")));
        assert!(failed.stderr.contains("--no-owner"), "{}", failed.stderr);
    }
    assert_eq!(contents(&source), before);
    assert_eq!(databases_like(server, &source.name), vec![source.name.clone()]);

    let other = server.existing(&format!("{}_new", source.name));
    let arguments = ["restore", "db", "--database", &other.name, "--yes", "--no-owner"];
    respaldo.run(&arguments).expect(0);
    assert_eq!(other.psql("SELECT count(*) FROM a"), "100");
    assert_eq!(other.psql("SELECT count(*) FROM b"), "0");
}

#[test]
fn the_environment_has_no_say_where_a_config_is() {
    let server = Postgres::start();
    let source = server.database("calm");
    source.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n");
    let respaldo = local(&source)
        .env("PGHOST", "nowhere.invalid")
        .env("PGPORT", "1")
        .env("PGUSER", "nobody")
        .env("PGPASSWORD", "wrong")
        .env("PGDATABASE", "nothing")
        .env("PGOPTIONS", "-c statement_timeout=1 -c search_path=nowhere")
        .env("PGSSLMODE", "verify-full")
        .env("PGSERVICE", "nowhere")
        .env("PGTZ", "Nowhere/Nothing")
        .env("PGCLIENTENCODING", "LATIN1")
        .env("DATABASE_URL", "postgres://nowhere.invalid/x");
    respaldo.run(&["backup", "db"]).expect(0);
    respaldo.run(&["verify", "db"]).expect(0);
    let other = server.existing(&format!("{}_other", source.name));
    respaldo.run(&["restore", "db", "--database", &other.name, "--yes"]).expect(0);
    assert_eq!(contents(&other), contents(&source));
}

#[test]
fn databases_with_odd_names_come_back() {
    let server = Postgres::start();
    for odd in ["sp ace", "quo\"te'd", "a=b", "dbname=postgres host=nowhere", "Ünï%41?x=1#", "-d"]
    {
        let source = server.database(odd);
        source.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n");
        let respaldo = local(&source);
        respaldo.run(&["backup", "db"]).expect(0);
        respaldo.run(&["verify", "db"]).expect(0);
        source.psql("DELETE FROM t WHERE n > 1");
        respaldo.run(&["restore", "db", "--yes"]).expect(0);
        assert_eq!(source.psql("SELECT count(*) FROM t"), "100", "{odd}");
        for kept in databases_like(server, &format!("{}__before", source.name)) {
            assert_eq!(server.existing(&kept).psql("SELECT count(*) FROM t"), "1", "{odd}");
        }
        let other = server.existing(&format!("{odd} to {}", source.name));
        let into = format!("--database={}", other.name);
        respaldo.run(&["restore", "db", &into, "--yes"]).expect(0);
        assert_eq!(contents(&other), contents(&source), "{odd}");
    }
}

#[test]
fn owners_and_grants_come_back() {
    let server = Postgres::start();
    let source = server.database("roles");
    let (owner, reader) = (format!("o'w\"{}", source.name), format!("Reader {}", source.name));
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    source.psql(&format!(
        "CREATE ROLE {0}; CREATE ROLE {1}; CREATE TABLE t (a int); ALTER TABLE t OWNER TO {0}; \
         GRANT SELECT (a) ON t TO {1}; ALTER DEFAULT PRIVILEGES FOR ROLE {0} GRANT ALL ON TABLES TO {1}",
        quoted(&owner),
        quoted(&reader)
    ));
    let respaldo = local(&source);
    respaldo.run(&["backup", "db"]).expect(0);
    let other = server.existing(&format!("{}_other", source.name));
    respaldo.run(&["restore", "db", "--database", &other.name, "--yes"]).expect(0);
    assert_eq!(contents(&other), contents(&source));
    assert_eq!(other.psql("SELECT tableowner FROM pg_tables WHERE tablename = 't'"), owner);
    let rest = format!("DROP OWNED BY {0}; DROP OWNED BY {1}", quoted(&owner), quoted(&reader));
    source.psql(&rest);
    other.psql(&rest);
    server.psql("postgres", &format!("DROP ROLE {}, {}", quoted(&owner), quoted(&reader)));
}

#[test]
fn a_user_without_rights_is_told_which_one_to_grant() {
    let server = Postgres::start();
    let source = server.database("guarded");
    let user = format!("weak_{}", source.name);
    source.psql(&format!(
        "CREATE ROLE {user} LOGIN PASSWORD 'pw'; CREATE TABLE \"se cret\" (a int); \
         INSERT INTO \"se cret\" VALUES (1)"
    ));
    let url = format!("postgres://{user}@127.0.0.1:{}/{}", server.port, encode(&source.name));
    let config = format!(
        "{HEAD}{LOCAL}[jobs.db]\nretries = 0\nsource = {{ postgres = {}, password = \"pw\" }}\n",
        text(&url)
    );
    let respaldo = Respaldo::new(&config);
    let failed = respaldo.run(&["backup", "db"]).expect(1);
    assert!(failed.stderr.contains("permission denied for table se cret"), "{}", failed.stderr);
    assert!(failed.stderr.contains("hint: ") && failed.stderr.contains("pg_read_all_data"));
    assert_eq!(respaldo.run(&["list", "--json"]).expect(0).json(), serde_json::json!([]));

    server.psql("postgres", &format!("GRANT pg_read_all_data TO {user}"));
    respaldo.run(&["backup", "db"]).expect(0);
    respaldo.run(&["verify", "db"]).expect(0);
    server.psql("postgres", &format!("DROP ROLE {user}"));
}
