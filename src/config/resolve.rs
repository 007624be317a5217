//! From the file as written to [`Settings`]: defaults, units, time zone, cross references. Knows
//! what each key means; must not touch what the keys point at, but for the files of secrets.

pub(super) mod alert;
mod command;
mod destination;
mod encrypt;
mod hooks;
mod job;
mod mysql;
mod physical;
mod postgres;
mod proof;
pub(super) mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::environment::{self, Variables};
use super::file::FileConfig;
use super::layers::Tree;
use super::settings::{Destination, DestinationKind, Given, Settings, Source};
use super::{address, did_you_mean, units};
use crate::fault::{Fault, Result};
use crate::model::JobName;
use crate::schedule::Schedule;
use crate::secret::Secret;

/// What every part needs while it is resolved, and what it leaves behind.
struct Desk<'a> {
    tree: &'a Tree,
    variables: &'a Variables,
    now: Timestamp,
    warnings: &'a mut Vec<String>,
    secrets: BTreeMap<String, Given>,
}

/// Checks and completes what a file says.
pub(super) fn settings(
    file: FileConfig,
    tree: &Tree,
    variables: &Variables,
    now: Timestamp,
    warnings: &mut Vec<String>,
) -> Result<Settings> {
    let mut desk = Desk { tree, variables, now, warnings, secrets: BTreeMap::new() };
    let timezone = desk.timezone(file.timezone)?;
    let stall = desk.wait("stall", file.stall, Duration::from_secs(60))?;
    let server = server::resolve(&mut desk, file.server)?;
    let data_dir =
        desk.absolute("data_dir", file.data_dir.unwrap_or("/var/lib/respaldo".into()))?;

    let sync_lines = file.sync.schedule.unwrap_or_else(|| vec!["@hourly".to_owned()]);
    let sync = desk.schedule("sync.schedule", &sync_lines, &timezone, SignedDuration::ZERO)?;

    let mut destinations = BTreeMap::new();
    let mut off_site = BTreeSet::new();
    for (name, written) in file.destinations {
        desk.name("destinations", &name)?;
        if destination::is_off_site(&written) {
            off_site.insert(name.clone());
        }
        let destination = destination::resolve(&mut desk, &name, written, stall)?;
        destinations.insert(name, destination);
    }
    desk.no_place_twice(&destinations)?;

    if file.jobs.is_empty() {
        return Err(Fault::usage("the config names no job, so nothing would be backed up").hint(
            "add a section [jobs.NAME]; `respaldo config init` writes a config to start from",
        ));
    }
    let mut jobs = BTreeMap::new();
    for (name, written) in file.jobs {
        let name = desk.name("jobs", &name)?;
        let job = job::resolve(&mut desk, &name, written, &timezone, &destinations)?;
        jobs.insert(name, job);
    }
    for (name, job) in &jobs {
        let folders = job.sources.iter().filter_map(|source| match source {
            Source::Files { paths, .. } => Some(paths),
            _ => None,
        });
        for path in folders.flatten() {
            for (destination, place) in &destinations {
                let DestinationKind::Local { path: place } = &place.kind else { continue };
                if place.starts_with(path) {
                    desk.warnings.push(format!(
                        "destinations.{destination} lies in {}, which jobs.{name} backs up: exclude it, or backups will hold backups",
                        path.display()
                    ));
                }
            }
        }
    }

    let mut alerts = Vec::new();
    let around = alert::Around { jobs: &jobs, timezone: &timezone };
    for (name, written) in file.alerts {
        desk.name("alerts", &name)?;
        alerts.push(alert::resolve(&mut desk, name, written, &around)?);
    }
    if alerts.is_empty() {
        desk.warnings.push(
            "no [alerts.NAME] is configured: a failed run shows only in the log and at /health"
                .into(),
        );
    }
    Ok(Settings {
        timezone,
        data_dir,
        workers: file.workers.unwrap_or(2),
        runs_per_server: file.runs_per_server.unwrap_or(1),
        stall,
        server,
        sync,
        sync_lines,
        trusted_keys: file.trusted_keys,
        destinations,
        off_site,
        jobs,
        alerts,
        secrets: desk.secrets,
    })
}

fn wrong(tree: &Tree, key: &str, value: &str, why: impl std::fmt::Display) -> Fault {
    Fault::usage(format!("{key} can't be {value:?}{}: {why}", tree.place(key)))
}

