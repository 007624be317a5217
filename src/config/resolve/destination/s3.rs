//! S3: two keys or none, and what the store does by itself. Knows the variables of AWS's own tools.

use super::{Vessel, ambient_secret, endpoint};
use crate::config::file::FileDestination;
use crate::config::resolve::Desk;
use crate::destination::{FROZEN, S3Options, Sse};
use crate::fault::Result;

pub(super) fn resolve(
    desk: &mut Desk<'_>,
    name: &str,
    written: FileDestination,
    vessel: Vessel,
) -> Result<S3Options> {
    let key = |last: &str| format!("destinations.{name}.{last}");
    let sse = match (written.sse.as_deref(), written.kms_key) {
        (None, None) => None,
        (Some("AES256"), None) => Some(Sse::Aes256),
        (Some("aws:kms"), key) => Some(Sse::Kms(key)),
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
    if FROZEN.contains(&class) {
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
    let ambient = desk.ambient(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])?;
    let given = match (written.endpoint, ambient) {
        (Some(url), _) => Some((key("endpoint"), url)),
        (None, found) => found.map(|found| (found.variable, found.value)),
    };
    Ok(S3Options {
        bucket: vessel.name,
        prefix: vessel.prefix,
        endpoint: given.map(|(key, url)| endpoint(desk, &key, url)).transpose()?,
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
        append_only: written.append_only.unwrap_or(false),
    })
}
