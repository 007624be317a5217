//! Environment-only mode: the variables of people's own backup scripts, and of the images they come
//! from, as a config layer. Knows those names and their defaults; must not check what the config
//! itself checks.

mod mail;

use std::path::Path;

use super::address::{self, Address};
use super::environment::{self, Found, Variables};
use super::layers::Layer;
use super::shape;
use crate::fault::{Fault, Result};

/// Seed 000's hours: one in the morning, half past one in the afternoon.
const TWICE_DAILY: &str = "0 1 * * *;30 13 * * *";
const WEEKLY: &str = "0 3 * * sun";
/// Where a media volume is mounted beside the database.
const MEDIA: &str = "/media";

const HOST: [&str; 3] = ["DB_HOST", "POSTGRES_HOST", "PGHOST"];
const PORT: [&str; 3] = ["DB_PORT", "POSTGRES_PORT", "PGPORT"];
const USER: [&str; 3] = ["DB_USER", "POSTGRES_USER", "PGUSER"];
const NAME: [&str; 4] = ["DB_NAME", "POSTGRES_DB", "POSTGRES_DATABASE", "PGDATABASE"];
const PASSWORD: [&str; 3] = ["DB_PASSWORD", "POSTGRES_PASSWORD", "PGPASSWORD"];
const BUCKET: [&str; 2] = ["S3_BUCKET", "AWS_S3_BUCKET_NAME"];

/// A layer under construction: the variables it is read from, and what a person should hear.
struct Ambient<'a> {
    variables: &'a Variables,
    layer: Layer,
    warnings: &'a mut Vec<String>,
}

