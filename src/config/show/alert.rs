//! A way to tell people, as it is written; its secrets are put in by whoever knows where they were
//! given.

use crate::alert::{Heartbeat, Pings};
use crate::config::address::Address;
use crate::config::file::{FileAlert, FileEmail, FileHeartbeat, FileSlack, FileWebhook};
use crate::config::settings::{AlertRoute, Channel, Email, Tls};
use crate::config::units;
use crate::secret::Secret;

/// The dotted key of every secret of a route.
pub(super) fn secret_keys(route: &AlertRoute) -> Vec<String> {
    let keys: Vec<String> = match &route.channel {
        Channel::Slack(_) => vec!["slack.webhook".into()],
        Channel::Email(email) if email.password.is_some() => vec!["email.password".into()],
        Channel::Email(_) => Vec::new(),
        Channel::Webhook(webhook) => {
            let headers = webhook.headers.keys().map(|name| format!("webhook.headers.{name}"));
            let body = webhook.body.iter().map(|_| "webhook.body".to_owned());
            headers.chain(["webhook.url".to_owned()]).chain(body).collect()
        }
        Channel::Heartbeat(Heartbeat { pings: Pings::Base(_) }) => vec!["heartbeat.url".into()],
        Channel::Heartbeat(Heartbeat { pings: Pings::Each { start, success, fail } }) => {
            let each: [(&str, &Option<Secret>); 3] =
                [("start", start), ("success", success), ("fail", fail)];
            let given = each.into_iter().filter(|(_, url)| url.is_some());
            given.map(|(name, _)| format!("heartbeat.{name}")).collect()
        }
    };
    keys.into_iter().map(|key| format!("alerts.{}.{key}", route.name)).collect()
}

pub(super) fn alert(route: &AlertRoute) -> FileAlert {
    let channel = match &route.channel {
        Channel::Slack(_) => FileAlert { slack: Some(FileSlack::default()), ..Default::default() },
        Channel::Email(email) => FileAlert { email: Some(mail(email)), ..Default::default() },
        Channel::Webhook(webhook) => {
            let method = Some(webhook.method.clone());
            let webhook = FileWebhook { method, ..Default::default() };
            FileAlert { webhook: Some(webhook), ..Default::default() }
        }
        Channel::Heartbeat(_) => {
            FileAlert { heartbeat: Some(FileHeartbeat::default()), ..Default::default() }
        }
    };
    let jobs = Some(route.jobs.clone()).filter(|jobs| !jobs.is_empty());
    if matches!(route.channel, Channel::Heartbeat(_)) {
        return FileAlert { jobs, ..channel };
    }
    FileAlert {
        jobs,
        severity: Some(route.severity),
        success: Some(route.success),
        repeat: Some(units::show_duration(route.repeat)),
        per_hour: Some(route.per_hour),
        digest: Some(route.digest_lines.clone()).filter(|lines| !lines.is_empty()),
        ..channel
    }
}

fn mail(email: &Email) -> FileEmail {
    let (scheme, query) = match email.tls {
        Tls::Implicit => ("smtps", Vec::new()),
        Tls::StartTls => ("smtp", Vec::new()),
        Tls::None => ("smtp", vec![("tls".to_owned(), "none".to_owned())]),
    };
    let smtp = Address {
        scheme: scheme.into(),
        user: email.user.clone(),
        password: None,
        host: email.host.clone(),
        port: Some(email.port),
        path: String::new(),
        query,
    };
    FileEmail {
        from: email.from.clone(),
        to: email.to.clone(),
        smtp: smtp.show(),
        password: None,
        password_file: None,
        ca_file: email.ca_file.clone(),
    }
}
