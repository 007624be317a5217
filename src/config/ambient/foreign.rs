//! Variables of other tools that mean nothing here. One that people rely on stops the start, with
//! what to do instead; one that only shaped the other tool's work gets a word. Knows no config key.

use super::Ambient;
use crate::config::shape;
use crate::fault::{Fault, Result};

/// A star stands for the rest of a name. What follows says why, and the next step.
const REFUSED: [(&str, &str, &str); 12] = [
    ("WEBDAV_*", "respaldo knows no WebDAV, and that copy would be missing", ELSEWHERE),
    ("DROPBOX_*", "respaldo knows no Dropbox, and that copy would be missing", ELSEWHERE),
    ("GOOGLE_DRIVE_*", "respaldo knows no Google Drive, and that copy would be missing", ELSEWHERE),
    (
        "AZURE_STORAGE_CONNECTION_STRING",
        "it is not taken apart",
        "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_PRIMARY_ACCOUNT_KEY, which are in it",
    ),
    (
        "AWS_ENDPOINT_INSECURE",
        "certificates are always checked",
        "set SSL_CERT_FILE to a PEM file with the store's own authority, and unset it",
    ),
    (
        "AWS_ENDPOINT_CA_CERT",
        "respaldo reads no authority of its own for S3",
        "set SSL_CERT_FILE to that file, with the usual authorities in it where others are asked too",
    ),
    (
        "BACKUP_EXCLUDE_REGEXP",
        "files are left out by patterns, not by regular expressions",
        "set RESPALDO__JOBS__FILES__SOURCE__EXCLUDE=**/*.log,cache/** or the like, and unset it",
    ),
    ("BACKUP_STOP_DURING_BACKUP_LABEL", "respaldo stops no containers", STOP),
    ("BACKUP_STOP_CONTAINER_LABEL", "respaldo stops no containers", STOP),
    ("EXEC_LABEL", "respaldo runs nothing in other containers", STOP),
    (
        "GPG_PUBLIC_KEY_RING",
        "a key is read from a file",
        "write it into one, and name that: GPG_PUBLIC_KEY_RING_FILE",
    ),
    (
        "POSTGRES_PASSFILE_STORE",
        "respaldo reads no password file of libpq",
        "put the password alone into a file, and name that: POSTGRES_PASSWORD_FILE",
    ),
];
const ELSEWHERE: &str =
    "keep it in S3, Azure, GCS or over SFTP (docs/destinations.md), and unset what begins so";
const STOP: &str = "a database needs no stop when it is backed up by itself (DB_NAME and so on); for files \
                    write a config with hooks (docs/sources.md); then unset it";

const IDLE: [(&str, &str); 19] = [
    ("BACKUP_FILENAME", "a backup has a folder named by its time"),
    ("BACKUP_FILENAME_EXPAND", "a backup has a folder named by its time"),
    ("BACKUP_SUFFIX", "files are named by what is in them"),
    ("BACKUP_LATEST_SYMLINK", "`respaldo restore` takes the newest unless told another"),
    ("BACKUP_LATEST_TYPE", "`respaldo restore` takes the newest unless told another"),
    ("BACKUP_PRUNING_LEEWAY", "retention is counted from the start of a run"),
    ("BACKUP_PRUNING_PREFIX", "respaldo deletes only what it made itself"),
    ("BACKUP_FROM_SNAPSHOT", "a file that changes while it is read is reported"),
    ("BACKUP_STOP_SERVICE_TIMEOUT", "respaldo stops no services"),
    ("EXEC_FORWARD_OUTPUT", "respaldo runs nothing in other containers"),
    ("DOCKER_HOST", "respaldo does not talk to Docker: no label of a container counts"),
    ("SSH_UPLOAD_RETRIES", "what failed is tried again: `retries` of a job"),
    ("SSH_UPLOAD_RETRY_DELAY", "what failed is tried again: `retries` of a job"),
    ("LOCK_TIMEOUT", "a job never overlaps itself: the second run waits"),
    ("GZIP_PARALLELISM", "gzip uses every processor"),
    ("AWS_PART_SIZE", "parts have 8 MiB, and larger files are cut into volumes"),
    ("AWS_IAM_ROLE_ENDPOINT", "without keys the machine's own role is asked for"),
    ("VALIDATE_ON_START", "the config is always checked"),
    ("WEBHOOK_EXTRA_ARGS", "headers for a webhook need a config: docs/alerts.md"),
];

impl Ambient<'_> {
    /// Refuses the first variable that would be missed, and says which of the others do nothing.
    pub(super) fn foreign(&mut self) -> Result<()> {
        for (name, why, hint) in REFUSED {
            if let Some(set) = self.variables.keys().find(|set| self.is_wanted(set, name)) {
                return Err(Fault::usage(format!("{set} is set: {why}")).hint(hint));
            }
        }
        for (name, why) in IDLE {
            if let Some(set) = self.variables.keys().find(|set| self.is_wanted(set, name)) {
                self.warnings.push(format!("{set} has no effect: {why}"));
            }
        }
        Ok(())
    }

    /// Whether the variable `set` is the one called so, and asks for something.
    fn is_wanted(&self, set: &str, name: &str) -> bool {
        // Its file is what is asked for there.
        let own = name != "GPG_PUBLIC_KEY_RING";
        let plain = set.strip_suffix("_FILE").filter(|_| own).unwrap_or(set);
        let named = match name.strip_suffix('*') {
            Some(start) => plain.starts_with(start),
            None => plain == name,
        };
        let value = self.variables.get(set).map_or("", |value| value.trim());
        named && !value.is_empty() && shape::truth(value) != Some(false)
    }
}
