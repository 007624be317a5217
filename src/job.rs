//! The work: what a run of each kind does, from its lock to its record. Knows sources, pipelines,
//! destinations, decisions and the catalog; must not know config files, HTTP or terminals.

mod audit;
mod backup;
mod chain;
mod changes;
mod commit;
mod contents;
mod coverage;
mod delivery;
mod digest;
mod drill;
mod erase;
mod execution;
mod given;
mod gone;
mod guide;
mod hooks;
mod import;
mod ledger;
mod leftovers;
mod listing;
mod lookout;
mod messages;
mod pin;
mod pitr;
mod places;
mod plan;
mod proof;
mod prune;
mod reading;
mod rebuild;
mod record;
mod recovery;
mod reporting;
mod rereading;
mod restore;
mod select;
mod sending;
mod space;
mod status;
mod streaming;
mod sync;
mod tokens;
mod transfer;
mod trial;
mod unlock;
mod verify;
mod wal;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::alert::Route;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::copies::{self, Copies, Medium};
use crate::destination::Destination;
use crate::fault::{Fault, Result};
use crate::health;
use crate::model::{Actor, JobName, RunKind};
use crate::pipeline::{Encoding, Meter, Seal};
use crate::retention::{Accept, Policy};
use crate::schedule::Schedule;
use crate::signature::Signer;
use crate::source::Source;
use crate::space::Floor;

pub use audit::{cancel, log_audit};
pub use backup::{Made, bytes, count};
pub use chain::{knows_no_incremental, look_at_server};
pub use changes::changed_since;
pub use coverage::uncovered;
pub use digest::post_digests;
pub use drill::{DrillRequest, Drilled, drill, reports};
pub use erase::{
    Became, EraseState, ErasedCopy, Erasing, Remains, catch_up_erasures, erase, erasures,
    plan_erasure, wish,
};
pub use execution::{Outcome, Spool, execute};
pub use given::{Given, check_given, given};
pub use hooks::Hooks;
pub use import::{ImportOptions, ImportState, Imported, import};
pub use ledger::to_reapply;
pub use listing::{Held, Listed, Records, Shown, known, listed};
pub use lookout::{Paper, PaperKind, look_at_health, look_at_papers};
pub use messages::tell_of_sync;
pub use pin::{Pinned, pin_audited};
pub use pitr::{Pitr, PitrRequest};
pub use plan::{ChainPlan, DrillPlan, LogPlan, VerifyPlan};
pub use prune::{PruneOptions, Pruned, Retained, kept_why, prune};
pub use reading::stored_stream;
pub use rebuild::rebuild;
pub use recovery::{recover, settle_again};
pub use reporting::monthly;
pub use rereading::{Reread, Unread, verify_due};
pub use restore::{
    Restore, RestoreRequest, Restored, age, forget_old, restore, restore_run, source_for, undo,
    undo_plan,
};
pub use select::{Choice, Found, find, labelled, nearest};
pub use sending::{Tried, send_messages, try_routes};
pub use space::{PlaceRoom, look_at_space, rooms, space_now};
pub use status::{JobCopies, Status, status};
pub use sync::{Lacking, Repair, RepairState, Synced, Unreachable, survey, sync};
pub use tokens::{NewToken, is_same_digest, make_token, revoke_token, token_digest};
pub use trial::{Checked, TableResult};
pub use unlock::Unlock;
pub use verify::{Depth, Verified, remember, verify};
pub use wal::{
    Base, Checked as WalChecked, PlaceCheck, adopt_server, check as check_log, detach,
    keep as keep_log, look_at_logs,
};

/// So many times an incremental backup may give way: a schedule that only has the times of the other one
/// would be looked through for ever.
const MOST_GIVEN_WAY: usize = 1_000;

/// A job, ready to run.
#[derive(Clone)]
pub struct Job {
    pub name: JobName,
    /// Read one after the other, into one backup.
    pub sources: Vec<Arc<dyn Source>>,
    pub schedule: Schedule,
    /// When only the changes are backed up, where it backs a server up whole.
    pub incremental: Option<ChainPlan>,
    pub places: Vec<Place>,
    /// How old the newest backup may become.
    pub max_age: Option<SignedDuration>,
    pub catch_up: bool,
    pub encoding: Encoding,
    /// Schemas whose artifact is encrypted to others than `encoding` says, by name.
    pub schema_seals: BTreeMap<String, Seal>,
    /// The longest that a run may take.
    pub deadline: Duration,
    pub hooks: Option<Hooks>,
    /// How often its files are looked at for changes, where those make it run.
    pub on_change: Option<Duration>,
    /// How often a failed run is tried again.
    pub retries: u32,
    /// How long a destination may go without progress.
    pub stall: Duration,
    /// By how many percent a backup may be smaller than usual; `None`: that is not looked at.
    pub anomaly: Option<u8>,
    /// Whether the daemon repairs on one destination what is missing there.
    pub sync: bool,
    /// How its backups are proven.
    pub drill: Option<DrillPlan>,
    /// How its backups are read back.
    pub verify: Option<VerifyPlan>,
    /// How its log is kept, where it backs a server up whole.
    pub wal: Option<LogPlan>,
    /// How long a restore keeps what it replaced.
    pub keep_old: SignedDuration,
}

