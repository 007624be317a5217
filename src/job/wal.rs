//! The write-ahead log of a server that is backed up whole, on its way: received, stored everywhere, and
//! only then let go by the server. Knows archives, the receiver and the catalog; what a gap is, is decided
//! in `crate::wal`.

mod check;
mod identity;
mod keeper;
mod lane;
mod noting;
mod spend;
mod storing;
mod telling;
mod waiting;

use std::path::PathBuf;

use super::{Job, LogPlan, Place, Site};
use crate::destination::{Destination, list_backups, read_manifest};
use crate::fault::{Context, Fault, Result};
use crate::health::LogFacts;
use crate::lock::Lock;
use crate::model::{Action, Actor, BackupId, Deed, Heartbeats, JobName, WalState};
use crate::source::postgres::physical::{Physical, Primary};
use crate::wal::{Kept, Needed};

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
    system_id: String,
    kept: Kept,
}

/// The base backups that lie there, oldest first: by their manifests, and not by a catalog that may have
/// forgotten one.
async fn bases(destination: &dyn Destination, job: &JobName) -> Result<Vec<Lying>> {
    let mut bases = Vec::new();
    for id in list_backups(destination, job).await? {
        let Some((manifest, _)) = read_manifest(destination, job, &id).await? else { continue };
        let (finished, suspect) = (manifest.finished_at, manifest.suspect);
        for facts in manifest.sources {
            if let (Some(facts), Some(system_id)) = (facts.physical, facts.system_id) {
                bases.push(Lying { id, system_id, kept: Kept { facts, finished, suspect } });
            }
        }
    }
    Ok(bases)
}

/// Which segments of one server's log a place needs, by the base backups that lie there.
fn needed(site: &Site, place: &Place, system_id: &str, bases: &[Lying]) -> Needed {
    let own = bases.iter().filter(|base| base.system_id == system_id);
    let kept: Vec<Kept> = own.map(|base| base.kept.clone()).collect();
    let Some(size) = kept.first().map(|base| base.facts.segment_bytes) else {
        return Needed::all();
    };
    let window = place.window.and_then(|window| site.clock.now().checked_sub(window).ok());
    Needed::by(&kept, window, size)
}

/// The fact by which it is known up to which position the log was let go on purpose, however long `wal.keep`
/// was at that time.
fn let_go(job: &JobName, place: &Place, system_id: &str) -> String {
    format!("wal-let-go:{job}:{}:{system_id}", place.destination.name())
}

/// What health is made of; `None`: the job keeps no log.
pub(super) async fn log_facts(site: &Site, job: &Job) -> Result<Option<LogFacts>> {
    let Some((_, plan)) = job.log() else { return Ok(None) };
    let progress = site.catalog.wal_progress(&job.name).await?;
    let halted = progress.as_ref().is_some_and(|known| known.state == WalState::Halted);
    let safe_at = progress.and_then(|known| known.safe_at);
    Ok(Some(LogFacts { safe_at, halted, max_lag: plan.max_lag }))
}

/// What the job's server said of itself while its log was kept.
pub(super) async fn heartbeats(site: &Site, job: &JobName) -> Result<Heartbeats> {
    let text = site.catalog.fact(&beating(job)).await?;
    let known =
        text.map(|text| serde_json::from_str(&text).context("read the server's heartbeats"));
    Ok(known.transpose()?.unwrap_or_default())
}

/// The fact that holds them.
fn beating(job: &JobName) -> String {
    format!("wal-heartbeats:{job}")
}

/// The fact by which a server with another identifier is taken for the job's own.
fn adopted(job: &JobName) -> String {
    format!("wal-adopted:{job}")
}

/// Drops the job's slot, so that its server keeps nothing for us any more; says whether there was one.
pub async fn detach(site: &Site, actor: &Actor, job: &Job) -> Result<bool> {
    let (physical, _) = job.log_or_refuse()?;
    let deed = Deed::of(Action::WalDetach, &job.name).to(&physical.slot);
    let note = |dropped: &bool| Ok((!dropped).then(|| "there was none".to_owned()));
    site.audited_by(actor, deed, drop_slot(site, job, physical), note).await
}

async fn drop_slot(site: &Site, job: &Job, physical: &Physical) -> Result<bool> {
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
pub async fn adopt_server(site: &Site, actor: &Actor, job: &Job) -> Result<String> {
    let (physical, _) = job.log_or_refuse()?;
    let primary = connect(physical).await?;
    let system_id = primary.system_id.clone();
    primary.close().await;
    let deed = Deed::of(Action::WalAdopt, &job.name).to(&system_id);
    let fact = adopted(&job.name);
    site.audited(actor, deed, site.catalog.set_fact(&fact, &system_id)).await?;
    Ok(system_id)
}

/// Nobody is asked whether the server could be backed up.
async fn connect(physical: &Physical) -> Result<Primary> {
    Primary::connect(&Physical { allow_unbounded_slot: true, ..physical.clone() }).await
}
