//! Looks now and then at what no run tells of: backups that become late, what will expire, digests
//! that are due. Knows when to look; what is told is decided in `job`.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::State;
use crate::app::App;
use crate::fault::Result;
use crate::job::{look_at_health, look_at_logs, look_at_papers, post_digests};

const TICK: Duration = Duration::from_secs(5);
/// Files are read at the first tick and at each of so many.
const TICKS_BETWEEN_PAPERS: u64 = 720;

/// Until `stop`, for whatever config is in force.
pub(super) async fn watch(state: Arc<State>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for tick in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(fault) = look(&state.app(), tick).await {
            tracing::error!("{}", fault.chain());
        }
    }
}

async fn look(app: &App, tick: u64) -> Result<()> {
    look_at_health(&app.site, &app.jobs).await?;
    look_at_logs(&app.site, &app.jobs).await?;
    post_digests(&app.site, &app.jobs).await?;
    if tick.is_multiple_of(TICKS_BETWEEN_PAPERS) {
        look_at_papers(&app.site).await?;
    }
    Ok(())
}
