//! The write-ahead log of a server that is backed up whole, on its way: received, stored everywhere, and
//! only then let go by the server. Knows archives, the receiver and the catalog; what a gap is, is decided
//! in `crate::wal`.

mod check;
mod keeper;
mod lane;
mod spend;
mod storing;
mod telling;
mod waiting;

use std::path::PathBuf;

use jiff::Timestamp;

use super::{Job, LogPlan, Site};
use crate::destination::{Destination, list_backups, read_manifest};
use crate::fault::{Context, Fault, Result};
use crate::health::LogFacts;
use crate::lock::Lock;
use crate::model::{BackupId, JobName, PhysicalFacts, WalState};
use crate::source::postgres::physical::{Physical, Primary};

pub use check::{Base, Checked, PlaceCheck, check};
pub use keeper::keep;
pub(super) use spend::spend;
pub use telling::look_at_logs;
pub(super) use waiting::{is_stored, while_kept};

impl Site {
    /// Whoever keeps a job's log holds this.
    pub fn wal_lock(&self, job: &JobName) -> PathBuf {
        self.data_dir.join(format!("locks/wal-{job}"))
    }

    /// Where a job's log is received. It may be lost: what counts is what is stored.
    fn wal_spool(&self, job: &JobName) -> PathBuf {
        self.data_dir.join("wal").join(job.as_str())
    }
}

impl Job {
    /// The server that it backs up whole, and how its log is kept.
    pub fn log(&self) -> Option<(&Physical, &LogPlan)> {
        let physical = self.sources.iter().find_map(|source| source.physical());
        physical.zip(self.wal.as_ref())
    }

    /// As [`log`](Self::log), or a clear error.
    pub fn log_or_refuse(&self) -> Result<(&Physical, &LogPlan)> {
        self.log().ok_or_else(|| {
            Fault::usage(format!("job '{}' keeps no log", self.name))
                .hint("only a job whose source has kind = \"physical\" does")
        })
    }
}

/// A base backup as it lies in one place.
struct Lying {
    id: BackupId,
    finished: Timestamp,
    system_id: String,
    facts: PhysicalFacts,
}

/// The base backups that lie there, oldest first: by their manifests, and not by a catalog that may have
/// forgotten one.
async fn bases(destination: &dyn Destination, job: &JobName) -> Result<Vec<Lying>> {
    let mut bases = Vec::new();
    for id in list_backups(destination, job).await? {
        let Some((manifest, _)) = read_manifest(destination, job, &id).await? else { continue };
        let finished = manifest.finished_at;
        for facts in manifest.sources {
            if let (Some(facts), Some(system_id)) = (facts.physical, facts.system_id) {
                bases.push(Lying { id, finished, system_id, facts });
            }
        }
    }
    Ok(bases)
}

/// What health is made of; `None`: the job keeps no log.
pub(super) async fn log_facts(site: &Site, job: &Job) -> Result<Option<LogFacts>> {
    let Some((_, plan)) = job.log() else { return Ok(None) };
    let progress = site.catalog.wal_progress(&job.name).await?;
    let halted = progress.as_ref().is_some_and(|known| known.state == WalState::Halted);
    let safe_at = progress.and_then(|known| known.safe_at);
    Ok(Some(LogFacts { safe_at, halted, max_lag: plan.max_lag }))
}

/// The fact by which a server with another identifier is taken for the job's own.
fn adopted(job: &JobName) -> String {
    format!("wal-adopted:{job}")
}

/// Drops the job's slot, so that its server keeps nothing for us any more; says whether there was one.
pub async fn detach(site: &Site, job: &Job) -> Result<bool> {
    let (physical, _) = job.log_or_refuse()?;
    let lock = Lock::try_take(&site.wal_lock(&job.name)).context("lock the log")?;
    let _lock = lock.ok_or_else(|| {
        Fault::usage(format!("the log of '{}' is being kept", job.name))
            .hint("stop the daemon, or take the job out of its config and reload, first")
    })?;
    let mut primary = connect(physical).await?;
    let dropped = primary.drop_slot(&physical.slot).await;
    primary.close().await;
    dropped
}

/// Takes whatever server is there now for the job's own; returns its system identifier.
pub async fn adopt_server(site: &Site, job: &Job) -> Result<String> {
    let (physical, _) = job.log_or_refuse()?;
    let primary = connect(physical).await?;
    let system_id = primary.system_id.clone();
    primary.close().await;
    site.catalog.set_fact(&adopted(&job.name), &system_id).await?;
    Ok(system_id)
}

/// Nobody is asked whether the server could be backed up.
async fn connect(physical: &Physical) -> Result<Primary> {
    Primary::connect(&Physical { allow_unbounded_slot: true, ..physical.clone() }).await
}
