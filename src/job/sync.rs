//! What is missing on one destination of a job, brought there from another, so that one which was
//! down catches up. Knows runs and their record; what is missing is found in `survey`, and carried
//! in `transfer`. Safe beside a running backup: it holds the job's sync lock and not its own.

mod survey;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::chain::chain_of;
use super::contents::Vanished;
use super::delivery::within;
use super::messages::tell_of_sync;
use super::record::{Ending, recorded};
use super::select::lease_path;
use super::transfer::{Broke, carry};
use super::{Control, Job, Site, bytes};
use crate::destination::{Destination, list_marks, read_manifest, read_pin, write_pin};
use crate::fault::{Context, Fault, Result};
use crate::lock::Lock;
use crate::model::{BackupId, JobName, Mark, RunId, RunKind, RunState};

pub use survey::survey;

/// What is to be brought to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lacking {
    Backup,
    /// Another destination knows better whether the backup is pinned.
    Pin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RepairState {
    Missing,
    Copied,
    Failed,
}

/// One thing that a destination lacks, and what became of it.
#[derive(Debug, Serialize)]
pub struct Repair {
    pub id: BackupId,
    pub destination: String,
    pub what: Lacking,
    pub state: RepairState,
    /// Where it came from.
    pub from: Option<String>,
    pub stored_bytes: u64,
    pub error: Option<String>,
    /// Where it may come from, in the order in which they are asked.
    #[serde(skip)]
    sources: Vec<String>,
}

/// A destination that could not be looked at.
#[derive(Debug, Serialize)]
pub struct Unreachable {
    pub destination: String,
    pub error: String,
}

/// What a sync found and did.
#[derive(Debug, Serialize)]
pub struct Synced {
    pub job: JobName,
    /// `None`: there was nothing to do, or it was only looked at.
    pub run: Option<RunId>,
    pub repairs: Vec<Repair>,
    pub unreachable: Vec<Unreachable>,
    /// Copies that are damaged or gone, and destinations that were left out.
    pub warnings: Vec<String>,
    /// Damaged copies, and what was said of each.
    #[serde(skip)]
    pub(super) damaged: BTreeMap<String, String>,
    /// What is gone from each destination, and was not told yet.
    #[serde(skip)]
    pub(super) vanished: Vec<(String, Vanished)>,
}

impl Synced {
    /// How it ended, but for a cancel.
    pub fn state(&self) -> RunState {
        let done = |repair: &&Repair| repair.state == RepairState::Copied;
        let copied = self.repairs.iter().filter(done).count();
        match copied == self.repairs.len() && self.unreachable.is_empty() {
            true => RunState::Succeeded,
            false if copied > 0 => RunState::Partial,
            false => RunState::Failed,
        }
    }

    /// What a person should know, by the destination or the backup that it is about.
    pub(super) fn trouble(&self) -> BTreeMap<String, String> {
        let down =
            self.unreachable.iter().map(|down| (down.destination.clone(), down.error.clone()));
        let failed = self.repairs.iter().filter_map(|repair| {
            Some((format!("{} to {}", repair.id, repair.destination), repair.error.clone()?))
        });
        down.chain(failed).collect()
    }

    /// The first thing that went wrong.
    pub fn error(&self) -> Option<String> {
        let down = self.unreachable.iter();
        let down = down.map(|down| format!("'{}': {}", down.destination, down.error));
        let failed = self.repairs.iter();
        let failed = failed.filter_map(|repair| {
            Some(format!("{} to '{}': {}", repair.id, repair.destination, repair.error.as_ref()?))
        });
        down.chain(failed).next()
    }
}

/// Repairs what is missing, as a run of its own. The caller holds the job's sync lock.
pub async fn sync(
    site: &Arc<Site>,
    job: &Arc<Job>,
    run: RunId,
    control: &Control,
) -> Result<Synced> {
    let ending = |synced: &Synced| {
        let error = synced.error();
        let (state, error) = match control.cancel.is_cancelled() {
            true if control.stopped_by_shutdown() => (RunState::Interrupted, None),
            true => (RunState::Cancelled, None),
            false => (synced.state(), error),
        };
        let hint = error.as_ref().map(|_| "`respaldo sync` tries it again".to_owned());
        Ending { state, error, hint, warnings: synced.warnings.clone() }
    };
    let work = repair_all(site, job, control);
    let mut synced =
        recorded(site, (&job.name, run, RunKind::Sync), None, control, work, ending).await?;
    synced.run = Some(run);
    if !control.cancel.is_cancelled() {
        tell_of_sync(site, job, &synced).await?;
    }
    Ok(synced)
}

