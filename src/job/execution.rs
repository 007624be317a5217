//! A backup run from its lock to its record: heartbeat, deadline, cancel, log, retention, alert.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use tracing::Instrument;

use super::backup::{backup, bytes, free_id};
use super::leftovers::clear;
use super::messages::{
    Trouble, end_and_tell, tell_of_anomaly, tell_of_damage, tell_of_start, tell_troubles,
};
use super::prune::{PruneOptions, prune};
use super::recovery::abort_uploads;
use super::wal::{spend, while_kept};
use super::{Control, Job, Made, Pruned, Site, chain, places, watch};
use super::{changes, hooks};
use crate::catalog::Finish;
use crate::clock::Stopwatch;
use crate::durable;
use crate::fault::{Context, Fault, FaultKind, Result};
use crate::lock::Lock;
use crate::model::{BackupId, BackupKind, EventKind, RunId, RunKind, RunState};
use crate::retention::Held;
use crate::source::Session;

const HEARTBEAT: Duration = Duration::from_secs(1);
/// A line in the log for every so many heartbeats.
const PROGRESS_BEATS: u64 = 60;
/// How long a run that was told to stop may take to end, and then to clear up behind itself:
/// docker kills 10 s after SIGTERM, and the daemon's grace comes out of that too.
const STOPPING: Duration = Duration::from_secs(2);
/// How long a run that failed may take to clear up behind itself.
const CLEARING: Duration = Duration::from_secs(20);

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub run: RunId,
    pub state: RunState,
    pub made: Option<Made>,
    pub fault: Option<Fault>,
    pub pruned: Vec<Pruned>,
    /// Why nothing was made, where that is no fault.
    pub note: Option<String>,
}

/// A private folder of one run, removed with everything in it when the run is over.
pub struct Spool {
    session: Session,
    lock_file: PathBuf,
    _lock: Lock,
}

impl Spool {
    /// `name` must be this process's alone.
    pub fn create(site: &Site, name: &str, control: &Control) -> Result<Self> {
        let doing = "make the spool folder";
        let lock_file = site.data_dir.join("locks").join(format!("spool-{name}"));
        let lock = Lock::try_take(&lock_file)
            .context(doing)?
            .ok_or_else(|| Fault::permanent(format!("spool folder {name} is in use")))?;
        let spool = site.spool(name);
        durable::create_folder(&spool).context(doing)?;
        let cancel = control.cancel.clone();
        let session = Session { spool, cancel, drilled: false, since: None };
        Ok(Self { session, lock_file, _lock: lock })
    }

    pub fn session(&self) -> &Session {
        &self.session
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.session.spool).ok();
        fs::remove_file(&self.lock_file).ok();
    }
}

/// Carries out a queued backup run. The caller holds the job's lock. `last_try`: no retry follows,
/// so people are told.
pub async fn execute(
    site: &Arc<Site>,
    job: &Arc<Job>,
    (run, kind, label): (RunId, RunKind, Option<String>),
    last_try: impl Fn(&Fault) -> bool + Send + Sync,
    control: &Control,
) -> Result<Outcome> {
    let _alive = Lock::try_take(&site.run_lock(run))
        .context("lock the run")?
        .ok_or_else(|| Fault::permanent(format!("run {run} is being carried out already")))?;
    let incremental = kind == RunKind::Incremental;
    if incremental && let Some(why) = chain::asks_in_vain(job).await? {
        return chain::nothing_to_do(site, run, why).await;
    }
    let kind = BackupKind::from(kind);
    let id = free_id(site, job).await;
    let job = &places::taking(site, job, &id, kind).await?;
    let log = site.data_dir.join(format!("logs/{}/backup_{id}.log", job.name));
    if !site.catalog.start(run, Some(id), &log.display().to_string(), site.clock.now()).await? {
        return Err(Fault::cancelled(format!("run {run} was cancelled")));
    }
    let span = tracing::info_span!("run", job = %job.name, log = %log.display());
    let what = (id, kind, label);
    let outcome = run_started(site, job, run, what, &last_try, control).instrument(span).await;
    fs::remove_file(site.run_lock(run)).ok();
    outcome
}

