//! The words of `respaldo wal`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Wal {
    /// How far the log of a job is stored, and how much would be lost now
    Status {
        /// A job whose source has kind = "physical"
        job: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look for gaps in what is stored; exit 0 only if there is none
    Check {
        /// A job whose source has kind = "physical"
        job: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Drop the job's replication slot, so that its server keeps nothing for it any more
    Detach {
        /// A job whose source has kind = "physical"
        job: String,
    },
    /// Take the server that is there now for the job's own, where it was made anew
    Adopt {
        /// A job whose source has kind = "physical"
        job: String,
    },
}
