//! What a job's config asks for beside its backups: incremental ones, the log, drills, reading back. Knows
//! schedules and bounds; must not know how any of it is done.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use super::Unlock;
use crate::schedule::Schedule;
use crate::source::Source;

/// When only what has changed since the last base backup is taken.
#[derive(Debug, Clone)]
pub struct ChainPlan {
    /// Empty: only when asked to.
    pub schedule: Schedule,
    /// So many may follow a full one.
    pub most: usize,
}

/// How the log of a server is kept.
#[derive(Debug, Clone)]
pub struct LogPlan {
    /// How old what is not stored yet may become.
    pub max_lag: SignedDuration,
    /// How often what is being written is stored.
    pub every: Duration,
    /// When the server keeps more than so many bytes for us, they are given up.
    pub slot_limit: Option<u64>,
}

/// When and by what a job's backups are proven.
#[derive(Clone)]
pub struct DrillPlan {
    /// Empty: only when asked to.
    pub schedule: Schedule,
    /// SQL statements whose first value must be true.
    pub checks: Vec<String>,
    /// Programs with their arguments; each must exit with 0.
    pub programs: Vec<Vec<String>>,
    /// How long it may take.
    pub deadline: Duration,
    /// What opens an encrypted backup; looked for when it is needed.
    pub unlock: Unlock,
    /// Where databases of PostgreSQL are loaded; `None`: on a server that is started for it.
    pub server: Option<Arc<dyn Source>>,
}

impl DrillPlan {
    /// Of a job whose config says nothing of drills.
    pub(super) fn only_when_asked() -> Self {
        Self {
            schedule: Schedule::none(),
            checks: Vec::new(),
            programs: Vec::new(),
            deadline: Duration::MAX,
            unlock: Unlock::default(),
            server: None,
        }
    }
}

/// When a job's backups are read back, and within which time each of them is.
#[derive(Debug, Clone)]
pub struct VerifyPlan {
    pub schedule: Schedule,
    pub days: u32,
}
