//! Webhooks and heartbeats: addresses, headers and templates. Knows what can be sent; must not send
//! anything.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::alert::{Heartbeat, PLACEHOLDERS, Pings, Template, Webhook};
use crate::config::did_you_mean;
use crate::config::file::{FileHeartbeat, FileWebhook};
use crate::config::resolve::Desk;
use crate::fault::Result;
use crate::secret::Secret;

/// Headers that the request itself needs.
const OWN: [&str; 5] = ["host", "content-length", "connection", "transfer-encoding", "upgrade"];

pub(super) fn webhook(desk: &mut Desk<'_>, key: &str, written: FileWebhook) -> Result<Webhook> {
    let url_key = format!("{key}.url");
    let url = desk.secret(&url_key, written.url, written.url_file)?;
    let url = address(desk, &url_key, url, "url_file = \"/run/secrets/webhook\", or url")?;
    let mut headers = BTreeMap::new();
    for (name, value) in written.headers.unwrap_or_default() {
        let (name, inline, file) = match name.strip_suffix("_file") {
            Some(name) => (name.to_owned(), None, Some(PathBuf::from(value))),
            None => (name, Some(value), None),
        };
        let header_key = format!("{key}.headers.{name}");
        check_header(desk, &header_key, &name)?;
        if let Some(value) = desk.secret(&header_key, inline, file)? {
            if value.expose().chars().any(char::is_control) {
                return Err(desk
                    .refuse(&header_key, "it holds more than one line")
                    .hint("a header is one line"));
            }
            let twice = headers.insert(name, value).is_some();
            if twice {
                return Err(desk
                    .refuse(&header_key, "it is given twice")
                    .hint("remove one of it and its _file"));
            }
        }
    }
    let body_key = format!("{key}.body");
    let body = desk.secret(&body_key, written.body, written.body_file)?;
    let body = body.map(|body| {
        Template::parse(body.expose()).map_err(|name| {
            let meant = did_you_mean(&name, PLACEHOLDERS);
            desk.refuse(&body_key, format!("{{{{{name}}}}} stands for nothing{meant}"))
                .hint(format!("these are filled in: {}", PLACEHOLDERS.join(", ")))
        })
    });
    let method = written.method.unwrap_or("POST".into());
    Ok(Webhook { url, method, headers, body: body.transpose()? })
}

fn check_header(desk: &Desk<'_>, key: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(desk
            .refuse(key, format!("{name:?} is not a header"))
            .hint("a header's name is letters, digits and hyphens"));
    }
    if OWN.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(desk
            .refuse(key, "the request needs it for itself")
            .hint(format!("remove {name}")));
    }
    Ok(())
}

pub(super) fn heartbeat(
    desk: &mut Desk<'_>,
    key: &str,
    written: FileHeartbeat,
) -> Result<Heartbeat> {
    let of = |desk: &mut Desk<'_>, name: &str, inline, file| -> Result<Option<Secret>> {
        let key = format!("{key}.{name}");
        match desk.secret(&key, inline, file)? {
            None => Ok(None),
            url => address(desk, &key, url, name).map(Some),
        }
    };
    let url = of(desk, "url", written.url, written.url_file)?;
    let start = of(desk, "start", written.start, written.start_file)?;
    let success = of(desk, "success", written.success, written.success_file)?;
    let fail = of(desk, "fail", written.fail, written.fail_file)?;
    match (url, success) {
        (Some(url), None) if start.is_none() && fail.is_none() => {
            Ok(Heartbeat { pings: Pings::Base(url) })
        }
        (Some(_), _) => Err(desk
            .refuse(key, "it says both url and an address of its own for a ping")
            .hint("give url alone, or success and where wanted start and fail")),
        (None, None) => Err(desk
            .refuse(key, "it says no address to ping when a backup went well")
            .hint("add url_file = \"/run/secrets/heartbeat\", or url, or success")),
        (None, success) => Ok(Heartbeat { pings: Pings::Each { start, success, fail } }),
    }
}

/// A whole address that can be asked over HTTP; it is a secret, so an error does not show it.
pub(super) fn address(
    desk: &Desk<'_>,
    key: &str,
    given: Option<Secret>,
    example: &str,
) -> Result<Secret> {
    let Some(secret) = given else {
        return Err(desk.refuse(key, "it is missing").hint(format!("add {example}")));
    };
    match url::Url::parse(secret.expose()) {
        Ok(url) if ["https", "http"].contains(&url.scheme()) && url.has_host() => Ok(secret),
        _ => Err(desk
            .refuse(key, "it is not a URL")
            .hint("it looks like https://hooks.example.com/services/...")),
    }
}