async fn run_started(
    site: &Arc<Site>,
    job: &Arc<Job>,
    run: RunId,
    (id, kind, label): (BackupId, BackupKind, Option<String>),
    last_try: &(impl Fn(&Fault) -> bool + Send + Sync),
    control: &Control,
) -> Result<Outcome> {
    let watch = Stopwatch::start();
    tell_of_start(site, &job.name, run).await?;
    let heart = tokio::spawn(beat(site.clone(), run, control.clone()).in_current_span());
    // Before the first byte is read: what changes meanwhile is a change.
    let state = match job.on_change {
        Some(_) => changes::state(job, &control.cancel).await.ok().flatten(),
        None => None,
    };
    let made = match hooks::before(job, &id, &control.cancel).await {
        Ok(()) => bounded(site, job, run, (id, kind, label), control).await,
        Err(fault) => Err(fault),
    };
    let seconds = watch.elapsed().as_secs_f64();
    // A process that is told to end has no time for more.
    let most = control.stopped_by_shutdown().then_some(STOPPING);
    let hooked = hooks::after(job, &id, state_of(&made, control), most).await;
    heart.abort();
    let mut pruned = Vec::new();
    let mut troubles = Vec::new();
    if let (Ok(_), Some(state)) = (&made, state) {
        changes::remember(site, job, state).await?;
    }
    match &made {
        Ok(made) => {
            let (plain, stored) = (made.manifest.plain_bytes(), made.manifest.stored_bytes());
            tracing::info!(
                "backup {id} is committed: {} in, {} stored, {seconds:.1} s",
                bytes(plain),
                bytes(stored)
            );
            for warning in &made.warnings {
                tracing::warn!("{warning}");
            }
            (pruned, troubles) = prune_all(site, job, made).await;
            if made.is_complete() {
                // What an earlier run could not take back from a store that was down.
                abort_uploads(site, std::slice::from_ref(job)).await?;
            }
        }
        Err(fault) => tracing::error!("the run failed: {}{}", fault.chain(), hint_of(fault)),
    }
    // Before it is over: whoever kills it from here on leaves a run that is known to have died, and
    // the next start clears the rest.
    clear_own(site, job, &made, &id, control).await;
    let (mut finish, state) = finish(job, &made, control, &troubles);
    if let Err(fault) = &hooked {
        tracing::warn!("{}{}", fault.chain(), hint_of(fault));
        finish.warnings.push(fault.chain());
    }
    let counts = (control.meter.plain(), control.meter.stored(), control.total());
    site.catalog.beat(run, counts, site.clock.now()).await?;
    let told = match &made {
        Err(fault) if fault.kind() == FaultKind::Cancelled => state == RunState::Interrupted,
        Err(fault) => last_try(fault),
        Ok(_) => true,
    };
    let told_beside = tell_beside(site, job, run, &made, &hooked, &troubles).await;
    match told {
        true => end_and_tell(site, job, run, &finish).await?,
        false => site.catalog.finish(run, &finish, site.clock.now()).await?,
    }
    told_beside?;
    let (made, fault) = match made {
        Ok(made) => (Some(made), None),
        Err(fault) => (None, Some(fault)),
    };
    Ok(Outcome { run, state, made, fault, pruned, note: None })
}

/// Tells of what was odd though there is a backup; what was told of and is over is forgotten.
async fn tell_beside(
    site: &Site,
    job: &Job,
    run: RunId,
    made: &Result<Made>,
    hooked: &Result<()>,
    troubles: &[Trouble],
) -> Result<()> {
    match hooked {
        Err(fault) => hooks::tell(site, job, run, fault).await?,
        Ok(()) => site.forget_trouble(&job.name, EventKind::HookFailed).await?,
    }
    let Ok(made) = made else { return Ok(()) };
    match &made.anomaly {
        _ if made.manifest.kind == BackupKind::Suspect => tell_of_damage(site, job, run).await?,
        Some(finding) => tell_of_anomaly(site, job, run, &watch::sentence(finding)).await?,
        None => site.forget_trouble(&job.name, EventKind::Anomaly).await?,
    }
    match troubles {
        [] => site.forget_trouble(&job.name, EventKind::PruneHeld).await,
        troubles => tell_troubles(site, job, run, troubles).await,
    }
}

/// The backup itself, within its deadline; a panic is a failed run.
async fn bounded(
    site: &Arc<Site>,
    job: &Arc<Job>,
    run: RunId,
    what: (BackupId, BackupKind, Option<String>),
    control: &Control,
) -> Result<Made> {
    let spool = Spool::create(site, &format!("run-{run}"), control)?;
    let work = backup(site, job, what, spool.session(), control);
    let work = async { while_kept(site, job, work).await.flatten() };
    let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
    let deadline = tokio::time::sleep(job.deadline);
    let late = || {
        Fault::transient(format!("the run took longer than its deadline of {:?}", job.deadline))
            .hint("raise `deadline` on the job, or find out what is slow")
    };
    let (done, over) = tokio::select! {
        done = &mut work => (Ok(done), None),
        () = deadline => (Err(()), Some(late())),
        () = control.cancel.cancelled() => (Err(()), None),
    };
    let done = match done {
        Ok(done) => done,
        Err(()) => {
            control.cancel.cancel();
            match tokio::time::timeout(STOPPING, work).await {
                Ok(done) => done,
                Err(_) => Ok(Err(Fault::cancelled("the run was stopped"))),
            }
        }
    };
    let done = done.unwrap_or_else(|_| {
        Err(Fault::permanent("the run broke off in a fault of respaldo itself")
            .hint("please report it with the run's log"))
    });
    match (done, over) {
        (Err(_), Some(late)) => Err(late),
        (Err(_), None) if control.cancel.is_cancelled() => {
            Err(Fault::cancelled("the run was stopped"))
        }
        (done, _) => done,
    }
}

