//! The words of what brings a backup back, for good or for a try.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::Unlock;
use crate::job::Choice;

#[derive(Debug, ClapArgs)]
pub struct Restore {
    /// A job of the config [default: for a dump on disk, the only one that it suits]
    #[arg(value_name = "JOB", required_unless_present_any = ["all", "list", "file", "db", "media"])]
    pub job: Option<String>,
    /// A backup's id, or latest
    #[arg(value_name = "ID", default_value = "latest")]
    pub id: Choice,
    /// Several jobs together, each from its backup that is nearest to the first one's
    #[arg(long, value_name = "JOB", num_args = 1.., conflicts_with_all = ["job", "from", "destination"])]
    pub all: Vec<String>,
    /// The newest with this label
    #[arg(long, value_name = "TEXT", conflicts_with = "id")]
    pub label: Option<String>,
    /// From this destination of the config
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    pub destination: Option<String>,
    /// From this URL; needs neither config nor catalog
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    #[command(flatten)]
    pub given: Given,
    #[command(flatten)]
    pub unlock: Unlock,
    /// Into this database [default: the one that was backed up]
    #[arg(long, value_name = "NAME", conflicts_with = "to")]
    pub database: Option<String>,
    /// Into this new file (SQLite) or folder (files) [default: where it was backed up]
    #[arg(long, value_name = "PATH")]
    pub to: Option<PathBuf>,
    /// Of files, only this path or glob, relative to the folder; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub path: Vec<String>,
    /// Print the plan and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Take a backup that no known key signed
    #[arg(long)]
    pub trust: bool,
    /// Load only this artifact; may be given several times
    #[arg(long, value_name = "NAME")]
    pub artifact: Vec<String>,
    /// Leave out owners and grants, where their roles do not exist
    #[arg(long, conflicts_with = "create_roles")]
    pub no_owner: bool,
    /// Make the roles that are missing, without a login
    #[arg(long)]
    pub create_roles: bool,
    /// Change the live database itself, after a safety backup, where no other can be made beside it
    #[arg(long, conflicts_with_all = ["schema", "table", "to"])]
    pub in_place: bool,
    /// Only this schema, into a schema of its own in the database that is there
    #[arg(long, value_name = "NAME", conflicts_with = "table")]
    pub schema: Option<String>,
    /// Only this table, into a schema of its own in the database that is there
    #[arg(long, value_name = "SCHEMA.TABLE")]
    pub table: Option<String>,
    /// The schema that --schema or --table goes into [default: named for the backup]
    #[arg(long, value_name = "SCHEMA")]
    pub into: Option<String>,
    /// Then copy back those of its rows that are missing where they were
    #[arg(long = "where", value_name = "CONDITION")]
    pub rows: Option<String>,
    /// How many sessions load at once [default: as the machine suits]
    #[arg(long, value_name = "N")]
    pub jobs: Option<std::num::NonZeroU8>,
    /// Put it in place although it is not, table by table, what was backed up
    #[arg(long)]
    pub unchecked: bool,
}

/// Dumps on disk that respaldo did not make, and what there is to restore.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Given {
    /// Of this dump on disk: SQL, a pg_dump archive, an SQLite file or a tar; also in gzip or zstd
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "destination", "db", "media"])]
    pub file: Option<PathBuf>,
    /// Read the file whole and say whether it restores; exit 0 only if it does
    #[arg(long, requires = "file")]
    pub verify_only: bool,
    /// Of this dump of a database
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "destination"])]
    pub db: Option<PathBuf>,
    /// Of this tar of files; with --db both, or neither
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "destination"])]
    pub media: Option<PathBuf>,
    /// List what can be restored: backups, and dumps that lie beside them
    #[arg(long, conflicts_with_all = ["file", "db", "media", "from", "destination"])]
    pub list: bool,
    /// With --list, print JSON
    #[arg(long, requires = "list")]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Undo {
    /// A job of the config
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Drill {
    /// A job of the config
    #[arg(value_name = "JOB")]
    pub job: String,
    /// A backup's id, or latest
    #[arg(value_name = "ID", default_value = "latest")]
    pub id: Choice,
    /// From this destination of the config [default: the one that was drilled longest ago]
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    pub destination: Option<String>,
    /// From this URL; needs neither config nor catalog
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    #[command(flatten)]
    pub unlock: Unlock,
    /// Take a backup that no known key signed
    #[arg(long)]
    pub trust: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
