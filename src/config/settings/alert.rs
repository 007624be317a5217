//! A way to tell people, checked. Knows no file format.

use globset::GlobSet;
use jiff::SignedDuration;

pub use crate::alert::{Channel, Email, Slack, Tls};
use crate::model::Severity;
use crate::schedule::Schedule;

/// A named way to tell people.
#[derive(Debug, Clone)]
pub struct AlertRoute {
    pub name: String,
    pub channel: Channel,
    /// As it was written; each matches a job. Empty: all jobs.
    pub jobs: Vec<String>,
    pub matching: Option<GlobSet>,
    pub severity: Severity,
    pub success: bool,
    pub repeat: SignedDuration,
    /// At least 1.
    pub per_hour: usize,
    /// May be empty.
    pub digest: Schedule,
    /// That schedule as it was written.
    pub digest_lines: Vec<String>,
}
