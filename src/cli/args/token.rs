//! The words of what opens the daemon's API.

use clap::Subcommand;
use jiff::SignedDuration;

use crate::config;
use crate::model::{JobName, Role};

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token and print it, this once
    Create {
        /// Whom it is for, such as ci or anna
        #[arg(value_name = "NAME")]
        name: JobName,
        /// viewer sees; operator starts and stops runs too; admin may do everything
        #[arg(long, value_name = "ROLE")]
        role: Role,
        /// For how long it is good, such as 90d [default: until it is revoked]
        #[arg(long, value_name = "TIME", value_parser = config::duration)]
        expires: Option<SignedDuration>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List tokens; none of them is shown
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End a token at once
    Revoke {
        /// Its name, from `respaldo token list`
        #[arg(value_name = "NAME")]
        name: JobName,
    },
}
