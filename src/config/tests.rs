//! What a person meets: files that load, errors that say what to do, and secrets that stay hidden.

mod ambient;
mod destinations;
mod keeping;
mod programs;
mod refusals;
mod shown;
mod streams;

use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use tempfile::TempDir;

use super::*;
use crate::model::{Compression, JobName};

/// A folder with a config, and the environment beside it.
struct Bench {
    folder: TempDir,
    variables: Variables,
}

/// Loads without a complaint of its own.
const PLAIN: &str = r#"
[destinations.local]
url = "file:///backups"
[jobs.db]
schedule = "@daily"
source = { sqlite = "/srv/shop.sqlite3" }
keep = { local = { days = 7 } }
[alerts.chat]
slack = { webhook = "https://hooks.example.com/T1" }
"#;

const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

impl Bench {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bench = Self { folder, variables: Variables::new() };
        bench.write("config.toml", config);
        bench
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    fn load(&self) -> Result<Loaded> {
        load_from(Some(&self.folder.path().join("config.toml")), &self.variables, now())
    }

    fn settings(&self) -> Settings {
        self.load().unwrap_or_else(|fault| panic!("{}", fault.chain())).settings
    }

    /// The error and its next step, for a config that must not load.
    fn refusal(&self) -> String {
        said(self.load().expect_err("it loaded"))
    }
}

fn said(fault: Fault) -> String {
    assert_eq!(fault.kind(), crate::fault::FaultKind::Usage);
    let hint = fault.next_step().expect("no next step");
    assert!(!hint.is_empty());
    format!("{} / {hint}", fault.chain())
}

fn now() -> Timestamp {
    "2025-11-24T00:00:00Z".parse().unwrap()
}

fn job<'a>(settings: &'a Settings, name: &str) -> &'a Job {
    &settings.jobs[&name.parse::<JobName>().unwrap()]
}

fn with_postgres(source: &str) -> Bench {
    Bench::new(&format!(
        "[destinations.local]\nurl = 'file:///backups'\n[jobs.db]\nschedule = '@daily'\nsource = {source}\n"
    ))
}

fn postgres_of(bench: &Bench) -> Postgres {
    match job(&bench.settings(), "db").sources[0].clone() {
        Source::Postgres(postgres) => postgres,
        other => panic!("{other:?}"),
    }
}

fn password_of(bench: &Bench) -> String {
    postgres_of(bench).password.expect("no password").expose().to_owned()
}

#[test]
fn the_designs_own_config_loads() {
    let bench = Bench::new("");
    let secret = |name| bench.write(name, "s3cret\n").display().to_string();
    bench.write(
        "config.toml",
        &format!(
            r#"
timezone = "America/Lima"
data_dir = "/var/lib/respaldo"
workers  = 3
[server]
listen = "127.0.0.1:9090"
[destinations.local]
url = "file:///backups"
[destinations.offsite]
url = "s3://grupogad-backups/grupogad/backups/"
storage_class = "STANDARD_IA"
[jobs.db]
schedule = ["0 1 * * *", "30 13 * * *"]
source   = {{ postgres = "postgres://postgres@postgres:5432/grupogad", password_file = "{}" }}
keep     = {{ local = {{ days = 7 }}, offsite = {{ days = 30, weekly = 12, monthly = 12, yearly = 7 }} }}
max_age  = "13h"
catch_up = true
[jobs.media]
schedule = "0 3 * * sun"
source   = {{ files = "/media", exclude = ["cache/**"] }}
keep     = {{ local = {{ days = 30 }} }}
[alerts.ops]
email = {{ from = "respaldo@example.com", to = ["ops@example.com"], smtp = "smtps://user@smtp.example.com", password_file = "{}" }}
[alerts.chat]
slack = {{ webhook = "https://hooks.slack.com/services/T/B/X" }}
"#,
            secret("db"),
            secret("smtp")
        ),
    );
    let loaded = bench.load().unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert_eq!(loaded.files.len(), 1);
    let settings = loaded.settings;
    assert_eq!(settings.timezone.iana_name(), Some("America/Lima"));
    assert_eq!((settings.workers, settings.runs_per_server), (3, 1));
    let db = job(&settings, "db");
    assert_eq!(db.max_age, Some(SignedDuration::from_hours(13)));
    assert_eq!(db.keep["offsite"].yearly, Some(7));
    assert_eq!(db.schedule.next(now()).unwrap().to_string(), "2025-11-24T06:00:00Z");
    assert_eq!((db.retries, db.volume_bytes, db.compression), (2, 64 << 30, Compression::Zstd));
    let DestinationKind::S3(s3) = &settings.destinations["offsite"].kind else { panic!() };
    assert_eq!((s3.bucket.as_str(), s3.prefix.as_str()), ("grupogad-backups", "grupogad/backups"));
    assert!(s3.checksum && s3.access_key_id.is_none() && s3.region.is_none());
    let Channel::Email(email) = &settings.alerts[1].channel else { panic!() };
    assert_eq!((email.port, email.tls), (465, Tls::Implicit));
    assert_eq!(email.password.as_ref().unwrap().expose(), "s3cret");
}

