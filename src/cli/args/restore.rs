//! The words of what brings a backup back, for good or for a try.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::Unlock;
use crate::job::Choice;
use crate::model::Lsn;

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
    /// How many sessions load at once, or files of a log are fetched at once [default: as the machine suits]
    #[arg(long, value_name = "N")]
    pub jobs: Option<std::num::NonZeroU8>,
    /// Put it in place although it is not, table by table, what was backed up
    #[arg(long)]
    pub unchecked: bool,
    #[command(flatten)]
    pub recovery: Recovery,
}

/// A server's whole data folder, as it was at a moment.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Recovery {
    /// Of a physical job: into this new or empty folder, from which a stock server recovers by itself
    #[arg(long, value_name = "DIR", conflicts_with_all = [
        "all", "label", "file", "db", "media", "list", "database", "to", "path", "artifact",
        "in_place", "schema", "table", "unchecked",
    ])]
    pub data_dir: Option<PathBuf>,
    /// To the end of the log [default]
    #[arg(long, requires = "data_dir", conflicts_with_all = ["to_time", "to_lsn", "to_name"])]
    pub latest: bool,
    /// To what was committed by then: '2025-11-24 14:30:00-05'; without an offset in the config's time zone
    #[arg(long, value_name = "TIME", requires = "data_dir", conflicts_with_all = ["to_lsn", "to_name"])]
    pub to_time: Option<String>,
    /// To just before this position of the log
    #[arg(long, value_name = "LSN", requires = "data_dir", conflicts_with = "to_name")]
    pub to_lsn: Option<Lsn>,
    /// To this restore point, as pg_create_restore_point() made it
    #[arg(long, value_name = "NAME", requires = "data_dir")]
    pub to_name: Option<String>,
    /// Where a tablespace goes, by its oid; may be given several times
    #[arg(long, value_name = "OID=DIR", requires = "data_dir", value_parser = tablespace)]
    pub tablespace: Vec<(u32, PathBuf)>,
    /// Whom the files are given to, as root [default: the numbers that they had]
    #[arg(long, value_name = "UID:GID", requires = "data_dir", value_parser = owner)]
    pub owner: Option<(u32, u32)>,
}

fn tablespace(text: &str) -> Result<(u32, PathBuf), String> {
    let (oid, folder) = text.split_once('=').ok_or("write OID=DIR")?;
    let oid = oid.parse().map_err(|_| "an oid is a number; the plan names them")?;
    Ok((oid, folder.into()))
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let (user, group) = text.split_once(':').ok_or("write UID:GID, as in 999:999")?;
    let number = |text: &str| text.parse().map_err(|_| "users and groups are given by number");
    Ok((number(user)?, number(group)?))
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
