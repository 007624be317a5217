//! Jobs that run when their files change: each is looked at now and then, and queued once it has
//! come to rest. Knows when to look; whether that is worth a run is decided in `change`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::State;
use crate::catalog::Request;
use crate::change::Watch;
use crate::fault::Result;
use crate::job::{Job, changed_since};
use crate::model::{JobName, RunKind, Trigger};

/// How often it is asked which job's turn has come.
const TICK: Duration = Duration::from_secs(1);

/// Until `stop`, for every job of whatever config is in force.
pub(super) async fn watch(state: Arc<State>, stop: CancellationToken) {
    let mut watches: HashMap<JobName, (Watch, Duration)> = HashMap::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        for job in &state.app().jobs {
            let Some(poll) = job.on_change else { continue };
            let (watch, waited) =
                watches.entry(job.name.clone()).or_insert((Watch::default(), poll));
            *waited += TICK;
            if *waited < poll {
                continue;
            }
            *waited = Duration::ZERO;
            if let Err(fault) = look(&state, job, watch, &stop).await {
                tracing::warn!("job '{}' could not be looked at: {}", job.name, fault.chain());
            }
        }
    }
}

async fn look(state: &State, job: &Job, watch: &mut Watch, stop: &CancellationToken) -> Result<()> {
    let site = &state.app().site;
    let Some((now, backed_up)) = changed_since(site, job, stop).await? else { return Ok(()) };
    if !watch.look(now, backed_up) {
        return Ok(());
    }
    let at = site.clock.now();
    let request = Request::now(&job.name, RunKind::Backup, Trigger::Change, at);
    site.catalog.enqueue(&request, at).await?;
    tracing::info!("the files of job '{}' have changed: it runs now", job.name);
    state.queued.notify_one();
    Ok(())
}
