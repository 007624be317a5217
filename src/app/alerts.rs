//! Routes as the alert door wants them, and what of a config will expire. Must not decide anything.

use std::path::PathBuf;

use crate::alert::{self, Route};
use crate::config::{self, Settings, Written};
use crate::job::{Paper, PaperKind};
use crate::model::JobName;

pub(super) fn route(written: &config::AlertRoute) -> Route {
    let channel = match &written.channel {
        config::Channel::Slack { webhook } => {
            alert::Channel::Slack(alert::Slack { webhook: webhook.clone() })
        }
        config::Channel::Webhook(webhook) => alert::Channel::Webhook(webhook.clone()),
        config::Channel::Heartbeat(heartbeat) => alert::Channel::Heartbeat(heartbeat.clone()),
        config::Channel::Email(email) => alert::Channel::Email(alert::Email {
            from: email.from.clone(),
            to: email.to.clone(),
            host: email.host.clone(),
            port: email.port,
            tls: match email.tls {
                config::Tls::Implicit => alert::Tls::Implicit,
                config::Tls::StartTls => alert::Tls::StartTls,
                config::Tls::None => alert::Tls::None,
            },
            user: email.user.clone(),
            password: email.password.clone(),
            ca_file: email.ca_file.clone(),
        }),
    };
    Route {
        name: written.name.clone(),
        channel,
        jobs: written.matching.clone(),
        severity: written.severity,
        success: written.success,
        repeat: written.repeat,
        per_hour: written.per_hour,
        digest: written.digest.clone(),
    }
}

/// Every certificate and key that the config names as a file, and that can expire.
pub(super) fn papers(settings: &Settings) -> Vec<Paper> {
    let mut papers = Vec::new();
    let mut add = |job: Option<&JobName>, kind, path: &Option<PathBuf>| {
        papers.extend(path.clone().map(|path| Paper { job: job.cloned(), kind, path }));
    };
    for (name, job) in &settings.jobs {
        let drilled = job.drill.iter().filter_map(|drill| drill.server.as_ref());
        for source in &job.sources {
            match source {
                config::Source::Postgres(source) => {
                    add(Some(name), PaperKind::Authority, &source.sslrootcert);
                    add(Some(name), PaperKind::Certificate, &source.sslcert);
                }
                config::Source::Mysql(source) => {
                    add(Some(name), PaperKind::Authority, &source.ssl_ca);
                    add(Some(name), PaperKind::Certificate, &source.ssl_cert);
                }
                _ => {}
            }
        }
        for server in drilled {
            add(Some(name), PaperKind::Authority, &server.sslrootcert);
            add(Some(name), PaperKind::Certificate, &server.sslcert);
        }
        let sealed = job.encrypt.iter().flat_map(|encrypt| {
            std::iter::once(&encrypt.to).chain(encrypt.schemas.values()).map(|to| &to.written)
        });
        for written in sealed {
            let Written::Openpgp(files) = written else { continue };
            files.iter().for_each(|file| add(Some(name), PaperKind::Openpgp, &Some(file.clone())));
        }
    }
    for route in &settings.alerts {
        if let config::Channel::Email(email) = &route.channel {
            add(None, PaperKind::Authority, &email.ca_file);
        }
    }
    papers
}
