//! The destinations of environment-only mode: a folder, and whichever remotes are named. Knows the
//! variables of each kind; must not know what is backed up.

use super::{Ambient, Found, has_entries, is_mount};
use crate::config::address::{self, Address};
use crate::fault::{Fault, Result};
use std::path::Path;

const FOLDER: [&str; 2] = ["BACKUP_DIR", "BACKUP_ARCHIVE"];
const BUCKET: [&str; 2] = ["S3_BUCKET", "AWS_S3_BUCKET_NAME"];
/// Where docker-volume-backup has its archive mounted.
const ARCHIVE: &str = "/archive";
const AMAZON: &str = "s3.amazonaws.com";

impl Ambient<'_> {
    /// Sets each destination that is named, and gives their names; the folder is always there.
    pub(super) fn destinations(&mut self) -> Result<Vec<&'static str>> {
        let mut places = vec!["local"];
        self.folder()?;
        if self.s3()? {
            places.push("s3");
        }
        if self.azure()? {
            places.push("azure");
        }
        if self.sftp()? {
            places.push("sftp");
        }
        Ok(places)
    }

    fn folder(&mut self) -> Result<()> {
        let archive = Path::new(ARCHIVE);
        let usual = match self.has_volumes() && (is_mount(archive) || has_entries(archive)) {
            true => ARCHIVE,
            false => "/backups",
        };
        let folder = self.first_or(&FOLDER, usual)?;
        if !folder.value.starts_with('/') {
            return Err(Fault::usage(format!(
                "{} can't be {:?}: it does not start at the root",
                folder.variable, folder.value
            ))
            .hint("for example /backups"));
        }
        let url = format!("file://{}", address::encode(&folder.value, "/"));
        self.layer.set("destinations.local.url", url, &folder.variable);
        Ok(())
    }

    fn s3(&mut self) -> Result<bool> {
        let Some(bucket) = self.first(&BUCKET)? else { return Ok(false) };
        let prefix = self.first_or(&["S3_PREFIX", "AWS_S3_PATH"], "")?;
        let url = format!("s3://{}/{}", bucket.value, prefix.value.trim_start_matches('/'));
        self.layer.set("destinations.s3.url", url, &bucket.variable);
        if let Some(endpoint) = self.s3_endpoint()? {
            self.set("destinations.s3.endpoint", &endpoint);
        }
        for (names, key) in [
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
        Ok(true)
    }

    /// A whole URL, or docker-volume-backup's host beside its protocol. None: Amazon's own.
    fn s3_endpoint(&self) -> Result<Option<Found>> {
        let found = self.first(&["S3_ENDPOINT", "AWS_S3_ENDPOINT_URL", "AWS_ENDPOINT"])?;
        let Some(Found { value, variable }) = found.filter(|found| found.value != AMAZON) else {
            return Ok(None);
        };
        if value.contains("://") {
            return Ok(Some(Found { value, variable }));
        }
        let protocol = self.first_or(&["AWS_ENDPOINT_PROTO"], "https")?.value;
        Ok(Some(Found { value: format!("{protocol}://{value}"), variable }))
    }

    fn azure(&mut self) -> Result<bool> {
        let Some(container) = self.first(&["AZURE_STORAGE_CONTAINER_NAME"])? else {
            return Ok(false);
        };
        let path = self.first_or(&["AZURE_STORAGE_PATH"], "")?.value;
        let url = format!("az://{}/{}", container.value, path.trim_start_matches('/'));
        self.layer.set("destinations.azure.url", url, &container.variable);
        if let Some(found) = self.first(&["AZURE_STORAGE_PRIMARY_ACCOUNT_KEY"])? {
            self.set_secret("destinations.azure.access_key", &found);
        }
        if let Some(found) = self.first(&["AZURE_STORAGE_ACCESS_TIER"])? {
            self.set("destinations.azure.storage_class", &found);
        }
        if let Some(found) = self.first(&["AZURE_STORAGE_ENDPOINT"])? {
            let account = self.first_or(&["AZURE_STORAGE_ACCOUNT_NAME"], "")?.value;
            let value = match found.value.split_once("{{") {
                Some((before, rest)) => {
                    let after = rest.split_once("}}").map_or("", |(_, after)| after);
                    format!("{before}{account}{after}")
                }
                None => found.value,
            };
            self.layer.set("destinations.azure.endpoint", value, &found.variable);
        }
        Ok(true)
    }

    fn sftp(&mut self) -> Result<bool> {
        let Some(host) = self.first(&["SSH_HOST_NAME"])? else { return Ok(false) };
        let port = self.first_or(&["SSH_PORT"], "22")?;
        let number = port.value.trim().parse().map_err(|_| {
            Fault::usage(format!("{} can't be {:?}: it is no port", port.variable, port.value))
                .hint("SSH's own is 22")
        })?;
        let path = self.first_or(&["SSH_REMOTE_PATH"], "~")?.value;
        // A path that does not start at the root is below the user's home.
        let path = match path.strip_prefix('/') {
            Some(path) => path.to_owned(),
            None if path.starts_with('~') => path,
            None => format!("~/{path}"),
        };
        let user = self.first(&["SSH_USER"])?.map(|user| user.value);
        let url = Address {
            scheme: "sftp".into(),
            user,
            password: None,
            host: host.value,
            port: Some(number),
            path,
            query: Vec::new(),
        };
        self.layer.set("destinations.sftp.url", url.show(), &host.variable);
        let password = self.first(&["SSH_PASSWORD"])?;
        let key = match self.first(&["SSH_IDENTITY_FILE"])? {
            None if password.is_none() => {
                Some(Found { value: "/root/.ssh/id_rsa".into(), variable: String::new() })
            }
            key => key,
        };
        match (key, password) {
            (Some(key), password) => {
                self.set("destinations.sftp.private_key_file", &key);
                if let Some(found) = self.first(&["SSH_IDENTITY_PASSPHRASE"])? {
                    self.set_secret("destinations.sftp.passphrase", &found);
                }
                if let Some(password) = password {
                    let why = "since SSH_IDENTITY_FILE is set";
                    self.warnings.push(format!("{} is ignored, {why}", password.variable));
                }
            }
            (None, Some(password)) => self.set_secret("destinations.sftp.password", &password),
            (None, None) => {}
        }
        if self.first(&["SFTP_HOST_KEY"])?.is_none() {
            self.warnings.push(
                "destinations.sftp: the server's own key is not known, and respaldo sends nothing \
                 to a stranger; `respaldo config check` says it: set SFTP_HOST_KEY"
                    .into(),
            );
        }
        Ok(true)
    }
}
