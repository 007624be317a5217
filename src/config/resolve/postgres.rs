//! PostgreSQL: a URL, and what of the server is meant. Knows libpq's words and patterns; must not
//! connect.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Desk;
use crate::config::file::FileSource;
use crate::config::settings::{PgFormat, Postgres};
use crate::config::{address, did_you_mean, units};
use crate::fault::{Fault, Result};
use crate::source::postgres::Selection;

/// Where Debian's libpq looks for a socket when no host is named.
const SOCKET_FOLDER: &str = "/var/run/postgresql";
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
/// From this size on a table is worth a stream of its own.
const LARGE: u64 = 256 << 20;

pub(super) fn resolve(
    desk: &mut Desk<'_>,
    key: &str,
    url: &str,
    written: FileSource,
) -> Result<Postgres> {
    let keys = (format!("{key}.postgres"), format!("{key}.password"));
    at(desk, key, keys, url, written)
}

/// A server alone, whose URL stands at `key` and its password beside it.
pub(super) fn server(
    desk: &mut Desk<'_>,
    key: &str,
    url: &str,
    password: Option<String>,
    password_file: Option<PathBuf>,
) -> Result<Postgres> {
    let written = FileSource { password, password_file, ..FileSource::default() };
    at(desk, key, (key.to_owned(), format!("{key}_password")), url, written)
}

fn at(
    desk: &mut Desk<'_>,
    key: &str,
    (url_key, password_key): (String, String),
    url: &str,
    written: FileSource,
) -> Result<Postgres> {
    let wrong = |desk: &Desk<'_>, why: String| -> Fault {
        desk.wrong_url(&url_key, url, why).hint(
            "for example postgres://user@host:5432/database, with the password in password_file",
        )
    };
    let selection = selection(desk, key, &written)?;
    let address = address::parse(url).map_err(|why| wrong(desk, why))?;
    if !["postgres", "postgresql"].contains(&address.scheme.as_str()) {
        return Err(wrong(desk, "it does not start with postgres://".into()));
    }
    let mut given: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &address.query {
        let known = ["sslmode", "sslrootcert", "sslcert", "sslkey", "host"];
        let Some(name) = known.iter().find(|known| *known == name) else {
            let meant = did_you_mean(name, known);
            return Err(wrong(desk, format!("after the ? {name} is not known{meant}")));
        };
        given.insert(name, value.clone());
    }
    if let Some(mode) = given.get("sslmode").filter(|mode| !SSL_MODES.contains(&mode.as_str())) {
        let meant = did_you_mean(mode, SSL_MODES);
        let modes = SSL_MODES.join(", ");
        return Err(desk
            .wrong_url(&url_key, url, format!("there is no sslmode {mode}{meant}"))
            .hint(format!("it is one of {modes}")));
    }
    if address.path.is_empty() || address.path.contains('/') {
        return Err(wrong(desk, "it names no database after the host".into()));
    }
    let host = given.remove("host").unwrap_or(address.host);
    let host = if host.is_empty() { SOCKET_FOLDER.to_owned() } else { host };
    if host.contains(',') {
        return Err(wrong(desk, "it names several hosts".into()));
    }
    let password = desk.secret_or_in_url(
        &password_key,
        &url_key,
        address.password,
        written.password,
        written.password_file,
    )?;
    let mut path = |name| given.remove(name).map(std::path::PathBuf::from);
    Ok(Postgres {
        host,
        port: address.port.unwrap_or(5432),
        user: address.user.unwrap_or("postgres".into()),
        database: address.path,
        password,
        sslrootcert: path("sslrootcert"),
        sslcert: path("sslcert"),
        sslkey: path("sslkey"),
        sslmode: given.remove("sslmode"),
        format: written.format.unwrap_or_default(),
        databases: patterns(desk, &format!("{key}.databases"), written.databases, "all")?,
        selection,
        streams: written.streams.unwrap_or(1),
        fingerprint: written.fingerprint.unwrap_or_default(),
        globals: written.globals.unwrap_or(true),
        bin_dir: written.bin_dir,
    })
}

fn selection(desk: &Desk<'_>, key: &str, written: &FileSource) -> Result<Selection> {
    let key_of = |last: &str| format!("{key}.{last}");
    let streams = written.streams.unwrap_or(1);
    let above_key = key_of("streams_above");
    let streams_above = match &written.streams_above {
        Some(_) if streams == 1 => {
            return Err(desk
                .refuse(&above_key, "with one stream no table gets one of its own")
                .hint("add streams = 2, or remove it"));
        }
        Some(text) => units::size(text)
            .map_err(|why| desk.wrong(&above_key, text, why).hint("for example 256MiB"))?,
        None => LARGE,
    };
    let schemas = patterns(desk, &key_of("schemas"), written.schemas.clone(), "each")?;
    let is_plain = written.format == Some(PgFormat::Plain);
    if is_plain && (!schemas.is_empty() || streams > 1) {
        let what = if schemas.is_empty() { "streams" } else { "schemas" };
        return Err(desk
            .refuse(&key_of(what), "format = \"plain\" makes one artifact only")
            .hint("remove it, or take format = \"custom\""));
    }
    Ok(Selection {
        schemas,
        exclude_tables: tables(desk, &key_of("exclude_tables"), &written.exclude_tables)?,
        exclude_rows: tables(desk, &key_of("exclude_rows"), &written.exclude_rows)?,
        streams_above: (streams > 1).then_some(streams_above),
    })
}

/// Names and globs; `all` is the word for every one.
fn patterns(
    desk: &Desk<'_>,
    key: &str,
    written: Option<Vec<String>>,
    all: &str,
) -> Result<Vec<String>> {
    let Some(mut patterns) = written else { return Ok(Vec::new()) };
    if patterns.iter().all(|pattern| pattern.starts_with('!')) {
        return Err(desk
            .refuse(key, "it names nothing")
            .hint(format!("for example \"{all}\", or [\"{all}\", \"!test_*\"]")));
    }
    for pattern in &mut patterns {
        if pattern == all {
            "*".clone_into(pattern);
        }
        check(desk, key, pattern.trim_start_matches('!'))?;
    }
    Ok(patterns)
}

fn tables(desk: &Desk<'_>, key: &str, written: &Option<Vec<String>>) -> Result<Vec<String>> {
    let patterns = written.clone().unwrap_or_default();
    for pattern in &patterns {
        if !pattern.contains('.') {
            return Err(desk
                .wrong(key, pattern, "it names no schema")
                .hint(format!("for example \"public.{pattern}\", or \"*.{pattern}\"")));
        }
        check(desk, key, pattern)?;
    }
    Ok(patterns)
}

fn check(desk: &Desk<'_>, key: &str, pattern: &str) -> Result<()> {
    if pattern.is_empty() {
        return Err(desk.refuse(key, "it has an empty name").hint("remove it"));
    }
    globset::Glob::new(pattern)
        .map(|_| ())
        .map_err(|error| desk.wrong(key, pattern, error.kind()).hint("for example tenant_*"))
}
