//! A run of any kind but a backup, from its lock to its record: log file, heartbeat, cancel, end.
//! Knows the catalog; must not know what the run does.

use std::fs;
use std::sync::Arc;

use tracing::Instrument;

use super::execution::beat;
use super::{Control, Site};
use crate::catalog::Finish;
use crate::fault::{Context, Fault, Result};
use crate::lock::Lock;
use crate::model::{BackupId, JobName, RunId, RunKind, RunState};

/// How a run ended that came to its end.
pub(super) struct Ending {
    pub state: RunState,
    pub error: Option<String>,
    pub hint: Option<String>,
    pub warnings: Vec<String>,
}

/// Carries out `work` as the queued run `run`, and writes down how it ended. `backup` is the one it is
/// about, where it is about one.
pub(super) async fn recorded<T>(
    site: &Arc<Site>,
    (job, run, kind): (&JobName, RunId, RunKind),
    backup: Option<BackupId>,
    control: &Control,
    work: impl Future<Output = Result<T>>,
    ending: impl FnOnce(&T) -> Ending,
) -> Result<T> {
    let alive = Lock::try_take(&site.run_lock(run))
        .context("lock the run")?
        .ok_or_else(|| Fault::permanent(format!("run {run} is being carried out already")))?;
    let stamp = BackupId::at(site.clock.now());
    let log = site.data_dir.join(format!("logs/{job}/{kind}_{stamp}.log"));
    if !site.catalog.start(run, backup, &log.display().to_string(), site.clock.now()).await? {
        return Err(Fault::cancelled(format!("run {run} was cancelled")));
    }
    let span = tracing::info_span!("run", job = %job, log = %log.display());
    let done = until_its_end(site, run, control, work, ending).instrument(span).await;
    drop(alive);
    fs::remove_file(site.run_lock(run)).ok();
    done
}

async fn until_its_end<T>(
    site: &Arc<Site>,
    run: RunId,
    control: &Control,
    work: impl Future<Output = Result<T>>,
    ending: impl FnOnce(&T) -> Ending,
) -> Result<T> {
    let heart = tokio::spawn(beat(site.clone(), run, control.clone()).in_current_span());
    let done = work.await;
    heart.abort();
    let counts = (control.meter.plain(), control.meter.stored(), control.total());
    site.catalog.beat(run, counts, site.clock.now()).await?;
    let stopped = |state| Ending { state, error: None, hint: None, warnings: Vec::new() };
    let Ending { state, error, hint, warnings } = match &done {
        Ok(done) => ending(done),
        Err(_) if control.stopped_by_shutdown() => stopped(RunState::Interrupted),
        Err(_) if control.cancel.is_cancelled() => stopped(RunState::Cancelled),
        Err(fault) => {
            tracing::error!("the run failed: {}", fault.chain());
            let hint = fault.next_step().map(str::to_owned);
            Ending { error: Some(fault.chain()), hint, ..stopped(RunState::Failed) }
        }
    };
    let finish = Finish { state, error, hint, warnings, deliveries: Vec::new() };
    site.catalog.finish(run, &finish, site.clock.now()).await?;
    done
}
