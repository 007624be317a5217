//! The scheduled sync: looks, at its times, whether a destination of a job lacks what another one
//! has, and only then puts a run into the queue.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::State;
use crate::app::App;
use crate::catalog::Request;
use crate::fault::{Context, Result};
use crate::job::{Control, Job, catch_up_erasures, survey, tell_of_sync};
use crate::lock::Lock;
use crate::model::{RunKind, Trigger};

/// How often the clock is looked at: it may jump, and the config may be read again.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn watch(state: Arc<State>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK);
    let mut last = state.app().site.clock.now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let app = state.app();
        let now = app.site.clock.now();
        // A clock that was set back starts anew.
        last = last.min(now);
        if app.settings.sync.next(last).is_none_or(|due| due > now) {
            continue;
        }
        last = now;
        for job in app.jobs.iter().filter(|job| job.sync && job.places.len() > 1) {
            match look(&app, job, &stop).await {
                Ok(true) => state.queued.notify_one(),
                Ok(false) => {}
                Err(fault) => tracing::error!("sync of '{}': {}", job.name, fault.chain()),
            }
        }
    }
}

/// Whether there is something to do; then it is in the queue.
async fn look(app: &App, job: &Arc<Job>, stop: &CancellationToken) -> Result<bool> {
    let site = &app.site;
    let lock = Lock::try_take(&site.sync_lock(&job.name)).context("lock the sync")?;
    // One is under way: it finds what there is.
    if lock.is_none() {
        return Ok(false);
    }
    catch_up_erasures(site, job, &Control::new(stop)).await?;
    let found = survey(site, job).await?;
    if found.repairs.is_empty() {
        tell_of_sync(site, job, &found).await?;
        return Ok(false);
    }
    let now = site.clock.now();
    let request = Request::now(&job.name, RunKind::Sync, Trigger::Schedule, now);
    site.catalog.enqueue(&request, now).await?;
    Ok(true)
}