/// Writes how far the run is, and stops it when somebody asks for that.
pub(super) async fn beat(site: Arc<Site>, run: RunId, control: Control) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    for beat in 1_u64.. {
        ticks.tick().await;
        let counts = (control.meter.plain(), control.meter.stored(), control.total());
        if beat.is_multiple_of(PROGRESS_BEATS) {
            let total = control.total().map(|t| format!(" of about {}", bytes(t)));
            tracing::info!("{}{} read", bytes(counts.0), total.unwrap_or_default());
        }
        match site.catalog.beat(run, counts, site.clock.now()).await {
            Ok(true) => control.cancel.cancel(),
            Ok(false) => {}
            Err(fault) => tracing::warn!("{}", fault.chain()),
        }
    }
}

fn state_of(made: &Result<Made>, control: &Control) -> RunState {
    match made {
        Ok(made) if made.is_complete() => RunState::Succeeded,
        Ok(_) => RunState::Partial,
        Err(fault) if fault.kind() != FaultKind::Cancelled => RunState::Failed,
        Err(_) if control.stopped_by_shutdown() => RunState::Interrupted,
        Err(_) => RunState::Cancelled,
    }
}

fn finish(
    job: &Job,
    made: &Result<Made>,
    control: &Control,
    troubles: &[Trouble],
) -> (Finish, RunState) {
    let warnings: Vec<String> = troubles.iter().map(|(text, _)| text.clone()).collect();
    let state = state_of(made, control);
    match made {
        Ok(made) => {
            let failed =
                made.deliveries.iter().find_map(|(name, fault)| Some((name, fault.as_ref()?)));
            let finish = Finish {
                state,
                error: failed
                    .map(|(name, fault)| format!("destination '{name}': {}", fault.chain())),
                hint: failed.and_then(|(_, fault)| fault.next_step().map(str::to_owned)),
                warnings: made.warnings.iter().cloned().chain(warnings).collect(),
                deliveries: made
                    .deliveries
                    .iter()
                    .map(|(name, fault)| (name.clone(), fault.as_ref().map(Fault::chain)))
                    .collect(),
            };
            (finish, state)
        }
        Err(fault) => {
            let text = fault.chain();
            let deliveries = match state {
                RunState::Cancelled => Vec::new(),
                _ => job
                    .places
                    .iter()
                    .map(|p| (p.destination.name().to_owned(), Some(text.clone())))
                    .collect(),
            };
            let hint = fault.next_step().map(str::to_owned);
            (Finish { state, error: Some(text), hint, warnings, deliveries }, state)
        }
    }
}

/// Retention after a committed backup, on every destination that got it. Trouble there does not
/// undo the backup, but it is told.
async fn prune_all(site: &Site, job: &Job, made: &Made) -> (Vec<Pruned>, Vec<Trouble>) {
    let mut done = Vec::new();
    let mut troubles = Vec::new();
    for place in &job.places {
        let name = place.destination.name();
        if made.deliveries.iter().any(|(n, fault)| n == name && fault.is_some()) {
            continue;
        }
        match prune(site, job, place, PruneOptions::default()).await {
            Ok(pruned) => {
                // Of an anomaly people hear once, and not for each destination.
                if let Some(held) = pruned.held.filter(|held| *held != Held::Anomaly) {
                    let text = format!("nothing was pruned on '{name}': {}", held.reason());
                    tracing::warn!("{text}");
                    troubles.push((text, Some(held.next_step().to_owned())));
                }
                for warning in &pruned.warnings {
                    let text = format!("'{name}': {warning}");
                    tracing::warn!("{text}");
                    troubles.push((text, None));
                }
                done.push(pruned);
            }
            Err(fault) => {
                let text = format!("could not prune '{name}': {}", fault.chain());
                tracing::warn!("{text}");
                troubles.push((text, fault.next_step().map(str::to_owned)));
            }
        }
        if let Err(fault) = spend(site, job, place).await {
            let text = format!("could not clear the log on '{name}': {}", fault.chain());
            tracing::warn!("{text}");
            troubles.push((text, fault.next_step().map(str::to_owned)));
        }
    }
    (done, troubles)
}

/// Where this run got nothing committed, nothing of it stays.
async fn clear_own(site: &Site, job: &Job, made: &Result<Made>, own: &BackupId, control: &Control) {
    if made.as_ref().is_ok_and(Made::is_complete) {
        return;
    }
    let patience = if control.cancel.is_cancelled() { STOPPING } else { CLEARING };
    let clearings = job.places.iter().map(async |place| {
        let clearing = clear(site, job, place.destination.as_ref(), Some(own));
        match tokio::time::timeout(patience, clearing).await {
            Ok(Ok(())) => {}
            // A destination that is down keeps it; the next run or start clears it.
            Ok(Err(fault)) => tracing::warn!("leftovers stay: {}", fault.chain()),
            Err(_) => tracing::warn!("leftovers stay on '{}'", place.destination.name()),
        }
    });
    join_all(clearings).await;
}

fn hint_of(fault: &Fault) -> String {
    fault.next_step().map(|hint| format!(" (hint: {hint})")).unwrap_or_default()
}
