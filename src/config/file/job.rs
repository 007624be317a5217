//! A job as it is written, and what is around its source: hooks, drills, verification.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FileEncrypt, FileSource, lines, names, secret};
use crate::model::Compression;
use crate::retention::Policy;

/// What is backed up, when, to where, and how long it is kept.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct FileJob {
    /// What is backed up.
    pub source: Option<FileSource>,
    /// Several things in one backup, in the order in which they are read: databases before the files
    /// that they speak of.
    pub sources: Option<Vec<FileSource>>,
    /// Cron lines or names such as @daily; without any, the job runs only when asked to.
    #[serde(default)]
    #[schemars(schema_with = "lines")]
    pub schedule: Option<Vec<String>>,
    /// Cron lines at which only what has changed since the last base backup is taken, for a source with
    /// kind = "physical" on PostgreSQL 17 and newer; before 17 the log is what is incremental. Default:
    /// none.
    #[serde(default)]
    #[schemars(schema_with = "lines", extend("examples" = ["0 */4 * * *"]))]
    pub incremental: Option<Vec<String>>,
    /// So many incremental backups may follow a full one; then the next is a full one again. Default: 24.
    #[schemars(range(min = 1, max = 1000))]
    pub max_chain: Option<usize>,
    /// Destinations by name, and what each of them keeps. Default: all, and everything.
    pub keep: Option<BTreeMap<String, Policy>>,
    /// How old the newest backup may become. Default: derived from the schedule.
    #[schemars(extend("examples" = ["13h"]))]
    pub max_age: Option<String>,
    /// Make up for a missed run at start. Default: true.
    pub catch_up: Option<bool>,
    /// By how much smaller than usual a backup may be before an alert is raised and older ones are
    /// kept until somebody has looked; or off. Default: 50%.
    #[schemars(extend("examples" = ["50%"]))]
    pub anomaly: Option<String>,
    /// Repair on one destination what is missing there, by the schedule of [sync]. Default: true.
    pub sync: Option<bool>,
    /// The upper limit of a random delay of each start. Default: none.
    #[schemars(extend("examples" = ["5m"]))]
    pub jitter: Option<String>,
    /// What artifacts are compressed with. Default: zstd.
    #[schemars(with = "Option<String>", extend("enum" = ["zstd", "gzip", "none"]))]
    pub compression: Option<Compression>,
    /// How hard it tries: 1 to 22 for zstd, 1 to 12 for gzip. Default: 1.
    pub level: Option<i32>,
    /// To whom backups are encrypted. Default: to nobody, and whoever reads the files can read them.
    pub encrypt: Option<FileEncrypt>,
    /// How long a run may take. Default: 24h.
    #[schemars(extend("examples" = ["24h"]))]
    pub deadline: Option<String>,
    /// Run when the files have changed and come to rest, with or without a schedule. Default: false.
    pub on_change: Option<bool>,
    /// How often the files are looked at, for on_change. Default: 60s.
    #[schemars(extend("examples" = ["60s"]))]
    pub poll: Option<String>,
    /// Programs that run before and after each backup.
    pub hooks: Option<FileHooks>,
    /// How backups are proven: each drill restores the newest one into a place of its own and compares
    /// every table. Default: only when asked to.
    pub drill: Option<FileDrill>,
    /// How backups are read back, old ones too. Default: only when asked to.
    pub verify: Option<FileVerify>,
    /// How the write-ahead log is kept, for a source with kind = "physical".
    pub wal: Option<FileWal>,
    /// How long a restore keeps what it replaced, for undo. Default: 72h.
    #[schemars(extend("examples" = ["72h"]))]
    pub keep_old: Option<String>,
    /// How often a failed run is tried again. Default: 2.
    #[schemars(range(max = 100))]
    pub retries: Option<u32>,
    /// Artifacts are cut into files of at most this size. Default: 64GiB.
    #[schemars(extend("examples" = ["64GiB"]))]
    pub volume_size: Option<String>,
}

/// Programs before and after a backup; they find RESPALDO_JOB, RESPALDO_ID and, after, RESPALDO_STATE.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct FileHooks {
    /// A program and its arguments; where it fails, nothing is backed up.
    #[schemars(schema_with = "names")]
    pub before: Option<Vec<String>>,
    /// A program and its arguments; it runs in every case, also when the backup failed.
    #[schemars(schema_with = "names")]
    pub after: Option<Vec<String>>,
    /// A program and its arguments; it runs when a restore has loaded everything, before any of it is put
    /// in its place, to stop the application; where it fails, nothing is changed.
    #[schemars(schema_with = "names")]
    pub before_restore: Option<Vec<String>>,
    /// A program and its arguments; it runs when a restore is over, whatever became of it.
    #[schemars(schema_with = "names")]
    pub after_restore: Option<Vec<String>>,
    /// How long each may take. Default: 5m.
    #[schemars(extend("examples" = ["5m"]))]
    pub timeout: Option<String>,
}

/// When backups are proven, and by what.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct FileDrill {
    /// Cron lines or names such as @weekly; without any, only when asked to.
    #[schemars(schema_with = "lines")]
    pub schedule: Option<Vec<String>>,
    /// SQL statements, of which each must return true.
    #[schemars(schema_with = "names")]
    pub checks: Option<Vec<String>>,
    /// Programs with their arguments, of which each must exit with 0; they find the restored database
    /// by PGHOST and the like, or the folder by RESPALDO_PATH.
    pub programs: Option<Vec<Vec<String>>>,
    /// How long a drill may take. Default: 12h.
    #[schemars(extend("examples" = ["12h"]))]
    pub deadline: Option<String>,
    /// Private keys that open encrypted backups. They are read when a drill needs them.
    #[schemars(schema_with = "names")]
    pub identity_file: Option<Vec<String>>,
    /// The file that holds the passphrase of encrypted backups.
    pub passphrase_file: Option<PathBuf>,
    /// A server on which databases of PostgreSQL are made, loaded and dropped, as a URL. Default: one
    /// that is started for the drill.
    #[schemars(extend("examples" = ["postgres://prover@scratch:5432/postgres"], "x-address" = true))]
    pub server: Option<String>,
    /// Its password; better in server_password_file.
    #[schemars(schema_with = "secret")]
    pub server_password: Option<String>,
    /// The file that holds its password.
    pub server_password_file: Option<PathBuf>,
}

/// How a server's write-ahead log is kept.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct FileWal {
    /// How old what is not stored yet may become before the job is called late. Default: 15m.
    #[schemars(extend("examples" = ["15m"]))]
    pub max_lag: Option<String>,
    /// How often what is being written is stored. Default: 5s.
    #[schemars(extend("examples" = ["5s"]))]
    pub every: Option<String>,
    /// When the server has to keep more than this for us, it is let go: a gap is recorded, and a new
    /// full backup made. Default: only the server's own max_slot_wal_keep_size.
    #[schemars(extend("examples" = ["10GiB"]))]
    pub slot_limit: Option<String>,
    /// Destinations by name, and how long every moment can be recovered from each of them. Older log goes,
    /// except what a base backup needs to come to its own end. Default: all since the oldest base backup.
    #[schemars(extend("examples" = [{ "local": "7d", "offsite": "30d" }]))]
    pub keep: Option<BTreeMap<String, String>>,
}

/// When backups are read back.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct FileVerify {
    /// Cron lines or names such as @daily.
    #[schemars(schema_with = "lines")]
    pub schedule: Option<Vec<String>>,
    /// Within so many days every backup on every destination is read. Default: 30.
    #[schemars(range(min = 1, max = 3650))]
    pub days: Option<u32>,
}
