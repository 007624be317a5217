//! What is answered over HTTP: health, for people, probes and load balancers. Knows routes and
//! status codes; must not decide what is healthy.

mod metrics;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::fault::Result;
use crate::health::{JobHealth, Report, Status};

/// What the daemon shows of itself.
pub trait Live: Send + Sync + 'static {
    fn app(&self) -> Arc<App>;
    /// Recovery is done, and runs are being taken.
    fn is_ready(&self) -> bool;
}

/// Catalog reads are bounded: a probe must not pile up behind a hung disk.
const ANSWER: Duration = Duration::from_secs(5);

/// Answers until `stop`.
pub async fn serve(live: Arc<dyn Live>, listener: TcpListener, stop: CancellationToken) {
    let router = router(live);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!("the HTTP server ended: {error}");
    }
}

pub fn router(live: Arc<dyn Live>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/health/{job}", get(job_health))
        .route("/metrics", get(metrics::metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(live)
}

type Shared = State<Arc<dyn Live>>;

async fn report(live: &Arc<dyn Live>) -> Result<Report, Response> {
    let app = live.app();
    match tokio::time::timeout(ANSWER, app.site.health(&app.jobs)).await {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(fault)) => Err(unknown(&fault.chain())),
        Err(_) => Err(unknown("the catalog does not answer")),
    }
}

/// What is not known is not healthy.
fn unknown(error: &str) -> Response {
    tracing::error!("health is unknown: {error}");
    let body = json!({ "status": "unknown", "jobs": [], "error": error });
    (StatusCode::SERVICE_UNAVAILABLE, no_store(), Json(body)).into_response()
}

fn no_store() -> [(header::HeaderName, &'static str); 1] {
    [(header::CACHE_CONTROL, "no-store")]
}

fn code(status: Status) -> StatusCode {
    if status.is_well() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[derive(serde::Deserialize)]
struct Wanted {
    job: Option<String>,
}

async fn health(State(live): Shared, Query(wanted): Query<Wanted>) -> Response {
    if let Some(job) = wanted.job {
        return job_health(State(live), Path(job)).await;
    }
    match report(&live).await {
        Ok(report) => (code(report.status), no_store(), Json(report)).into_response(),
        Err(response) => response,
    }
}

async fn job_health(State(live): Shared, Path(job): Path<String>) -> Response {
    let report = match report(&live).await {
        Ok(report) => report,
        Err(response) => return response,
    };
    let found: Option<JobHealth> =
        report.jobs.into_iter().find(|health| health.job.as_str() == job);
    match found {
        Some(health) => (code(health.status), no_store(), Json(health)).into_response(),
        None => {
            let body = json!({ "error": "there is no such job" });
            (StatusCode::NOT_FOUND, no_store(), Json(body)).into_response()
        }
    }
}

async fn ready(State(live): Shared) -> Response {
    if live.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response()
    }
}
