//! Jobs: what they are, what their retention would do, and their runs asked for.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::json;

use super::super::access::{Caller, Operator, Viewer};
use super::super::ask::{Named, Told, later, soon, there};
use super::super::problem::Problem;
use super::super::{Hall, asked};
use super::shapes::{Accepted, Ask, Decision, Job, Place, Plan};
use crate::app::App;
use crate::fault::Result;
use crate::job::{self, PruneOptions};
use crate::model::{JobName, RunKind};

/// A label is a word, and goes to every destination.
const LABEL_CHARS: usize = 200;

/// Every job of the config.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs",
    security(("token" = ["viewer"])), responses((status = 200, body = Vec<Job>)))]
pub async fn all(State(hall): State<Hall>, _: Viewer) -> Json<Vec<Job>> {
    let app = hall.live.app();
    Json(app.jobs.iter().map(|job| shown(&app, job)).collect())
}

/// One job.
#[utoipa::path(get, path = "/api/v1/jobs/{job}", tag = "jobs",
    params(("job" = String, Path, description = "its name")),
    security(("token" = ["viewer"])), responses((status = 200, body = Job)))]
pub async fn one(
    State(hall): State<Hall>,
    _: Viewer,
    Named(job): Named<JobName>,
) -> Result<Json<Job>, Problem> {
    let app = hall.live.app();
    let job = there(app.job(job.as_str()))?;
    Ok(Json(shown(&app, job)))
}

fn shown(app: &App, job: &job::Job) -> Job {
    let now = app.site.clock.now();
    let next = |kind| job.next_time(kind, now);
    let written = app.settings.jobs.get(&job.name);
    let place = |place: &job::Place| Place {
        name: place.destination.name().to_owned(),
        place: place.destination.place(),
        off_site: place.off_site,
        append_only: place.destination.append_only(),
        retention: json!(place.policy),
    };
    Job {
        name: job.name.to_string(),
        sources: job
            .sources
            .iter()
            .map(|source| format!("{} {}", source.engine().as_str(), source.name()))
            .collect(),
        schedule: written.map(|job| job.schedule_lines.clone()).unwrap_or_default(),
        timezone: job.schedule.zone().iana_name().unwrap_or("UTC").to_owned(),
        next_run: next(RunKind::Backup),
        next_incremental: next(RunKind::Incremental),
        next_drill: next(RunKind::Drill),
        next_verify: next(RunKind::Verify),
        max_age_seconds: job.max_age.map(|age| age.as_secs()),
        encrypted: job.encoding.seal.is_some(),
        destinations: job.places.iter().map(place).collect(),
    }
}

/// What retention would keep and delete, on each destination; nothing is deleted.
#[utoipa::path(get, path = "/api/v1/jobs/{job}/plan", tag = "jobs",
    params(("job" = String, Path, description = "its name")),
    security(("token" = ["viewer"])), responses((status = 200, body = Vec<Plan>)))]
pub async fn plan(
    State(hall): State<Hall>,
    _: Viewer,
    Named(job): Named<JobName>,
) -> Result<Json<Vec<Plan>>, Problem> {
    let app = hall.live.app();
    let job = there(app.job(job.as_str()))?;
    let options = PruneOptions { dry_run: true, ..PruneOptions::default() };
    let mut plans = Vec::new();
    for place in &job.places {
        let pruned = later(job::prune(&app.site, job, place, options)).await?;
        let decision = |decision: crate::retention::Decision| Decision {
            id: decision.id.to_string(),
            keep: decision.keep,
            reasons: decision.reasons,
        };
        plans.push(Plan {
            destination: pruned.destination,
            decisions: pruned.decisions.into_iter().map(decision).collect(),
            held: pruned.held.map(|held| held.reason().to_owned()),
            append_only: pruned.append_only,
            warnings: pruned.warnings,
        });
    }
    Ok(Json(plans))
}

/// Backs up now, as `respaldo backup` does, but through the queue.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/backup", tag = "jobs",
    params(("job" = String, Path, description = "its name")), request_body = Option<Ask>,
    security(("token" = ["operator"])), responses((status = 202, body = Accepted)))]
pub async fn back_up(
    State(hall): State<Hall>,
    Operator(caller): Operator,
    Named(job): Named<JobName>,
    Told(ask): Told<Ask>,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    let kind = if ask.incremental { RunKind::Incremental } else { RunKind::Backup };
    let app = hall.live.app();
    if ask.incremental && there(app.job(job.as_str()))?.incremental.is_none() {
        let problem = format!("job '{job}' has no `incremental`");
        return Err(Problem::new(StatusCode::CONFLICT, problem).hint(
            "add incremental = \"0 */4 * * *\" to it; only kind = \"physical\" can have it",
        ));
    }
    enqueue(&hall, &caller, &job, kind, ask.label).await
}

/// Reads back what is due, as `respaldo verify --due` does.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/verify", tag = "jobs",
    params(("job" = String, Path, description = "its name")),
    security(("token" = ["operator"])), responses((status = 202, body = Accepted)))]
pub async fn verify(
    State(hall): State<Hall>,
    Operator(caller): Operator,
    Named(name): Named<JobName>,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    let app = hall.live.app();
    if there(app.job(name.as_str()))?.verify.is_none() {
        let problem = format!("job '{name}' has no `verify`");
        return Err(Problem::new(StatusCode::CONFLICT, problem)
            .hint("add verify = { schedule = \"@daily\", days = 30 } to it"));
    }
    enqueue(&hall, &caller, &name, RunKind::Verify, None).await
}

/// Restores the newest backup into a place of its own and compares.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/drill", tag = "jobs",
    params(("job" = String, Path, description = "its name")),
    security(("token" = ["operator"])), responses((status = 202, body = Accepted)))]
pub async fn drill(
    State(hall): State<Hall>,
    Operator(caller): Operator,
    Named(job): Named<JobName>,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    enqueue(&hall, &caller, &job, RunKind::Drill, None).await
}

/// Into the queue, as the timer does it.
async fn enqueue(
    hall: &Hall,
    caller: &Caller,
    name: &JobName,
    kind: RunKind,
    label: Option<String>,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    let app = hall.live.app();
    let job = there(app.job(name.as_str()))?;
    let too_long =
        |label: &String| label.chars().count() > LABEL_CHARS || label.chars().any(char::is_control);
    if label.as_ref().is_some_and(too_long) {
        let problem = format!("label is longer than {LABEL_CHARS} characters, or not one line");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem));
    }
    let run = soon(asked::start(hall.live.as_ref(), caller, job, kind, label)).await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { run: run.0 })))
}
