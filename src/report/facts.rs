//! What a report is made from. Knows shapes only.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Month;
use crate::model::{BackupId, JobName};

#[derive(Debug, Clone)]
pub struct Facts {
    pub month: Month,
    /// Its first moment, and the first one after it.
    pub bounds: (Timestamp, Timestamp),
    pub now: Timestamp,
    pub host: String,
    pub respaldo: String,
    pub jobs: Vec<JobFacts>,
}

#[derive(Debug, Clone)]
pub struct JobFacts {
    pub job: JobName,
    pub sources: Vec<String>,
    pub encrypted: Option<bool>,
    pub max_age: Option<SignedDuration>,
    /// The first sign of it here: before, nothing could be missed.
    pub known_since: Option<Timestamp>,
    /// Times of its schedule from the month's start to the first one after its end, in order.
    pub planned: Vec<Timestamp>,
    pub drills_planned: Vec<Timestamp>,
    /// Every full backup that was ever committed, as far as anybody remembers, in order.
    pub backups: Vec<BackupFacts>,
    /// Runs of the month that came to nothing, in order.
    pub failures: Vec<Failure>,
    pub verify_days: Option<u32>,
    /// Each reading of the month.
    pub reads: Vec<ReadFacts>,
    /// Each copy that is there now, as it was when it was last read, or since when it waits for it.
    pub held: Vec<ReadFacts>,
    /// The month's drills, in order.
    pub drills: Vec<Drill>,
    pub copies: CopyFacts,
    pub destinations: Vec<DestinationFacts>,
}

/// One committed backup.
#[derive(Debug, Clone)]
pub struct BackupFacts {
    pub id: BackupId,
    /// Its run did not reach every destination.
    pub partial: bool,
    pub stored_bytes: Option<u64>,
    pub plain_bytes: Option<u64>,
}

/// One copy, read back.
#[derive(Debug, Clone)]
pub struct ReadFacts {
    /// `20251124T020000Z on local`.
    pub copy: String,
    pub at: Timestamp,
    pub ok: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    pub at: Timestamp,
    /// What the run was to do.
    pub kind: String,
    pub error: String,
}

/// One drill, as it was recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drill {
    pub at: Timestamp,
    /// `None`: there was none to try.
    pub backup: Option<String>,
    pub destination: String,
    pub proven: bool,
    pub seconds: Option<f64>,
    pub tables: Option<u64>,
    pub rows: Option<u64>,
    pub failure: Option<String>,
}

/// Whether the rule 3-2-1 is met.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CopyFacts {
    pub met: bool,
    /// The original is one of them.
    pub copies: usize,
    pub media: Vec<String>,
    pub off_site: Vec<String>,
    pub missing: Option<String>,
}

/// What one destination keeps of the job, when the report was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DestinationFacts {
    pub name: String,
    /// Its URL, without secrets.
    pub place: String,
    pub off_site: bool,
    pub append_only: bool,
    /// The rules by which it keeps; an empty object: everything.
    pub retention: serde_json::Value,
    pub copies: usize,
    pub stored_bytes: u64,
    pub oldest: Option<BackupId>,
    pub newest: Option<BackupId>,
    pub proven: usize,
    pub pinned: usize,
    /// It should have the newest backup, and has not.
    pub lacks_newest: bool,
    /// Deleted there in the month by its rules.
    pub pruned: Vec<BackupId>,
    /// Backups from which a part was erased there in the month.
    pub erased: Vec<BackupId>,
}
