//! A Django project: database, media and configuration, encrypted with OpenPGP, here, by SFTP and in S3;
//! restored by respaldo and by stock tools alone.

use std::fs;
use std::process::{Command, Stdio};

use super::{AWS, PASSWORD, assert_proven, health_after, mail, server_of, shell, shipped};
use crate::support::gpg::Gpg;
use crate::support::moto::Moto;
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::scene::listed;
use crate::support::smtp::{Protection, Smtp};
use crate::support::sshd::Sshd;
use crate::support::stored::Stored;
use crate::support::tool;
use crate::support::tree::assert_alike;

const TABLES: &str = "
    CREATE TABLE django_migrations (id int PRIMARY KEY, app text, name text);
    INSERT INTO django_migrations VALUES (1, 'auth', '0001_initial');
    CREATE TABLE auth_user (id int PRIMARY KEY, username text UNIQUE NOT NULL, password text);
    CREATE TABLE blog_post (id int PRIMARY KEY, author int REFERENCES auth_user, body text, data jsonb);
    INSERT INTO auth_user SELECT n, 'élève' || n, 'pbkdf2_sha256$' || md5(n::text) FROM generate_series(1, 300) n;
    INSERT INTO blog_post SELECT n, n % 300 + 1, repeat(md5(n::text), 9), jsonb_build_object('n', n)
        FROM generate_series(1, 2000) n;";

struct Project {
    respaldo: Respaldo,
    database: Database,
    key: Gpg,
    sshd: Sshd,
    s3: Moto,
    smtp: Smtp,
    server: Postgres,
}

impl Project {
    fn new() -> Self {
        let (server, database) = server_of("djangouser", "django_db");
        database.psql(TABLES);
        let (s3, sshd, key) = (Moto::start(), Sshd::start(), Gpg::of("admin@example.com"));
        let smtp = Smtp::start(Protection::StartTls, true);
        s3.make_bucket("my-backup-bucket");
        let at = format!("@127.0.0.1:{}", server.port);
        let by_ssh = format!("sftp://{}@127.0.0.1:{}/~/backups/", sshd.user, sshd.port);
        let mail = format!("smtp://{}@{}:{}", smtp.user, smtp.host, smtp.port);
        let host_key = sshd.host_key();
        let here = [
            ("@127.0.0.1:5432", at.as_str()),
            ("file:///backups", "file://@DIR@/backups"),
            ("sftp://backup-user@backup-server/backups/", &by_ssh),
            (
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEnaafLXVfGqFc/zCfSj0q6kOPTYZN7a+LcaYjCFpRSd",
                &host_key,
            ),
            ("/srv/project", "@DIR@/project"),
            ("/usr/bin/docker", "@DIR@/docker"),
            ("smtp://respaldo%40example.com@smtp.example.com:587", &mail),
        ];
        let (public, private) = (key.public_key(), key.private_key());
        let own = [
            ("db_password", PASSWORD),
            ("admin.asc", &public),
            ("admin_private.asc", &private),
            ("backup_key", &fs::read_to_string(sshd.login()).unwrap()),
            ("email_password", smtp.password),
        ];
        let respaldo = shipped("django", &here, &[&AWS[..], &own].concat())
            .env("AWS_ENDPOINT_URL", s3.endpoint())
            // The mail server of the test signs its certificate itself.
            .env("RESPALDO__ALERTS__MAIL__EMAIL__CA_FILE", smtp.ca_file().to_str().unwrap());
        for (file, content) in [
            ("media/avatars/élève.png", "a picture"),
            ("media/documents/rapport.pdf", "a document"),
            ("docker/.env", "SECRET_KEY=django-insecure"),
            ("docker/docker-compose.yml", "services: {}"),
            ("docker/nginx/nginx.conf", "server { listen 80; }"),
            ("ansible/group_vars/all/vault.yml", "$ANSIBLE_VAULT;1.1;AES256"),
        ] {
            respaldo.write(&format!("project/{file}"), content);
        }
        respaldo.write_program(
            "docker",
            &format!(
                "#!/bin/sh -e\n\
                 posts=$(/usr/bin/psql -XAtq -h {} -p {} -U postgres -d django_db -c 'SELECT count(*) FROM blog_post')\n\
                 echo \"$1 $4 $5 $posts\" >> {}\n",
                server.socket_folder().display(),
                server.port,
                respaldo.path("log").display()
            ),
        );
        Self { respaldo, database, key, sshd, s3, smtp, server }
    }
}

