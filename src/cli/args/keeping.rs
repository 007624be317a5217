//! The words of what is done to backups that are there: pruned, brought elsewhere, erased, pinned, taken in.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::model::BackupId;

#[derive(Debug, ClapArgs)]
pub struct Prune {
    /// One job only
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    /// Print the plan and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Carry out a plan that was held back: it deletes more than half, or the newest is too small
    #[arg(long)]
    pub yes: bool,
    /// Take over a job's folder that another installation owns, or that is empty on purpose
    #[arg(long)]
    pub adopt: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Sync {
    /// One job only
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    /// Print what is missing and copy nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Erase {
    /// A job of the config
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Delete this schema's archives from every backup, pinned ones too
    #[arg(long, value_name = "NAME", conflicts_with = "sql")]
    pub schema: Option<String>,
    /// Run these statements after each restore, before it is put in place
    #[arg(long, value_name = "STATEMENT")]
    pub sql: Option<String>,
    /// Of several databases of the job, this one [default: each]
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
    /// Why, for whoever finds it
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Show what was erased
    #[arg(long, conflicts_with_all = ["schema", "sql", "database", "note", "dry_run", "yes"])]
    pub list: bool,
    /// Print what would be erased and what would remain, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Import {
    /// The folder of the old backups; what lies in it directly is looked at
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The job that they become backups of
    #[arg(long, value_name = "NAME")]
    pub job: String,
    /// Print what would be imported, and copy nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Delete a file, and the digest beside it, once every destination that keeps it has it
    #[arg(long = "move")]
    pub move_files: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Pin {
    /// A job of the config
    #[arg(value_name = "JOB")]
    pub job: String,
    /// A backup's id, from `respaldo list`
    #[arg(value_name = "ID")]
    pub id: BackupId,
    /// Why, for whoever finds it
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Unpin {
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
