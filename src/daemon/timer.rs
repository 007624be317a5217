//! The timer: one shot for the next time of each job's backups, drill and verification, and the next
//! armed when it has fired. The times are
//! the schedule's own: tokio-cron-scheduler would freeze a zone's offset, so it only waits.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio_cron_scheduler::{Job as Shot, JobScheduler};
use tokio_util::sync::CancellationToken;

use super::State;
use crate::catalog::Request;
use crate::clock::Stopwatch;
use crate::fault::{Context, Fault, Result};
use crate::job::{Job, knows_no_incremental};
use crate::model::{JobName, RunKind, Trigger};

/// The runs that a job has times for.
const KINDS: [RunKind; 4] =
    [RunKind::Backup, RunKind::Incremental, RunKind::Drill, RunKind::Verify];
/// No single wait is longer: a clock that jumps is noticed within this time.
const HOP: Duration = Duration::from_secs(300);
/// How often it is looked whether the clock was set back: the scheduler waits by it, and a shot of before
/// would come only once it has caught up.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Timer {
    scheduler: JobScheduler,
    state: Arc<State>,
    /// Rises at a reload; shots of an older generation do nothing.
    generation: Arc<AtomicU64>,
    /// Jobs whose server knows no incremental backups, which is said once.
    said: Arc<Mutex<BTreeSet<JobName>>>,
}

impl Timer {
    pub(super) async fn start(state: Arc<State>, stop: CancellationToken) -> Result<Self> {
        let scheduler = JobScheduler::new().await.context("make the timer")?;
        scheduler.start().await.context("start the timer")?;
        let timer = Self { scheduler, state, generation: Arc::default(), said: Arc::default() };
        timer.rearm().await;
        tokio::spawn(timer.clone().watch_clock(stop));
        Ok(timer)
    }

    async fn watch_clock(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        let mut last = self.state.app().site.clock.now();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let now = self.state.app().site.clock.now();
            if now < last {
                tracing::warn!("the clock was set back from {last} to {now}: times are armed anew");
                self.rearm().await;
            }
            last = now;
        }
    }

    /// Arms every job of the present config anew.
    pub(super) async fn rearm(&self) {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        for job in &self.state.app().jobs {
            for kind in KINDS {
                self.arm_next(job, kind, generation).await;
            }
        }
    }

    pub(super) async fn stop(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = self.scheduler.clone().shutdown().await {
            tracing::warn!("the timer did not stop: {error}");
        }
    }

    async fn arm_next(&self, job: &Arc<Job>, kind: RunKind, generation: u64) {
        if let Some(due) = self.next_due(job, kind).await {
            self.arm(job.clone(), kind, due, generation).await;
        }
    }

    /// When the job's next run of that kind starts: a scheduled time that has passed and whose jitter has
    /// not is still to come, unless it had its run.
    async fn next_due(&self, job: &Job, kind: RunKind) -> Option<Timestamp> {
        let site = &self.state.app().site;
        let now = site.clock.now();
        if let Some((at, start)) = job.pending(kind, now) {
            match site.catalog.had_its_run(&job.name, kind, at).await {
                Ok(true) => {}
                Ok(false) => return Some(start),
                Err(fault) => tracing::error!("{}", fault.chain()),
            }
        }
        job.next_start(kind, now)
    }

    async fn arm(&self, job: Arc<Job>, kind: RunKind, due: Timestamp, generation: u64) {
        let name = job.name.clone();
        if let Err(fault) = self.shoot(job, kind, due, generation).await {
            tracing::error!("the {kind} of '{name}' has no timer: {}", fault.chain());
        }
    }

    async fn shoot(
        &self,
        job: Arc<Job>,
        kind: RunKind,
        due: Timestamp,
        generation: u64,
    ) -> Result<()> {
        let wait = due.duration_since(self.state.app().site.clock.now());
        let wait = Duration::try_from(wait).unwrap_or_default().min(HOP);
        let timer = self.clone();
        let shot = Shot::new_one_shot_at_instant_async(
            Stopwatch::instant_after(wait),
            // The scheduler itself removes a shot that was fired.
            move |_, _| timer.clone().fired(job.clone(), kind, due, generation),
        );
        self.scheduler.add(shot.context("arm the timer")?).await.context("arm the timer")?;
        Ok(())
    }

    /// Boxed, for it arms what calls it.
    fn fired(
        self,
        job: Arc<Job>,
        kind: RunKind,
        due: Timestamp,
        generation: u64,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if self.generation.load(Ordering::SeqCst) != generation {
                return;
            }
            if self.state.app().site.clock.now() < due {
                // It may have become earlier: the clock may have been set back, within a hop.
                let next = self.next_due(&job, kind).await.map_or(due, |next| next.min(due));
                return self.arm(job, kind, next, generation).await;
            }
            if let Err(fault) = self.enqueue(&job, kind).await {
                tracing::error!(
                    "the {kind} of '{}' could not be queued: {}",
                    job.name,
                    fault.chain()
                );
            }
            self.arm_next(&job, kind, generation).await;
        })
    }

    async fn enqueue(&self, job: &Job, kind: RunKind) -> Result<(), Fault> {
        let site = &self.state.app().site;
        let now = site.clock.now();
        if kind == RunKind::Incremental
            && let Some(why) = knows_no_incremental(site, job).await?
        {
            if self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(job.name.clone()) {
                tracing::info!("{why}");
            }
            return Ok(());
        }
        let request = Request::now(&job.name, kind, Trigger::Schedule, now);
        site.catalog.enqueue(&request, now).await?;
        self.state.queued.notify_one();
        Ok(())
    }
}