#[test]
fn django_has_three_copies_of_everything_that_gpg_opens() {
    let project = Project::new();
    let Project { respaldo, database, key, sshd, s3, smtp, server } = &project;
    let said = respaldo.run(&["config", "check"]).expect(0).all();
    assert!(said.contains("02:00") && said.contains("03:00"), "{said}");
    respaldo.run(&["backup", "--all"]).expect(0);
    let places = ["local", "s3", "server"].map(str::to_owned);
    let local = respaldo.path("backups");
    for (job, files) in [
        ("db", &["django_db.dump.zst.gpg"][..]),
        ("media", &["media.tar.zst.gpg"]),
        ("config", &["docker.tar.zst.gpg", "group_vars.tar.zst.gpg"]),
    ] {
        let stored = Stored::newest(&local, job);
        assert_eq!(listed(respaldo, job)[&stored.id()], places.clone().into());
        for file in files {
            let path = format!("{job}/{}/{file}", stored.id());
            let bytes = fs::read(local.join(&path)).unwrap();
            assert_eq!(fs::read(sshd.home().join("backups").join(&path)).unwrap(), bytes);
            assert!(s3.keys("my-backup-bucket").contains(&path), "{path}");
        }
    }
    let status = respaldo.run(&["status", "--json"]).expect(0).json();
    assert!(
        status["copies"].as_array().unwrap().iter().all(|of| of["met"] == true),
        "3-2-1: {status:#}"
    );
    assert_proven(respaldo, "db", 2);

    // The alert of the old check: older than 25 hours.
    assert_eq!(health_after(respaldo, "db", 25 * 60 - 5), "healthy");
    assert_eq!(health_after(respaldo, "db", 25 * 60 + 5), "late");
    server.psql("postgres", "ALTER DATABASE django_db RENAME TO elsewhere");
    respaldo.run(&["backup", "db"]).expect(1);
    assert_eq!(mail(smtp, "[respaldo] db failed on ").to, ["admin@example.com"]);
    server.psql("postgres", "ALTER DATABASE elsewhere RENAME TO django_db");

    // Without respaldo: gpg, zstd, pg_restore --list and pg_restore.
    let stored = Stored::newest(&local, "db");
    let dump = stored.path("django_db.dump.zst");
    fs::write(&dump, key.decrypt(&stored.path("django_db.dump.zst.gpg"))).unwrap();
    let contents =
        shell(&stored.folder, "zstd -dq django_db.dump.zst; pg_restore --list django_db.dump");
    assert!(contents.contains("TABLE DATA public blog_post"), "{contents}");
    server.psql("postgres", "CREATE DATABASE by_hand TEMPLATE template0");
    let by_hand = server.existing("by_hand");
    let archive = fs::File::open(stored.path("django_db.dump")).unwrap();
    tool(
        by_hand
            .client("pg_restore")
            .args(["--exit-on-error", "-d", "by_hand"])
            .stdin(Stdio::from(archive)),
    );
    assert_eq!(by_hand.fingerprint(), database.fingerprint());
    let stored = Stored::newest(&local, "config");
    fs::write(stored.path("tar.zst"), key.decrypt(&stored.path("docker.tar.zst.gpg"))).unwrap();
    let env = tool(
        Command::new("tar").args(["--zstd", "-xOf"]).arg(stored.path("tar.zst")).arg("./.env"),
    );
    assert_eq!(env, "SECRET_KEY=django-insecure");
}

#[test]
fn django_is_restored_with_its_media_and_configuration() {
    let Project { respaldo, database, .. } = &Project::new();
    let key = respaldo.path("secrets/admin_private.asc").display().to_string();
    respaldo.run(&["backup", "--all"]).expect(0);
    let before = database.fingerprint();
    let restore = |job: &str, more: &[&str], code: i32| {
        let words = [&["restore", job, "--yes"], more].concat();
        respaldo.run(&words).expect(code)
    };

    // Without the key there is no way in, and the application goes on.
    database.psql("DELETE FROM blog_post WHERE id > 100");
    let refused = restore("db", &[], 2).stderr;
    assert!(refused.contains("--identity"), "{refused}");
    assert!(!respaldo.path("log").exists());
    restore("db", &["--identity", &key], 0);
    assert_eq!(database.fingerprint(), before);
    let log = fs::read_to_string(respaldo.path("log")).unwrap();
    assert_eq!(log, "compose stop django-app 100\ncompose start django-app 2000\n");

    // From the backup server and from S3, when the machine's own copies are gone; into a place of their own,
    // then where they were.
    fs::rename(respaldo.path("backups"), respaldo.path("lost")).unwrap();
    let new = respaldo.path("new");
    let to = ["--to", new.to_str().unwrap(), "--identity", &key, "--destination", "server"];
    restore("media", &to, 0);
    assert_alike(&respaldo.path("project/media"), &new);
    let was = shell(
        respaldo.folder(),
        "cd project; find media docker ansible -type f | sort | xargs -d '\\n' sha256sum",
    );
    fs::remove_file(respaldo.path("project/media/avatars/élève.png")).unwrap();
    respaldo.write("project/docker/.env", "SECRET_KEY=");
    fs::remove_dir_all(respaldo.path("project/ansible/group_vars/all")).unwrap();
    for job in ["media", "config"] {
        restore(job, &["--identity", &key, "--destination", "s3"], 0);
    }
    let is = shell(
        respaldo.folder(),
        "cd project; find media docker ansible -name '.respaldo-*' -prune -o -type f -print | sort | xargs -d '\\n' sha256sum",
    );
    assert_eq!(is, was);
}
