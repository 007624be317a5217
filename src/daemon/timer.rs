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
    pub(super) async fn start(state: Arc<State>) -> Result<Self> {
        let scheduler = JobScheduler::new().await.context("make the timer")?;
        scheduler.start().await.context("start the timer")?;
        let timer = Self { scheduler, state, generation: Arc::default(), said: Arc::default() };
        timer.rearm().await;
        Ok(timer)
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
        let now = self.state.app().site.clock.now();
        let Some(schedule) = job.schedule_of(kind) else { return };
        let Some(at) = job.next_time(kind, now) else { return };
        let due = at.checked_add(schedule.jitter(job.name.as_str(), at)).unwrap_or(at);
        self.arm(job.clone(), kind, due, generation).await;
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
                return self.arm(job, kind, due, generation).await;
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
