//! A restore planned, and never begun: that is left to who sits at the machine.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::super::Hall;
use super::super::access::Operator;
use super::super::ask::{Named, Told, find_later, later, there};
use super::super::problem::Problem;
use super::shapes::{RestorePlan, RestoreWanted};
use crate::app::App;
use crate::fault::{Fault, FaultKind, Result};
use crate::job::{self, Choice, Control, Found, Job, RestoreRequest, Spool, find};
use crate::model::{JobName, SourceFacts};

/// What a restore would do, what stands in its way, and how to do it. Nothing is changed.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/restore-plan", tag = "jobs",
    params(("job" = String, Path, description = "its name")), request_body = Option<RestoreWanted>,
    security(("token" = ["operator"])), responses((status = 200, body = RestorePlan)))]
pub async fn plan(
    State(hall): State<Hall>,
    _: Operator,
    Named(name): Named<JobName>,
    Told(wanted): Told<RestoreWanted>,
) -> Result<Json<RestorePlan>, Problem> {
    let app = hall.live.app();
    let job = there(app.job(name.as_str()))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let good = |name: &String| (1..=63).contains(&name.len()) && name.chars().all(plain);
    if wanted.database.as_ref().is_some_and(|name| !good(name) || name.starts_with('-')) {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "database is not a plain name of 1 to 63 letters, digits and _.-",
        ));
    }
    let places = match &wanted.destination {
        Some(name) => vec![there(job.place(name))?.destination.clone()],
        None => job.places.iter().map(|place| place.destination.clone()).collect(),
    };
    let choice = match &wanted.id {
        Some(id) => Choice::Id(there(id.parse())?),
        None => Choice::Latest,
    };
    let found = find_later(find(&places, &job.name, choice, &app.site.trusted)).await?;
    let made = later(async { Ok(make(&app, job, found, &wanted, &hall).await) }).await?;
    made.map(Json).map_err(|fault| match fault.kind() {
        FaultKind::Usage => Problem::new(StatusCode::CONFLICT, fault.chain()),
        // Its database or destination can't be asked.
        _ => Problem::new(StatusCode::SERVICE_UNAVAILABLE, fault.chain()),
    })
}

async fn make(
    app: &App,
    job: &Job,
    found: Found,
    wanted: &RestoreWanted,
    hall: &Hall,
) -> Result<RestorePlan> {
    let site = &app.site;
    let (id, destination) = (found.manifest.id, found.destination.name().to_owned());
    let choose = |facts: &SourceFacts| {
        job::source_for(job, facts).ok_or_else(|| {
            Fault::usage(format!("job '{}' backs up no {} now", job.name, facts.engine.as_str()))
        })
    };
    let erasures = job::to_reapply(&found, Some(site.as_ref()), &site.trusted, false).await?;
    let request =
        RestoreRequest { database: wanted.database.clone(), erasures, ..RestoreRequest::default() };
    let name = format!("plan-{}", uuid::Uuid::new_v4());
    let spool = Spool::create(site, &name, &Control::new(&hall.stop))?;
    let plan = job::Restore::plan(found, choose, &request, spool.session()).await?;
    let mut command = format!("respaldo restore {} {id} --destination {destination}", job.name);
    if let Some(database) = &wanted.database {
        command.push_str(&format!(" --database {database}"));
    }
    Ok(RestorePlan {
        job: job.name.to_string(),
        id: id.to_string(),
        destination,
        lines: plan.lines(site),
        obstacle: plan.check().err().map(|fault| fault.chain()),
        command,
    })
}
