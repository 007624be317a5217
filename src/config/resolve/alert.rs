//! Alerts: who is told, and through what. Knows mail URLs and webhooks; must not send anything.

use super::Desk;
use crate::config::file::{FileAlert, FileEmail, FileSlack};
use crate::config::settings::{AlertRoute, Channel, Email, Tls};
use crate::config::{address, did_you_mean};
use crate::fault::{Fault, Result};

pub(super) fn resolve(desk: &mut Desk<'_>, name: String, written: FileAlert) -> Result<AlertRoute> {
    let key = format!("alerts.{name}");
    let channel = match (written.email, written.slack) {
        (Some(mail), None) => Channel::Email(email(desk, &format!("{key}.email"), mail)?),
        (None, Some(hook)) => slack(desk, &format!("{key}.slack"), hook)?,
        (None, None) => {
            return Err(desk
                .refuse(&key, "it says neither email nor slack")
                .hint("add email = { from = ..., to = [...], smtp = ... } or slack = { webhook_file = ... }"));
        }
        (Some(_), Some(_)) => {
            return Err(desk
                .refuse(&key, "it says both email and slack")
                .hint("give each a section [alerts.NAME] of its own"));
        }
    };
    Ok(AlertRoute { name, channel })
}

fn slack(desk: &mut Desk<'_>, key: &str, written: FileSlack) -> Result<Channel> {
    let key = format!("{key}.webhook");
    let Some(webhook) = desk.secret(&key, written.webhook, written.webhook_file)? else {
        return Err(desk
            .refuse(&key, "it is missing")
            .hint("add webhook_file = \"/run/secrets/slack\", or webhook"));
    };
    match url::Url::parse(webhook.expose()) {
        Ok(url) if ["https", "http"].contains(&url.scheme()) && url.has_host() => {
            Ok(Channel::Slack { webhook })
        }
        _ => Err(desk
            .refuse(&key, "it is not a URL")
            .hint("it looks like https://hooks.slack.com/services/...")),
    }
}

fn email(desk: &mut Desk<'_>, key: &str, written: FileEmail) -> Result<Email> {
    check_address(desk, &format!("{key}.from"), &written.from)?;
    let to_key = format!("{key}.to");
    for to in &written.to {
        check_address(desk, &to_key, to)?;
    }
    if written.to.is_empty() {
        return Err(desk.refuse(&to_key, "it names nobody").hint("name who gets the mail"));
    }
    let url_key = format!("{key}.smtp");
    let wrong = |desk: &Desk<'_>, why: String| -> Fault {
        desk.wrong_url(&url_key, &written.smtp, why).hint(
            "smtps://user@host:465, smtp://user@host:587 (STARTTLS), or smtp://host:25?tls=none",
        )
    };
    let url = address::parse(&written.smtp).map_err(|why| wrong(desk, why))?;
    let tls = match (url.scheme.as_str(), url.query.as_slice()) {
        ("smtps", []) => Tls::Implicit,
        ("smtp", []) => Tls::StartTls,
        ("smtp", [(name, value)]) if name == "tls" => match value.as_str() {
            "none" => Tls::None,
            "starttls" => Tls::StartTls,
            _ => return Err(wrong(desk, "tls is none or starttls".into())),
        },
        ("smtp" | "smtps", _) => {
            return Err(wrong(desk, "after the ? only tls=none or tls=starttls can stand".into()));
        }
        (other, _) => {
            let meant = did_you_mean(other, ["smtp", "smtps"]);
            return Err(wrong(desk, format!("it is not smtp:// or smtps://{meant}")));
        }
    };
    if url.host.is_empty() || !url.path.is_empty() {
        return Err(wrong(desk, "it names no mail server".into()));
    }
    let password_key = format!("{key}.password");
    let password = desk.secret_or_in_url(
        &password_key,
        &url_key,
        url.password,
        written.password,
        written.password_file,
    )?;
    match (&url.user, &password) {
        (Some(_), None) => {
            return Err(desk
                .refuse(&password_key, "it is missing, though smtp names a user")
                .hint("add password_file, or take the user out of smtp"));
        }
        (None, Some(_)) => {
            return Err(desk
                .refuse(&url_key, "it names no user, though there is a password")
                .hint("write the user before the host: smtps://user@host"));
        }
        _ => {}
    }
    if tls == Tls::None && password.is_some() {
        desk.warnings
            .push(format!("{url_key}: without TLS the password goes over the net in clear"));
    }
    let port = url.port.unwrap_or(match tls {
        Tls::Implicit => 465,
        Tls::StartTls => 587,
        Tls::None => 25,
    });
    let ca_file = match written.ca_file {
        Some(file) => Some(desk.absolute(&format!("{key}.ca_file"), file)?),
        None => None,
    };
    Ok(Email {
        from: written.from,
        to: written.to,
        host: url.host,
        port,
        tls,
        user: url.user,
        password,
        ca_file,
    })
}

fn check_address(desk: &Desk<'_>, key: &str, text: &str) -> Result<()> {
    if is_mailbox(text) {
        return Ok(());
    }
    Err(desk
        .wrong(key, text, "it is not a mail address")
        .hint("for example ops@example.com or Ops <ops@example.com>"))
}

/// Whether mail can be sent from or to it: `a@b` or `Name <a@b>`.
pub(in crate::config) fn is_mailbox(text: &str) -> bool {
    text.parse::<lettre::message::Mailbox>().is_ok()
}
