//! With no config file at all, the variables of people's own backup scripts are enough: those of seed
//! 000 (GRUPO_GAD) and of seed 001 (DRTC Puno), against a real server, a folder and S3.

use std::fs;

use crate::support::config::encode;
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::s3::S3;
use crate::support::stored::Stored;
use crate::support::tree::assert_alike;

/// A container with a data folder of its own, and a health port that is free.
fn container() -> Respaldo {
    let respaldo = Respaldo::without_config()
        .env("RESPALDO__DATA_DIR", "@DIR@/data")
        .env("RESPALDO__SERVER__LISTEN", "127.0.0.1:@PORT@");
    respaldo.write("media/fotos/1.jpg", "a photo");
    respaldo
}

fn database(name: &str) -> Database {
    let database = Postgres::start().database(name);
    database.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n");
    database
}

/// Seed 000's variables, as its document lists them.
fn seed_000(database: &Database, s3: &S3) -> Respaldo {
    container()
        .env("DB_HOST", "127.0.0.1")
        .env("DB_PORT", database.port().to_string())
        .env("DB_USER", "postgres")
        .env("DB_NAME", &*database.name)
        .env("DB_PASSWORD", database.password())
        .env("BACKUP_DIR", "@DIR@/backups")
        .env("RETENTION_DAYS", "7")
        .env("S3_BUCKET", s3.bucket)
        .env("S3_PREFIX", "grupogad/backups/")
        .env("S3_RETENTION_DAYS", "30")
        .env("AWS_ACCESS_KEY_ID", s3.access_key)
        .env("AWS_SECRET_ACCESS_KEY", s3.secret_key)
        .env("AWS_DEFAULT_REGION", s3.region)
        // Only because the store is not Amazon's.
        .env("AWS_ENDPOINT_URL", s3.endpoint())
        .env("TZ", "America/Lima")
        .env("MEDIA_DIR", "@DIR@/media")
}

