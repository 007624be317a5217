//! Environment-only mode: the variables of the seeds, and of the images people come from.

use super::*;

fn from(variables: &[(&str, &str)]) -> Result<Loaded> {
    // A name that cannot be there, so that a config on the machine does not matter.
    let map: Variables = variables.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    assert!(!Path::new(DEFAULT_FILE).exists(), "{DEFAULT_FILE} exists on this machine");
    load_from(None, &map, now())
}

fn settings(variables: &[(&str, &str)]) -> Settings {
    from(variables).unwrap_or_else(|fault| panic!("{}", fault.chain())).settings
}

fn refusal(variables: &[(&str, &str)]) -> String {
    said(from(variables).expect_err("it loaded"))
}

#[test]
fn seed_000_runs_on_its_own_variables() {
    let loaded = from(&[
        ("DB_HOST", "postgres"),
        ("DB_PORT", "5432"),
        ("DB_USER", "postgres"),
        ("DB_NAME", "grupogad"),
        ("DB_PASSWORD", "012345"),
        ("BACKUP_DIR", "/backups"),
        ("RETENTION_DAYS", "7"),
        ("S3_BUCKET", "gad-backups"),
        ("S3_PREFIX", "grupogad/backups/"),
        ("S3_RETENTION_DAYS", "30"),
        ("AWS_ACCESS_KEY_ID", "AKIA"),
        ("AWS_SECRET_ACCESS_KEY", "shh"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/T/B/X"),
        ("TZ", "America/Lima"),
        ("MEDIA_DIR", "/srv/media"),
    ])
    .unwrap();
    assert!(loaded.files.is_empty());
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let settings = loaded.settings;
    assert_eq!(settings.timezone.iana_name(), Some("America/Lima"));
    assert_eq!(settings.data_dir, Path::new("/var/lib/respaldo"));
    let db = job(&settings, "db");
    assert_eq!(db.schedule_lines, ["0 1 * * *", "30 13 * * *"]);
    assert_eq!((db.keep["local"].days, db.keep["s3"].days), (Some(7), Some(30)));
    let Source::Postgres(postgres) = &db.sources[0] else { panic!() };
    assert_eq!((postgres.host.as_str(), postgres.database.as_str()), ("postgres", "grupogad"));
    assert_eq!(postgres.password.as_ref().unwrap().expose(), "012345");
    let media = job(&settings, "media");
    assert_eq!(media.schedule_lines, ["0 3 * * sun"]);
    assert_eq!(media.keep.len(), 2);
    let DestinationKind::S3(s3) = &settings.destinations["s3"].kind else { panic!() };
    assert_eq!((s3.bucket.as_str(), s3.prefix.as_str()), ("gad-backups", "grupogad/backups"));
    assert_eq!(s3.secret_access_key.as_ref().unwrap().expose(), "shh");
    assert!(matches!(&settings.alerts[0].channel, Channel::Slack(_)));
}

#[test]
fn seed_001_runs_on_its_own_variables() {
    let loaded = from(&[
        ("POSTGRES_DB", "patrimonio"),
        ("POSTGRES_USER", "patrimonio"),
        ("POSTGRES_PASSWORD", "secreto"),
        ("POSTGRES_HOST", "db"),
        ("BACKUP_RETENTION_DAYS", "14"),
        ("TARGET_HOUR", "3"),
        ("EMAIL_HOST_USER", "drtc@gmail.com"),
        ("EMAIL_HOST_PASSWORD", "abcd efgh"),
        ("S3_BUCKET", ""),
    ])
    .unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let db = job(&loaded.settings, "db");
    assert_eq!(db.schedule_lines, ["0 3 * * *"]);
    assert_eq!(db.keep.len(), 1);
    assert_eq!(db.keep["local"].days, Some(14));
    let Channel::Email(email) = &loaded.settings.alerts[0].channel else { panic!() };
    assert_eq!((email.host.as_str(), email.port), ("smtp.gmail.com", 587));
    assert_eq!((email.tls, email.from.as_str()), (Tls::StartTls, "drtc@gmail.com"));
    assert_eq!(email.to, ["drtc@gmail.com"]);
}

#[test]
fn secrets_may_be_files_and_overrides_still_count() {
    let bench = Bench::new("");
    let secret = bench.write("secret", "hunter2\n").display().to_string();
    let settings = self::settings(&[
        ("DB_NAME", "shop"),
        ("DB_PASSWORD_FILE", &secret),
        (
            "SLACK_WEBHOOK_URL_FILE",
            &bench.write("hook", "https://h.example.com/x").display().to_string(),
        ),
        ("RESPALDO__DATA_DIR", "/data"),
        ("RESPALDO__SERVER__LISTEN", "127.0.0.1:9"),
        ("RESPALDO__JOBS__DB__KEEP__LOCAL__WEEKLY", "4"),
    ]);
    assert_eq!(settings.secrets["jobs.db.source.password"], Given::File(secret.into()));
    assert_eq!(settings.data_dir, Path::new("/data"));
    assert_eq!(settings.server.listen.port(), 9);
    assert_eq!(job(&settings, "db").keep["local"].weekly, Some(4));
    assert_eq!(job(&settings, "db").keep["local"].days, Some(7));
}

#[test]
fn the_names_of_other_images_are_understood() {
    let settings = self::settings(&[
        ("POSTGRES_DB", "shop"),
        ("SCHEDULE", "@daily"),
        ("BACKUP_KEEP_DAYS", "6"),
        ("BACKUP_KEEP_WEEKS", "4"),
        ("BACKUP_KEEP_MONTHS", "5"),
        ("BACKUP_ON_START", "FALSE"),
        ("AWS_S3_BUCKET_NAME", "b"),
    ]);
    let db = job(&settings, "db");
    assert_eq!((db.schedule_lines.as_slice(), db.catch_up), (&["@daily".to_owned()][..], false));
    let local = &db.keep["local"];
    assert_eq!((local.days, local.weekly, local.monthly), (Some(6), Some(4), Some(5)));
    assert_eq!((db.keep["s3"].days, db.keep["s3"].monthly), (Some(30), Some(5)));
    let several = self::settings(&[
        ("PGDATABASE", "shop"),
        ("BACKUP_CRON_EXPRESSION", "0 1 * * 1,4; 0 2 * * 0"),
        ("PGSSLMODE", "require"),
        ("PGHOST", "/run/pg"),
    ]);
    assert_eq!(job(&several, "db").schedule_lines, ["0 1 * * 1,4", "0 2 * * 0"]);
    let Source::Postgres(postgres) = &job(&several, "db").sources[0] else { panic!() };
    assert_eq!((postgres.host.as_str(), postgres.sslmode.as_deref()), ("/run/pg", Some("require")));
}

#[test]
fn a_database_url_is_enough() {
    let of = |url: &str| job(&settings(&[("DATABASE_URL", url)]), "db").sources[0].clone();
    for scheme in ["postgres", "postgresql+psycopg2", "postgis"] {
        let url = format!("{scheme}://app:p%40ss@db:5433/shop?sslmode=require&pool=5");
        let Source::Postgres(postgres) = of(&url) else { panic!() };
        assert_eq!((postgres.user.as_str(), postgres.port), ("app", 5433));
        assert_eq!(postgres.password.unwrap().expose(), "p@ss");
        assert_eq!(postgres.sslmode.as_deref(), Some("require"));
    }
    let Source::Sqlite { path, .. } = of("sqlite:////srv/app.db") else { panic!() };
    assert_eq!(path, Path::new("/srv/app.db"));
    for scheme in ["mysql", "mysql+pymysql", "mariadb", "mysql2"] {
        let Source::Mysql(mysql) = of(&format!("{scheme}://app:p%40ss@db/shop?charset=utf8mb4"))
        else {
            panic!()
        };
        assert_eq!((mysql.user.as_str(), mysql.port), ("app", 3306));
        assert_eq!(mysql.password.unwrap().expose(), "p@ss");
    }
    let said = refusal(&[("DATABASE_URL", "oracle://u:hunter2@db/x")]);
    assert!(said.contains("postgres:// or mysql://") && !said.contains("hunter2"), "{said}");
    let both = from(&[("DATABASE_URL", "mysql://u@db/x"), ("DB_NAME", "shop")]).unwrap();
    assert!(both.warnings[0].contains("DATABASE_URL is ignored, since DB_NAME is set"));
}

#[test]
fn what_is_missing_or_wrong_is_named_by_its_variable() {
    let nothing = refusal(&[("PATH", "/bin"), ("PGDATA", "/var/lib/postgresql/data")]);
    for part in ["no config file", "respaldo config init", "DB_NAME", "RETENTION_DAYS"] {
        assert!(nothing.contains(part), "{nothing}");
    }
    let cases: [(&[(&str, &str)], &str); 10] = [
        (&[("DB_PASSWORD", "hunter2")], "DB_PASSWORD is set, but no variable names the database"),
        (&[("DB_NAME", ",")], "DB_NAME names no database"),
        (&[("DB_NAME", "a"), ("DB_PORT", "x")], "DB_PORT can't be \"x\""),
        (&[("DB_NAME", "a"), ("TARGET_HOUR", "24")], "TARGET_HOUR can't be \"24\""),
        (&[("DB_NAME", "a"), ("SCHEDULE", "often")], "(from the variable SCHEDULE)"),
        (&[("DB_NAME", "a"), ("RETENTION_DAYS", "week")], "(from the variable RETENTION_DAYS)"),
        (&[("DB_NAME", "a"), ("BACKUP_ON_START", "si")], "BACKUP_ON_START can't be \"si\""),
        (&[("DB_NAME", "a"), ("BACKUP_DIR", "backups")], "BACKUP_DIR can't be \"backups\""),
        (
            &[("DB_NAME", "a"), ("PASSPHRASE", "hunter2"), ("AGE_PASSPHRASE", "hunter2")],
            "age_passphrase and openpgp_passphrase are given",
        ),
        (&[("DB_NAME", "a"), ("DB_PASSWORD_FILE", "/nope")], "DB_PASSWORD_FILE: the file /nope"),
    ];
    for (variables, part) in cases {
        let said = refusal(variables);
        assert!(said.contains(part) && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn mail_that_cannot_be_sent_is_a_warning() {
    let with = |more: &[(&str, &str)]| {
        let all = [&[("DB_NAME", "a")], more].concat();
        let loaded = from(&all).unwrap();
        let mail = loaded.settings.alerts.first().map(|route| match &route.channel {
            Channel::Email(email) => email.clone(),
            _ => panic!(),
        });
        (mail, loaded.warnings.join("\n"))
    };
    let user = ("EMAIL_HOST_USER", "me@own.example.com");
    let password = ("EMAIL_HOST_PASSWORD", "hunter2");
    let host = ("EMAIL_HOST", "mail");
    for (more, part) in [
        (vec![user, password], "set EMAIL_HOST"),
        (vec![user, host], "set EMAIL_HOST_PASSWORD or"),
        (vec![host], "set EMAIL_FROM"),
        (vec![host, ("EMAIL_FROM", "a@b.pe")], "set EMAIL_TO"),
        (
            vec![host, user, password, ("EMAIL_TO", "ops")],
            "\"ops\" is not a mail address; set EMAIL_TO",
        ),
        (vec![host, user, password, ("EMAIL_PORT", "smtp")], "EMAIL_PORT is \"smtp\""),
    ] {
        let (mail, warnings) = with(&more);
        assert!(mail.is_none());
        assert!(warnings.contains("no mail will be sent") && warnings.contains(part), "{warnings}");
        assert!(!warnings.contains("hunter2"));
    }
    let (mail, _) =
        with(&[host, user, password, ("EMAIL_PORT", "465"), ("EMAIL_TO", "a@b.pe, c@d.pe")]);
    let mail = mail.unwrap();
    assert_eq!((mail.tls, mail.port), (Tls::Implicit, 465));
    assert_eq!(mail.user.as_deref(), Some("me@own.example.com"));
    assert_eq!(mail.to, ["a@b.pe", "c@d.pe"]);
    let relay = [host, ("EMAIL_PORT", "1025"), ("EMAIL_FROM", "a@b.pe"), ("ALERT_EMAIL", "c@d.pe")];
    let mail = with(&relay).0.unwrap();
    assert_eq!((mail.tls, mail.port, mail.user), (Tls::None, 1025, None));
}

#[test]
fn a_config_of_overrides_alone_is_a_config() {
    let settings = self::settings(&[
        ("RESPALDO__DESTINATIONS__DISK__URL", "file:///disk"),
        ("RESPALDO__JOBS__SHOP__SOURCE__SQLITE", "/srv/shop.db"),
        ("RESPALDO__JOBS__SHOP__KEEP__DISK__LAST", "3"),
    ]);
    assert_eq!(settings.destinations.len(), 1);
    assert_eq!(job(&settings, "shop").keep["disk"].last, Some(3));
}

#[test]
fn what_pg_dump_was_told_is_taken_over_warned_of_or_refused() {
    let with = |options: &str| from(&[("DB_NAME", "a"), ("POSTGRES_EXTRA_OPTS", options)]);
    let taken = with(
        "-Z6 -F c --blobs -T log_* --exclude-table=\"x\".y -N old --exclude-table-data audit.*",
    )
    .unwrap();
    assert_eq!(taken.warnings.len(), 1, "{:?}", taken.warnings);
    let Source::Postgres(postgres) = &job(&taken.settings, "db").sources[0] else { panic!() };
    assert_eq!(postgres.selection.exclude_tables, ["*.log_*", "x.y", "old.*"]);
    assert_eq!(postgres.selection.exclude_rows, ["audit.*"]);
    let part = with("--schema=public -n auth").unwrap();
    assert!(part.warnings[0].contains("--schema=public is not obeyed"), "{:?}", part.warnings);
    for options in ["--schema-only", "-s", "--frobnicate", "-T", "-j 4 -Fd"] {
        let said = said(with(options).expect_err(options));
        assert!(said.contains("POSTGRES_EXTRA_OPTS: respaldo can't do what -"), "{said}");
    }
}

#[test]
fn what_asks_for_nothing_is_not_refused() {
    let quiet = from(&[
        ("BACKUP_SOURCES", "/backup"),
        ("BACKUP_CRON_EXPRESSION", "0 0 5 31 2 ?"),
        ("AWS_ENDPOINT_INSECURE", "false"),
        ("WEBDAV_URL_INSECURE", "false"),
        ("BACKUP_EXCLUDE_REGEXP", ""),
        ("DROPBOX_APP_KEY", ""),
        // As Kubernetes sets them beside a service called postgres.
        ("POSTGRES_PORT", "tcp://10.0.0.7:5432"),
        ("POSTGRES_PORT_5432_TCP_ADDR", "10.0.0.7"),
    ]);
    let quiet = quiet.unwrap();
    assert_eq!(job(&quiet.settings, "files").schedule_lines, Vec::<String>::new());
    assert_eq!(quiet.settings.jobs.len(), 1);
    assert_eq!(quiet.warnings.len(), 1, "{:?}", quiet.warnings);
    for name in ["WEBDAV_URL_FILE", "DROPBOX_APP_KEY", "GPG_PUBLIC_KEY_RING"] {
        let said = refusal(&[("BACKUP_SOURCES", "/backup"), (name, "x")]);
        assert!(said.contains(&format!("{name} is set")), "{said}");
    }
}

#[test]
fn what_was_encrypted_so_far_stays_so() {
    let key = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let readers = |name: &str, value: &str| {
        let settings = settings(&[("DB_NAME", "a"), (name, value)]);
        let encrypt = job(&settings, "db").encrypt.clone().unwrap();
        (encrypt.to.seal.encryption().reader(), show(&settings))
    };
    for name in ["GPG_PASSPHRASE", "PASSPHRASE"] {
        let (reader, shown) = readers(name, "hunter2");
        assert_eq!(reader, "with a passphrase (OpenPGP)");
        assert!(shown.contains(&format!("openpgp_passphrase = \"${{{name}}}\"")), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(readers("AGE_PASSPHRASE", "hunter2").0, "with a passphrase (age)");
    assert_eq!(readers("AGE_PUBLIC_KEYS", key).0, format!("to {key}"));
}
