//! Runs: how they went, how they go, what they say, and their end asked for.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use utoipa::IntoParams;

use super::super::Hall;
use super::super::access::{Operator, Viewer};
use super::super::ask::{Asked, Named, last_of_full, soon};
use super::super::problem::Problem;
use super::shapes::{Run, Runs};
use crate::catalog::{self, RunQuery};
use crate::fault::{Context, FaultKind, Result};
use crate::job;
use crate::model::{JobName, RunId, RunKind, RunState};

/// How many are given unless told, and at the most.
const PAGE: u16 = 100;
const MOST: u16 = 1000;
/// How much of a log is given at once.
const LOG: u64 = 256 * 1024;
/// No log is longer, and no file system refuses to look there.
const FURTHEST: u64 = 1 << 40;

/// How many are wanted.
pub fn limit(limit: Option<u16>) -> Result<i64, Problem> {
    match limit.unwrap_or(PAGE) {
        limit @ 1..=MOST => Ok(limit.into()),
        _ => Err(Problem::bad_request(format!("limit is 1 to {MOST}"))),
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunsWanted {
    /// One job only.
    #[param(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$")]
    job: Option<JobName>,
    /// One kind only.
    #[param(value_type = Option<String>,
        pattern = "^(backup|verify|restore|prune|sync|erase|drill)$")]
    kind: Option<RunKind>,
    /// One state only.
    #[param(value_type = Option<String>,
        pattern = "^(queued|running|succeeded|partial|failed|interrupted|cancelled)$")]
    state: Option<RunState>,
    /// Only those before this one.
    before: Option<i64>,
    /// How many at most; 100 unless told.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
}

/// Runs, the newest first.
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", params(RunsWanted),
    security(("token" = ["viewer"])), responses((status = 200, body = Runs)))]
pub async fn all(
    State(hall): State<Hall>,
    _: Viewer,
    Asked(wanted): Asked<RunsWanted>,
) -> Result<Json<Runs>, Problem> {
    let most = limit(wanted.limit)?;
    let RunsWanted { job, kind, state, before, .. } = wanted;
    let query = RunQuery { job, kind, state, before, most };
    let app = hall.live.app();
    let runs = soon(app.site.catalog.find_runs(&query)).await?;
    let next = last_of_full(&runs, most).map(|run| run.id.0);
    Ok(Json(Runs { runs: runs.into_iter().map(Run::from).collect(), next }))
}

/// One run.
#[utoipa::path(get, path = "/api/v1/runs/{run}", tag = "runs",
    params(("run" = i64, Path, description = "its number")),
    security(("token" = ["viewer"])), responses((status = 200, body = Run)))]
pub async fn one(
    State(hall): State<Hall>,
    _: Viewer,
    Named(run): Named<i64>,
) -> Result<Json<Run>, Problem> {
    Ok(Json(found(&hall, run).await?.into()))
}

pub(super) async fn found(hall: &Hall, run: i64) -> Result<catalog::Run, Problem> {
    let app = hall.live.app();
    let found = soon(app.site.catalog.run(RunId(run))).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no run {run}")))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogWanted {
    /// From this byte on; 0 unless told.
    #[param(maximum = 1099511627776_u64)]
    offset: Option<u64>,
}

/// A run's log, as text: at most 256 KiB of it, in whole lines where it can be. `X-Next-Offset` is
/// where to go on.
#[utoipa::path(get, path = "/api/v1/runs/{run}/log", tag = "runs",
    params(("run" = i64, Path, description = "its number"), LogWanted),
    security(("token" = ["viewer"])),
    responses((status = 200, content_type = "text/plain", body = String)))]
pub async fn log(
    State(hall): State<Hall>,
    _: Viewer,
    Named(run): Named<i64>,
    Asked(wanted): Asked<LogWanted>,
) -> Result<Response, Problem> {
    let run = found(&hall, run).await?;
    let offset = wanted.offset.unwrap_or(0);
    if offset > FURTHEST {
        return Err(Problem::bad_request(format!("offset is 0 to {FURTHEST}")));
    }
    let text = match log_of(&hall, &run) {
        Some(path) => soon(read_log(&path, offset)).await?,
        None => Vec::new(),
    };
    let next = offset.saturating_add(text.len() as u64).to_string();
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (HeaderName::from_static("x-next-offset"), next),
    ];
    Ok((headers, text).into_response())
}

/// Where a run's log is; only below the folder of logs.
pub(super) fn log_of(hall: &Hall, run: &catalog::Run) -> Option<PathBuf> {
    let path = PathBuf::from(run.log.as_ref()?);
    let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    (plain && path.starts_with(hall.live.app().site.data_dir.join("logs"))).then_some(path)
}

/// From `offset` on, up to the end of a line; one that is longer than all of it is cut.
pub(super) async fn read_log(path: &Path, offset: u64) -> Result<Vec<u8>> {
    let doing = "read the run's log";
    let mut file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        // It has said nothing yet, or its log is gone.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(doing),
    };
    file.seek(SeekFrom::Start(offset)).await.context(doing)?;
    let mut text = Vec::new();
    file.take(LOG).read_to_end(&mut text).await.context(doing)?;
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(text.len(), |at| at + 1);
    text.truncate(end);
    Ok(text)
}

/// Asks a run to stop.
#[utoipa::path(post, path = "/api/v1/runs/{run}/cancel", tag = "runs",
    params(("run" = i64, Path, description = "its number")),
    security(("token" = ["operator"])), responses((status = 202)))]
pub async fn cancel(
    State(hall): State<Hall>,
    Operator(caller): Operator,
    Named(run): Named<i64>,
) -> Result<StatusCode, Problem> {
    found(&hall, run).await?;
    let app = hall.live.app();
    let actor = caller.actor();
    let work = job::cancel(&app.site, &actor, RunId(run));
    match soon(async { Ok(work.await) }).await? {
        Err(fault) if fault.kind() == FaultKind::Usage => {
            Err(Problem::new(StatusCode::CONFLICT, fault.chain()))
        }
        done => {
            done?;
            Ok(StatusCode::ACCEPTED)
        }
    }
}