#[test]
fn later_layers_win_and_the_environment_last() {
    let bench = Bench::new(&format!("workers = 3\nstall = '5s'\n{PLAIN}"))
        .set("RESPALDO__JOBS__DB__KEEP__LOCAL__DAYS", "9")
        .set("RESPALDO__JOBS__DB__CATCH_UP", "no")
        .set("RESPALDO__JOBS__DB__SCHEDULE", "0 1 * * 1,3; 30 13 * * *")
        .set("RESPALDO__SERVER__LISTEN", "127.0.0.1:1")
        .set("RESPALDO__JOBS__DB__RETRIES", "")
        .set("RESPALDO__JOBS__EXTRA-1__SOURCE__FILES", r#"["/a,b", "/c"]"#)
        .set("RESPALDO__JOBS__EXTRA-1__KEEP__LOCAL__LAST", "2");
    bench.write("config.d/20-b.toml", "workers = 5\nstall = '7s'");
    bench.write("config.d/10-a.toml", "workers = 4\n[jobs.db.keep.local]\nmonthly = 2");
    bench.write("config.d/30-c.toml.off", "this is no toml");
    bench.write("config.d/.#10-a.toml", "nor is this");
    let loaded = bench.load().unwrap();
    let names: Vec<_> = loaded.files.iter().map(|file| file.file_name().unwrap()).collect();
    assert_eq!(names, ["config.toml", "10-a.toml", "20-b.toml"]);
    let settings = loaded.settings;
    assert_eq!((settings.workers, settings.stall.as_secs()), (5, 7));
    assert_eq!(settings.server.listen.port(), 1);
    let db = job(&settings, "db");
    assert_eq!((db.keep["local"].days, db.keep["local"].monthly), (Some(9), Some(2)));
    assert_eq!(db.schedule_lines, ["0 1 * * 1,3", "30 13 * * *"]);
    assert_eq!((db.catch_up, db.retries), (false, 2));
    let Source::Files { paths, .. } = &job(&settings, "extra-1").sources[0] else { panic!() };
    assert_eq!(paths, &[PathBuf::from("/a,b"), PathBuf::from("/c")]);
}

#[test]
fn a_variable_with_one_underscore_too_few_is_mentioned() {
    let bench = Bench::new(PLAIN).set("RESPALDO_WORKERS", "3").set("RESPALDO_SERVER_LISTEN", "x");
    let bench = bench.set("RESPALDO_DEMO_DIR", "/tmp").set("RESPALDO_CONFIG", "/nowhere");
    let warnings = bench.load().unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("RESPALDO_SERVER_LISTEN"));
}

