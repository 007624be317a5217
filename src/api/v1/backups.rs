//! Backups: what there is, what is known of each, and pins.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::super::Hall;
use super::super::access::{Caller, Operator, Viewer};
use super::super::ask::{Named, Told, find_soon, later, soon, there};
use super::super::problem::Problem;
use super::shapes::Note;
use crate::fault::{Fault, Result};
use crate::job::{self, Records, Shown, listed};
use crate::model::{BackupId, JobName};

/// A note is a sentence, and goes to every destination.
const NOTE_CHARS: usize = 500;

/// Every backup of a job, the newest first; as `respaldo list JOB --json`.
#[utoipa::path(get, path = "/api/v1/jobs/{job}/backups", tag = "backups",
    params(("job" = String, Path, description = "its name")),
    security(("token" = ["viewer"])), responses((status = 200, body = Vec<Object>)))]
pub async fn of_job(
    State(hall): State<Hall>,
    _: Viewer,
    Named(job): Named<JobName>,
) -> Result<Json<Value>, Problem> {
    let app = hall.live.app();
    let job = there(app.job(job.as_str()))?;
    let all = async {
        let known = app.site.catalog.backups(Some(&job.name)).await?;
        let records = Records::of(&app.site, &app.jobs, &known).await?;
        Ok(json!(known.iter().map(|known| listed(known, Some(&records))).collect::<Vec<_>>()))
    };
    Ok(Json(soon(all).await?))
}

/// One backup: its manifest, where it is, and for how long; as `respaldo show JOB ID --json`, and
/// `retention`: for each destination, by what the catalog knows, `destination`, `keep`, `reasons`.
#[utoipa::path(get, path = "/api/v1/backups/{job}/{id}", tag = "backups",
    params(("job" = String, Path, description = "the job's name"),
        ("id" = String, Path, description = "its id, such as 20251124T020000Z")),
    security(("token" = ["viewer"])), responses((status = 200, body = Object)))]
pub async fn one(
    State(hall): State<Hall>,
    _: Viewer,
    Named((job, id)): Named<(JobName, BackupId)>,
) -> Result<Json<Value>, Problem> {
    let app = hall.live.app();
    let job = there(app.job(job.as_str()))?;
    let known = find_soon(job::known(&app.site, &job.name, &id)).await?;
    let work = async {
        let records = Records::of(&app.site, &app.jobs, std::slice::from_ref(&known)).await?;
        let destinations = listed(&known, Some(&records)).destinations;
        let mut shown = json!(Shown { manifest: &known.manifest, destinations });
        let kept = job::kept_why(&app.site, job).await?.into_iter();
        let kept = kept.filter_map(|(destination, decisions)| {
            let decision = decisions.into_iter().find(|decision| decision.id == id)?;
            let (keep, reasons) = (decision.keep, decision.reasons);
            Some(json!({ "destination": destination, "keep": keep, "reasons": reasons }))
        });
        shown["retention"] = kept.collect();
        Ok(shown)
    };
    Ok(Json(soon(work).await?))
}

/// Keeps a backup whatever the retention rules say; as `respaldo pin --json`.
#[utoipa::path(post, path = "/api/v1/backups/{job}/{id}/pin", tag = "backups",
    params(("job" = String, Path, description = "the job's name"),
        ("id" = String, Path, description = "its id")), request_body = Option<Note>,
    security(("token" = ["operator"])), responses((status = 200, body = Vec<Object>)))]
pub async fn pin(
    State(hall): State<Hall>,
    Operator(caller): Operator,
    Named(of): Named<(JobName, BackupId)>,
    Told(note): Told<Note>,
) -> Result<Json<Value>, Problem> {
    if note.note.as_ref().is_some_and(|note| note.chars().count() > NOTE_CHARS) {
        let problem = format!("note is longer than {NOTE_CHARS} characters");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem));
    }
    mark(&hall, &caller, of, true, note.note).await
}

/// Leaves a pinned backup to the retention rules again; as `respaldo unpin --json`.
#[utoipa::path(post, path = "/api/v1/backups/{job}/{id}/unpin", tag = "backups",
    params(("job" = String, Path, description = "the job's name"),
        ("id" = String, Path, description = "its id")),
    security(("token" = ["operator"])), responses((status = 200, body = Vec<Object>)))]
pub async fn unpin(
    State(hall): State<Hall>,
    Operator(caller): Operator,
    Named(of): Named<(JobName, BackupId)>,
) -> Result<Json<Value>, Problem> {
    mark(&hall, &caller, of, false, None).await
}

async fn mark(
    hall: &Hall,
    caller: &Caller,
    (job, id): (JobName, BackupId),
    pinned: bool,
    note: Option<String>,
) -> Result<Json<Value>, Problem> {
    let app = hall.live.app();
    let job = there(app.job(job.as_str()))?.clone();
    find_soon(job::known(&app.site, &job.name, &id)).await?;
    let actor = caller.actor();
    // On its own: whoever hangs up does not leave it half done.
    let work =
        tokio::spawn(
            async move { job::pin_audited(&app.site, &actor, &job, &id, pinned, note).await },
        );
    let done = later(async { work.await.map_err(|_| Fault::permanent("it broke off"))? });
    Ok(Json(json!(done.await?)))
}
