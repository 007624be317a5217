//! Routes as the alert door wants them, and what of a config will expire. Must not decide anything.

use std::path::PathBuf;

use crate::alert::Route;
use crate::config::{self, Settings, Written};
use crate::job::{Paper, PaperKind};
use crate::model::JobName;

pub(super) fn route(written: &config::AlertRoute) -> Route {
    Route {
        name: written.name.clone(),
        channel: written.channel.clone(),
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
                config::Source::Postgres(source)
                | config::Source::Physical(config::Physical { server: source, .. }) => {
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
