//! Somebody erased: their schema from every backup, and a line in the ledger so that no restore brings
//! them back. Knows runs and their record; what is done to one destination is in `shelf`, to one
//! backup in `copy`, and what can't be done in `remains`.

mod copy;
mod remains;
mod shelf;

use std::fs;
use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use tracing::Instrument;
use uuid::Uuid;

use super::delivery::within;
use super::execution::beat;
use super::ledger::{self, Gathered};
use super::sync::Unreachable;
use super::{Control, Job, Place, Site};
use crate::catalog::{Finish, Request};
use crate::fault::{Context, Fault, Result};
use crate::lock::Lock;
use crate::model::{
    BackupId, Erasure, JobName, Ledger, RunId, RunKind, RunState, Subject, Trigger,
};
use shelf::Shelf;

pub(super) use copy::is_half_erased;
pub use remains::Remains;

/// What became of the schema in one backup on one destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EraseState {
    /// Nothing of it is there.
    #[default]
    Untouched,
    /// It was only looked at.
    Planned,
    Erased,
    /// Taken out of the backup, but the store keeps the file.
    Retained,
    /// Still there; `error` says why.
    Left,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Became {
    pub state: EraseState,
    /// Files that were deleted, or would be.
    pub files: usize,
    /// Their size.
    pub bytes: u64,
    /// Until when the store keeps them, where it says that.
    pub until: Option<Timestamp>,
    pub error: Option<String>,
}

impl Became {
    fn left(why: impl Into<String>) -> Self {
        Self { state: EraseState::Left, error: Some(why.into()), ..Self::default() }
    }
}

/// One backup on one destination.
#[derive(Debug, Serialize)]
pub struct ErasedCopy {
    pub id: BackupId,
    pub destination: String,
    pub pinned: bool,
    #[serde(flatten)]
    pub became: Became,
}

/// What an erasure did.
#[derive(Debug, Serialize)]
pub struct Erasing {
    pub job: JobName,
    /// `None`: it was only looked at.
    pub run: Option<RunId>,
    /// What was asked for, or was still to be done.
    pub erasures: Vec<Erasure>,
    /// Backups that held something of it.
    pub copies: Vec<ErasedCopy>,
    pub unreachable: Vec<Unreachable>,
    /// What is not gone, and until when.
    pub remains: Vec<Remains>,
}

impl Erasing {
    pub fn state(&self) -> RunState {
        let left = |copy: &&ErasedCopy| {
            matches!(copy.became.state, EraseState::Left | EraseState::Retained)
        };
        match self.copies.iter().any(|copy| left(&copy)) || !self.unreachable.is_empty() {
            false => RunState::Succeeded,
            true => RunState::Partial,
        }
    }

    fn error(&self) -> Option<String> {
        let down = self.unreachable.iter();
        let down = down.map(|down| format!("'{}': {}", down.destination, down.error));
        let left = self.copies.iter().filter_map(|copy| {
            Some(format!("{} on '{}': {}", copy.id, copy.destination, copy.became.error.as_ref()?))
        });
        down.chain(left).next()
    }
}

/// What a person asks for.
pub fn wish(
    site: &Site,
    subject: Subject,
    database: Option<String>,
    note: Option<String>,
) -> Erasure {
    let (id, at) = (Uuid::new_v4(), site.clock.now());
    Erasure { id, at, host: site.host.clone(), database, subject, note }
}

/// All that was ever erased, by every ledger that can be read.
pub async fn erasures(site: &Site, job: &Job) -> Result<(Vec<Erasure>, Vec<Unreachable>)> {
    let gathered = ledger::gather(site, job).await?;
    let unreachable = unreachable(job, &gathered);
    Ok((gathered.erasures, unreachable))
}

