//! Environment-only mode: the variables of people's own backup scripts, and of the images they come
//! from, as a config layer. Knows those names and their defaults; must not check what the config
//! itself checks. docs/migrate.md lists them, and a test holds that list.

mod cron;
mod database;
mod foreign;
mod mail;
mod messages;
mod notification;
mod places;

use std::path::Path;

use super::environment::{self, Found, Variables};
use super::layers::Layer;
use super::shape;
use crate::fault::{Fault, Result};

/// Seed 000's hours: one in the morning, half past one in the afternoon.
const TWICE_DAILY: &str = "0 1 * * *;30 13 * * *";
const WEEKLY: &str = "0 3 * * sun";
/// Where a media volume is mounted beside the database.
const MEDIA: &str = "/media";
/// Where docker-volume-backup has its volumes mounted.
const VOLUMES: &str = "/backup";
/// Variables that only docker-volume-backup knows: its defaults hold where one of them is set.
const OF_VOLUMES: [&str; 7] = [
    "BACKUP_SOURCES",
    "BACKUP_ARCHIVE",
    "BACKUP_CRON_EXPRESSION",
    "BACKUP_FILENAME",
    "BACKUP_PRUNING_PREFIX",
    "BACKUP_COMPRESSION",
    "AWS_S3_BUCKET_NAME",
];
const PORT: &str = "HEALTHCHECK_PORT";

/// A layer under construction: the variables it is read from, and what a person should hear.
struct Ambient<'a> {
    variables: &'a Variables,
    layer: Layer,
    warnings: &'a mut Vec<String>,
}

/// The layer that the environment amounts to. Without a database and without a folder it is empty
/// where `RESPALDO__JOBS__...` says what to do, and an error where nothing does.
pub(super) fn layer(variables: &Variables, warnings: &mut Vec<String>) -> Result<Layer> {
    let mut ambient = Ambient { variables, layer: Layer::default(), warnings };
    let mut jobs = Vec::new();
    if ambient.database()? {
        jobs.push(("db", ambient.schedule()?));
    }
    if ambient.media(Path::new(MEDIA))? {
        // Seed 001's script takes both in one night.
        let nightly = ambient.first(&["TARGET_HOUR"])?.is_some();
        jobs.push(("media", if nightly { ambient.schedule()? } else { default(WEEKLY) }));
    }
    if ambient.volumes(Path::new(VOLUMES))? {
        jobs.push(("files", ambient.first_or(&["BACKUP_CRON_EXPRESSION"], "@daily")?));
    }
    if jobs.is_empty() {
        if variables.keys().any(|name| name.starts_with("RESPALDO__JOBS__")) {
            return Ok(ambient.layer);
        }
        return Err(Fault::usage("there is no config file, and the environment names no database")
            .hint(
                "write a file with `respaldo config init`, or set DB_HOST, DB_NAME, DB_USER and \
                 DB_PASSWORD (or DATABASE_URL), BACKUP_DIR, RETENTION_DAYS",
            ));
    }
    ambient.foreign()?;
    let places = ambient.destinations()?;
    for (name, schedule) in jobs {
        ambient.job(name, &schedule, &places)?;
    }
    ambient.messages()?;
    ambient.mail()?;
    ambient.listen()?;
    Ok(ambient.layer)
}

/// Where the daemon listens, as far as the environment says it.
pub(super) fn listen(variables: &Variables) -> Result<Layer> {
    let mut ambient = Ambient { variables, layer: Layer::default(), warnings: &mut Vec::new() };
    ambient.listen()?;
    Ok(ambient.layer)
}