/// Newest first: it is what would be restored; but none before what it stands on.
async fn repair_all(site: &Site, job: &Job, control: &Control) -> Result<Synced> {
    let mut synced = survey(site, job).await?;
    let known = site.catalog.backups(Some(&job.name)).await?;
    let foot =
        |id: BackupId| chain_of(&known, id).map_or(id, |all| all.last().copied().unwrap_or(id));
    synced.repairs.sort_by_key(|repair| (Reverse(foot(repair.id)), repair.id));
    control.add_total(Some(synced.repairs.iter().map(|repair| repair.stored_bytes).sum()));
    let mut given_up = BTreeSet::new();
    for repair in &mut synced.repairs {
        if control.cancel.is_cancelled() || given_up.contains(&repair.destination) {
            continue;
        }
        let place = job.place(&repair.destination)?;
        let done = match repair.what {
            Lacking::Backup => {
                let to = place.destination.as_ref();
                // Itself, and what it stands on.
                let chain = chain_of(&known, repair.id).unwrap_or_else(|_| vec![repair.id]);
                bring(site, job, (repair, &chain), to, control, &mut synced.damaged).await
            }
            Lacking::Pin => match agree(site, job, repair, place.destination.as_ref()).await {
                Ok(from) => Ok(from),
                Err(fault) => Err(Broke::Target(fault)),
            },
        };
        match done {
            Ok(from) => {
                tracing::info!(
                    "{} is on '{}' now, from '{from}': {}",
                    repair.id,
                    repair.destination,
                    bytes(repair.stored_bytes)
                );
                (repair.state, repair.from) = (RepairState::Copied, Some(from));
            }
            Err(broke) => {
                let (Broke::Source(fault) | Broke::Target(fault)) = &broke;
                tracing::error!("{} to '{}': {}", repair.id, repair.destination, fault.chain());
                (repair.state, repair.error) = (RepairState::Failed, Some(fault.chain()));
                if let Broke::Target(_) = broke {
                    // It would fail for the others too, and take its time for each.
                    given_up.insert(repair.destination.clone());
                }
            }
        }
    }
    synced.warnings.extend(synced.damaged.values().cloned());
    Ok(synced)
}

/// Brings a backup from the first source that has it whole.
async fn bring(
    site: &Site,
    job: &Job,
    (repair, chain): (&Repair, &[BackupId]),
    to: &dyn Destination,
    control: &Control,
    damaged: &mut BTreeMap<String, String>,
) -> std::result::Result<String, Broke> {
    let mut leases = Vec::new();
    // What it stands on must not go there while it comes.
    for id in chain {
        let lease = Lock::try_share(&lease_path(&site.data_dir, &job.name, id));
        let Some(lease) = lease.context("take a lease").map_err(Broke::Source)? else {
            let what = format!("{id} is being deleted or made");
            return Err(Broke::Source(Fault::transient(what)));
        };
        leases.push(lease);
    }
    for below in chain.iter().skip(1) {
        let there = within(job.stall, read_manifest(to, &job.name, below)).await;
        if there.map_err(Broke::Target)?.is_none() {
            let what = format!("{} stands on {below}, which is not on '{}'", repair.id, to.name());
            return Err(Broke::Source(Fault::transient(what)));
        }
    }
    let mut last = None;
    for source in after_an_erasure(job, repair).await.map_err(Broke::Source)? {
        let from = job.place(&source).map_err(Broke::Source)?.destination.as_ref();
        match carry(site, job, &repair.id, from, to, control).await {
            Ok(_) => return Ok(source),
            Err(Broke::Source(fault)) => {
                tracing::warn!("{}", fault.chain());
                // A copy that is damaged is worth a word even where another one is whole.
                if !fault.is_transient() {
                    damaged.insert(format!("{} on {source}", repair.id), fault.chain());
                }
                last = Some(fault);
            }
            Err(broke) => return Err(broke),
        }
    }
    let nowhere = || Fault::permanent(format!("{} is nowhere to be had", repair.id));
    Err(Broke::Source(last.unwrap_or_else(nowhere)))
}

/// The sources in their order; where something was erased from the backup on one of them, only
/// those: what was erased must not come back.
async fn after_an_erasure(job: &Job, repair: &Repair) -> Result<Vec<String>> {
    let mut erased = Vec::new();
    for source in &repair.sources {
        let from = job.place(source)?.destination.as_ref();
        let marks = within(job.stall, list_marks(from, &job.name, &repair.id)).await?;
        erased.extend(marks.contains(&Mark::Tombstone).then(|| source.clone()));
    }
    Ok(if erased.is_empty() { repair.sources.clone() } else { erased })
}

/// Writes the newest word about a pin where an older one stands.
async fn agree(site: &Site, job: &Job, repair: &Repair, to: &dyn Destination) -> Result<String> {
    let id = &repair.id;
    for source in &repair.sources {
        let from = job.place(source)?.destination.as_ref();
        let Some(pin) = within(job.stall, read_pin(from, &job.name, id)).await? else { continue };
        within(job.stall, write_pin(to, &job.name, id, &pin)).await?;
        if let Some((manifest, _)) = within(job.stall, read_manifest(to, &job.name, id)).await? {
            let marks = within(job.stall, list_marks(to, &job.name, id)).await?;
            site.catalog.add_copy(&manifest, to.name(), &marks).await?;
        }
        return Ok(source.clone());
    }
    Err(Fault::transient(format!("the pin of {id} is gone")))
}