/// The layer that the environment amounts to. Without a database and without a media folder it is
/// empty where `RESPALDO__JOBS__...` says what to do, and an error where nothing does.
pub(super) fn layer(variables: &Variables, warnings: &mut Vec<String>) -> Result<Layer> {
    let mut ambient = Ambient { variables, layer: Layer::default(), warnings };
    let database = ambient.database()?;
    let media = ambient.media(Path::new(MEDIA))?;
    if !database && !media {
        if variables.keys().any(|name| name.starts_with("RESPALDO__JOBS__")) {
            return Ok(ambient.layer);
        }
        return Err(Fault::usage("there is no config file, and the environment names no database")
            .hint(
                "write a file with `respaldo config init`, or set DB_HOST, DB_NAME, DB_USER and \
                 DB_PASSWORD (or DATABASE_URL), BACKUP_DIR, RETENTION_DAYS",
            ));
    }
    ambient.destinations()?;
    if database {
        ambient.job("db", &ambient.schedule()?)?;
    }
    if media {
        // Seed 001's script takes both in one night.
        let nightly = ambient.first(&["TARGET_HOUR"])?.is_some();
        let schedule = if nightly { ambient.schedule()? } else { default(WEEKLY) };
        ambient.job("media", &schedule)?;
    }
    ambient.slack()?;
    ambient.mail()?;
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
        for variable in ["GPG_PUBLIC_KEY_FILE", "GPG_PUBLIC_KEY"] {
            if let Some(path) = self.variables.get(variable).filter(|path| !path.is_empty()) {
                self.layer.set(key("openpgp"), path, variable);
                break;
            }
        }
        Ok(())
    }

    /// Sets the source of job `db`; false where no variable speaks of a database.
    fn database(&mut self) -> Result<bool> {
        let url = self.first(&["DATABASE_URL"])?;
        let Some(name) = self.first(&NAME)? else {
            if let Some(url) = url {
                return self.database_url(&url).map(|()| true);
            }
            for names in [&HOST[..], &PORT, &USER, &PASSWORD] {
                if let Some(found) = self.first(names)? {
                    return Err(Fault::usage(format!(
                        "{} is set, but no variable names the database",
                        found.variable
                    ))
                    .hint("set DB_NAME (or POSTGRES_DB, PGDATABASE, DATABASE_URL)"));
                }
            }
            return Ok(false);
        };
        if url.is_some() {
            self.warnings.push(format!("DATABASE_URL is ignored, since {} is set", name.variable));
        }
        if name.value.contains(',') {
            return Err(Fault::usage(format!(
                "{} can't be {:?}: it names several databases",
                name.variable, name.value
            ))
            .hint("write a config with a job for each: `respaldo config init`"));
        }
        let port = self.first_or(&PORT, "5432")?;
        let number = port.value.trim().parse().map_err(|_| {
            Fault::usage(format!("{} can't be {:?}: it is no port", port.variable, port.value))
                .hint("PostgreSQL's own is 5432")
        })?;
        let mut query = Vec::new();
        for (variable, key) in [
            ("PGSSLMODE", "sslmode"),
            ("PGSSLROOTCERT", "sslrootcert"),
            ("PGSSLCERT", "sslcert"),
            ("PGSSLKEY", "sslkey"),
        ] {
            if let Some(found) = self.first(&[variable])? {
                query.push((key.to_owned(), found.value));
            }
        }
        let url = Address {
            scheme: "postgres".into(),
            user: Some(self.first_or(&USER, "postgres")?.value),
            password: None,
            host: self.first_or(&HOST, "postgres")?.value,
            port: Some(number),
            path: name.value,
            query,
        };
        self.layer.set("jobs.db.source.postgres", url.show(), &name.variable);
        if let Some(password) = self.first(&PASSWORD)? {
            self.set_secret("jobs.db.source.password", &password);
        }
        Ok(true)
    }

    /// What frameworks write: `postgresql+psycopg2://`, `postgis://`, `sqlite:////path`, and
    /// parameters that only their own pools understand.
    fn database_url(&mut self, found: &Found) -> Result<()> {
        let wrong = |why: &str| {
            let shown = address::redact(&found.value);
            Fault::usage(format!("{} can't be {shown:?}: {why}", found.variable))
                .hint("for example postgres://user:password@host:5432/database")
        };
        if let Some(path) = found.value.strip_prefix("sqlite:///") {
            self.layer.set("jobs.db.source.sqlite", path, &found.variable);
            return Ok(());
        }
        let mut url = address::parse(&found.value).map_err(|why| wrong(&why))?;
        let scheme = url.scheme.split('+').next().unwrap_or_default();
        let kind = match scheme {
            "postgres" | "postgresql" | "postgis" | "psql" | "pgsql" => "postgres",
            "mysql" | "mysql2" | "mariadb" => "mysql",
            _ => return Err(wrong("it does not start with postgres:// or mysql://")),
        };
        url.scheme = kind.into();
        let ours = ["host", "socket"];
        url.query.retain(|(name, _)| ours.contains(&name.as_str()) || name.starts_with("ssl"));
        self.layer.set(format!("jobs.db.source.{kind}"), url.show(), &found.variable);
        let password = url.password.map(|value| Found { value, variable: String::new() });
        if let Some(password) = password.map_or_else(|| self.first(&PASSWORD), |p| Ok(Some(p)))? {
            self.set_secret("jobs.db.source.password", &password);
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

    fn destinations(&mut self) -> Result<()> {
        let folder = self.first_or(&["BACKUP_DIR"], "/backups")?;
        if !folder.value.starts_with('/') {
            return Err(Fault::usage(format!(
                "{} can't be {:?}: it does not start at the root",
                folder.variable, folder.value
            ))
            .hint("for example /backups"));
        }
        let url = format!("file://{}", address::encode(&folder.value, "/"));
        self.layer.set("destinations.local.url", url, &folder.variable);

        let Some(bucket) = self.first(&BUCKET)? else { return Ok(()) };
        let prefix = self.first_or(&["S3_PREFIX", "AWS_S3_PATH"], "")?;
        let url = format!("s3://{}/{}", bucket.value, prefix.value.trim_start_matches('/'));
        self.layer.set("destinations.s3.url", url, &bucket.variable);
        for (names, key) in [
            (["S3_ENDPOINT", "AWS_S3_ENDPOINT_URL"], "endpoint"),
            (["S3_REGION", "AWS_S3_REGION_NAME"], "region"),
            (["S3_STORAGE_CLASS", "AWS_STORAGE_CLASS"], "storage_class"),
        ] {
            if let Some(found) = self.first(&names)? {
                self.set(&format!("destinations.s3.{key}"), &found);
            }
        }
        for (name, key) in
            [("S3_ACCESS_KEY_ID", "access_key_id"), ("S3_SECRET_ACCESS_KEY", "secret_access_key")]
        {
            if let Some(found) = self.first(&[name])? {
                self.set_secret(&format!("destinations.s3.{key}"), &found);
            }
        }
        Ok(())
    }

    /// Schedule and retention of one job; `days` counts everywhere, weeks and months on top.
    fn job(&mut self, name: &str, schedule: &Found) -> Result<()> {
        self.set(&format!("jobs.{name}.schedule"), schedule);
        self.encryption(name)?;
        if let Some(catch_up) = self.truth("BACKUP_ON_START")? {
            let key = format!("jobs.{name}.catch_up");
            self.layer.set(key, catch_up.to_string(), "BACKUP_ON_START");
        }
        let local = ["RETENTION_DAYS", "BACKUP_RETENTION_DAYS", "BACKUP_KEEP_DAYS"];
        let mut kept = vec![("local", self.first_or(&local, "7")?)];
        if self.first(&BUCKET)?.is_some() {
            kept.push(("s3", self.first_or(&["S3_RETENTION_DAYS"], "30")?));
        }
        for (destination, days) in kept {
            let key = |rule: &str| format!("jobs.{name}.keep.{destination}.{rule}");
            self.set(&key("days"), &days);
            for (variable, rule) in
                [("BACKUP_KEEP_WEEKS", "weekly"), ("BACKUP_KEEP_MONTHS", "monthly")]
            {
                if let Some(found) = self.first(&[variable])? {
                    self.set(&key(rule), &found);
                }
            }
        }
        Ok(())
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

    fn slack(&mut self) -> Result<()> {
        if let Some(found) = self.first(&["SLACK_WEBHOOK_URL"])? {
            self.set_secret("alerts.slack.slack.webhook", &found);
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
}
