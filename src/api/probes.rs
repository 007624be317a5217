//! Health, for people, probes and load balancers. Knows status codes; must not decide what is healthy.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Live;
use crate::fault::Result;
use crate::health::{JobHealth, Report, Status};

/// Catalog reads are bounded: a probe must not pile up behind a hung disk.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

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
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

fn code(status: Status) -> StatusCode {
    if status.is_well() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[derive(serde::Deserialize)]
pub(super) struct Wanted {
    job: Option<String>,
}

pub(super) async fn health(State(live): Shared, Query(wanted): Query<Wanted>) -> Response {
    if let Some(job) = wanted.job {
        return job_health(State(live), Path(job)).await;
    }
    match report(&live).await {
        Ok(report) => (code(report.status), Json(report)).into_response(),
        Err(response) => response,
    }
}

pub(super) async fn job_health(State(live): Shared, Path(job): Path<String>) -> Response {
    let report = match report(&live).await {
        Ok(report) => report,
        Err(response) => return response,
    };
    let found: Option<JobHealth> =
        report.jobs.into_iter().find(|health| health.job.as_str() == job);
    match found {
        Some(health) => (code(health.status), Json(health)).into_response(),
        None => {
            let body = json!({ "error": "there is no such job" });
            (StatusCode::NOT_FOUND, Json(body)).into_response()
        }
    }
}

pub(super) async fn ready(State(live): Shared) -> Response {
    if live.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response()
    }
}
