//! The effective config as a file: for `config show`, and for the copy in each backup. Knows where
//! each secret was given; must never write one.

mod alert;
mod around;
mod source;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::address::{self, Address};
use super::file::{
    FileConfig, FileDestination, FileEncrypt, FileJob, FileRecipients, FileSource, FileSync,
};
use super::settings::{
    Destination, DestinationKind, Encrypt, Given, Job, Postgres, Recipients, Settings, Source,
    Written,
};
use super::{interpolate, units};
use crate::destination::{AzureOptions, GcsOptions, S3Options, SftpOptions, Sse};

const HEAD: &str = "\
# The effective config of respaldo. Secrets are not in it: each one names the file or the variable
# that it is read from (`${NAME}`, or the file that `NAME_FILE` names).

";

/// The settings as TOML that loads again once the secrets are given.
pub fn show(settings: &Settings) -> String {
    let mut table = match toml::Value::try_from(file(settings)) {
        Ok(table) => table,
        Err(error) => return format!("# the config can't be shown: {error}\n"),
    };
    escape(&mut table);
    for key in secret_keys(settings) {
        match settings.secrets.get(&key) {
            Some(Given::File(path)) => {
                let path = interpolate::escape(&path.display().to_string());
                put(&mut table, &format!("{key}_file"), path);
            }
            Some(Given::Variable(name)) => put(&mut table, &key, format!("${{{name}}}")),
            Some(Given::Inline) | None => put(&mut table, &key, format!("${{{}}}", variable(&key))),
        }
    }
    let text = toml::to_string_pretty(&table)
        .unwrap_or_else(|error| format!("# the config can't be shown: {error}\n"));
    format!("{HEAD}{text}")
}

/// The variable to give a secret in that was written into the config itself.
fn variable(key: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("RESPALDO_SECRET_{}", key.chars().map(plain).collect::<String>())
}

fn escape(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => *text = interpolate::escape(text),
        toml::Value::Array(items) => items.iter_mut().for_each(escape),
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| escape(value)),
        _ => {}
    }
}

/// Sets a dotted key. Names hold no dots, so the key can be split.
fn put(value: &mut toml::Value, key: &str, text: String) {
    let Some(table) = value.as_table_mut() else { return };
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), toml::Value::String(text));
        }
        Some((first, rest)) => {
            let empty = || toml::Value::Table(toml::Table::new());
            put(table.entry(first).or_insert_with(empty), rest, text);
        }
    }
}

/// The dotted key of every secret that is there.
fn secret_keys(settings: &Settings) -> Vec<String> {
    let tokens = settings.server.tokens.iter();
    let mut keys: Vec<String> =
        tokens.map(|token| format!("server.tokens.{}.token", token.name)).collect();
    for (name, destination) in &settings.destinations {
        let there = match &destination.kind {
            DestinationKind::Local { .. } => vec![],
            DestinationKind::S3(s3) => vec![
                ("access_key_id", &s3.access_key_id),
                ("secret_access_key", &s3.secret_access_key),
                ("session_token", &s3.session_token),
            ],
            DestinationKind::Azure(azure) => {
                vec![("access_key", &azure.access_key), ("sas_token", &azure.sas_token)]
            }
            DestinationKind::Gcs(gcs) => vec![("credentials", &gcs.credentials)],
            DestinationKind::Sftp(sftp) => vec![
                ("password", &sftp.password),
                ("private_key", &sftp.private_key),
                ("passphrase", &sftp.passphrase),
            ],
        };
        let there = there.iter().filter(|(_, secret)| secret.is_some());
        keys.extend(there.map(|(key, _)| format!("destinations.{name}.{key}")));
    }
    for (name, job) in &settings.jobs {
        for (n, source) in job.sources.iter().enumerate() {
            let key = match job.sources.len() {
                1 => format!("jobs.{name}.source"),
                _ => format!("jobs.{name}.sources[{n}]"),
            };
            let password = match source {
                Source::Postgres(postgres) => postgres.password.is_some(),
                Source::Physical(physical) => physical.server.password.is_some(),
                Source::Mysql(mysql) => mysql.password.is_some(),
                Source::Command(command) => {
                    keys.extend(command.env.keys().map(|name| format!("{key}.env.{name}")));
                    false
                }
                Source::Sqlite { .. } | Source::Files { .. } => false,
            };
            if password {
                keys.push(format!("{key}.password"));
            }
        }
        let server = job.drill.as_ref().and_then(|drill| drill.server.as_ref());
        if server.is_some_and(|server| server.password.is_some()) {
            keys.push(format!("jobs.{name}.drill.server_password"));
        }
        let passphrase = match job.encrypt.as_ref().map(|encrypt| &encrypt.to.written) {
            Some(Written::AgePassphrase) => "age_passphrase",
            Some(Written::OpenpgpPassphrase) => "openpgp_passphrase",
            _ => continue,
        };
        keys.push(format!("jobs.{name}.encrypt.{passphrase}"));
    }
    keys.extend(settings.alerts.iter().flat_map(alert::secret_keys));
    keys
}