#[test]
fn passwords_are_kept_to_the_letter() {
    let url = "postgres = 'postgres://u@db/x'";
    let by_file = with_postgres(&format!("{{ {url}, password = '012345' }}"));
    assert_eq!(password_of(&by_file), "012345");
    for odd in ["012345", "true", "1e5", "a,b;c", " x ", "p${A}$${", "[1]"] {
        let bench =
            with_postgres(&format!("{{ {url} }}")).set("RESPALDO__JOBS__DB__SOURCE__PASSWORD", odd);
        assert_eq!(password_of(&bench), odd);
        let bench = with_postgres(&format!("{{ {url}, password = '${{PW}}' }}")).set("PW", odd);
        assert_eq!(password_of(&bench), odd);
    }
    let in_url = with_postgres("{ postgres = 'postgres://u:p%40%2F@db/x' }");
    assert_eq!(password_of(&in_url), "p@/");
    let filled = with_postgres("{ postgres = 'postgres://u:${PW}@db/x' }").set("PW", "q");
    assert_eq!(password_of(&filled), "q");
}

#[test]
fn a_secret_comes_from_files_in_every_spelling() {
    let url = "postgres = 'postgres://u@db/x'";
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "line 1\n\r\n").unwrap();
    let path = secret.path().display();
    let given = with_postgres(&format!("{{ {url}, password_file = '{path}' }}"));
    assert_eq!(password_of(&given), "line 1");
    for reference in ["PW", "PW_FILE"] {
        let bench = with_postgres(&format!("{{ {url}, password = '${{{reference}}}' }}"))
            .set("PW_FILE", path.to_string());
        assert_eq!(password_of(&bench), "line 1", "{reference}");
    }
    let by_override = with_postgres(&format!("{{ {url} }}"))
        .set("RESPALDO__JOBS__DB__SOURCE__PASSWORD_FILE", path.to_string());
    assert_eq!(password_of(&by_override), "line 1");
}

#[test]
fn a_postgres_url_is_read_in_all_its_forms() {
    let of = |url: &str| postgres_of(&with_postgres(&format!("{{ postgres = '{url}' }}")));
    let socket = of("postgres:///shop");
    assert_eq!((socket.host.as_str(), socket.port), ("/var/run/postgresql", 5432));
    assert_eq!((socket.user.as_str(), socket.password.is_none()), ("postgres", true));
    assert_eq!(of("postgresql://u@/shop?host=/run/pg").host, "/run/pg");
    let tls = of("postgres://u@db:6000/shop?sslmode=verify-full&sslrootcert=/ca.pem");
    assert_eq!(tls.sslmode.as_deref(), Some("verify-full"));
    assert_eq!(tls.sslrootcert.as_deref(), Some(Path::new("/ca.pem")));
    assert_eq!(tls.port, 6000);
}

#[test]
fn nothing_of_postgres_leaks_in_beside_a_file_and_of_aws_the_credentials_do() {
    let bench = with_postgres("{ postgres = 'postgres://db/x' }")
        .set("PGPASSWORD", "leak")
        .set("PGUSER", "leak")
        .set("RETENTION_DAYS", "1");
    let postgres = postgres_of(&bench);
    assert_eq!((postgres.user.as_str(), postgres.password.is_none()), ("postgres", true));

    let s3 = |bench: Bench| {
        bench.write("config.d/s3.toml", "[destinations.s3]\nurl = 's3://b'");
        match bench.settings().destinations.remove("s3").map(|s3| s3.kind) {
            Some(DestinationKind::S3(s3)) => s3,
            other => panic!("{other:?}"),
        }
    };
    let bare = s3(Bench::new(PLAIN));
    assert!(bare.access_key_id.is_none() && bare.endpoint.is_none() && bare.prefix.is_empty());
    let bench = Bench::new(PLAIN);
    let file = bench.write("secret", "shh\n").display().to_string();
    let ambient = s3(bench
        .set("AWS_ACCESS_KEY_ID", "AKIA")
        .set("AWS_SECRET_ACCESS_KEY_FILE", file)
        .set("AWS_DEFAULT_REGION", "us-east-1")
        .set("AWS_ENDPOINT_URL", "http://minio:9000/"));
    assert_eq!(ambient.secret_access_key.unwrap().expose(), "shh");
    assert_eq!(ambient.region.as_deref(), Some("us-east-1"));
    assert_eq!(ambient.endpoint.as_deref(), Some("http://minio:9000"));
}