impl Desk<'_> {
    /// An error that names the key, its origin, the value and what is wrong with it.
    fn wrong(&self, key: &str, value: &str, why: impl std::fmt::Display) -> Fault {
        wrong(self.tree, key, value, why)
    }

    /// As `wrong`, where the value says nothing or must not be shown.
    fn refuse(&self, key: &str, why: impl std::fmt::Display) -> Fault {
        Fault::usage(format!("{key}{}: {why}", self.tree.place(key)))
    }

    /// As `wrong`, for a value that is a URL and may hold a password.
    fn wrong_url(&self, key: &str, url: &str, why: impl std::fmt::Display) -> Fault {
        self.wrong(key, &address::redact(url), why)
    }

    fn name(&self, section: &str, name: &str) -> Result<JobName> {
        name.parse().map_err(|fault: Fault| {
            let key = format!("{section}.{name}");
            let hint = fault.next_step().unwrap_or_default().to_owned();
            self.refuse(&key, format!("'{name}' is not a name that can be used")).hint(hint)
        })
    }

    fn timezone(&self, written: Option<String>) -> Result<TimeZone> {
        let key = if written.is_some() { "timezone" } else { "TZ" };
        // POSIX allows a colon in front of the name.
        let ambient = self.variables.get("TZ").map(|zone| zone.trim_start_matches(':').to_owned());
        let Some(name) = written.or(ambient).filter(|name| !name.is_empty()) else {
            return Ok(TimeZone::UTC);
        };
        TimeZone::get(&name).map_err(|_| {
            let zones: Vec<String> =
                jiff::tz::db().available().map(|zone| zone.as_str().to_owned()).collect();
            let city = zones.iter().find(|zone| {
                zone.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(&name))
            });
            let meant = match city {
                Some(zone) => format!("; did you mean {zone}?"),
                None => did_you_mean(&name, zones.iter().map(String::as_str)),
            };
            self.wrong(key, &name, format!("there is no such time zone{meant}"))
                .hint("use a name of the IANA database, such as America/Lima or UTC")
        })
    }

    fn wait(&self, key: &str, written: Option<String>, default: Duration) -> Result<Duration> {
        match written {
            None => Ok(default),
            Some(text) => units::wait(&text)
                .map_err(|why| self.wrong(key, &text, why).hint("for example 90s, 30m, 13h or 7d")),
        }
    }

    fn schedule(
        &self,
        key: &str,
        lines: &[String],
        zone: &TimeZone,
        jitter: SignedDuration,
    ) -> Result<Schedule> {
        let lines = lines.iter().map(String::as_str);
        Schedule::parse(lines, zone.clone(), jitter, self.now).map_err(|fault| {
            let hint = fault.next_step().unwrap_or_default().to_owned();
            self.refuse(key, fault.chain()).hint(hint)
        })
    }

    /// Relative to the working folder, which a daemon must not depend on later.
    fn absolute(&self, key: &str, path: impl AsRef<Path>) -> Result<PathBuf> {
        std::path::absolute(path.as_ref()).map_err(|error| {
            self.wrong(key, &path.as_ref().display().to_string(), error).hint("write a whole path")
        })
    }

    /// The secret `key`, given in place or in the file of `<key>_file`.
    fn secret(
        &mut self,
        key: &str,
        inline: Option<String>,
        file: Option<PathBuf>,
    ) -> Result<Option<Secret>> {
        let file_key = format!("{key}_file");
        // `${DB_PASSWORD_FILE}` of compose files: the variable names the file, not the secret.
        let names_file =
            self.tree.variable(key).is_some_and(|name| name.ends_with("_FILE") && file.is_none());
        let (inline, file) = match inline {
            Some(path) if names_file => (None, Some(PathBuf::from(path))),
            other => (other, file),
        };
        let (value, given) = match (inline, file) {
            (Some(_), Some(_)) => {
                return Err(self
                    .refuse(key, format!("both it and {file_key} are given"))
                    .hint(format!("remove one of them; {file_key} is the safer one")));
            }
            (None, None) => return Ok(None),
            (None, Some(file)) => {
                let place = format!("{file_key}{}", self.tree.place(&file_key));
                (environment::read_secret(&place, &file)?, Given::File(file))
            }
            (Some(value), None) => {
                let variable = self.tree.variable(key);
                let given = variable.map_or(Given::Inline, |name| Given::Variable(name.to_owned()));
                (value, given)
            }
        };
        if value.is_empty() {
            return Err(self.refuse(key, "it is empty").hint("give the secret, or remove the key"));
        }
        self.secrets.insert(key.to_owned(), given);
        Ok(Some(Secret::new(value)))
    }

    /// The secret `key` that may be in a URL as well, whose key is `url_key`.
    fn secret_or_in_url(
        &mut self,
        key: &str,
        url_key: &str,
        in_url: Option<String>,
        inline: Option<String>,
        file: Option<PathBuf>,
    ) -> Result<Option<Secret>> {
        let Some(password) = in_url else { return self.secret(key, inline, file) };
        if inline.is_some() || file.is_some() {
            return Err(self
                .refuse(key, format!("{url_key} holds a password as well"))
                .hint("take the password out of the URL"));
        }
        self.secrets.insert(key.to_owned(), Given::Inline);
        Ok(Some(Secret::new(password)))
    }

    /// A secret or setting that the tools of AWS read from the environment; None if it isn't set.
    fn ambient(&self, names: &[&str]) -> Result<Option<environment::Found>> {
        for name in names {
            if let Some(found) = environment::lookup(self.variables, name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn no_place_twice(&self, destinations: &BTreeMap<String, Destination>) -> Result<()> {
        let at = |endpoint: &Option<String>| endpoint.clone().unwrap_or_default();
        let place = |destination: &Destination| match &destination.kind {
            DestinationKind::Local { path } => path.display().to_string(),
            DestinationKind::S3(o) => format!("s3 {} {} {}", o.bucket, o.prefix, at(&o.endpoint)),
            DestinationKind::Azure(o) => {
                format!("az {} {} {} {}", o.account, o.container, o.prefix, at(&o.endpoint))
            }
            DestinationKind::Gcs(o) => format!("gs {} {} {}", o.bucket, o.prefix, at(&o.endpoint)),
            DestinationKind::Sftp(o) => format!("sftp {} {} {}", o.host, o.port, o.path),
        };
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for (name, destination) in destinations {
            if let Some(first) = seen.insert(place(destination), name) {
                let key = format!("destinations.{name}.url");
                return Err(self
                    .refuse(&key, format!("it is the same place as destinations.{first}"))
                    .hint("two copies in one place are one copy: remove one of the two"));
            }
        }
        Ok(())
    }
}
