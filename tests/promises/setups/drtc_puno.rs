//! DRTC Puno's register of assets: database and uploaded files every night, a mail when it fails, and the three
//! disasters of its document: the database lost, its data corrupted, a new server.

use std::fs;
use std::path::Path;

use super::{AWS, PASSWORD, assert_proven, health_after, mail, server_of, shell, shipped};
use crate::support::moto::Moto;
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::scene::listed;
use crate::support::smtp::{Protection, Smtp};
use crate::support::stored::Stored;
use crate::support::tree::assert_alike;

const TABLES: &str = "
    CREATE TABLE django_migrations (id int PRIMARY KEY, app text, name text);
    INSERT INTO django_migrations VALUES (1, 'bienes', '0001_initial');
    CREATE TABLE oficinas_oficina (id int PRIMARY KEY, nombre text NOT NULL);
    CREATE TABLE bienes_bien (id int PRIMARY KEY, codigo_patrimonial text UNIQUE, oficina int REFERENCES oficinas_oficina, foto text);
    INSERT INTO oficinas_oficina SELECT n, 'Oficina N.º ' || n FROM generate_series(1, 30) n;
    INSERT INTO bienes_bien SELECT n, lpad(n::text, 12, '0'), n % 30 + 1, 'bienes/' || n || '.jpg'
        FROM generate_series(1, 2000) n;";

/// The database's container, and what stands for the others.
struct Puno {
    database: Database,
    server: Postgres,
    s3: Moto,
    smtp: Smtp,
}

impl Puno {
    fn new() -> Self {
        let (server, database) = server_of("patrimonio", "patrimonio");
        database.psql(TABLES);
        let (s3, smtp) = (Moto::start(), Smtp::start(Protection::StartTls, true));
        s3.make_bucket("mi-bucket");
        Self { database, server, s3, smtp }
    }

    /// The config as it is shipped, beside this server or another.
    fn beside(&self, server: &Postgres) -> Respaldo {
        let smtp = &self.smtp;
        let database = format!("@127.0.0.1:{}", server.port);
        let mail = format!("smtp://{}@{}:{}", smtp.user, smtp.host, smtp.port);
        let here = [
            ("@db:5432", database.as_str()),
            ("file:///backups", "file://@DIR@/backups"),
            ("\"/media\"", "\"@DIR@/media\""),
            ("smtp://patrimonio%40drtcpuno.example.com@smtp.example.com:587", &mail),
        ];
        let own = [("db_password", PASSWORD), ("email_password", smtp.password)];
        shipped("drtc-puno", &here, &[&AWS[..], &own].concat())
            .env("AWS_ENDPOINT_URL", self.s3.endpoint())
            // The mail server of the test signs its certificate itself.
            .env("RESPALDO__ALERTS__MAIL__EMAIL__CA_FILE", smtp.ca_file().to_str().unwrap())
    }

    /// With the uploaded files.
    fn machine(&self) -> Respaldo {
        let respaldo = self.beside(&self.server);
        for n in 1..=20 {
            respaldo.write(&format!("media/bienes/{n}.jpg"), &format!("photo {n} ").repeat(500));
        }
        respaldo
    }
}

#[test]
fn drtc_puno_is_backed_up_every_night_and_a_mail_says_when_it_fails() {
    let puno = Puno::new();
    let respaldo = puno.machine();
    let said = respaldo.run(&["config", "check"]).expect(0).all();
    assert!(said.matches("03:00").count() >= 6, "three nights of two jobs: {said}");
    // What never succeeded runs at once.
    let daemon = respaldo.daemon();
    daemon.wait_for_logs("is committed", 2);
    let (status, body) = daemon.health();
    assert_eq!((status, &body["status"]), (200, &"unproven".into()), "{body}");
    respaldo.run(&["health"]).expect(0);
    for (job, file, test) in [
        ("db", "patrimonio.sql.gz", "zcat *.sql.gz | tail -n 5"),
        ("media", "media.tar.gz", "tar -tzf *.tar.gz"),
    ] {
        let stored = Stored::newest(&respaldo.path("backups"), job);
        assert!(stored.path(file).exists(), "{file} is not in {:?}", stored.folder);
        let said = shell(&stored.folder, &format!("gunzip -t {file}; {test}"));
        assert!(said.contains("dump complete") || said.contains("bienes/7.jpg"), "{said}");
        assert_eq!(listed(&respaldo, job)[&stored.id()], ["local", "s3"].map(str::to_owned).into());
        assert!(
            puno.s3.keys("mi-bucket").contains(&format!("backups/{job}/{}/{file}", stored.id()))
        );
    }
    assert_proven(&respaldo, "db", 1);
    assert_proven(&respaldo, "media", 0);
    assert_eq!(daemon.health().1["status"], "healthy");
    assert_eq!(daemon.terminate(), 0);
    let said = respaldo.run(&["restore", "--list"]).expect(0).all();
    assert!(said.contains("db") && said.contains("media"), "{said}");

    // 25 hours, as the former health check counted.
    for job in ["db", "media"] {
        assert_eq!(health_after(&respaldo, job, 25 * 60 - 5), "healthy");
        assert_eq!(health_after(&respaldo, job, 25 * 60 + 5), "late");
    }

    let rename = "ALTER DATABASE patrimonio RENAME TO elsewhere";
    puno.server.psql("postgres", rename);
    respaldo.run(&["backup", "db"]).expect(1);
    let failed = mail(&puno.smtp, "[respaldo] db failed on ");
    assert_eq!(failed.to, ["patrimonio@drtcpuno.example.com"]);
    puno.server.psql("postgres", "ALTER DATABASE elsewhere RENAME TO patrimonio");
    respaldo.run(&["backup", "db"]).expect(0);
    mail(&puno.smtp, "[respaldo] db recovered on ");
}

