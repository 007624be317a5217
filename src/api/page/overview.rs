//! The first page: a sentence that says whether all is well, and every job at a look. Knows how to put
//! facts into words; must not decide what is well.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::super::Live;
use super::super::access::Viewer;
use super::picture::{Bar, Picture, line, strip};
use super::run::Progress;
use super::words::{Badge, Maybe, Now, Tone, took};
use super::{Frame, Missing, now, page};
use crate::app::App;
use crate::catalog::{Drill, Run, RunQuery};
use crate::fault::Result;
use crate::health::{DestinationHealth, JobHealth, Report, Status};
use crate::job::{Job, bytes, count};
use crate::model::{JobName, RunId, RunKind, RunState};
use crate::report::span;

/// So many runs are in a strip.
const STRIP: i64 = 30;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    tone: Tone,
    sentence: String,
    last: String,
    next: String,
    troubles: Vec<(JobName, String)>,
    under_way: Vec<Progress>,
    jobs: Vec<Glance>,
    unsent: i64,
}

/// A job at a look.
pub(super) struct Glance {
    pub(super) name: JobName,
    pub(super) badge: Badge,
    pub(super) strip: Picture,
    pub(super) last_success: Maybe,
    pub(super) allowed: String,
    pub(super) last_proven: Maybe,
    pub(super) proof: String,
    pub(super) next: String,
    pub(super) sizes: Option<Picture>,
    pub(super) size: String,
    pub(super) places: Vec<PlaceGlance>,
    pub(super) copies: String,
    /// Why the last backup came to nothing, and its run.
    pub(super) failed: Option<(RunId, String)>,
}

pub(super) struct PlaceGlance {
    pub(super) name: String,
    pub(super) badge: Badge,
}

pub(super) async fn show(
    Viewer(caller): Viewer,
    State(live): State<Arc<dyn Live>>,
) -> Result<Response, Missing> {
    let app = live.app();
    let now = now(&app);
    let health = app.site.health(&app.jobs).await?;
    let mut jobs = Vec::new();
    for (job, health) in app.jobs.iter().zip(&health.jobs) {
        jobs.push(glance(&app, job, health, &now).await?);
    }
    let troubles: Vec<(JobName, String)> = health
        .jobs
        .iter()
        .flat_map(|job| troubles(job).into_iter().map(|trouble| (job.job.clone(), trouble)))
        .collect();
    let mut under_way = app.site.catalog.running().await?;
    under_way.extend(app.site.catalog.queued(now.at).await?);
    let (tone, sentence) = verdict(&health);
    let (last, next) = last_and_next(&health, &now);
    Ok(page(&Overview {
        frame: Frame::new(&app, "/", &caller, &now),
        tone,
        sentence,
        last,
        next,
        troubles,
        under_way: under_way.iter().map(|run| Progress::of(run, &now)).collect(),
        jobs,
        unsent: app.site.catalog.unsent().await?,
    }))
}

/// All is well, or what is not.
fn verdict(health: &Report) -> (Tone, String) {
    let ill: Vec<&JobHealth> = health.jobs.iter().filter(|job| !job.status.is_well()).collect();
    match (ill.as_slice(), health.jobs.len()) {
        (_, 0) => (Tone::Bad, "There is no job: nothing is backed up.".to_owned()),
        ([], _) if health.status == Status::Unproven => {
            (Tone::Warning, "All is backed up, but not all is proven to restore.".to_owned())
        }
        ([], _) => (Tone::Good, "All is well.".to_owned()),
        ([one], _) => (Tone::Bad, format!("The backups of {} need a look.", one.job)),
        (several, all) => {
            (Tone::Bad, format!("The backups of {} of {all} jobs need a look.", several.len()))
        }
    }
}

fn last_and_next(health: &Report, now: &Now) -> (String, String) {
    let newest = |job: &JobHealth| job.destinations.iter().filter_map(|d| d.last_success).max();
    let last = health.jobs.iter().filter_map(|job| Some((newest(job)?, &job.job))).max();
    let next = health.jobs.iter().filter_map(|job| Some((job.next_run?, &job.job))).min();
    let last = match last {
        Some((at, job)) => format!(
            "The last backup, of {job}, was {} ago.",
            span(now.at.duration_since(at).as_secs())
        ),
        None => "There is no backup yet.".to_owned(),
    };
    let next = match next {
        Some((at, job)) => format!("The next, of {job}, is {}.", now.hour(at)),
        None => "None is planned.".to_owned(),
    };
    (last, next)
}

