//! What `config show` gives away (nothing), and that it loads again.

use super::*;

/// A config that uses everything, with every secret planted as `hunter2...`.
const FULL: &str = r#"
timezone = "Europe/Madrid"
data_dir = "/data"
trusted_keys = ["k1", "k2"]
runs_per_server = 3
stall = "90s"
[server]
hosts = ["Backups.example.com"]
anonymous = "read"
secure_cookies = true
tokens = { ci = { role = "operator", token = "hunter2-hunter2-hunter2" } }
[destinations.local]
url = "file:///back%20ups/a$${b"
free = "5GiB"
[destinations.aws]
url = "s3://bucket/a/b"
endpoint = "https://minio.example.com:9000/"
access_key_id = "hunter2-id"
secret_access_key = "hunter2-key"
session_token = "${TOKEN}"
sse = "aws:kms"
kms_key = "alias/x"
path_style = false
checksum = false
bandwidth = "10MB/s"
append_only = true
[destinations.azure]
url = "az://cold/a/b/"
account = "keeper"
access_key = "aHVudGVyMi1henVyZQ=="
storage_class = "Cool"
[destinations.google]
url = "gs://bucket"
credentials = '{ "private_key": "hunter2", "client_email": "a@b.pe" }'
[destinations.remote]
url = "sftp://k%40x@[::1]:2222/~/b%20c/"
host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ"
password = "hunter2-sftp"
[jobs.db]
schedule = ["@daily", "0 5 * * 1,2"]
source = { postgres = "postgres://u%40x:hunter2%2Burl@[::1]:6000/my%20db?sslmode=verify-ca&sslkey=/k", format = "plain", bin_dir = "/bin" }
keep = { local = { days = 7 }, aws = {}, remote = {} }
max_age = "36h"
jitter = "5m"
compression = "gzip"
level = 9
deadline = "90m"
retries = 0
volume_size = "512MiB"
catch_up = false
drill = { server = "postgres://prover@scratch/postgres", server_password = "hunter2-prover", checks = ["SELECT true"] }
[jobs.my-db]
schedule = []
source = { postgres = "postgres:///x", password = "hunter2-inline" }
keep = { local = { last = 1, hourly = 2, daily = 3, weekly = 4, monthly = 5, yearly = 6 } }
[jobs.media]
source = { files = ["/a", "/b c"], exclude = ["$${x}"], unreadable = "warn" }
[alerts.mail]
email = { from = "R <a@b.pe>", to = ["c@d.pe"], smtp = "smtp://u:hunter2-smtp@h?tls=none", ca_file = "/ca" }
[alerts.chat]
slack = { webhook_file = "HOOK" }
jobs = ["d*", "media"]
severity = "warning"
success = true
repeat = "1h 30m"
per_hour = 7
digest = "0 8 * * mon"
[alerts.hook]
webhook = { url = "https://h.example.com/hunter2-url", method = "PUT", headers = { X-Key = "hunter2-header", Authorization = "Bearer ${TOKEN}", X-File_file = "HOOK" }, body = '{"key": "hunter2-key", "t": "{{title}}"}' }
[alerts.beat]
heartbeat = { url = "https://h.example.com/hunter2-ping" }
jobs = ["db"]
[alerts.kuma]
heartbeat = { start = "https://h.example.com/hunter2-s", success = "https://h.example.com/hunter2-k", fail_file = "HOOK" }
"#;

fn full() -> Bench {
    let bench = Bench::new("").set("TOKEN", "hunter2-token");
    let hook = bench.write("hook", "https://h.example.com/hunter2").display().to_string();
    bench.write("config.toml", &FULL.replace("HOOK", &hook));
    bench
}

