//! The worker pool: takes runs from the queue, as many at once as there are workers, never two of
//! one job, and no more than allowed on one server. A sync, a drill or a verification may take long and
//! reads from no source: one of each kind goes on beside the workers.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::State;
use crate::app::{App, loader};
use crate::catalog::{Request, Run};
use crate::fault::{Context, Fault, FaultKind, Result};
use crate::job::{Control, DrillRequest, Job, drill, execute, source_for, sync, verify_due};
use crate::lock::Lock;
use crate::model::{RunKind, RunState, SourceFacts, Trigger};
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

/// What a run takes up until it is over.
enum Seat {
    /// One of the workers, and the servers that it reads from.
    Worker(BTreeSet<String>),
    /// Beside the workers.
    Beside(RunKind),
}

impl Seat {
    fn of(kind: RunKind, job: &Job) -> Self {
        match kind {
            RunKind::Sync | RunKind::Drill | RunKind::Verify => Self::Beside(kind),
            _ => Self::Worker(job.sources.iter().filter_map(|source| source.server()).collect()),
        }
    }
}

/// The runs that go on.
#[derive(Default)]
struct Running {
    tasks: JoinSet<()>,
    seats: HashMap<Id, Seat>,
}

impl Running {
    fn workers(&self) -> usize {
        self.seats.values().filter(|seat| matches!(seat, Seat::Worker(_))).count()
    }

    fn on_server(&self, server: &str) -> usize {
        let reads =
            |seat: &&Seat| matches!(seat, Seat::Worker(servers) if servers.contains(server));
        self.seats.values().filter(reads).count()
    }

    fn is_full(&self, seat: &Seat, workers: usize) -> bool {
        match seat {
            Seat::Beside(kind) => {
                self.seats.values().any(|seat| matches!(seat, Seat::Beside(other) if other == kind))
            }
            Seat::Worker(_) => self.workers() >= workers,
        }
    }

    fn start(&mut self, seat: Seat, run: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(run).id();
        self.seats.insert(id, seat);
    }

    /// Waits for the next to be over, even by a panic; `None` when none goes on.
    async fn next(&mut self) -> Option<()> {
        let id = match self.tasks.join_next_with_id().await? {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!("a run broke off: {error}");
                error.id()
            }
        };
        self.seats.remove(&id);
        Some(())
    }
}

async fn work(state: Arc<State>, closed: CancellationToken, shutdown: CancellationToken) {
    let mut running = Running::default();
    loop {
        if !closed.is_cancelled()
            && let Err(fault) = fill(&state, &mut running, &shutdown).await
        {
            tracing::error!("the queue can't be read: {}", fault.chain());
        }
        if closed.is_cancelled() && running.seats.is_empty() {
            return;
        }
        tokio::select! {
            Some(()) = running.next() => {}
            () = state.queued.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
            () = closed.cancelled(), if !closed.is_cancelled() => {}
        }
    }
}

async fn fill(
    state: &Arc<State>,
    running: &mut Running,
    shutdown: &CancellationToken,
) -> Result<()> {
    let app = state.app();
    for run in app.site.catalog.queued(app.site.clock.now()).await? {
        let Ok(job) = app.job(run.job.as_str()) else {
            tracing::warn!("job '{}' is no longer in the config; its run is dropped", run.job);
            app.site.catalog.request_cancel(run.id, app.site.clock.now()).await?;
            continue;
        };
        let seat = Seat::of(run.kind, job);
        if running.is_full(&seat, app.settings.workers) {
            continue;
        }
        let is_busy = |server: &String| running.on_server(server) >= app.settings.runs_per_server;
        if matches!(&seat, Seat::Worker(servers) if servers.iter().any(is_busy)) {
            continue;
        }
        // Somebody runs it already: this one waits.
        let doing = format!("lock job '{}'", job.name);
        let Some(lock) = Lock::try_take(&app.site.lock_of(run.kind, &job.name)).context(doing)?
        else {
            continue;
        };
        let (state, app, job) = (state.clone(), app.clone(), job.clone());
        let control = Control::new(shutdown);
        running.start(seat, async move {
            match run.kind {
                RunKind::Sync => bring_together(&app, &job, &run, lock, control).await,
                RunKind::Verify => read_back(&app, &job, &run, lock, control).await,
                RunKind::Drill => prove(&app, &job, &run, lock, control).await,
                _ => carry_out(&state, &app, &job, run, lock, control).await,
            }
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
    let asked = (run.id, run.kind, run.label.clone());
    let done = execute(&app.site, job, asked, last_try, &control).await;
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
    state.stored.notify_one();
}

/// A sync that fails is tried again at its next time.
async fn bring_together(app: &App, job: &Arc<Job>, run: &Run, lock: Lock, control: Control) {
    match sync(&app.site, job, run.id, &control).await {
        Ok(_) => {}
        Err(fault) if fault.kind() == FaultKind::Cancelled => {}
        Err(fault) => tracing::error!("run {} of '{}': {}", run.id, job.name, fault.chain()),
    }
    drop(lock);
}

/// What could not be read is due again at the next time.
async fn read_back(app: &App, job: &Arc<Job>, run: &Run, lock: Lock, control: Control) {
    match verify_due(&app.site, job, run.id, &control).await {
        Ok(_) => {}
        Err(fault) if fault.kind() == FaultKind::Cancelled => {}
        Err(fault) => tracing::error!("run {} of '{}': {}", run.id, job.name, fault.chain()),
    }
    drop(lock);
}

/// A drill that fails is held again at its next time.
async fn prove(app: &App, job: &Arc<Job>, run: &Run, lock: Lock, control: Control) {
    let choose = |facts: &SourceFacts| {
        source_for(job, facts).map_or_else(|| loader(facts.engine, &facts.name), Ok)
    };
    let work = async {
        let request = DrillRequest::next(&app.site, job).await?;
        drill(&app.site, run.id, &request, choose, &control).await
    };
    match work.await {
        Ok(drilled) if drilled.proven => tracing::info!("a backup of '{}' is proven", job.name),
        Ok(drilled) => {
            let trouble = drilled.trouble().unwrap_or_default();
            tracing::error!("the drill of '{}' proved nothing: {trouble}", job.name);
        }
        Err(fault) if fault.kind() == FaultKind::Cancelled => {}
        Err(fault) => tracing::error!("run {} of '{}': {}", run.id, job.name, fault.chain()),
    }
    drop(lock);
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
