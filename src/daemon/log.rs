//! Keeps the log of every job that backs a server up whole, one keeper for each. Knows when to begin and
//! when to end; must not know what a keeper does.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::State;
use crate::app::App;
use crate::job::{Job, keep_log};
use crate::lock::Lock;

/// How often it is asked whether the config is another one, or a command has let a log go.
const LOOK: Duration = Duration::from_secs(1);

/// Until `stop`, for whatever config is in force; returns once every keeper has ended.
pub(super) async fn watch(state: Arc<State>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let app = state.app();
        let round = stop.child_token();
        let mut keepers = JoinSet::new();
        for job in app.jobs.iter().filter(|job| job.log().is_some()) {
            keepers.spawn(keep_while(app.clone(), job.clone(), round.clone()));
        }
        let mut ticks = tokio::time::interval(LOOK);
        while !stop.is_cancelled() && Arc::ptr_eq(&state.app(), &app) {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => {}
            }
        }
        round.cancel();
        while keepers.join_next().await.is_some() {}
    }
}

/// As soon as nobody else keeps it: a command may, for the time of a backup.
async fn keep_while(app: Arc<App>, job: Arc<Job>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        match Lock::try_take(&app.site.wal_lock(&job.name)) {
            Ok(Some(_lock)) => return keep_log(&app.site, &job, &stop).await,
            Ok(None) => {}
            Err(error) => tracing::error!("lock the log of '{}': {error}", job.name),
        }
    }
}
