//! The worker pool: takes runs from the queue, as many at once as there are workers, never two of
//! one job, and no more than allowed on one server.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{State, job_lock};
use crate::app::App;
use crate::catalog::{Request, Run};
use crate::fault::{Fault, FaultKind, Result};
use crate::job::{Control, Job, execute};
use crate::lock::Lock;
use crate::model::{RunState, Trigger};
use crate::retry::Backoff;

/// How often the queue is looked at without being told: retries come due, and the command line
/// holds a job's lock for a while.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Pool {
    task: JoinHandle<()>,
    /// No new runs.
    closed: CancellationToken,
    /// Running ones end.
    shutdown: CancellationToken,
}

impl Pool {
    pub(super) fn start(state: Arc<State>) -> Self {
        let (closed, shutdown) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn(work(state, closed.clone(), shutdown.clone()));
        Self { task, closed, shutdown }
    }

    /// Lets runs go on for `grace`, then cancels them and waits for at most `stopping`.
    pub(super) async fn stop(mut self, grace: Duration, stopping: Duration) {
        self.closed.cancel();
        if tokio::time::timeout(grace, &mut self.task).await.is_ok() {
            return;
        }
        self.shutdown.cancel();
        if tokio::time::timeout(stopping, self.task).await.is_err() {
            tracing::error!("a run did not stop; the next start clears up behind it");
        }
    }
}

/// A run that was finished, and the servers that are free again.
type Finished = BTreeSet<String>;

async fn work(state: Arc<State>, closed: CancellationToken, shutdown: CancellationToken) {
    let mut running: JoinSet<Finished> = JoinSet::new();
    let mut on_server: HashMap<String, usize> = HashMap::new();
    loop {
        if !closed.is_cancelled()
            && let Err(fault) = fill(&state, &mut running, &mut on_server, &shutdown).await
        {
            tracing::error!("the queue can't be read: {}", fault.chain());
        }
        if closed.is_cancelled() && running.is_empty() {
            return;
        }
        tokio::select! {
            Some(finished) = running.join_next() => {
                for server in finished.into_iter().flatten() {
                    on_server.entry(server).and_modify(|count| *count -= 1);
                }
            }
            () = state.queued.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
            () = closed.cancelled(), if !closed.is_cancelled() => {}
        }
    }
}

async fn fill(
    state: &Arc<State>,
    running: &mut JoinSet<Finished>,
    on_server: &mut HashMap<String, usize>,
    shutdown: &CancellationToken,
) -> Result<()> {
    let app = state.app();
    if running.len() >= app.settings.workers {
        return Ok(());
    }
    for run in app.site.catalog.queued(app.site.clock.now()).await? {
        if running.len() >= app.settings.workers {
            return Ok(());
        }
        let Ok(job) = app.job(run.job.as_str()) else {
            tracing::warn!("job '{}' is no longer in the config; its run is dropped", run.job);
            app.site.catalog.request_cancel(run.id, app.site.clock.now()).await?;
            continue;
        };
        let servers: BTreeSet<String> =
            job.sources.iter().filter_map(|source| source.server()).collect();
        let is_busy = |server: &String| {
            on_server.get(server).is_some_and(|runs| *runs >= app.settings.runs_per_server)
        };
        if servers.iter().any(is_busy) {
            continue;
        }
        // Somebody runs it already: this one waits.
        let Some(lock) = job_lock(&app, job)? else { continue };
        for server in &servers {
            *on_server.entry(server.clone()).or_default() += 1;
        }
        let (state, app, job) = (state.clone(), app.clone(), job.clone());
        let control = Control::new(shutdown);
        running.spawn(async move {
            carry_out(&state, &app, &job, run, lock, control).await;
            servers
        });
    }
    Ok(())
}

async fn carry_out(
    state: &State,
    app: &App,
    job: &Arc<Job>,
    run: Run,
    lock: Lock,
    control: Control,
) {
    let retries = job.retries;
    let again = move |fault: &Fault| fault.is_transient() && run.attempt <= retries;
    let last_try = move |fault: &Fault| !again(fault);
    let done = execute(&app.site, job, run.id, run.label.clone(), last_try, &control).await;
    drop(lock);
    let fault = match done {
        Ok(outcome) if outcome.state == RunState::Failed => outcome.fault,
        Ok(_) => None,
        Err(fault) if fault.kind() == FaultKind::Cancelled => None,
        Err(fault) => {
            tracing::error!("run {} of '{}': {}", run.id, job.name, fault.chain());
            None
        }
    };
    if let Some(fault) = fault.filter(again) {
        retry(app, &run, &fault).await;
    }
    state.queued.notify_one();
}

async fn retry(app: &App, run: &Run, fault: &Fault) {
    let wait = Backoff::RUN.after(run.attempt);
    let now = app.site.clock.now();
    let request = Request {
        job: run.job.clone(),
        kind: run.kind,
        trigger: Trigger::Retry,
        label: run.label.clone(),
        attempt: run.attempt + 1,
        not_before: now.checked_add(wait).unwrap_or(now),
    };
    tracing::warn!("job '{}' is tried again in {} s: {fault}", run.job, wait.as_secs());
    if let Err(fault) = app.site.catalog.enqueue(&request, now).await {
        tracing::error!("{}", fault.chain());
    }
}