/// A destination of a job, and what it keeps there.
#[derive(Clone)]
pub struct Place {
    pub destination: Arc<dyn Destination>,
    pub policy: Policy,
    /// It is somewhere else than what is backed up.
    pub off_site: bool,
    /// How much must stay free there; `None`: enough for what comes.
    pub free: Option<Floor>,
    /// For how long every moment of a server can be recovered from here; `None`: since the oldest base
    /// backup.
    pub window: Option<SignedDuration>,
}

impl Place {
    /// How old the newest backup here may become, where a job's may become `max_age`.
    fn max_age(&self, max_age: Option<SignedDuration>) -> Option<SignedDuration> {
        // The first backup of a period comes by the job's own rhythm.
        Some(max_age? + self.policy.accept.map_or(SignedDuration::ZERO, Accept::longest))
    }
}

impl Job {
    /// When runs of that kind are due; `None`: only when asked to.
    pub fn schedule_of(&self, kind: RunKind) -> Option<&Schedule> {
        match kind {
            RunKind::Backup => Some(&self.schedule),
            RunKind::Incremental => self.incremental.as_ref().map(|plan| &plan.schedule),
            RunKind::Drill => self.drill.as_ref().map(|plan| &plan.schedule),
            RunKind::Verify => self.verify.as_ref().map(|plan| &plan.schedule),
            _ => None,
        }
    }

    /// When the next run of that kind is due. An incremental backup gives way to a full one of the same
    /// moment.
    pub fn next_time(&self, kind: RunKind, after: Timestamp) -> Option<Timestamp> {
        let schedule = self.schedule_of(kind)?;
        let mut times = std::iter::successors(schedule.next(after), |at| schedule.next(*at));
        match kind {
            RunKind::Incremental => {
                times.take(MOST_GIVEN_WAY).find(|at| self.schedule.previous(*at) != Some(*at))
            }
            _ => times.next(),
        }
    }

    /// The scheduled time that has passed at `now` while its jitter has not, and when the run starts.
    pub fn pending(&self, kind: RunKind, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let (at, start) = self.schedule_of(kind)?.pending(self.name.as_str(), now)?;
        // Not one that gives way.
        let before = at.checked_sub(SignedDuration::from_secs(1)).ok()?;
        (self.next_time(kind, before) == Some(at)).then_some((at, start))
    }

    /// When the next run of that kind starts of which the scheduled time is after `now`.
    pub fn next_start(&self, kind: RunKind, now: Timestamp) -> Option<Timestamp> {
        let at = self.next_time(kind, now)?;
        Some(self.schedule_of(kind)?.start(self.name.as_str(), at))
    }

    /// Whether a drill comes before the backup after one that is made at `now`.
    fn is_drilled_next(&self, now: Timestamp) -> bool {
        let drill = self.schedule_of(RunKind::Drill).and_then(|schedule| schedule.next(now));
        let backup = self.schedule.next(now);
        drill.is_some_and(|drill| backup.is_none_or(|backup| drill <= backup))
    }

    pub fn place(&self, name: &str) -> Result<&Place> {
        self.places.iter().find(|place| place.destination.name() == name).ok_or_else(|| {
            let names: Vec<&str> = self.places.iter().map(|p| p.destination.name()).collect();
            Fault::usage(format!("job '{}' has no destination '{name}'", self.name))
                .hint(format!("it has: {}", names.join(", ")))
        })
    }

    /// How many streams may arrive at once.
    fn streams(&self) -> usize {
        self.sources.iter().map(|source| source.streams()).max().unwrap_or(1)
    }
}

