//! Alerts: who is told, of what, and through what. Knows mail URLs and filters; must not send
//! anything.

mod request;

use std::collections::BTreeMap;
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::Desk;
use crate::config::file::{FileAlert, FileEmail, FileSlack};
use crate::config::settings::{AlertRoute, Channel, Email, Job, Slack, Tls};
use crate::config::{address, did_you_mean};
use crate::fault::{Fault, Result};
use crate::model::{JobName, Severity};

const SIX_HOURS: Duration = Duration::from_secs(6 * 3600);

/// What the section is of the config that it may speak of.
pub(super) struct Around<'a> {
    pub jobs: &'a BTreeMap<JobName, Job>,
    pub timezone: &'a TimeZone,
}

pub(super) fn resolve(
    desk: &mut Desk<'_>,
    name: String,
    written: FileAlert,
    around: &Around<'_>,
) -> Result<AlertRoute> {
    let key = format!("alerts.{name}");
    let given = [
        ("email", written.email.is_some()),
        ("slack", written.slack.is_some()),
        ("webhook", written.webhook.is_some()),
        ("heartbeat", written.heartbeat.is_some()),
    ];
    let given: Vec<&str> = given.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    if given.len() > 1 {
        return Err(desk
            .refuse(&key, format!("it says both {}", given.join(" and ")))
            .hint("give each a section [alerts.NAME] of its own"));
    }
    if written.heartbeat.is_some() {
        only_pings(desk, &key, &written)?;
    }
    let FileAlert { email: mail, slack: chat, webhook, heartbeat, .. } = written;
    let channel = if let Some(mail) = mail {
        Channel::Email(email(desk, &format!("{key}.email"), mail)?)
    } else if let Some(chat) = chat {
        slack(desk, &format!("{key}.slack"), chat)?
    } else if let Some(hook) = webhook {
        Channel::Webhook(request::webhook(desk, &format!("{key}.webhook"), hook)?)
    } else if let Some(pings) = heartbeat {
        Channel::Heartbeat(request::heartbeat(desk, &format!("{key}.heartbeat"), pings)?)
    } else {
        return Err(desk.refuse(&key, "it says none of email, slack, webhook and heartbeat").hint(
            "add email = { from = ..., to = [...], smtp = ... } or slack = { webhook_file = ... }",
        ));
    };
    let repeat = desk.wait(&format!("{key}.repeat"), written.repeat, SIX_HOURS)?;
    let digest_lines = written.digest.unwrap_or_default();
    let jobs = written.jobs.unwrap_or_default();
    Ok(AlertRoute {
        matching: matching(desk, &format!("{key}.jobs"), &jobs, around.jobs)?,
        jobs,
        severity: written.severity.unwrap_or(Severity::Info),
        success: written.success.unwrap_or(false),
        repeat: SignedDuration::try_from(repeat).unwrap_or(SignedDuration::MAX),
        per_hour: written.per_hour.unwrap_or(20),
        digest: desk.schedule(
            &format!("{key}.digest"),
            &digest_lines,
            around.timezone,
            SignedDuration::ZERO,
        )?,
        digest_lines,
        name,
        channel,
    })
}

/// A heartbeat is told of each backup that begins and ends: nothing else can be said of it.
fn only_pings(desk: &Desk<'_>, key: &str, written: &FileAlert) -> Result<()> {
    let given = [
        ("severity", written.severity.is_some()),
        ("success", written.success.is_some()),
        ("repeat", written.repeat.is_some()),
        ("per_hour", written.per_hour.is_some()),
        ("digest", written.digest.is_some()),
    ];
    match given.iter().find(|(_, is)| *is) {
        None => Ok(()),
        Some((name, _)) => Err(desk
            .refuse(&format!("{key}.{name}"), "a heartbeat is pinged by every backup")
            .hint(format!("remove {name}; of the filters, a heartbeat takes jobs alone"))),
    }
}

fn matching(
    desk: &Desk<'_>,
    key: &str,
    patterns: &[String],
    jobs: &BTreeMap<JobName, Job>,
) -> Result<Option<GlobSet>> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = Glob::new(pattern).map_err(|error| {
            desk.wrong(key, pattern, error.kind()).hint("a pattern is a name with *, ? or [a-z]")
        })?;
        let names: Vec<&str> = jobs.keys().map(JobName::as_str).collect();
        let matcher = glob.compile_matcher();
        if !names.iter().any(|name| matcher.is_match(name)) {
            let meant = did_you_mean(pattern, names.iter().copied());
            return Err(desk
                .wrong(key, pattern, format!("there is no such job{meant}"))
                .hint(format!("the jobs are: {}", names.join(", "))));
        }
        set.add(glob);
    }
    if patterns.is_empty() {
        return Ok(None);
    }
    let set = set.build().map_err(|error| {
        desk.refuse(key, error.kind()).hint("a pattern is a name with *, ? or [a-z]")
    })?;
    Ok(Some(set))
}

fn slack(desk: &mut Desk<'_>, key: &str, written: FileSlack) -> Result<Channel> {
    let key = format!("{key}.webhook");
    let webhook = desk.secret(&key, written.webhook, written.webhook_file)?;
    let example = "webhook_file = \"/run/secrets/slack\", or webhook";
    let webhook = request::address(desk, &key, webhook, example)?;
    Ok(Channel::Slack(Slack { webhook }))
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
