//! Destinations: a URL, what belongs to its kind, and on what terms. Knows which key goes with which
//! kind; must not ask whether the place is there.

mod cloud;
mod s3;
mod sftp;

use std::path::PathBuf;
use std::time::Duration;

use super::Desk;
use crate::config::file::FileDestination;
use crate::config::settings::{Destination, DestinationKind, Given};
use crate::config::{address, did_you_mean, units};
use crate::fault::{Fault, Result};
use crate::secret::Secret;
use crate::space::Floor;

const KINDS: &str = "file:///folder, s3://bucket/prefix/, az://container/prefix/, \
    gs://bucket/prefix/ or sftp://user@host:port/path/";
/// What is written at once; a slower line would look like one that stands still.
const PIECE: u64 = 1 << 20;

/// What a place in an object store is called, and where in it.
struct Vessel {
    name: String,
    /// Without a slash at either end; may be empty.
    prefix: String,
}

pub(super) fn resolve(
    desk: &mut Desk<'_>,
    name: &str,
    written: FileDestination,
    stall: Duration,
) -> Result<Destination> {
    let terms = terms(desk, name, &written, stall)?;
    let free = free(desk, name, &written)?;
    let kind = kind(desk, name, written)?;
    Ok(Destination { kind, bandwidth: terms.0, append_only: terms.1, free })
}

fn kind(desk: &mut Desk<'_>, name: &str, written: FileDestination) -> Result<DestinationKind> {
    let key = format!("destinations.{name}.url");
    let url = written.url.clone();
    let wrong = |desk: &Desk<'_>, why: &str| desk.wrong_url(&key, &url, why);
    let Some((scheme, place)) = url.split_once("://") else {
        return Err(match url.starts_with('/') {
            true => wrong(desk, "it is a path, not a URL").hint(format!("write file://{url}")),
            false => wrong(desk, "it is not a URL").hint(format!("use {KINDS}")),
        });
    };
    let scheme = if scheme == "azblob" { "az" } else { scheme };
    belongs(desk, name, scheme, &written)?;
    let vessel = |desk: &Desk<'_>, kind: &str| {
        vessel(place, kind)
            .map_err(|why| wrong(desk, &why).hint(format!("for example {scheme}://{kind}/prefix/")))
    };
    match scheme {
        "file" => folder(place)
            .map(|path| DestinationKind::Local { path })
            .map_err(|why| wrong(desk, &why).hint("for example file:///backups")),
        "s3" => {
            let vessel = vessel(desk, "bucket")?;
            s3::resolve(desk, name, written, vessel).map(DestinationKind::S3)
        }
        "az" => {
            let vessel = vessel(desk, "container")?;
            cloud::azure(desk, name, written, vessel).map(DestinationKind::Azure)
        }
        "gs" => {
            let vessel = vessel(desk, "bucket")?;
            cloud::gcs(desk, name, written, vessel).map(DestinationKind::Gcs)
        }
        "sftp" => sftp::resolve(desk, name, written).map(DestinationKind::Sftp),
        _ => {
            let meant = did_you_mean(scheme, ["file", "s3", "az", "gs", "sftp"]);
            Err(wrong(desk, &format!("respaldo knows no {scheme}://{meant}"))
                .hint(format!("use {KINDS}")))
        }
    }
}

/// The bandwidth, and whether nothing is to be deleted.
fn terms(
    desk: &Desk<'_>,
    name: &str,
    written: &FileDestination,
    stall: Duration,
) -> Result<(Option<u64>, bool)> {
    let append_only = written.append_only.unwrap_or(false);
    let Some(text) = &written.bandwidth else { return Ok((None, append_only)) };
    let key = format!("destinations.{name}.bandwidth");
    let wrong = |why: String| desk.wrong(&key, text, why);
    let rate = units::rate(text)
        .map_err(|why| wrong(why).hint("give a number, a unit and /s, or remove it"))?;
    let least = (PIECE * 4 / stall.as_secs().max(1)).max(64_000);
    if rate < least {
        return Err(wrong(format!("it must be at least {}kB/s", least.div_ceil(1000)))
            .hint("a slower line would be taken for one that stands still: see `stall`"));
    }
    Ok((Some(rate), append_only))
}

/// How much must stay free.
fn free(desk: &Desk<'_>, name: &str, written: &FileDestination) -> Result<Option<Floor>> {
    let Some(text) = &written.free else { return Ok(None) };
    let key = format!("destinations.{name}.free");
    let floor = units::floor(text);
    floor.map(Some).map_err(|why| desk.wrong(&key, text, why).hint("for example 10% or 5GiB"))
}

/// What is on this machine's own disks is lost together with what is backed up.
pub(super) fn is_off_site(written: &FileDestination) -> bool {
    written.offsite.unwrap_or(!written.url.starts_with("file://"))
}

fn folder(path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') {
        return Err("the path must start at the root: three slashes".into());
    }
    let path = address::decode(path)?;
    let path = PathBuf::from(path.trim_end_matches('/'));
    if path.as_os_str().is_empty() { Err("it names no folder".into()) } else { Ok(path) }
}

