//! Who comes from another image brings its variables along: each does what docs/migrate.md says of it, or
//! is refused, or is said to do nothing. The page's own tables are what is tried.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use toml::Value;

use crate::support::azurite::Azurite;
use crate::support::hook::Hook;
use crate::support::postgres::Postgres;
use crate::support::program::{Output, Respaldo};
use crate::support::s3::S3;
use crate::support::smtp::{Protection, Smtp};
use crate::support::sshd::Sshd;
use crate::support::stored::Stored;
use crate::support::tool;

/// All that docker-volume-backup documents; those of one prefix that are refused together are one.
const OF_VOLUMES: &str = "BACKUP_CRON_EXPRESSION BACKUP_COMPRESSION GZIP_PARALLELISM BACKUP_FILENAME
    BACKUP_FILENAME_EXPAND BACKUP_LATEST_SYMLINK BACKUP_FROM_SNAPSHOT BACKUP_SOURCES BACKUP_EXCLUDE_REGEXP
    BACKUP_SKIP_BACKENDS_FROM_PRUNE AWS_S3_BUCKET_NAME AWS_S3_PATH AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    AWS_IAM_ROLE_ENDPOINT AWS_ENDPOINT AWS_ENDPOINT_PROTO AWS_ENDPOINT_INSECURE AWS_ENDPOINT_CA_CERT
    AWS_STORAGE_CLASS AWS_PART_SIZE WEBDAV_URL WEBDAV_PATH WEBDAV_USERNAME WEBDAV_PASSWORD WEBDAV_URL_INSECURE
    SSH_HOST_NAME SSH_PORT SSH_REMOTE_PATH SSH_USER SSH_PASSWORD SSH_IDENTITY_FILE SSH_IDENTITY_PASSPHRASE
    SSH_UPLOAD_RETRIES SSH_UPLOAD_RETRY_DELAY AZURE_STORAGE_ACCOUNT_NAME AZURE_STORAGE_PRIMARY_ACCOUNT_KEY
    AZURE_STORAGE_CONNECTION_STRING AZURE_STORAGE_CONTAINER_NAME AZURE_STORAGE_PATH AZURE_STORAGE_ENDPOINT
    AZURE_STORAGE_ACCESS_TIER DROPBOX_REFRESH_TOKEN GOOGLE_DRIVE_FOLDER_ID BACKUP_ARCHIVE BACKUP_RETENTION_DAYS
    BACKUP_PRUNING_LEEWAY BACKUP_PRUNING_PREFIX GPG_PASSPHRASE GPG_PUBLIC_KEY_RING AGE_PASSPHRASE
    AGE_PUBLIC_KEYS BACKUP_STOP_DURING_BACKUP_LABEL BACKUP_STOP_CONTAINER_LABEL BACKUP_STOP_SERVICE_TIMEOUT
    EXEC_LABEL EXEC_FORWARD_OUTPUT NOTIFICATION_URLS NOTIFICATION_LEVEL DOCKER_HOST LOCK_TIMEOUT
    EMAIL_NOTIFICATION_RECIPIENT EMAIL_NOTIFICATION_SENDER EMAIL_SMTP_HOST EMAIL_SMTP_PASSWORD
    EMAIL_SMTP_USERNAME EMAIL_SMTP_PORT";

/// All that postgres-backup-local documents.
const OF_DUMPS: &str = "BACKUP_DIR BACKUP_SUFFIX BACKUP_ON_START BACKUP_KEEP_DAYS BACKUP_KEEP_WEEKS
    BACKUP_KEEP_MONTHS BACKUP_KEEP_MINS BACKUP_LATEST_TYPE VALIDATE_ON_START HEALTHCHECK_PORT POSTGRES_DB
    POSTGRES_DB_FILE POSTGRES_EXTRA_OPTS POSTGRES_CLUSTER POSTGRES_HOST POSTGRES_PASSWORD
    POSTGRES_PASSWORD_FILE POSTGRES_PASSFILE_STORE POSTGRES_PORT POSTGRES_USER POSTGRES_USER_FILE SCHEDULE TZ
    WEBHOOK_URL WEBHOOK_ERROR_URL WEBHOOK_PRE_BACKUP_URL WEBHOOK_POST_BACKUP_URL WEBHOOK_EXTRA_ARGS
    POSTGRES_PORT_5432_TCP_ADDR POSTGRES_PORT_5432_TCP_PORT";

/// How keys of the config begin; other words in a row are values.
const KEYS: [&str; 5] = ["jobs.", "destinations.", "alerts.", "server.", "timezone"];