/// What an erasure would do; changes nothing.
pub async fn plan_erasure(site: &Site, job: &Job, erasure: &Erasure) -> Result<Erasing> {
    let mut erasing = Erasing::new(job, vec![erasure.clone()]);
    let shelves = join_all(job.places.iter().map(|place| Shelf::look(site, job, place, erasure)));
    let mut seen = Vec::new();
    for (place, shelf) in job.places.iter().zip(shelves.await) {
        match shelf {
            Ok(shelf) => seen.push(shelf),
            Err(fault) => erasing.missed(place, &fault),
        }
    }
    let known = site.catalog.backups(None).await?;
    erasing.remains = remains::of(job, erasure, &seen, &known);
    erasing.copies = seen.into_iter().flat_map(|shelf| shelf.copies).collect();
    Ok(erasing)
}

/// Erases, as a run of its own: `wish`, if there is one, and what an earlier one did not come to. The
/// caller holds the job's lock and its sync lock.
pub async fn erase(
    site: &Arc<Site>,
    job: &Arc<Job>,
    wish: Option<Erasure>,
    trigger: Trigger,
    control: &Control,
) -> Result<Erasing> {
    let request = Request::own(&job.name, RunKind::Erase, trigger);
    let run = site.catalog.add_run(&request, site.clock.now()).await?;
    let _alive = Lock::try_take(&site.run_lock(run))
        .context("lock the run")?
        .ok_or_else(|| Fault::permanent(format!("run {run} is being carried out already")))?;
    let stamp = BackupId::at(site.clock.now());
    let log = site.data_dir.join(format!("logs/{}/erase_{stamp}.log", job.name));
    site.catalog.start(run, None, &log.display().to_string(), site.clock.now()).await?;
    let span = tracing::info_span!("run", job = %job.name, log = %log.display());
    let erasing = recorded(site, job, run, wish, control).instrument(span).await;
    fs::remove_file(site.run_lock(run)).ok();
    erasing
}

async fn recorded(
    site: &Arc<Site>,
    job: &Arc<Job>,
    run: RunId,
    wish: Option<Erasure>,
    control: &Control,
) -> Result<Erasing> {
    let heart = tokio::spawn(beat(site.clone(), run, control.clone()).in_current_span());
    let done = erase_all(site, job, wish, control).await;
    heart.abort();
    let (state, error) = match &done {
        _ if control.stopped_by_shutdown() => (RunState::Interrupted, None),
        _ if control.cancel.is_cancelled() => (RunState::Cancelled, None),
        Ok(erasing) => (erasing.state(), erasing.error()),
        Err(fault) => (RunState::Failed, Some(fault.chain())),
    };
    let hint = error.as_ref().map(|_| "the same command, or the next sync, goes on with it".into());
    let (warnings, deliveries) = (Vec::new(), Vec::new());
    let finish = Finish { state, error, hint, warnings, deliveries };
    site.catalog.finish(run, &finish, site.clock.now()).await?;
    let mut erasing = done?;
    erasing.run = Some(run);
    Ok(erasing)
}

async fn erase_all(
    site: &Site,
    job: &Job,
    wish: Option<Erasure>,
    control: &Control,
) -> Result<Erasing> {
    // First of all it is remembered: from now on no restore brings it back.
    if let Some(wish) = &wish {
        ledger::remember(site, &job.name, std::slice::from_ref(wish)).await?;
        tracing::info!("to be erased, by {}: {}", wish.host, subject(wish));
    }
    let gathered = ledger::gather(site, job).await?;
    let mut erasing = Erasing::new(job, wish.iter().cloned().collect());
    erasing.unreachable = unreachable(job, &gathered);
    let mut shelves = Vec::new();
    for (place, own) in job.places.iter().zip(gathered.shelves) {
        let Ok(own) = own else { continue };
        match on_one(site, job, place, own, &gathered.erasures, control).await {
            Ok(found) => shelves.extend(found),
            Err(fault) => erasing.missed(place, &fault),
        }
    }
    for (erasure, _) in &shelves {
        if !erasing.erasures.contains(erasure) {
            erasing.erasures.push(erasure.clone());
        }
    }
    let known = site.catalog.backups(None).await?;
    for erasure in &erasing.erasures {
        let (of_it, rest): (Vec<_>, Vec<_>) =
            shelves.into_iter().partition(|(other, _)| other == erasure);
        shelves = rest;
        let of_it: Vec<Shelf<'_>> = of_it.into_iter().map(|(_, shelf)| shelf).collect();
        erasing.remains.extend(remains::of(job, erasure, &of_it, &known));
        erasing.copies.extend(of_it.into_iter().flat_map(|shelf| shelf.copies));
    }
    Ok(erasing)
}

