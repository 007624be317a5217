//! How much room there is, looked at now and then and after each run. Knows when; what is too little is decided in
//! `crate::space`.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::State;
use crate::job::look_at_space;

const EVERY: Duration = Duration::from_secs(600);

pub(super) async fn watch(state: Arc<State>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = state.stored.notified() => {}
            () = stop.cancelled() => return,
        }
        let app = state.app();
        if let Err(fault) = look_at_space(&app.site, &app.jobs).await {
            tracing::error!("the free space is not known: {}", fault.chain());
        }
    }
}