/// What is not well with a job, a sentence for each.
pub(super) fn troubles(job: &JobHealth) -> Vec<String> {
    let mut said: Vec<String> = job.destinations.iter().filter_map(trouble).collect();
    if job.status == Status::Unproven {
        said.push(match job.last_proven {
            Some(_) => "no drill has proven a backup for a long time".to_owned(),
            None => "no drill has proven a backup yet".to_owned(),
        });
    }
    said
}

fn trouble(place: &DestinationHealth) -> Option<String> {
    let name = &place.name;
    let age = place.age_seconds.map(span).unwrap_or_default();
    Some(match place.status {
        Status::Healthy | Status::Unproven => return None,
        Status::Never => format!("there is no backup on {name} yet"),
        Status::Failing => {
            format!("the last run did not reach {name}; the newest backup there is {age} old")
        }
        Status::Late => {
            let most = place.max_age_seconds.map(span).unwrap_or_default();
            format!("the newest backup on {name} is {age} old; it may be {most}")
        }
    })
}

pub(super) async fn glance(app: &App, job: &Job, health: &JobHealth, now: &Now) -> Result<Glance> {
    let site = &app.site;
    let query = RunQuery {
        job: Some(job.name.clone()),
        kind: Some(RunKind::Backup),
        most: STRIP,
        ..RunQuery::default()
    };
    let mut runs = site.catalog.find_runs(&query).await?;
    runs.reverse();
    let made: Vec<&Run> = runs.iter().filter(|run| is_made(run)).collect();
    let sizes: Vec<u64> = made.iter().map(|run| run.stored_bytes).collect();
    let copies = site.copies(job).await?;
    Ok(Glance {
        name: job.name.clone(),
        badge: Badge::new(Tone::of_status(health.status), health.status.as_str()),
        strip: strip(&runs.iter().map(|run| bar(run, now)).collect::<Vec<_>>(), &words(&runs)),
        last_success: now.maybe(health.last_success),
        allowed: health
            .max_age_seconds
            .map(|most| format!("{} are allowed", span(most)))
            .unwrap_or_default(),
        last_proven: now.maybe(health.last_proven),
        proof: site
            .catalog
            .latest_proof(&job.name)
            .await?
            .map(|drill| proof(&drill))
            .unwrap_or_default(),
        next: health.next_run.map_or("only when asked for".to_owned(), |at| now.hour(at)),
        sizes: line(&sizes, "stored sizes of the last backups"),
        size: made.last().map(|run| size(run)).unwrap_or_default(),
        places: health.destinations.iter().map(place).collect(),
        copies: copies.missing.unwrap_or_else(|| "3-2-1 is met".to_owned()),
        failed: runs.last().and_then(|run| Some((run.id, run.error.clone()?))),
    })
}

fn place(health: &DestinationHealth) -> PlaceGlance {
    let badge = Badge::new(Tone::of_status(health.status), health.status.as_str());
    PlaceGlance { name: health.name.clone(), badge }
}

fn is_made(run: &Run) -> bool {
    matches!(run.state, RunState::Succeeded | RunState::Partial)
}

fn size(run: &Run) -> String {
    format!("{} stored, {} plain", bytes(run.stored_bytes), bytes(run.plain_bytes))
}

/// Rows matched, and how long the restore took.
pub(super) fn proof(drill: &Drill) -> String {
    let loaded = took(drill.seconds);
    match (drill.tables, drill.rows) {
        (0, _) => format!("restored in {loaded}"),
        (tables, rows) => {
            let tables = match tables {
                1 => "1 table".to_owned(),
                several => format!("{} tables", count(several)),
            };
            format!("{} rows in {tables} matched, restored in {loaded}", count(rows))
        }
    }
}

fn bar(run: &Run, now: &Now) -> Bar {
    let at = run.started_at.unwrap_or(run.requested_at).to_zoned(now.zone.clone());
    let size = if is_made(run) { format!(", {}", bytes(run.stored_bytes)) } else { String::new() };
    let why = run.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    Bar {
        tone: Tone::of_run(run.state),
        title: format!("{}: {}{size}{why}", at.strftime("%a %-d %b %H:%M"), run.state),
    }
}

/// The strip for those who do not see it.
fn words(runs: &[Run]) -> String {
    let with = |tone: Tone| runs.iter().filter(|run| Tone::of_run(run.state) == tone).count();
    format!(
        "the last {} backups: {} succeeded, {} partial or cancelled, {} failed",
        runs.len(),
        with(Tone::Good),
        with(Tone::Warning),
        with(Tone::Bad)
    )
}
