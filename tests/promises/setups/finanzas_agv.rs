//! Finanzas AGV: PostgreSQL and MySQL side by side, an application that is stopped and started around a
//! restore, and a backup before each migration.

use std::fs;

use super::{AWS, PASSWORD, assert_proven, shipped};
use crate::support::mariadb::{self, Mariadb};
use crate::support::moto::Moto;
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::scene::listed;
use crate::support::stored::Stored;

const PG: &str = "
    CREATE TABLE alembic_version (version_num text PRIMARY KEY);
    INSERT INTO alembic_version VALUES ('a1');
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE invoices (id int PRIMARY KEY, customer int NOT NULL REFERENCES customers, total numeric(12, 2));
    INSERT INTO customers SELECT n, 'Compañía ' || n FROM generate_series(1, 50) n;
    INSERT INTO invoices SELECT n, n % 50 + 1, n * 1.19 FROM generate_series(1, 1000) n;";
const MYSQL: &str = "
    CREATE TABLE invoices (id INT PRIMARY KEY, total DECIMAL(12, 2), note TEXT);
    INSERT INTO invoices SELECT seq, seq * 1.19, 'número' FROM seq_1_to_700;
    CREATE TABLE audit (what TEXT);
    CREATE DEFINER = finanzas_user@'127.0.0.1' TRIGGER noted AFTER DELETE ON invoices FOR EACH ROW INSERT INTO audit VALUES ('deleted');
    CREATE DEFINER = finanzas_user@'127.0.0.1' VIEW large AS SELECT * FROM invoices WHERE total > 500;";

struct Finanzas {
    respaldo: Respaldo,
    pg: Database,
    mysql: Mariadb,
    server: Postgres,
    _s3: Moto,
}

impl Finanzas {
    /// `rights`: of the user, beside those of the database's owner.
    fn new(rights: &str) -> Self {
        let (server, mysql, s3) = (Postgres::fresh(), Mariadb::fresh(), Moto::start());
        s3.make_bucket("finanzas-backups");
        server.psql(
            "postgres",
            &format!(
                "CREATE ROLE finanzas_user LOGIN PASSWORD '{PASSWORD}' {rights};
                 CREATE DATABASE finanzas_db OWNER finanzas_user TEMPLATE template0"
            ),
        );
        let pg = server.existing("finanzas_db");
        pg.psql(&format!("SET ROLE finanzas_user; {PG}"));
        // A restore makes a database beside it, whose name begins alike.
        mysql.sql(
            "",
            &format!(
                "CREATE DATABASE finanzas_db CHARACTER SET utf8mb4;
                 CREATE USER finanzas_user@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';
                 GRANT ALL ON `finanzas\\_db%`.* TO finanzas_user@'127.0.0.1'"
            ),
        );
        mysql.sql("finanzas_db", MYSQL);
        let (at_pg, at_mysql) =
            (format!("@127.0.0.1:{}", server.port), format!("@127.0.0.1:{}", mysql.port));
        let here = [
            ("@db-server:5432", at_pg.as_str()),
            ("@db-server:3306", &at_mysql),
            ("file:///var/backups/finanzas-agv", "file://@DIR@/backups"),
            ("/usr/bin/sudo", "@DIR@/sudo"),
        ];
        let own = [("pg_password", PASSWORD), ("mysql_password", PASSWORD)];
        let respaldo = shipped("finanzas-agv", &here, &[&AWS[..], &own].concat())
            .env("AWS_ENDPOINT_URL", s3.endpoint());
        let finanzas = Self { respaldo, pg, mysql, server, _s3: s3 };
        finanzas.write_sudo();
        finanzas
    }

    /// What is asked of systemd is written down, with the invoices that are in both databases then.
    fn write_sudo(&self) {
        let (socket, port) = (self.server.socket_folder(), self.server.port);
        self.respaldo.write_program(
            "sudo",
            &format!(
                "#!/bin/sh -e\n\
                 pg=$(/usr/bin/psql -XAtq -h {} -p {port} -U postgres -d finanzas_db -c 'SELECT count(*) FROM invoices')\n\
                 my=$(/usr/bin/mariadb --no-defaults -BN -S {} -uroot finanzas_db -e 'SELECT count(*) FROM invoices')\n\
                 shift\n\
                 echo \"$* $RESPALDO_JOB pg $pg mysql $my\" >> {}\n",
                socket.display(),
                self.mysql.socket().display(),
                self.respaldo.path("log").display()
            ),
        );
    }

    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.respaldo.path("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    fn mysql(&self) -> mariadb::Database<'_> {
        self.mysql.existing("finanzas_db")
    }
}