/// Brings a destination's ledger up to date, and carries out what is still open there.
async fn on_one<'a>(
    site: &Site,
    job: &Job,
    place: &'a Place,
    mut own: Ledger,
    erasures: &[Erasure],
    control: &Control,
) -> Result<Vec<(Erasure, Shelf<'a>)>> {
    let destination = place.destination.as_ref();
    let before = own.clone();
    own.merge(erasures);
    own.carried_out.retain(|id| own.erasures.iter().any(|erasure| erasure.id == *id));
    if own != before {
        within(job.stall, ledger::put(site, destination, &own)).await?;
    }
    let mut shelves = Vec::new();
    for erasure in own.open() {
        let mut shelf = Shelf::look(site, job, place, &erasure).await?;
        if !destination.append_only() && shelf.erase(site, job, &erasure, control).await {
            own.carried_out.push(erasure.id);
            within(job.stall, ledger::put(site, destination, &own)).await?;
        }
        shelves.push((erasure, shelf));
    }
    Ok(shelves)
}

/// For the log, which outlives what it speaks of: never the words of a statement.
fn subject(erasure: &Erasure) -> String {
    match &erasure.subject {
        Subject::Schema(schema) => format!("schema '{schema}'"),
        Subject::Sql(_) => format!("statement {}", erasure.id),
    }
}

fn unreachable(job: &Job, gathered: &Gathered) -> Vec<Unreachable> {
    let looks = job.places.iter().zip(&gathered.shelves);
    let down = looks.filter_map(|(place, shelf)| {
        let (destination, error) = (place.destination.name().to_owned(), shelf.as_ref().err()?);
        Some(Unreachable { destination, error: error.chain() })
    });
    down.collect()
}

impl Erasing {
    fn new(job: &Job, erasures: Vec<Erasure>) -> Self {
        let (copies, unreachable, remains) = (Vec::new(), Vec::new(), Vec::new());
        Self { job: job.name.clone(), run: None, erasures, copies, unreachable, remains }
    }

    fn missed(&mut self, place: &Place, fault: &Fault) {
        let destination = place.destination.name().to_owned();
        tracing::error!("'{destination}': {}", fault.chain());
        self.unreachable.push(Unreachable { destination, error: fault.chain() });
    }
}

/// Joins the ledgers of a job's destinations, and does what is open on one that can be reached again.
/// The caller holds the job's sync lock.
pub async fn catch_up_erasures(
    site: &Arc<Site>,
    job: &Arc<Job>,
    control: &Control,
) -> Result<Option<Erasing>> {
    let gathered = ledger::gather(site, job).await?;
    let behind = job.places.iter().zip(&gathered.shelves).any(|(place, own)| {
        let Ok(own) = own else { return false };
        let mut whole = own.clone();
        whole.merge(&gathered.erasures);
        let open = !whole.open().is_empty() && !place.destination.append_only();
        open || whole.erasures != own.erasures
    });
    if !behind {
        return Ok(None);
    }
    // A backup is being made or pruned: the next sync comes soon.
    let lock = Lock::try_take(&site.job_lock(&job.name)).context("lock the job")?;
    let Some(_lock) = lock else { return Ok(None) };
    erase(site, job, None, Trigger::Schedule, control).await.map(Some)
}