#[test]
fn drtc_puno_scenario_1_the_database_is_lost() {
    let puno = Puno::new();
    let respaldo = puno.machine();
    respaldo.run(&["backup", "db"]).expect(0);
    let before = puno.database.fingerprint();
    // The volume is removed, and a new container makes an empty database.
    puno.server.stop();
    let (server, database) = server_of("patrimonio", "patrimonio");
    let config = fs::read_to_string(respaldo.path("respaldo.toml")).unwrap();
    let old = format!("@127.0.0.1:{}", puno.server.port);
    respaldo.write_config(&config.replace(&old, &format!("@127.0.0.1:{}", server.port)));
    respaldo.run(&["restore", "db", "--yes"]).expect(0);
    assert_eq!(database.fingerprint(), before);
    respaldo.run(&["backup", "db"]).expect(0);
}

#[test]
fn drtc_puno_scenario_2_corrupt_data_go_back_to_a_good_backup_and_are_kept() {
    let puno = Puno::new();
    let respaldo = puno.machine();
    let database = &puno.database;
    respaldo.run(&["backup", "db"]).expect(0);
    let good = Stored::newest(&respaldo.path("backups"), "db").id();
    let before = database.fingerprint();
    // The corruption gets into a backup before anybody sees it.
    database.psql("UPDATE bienes_bien SET codigo_patrimonial = NULL, oficina = 1");
    let corrupt = database.fingerprint();
    respaldo.run(&["backup", "db"]).expect(0);
    let list = respaldo.run(&["restore", "--list"]).expect(0).all();
    assert!(list.contains(&good), "{list}");
    // Asked first, and nobody answers.
    respaldo.run(&["restore", "db", &good]).expect(2);
    assert_eq!(database.fingerprint(), corrupt);
    respaldo.run(&["restore", "db", &good, "--yes"]).expect(0);
    assert_eq!(database.fingerprint(), before);
    // What was there is kept, and comes back.
    respaldo.run(&["undo", "db", "--yes"]).expect(0);
    assert_eq!(database.fingerprint(), corrupt);
    respaldo.run(&["undo", "db", "--yes"]).expect(0);
    assert_eq!(database.fingerprint(), before);
}

/// What the old scripts wrote, in their folders.
fn old_dumps(puno: &Puno, respaldo: &Respaldo) {
    let backups = respaldo.path("backups");
    fs::create_dir_all(backups.join("db")).unwrap();
    fs::create_dir_all(backups.join("media")).unwrap();
    let dump = puno.database.client("pg_dump").output().unwrap().stdout;
    fs::write(backups.join("db/patrimonio_20241112_030000.sql"), dump).unwrap();
    shell(&backups, "gzip db/*.sql; tar -czf media/media_20241112_030000.tar.gz -C ../media .");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    shell(Path::new("/"), &format!("cp -r {} {}", from.display(), to.display()));
}

#[test]
fn drtc_puno_scenario_3_a_new_server_from_copied_files() {
    let puno = Puno::new();
    let old = puno.machine();
    old_dumps(&puno, &old);
    old.run(&["backup", "--all"]).expect(0);
    let before = puno.database.fingerprint();
    let (server, database) = server_of("patrimonio", "patrimonio");
    let new = puno.beside(&server);
    fs::create_dir(new.path("media")).unwrap();
    copy(&old.path("backups"), &new.path("backups"));

    // The old scripts' files, by the old script's flags.
    let (db, media) = ("patrimonio_20241112_030000.sql.gz", "media_20241112_030000.tar.gz");
    // That tar holds no fraction of a second.
    let photos = |respaldo: &Respaldo| {
        shell(&respaldo.path("media"), "find bienes -type f | sort | xargs sha256sum")
    };
    new.run(&["restore", "--db", db, "--yes"]).expect(0);
    assert_eq!(database.fingerprint(), before);
    new.run(&["restore", "--media", media, "--yes"]).expect(0);
    assert_eq!((photos(&new).lines().count(), photos(&new)), (20, photos(&old)));

    // And respaldo's own backups: the former machine's key signed them, which is said; and its folder of media
    // was another one.
    database.psql("TRUNCATE bienes_bien");
    fs::remove_dir_all(new.path("media/bienes")).unwrap();
    let said = new.run(&["restore", "--all", "db", "media", "--yes"]).expect(1).stderr;
    assert!(said.contains("--trust"), "{said}");
    new.run(&["restore", "--all", "db", "media", "--yes", "--trust"]).expect(0);
    assert_eq!(database.fingerprint(), before);
    assert_alike(&new.path("media/bienes"), &old.path("media/bienes"));
}