#[test]
fn warnings_say_what_is_probably_not_meant() {
    let bench = Bench::new(
        "[destinations.local]\nurl='file:///media/backups'\n[jobs.m]\nmax_age='1h'\n\
         source={files='/media'}\nschedule='@daily'\n[jobs.n]\nsource={sqlite='/x'}\nkeep={local={}}",
    );
    let warnings = bench.load().unwrap().warnings.join("\n");
    for part in [
        "jobs.m.keep is missing",
        "jobs.n.schedule is missing",
        "jobs.m.max_age is 1h, but the schedule waits 24h",
        "destinations.local lies in /media",
        "no [alerts.NAME]",
    ] {
        assert!(warnings.contains(part), "{part} is not in\n{warnings}");
    }
    assert!(!warnings.contains("jobs.n.keep"));
    assert!(Bench::new(PLAIN).load().unwrap().warnings.is_empty());
}

#[test]
fn shipped_configs_load() {
    let template = Bench::new(template()).set("DB_PASSWORD", "x");
    assert_eq!(job(&template.settings(), "db").schedule_lines.len(), 2);
    // Every example in the template's comments is right as well.
    let all = template_with_examples();
    let bench =
        Bench::new("").set("DB_PASSWORD", "x").set("OFFSITE_KEY_ID", "x").set("OFFSITE_TOKEN", "x");
    let secret = bench.write("secret", "https://hooks.example.com/x").display().to_string();
    let account = r#"{ "private_key": "x", "client_email": "a@b.pe" }"#;
    let special = [
        ("/run/secrets/azure_key", bench.write("azure", "a2V5").display().to_string()),
        ("/run/secrets/service_account.json", bench.write("gcs", account).display().to_string()),
        ("/run/secrets/respaldo_ci", bench.write("ci", &"t".repeat(32)).display().to_string()),
        ("ssh-ed25519 AAAA...", HOST_KEY.to_owned()),
    ];
    let all = special.iter().fold(all, |all, (example, real)| all.replace(example, real));
    bench.write("config.toml", &rewire(&all, &secret));
    let settings = bench.settings();
    assert_eq!(
        (settings.jobs.len(), settings.destinations.len(), settings.alerts.len()),
        (6, 5, 4)
    );

    for text in [
        include_str!("../../config/examples/grupo-gad.toml"),
        include_str!("../../config/examples/drtc-puno.toml"),
        include_str!("../../config/demo.toml"),
    ] {
        let bench = Bench::new("").set("RESPALDO_DEMO_DIR", "/tmp/demo");
        let secret = bench.write("secret", "s").display().to_string();
        bench.write("config.toml", &rewire(text, &secret));
        bench.settings();
    }
}

/// The template with what is switched off in it switched on.
fn template_with_examples() -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(config) if config.starts_with(|c: char| c == '[' || c.is_lowercase()) => {
            format!("{config}\n")
        }
        _ => format!("{line}\n"),
    };
    template().lines().map(on).collect()
}

/// The same config with every secret's file at `path`.
fn rewire(text: &str, path: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split("/run/secrets/").enumerate() {
        match index {
            0 => out.push_str(part),
            _ => {
                out.push_str(path);
                out.push_str(part.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'));
            }
        }
    }
    out
}

#[test]
fn the_schema_describes_every_key() {
    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        assert!(definition["properties"].is_object() || name != "FileJob");
    }
    assert_eq!(schema["$defs"]["FileSource"]["properties"]["password"]["writeOnly"], true);
    no_loose_ends(&schema);
}

/// A schema in which a `$ref` points nowhere would let everything through.
fn no_loose_ends(schema: &serde_json::Value) {
    let text = schema.to_string();
    for part in text.split("#/$defs/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schema["$defs"][name].is_object(), "{name}");
    }
}