#[test]
fn seed_000_runs_on_its_own_variables() {
    let (database, s3) = (database("grupogad"), S3::start());
    let respaldo = seed_000(&database, &s3);
    let shown = respaldo.run(&["config", "show"]).expect(0);
    let config: toml::Table = shown.stdout.parse().unwrap();
    assert_eq!(config["timezone"].as_str(), Some("America/Lima"));
    let lines = |job: &str| -> Vec<String> {
        let lines = config["jobs"][job]["schedule"].as_array().unwrap();
        lines.iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(lines("db"), ["0 1 * * *", "30 13 * * *"]);
    assert_eq!(lines("media"), ["0 3 * * sun"]);
    let s3_url = config["destinations"]["s3"]["url"].as_str();
    assert_eq!(s3_url, Some("s3://backups/grupogad/backups/"));
    for job in ["db", "media"] {
        let keep = &config["jobs"][job]["keep"];
        let days = (keep["local"]["days"].as_integer(), keep["s3"]["days"].as_integer());
        assert_eq!(days, (Some(7), Some(30)), "{job}");
    }
    for secret in [database.password(), s3.secret_key] {
        assert!(!shown.all().contains(secret), "a secret is shown");
    }

    let made = respaldo.run(&["backup", "--all", "--json"]).expect(0).json();
    assert_eq!(made.as_array().unwrap().len(), 2);
    for job in ["db", "media"] {
        let local = Stored::newest(&respaldo.path("backups"), job);
        let remote = Stored::newest(&s3.folder().join("grupogad/backups"), job);
        assert_eq!(local.manifest(), remote.manifest());
        respaldo.run(&["verify", job]).expect(0);
        let kept = fs::read_to_string(local.path("config.toml")).unwrap();
        assert!(!kept.contains(s3.secret_key) && !kept.contains(database.password()));
    }
    let other = Postgres::start().existing(&format!("{}_other", database.name));
    let arguments = ["restore", "db", "--destination", "s3", "--database", &other.name, "--yes"];
    respaldo.run(&arguments).expect(0);
    assert_eq!(other.fingerprint(), database.fingerprint());
    let folder = respaldo.path("new");
    respaldo.run(&["restore", "media", "--to", folder.to_str().unwrap(), "--yes"]).expect(0);
    assert_alike(&respaldo.path("media"), &folder);

    // The daemon finds all done, and waits for one in the morning in Lima.
    let daemon = respaldo.daemon();
    daemon.wait_for_log("next run");
    let (status, body) = daemon.health();
    assert_eq!((status, body["status"].as_str()), (200, Some("healthy")), "{body}");
    let db = body["jobs"].as_array().unwrap().iter().find(|job| job["job"] == "db").unwrap();
    let next: jiff::Timestamp = db["next_run"].as_str().unwrap().parse().unwrap();
    let next = next.to_zoned(jiff::tz::TimeZone::get("America/Lima").unwrap());
    assert!([(1, 0), (13, 30)].contains(&(next.hour(), next.minute())), "{next}");
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(Stored::ids(&respaldo.path("backups"), "db").len(), 1);
}

#[test]
fn seed_001_runs_on_its_own_variables() {
    let database = database("patrimonio");
    let respaldo = container()
        .env("POSTGRES_HOST", "127.0.0.1")
        .env("POSTGRES_PORT", database.port().to_string())
        .env("POSTGRES_DB", &*database.name)
        .env("POSTGRES_USER", "postgres")
        .env("POSTGRES_PASSWORD", database.password())
        .env("BACKUP_DIR", "@DIR@/backups")
        .env("BACKUP_RETENTION_DAYS", "14")
        .env("TARGET_HOUR", "3")
        .env("EMAIL_HOST_USER", "your-email@gmail.com")
        .env("EMAIL_HOST_PASSWORD", "mail-secret")
        .env("MEDIA_DIR", "@DIR@/media")
        // As compose passes on what is not set.
        .env("S3_BUCKET", "")
        .env("SLACK_WEBHOOK_URL", "");
    let shown = respaldo.run(&["config", "show"]).expect(0);
    assert!(!shown.all().contains("mail-secret"));
    let config: toml::Table = shown.stdout.parse().unwrap();
    let db = &config["jobs"]["db"];
    for job in ["db", "media"] {
        let schedule = config["jobs"][job]["schedule"].as_array().unwrap();
        assert_eq!(schedule[0].as_str(), Some("0 3 * * *"), "{job}");
    }
    assert_eq!(db["keep"]["local"]["days"].as_integer(), Some(14));
    assert_eq!(db["keep"].as_table().unwrap().len(), 1);
    let email = &config["alerts"]["email"]["email"];
    assert_eq!(email["to"].as_array().unwrap()[0].as_str(), Some("your-email@gmail.com"));

    // What never succeeded runs at once.
    let daemon = respaldo.daemon();
    daemon.wait_for_logs("is committed", 2);
    let (status, body) = daemon.health();
    assert_eq!((status, body["status"].as_str()), (200, Some("healthy")), "{body}");
    assert_eq!(daemon.terminate(), 0);
    for job in ["db", "media"] {
        assert_eq!(Stored::ids(&respaldo.path("backups"), job).len(), 1, "{job}");
        respaldo.run(&["verify", job]).expect(0);
    }
}

#[test]
fn every_variable_may_be_a_file() {
    let (database, s3) = (database("files"), S3::start());
    let mut respaldo = container().env("BACKUP_DIR", "@DIR@/backups").env("S3_PREFIX", "x");
    for (name, value) in [
        ("DB_HOST", "127.0.0.1"),
        ("DB_PORT", &database.port().to_string()),
        ("DB_USER", "postgres"),
        ("DB_NAME", &database.name),
        ("DB_PASSWORD", database.password()),
        ("S3_BUCKET", s3.bucket),
        ("AWS_ACCESS_KEY_ID", s3.access_key),
        ("AWS_SECRET_ACCESS_KEY", s3.secret_key),
        ("AWS_ENDPOINT_URL", &s3.endpoint()),
        ("SLACK_WEBHOOK_URL", "https://hooks.example.com/hidden"),
    ] {
        // As `docker secret create` and an editor leave them: with a line end.
        let path = respaldo.write(&format!("secrets/{name}"), &format!("{value}\n"));
        respaldo = respaldo.env(&format!("{name}_FILE"), path.to_str().unwrap());
    }
    let made = respaldo.run(&["backup", "db"]).expect(0);
    assert!(!made.all().contains(s3.secret_key), "{}", made.all());
    assert_eq!(Stored::ids(&s3.folder().join("x"), "db").len(), 1);
    assert!(!respaldo.run(&["config", "show"]).expect(0).all().contains("hidden"));

    let both = respaldo.env("DB_PASSWORD", "another");
    let said = both.run(&["backup", "db"]).expect(2).stderr;
    assert!(said.contains("both DB_PASSWORD and DB_PASSWORD_FILE are set"), "{said}");
}

#[test]
fn a_secrets_file_that_is_missing_or_empty_is_named() {
    let database = database("missing");
    let with = |path: &str| {
        container()
            .env("DB_NAME", &*database.name)
            .env("DB_PASSWORD_FILE", path)
            .env("BACKUP_DIR", "@DIR@/b")
    };
    let missing = with("@DIR@/nowhere");
    let said = missing.run(&["backup", "db"]).expect(2).stderr;
    assert!(said.contains("DB_PASSWORD_FILE") && said.contains("nowhere"), "{said}");
    let empty = with("@DIR@/empty");
    empty.write("empty", "\n");
    let said = empty.run(&["backup", "db"]).expect(2).stderr;
    assert!(said.contains("DB_PASSWORD_FILE") && said.contains("is empty"), "{said}");
    assert!(!empty.path("b").exists() && !empty.path("data").exists(), "something was touched");
}

#[test]
fn an_environment_that_says_nothing_is_told_what_to_say() {
    for command in [&["run"][..], &["backup", "--all"], &["status"], &["config", "show"]] {
        let said = Respaldo::without_config().run(command).expect(2);
        for part in ["no config file", "DB_NAME", "respaldo config init"] {
            assert!(said.stderr.contains(part), "{command:?}: {}", said.stderr);
        }
        assert_eq!(said.stdout, "");
    }
}

#[test]
fn a_database_url_is_enough() {
    let database = database("django");
    let password = encode(database.password());
    let url = format!(
        "postgis://postgres:{password}@127.0.0.1:{}/{}?conn_max_age=600",
        database.port(),
        database.name
    );
    let respaldo = container().env("DATABASE_URL", url).env("BACKUP_DIR", "@DIR@/backups");
    respaldo.run(&["backup", "db"]).expect(0);
    let other = Postgres::start().existing(&format!("{}_other", database.name));
    respaldo.run(&["restore", "db", "--database", &other.name, "--yes"]).expect(0);
    assert_eq!(other.fingerprint(), database.fingerprint());
    // The server of the URL serves a restore from elsewhere too.
    let elsewhere = Postgres::start().existing(&format!("{}_elsewhere", database.name));
    let from = format!("file://{}", respaldo.path("backups").display());
    let arguments = ["restore", "db", "--from", &from, "--database", &elsewhere.name, "--yes"];
    respaldo.run(&arguments).expect(0);
    assert_eq!(elsewhere.fingerprint(), database.fingerprint());
}
