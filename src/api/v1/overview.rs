//! What is asked of the installation as a whole. Knows nothing of how it is judged.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::super::Hall;
use super::super::access::Viewer;
use super::super::ask::{Asked, later, soon};
use super::super::problem::Problem;
use super::shapes::{Drill, Me};
use crate::fault::Result;
use crate::job;
use crate::model::JobName;

/// Who the token is, and what it may do.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "overview",
    security(("token" = ["viewer"])), responses((status = 200, body = Me)))]
pub async fn who_am_i(Viewer(caller): Viewer) -> Json<Me> {
    Json(Me { name: caller.name, role: caller.role.to_string() })
}

/// As GET /health, but always with status 200.
#[utoipa::path(get, path = "/api/v1/health", tag = "overview",
    security(("token" = ["viewer"])), responses((status = 200, body = Object)))]
pub async fn health(State(hall): State<Hall>, _: Viewer) -> Result<Json<Value>, Problem> {
    let app = hall.live.app();
    Ok(Json(json!(soon(app.site.health(&app.jobs)).await?)))
}

/// As `respaldo status --json`.
#[utoipa::path(get, path = "/api/v1/status", tag = "overview",
    security(("token" = ["viewer"])), responses((status = 200, body = Object)))]
pub async fn status(State(hall): State<Hall>, _: Viewer) -> Result<Json<Value>, Problem> {
    let app = hall.live.app();
    Ok(Json(json!(soon(job::status(&app.site, &app.jobs)).await?)))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DrillsWanted {
    /// One job only.
    #[param(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$")]
    job: Option<JobName>,
    /// Only those of runs before this one.
    before: Option<i64>,
    /// How many at most; 100 unless told.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
}

/// Drills, the newest first.
#[utoipa::path(get, path = "/api/v1/drills", tag = "overview", params(DrillsWanted),
    security(("token" = ["viewer"])), responses((status = 200, body = Vec<Drill>)))]
pub async fn drills(
    State(hall): State<Hall>,
    _: Viewer,
    Asked(wanted): Asked<DrillsWanted>,
) -> Result<Json<Vec<Drill>>, Problem> {
    let most = super::runs::limit(wanted.limit)?;
    let app = hall.live.app();
    let drills = app.site.catalog.recent_drills(wanted.job.as_ref(), wanted.before, most);
    let shown = |drill: crate::catalog::Drill| Drill {
        job: drill.job.to_string(),
        run: drill.run.0,
        at: drill.at,
        backup: drill.backup.map(|id| id.to_string()),
        destination: drill.destination,
        proven: drill.proven,
        seconds: drill.seconds,
        tables: drill.tables,
        rows: drill.rows,
        failure: drill.failure,
    };
    Ok(Json(soon(drills).await?.into_iter().map(shown).collect()))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReportWanted {
    /// Such as 2025-11; none: the last month that is over.
    #[param(pattern = "^20[0-9]{2}-(0[1-9]|1[0-2])$")]
    month: Option<String>,
}

/// As `respaldo report --json`.
#[utoipa::path(get, path = "/api/v1/report", tag = "overview", params(ReportWanted),
    security(("token" = ["viewer"])), responses((status = 200, body = Object)))]
pub async fn report(
    State(hall): State<Hall>,
    _: Viewer,
    Asked(wanted): Asked<ReportWanted>,
) -> Result<Json<Value>, Problem> {
    let month = wanted.month.map(|month| month.parse()).transpose()?;
    let app = hall.live.app();
    let zone = &app.settings.timezone;
    Ok(Json(json!(later(job::monthly(&app.site, &app.jobs, month, zone)).await?)))
}