/// `bucket/prefix/` taken apart; `kind` is what the store calls the first.
fn vessel(place: &str, kind: &str) -> Result<Vessel, String> {
    if place.contains('@') {
        return Err("credentials don't belong into it".into());
    }
    let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
    let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || !name.chars().all(good) {
        return Err(format!("it names no {kind}: letters, digits, '-' and '.'"));
    }
    let prefix = prefix.trim_matches('/');
    let bad = |part: &str| part.is_empty() || part == "." || part == "..";
    if !prefix.is_empty() && (prefix.split('/').any(bad) || prefix.contains(['?', '#', '%'])) {
        return Err("the prefix can't have empty or dotted parts, nor ?, # or %".into());
    }
    Ok(Vessel { name: name.to_owned(), prefix: prefix.to_owned() })
}

/// Refuses a key that belongs to another kind: it would do nothing.
fn belongs(desk: &Desk<'_>, name: &str, scheme: &str, written: &FileDestination) -> Result<()> {
    let given: [(&str, bool, &[&str]); 26] = [
        ("free", written.free.is_some(), &["file", "sftp"]),
        ("endpoint", written.endpoint.is_some(), &["s3", "az", "gs"]),
        ("region", written.region.is_some(), &["s3"]),
        ("access_key_id", written.access_key_id.is_some(), &["s3"]),
        ("access_key_id_file", written.access_key_id_file.is_some(), &["s3"]),
        ("secret_access_key", written.secret_access_key.is_some(), &["s3"]),
        ("secret_access_key_file", written.secret_access_key_file.is_some(), &["s3"]),
        ("session_token", written.session_token.is_some(), &["s3"]),
        ("session_token_file", written.session_token_file.is_some(), &["s3"]),
        ("storage_class", written.storage_class.is_some(), &["s3", "az", "gs"]),
        ("sse", written.sse.is_some(), &["s3"]),
        ("kms_key", written.kms_key.is_some(), &["s3"]),
        ("path_style", written.path_style.is_some(), &["s3"]),
        ("checksum", written.checksum.is_some(), &["s3"]),
        ("account", written.account.is_some(), &["az"]),
        ("access_key", written.access_key.is_some(), &["az"]),
        ("access_key_file", written.access_key_file.is_some(), &["az"]),
        ("sas_token", written.sas_token.is_some(), &["az"]),
        ("sas_token_file", written.sas_token_file.is_some(), &["az"]),
        ("credentials", written.credentials.is_some(), &["gs"]),
        ("credentials_file", written.credentials_file.is_some(), &["gs"]),
        ("host_key", written.host_key.is_some(), &["sftp"]),
        ("password", written.password.is_some(), &["sftp"]),
        ("password_file", written.password_file.is_some(), &["sftp"]),
        ("private_key", written.private_key.is_some(), &["sftp"]),
        ("private_key_file", written.private_key_file.is_some(), &["sftp"]),
    ];
    let known = ["file", "s3", "az", "gs", "sftp"].contains(&scheme);
    let astray = given.iter().find(|(_, given, kinds)| *given && !kinds.contains(&scheme));
    let Some((key, _, kinds)) = astray.filter(|_| known) else { return Ok(()) };
    let kinds: Vec<String> = kinds.iter().map(|kind| format!("{kind}://")).collect();
    Err(desk
        .refuse(
            &format!("destinations.{name}.{key}"),
            format!("it belongs to {} destinations only", kinds.join(" and ")),
        )
        .hint("remove it, or change the url"))
}

/// A secret of the config, else of the first of these variables that is set.
fn secret_or_ambient(
    desk: &mut Desk<'_>,
    key: &str,
    inline: Option<String>,
    file: Option<PathBuf>,
    variables: &[&str],
) -> Result<Option<Secret>> {
    if let Some(secret) = desk.secret(key, inline, file)? {
        return Ok(Some(secret));
    }
    for variable in variables {
        if let Some(secret) = ambient_secret(desk, key, variable)? {
            return Ok(Some(secret));
        }
    }
    Ok(None)
}

fn ambient_secret(desk: &mut Desk<'_>, key: &str, variable: &str) -> Result<Option<Secret>> {
    let found = desk.ambient(&[variable])?;
    if found.is_some() {
        // The plain name also where `<name>_FILE` holds it: `${NAME}` finds both.
        desk.secrets.insert(key.to_owned(), Given::Variable(variable.to_owned()));
    }
    Ok(found.map(|found| Secret::new(found.value)))
}

/// Another address of the same kind of store.
fn endpoint(desk: &Desk<'_>, key: &str, url: String) -> Result<String> {
    let wrong = |why: &str| -> Fault {
        desk.wrong_url(key, &url, why).hint("for example https://minio.example.com:9000")
    };
    match url::Url::parse(&url) {
        Ok(parsed) if !["http", "https"].contains(&parsed.scheme()) => {
            Err(wrong("it starts with neither https:// nor http://"))
        }
        Ok(parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            Err(wrong("credentials don't belong into it"))
        }
        Ok(parsed) if parsed.query().is_some() => Err(wrong("it can't have a ?")),
        Ok(_) => Ok(url.trim_end_matches('/').to_owned()),
        Err(_) => Err(wrong("it is not a URL")),
    }
}
