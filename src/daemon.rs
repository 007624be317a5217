//! The daemon: timers fill the queue, a pool empties it, messages go out, health is answered, and
//! signals are obeyed. Knows how these live together; must not know what a run does.

mod log;
mod lookout;
mod pool;
mod space;
mod sync;
mod timer;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Live};
use crate::app::App;
use crate::catalog::Request;
use crate::clock::Clock;
use crate::config::{self, Loaded};
use crate::fault::{Context, Fault, Result};
use crate::job::{
    self, Control, Job, forget_old, rebuild, recover, send_messages, settle_again, uncovered,
};
use crate::lock::Lock;
use crate::model::{Action, Actor, Deed, RunKind, Trigger, VERSION};
use pool::Pool;
use timer::Timer;

/// How long runs may go on after SIGTERM before they are cancelled: docker kills after 10 s unless
/// told otherwise, and cancelling takes a moment.
const GRACE: Duration = Duration::from_secs(5);
/// How long a cancelled run may take to clear up.
const STOPPING: Duration = Duration::from_secs(25);
/// How long the log's keepers may take to store what they have.
const CLOSING: Duration = Duration::from_secs(2);
/// How often it is asked whether what a restore replaced is to go.
const OLD: Duration = Duration::from_secs(600);
/// How often the outbox is looked at.
const OUTBOX: Duration = Duration::from_secs(2);
/// How often new rows of the audit are brought into the log.
const AUDIT: Duration = Duration::from_secs(1);

/// What the parts of the daemon share.
pub(crate) struct State {
    app: RwLock<Arc<App>>,
    ready: AtomicBool,
    /// The queue may have something.
    queued: Notify,
    /// Somebody asks for the config to be read again, and waits for what comes of it.
    reloads: mpsc::Sender<oneshot::Sender<Result<Vec<String>>>>,
    /// A run is over, and may have taken up space.
    stored: Notify,
}

impl State {
    fn app(&self) -> Arc<App> {
        // A poisoned lock still holds a whole app.
        self.app.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn replace(&self, app: App) {
        *self.app.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(app);
    }
}

#[async_trait]
impl Live for State {
    fn app(&self) -> Arc<App> {
        State::app(self)
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn queued(&self) {
        self.queued.notify_one();
    }

    async fn reload(&self) -> Result<Vec<String>> {
        let stopping = || Fault::transient("the daemon is stopping");
        let (answer, answered) = oneshot::channel();
        self.reloads.send(answer).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }
}

/// Says once what is in no job.
async fn look_around(app: Arc<App>) {
    for warning in uncovered(&app.site, &app.jobs).await {
        tracing::warn!("{warning}");
    }
}

/// Runs until SIGTERM or SIGINT. `file` is read again on SIGHUP.
pub async fn run(file: Option<PathBuf>, loaded: Loaded, clock: Clock) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;

    let app = App::open(&loaded, clock.clone(), Actor::daemon()).await?;
    let _only = only_one(&app)?;
    let listen = app.settings.server.listen;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        Fault::usage(format!("listen on {listen}"))
            .cause(error)
            .hint("another program has that port: set server.listen (RESPALDO__SERVER__LISTEN)")
    })?;
    let bound = listener.local_addr().context("listen")?;
    let (reloads, mut asked) = mpsc::channel(1);
    let state = Arc::new(State {
        app: RwLock::new(Arc::new(app)),
        ready: AtomicBool::new(false),
        queued: Notify::new(),
        reloads,
        stored: Notify::new(),
    });
    greet(&state.app(), bound);

    let stop = CancellationToken::new();
    let server = tokio::spawn(api::serve(state.clone(), listener, stop.clone()));
    prepare(&state.app()).await?;
    let timer_stop = CancellationToken::new();
    let timer = Timer::start(state.clone(), timer_stop.clone()).await?;
    let pool = Pool::start(state.clone());
    let outbox = tokio::spawn(deliver(state.clone(), stop.clone()));
    tokio::spawn(look_around(state.app()));
    let sync = tokio::spawn(sync::watch(state.clone(), stop.clone()));
    let watch = tokio::spawn(watch::watch(state.clone(), stop.clone()));
    let space = tokio::spawn(space::watch(state.clone(), stop.clone()));
    let log_stop = CancellationToken::new();
    let log = tokio::spawn(log::watch(state.clone(), log_stop.clone()));
    let lookout = tokio::spawn(lookout::watch(state.clone(), stop.clone()));
    let audit = tokio::spawn(log_audit(state.clone(), stop.clone()));
    let clear = tokio::spawn(clear_old(state.clone(), stop.clone()));
    state.ready.store(true, Ordering::Release);

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                let site = state.app().site.clone();
                let work = reload(&state, file.as_deref(), &clock, &timer);
                // What came of it is in the log.
                site.audited(&Actor::signal(), Deed::new(Action::Reload), work).await.ok();
            }
            Some(answer) = asked.recv() => {
                // Whoever asked may have gone.
                answer.send(reload(&state, file.as_deref(), &clock, &timer).await).ok();
            }
        }
    }
    tracing::info!("stopping: no new runs; running ones have {} s", GRACE.as_secs());
    state.ready.store(false, Ordering::Release);
    timer_stop.cancel();
    timer.stop().await;
    // It only looks: what it has queued the next start goes on with.
    sync.abort();
    watch.abort();
    lookout.abort();
    clear.abort();
    space.abort();
    pool.stop(GRACE, STOPPING).await;
    // After the runs, for a base backup waits for its log.
    log_stop.cancel();
    tokio::time::timeout(CLOSING, log).await.ok();
    stop.cancel();
    finish(server, outbox, audit).await;
    state.app().site.catalog.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Two daemons on one data folder would run everything twice.