impl Ambient<'_> {
    /// The first of `names` that is set, by itself or as a file.
    fn first(&self, names: &[&str]) -> Result<Option<Found>> {
        for name in names {
            if let Some(found) = environment::lookup(self.variables, name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn first_or(&self, names: &[&str], other: &str) -> Result<Found> {
        Ok(self.first(names)?.unwrap_or_else(|| default(other)))
    }

    fn set(&mut self, key: &str, found: &Found) {
        self.layer.set(key, &found.value, &found.variable);
    }

    /// Sets `key` to a secret, or `<key>_file` where the variable names a file.
    fn set_secret(&mut self, key: &str, found: &Found) {
        match self.variables.get(&found.variable).filter(|_| found.variable.ends_with("_FILE")) {
            Some(path) => self.layer.set(format!("{key}_file"), path, &found.variable),
            None => self.set(key, found),
        }
    }

    fn truth(&self, name: &str) -> Result<Option<bool>> {
        let Some(found) = self.first(&[name])? else { return Ok(None) };
        match shape::truth(found.value.trim()) {
            Some(is) => Ok(Some(is)),
            None => Err(Fault::usage(format!("{name} can't be {:?}", found.value))
                .hint("it is true or false")),
        }
    }

    /// A backup that was encrypted so far must not silently become readable. A public key is the
    /// file of one.
    fn encryption(&mut self, name: &str) -> Result<()> {
        let key = |last: &str| format!("jobs.{name}.encrypt.{last}");
        if let Some(found) = self.first(&["GPG_PASSPHRASE", "PASSPHRASE"])? {
            self.set_secret(&key("openpgp_passphrase"), &found);
        }
        if let Some(found) = self.first(&["AGE_PASSPHRASE"])? {
            self.set_secret(&key("age_passphrase"), &found);
        }
        if let Some(found) = self.first(&["AGE_PUBLIC_KEYS"])? {
            self.set(&key("age"), &found);
        }
        for variable in ["GPG_PUBLIC_KEY_FILE", "GPG_PUBLIC_KEY", "GPG_PUBLIC_KEY_RING_FILE"] {
            if let Some(path) = self.variables.get(variable).filter(|path| !path.is_empty()) {
                self.layer.set(key("openpgp"), path, variable);
                break;
            }
        }
        Ok(())
    }

    /// Sets the source of job `media`; false where no media folder is mounted.
    fn media(&mut self, mounted: &Path) -> Result<bool> {
        let found = match self.first(&["MEDIA_DIR"])? {
            Some(found) => found,
            None if is_mount(mounted) || has_entries(mounted) => {
                default(&mounted.display().to_string())
            }
            None => return Ok(false),
        };
        self.layer.set("jobs.media.source.files", found.value, &found.variable);
        Ok(true)
    }

    /// Whether docker-volume-backup is what people come from.
    fn has_volumes(&self) -> bool {
        let is_set = |name: &str| self.variables.get(name).is_some_and(|value| !value.is_empty());
        OF_VOLUMES.iter().any(|name| is_set(name) || is_set(&format!("{name}_FILE")))
    }

    /// Sets the source of job `files`, the folders of docker-volume-backup; false where there are
    /// none.
    fn volumes(&mut self, mounted: &Path) -> Result<bool> {
        let found = match self.first(&["BACKUP_SOURCES"])? {
            Some(found) => found,
            None if self.has_volumes() && (is_mount(mounted) || has_entries(mounted)) => {
                default(&mounted.display().to_string())
            }
            None => return Ok(false),
        };
        self.layer.set("jobs.files.source.files", found.value, &found.variable);
        Ok(true)
    }

    /// Schedule, form and retention of one job.
    fn job(&mut self, name: &str, schedule: &Found, places: &[&str]) -> Result<()> {
        let lines = cron::lines(&schedule.value);
        self.layer.set(format!("jobs.{name}.schedule"), lines, &schedule.variable);
        self.encryption(name)?;
        if let Some(Found { value, variable }) = self.first(&["BACKUP_COMPRESSION"])? {
            let codec = match value.as_str() {
                "gz" => "gzip",
                "zst" => "zstd",
                other => other,
            };
            self.layer.set(format!("jobs.{name}.compression"), codec, &variable);
        }
        if let Some(catch_up) = self.truth("BACKUP_ON_START")? {
            let key = format!("jobs.{name}.catch_up");
            self.layer.set(key, catch_up.to_string(), "BACKUP_ON_START");
        }
        places.iter().try_for_each(|place| self.keep(name, place))
    }

    /// How long one destination keeps the backups of a job: `days` count everywhere, weeks and
    /// months on top.
    fn keep(&mut self, job: &str, place: &str) -> Result<()> {
        let keep = format!("jobs.{job}.keep.{place}");
        if let Some(variable) = self.keeps_all(place)? {
            self.layer.set_empty(keep, &variable);
            return Ok(());
        }
        let days = match place {
            "local" => self
                .first_or(&["RETENTION_DAYS", "BACKUP_RETENTION_DAYS", "BACKUP_KEEP_DAYS"], "7")?,
            // One number for all places, where it is docker-volume-backup's.
            _ if self.has_volumes() => {
                self.first_or(&["S3_RETENTION_DAYS", "BACKUP_RETENTION_DAYS"], "30")?
            }
            _ => self.first_or(&["S3_RETENTION_DAYS"], "30")?,
        };
        match self.first(&["BACKUP_KEEP_MINS"])?.filter(|_| place == "local") {
            // All of the last minutes, and one of each day before.
            Some(minutes) => {
                let whole = minutes.value.trim().parse::<u32>().map_err(|_| {
                    Fault::usage(format!("{} can't be {:?}", minutes.variable, minutes.value))
                        .hint("it is a number of minutes, 1440 for a day")
                })?;
                let whole = whole.div_ceil(24 * 60).to_string();
                self.layer.set(format!("{keep}.days"), whole, &minutes.variable);
                self.set(&format!("{keep}.daily"), &days);
            }
            None => self.set(&format!("{keep}.days"), &days),
        }
        for (variable, rule) in [("BACKUP_KEEP_WEEKS", "weekly"), ("BACKUP_KEEP_MONTHS", "monthly")]
        {
            if let Some(found) = self.first(&[variable])? {
                self.set(&format!("{keep}.{rule}"), &found);
            }
        }
        Ok(())
    }

    /// The variable that says that nothing is to be deleted there; empty where docker-volume-backup
    /// says so by its silence.
    fn keeps_all(&self, place: &str) -> Result<Option<String>> {
        let skipped = "BACKUP_SKIP_BACKENDS_FROM_PRUNE";
        if let Some(found) = self.first(&[skipped])? {
            let word = if place == "sftp" { "ssh" } else { place };
            if found.value.split(',').any(|name| name.trim().eq_ignore_ascii_case(word)) {
                return Ok(Some(found.variable));
            }
        }
        if let Some(found) = self.first(&["BACKUP_RETENTION_DAYS"])? {
            return Ok((found.value.trim() == "-1").then_some(found.variable));
        }
        let others = ["RETENTION_DAYS", "S3_RETENTION_DAYS"];
        let said = |name: &&String| {
            name.starts_with("BACKUP_KEEP_") || {
                others.iter().any(|other| name.strip_suffix("_FILE").unwrap_or(name) == *other)
            }
        };
        let silent = self.has_volumes() && !self.variables.keys().any(|name| said(&name));
        Ok(silent.then(String::new))
    }

    fn schedule(&self) -> Result<Found> {
        if let Some(found) = self.first(&["SCHEDULE", "BACKUP_CRON_EXPRESSION"])? {
            return Ok(found);
        }
        let Some(hour) = self.first(&["TARGET_HOUR"])? else { return Ok(default(TWICE_DAILY)) };
        match hour.value.trim().parse::<u8>() {
            Ok(number @ 0..=23) => {
                Ok(Found { value: format!("0 {number} * * *"), variable: hour.variable })
            }
            _ => Err(Fault::usage(format!("{} can't be {:?}", hour.variable, hour.value))
                .hint("it is an hour, 0 to 23")),
        }
    }

    fn listen(&mut self) -> Result<()> {
        if let Some(port) = self.first(&[PORT])? {
            let address = format!("0.0.0.0:{}", port.value.trim());
            self.layer.set("server.listen", address, &port.variable);
        }
        Ok(())
    }
}

/// A value that no variable gave.
fn default(value: &str) -> Found {
    Found { value: value.to_owned(), variable: String::new() }
}

/// Also true for a bind mount within one file system, which a device number would not show.
fn is_mount(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == path))
}

fn has_entries(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_folder_counts_when_something_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let variables = Variables::new();
        let mut warnings = Vec::new();
        let mut ambient =
            Ambient { variables: &variables, layer: Layer::default(), warnings: &mut warnings };
        assert!(!ambient.media(folder.path()).unwrap());
        std::fs::write(folder.path().join("photo.jpg"), "x").unwrap();
        assert!(ambient.media(folder.path()).unwrap());
        assert!(!ambient.media(Path::new("/nowhere/media")).unwrap());
        assert!(is_mount(Path::new("/proc")));
    }

    #[test]
    fn a_folder_of_volumes_counts_only_where_somebody_comes_from_there() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("photo.jpg"), "x").unwrap();
        // A host's own folder of backups may be called so.
        let has = |name: &str| {
            let variables = Variables::from([(name.to_owned(), "x".to_owned())]);
            let (layer, warnings) = (Layer::default(), &mut Vec::new());
            let mut ambient = Ambient { variables: &variables, layer, warnings };
            ambient.volumes(folder.path()).unwrap()
        };
        assert!(!has("DB_NAME") && !has("BACKUP_DIR"));
        assert!(has("BACKUP_FILENAME") && has("BACKUP_PRUNING_PREFIX_FILE"));
    }
}
