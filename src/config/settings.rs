//! What the rest of the house is told: checked values with their units, secrets as [`Secret`].
//! Knows no file format; must not hold anything that still has to be looked up.

mod alert;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::destination::{AzureOptions, GcsOptions, S3Options, SftpOptions};
use crate::model::{Compression, JobName, Role};
use crate::pipeline::Seal;
use crate::retention::Policy;
use crate::schedule::Schedule;
use crate::secret::Secret;
pub use crate::source::command::Command;
use crate::source::postgres::Selection;
use crate::space::Floor;
pub use alert::{AlertRoute, Channel, Email, Slack, Tls};

/// The whole config, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub timezone: TimeZone,
    /// Catalog, run logs, signing key. Absolute.
    pub data_dir: PathBuf,
    /// Runs at once; at least 1.
    pub workers: usize,
    /// Runs at once that read from the same database server; at least 1.
    pub runs_per_server: usize,
    /// How long a destination may make no progress before it is dropped from a run.
    pub stall: Duration,
    pub server: Server,
    /// When missing backups are brought from one destination to another; may be empty.
    pub sync: Schedule,
    /// That schedule as it was written.
    pub sync_lines: Vec<String>,
    /// Public keys, besides the own one, whose signatures a restore takes.
    pub trusted_keys: Vec<String>,
    pub destinations: BTreeMap<String, Destination>,
    /// The destinations that are somewhere else than what is backed up.
    pub off_site: BTreeSet<String>,
    pub jobs: BTreeMap<JobName, Job>,
    pub alerts: Vec<AlertRoute>,
    /// Where each secret was given, by its dotted key; for [`super::show`].
    pub secrets: BTreeMap<String, Given>,
}

/// Where a secret was given; never the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// In a file of its own.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
    /// In the config itself.
    Inline,
}

/// What is answered over HTTP, and to whom.
#[derive(Debug, Clone)]
pub struct Server {
    pub listen: SocketAddr,
    /// Further names of this machine that a request may be for; in lower case, without a port.
    pub hosts: Vec<String>,
    /// Whoever comes without a token is a viewer.
    pub open_to_read: bool,
    /// The page's cookie goes over HTTPS only.
    pub secure_cookies: bool,
    pub tokens: Vec<Token>,
}

impl Server {
    /// Whether a token of that name comes from the config.
    pub fn has_token(&self, name: &JobName) -> bool {
        self.tokens.iter().any(|token| token.name == *name)
    }
}

/// A token from the config.
#[derive(Debug, Clone)]
pub struct Token {
    pub name: JobName,
    pub role: Role,
    pub token: Secret,
}

/// A place where backups are kept, and on what terms.
#[derive(Debug, Clone)]
pub struct Destination {
    pub kind: DestinationKind,
    /// Bytes per second, for uploads and for downloads each.
    pub bandwidth: Option<u64>,
    /// Nothing is ever deleted there.
    pub append_only: bool,
    /// How much must stay free there; None: enough for what comes.
    pub free: Option<Floor>,
}

/// The kinds of places, each with how to get in.
#[derive(Debug, Clone)]
pub enum DestinationKind {
    /// A folder; absolute.
    Local {
        path: PathBuf,
    },
    S3(S3Options),
    Azure(AzureOptions),
    Gcs(GcsOptions),
    Sftp(SftpOptions),
}

/// What is backed up, when, to where, and how long it is kept.
#[derive(Debug, Clone)]
pub struct Job {
    pub name: JobName,
    /// At least one; read one after the other, into one backup.
    pub sources: Vec<Source>,
    /// Empty: the job runs only when asked to.
    pub schedule: Schedule,
    /// The schedule as it was written.
    pub schedule_lines: Vec<String>,
    /// The upper limit of a start's random delay; part of `schedule`.
    pub jitter: SignedDuration,
    /// Of a job that backs a server up whole.
    pub incremental: Option<Incremental>,
    /// The job's destinations by name; at least one.
    pub keep: BTreeMap<String, Policy>,
    /// How old the newest backup may become. None: derived from the schedule.
    pub max_age: Option<SignedDuration>,
    /// By how many percent a backup may be smaller than usual; None: that is not looked at.
    pub anomaly: Option<u8>,
    /// Whether the daemon repairs on one destination what is missing there.
    pub sync: bool,
    /// Make up for a missed run at start.
    pub catch_up: bool,
    pub compression: Compression,
    /// 1 to 22 for zstd, 1 to 12 for gzip; None is the codec's default.
    pub level: Option<i32>,
    /// Who can read its backups. None: everybody.
    pub encrypt: Option<Encrypt>,
    pub hooks: Option<Hooks>,
    pub drill: Option<Drill>,
    pub verify: Option<Verify>,
    /// Of a job that backs a server up whole.
    pub wal: Option<Wal>,
    /// How long a restore keeps what it replaced.
    pub keep_old: SignedDuration,
    /// How often its files are looked at for changes, where those make it run.
    pub on_change: Option<Duration>,
    /// How long a run may take.
    pub deadline: Duration,
    /// Further tries after a failure.
    pub retries: u32,
    /// Artifacts are cut into files of at most so many bytes.
    pub volume_bytes: u64,
}

/// When only the changes of a server are backed up.
#[derive(Debug, Clone)]
pub struct Incremental {
    /// Empty: only when asked to.
    pub schedule: Schedule,
    pub schedule_lines: Vec<String>,
    /// So many may follow a full backup.
    pub most: usize,
}

