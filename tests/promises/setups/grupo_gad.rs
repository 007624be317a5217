//! GRUPO_GAD: twice a day, here and in S3; a dump of the old script; and the six steps of its recovery.

use std::fs;

use super::{AWS, assert_proven, bare, shell, shipped};
use crate::support::config::text;
use crate::support::moto::Moto;
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::scene::listed;
use crate::support::stored::Stored;

const TABLES: &str = "
    CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
    INSERT INTO alembic_version VALUES ('20251006_base');
    CREATE TABLE usuarios (id int PRIMARY KEY, telegram_id bigint UNIQUE, nombre text NOT NULL);
    CREATE TABLE tareas (id int PRIMARY KEY, usuario int NOT NULL REFERENCES usuarios, titulo text);
    INSERT INTO usuarios SELECT n, n * 1000, 'Señora ' || n FROM generate_series(1, 200) n;
    INSERT INTO tareas SELECT n, n % 200 + 1, md5(n::text) FROM generate_series(1, 3000) n;";
const URL: &str = "s3://grupogad-backups/grupogad/backups/";

struct Gad {
    respaldo: Respaldo,
    database: Database,
    server: Postgres,
    s3: Moto,
}

impl Gad {
    fn new() -> Self {
        let (server, s3) = (Postgres::fresh(), Moto::start());
        s3.make_bucket("grupogad-backups");
        s3.make_bucket("grupogad-backups-west");
        server.psql("postgres", "CREATE DATABASE grupogad TEMPLATE template0");
        let database = server.existing("grupogad");
        database.psql(TABLES);
        Self { respaldo: machine(&server, &s3), database, server, s3 }
    }
}

/// The config as it is shipped, beside this server.
fn machine(server: &Postgres, s3: &Moto) -> Respaldo {
    let address = format!("@127.0.0.1:{}", server.port);
    let here = [("@postgres:5432", address.as_str()), ("file:///backups", "file://@DIR@/backups")];
    let secrets = [&AWS[..], &[("db_password", &server.password)]].concat();
    shipped("grupo-gad", &here, &secrets).env("AWS_ENDPOINT_URL", s3.endpoint())
}

#[test]
fn grupo_gad_is_kept_here_and_in_two_regions_and_tried_every_month() {
    let Gad { respaldo, database, s3, .. } = &Gad::new();
    let said = respaldo.run(&["config", "check"]).expect(0).all();
    assert!(said.contains("13:30") && said.contains("01:00"), "{said}");
    respaldo.run(&["backup", "db"]).expect(0);
    let stored = Stored::newest(&respaldo.path("backups"), "db");
    let places = ["local", "s3", "s3_west"].map(str::to_owned);
    assert_eq!(listed(respaldo, "db")[&stored.id()], places.into());
    shell(&stored.folder, "sha256sum --strict -c SHA256SUMS");
    for bucket in ["grupogad-backups", "grupogad-backups-west"] {
        let dump = format!("grupogad/backups/db/{}/grupogad.dump.zst", stored.id());
        assert!(s3.keys(bucket).contains(&dump), "{:?}", s3.keys(bucket));
        assert_eq!(s3.storage_class(bucket, &dump), "STANDARD_IA");
    }
    respaldo.run(&["verify", "db"]).expect(0);
    assert_proven(respaldo, "db", 1);
    let log = respaldo.path(&format!("data/logs/db/backup_{}.log", stored.id()));
    assert!(fs::read_to_string(log).unwrap().contains("grupogad"));

    // The check of the drill is one: a database without its migration is no database.
    database.psql("DELETE FROM alembic_version");
    respaldo.run(&["backup", "db"]).expect(0);
    let report = respaldo.run(&["drill", "db", "--json"]).expect(1).json();
    assert!(report["failures"].to_string().contains("alembic_version"), "{report:#}");
}

#[test]
fn grupo_gad_is_recovered_in_six_steps_from_s3_alone() {
    let gad = Gad::new();
    gad.respaldo.run(&["backup", "db"]).expect(0);
    let before = gad.database.fingerprint();
    // The machine is gone, with its database and its folder. One: a new server.
    gad.server.stop();
    drop(gad.respaldo);
    let server = Postgres::fresh();
    let new = bare(&server, "postgres", &gad.s3.endpoint());
    // Two: the newest backup.
    let there = new.run(&["list", "--from", URL, "--json"]).expect(0).json();
    assert_eq!(there.as_array().unwrap().len(), 1, "{there:#}");
    // Three: one command.
    new.run(&["restore", "db", "--from", URL, "--trust", "--yes"]).expect(0);
    // Four: it is what it was.
    let database = server.existing("grupogad");
    assert_eq!(database.fingerprint(), before);
    // Five and six: the next migration, and the services write again.
    database.psql(
        "UPDATE alembic_version SET version_num = '20251007_prioridad';
         ALTER TABLE tareas ADD prioridad int NOT NULL DEFAULT 0;
         INSERT INTO tareas VALUES (3001, 1, 'después', 1)",
    );

    // The config on the new machine goes on where the other one stopped, once it is told that this is its place now.
    let respaldo = machine(&server, &gad.s3);
    respaldo.run(&["backup", "db"]).expect(0);
    respaldo.run(&["prune", "db", "--adopt"]).expect(0);
    let places: Vec<usize> = listed(&respaldo, "db").values().map(|held| held.len()).collect();
    assert_eq!(places, [2, 3], "the former one is in S3, in both regions");
    assert_proven(&respaldo, "db", 1);
}

#[test]
fn grupo_gad_dumps_of_the_old_script_are_verified_and_restored() {
    let Gad { respaldo, database, .. } = &Gad::new();
    let name = "backups/postgres_grupogad_20251006T120000Z.sql.gz";
    let file = respaldo.path(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let dump = database.client("pg_dump").output().unwrap().stdout;
    fs::write(file.with_extension(""), dump).unwrap();
    shell(file.parent().unwrap(), "gzip *.sql; sha256sum *.sql.gz > $(ls *.sql.gz).sha256");
    let before = database.fingerprint();
    database.psql("TRUNCATE tareas");
    let truncated = database.fingerprint();

    let listed = respaldo.run(&["restore", "--list"]).expect(0);
    assert!(listed.all().contains(name.trim_start_matches("backups/")), "{}", listed.all());
    let verified = respaldo.run(&["restore", "--file", name, "--verify-only"]).expect(0);
    assert!(verified.stderr.contains("whole"), "{}", verified.stderr);
    assert_eq!(database.fingerprint(), truncated, "a check changed something");
    respaldo.run(&["restore", "--file", name, "--yes"]).expect(0);
    assert_eq!(database.fingerprint(), before);
    Stored::flip(&file);
    let damaged = respaldo.run(&["restore", "--file", name, "--verify-only"]).expect(1);
    assert!(damaged.stderr.contains("damaged"), "{}", text(&damaged.stderr));
}