/// What stands between backticks.
fn spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Variable, example with what it needs beside it, and what becomes of it: the rows below a heading.
fn rows(heading: &str) -> Vec<[String; 3]> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrate.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, below) = page.split_once(&format!("## {heading}\n")).unwrap();
    let section = below.split("\n## ").next().unwrap();
    let cells = section.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(|c| c.trim().into()).collect();
        <[String; 3]>::try_from(cells).unwrap_or_else(|cells| panic!("{cells:?}"))
    });
    cells.collect()
}

/// A container of that image, with its volume and the secrets of the examples.
fn container(example: &str, name: &str, base: &[(&str, &str)]) -> Respaldo {
    let respaldo = Respaldo::without_config();
    let secrets = respaldo.path("secrets");
    fs::create_dir(&secrets).unwrap();
    for (file, content) in [
        ("user", "me\n"),
        ("password", "x"),
        ("databases", "shop\nforum\n"),
        ("pgpass", "*:*:*:*:x"),
    ] {
        respaldo.write(&format!("secrets/{file}"), content);
    }
    let key = |file: &str, phrase: &str| {
        let mut keygen = Command::new("ssh-keygen");
        tool(keygen.args(["-q", "-t", "ed25519", "-N", phrase, "-f"]).arg(secrets.join(file)));
    };
    if example.contains("ssh_key_locked") {
        key("ssh_key_locked", "phrase");
    } else if example.contains("ssh_key") {
        key("ssh_key", "");
    }
    if example.contains("backup.asc") {
        let home = respaldo.path("gnupg");
        fs::create_dir(&home).unwrap();
        let gpg = || {
            let mut gpg = Command::new("gpg");
            gpg.args(["--batch", "--quiet", "--homedir"]).arg(&home);
            gpg
        };
        let made =
            ["--passphrase", "", "--quick-generate-key", "a@example.com", "default", "default"];
        tool(gpg().args(made));
        tool(gpg().args(["--armor", "--export", "--output"]).arg(secrets.join("backup.asc")));
        let mut stop = Command::new("gpgconf");
        tool(stop.arg("--homedir").arg(&home).args(["--kill", "gpg-agent"]));
    }
    let spans = spans(example);
    let own = [(name, spans[0])];
    let beside = spans[1..].iter().map(|pair| pair.split_once('=').unwrap());
    let mut variables: Vec<(&str, &str)> = beside.chain(own).collect();
    for (name, value) in base {
        if !variables.iter().any(|(other, _)| other == name) {
            variables.push((name, value));
        }
    }
    variables.into_iter().fold(respaldo, |respaldo, (name, value)| {
        respaldo.env(name, value.replace("/run/secrets", "@DIR@/secrets"))
    })
}

/// Whether `shown` says all that `said` does; an empty table is one without anything in it.
fn says(shown: Option<&Value>, said: &Value) -> bool {
    match (shown, said) {
        (Some(Value::Table(shown)), Value::Table(said)) => {
            (!said.is_empty() || shown.is_empty())
                && said.iter().all(|(key, said)| says(shown.get(key), said))
        }
        (shown, said) => shown == Some(said),
    }
}

/// Whether the config holds what a span says: `key = value`, or the key of a secret alone.
fn holds(config: &Value, span: &str) -> bool {
    match span.parse::<toml::Table>() {
        Ok(said) => says(Some(config), &Value::Table(said)),
        Err(_) => span.split('.').try_fold(config, |inside, key| inside.get(key)).is_some(),
    }
}

/// The first thing that a row says and that is not so.
fn wrong(becomes: &str, output: &Output, secrets: &str) -> Option<String> {
    let neutral = |text: &str| text.replace(secrets, "/run/secrets");
    let said = neutral(&output.stderr);
    let unsaid = |wanted: &[&str]| {
        wanted
            .iter()
            .find(|words| !said.contains(**words))
            .map(|words| format!("not said: {words}"))
    };
    if let Some(refusal) = becomes.strip_prefix("**refused**: ") {
        let words = spans(refusal.split("; so ").next().unwrap());
        return if output.code == 2 {
            unsaid(&words)
        } else {
            Some(format!("code {}", output.code))
        };
    }
    let (keys, warning) = becomes.split_once("*warning*").unwrap_or((becomes, ""));
    let warned = spans(warning).into_iter().take(1).collect::<Vec<_>>();
    if output.code != 0
        || warned.is_empty() && ["effect", "ignored"].iter().any(|w| said.contains(w))
    {
        return Some(format!("code {}, or a warning that the page does not speak of", output.code));
    }
    let config = Value::Table(neutral(&output.stdout).parse().unwrap());
    let keys = spans(keys).into_iter().filter(|span| KEYS.iter().any(|key| span.starts_with(key)));
    let keys: Vec<&str> = keys.collect();
    if keys.is_empty() && warned.is_empty() {
        return Some("the row says nothing".into());
    }
    let other = keys.into_iter().find(|span| !holds(&config, span));
    other.map(|span| format!("not so: {span}")).or_else(|| unsaid(&warned))
}