fn file(settings: &Settings) -> FileConfig {
    let destinations = settings.destinations.iter();
    let jobs = settings.jobs.iter();
    let alerts = settings.alerts.iter();
    FileConfig {
        timezone: Some(zone_name(&settings.timezone)),
        data_dir: Some(settings.data_dir.clone()),
        workers: Some(settings.workers),
        runs_per_server: Some(settings.runs_per_server),
        stall: Some(wait(settings.stall)),
        trusted_keys: settings.trusted_keys.clone(),
        server: around::server(&settings.server),
        sync: FileSync { schedule: Some(settings.sync_lines.clone()) },
        destinations: destinations
            .map(|(name, one)| {
                let offsite = Some(settings.off_site.contains(name));
                (name.clone(), FileDestination { offsite, ..destination(one) })
            })
            .collect(),
        jobs: jobs.map(|(name, one)| (name.as_str().to_owned(), job(one))).collect(),
        alerts: alerts.map(|route| (route.name.clone(), alert::alert(route))).collect(),
    }
}

fn zone_name(zone: &TimeZone) -> String {
    zone.iana_name().unwrap_or("UTC").to_owned()
}

fn wait(length: Duration) -> String {
    units::show_duration(SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX))
}

fn destination(destination: &Destination) -> FileDestination {
    let written = match &destination.kind {
        DestinationKind::Local { path } => {
            FileDestination { url: folder(path), ..Default::default() }
        }
        DestinationKind::S3(s3) => bucket(s3),
        DestinationKind::Azure(azure) => container(azure),
        DestinationKind::Gcs(gcs) => google(gcs),
        DestinationKind::Sftp(sftp) => remote(sftp),
    };
    FileDestination {
        bandwidth: destination.bandwidth.map(|rate| format!("{}/s", units::show_size(rate))),
        append_only: destination.append_only.then_some(true),
        free: destination.free.map(units::show_floor),
        ..written
    }
}

fn folder(path: &Path) -> String {
    format!("file://{}", address::encode(&path.display().to_string(), "/"))
}

fn bucket(s3: &S3Options) -> FileDestination {
    let (sse, kms_key) = match &s3.sse {
        None => (None, None),
        Some(Sse::Aes256) => (Some("AES256".into()), None),
        Some(Sse::Kms(key)) => (Some("aws:kms".into()), key.clone()),
    };
    FileDestination {
        url: place("s3", &s3.bucket, &s3.prefix),
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        storage_class: s3.storage_class.clone(),
        sse,
        kms_key,
        path_style: s3.path_style,
        checksum: Some(s3.checksum),
        ..Default::default()
    }
}

fn place(scheme: &str, bucket: &str, prefix: &str) -> String {
    let slash = if prefix.is_empty() { "" } else { "/" };
    format!("{scheme}://{bucket}/{prefix}{slash}")
}

fn container(azure: &AzureOptions) -> FileDestination {
    FileDestination {
        url: place("az", &azure.container, &azure.prefix),
        account: Some(azure.account.clone()),
        endpoint: azure.endpoint.clone(),
        storage_class: azure.storage_class.clone(),
        ..Default::default()
    }
}

fn google(gcs: &GcsOptions) -> FileDestination {
    FileDestination {
        url: place("gs", &gcs.bucket, &gcs.prefix),
        endpoint: gcs.endpoint.clone(),
        storage_class: gcs.storage_class.clone(),
        ..Default::default()
    }
}

fn remote(sftp: &SftpOptions) -> FileDestination {
    let path = match sftp.path.strip_prefix('/') {
        Some(path) => path.to_owned(),
        None => format!("~/{}", sftp.path),
    };
    let url = Address {
        scheme: "sftp".into(),
        user: Some(sftp.user.clone()),
        password: None,
        host: sftp.host.clone(),
        port: Some(sftp.port),
        path,
        query: Vec::new(),
    };
    FileDestination {
        url: url.show(),
        host_key: Some(sftp.host_keys.clone()).filter(|keys| !keys.is_empty()),
        ..Default::default()
    }
}