fn only_one(app: &App) -> Result<Lock> {
    let path = app.site.data_dir.join("locks/daemon");
    Lock::try_take(&path).context("lock the data folder")?.ok_or_else(|| {
        Fault::usage(format!("another daemon uses {}", app.site.data_dir.display()))
            .hint("give this one another data_dir, or stop the other")
    })
}

fn greet(app: &App, bound: std::net::SocketAddr) {
    tracing::info!("respaldo {} on http://{bound}/health", VERSION);
    for job in &app.jobs {
        let names: Vec<String> = job
            .places
            .iter()
            .map(|place| format!("{} ({})", place.destination.name(), place.destination.place()))
            .collect();
        let next =
            job.schedule.next(app.site.clock.now()).map_or("never by itself".to_owned(), |at| {
                at.to_zoned(job.schedule.zone().clone())
                    .strftime("%a %Y-%m-%d %H:%M %Z")
                    .to_string()
            });
        tracing::info!("job '{}': next run {next}, to {}", job.name, names.join(", "));
    }
}

/// Before anything new: the truth about what was, and what was missed.
async fn prepare(app: &App) -> Result<()> {
    let site = &app.site;
    for job in &app.jobs {
        for place in job.places.iter().filter(|p| p.destination.is_local()) {
            if let Err(fault) = place.destination.check().await {
                let hint = fault.next_step().unwrap_or_default();
                tracing::error!(
                    "destination '{}' can't be written: {} (hint: {hint})",
                    place.destination.name(),
                    fault.chain()
                );
            }
        }
    }
    if site.catalog.is_empty().await? {
        let (count, troubles) = rebuild(site, &app.jobs).await?;
        if count > 0 {
            tracing::info!("the catalog was empty: {count} copies were found on the destinations");
        }
        troubles.iter().for_each(|trouble| tracing::warn!("{trouble}"));
    }
    recover(site, &app.jobs, true).await?;
    for job in &app.jobs {
        catch_up(app, job).await?;
    }
    Ok(())
}

async fn catch_up(app: &App, job: &Arc<Job>) -> Result<()> {
    let now = app.site.clock.now();
    let mut last = None;
    for place in &job.places {
        last = last.max(app.site.catalog.last_success(&job.name, place.destination.name()).await?);
    }
    if !job.catch_up || !job.schedule.missed(last, now) {
        return Ok(());
    }
    match last {
        None => tracing::info!("job '{}' has no backup yet: it runs now", job.name),
        Some(last) => {
            tracing::info!("job '{}' missed its time since {last}: it runs now", job.name)
        }
    }
    let request = Request::now(&job.name, RunKind::Backup, Trigger::CatchUp, now);
    app.site.catalog.enqueue(&request, now).await?;
    Ok(())
}

/// Reads the config again; returns its warnings. A job that is new in it has no first backup yet.
async fn reload(
    state: &State,
    file: Option<&std::path::Path>,
    clock: &Clock,
    timer: &Timer,
) -> Result<Vec<String>> {
    let old = state.app();
    let renewed = async {
        let loaded = config::load(file, clock.now())?;
        if loaded.settings.data_dir != old.site.data_dir {
            return Err(Fault::usage("data_dir can't change while the daemon runs")
                .hint("restart the daemon"));
        }
        let catalog = old.site.catalog.clone();
        let app = App::wire(&loaded, catalog, clock.clone(), Actor::daemon()).await?;
        Ok::<_, Fault>((loaded, app))
    };
    match renewed.await {
        Ok((loaded, app)) => {
            loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            state.replace(app);
            tracing::info!("the config was read again");
            let app = state.app();
            let known = |job: &&Arc<Job>| old.jobs.iter().any(|former| former.name == job.name);
            for job in app.jobs.iter().filter(|job| !known(job)) {
                // The new config is in place, whatever comes of this.
                if let Err(fault) = catch_up(&app, job).await {
                    tracing::error!("job '{}' waits for its schedule: {}", job.name, fault.chain());
                }
            }
            // What runs now is not armed for the same time.
            timer.rearm().await;
            state.queued();
            Ok(loaded.warnings)
        }
        Err(fault) => {
            let hint = fault.next_step().unwrap_or_default();
            tracing::error!("the old config stays: {} (hint: {hint})", fault.chain());
            Err(fault)
        }
    }
}

async fn deliver(state: Arc<State>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(OUTBOX);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(fault) = send_messages(&state.app().site).await {
            tracing::error!("{}", fault.chain());
        }
    }
}

/// What restores have replaced goes when its time is over.
async fn clear_old(state: Arc<State>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(OLD);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let app = state.app();
        if let Err(fault) = settle_again(&app.site, &app.jobs).await {
            tracing::error!("{}", fault.chain());
        }
        forget_old(&app.site, &app.jobs, &Control::new(&stop)).await;
    }
}

/// What commands and clients have done goes into the log as well.
async fn log_audit(state: Arc<State>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(AUDIT);
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            () = stop.cancelled() => true,
        };
        if let Err(fault) = job::log_audit(&state.app().site).await {
            tracing::error!("{}", fault.chain());
        }
        if last {
            return;
        }
    }
}

async fn finish(server: JoinHandle<()>, outbox: JoinHandle<()>, audit: JoinHandle<()>) {
    let all = async { tokio::join!(server, outbox, audit) };
    // A client that keeps its connection open does not keep the daemon.
    tokio::time::timeout(Duration::from_secs(3), all).await.ok();
}
