//! Destinations: a URL and what belongs to its kind. Knows the keys of each kind; must not ask
//! whether the place is there.

use std::path::PathBuf;

use super::Desk;
use crate::config::file::FileDestination;
use crate::config::settings::{Destination, Given, S3, Sse};
use crate::config::{address, did_you_mean};
use crate::fault::Result;
use crate::secret::Secret;

const NOT_YET: [&str; 4] = ["az", "azblob", "gs", "sftp"];

pub(super) fn resolve(
    desk: &mut Desk<'_>,
    name: &str,
    written: FileDestination,
) -> Result<Destination> {
    let key = format!("destinations.{name}.url");
    let url = written.url.clone();
    let wrong = |desk: &Desk<'_>, why: &str| desk.wrong_url(&key, &url, why);
    let kinds = "file:///folder or s3://bucket/prefix/";
    match url.split_once("://") {
        Some(("file", path)) => {
            local_only(desk, name, &written)?;
            folder(path)
                .map(|path| Destination::Local { path })
                .map_err(|why| wrong(desk, &why).hint("for example file:///backups"))
        }
        Some(("s3", place)) => {
            let (bucket, prefix) = bucket(place)
                .map_err(|why| wrong(desk, &why).hint("for example s3://bucket/prefix/"))?;
            s3(desk, name, written, bucket, prefix).map(Destination::S3)
        }
        Some((scheme, _)) if NOT_YET.contains(&scheme) => {
            Err(wrong(desk, &format!("{scheme}:// is not supported yet"))
                .hint(format!("use {kinds}; most stores speak S3: see endpoint")))
        }
        Some((scheme, _)) => {
            let meant = did_you_mean(scheme, ["file", "s3"]);
            Err(wrong(desk, &format!("respaldo knows no {scheme}://{meant}"))
                .hint(format!("use {kinds}")))
        }
        None if url.starts_with('/') => {
            Err(wrong(desk, "it is a path, not a URL").hint(format!("write file://{url}")))
        }
        None => Err(wrong(desk, "it is not a URL").hint(format!("use {kinds}"))),
    }
}

fn folder(path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') {
        return Err("the path must start at the root: three slashes".into());
    }
    let path = address::decode(path)?;
    let path = PathBuf::from(path.trim_end_matches('/'));
    if path.as_os_str().is_empty() { Err("it names no folder".into()) } else { Ok(path) }
}

fn bucket(place: &str) -> Result<(String, String), String> {
    if place.contains('@') {
        return Err("credentials don't belong into it".into());
    }
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if bucket.is_empty() || !bucket.chars().all(good) {
        return Err("it names no bucket: letters, digits, '-' and '.'".into());
    }
    let prefix = prefix.trim_matches('/');
    let bad = |part: &str| part.is_empty() || part == "." || part == "..";
    if !prefix.is_empty() && (prefix.split('/').any(bad) || prefix.contains(['?', '#', '%'])) {
        return Err("the prefix can't have empty or dotted parts, nor ?, # or %".into());
    }
    Ok((bucket.to_owned(), prefix.to_owned()))
}