/// What every run shares.
pub struct Site {
    pub catalog: Catalog,
    pub clock: Clock,
    pub signer: Signer,
    /// Keys whose manifests are believed, this installation's own among them.
    pub trusted: Vec<String>,
    pub data_dir: PathBuf,
    /// The config without secrets, for the copy in each backup.
    pub config: String,
    pub routes: Vec<Route>,
    /// Certificates and keys that can expire.
    pub papers: Vec<Paper>,
    /// Who does what this process does, where nobody else asked for it.
    pub actor: Actor,
    /// This machine's name, for messages.
    pub host: String,
    pub installation: Uuid,
    /// Where PostgreSQL's programs are, beside the usual places.
    pub bin_dirs: Vec<PathBuf>,
}

/// A run's controls and counters.
#[derive(Clone, Default)]
pub struct Control {
    pub cancel: CancellationToken,
    pub meter: Meter,
    total: Arc<AtomicU64>,
    shutdown: CancellationToken,
}

impl Control {
    /// `shutdown` stops the run because its process ends, and not because a person asked.
    pub fn new(shutdown: &CancellationToken) -> Self {
        let cancel = shutdown.child_token();
        Self { cancel, shutdown: shutdown.clone(), ..Self::default() }
    }

    fn stopped_by_shutdown(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// The source's size in bytes, once it is known.
    pub fn total(&self) -> Option<u64> {
        Some(self.total.load(Ordering::Relaxed)).filter(|total| *total > 0)
    }

    fn add_total(&self, bytes: Option<u64>) {
        self.total.fetch_add(bytes.unwrap_or(0), Ordering::Relaxed);
    }
}

impl Site {
    fn run_lock(&self, run: crate::model::RunId) -> PathBuf {
        self.data_dir.join(format!("locks/run-{run}"))
    }

    /// Whoever runs a job holds this.
    pub fn job_lock(&self, job: &JobName) -> PathBuf {
        self.data_dir.join(format!("locks/job-{job}"))
    }

    /// Whoever carries a job's backups between destinations holds this.
    pub fn sync_lock(&self, job: &JobName) -> PathBuf {
        self.data_dir.join(format!("locks/sync-{job}"))
    }

    /// What a run of that kind holds, so that no second one of its job goes on beside it.
    pub fn lock_of(&self, kind: RunKind, job: &JobName) -> PathBuf {
        match kind {
            RunKind::Sync => self.sync_lock(job),
            RunKind::Drill | RunKind::Verify => self.data_dir.join(format!("locks/{kind}-{job}")),
            _ => self.job_lock(job),
        }
    }

    fn spool(&self, run: &str) -> PathBuf {
        self.data_dir.join("spool").join(run)
    }

    /// The facts that health is made of.
    pub async fn health_facts(&self, job: &Job) -> Result<health::JobFacts> {
        let now = self.clock.now();
        let mut destinations = Vec::new();
        for place in &job.places {
            let name = place.destination.name();
            destinations.push(health::DestinationFacts {
                name: name.to_owned(),
                max_age: place.max_age(job.max_age),
                cold: place.policy.accept.is_some(),
                last_success: self.catalog.last_success(&job.name, name).await?,
                last_failure: self.catalog.last_failure(&job.name, name).await?,
            });
        }
        Ok(health::JobFacts {
            job: job.name.clone(),
            max_age: job.max_age,
            next_run: job.schedule.next(now),
            last_proven: self.catalog.last_proven(&job.name).await?,
            proven_within: job
                .schedule_of(RunKind::Drill)
                .and_then(|schedule| schedule.interval(now))
                .map(|interval| interval * 2),
            destinations,
            log: wal::log_facts(self, job).await?,
        })
    }

    /// How the job's newest backup is kept, by what the catalog knows.
    pub async fn copies(&self, job: &Job) -> Result<Copies> {
        let newest = self.catalog.newest(&job.name).await?;
        let newest = newest.as_ref();
        let held = |place: &&Place| {
            let name = place.destination.name();
            newest.is_some_and(|known| known.copies.iter().any(|copy| copy.destination == name))
        };
        let held: Vec<copies::Held> = job
            .places
            .iter()
            .filter(held)
            .map(|place| copies::Held {
                destination: place.destination.name().to_owned(),
                medium: Medium::of(&place.destination.place()),
                off_site: place.off_site,
            })
            .collect();
        Ok(copies::judge(newest.map(|known| known.manifest.id), &held))
    }

    /// Health of every job.
    pub async fn health(&self, jobs: &[Arc<Job>]) -> Result<health::Report> {
        let mut facts = Vec::new();
        for job in jobs {
            facts.push(self.health_facts(job).await?);
        }
        Ok(health::report(&facts, self.clock.now()))
    }
}