#[test]
fn no_secret_is_ever_shown() {
    let settings = full().settings();
    let shown = show(&settings);
    assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVy"), "{shown}");
    assert!(!format!("{settings:?}").contains("hunter2"));
    for part in [
        "session_token = \"${TOKEN}\"",
        "webhook_file = ",
        "password = \"${RESPALDO_SECRET_JOBS_MY_DB_SOURCE_PASSWORD}\"",
        "postgres://u%40x@[::1]:6000/my%20db?",
        "smtp://u@h:25?tls=none",
        "sftp://k%40x@[::1]:2222/~/b%20c",
        "bandwidth = \"10MB/s\"",
        "append_only = true",
        "free = \"5GiB\"",
        "jobs = [\n    \"d*\",",
        "severity = \"warning\"",
        "repeat = \"1h 30m\"",
        "digest = [\"0 8 * * mon\"]",
        "X-File_file = ",
        "fail_file = ",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
}

#[test]
fn what_is_shown_loads_again_once_the_secrets_are_given() {
    let first = full();
    let shown = show(&first.settings());
    let again = Bench::new(&shown);
    assert!(again.refusal().contains("neither RESPALDO_SECRET_"));
    let again = again
        .set("TOKEN", "hunter2-token")
        .set("RESPALDO_SECRET_SERVER_TOKENS_CI_TOKEN", "hunter2-hunter2-hunter2")
        .set("RESPALDO_SECRET_DESTINATIONS_AWS_ACCESS_KEY_ID", "hunter2-id")
        .set("RESPALDO_SECRET_DESTINATIONS_AWS_SECRET_ACCESS_KEY", "hunter2-key")
        .set("RESPALDO_SECRET_DESTINATIONS_AZURE_ACCESS_KEY", "aHVudGVyMi1henVyZQ==")
        .set(
            "RESPALDO_SECRET_DESTINATIONS_GOOGLE_CREDENTIALS",
            r#"{ "private_key": "hunter2", "client_email": "a@b.pe" }"#,
        )
        .set("RESPALDO_SECRET_DESTINATIONS_REMOTE_PASSWORD", "hunter2-sftp")
        .set("RESPALDO_SECRET_JOBS_DB_SOURCE_PASSWORD", "hunter2+url")
        .set("RESPALDO_SECRET_JOBS_DB_DRILL_SERVER_PASSWORD", "hunter2-prover")
        .set("RESPALDO_SECRET_JOBS_MY_DB_SOURCE_PASSWORD", "hunter2-inline")
        .set("RESPALDO_SECRET_ALERTS_MAIL_EMAIL_PASSWORD", "hunter2-smtp")
        .set("RESPALDO_SECRET_ALERTS_HOOK_WEBHOOK_URL", "https://h.example.com/hunter2-url")
        .set(
            "RESPALDO_SECRET_ALERTS_HOOK_WEBHOOK_BODY",
            r#"{"key": "hunter2-key", "t": "{{title}}"}"#,
        )
        .set("RESPALDO_SECRET_ALERTS_HOOK_WEBHOOK_HEADERS_X_KEY", "hunter2-header")
        .set("RESPALDO_SECRET_ALERTS_HOOK_WEBHOOK_HEADERS_AUTHORIZATION", "Bearer hunter2-token")
        .set("RESPALDO_SECRET_ALERTS_BEAT_HEARTBEAT_URL", "https://h.example.com/hunter2-ping")
        .set("RESPALDO_SECRET_ALERTS_KUMA_HEARTBEAT_START", "https://h.example.com/hunter2-s")
        .set("RESPALDO_SECRET_ALERTS_KUMA_HEARTBEAT_SUCCESS", "https://h.example.com/hunter2-k");
    let settings = again.settings();
    // All but where secrets were given, which has become a variable.
    let plain = |mut settings: Settings| {
        settings.secrets.clear();
        format!("{settings:#?}")
    };
    assert_eq!(plain(settings.clone()), plain(first.settings()));
    let Source::Postgres(postgres) = &job(&settings, "db").sources[0] else { panic!() };
    assert_eq!(postgres.password.as_ref().unwrap().expose(), "hunter2+url");
    assert_eq!(job(&settings, "media").keep.len(), 5);
    let Source::Files { exclude, .. } = &job(&settings, "media").sources[0] else { panic!() };
    assert_eq!(exclude, &["${x}"]);
    let DestinationKind::Local { path } = &settings.destinations["local"].kind else { panic!() };
    assert_eq!(path, Path::new("/back ups/a${b"));
}

#[test]
fn environment_only_settings_become_a_file_that_reads_the_same_variables() {
    let variables: Variables = [
        ("DB_NAME", "shop"),
        ("DB_PASSWORD", "hunter2"),
        ("S3_BUCKET", "b"),
        ("AWS_ACCESS_KEY_ID", "hunter2-id"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2-key"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let settings = load_from(None, &variables, now()).unwrap().settings;
    let shown = show(&settings);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("password = \"${DB_PASSWORD}\""), "{shown}");
    let mut again = Bench::new(&shown);
    again.variables = variables;
    assert_eq!(format!("{:?}", again.settings()), format!("{settings:?}"));
}