/// Who can read a job's backups.
#[derive(Debug, Clone)]
pub struct Encrypt {
    pub to: Recipients,
    /// Schemas whose own archive others can read instead, by name.
    pub schemas: BTreeMap<String, Recipients>,
}

/// Keys that were read and can be used, and how they were given.
#[derive(Debug, Clone)]
pub struct Recipients {
    pub seal: Seal,
    pub written: Written,
}

/// How recipients were given.
#[derive(Debug, Clone)]
pub enum Written {
    Age(Vec<String>),
    /// Absolute.
    Openpgp(Vec<PathBuf>),
    AgePassphrase,
    OpenpgpPassphrase,
}

/// Programs before and after each backup and restore, with their arguments; empty: none.
#[derive(Debug, Clone)]
pub struct Hooks {
    pub before: Vec<String>,
    pub after: Vec<String>,
    pub before_restore: Vec<String>,
    pub after_restore: Vec<String>,
    /// How long each may take.
    pub limit: Duration,
}

/// When a job's backups are proven, and by what.
#[derive(Debug, Clone)]
pub struct Drill {
    /// Empty: only when asked to.
    pub schedule: Schedule,
    pub schedule_lines: Vec<String>,
    /// SQL statements whose first value must be true.
    pub checks: Vec<String>,
    /// Programs with their arguments.
    pub programs: Vec<Vec<String>>,
    pub deadline: Duration,
    /// Absolute.
    pub identity_files: Vec<PathBuf>,
    /// Absolute.
    pub passphrase_file: Option<PathBuf>,
    /// Where databases of PostgreSQL are loaded; None: on a server that is started for it.
    pub server: Option<Postgres>,
}

/// When a job's backups are read back.
#[derive(Debug, Clone)]
pub struct Verify {
    pub schedule: Schedule,
    pub schedule_lines: Vec<String>,
    /// Within so many days every backup on every destination is read.
    pub days: u32,
}

#[derive(Debug, Clone)]
pub enum Source {
    Postgres(Postgres),
    Physical(Physical),
    Mysql(Mysql),
    Command(Command),
    Sqlite {
        /// Absolute.
        path: PathBuf,
        fingerprint: Depth,
    },
    Files {
        /// Absolute; at least one.
        paths: Vec<PathBuf>,
        /// Globs, relative to each path.
        exclude: Vec<String>,
        unreadable: Unreadable,
    },
}

#[derive(Debug, Clone)]
pub struct Postgres {
    /// A name, an address, or the folder of a socket when it starts with `/`.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
    pub password: Option<Secret>,
    /// One of libpq's own words, such as `verify-full`.
    pub sslmode: Option<String>,
    pub sslrootcert: Option<PathBuf>,
    pub sslcert: Option<PathBuf>,
    pub sslkey: Option<PathBuf>,
    pub format: PgFormat,
    /// Several databases of the server, by name and pattern; empty: the one in the URL.
    pub databases: Vec<String>,
    /// Schemas, tables and rows that are left out or get an archive of their own.
    pub selection: Selection,
    /// How many archives are read at once; at least 1.
    pub streams: usize,
    pub fingerprint: Depth,
    /// Roles, tablespaces and settings of the server too.
    pub globals: bool,
    /// The folder of `pg_dump` and `pg_restore`; None: the best installed ones are looked for.
    pub bin_dir: Option<PathBuf>,
}

/// A server that is backed up whole.
#[derive(Debug, Clone)]
pub struct Physical {
    pub server: Postgres,
    /// Goes on though nothing bounds what its slot keeps.
    pub allow_unbounded_slot: bool,
    /// The server may compress what it sends.
    pub server_compression: bool,
}

/// How a server's log is kept.
#[derive(Debug, Clone)]
pub struct Wal {
    /// How old what is not stored yet may become.
    pub max_lag: SignedDuration,
    /// How often what is being written is stored.
    pub every: Duration,
    /// When the server keeps more than so many bytes for us, they are given up.
    pub slot_limit: Option<u64>,
    /// For how long every moment can be recovered from a destination; one that is not named keeps all the
    /// log since its oldest base backup.
    pub keep: BTreeMap<String, SignedDuration>,
}

#[derive(Debug, Clone)]
pub struct Mysql {
    /// A name or an address; a socket's file when it starts with `/`.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
    pub password: Option<Secret>,
    /// One of MySQL's own words, such as `verify_identity`.
    pub ssl_mode: Option<String>,
    pub ssl_ca: Option<PathBuf>,
    /// Both or neither.
    pub ssl_cert: Option<PathBuf>,
    pub ssl_key: Option<PathBuf>,
    /// The folder of `mariadb-dump` and `mariadb`; None: installed ones are looked for.
    pub bin_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PgKind {
    /// a database, by pg_dump
    #[default]
    Logical,
    /// the whole server with its log, by pg_basebackup and pg_receivewal, for recovery to any moment
    Physical,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PgFormat {
    /// pg_dump's custom format, read by pg_restore
    #[default]
    Custom,
    /// SQL text, read by psql
    Plain,
}

/// What is taken of every table at the snapshot, to compare a restore with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// rows are counted
    #[default]
    Auto,
    /// nothing
    Off,
    /// rows are counted
    Counts,
    /// rows are counted and hashed, which costs about as much as a dump
    Content,
}

/// What becomes of a run that meets a file it may not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unreadable {
    /// the run fails
    #[default]
    Fail,
    /// the file is left out, with a warning
    Warn,
}
