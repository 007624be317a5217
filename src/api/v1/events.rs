//! A run as it goes on, as server-sent events: `progress` (the run, as JSON), `log` (whole lines), and
//! `end` (the run once more). Knows no more of a run than the catalog and its log do.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::super::Hall;
use super::super::access::Viewer;
use super::super::ask::Named;
use super::super::problem::Problem;
use super::runs::{found, log_of, read_log};
use super::shapes::Run;
use crate::clock::Stopwatch;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// So that proxies do not take a silent connection for a dead one.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Then the client comes again, with its token: it may have been revoked.
const LONGEST: Duration = Duration::from_secs(600);
/// Events that wait for who reads.
const EVENTS: usize = 16;

/// What the run says and how far it is, until it is over. `Last-Event-ID` goes on with the log.
#[utoipa::path(get, path = "/api/v1/runs/{run}/events", tag = "runs",
    params(("run" = i64, Path, description = "its number")),
    security(("token" = ["viewer"])),
    responses((status = 200, content_type = "text/event-stream", body = Object)))]
pub async fn of_run(
    State(hall): State<Hall>,
    _: Viewer,
    Named(run): Named<i64>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    found(&hall, run).await?;
    let Ok(seat) = hall.listeners.clone().try_acquire_owned() else {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many listen already")
            .hint("ask for /api/v1/runs/{run} now and then instead")
            .retry_after(10));
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let (events, told) = mpsc::channel(EVENTS);
    tokio::spawn(follow(hall, run, last.unwrap_or(0), events, seat));
    let told = stream::unfold(told, async |mut told| {
        let event: Event = told.recv().await?;
        Some((Ok::<_, Infallible>(event), told))
    });
    Ok(Sse::new(told).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response())
}

/// Until the run is over, the client has gone, or the daemon ends.
async fn follow(
    hall: Hall,
    run: i64,
    mut offset: u64,
    events: mpsc::Sender<Event>,
    _seat: OwnedSemaphorePermit,
) {
    let watch = Stopwatch::start();
    let mut shown = String::new();
    let mut ticks = tokio::time::interval(LOOK);
    while watch.elapsed() < LONGEST {
        tokio::select! {
            _ = ticks.tick() => {}
            () = hall.stop.cancelled() => return,
            () = events.closed() => return,
        }
        // What can't be read now is read at the next look.
        let Ok(now) = found(&hall, run).await else { continue };
        let is_over = now.state.is_over();
        let log = log_of(&hall, &now);
        let Ok(json) = serde_json::to_string(&Run::from(now)) else { return };
        if json != shown && !is_over {
            let event = Event::default().event("progress").data(&json);
            if events.send(event).await.is_err() {
                return;
            }
            shown.clone_from(&json);
        }
        while let Some(text) = next_lines(log.as_deref(), offset).await {
            offset += text.len() as u64;
            let lines = String::from_utf8_lossy(&text).trim_end_matches('\n').replace('\r', "");
            let event = Event::default().event("log").id(offset.to_string()).data(lines);
            if events.send(event).await.is_err() {
                return;
            }
        }
        if is_over {
            events.send(Event::default().event("end").data(json)).await.ok();
            return;
        }
    }
}

async fn next_lines(log: Option<&std::path::Path>, offset: u64) -> Option<Vec<u8>> {
    let text = read_log(log?, offset).await.ok()?;
    Some(text).filter(|text| !text.is_empty())
}