fn job(job: &Job) -> FileJob {
    let mut sources: Vec<FileSource> = job.sources.iter().map(source).collect();
    let (source, sources) = match sources.len() {
        1 => (sources.pop(), None),
        _ => (None, Some(sources)),
    };
    FileJob {
        source,
        sources,
        schedule: Some(job.schedule_lines.clone()),
        incremental: job.incremental.as_ref().map(|chain| chain.schedule_lines.clone()),
        max_chain: job.incremental.as_ref().map(|chain| chain.most),
        keep: Some(job.keep.clone()),
        max_age: job.max_age.map(units::show_duration),
        anomaly: Some(job.anomaly.map_or("off".into(), |percent| format!("{percent}%"))),
        sync: Some(job.sync),
        catch_up: Some(job.catch_up),
        jitter: Some(job.jitter).filter(|jitter| !jitter.is_zero()).map(units::show_duration),
        compression: Some(job.compression),
        level: job.level,
        encrypt: job.encrypt.as_ref().map(encrypt),
        deadline: Some(wait(job.deadline)),
        on_change: job.on_change.map(|_| true),
        poll: job.on_change.map(wait),
        hooks: job.hooks.as_ref().map(around::hooks),
        drill: job.drill.as_ref().map(around::drill),
        verify: job.verify.as_ref().map(around::verify),
        wal: job.wal.as_ref().map(around::wal),
        keep_old: Some(units::show_duration(job.keep_old)),
        retries: Some(job.retries),
        volume_size: Some(units::show_size(job.volume_bytes)),
    }
}

fn encrypt(encrypt: &Encrypt) -> FileEncrypt {
    let FileRecipients { age, openpgp } = recipients(&encrypt.to);
    let schemas = encrypt.schemas.iter();
    let schemas = schemas.map(|(schema, to)| (schema.clone(), recipients(to))).collect();
    FileEncrypt { age, openpgp, schemas, ..Default::default() }
}

fn recipients(to: &Recipients) -> FileRecipients {
    match &to.written {
        Written::Age(keys) => FileRecipients { age: Some(keys.clone()), openpgp: None },
        Written::Openpgp(files) => {
            let files = files.iter().map(|file| file.display().to_string()).collect();
            FileRecipients { age: None, openpgp: Some(files) }
        }
        // A secret, and shown as one.
        Written::AgePassphrase | Written::OpenpgpPassphrase => FileRecipients::default(),
    }
}

fn source(source: &Source) -> FileSource {
    match source {
        Source::Postgres(postgres) => FileSource {
            postgres: Some(postgres_url(postgres)),
            format: Some(postgres.format),
            databases: shown(&postgres.databases),
            schemas: shown(&postgres.selection.schemas),
            exclude_tables: shown(&postgres.selection.exclude_tables),
            exclude_rows: shown(&postgres.selection.exclude_rows),
            streams: Some(postgres.streams),
            streams_above: postgres.selection.streams_above.map(units::show_size),
            fingerprint: Some(postgres.fingerprint),
            globals: Some(postgres.globals),
            bin_dir: postgres.bin_dir.clone(),
            ..Default::default()
        },
        Source::Physical(physical) => source::physical(physical),
        Source::Mysql(mysql) => source::mysql(mysql),
        Source::Command(command) => source::command(command),
        Source::Sqlite { path, fingerprint } => FileSource {
            sqlite: Some(path.clone()),
            fingerprint: Some(*fingerprint),
            ..Default::default()
        },
        Source::Files { paths, exclude, unreadable } => FileSource {
            files: Some(paths.iter().map(|path| path.display().to_string()).collect()),
            exclude: Some(exclude.clone()).filter(|exclude| !exclude.is_empty()),
            unreadable: Some(*unreadable),
            ..Default::default()
        },
    }
}

fn shown(patterns: &[String]) -> Option<Vec<String>> {
    Some(patterns.to_vec()).filter(|patterns| !patterns.is_empty())
}

fn postgres_url(postgres: &Postgres) -> String {
    let files = [
        ("sslrootcert", &postgres.sslrootcert),
        ("sslcert", &postgres.sslcert),
        ("sslkey", &postgres.sslkey),
    ];
    let mut query: BTreeMap<&str, String> = files
        .into_iter()
        .filter_map(|(name, file)| Some((name, file.as_ref()?.display().to_string())))
        .collect();
    if let Some(mode) = &postgres.sslmode {
        query.insert("sslmode", mode.clone());
    }
    Address {
        scheme: "postgres".into(),
        user: Some(postgres.user.clone()),
        password: None,
        host: postgres.host.clone(),
        port: Some(postgres.port),
        path: postgres.database.clone(),
        query: query.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
    .show()
}