#[test]
fn finanzas_agv_backs_up_both_databases_and_restores_them_between_stop_and_start() {
    // As their runbook has it: who restores may make databases.
    let finanzas = Finanzas::new("CREATEDB");
    let (respaldo, pg, mysql) = (&finanzas.respaldo, &finanzas.pg, finanzas.mysql());
    respaldo.run(&["backup", "--all"]).expect(0);
    for job in ["pg", "mysql"] {
        let stored = Stored::newest(&respaldo.path("backups"), job);
        assert_eq!(listed(respaldo, job)[&stored.id()], ["local", "s3"].map(str::to_owned).into());
        respaldo.run(&["verify", job]).expect(0);
        assert_proven(respaldo, job, 1);
    }
    assert_eq!(finanzas.log(), [] as [&str; 0], "a drill stops nobody");
    let before = (pg.fingerprint(), mysql.contents());

    pg.psql("DELETE FROM invoices WHERE id > 10");
    respaldo.run(&["restore", "pg", "--yes"]).expect(0);
    assert_eq!(pg.fingerprint(), before.0);
    mysql.sql("DELETE FROM invoices WHERE id > 20; DROP VIEW large");
    // MySQL can't rename a database: what it holds is replaced. From S3, as if the machine's own folder were gone.
    fs::remove_dir_all(respaldo.path("backups")).unwrap();
    respaldo.run(&["restore", "mysql", "--in-place", "--yes"]).expect(0);
    assert_eq!(mysql.contents(), before.1);
    // Stopped once all was loaded, before anything changed; started when it was in place.
    assert_eq!(
        finanzas.log(),
        [
            "systemctl stop finanzas-agv pg pg 10 mysql 700",
            "systemctl start finanzas-agv pg pg 1000 mysql 700",
            "systemctl stop finanzas-agv mysql pg 1000 mysql 20",
            "systemctl start finanzas-agv mysql pg 1000 mysql 700",
        ]
    );
}

#[test]
fn finanzas_agv_takes_a_migration_back_with_the_rights_of_an_owner_alone() {
    let finanzas = Finanzas::new("");
    let (respaldo, pg) = (&finanzas.respaldo, &finanzas.pg);
    let before = pg.fingerprint();
    respaldo.run(&["backup", "pg", "--label", "pre-migration", "--pin"]).expect(0);
    let id = Stored::newest(&respaldo.path("backups"), "pg").id();
    pg.psql(
        "SET ROLE finanzas_user; UPDATE alembic_version SET version_num = 'b2';
         ALTER TABLE invoices DROP COLUMN total; CREATE TABLE taxes (id int PRIMARY KEY)",
    );
    let said =
        respaldo.run(&["restore", "pg", "--label", "pre-migration", "--yes"]).expect(2).stderr;
    assert!(said.contains("CREATEDB") && said.contains("--in-place"), "{said}");
    assert_eq!(finanzas.log(), [] as [&str; 0], "nobody is stopped for nothing");
    let words = ["restore", "pg", "--label", "pre-migration", "--in-place", "--yes"];
    respaldo.run(&words).expect(0);
    assert_eq!(pg.fingerprint(), before);
    let log = finanzas.log();
    let said: Vec<&str> = log.iter().map(|line| line.split(" pg ").next().unwrap()).collect();
    assert_eq!(said, ["systemctl stop finanzas-agv", "systemctl start finanzas-agv"], "{log:?}");
    let list = respaldo.run(&["list", "pg", "--json"]).expect(0).json();
    let pinned = list.as_array().unwrap().iter().find(|backup| backup["id"] == id.as_str());
    assert!(
        pinned.unwrap()["destinations"].as_array().unwrap().iter().all(|at| at["pinned"] == true)
    );
}