fn try_all(heading: &str, base: &[(&str, &str)], documented: &str) {
    let rows = rows(heading);
    let named: BTreeSet<String> = rows
        .iter()
        .flat_map(|[name, _, becomes]| {
            // Those that are refused together are named in the row of the first.
            let others = becomes.split("; so ").skip(1).flat_map(spans);
            spans(name).into_iter().chain(others).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let missing: Vec<&str> =
        documented.split_whitespace().filter(|name| !named.contains(*name)).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    let mut problems = Vec::new();
    for [name, example, becomes] in &rows {
        let name = spans(name)[0];
        let respaldo = container(example, name, base);
        let output = respaldo.run(&["config", "show"]);
        let secrets = respaldo.path("secrets").display().to_string();
        if let Some(problem) = wrong(becomes, &output, &secrets) {
            problems.push(format!("{name}: {problem}\n{}\n{}", output.stderr, output.stdout));
        }
        assert!(!respaldo.path("data").exists(), "{name}: something was touched");
    }
    assert!(problems.is_empty(), "{}", problems.join("\n---\n"));
}

#[test]
fn each_variable_of_docker_volume_backup_does_what_the_page_says() {
    let base = [("BACKUP_SOURCES", "/backup")];
    try_all("From offen/docker-volume-backup", &base, OF_VOLUMES);
}

#[test]
fn each_variable_of_postgres_backup_local_does_what_the_page_says() {
    try_all("From prodrigestivill/postgres-backup-local", &[], OF_DUMPS);
}

#[test]
fn every_command_on_the_page_is_one() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrate.md");
    let page = fs::read_to_string(page).unwrap();
    let respaldo = Respaldo::new("");
    let mut tried = 0;
    for line in page.lines().filter(|line| !line.starts_with("```")) {
        for span in spans(line).into_iter().filter(|span| span.starts_with("respaldo ")) {
            let words = span.split(" && ").next().unwrap().replace(" ID", " 20251124T060000Z");
            let words: Vec<&str> = words.split_whitespace().skip(1).collect();
            tried += 1;
            // A command's name alone stands for the command.
            if let [name] = words[..] {
                respaldo.run(&[name, "--help"]).expect(0);
                continue;
            }
            // The words are right, and the config says nothing.
            let said = respaldo.run(&words).expect(2).stderr;
            assert!(said.contains("the config names no job"), "{span}: {said}");
        }
    }
    assert!(tried > 20, "{tried}");
}

#[test]
fn a_container_of_postgres_backup_local_goes_on() {
    let server = Postgres::start();
    let databases = ["shop", "forum"].map(|name| server.database(name));
    for database in &databases {
        database.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n");
    }
    let names = databases.each_ref().map(|database| database.name.clone());
    let respaldo = Respaldo::without_config()
        .env("RESPALDO__DATA_DIR", "@DIR@/data")
        .env("POSTGRES_HOST", "127.0.0.1")
        .env("POSTGRES_PORT", format!("tcp://127.0.0.1:{}", databases[0].port()))
        .env("POSTGRES_DB", names.join(" "))
        .env("POSTGRES_USER", "postgres")
        .env("POSTGRES_PASSWORD", databases[0].password())
        .env("POSTGRES_EXTRA_OPTS", "-Z6 --schema=public --blobs")
        .env("SCHEDULE", "@daily")
        .env("BACKUP_DIR", "@DIR@/backups")
        .env("BACKUP_KEEP_DAYS", "36500")
        .env("HEALTHCHECK_PORT", "@PORT@");
    // What the other image has left: the same file in several folders.
    let last = respaldo.path("backups/last");
    fs::create_dir_all(&last).unwrap();
    let old = format!("{}-20251124-020000.sql", names[1]);
    let dump = format!("--file={}", last.join(&old).display());
    tool(databases[1].client("pg_dump").arg(dump));
    tool(Command::new("gzip").arg(last.join(&old)));

    let daemon = respaldo.daemon();
    daemon.wait_for_log("is committed");
    // The port is not in a config file, and is known to the container's health check all the same.
    respaldo.run(&["health"]).expect(0);
    assert_eq!(daemon.terminate(), 0);
    let folder = last.display().to_string();
    let taken = respaldo.run(&["import", &folder, "--job", "db", "--json"]).expect(0).json();
    assert_eq!(taken[0]["id"], "20251124T020000Z", "{taken:#}");
    let stored = Stored::newest(&respaldo.path("backups"), "db");
    let sources = stored.manifest()["sources"].as_array().unwrap().clone();
    for name in &names {
        assert!(sources.iter().any(|source| source["name"] == **name), "{name}: {sources:#?}");
    }
    respaldo.run(&["verify", "db"]).expect(0);
    assert_eq!(Stored::ids(&respaldo.path("backups"), "db").len(), 2);
    let new = server.existing(&format!("{}_old", names[1]));
    let arguments = ["restore", "db", "20251124T020000Z", "--database", &new.name, "--yes"];
    respaldo.run(&arguments).expect(0);
    assert_eq!(new.fingerprint(), databases[1].fingerprint());
}

#[test]
fn a_container_of_docker_volume_backup_goes_on() {
    let s3 = S3::start();
    let endpoint = s3.endpoint();
    let (protocol, host) = endpoint.split_once("://").unwrap();
    let respaldo = Respaldo::without_config()
        .env("RESPALDO__DATA_DIR", "@DIR@/data")
        .env("BACKUP_SOURCES", "@DIR@/backup")
        .env("BACKUP_ARCHIVE", "@DIR@/archive")
        .env("BACKUP_CRON_EXPRESSION", "0 4 * * *")
        .env("BACKUP_FILENAME", "backup-%Y-%m-%dT%H-%M-%S.tar.gz")
        .env("BACKUP_COMPRESSION", "gz")
        .env("AWS_S3_BUCKET_NAME", s3.bucket)
        .env("AWS_S3_PATH", "volumes")
        .env("AWS_ENDPOINT", host)
        .env("AWS_ENDPOINT_PROTO", protocol)
        .env("AWS_ACCESS_KEY_ID", s3.access_key)
        .env("AWS_SECRET_ACCESS_KEY", s3.secret_key);
    respaldo.write("backup/app/photo.jpg", "a photo");
    let archive = respaldo.path("archive");
    fs::create_dir(&archive).unwrap();
    let mut tar = Command::new("tar");
    let old = archive.join("backup-2021-08-29T04-00-00.tar.gz");
    tool(tar.arg("-C").arg(respaldo.folder()).arg("-czf").arg(&old).arg("backup"));

    respaldo.run(&["backup", "files"]).expect(0);
    let folder = archive.display().to_string();
    let taken = respaldo.run(&["import", &folder, "--job", "files", "--json"]).expect(0).json();
    let id = taken.as_array().unwrap().iter().find_map(|line| line["id"].as_str()).unwrap();
    assert_eq!(id, "20210829T040000Z");
    // Nothing said how long: nothing goes, however old.
    respaldo.run(&["prune", "files"]).expect(0);
    for root in [&archive, &s3.folder().join("volumes")] {
        assert_eq!(Stored::ids(root, "files").len(), 2);
    }
    assert!(Stored::newest(&archive, "files").folder.join("backup.tar.gz").exists());
    for (id, photo) in [("latest", "new/app/photo.jpg"), (id, "old/backup/app/photo.jpg")] {
        let to = respaldo.path(photo.split('/').next().unwrap()).display().to_string();
        respaldo.run(&["restore", "files", id, "--to", &to, "--yes"]).expect(0);
        assert_eq!(fs::read_to_string(respaldo.path(photo)).unwrap(), "a photo");
    }
}

#[test]
fn the_other_remotes_of_docker_volume_backup_are_reached() {
    let (ssh, azurite) = (Sshd::start(), Azurite::start());
    azurite.make_container("volumes");
    let endpoint = azurite.endpoint().replace(azurite.account, "{{ .AccountName }}");
    let respaldo = Respaldo::without_config()
        .env("RESPALDO__DATA_DIR", "@DIR@/data")
        .env("BACKUP_SOURCES", "@DIR@/backup")
        .env("BACKUP_ARCHIVE", "@DIR@/archive")
        .env("SSH_HOST_NAME", "127.0.0.1")
        .env("SSH_PORT", ssh.port.to_string())
        .env("SSH_USER", ssh.user)
        .env("SSH_REMOTE_PATH", ssh.home().join("volumes").display().to_string())
        .env("SSH_IDENTITY_FILE", ssh.locked_login().display().to_string())
        .env("SSH_IDENTITY_PASSPHRASE", "the passphrase")
        .env("SFTP_HOST_KEY", ssh.host_key())
        .env("AZURE_STORAGE_ACCOUNT_NAME", azurite.account)
        .env("AZURE_STORAGE_PRIMARY_ACCOUNT_KEY", &*azurite.key)
        .env("AZURE_STORAGE_CONTAINER_NAME", "volumes")
        .env("AZURE_STORAGE_PATH", "app")
        .env("AZURE_STORAGE_ENDPOINT", endpoint)
        .env("GPG_PASSPHRASE", "a passphrase of old");
    respaldo.write("backup/app/photo.jpg", "a photo");
    respaldo.run(&["backup", "files"]).expect(0);
    let stored = Stored::newest(&ssh.home().join("volumes"), "files");
    assert!(stored.folder.join("backup.tar.zst.gpg").exists());
    for place in ["sftp", "azure"] {
        let verify = ["verify", "files", "--destination", place, "--passphrase-file"];
        let phrase = respaldo.write("phrase", "a passphrase of old").display().to_string();
        respaldo.run(&[&verify[..], &[&phrase]].concat()).expect(0);
    }
}

#[test]
fn what_shoutrrr_was_told_arrives() {
    let (mail, hook) = (Smtp::start(Protection::Plain, false), Hook::start());
    let place = hook.url().split_once("://").unwrap().1.to_owned();
    let urls = format!(
        "smtp://{}:{}/?fromAddress=a@example.com&toAddresses=b@example.com,c@example.com,\
         generic://{place}?disabletls=yes&template=json&messageKey=words,generic+{},pushover://x@y",
        mail.host,
        mail.port,
        hook.url()
    );
    let respaldo = Respaldo::without_config()
        .env("RESPALDO__DATA_DIR", "@DIR@/data")
        .env("BACKUP_SOURCES", "@DIR@/backup")
        .env("BACKUP_ARCHIVE", "@DIR@/archive")
        .env("NOTIFICATION_URLS", urls);
    let said = respaldo.run(&["config", "show"]).expect(0);
    assert!(
        said.stderr.contains("sent to address 4: respaldo knows no pushover://"),
        "{}",
        said.stderr
    );
    assert!(!said.all().contains(hook.token), "a secret is shown: {}", said.all());
    respaldo.run(&["alert", "test"]).expect(0);
    let [letter] = &mail.wait_for(1)[..] else { panic!() };
    assert_eq!(letter.to, ["b@example.com", "c@example.com"]);
    let posted: Vec<_> = hook.wait_for(2).iter().map(|taken| taken.json()).collect();
    assert!(posted.iter().any(|json| json["words"].is_string() && json["title"].is_string()));
    assert!(posted.iter().any(|json| json["severity"].is_string()), "{posted:#?}");
}

#[test]
fn a_restore_elsewhere_is_not_held_up_by_what_only_backups_are_asked_for() {
    let database = Postgres::start().database("elsewhere");
    database.psql("CREATE TABLE t AS SELECT 1 AS n");
    let server = |respaldo: Respaldo| {
        respaldo
            .env("RESPALDO__DATA_DIR", "@DIR@/data")
            .env("POSTGRES_HOST", "127.0.0.1")
            .env("POSTGRES_PORT", database.port().to_string())
            .env("POSTGRES_PASSWORD", database.password())
    };
    let first = server(Respaldo::without_config())
        .env("POSTGRES_DB", &*database.name)
        .env("BACKUP_DIR", "@DIR@/backups");
    first.run(&["backup", "db"]).expect(0);
    let second = server(Respaldo::without_config())
        .env("POSTGRES_DB", "shop,forum")
        .env("POSTGRES_EXTRA_OPTS", "--schema-only")
        .env("BACKUP_EXCLUDE_REGEXP", "x");
    let from = format!("file://{}", first.path("backups").display());
    let new = Postgres::start().existing(&format!("{}_new", database.name));
    let arguments = ["restore", "db", "--from", &from, "--trust", "--database", &new.name, "--yes"];
    second.run(&arguments).expect(0);
    assert_eq!(new.fingerprint(), database.fingerprint());
    // A backup is.
    let said = second.run(&["backup", "db"]).expect(2).stderr;
    assert!(said.contains("POSTGRES_EXTRA_OPTS") && said.contains("--schema-only"), "{said}");
}