/// Refuses a key of S3 beside a folder: it would do nothing.
fn local_only(desk: &Desk<'_>, name: &str, written: &FileDestination) -> Result<()> {
    let given = [
        ("endpoint", written.endpoint.is_some()),
        ("region", written.region.is_some()),
        ("access_key_id", written.access_key_id.is_some()),
        ("access_key_id_file", written.access_key_id_file.is_some()),
        ("secret_access_key", written.secret_access_key.is_some()),
        ("secret_access_key_file", written.secret_access_key_file.is_some()),
        ("session_token", written.session_token.is_some()),
        ("session_token_file", written.session_token_file.is_some()),
        ("storage_class", written.storage_class.is_some()),
        ("sse", written.sse.is_some()),
        ("kms_key", written.kms_key.is_some()),
        ("path_style", written.path_style.is_some()),
        ("checksum", written.checksum.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((key, _)) => Err(desk
            .refuse(&format!("destinations.{name}.{key}"), "it belongs to s3:// destinations only")
            .hint("remove it, or change the url")),
    }
}

fn s3(
    desk: &mut Desk<'_>,
    name: &str,
    written: FileDestination,
    bucket: String,
    prefix: String,
) -> Result<S3> {
    let key = |last: &str| format!("destinations.{name}.{last}");
    let sse = match (written.sse.as_deref(), written.kms_key) {
        (None, None) => None,
        (Some("AES256"), None) => Some(Sse::Aes256),
        (Some("aws:kms"), key) => Some(Sse::Kms { key }),
        (_, Some(_)) => {
            return Err(desk
                .refuse(&key("kms_key"), "it needs sse = \"aws:kms\"")
                .hint("add that, or remove kms_key"));
        }
        (Some(other), None) => {
            return Err(desk.wrong(&key("sse"), other, "it is AES256 or aws:kms"));
        }
    };
    let class = written.storage_class.as_deref().unwrap_or_default();
    if ["GLACIER", "DEEP_ARCHIVE"].contains(&class) {
        desk.warnings.push(format!(
            "{} is {class}: such objects take hours to thaw, and until then neither restore nor \
             verify can read them",
            key("storage_class")
        ));
    }
    let id_key = key("access_key_id");
    let id = desk.secret(&id_key, written.access_key_id, written.access_key_id_file)?;
    let secret_key = key("secret_access_key");
    let secret =
        desk.secret(&secret_key, written.secret_access_key, written.secret_access_key_file)?;
    let token_key = key("session_token");
    let token = desk.secret(&token_key, written.session_token, written.session_token_file)?;
    let (access_key_id, secret_access_key, session_token) = match (id, secret) {
        (Some(id), Some(secret)) => (Some(id), Some(secret), token),
        (None, None) => {
            let id = ambient_secret(desk, &id_key, "AWS_ACCESS_KEY_ID")?;
            let secret = ambient_secret(desk, &secret_key, "AWS_SECRET_ACCESS_KEY")?;
            let token = match token {
                None if id.is_some() => ambient_secret(desk, &token_key, "AWS_SESSION_TOKEN")?,
                token => token,
            };
            if id.is_some() != secret.is_some() {
                let (set, missing) = match id {
                    Some(_) => ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
                    None => ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
                };
                return Err(desk
                    .refuse(&id_key, format!("{set} is set, but {missing} is not"))
                    .hint(format!("set {missing} or {missing}_FILE as well")));
            }
            (id, secret, token)
        }
        (Some(_), None) => {
            return Err(desk
                .refuse(&id_key, "secret_access_key is missing beside it")
                .hint("give both, or neither for AWS_ACCESS_KEY_ID or the machine's role"));
        }
        (None, Some(_)) => {
            return Err(desk
                .refuse(&secret_key, "access_key_id is missing beside it")
                .hint("give both, or neither for AWS_ACCESS_KEY_ID or the machine's role"));
        }
    };
    Ok(S3 {
        bucket,
        prefix,
        endpoint: endpoint(desk, &key("endpoint"), written.endpoint)?,
        region: match written.region {
            Some(region) => Some(region),
            None => desk.ambient(&["AWS_REGION", "AWS_DEFAULT_REGION"])?.map(|found| found.value),
        },
        access_key_id,
        secret_access_key,
        session_token,
        storage_class: written.storage_class,
        sse,
        path_style: written.path_style,
        checksum: written.checksum.unwrap_or(true),
    })
}

fn ambient_secret(desk: &mut Desk<'_>, key: &str, variable: &str) -> Result<Option<Secret>> {
    let found = desk.ambient(&[variable])?;
    if found.is_some() {
        // The plain name also where `<name>_FILE` holds it: `${NAME}` finds both.
        desk.secrets.insert(key.to_owned(), Given::Variable(variable.to_owned()));
    }
    Ok(found.map(|found| Secret::new(found.value)))
}

fn endpoint(desk: &Desk<'_>, key: &str, written: Option<String>) -> Result<Option<String>> {
    let ambient = desk.ambient(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])?;
    let (key, url) = match (written, ambient) {
        (Some(url), _) => (key.to_owned(), url),
        (None, Some(found)) => (found.variable, found.value),
        (None, None) => return Ok(None),
    };
    let wrong = |why: &str| {
        Err(desk.wrong_url(&key, &url, why).hint("for example https://minio.example.com:9000"))
    };
    match url::Url::parse(&url) {
        Ok(parsed) if !["http", "https"].contains(&parsed.scheme()) => {
            wrong("it starts with neither https:// nor http://")
        }
        Ok(parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            wrong("credentials don't belong into it")
        }
        Ok(parsed) if parsed.query().is_some() => wrong("it can't have a ?"),
        Ok(_) => Ok(Some(url.trim_end_matches('/').to_owned())),
        Err(_) => wrong("it is not a URL"),
    }
}
