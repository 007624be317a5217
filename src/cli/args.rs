//! The words of the command line. They are a contract: scripts rely on them.

mod keeping;
mod restore;
mod token;
mod wal;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::job::Choice;
use crate::model::{BackupId, JobName, RunId, VERSION};
use crate::report::Month;
use crate::telemetry::Format;

pub use keeping::{Erase, Import, Pin, Prune, Sync, Unpin};
pub use restore::{Drill, Restore, Undo};
pub use token::Token;
pub use wal::Wal;

/// Backs up databases and files, keeps the backups, and restores them.
#[derive(Debug, Parser)]
#[command(name = "respaldo", version = VERSION, about, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 bad usage or config, 3 partial.\n\
    Without a config file the environment is read: DB_HOST, DB_NAME, DB_USER, DB_PASSWORD, \
    BACKUP_DIR, ...")]
pub struct Args {
    /// The config file [default: $RESPALDO_CONFIG, then /etc/respaldo/config.toml]
    #[arg(long, short, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How the log is written
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon: backups on schedule, health over HTTP
    Run,
    /// Back up now; exit 0 all destinations, 3 partial, 1 failed
    #[command(
        after_help = "Exit codes: 0 on every destination, 1 no backup was made, 3 not on every destination."
    )]
    Backup(Backup),
    /// List backups
    List(List),
    /// Show one backup
    Show(Show),
    /// Read every byte of a backup back; exit 0 only if all of it checks
    #[command(
        after_help = "Exit codes: 0 every byte checks, 1 it does not. With --due: 3 a destination does not answer."
    )]
    Verify(Verify),
    /// Restore a backup into a database, a file or a folder
    #[command(
        after_help = "Exit codes: 0 restored, 1 not: what was there is as it was, 2 refused before that."
    )]
    Restore(Box<Restore>),
    /// Put back what the last restore of a job has replaced
    Undo(Undo),
    /// Restore a backup into a place of its own and compare; exit 0 only if it is proven
    #[command(after_help = "Exit codes: 0 proven, 1 not, or not provable here.")]
    Drill(Drill),
    /// Delete what no retention rule keeps
    #[command(after_help = "Exit codes: 0 done, 1 a plan was held back or a destination failed.")]
    Prune(Prune),
    /// Bring to each destination what it lacks and another one has
    #[command(
        after_help = "Exit codes: 0 nothing is missing, 1 nothing could be copied, 3 something is still missing."
    )]
    Sync(Sync),
    /// Take a schema out of every backup, or note what no restore may bring back
    #[command(
        after_help = "Exit codes: 0 all of it, 3 some of it is left or a destination was not reached."
    )]
    Erase(Erase),
    /// Keep a backup whatever the retention rules say
    #[command(
        after_help = "Exit codes: 0 wherever it is, 1 nowhere, 3 a destination was not reached."
    )]
    Pin(Pin),
    /// Leave a pinned backup to the retention rules again
    #[command(
        after_help = "Exit codes: 0 wherever it is, 1 nowhere, 3 a destination was not reached."
    )]
    Unpin(Unpin),
    /// Take in the dumps of an old script
    #[command(
        after_help = "Exit codes: 0 all that is wanted, 1 nothing, 3 some files were refused or failed."
    )]
    Import(Import),
    /// A month of every job: what was made, missed, proven and kept
    Report(Report),
    /// Show every job's state
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask the running daemon for its health; exit 0 only if all is well
    #[command(after_help = "Exit codes: 0 healthy or unproven, 1 anything else, or no answer.")]
    Health(Health),
    /// The ways to tell people
    #[command(subcommand)]
    Alert(Alert),
    /// Check, show, describe or begin a config
    #[command(subcommand)]
    Config(Config),
    /// The daemon's memory
    #[command(subcommand)]
    Catalog(Catalog),
    /// Print the rules by which object stores delete on their own
    Lifecycle {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// The write-ahead log of a server that is backed up whole
    #[command(subcommand)]
    Wal(Wal),
    /// Keys for encrypted backups
    #[command(subcommand)]
    Key(Key),
    /// Tokens: who may ask the daemon over HTTP, and for what
    #[command(subcommand)]
    Token(Token),
    /// Who did what, when, from where
    Audit(Audit),
    /// Stop a run
    Cancel {
        /// Its number, from `respaldo status`
        run: RunId,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Health {
    /// Of this job alone
    #[arg(long, value_name = "JOB")]
    pub job: Option<JobName>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Backup {
    /// Jobs of the config
    #[arg(required_unless_present = "all", value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Every job of the config
    #[arg(long, conflicts_with = "jobs")]
    pub all: bool,
    /// Only what has changed since the last base backup, of jobs with `incremental`
    #[arg(long)]
    pub incremental: bool,
    /// A word to find it by, such as pre-migration
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// Keep it whatever the retention rules say, until it is unpinned
    #[arg(long)]
    pub pin: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct List {
    /// One job only
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    /// Read a destination directly; needs neither config nor catalog
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Show {
    /// A job of the config
    #[arg(value_name = "JOB")]
    pub job: String,
    /// A backup's id, from `respaldo list`
    #[arg(value_name = "ID")]
    pub id: BackupId,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Verify {
    /// A job of the config
    #[arg(value_name = "JOB")]
    pub job: String,
    /// A backup's id, or latest
    #[arg(value_name = "ID", default_value = "latest")]
    pub id: Choice,
    /// The newest with this label
    #[arg(long, value_name = "TEXT", conflicts_with = "id")]
    pub label: Option<String>,
    /// One destination only [default: each that has it]
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    pub destination: Option<String>,
    /// Read a destination directly; needs neither config nor catalog
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// Only the stored bytes and their digests: nothing is decrypted, decompressed or looked into
    #[arg(long, conflicts_with_all = ["identity", "passphrase_file"])]
    pub stored: bool,
    /// Read what is due by the job's `verify`, as the daemon does
    #[arg(long, conflicts_with_all = ["id", "label", "destination", "from", "stored", "identity", "passphrase_file"])]
    pub due: bool,
    #[command(flatten)]
    pub unlock: Unlock,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What opens an encrypted backup.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Unlock {
    /// A private key, of age or OpenPGP; may be given several times
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// A file that holds a passphrase: of the backup, or of an OpenPGP key
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Report {
    /// Which month, such as 2025-11 [default: the last that is over]
    #[arg(long, value_name = "YYYY-MM")]
    pub month: Option<Month>,
    /// Print JSON
    #[arg(long, conflicts_with = "html")]
    pub json: bool,
    /// Write a page that needs nothing else, to send or to print
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Audit {
    /// Only what is not older, such as 7d [default: all of it]
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration)]
    pub since: Option<jiff::SignedDuration>,
    /// One job only
    #[arg(long, value_name = "JOB")]
    pub job: Option<JobName>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Alert {
    /// Send one message by each of them now; exit 0 only if all arrived
    #[command(after_help = "Exit codes: 0 all arrived, 1 one did not.")]
    Test(AlertTest),
}

#[derive(Debug, ClapArgs)]
pub struct AlertTest {
    /// One section [alerts.NAME] only
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check the file, and try every source and destination
    #[command(after_help = "Exit codes: 0 all answer, 1 one does not, 2 the config is wrong.")]
    Check,
    /// Print the effective config, without secrets
    Show,
    /// Print a JSON Schema for editors
    Schema,
    /// Write a first config
    Init {
        /// Where to [default: stdout]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a pair of keys: the private one opens what is encrypted to the public one
    Generate {
        /// Where the private key goes, readable by its owner alone [default: stdout]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Catalog {
    /// Make the catalog anew from what is on the destinations
    #[command(after_help = "Exit codes: 0 all were read, 3 a destination or a manifest was not.")]
    Rebuild,
}
