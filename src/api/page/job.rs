//! One job: its state, its backups, its runs and drills, and what an operator can start. Knows what
//! belongs to a job; must not know how a run is done.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;

use super::super::Live;
use super::super::access::Viewer;
use super::drills::{DrillRow, rows};
use super::overview::{Glance, glance, troubles};
use super::run::Progress;
use super::words::{Badge, Now, Tone, When};
use super::{Frame, Missing, job_of, now, page};
use crate::catalog::{Checks, Known, RunQuery};
use crate::fault::Result;
use crate::health;
use crate::job::{Job, bytes};
use crate::model::{BackupId, RunKind};

const BACKUPS: u32 = 50;
const RUNS: i64 = 10;
const DRILLS: i64 = 10;

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    frame: Frame,
    glance: Glance,
    sources: String,
    troubles: Vec<String>,
    /// What is planned beside backups, and when.
    planned: Vec<(&'static str, String)>,
    backups: Vec<BackupRow>,
    /// There are more backups than are shown.
    cut: bool,
    runs: Vec<Progress>,
    drills: Vec<DrillRow>,
    has_drill: bool,
    has_verify: bool,
}

pub(super) struct BackupRow {
    id: BackupId,
    at: When,
    size: String,
    label: Option<String>,
    kind: &'static str,
    pinned: bool,
    suspect: bool,
    places: Vec<(String, Badge)>,
}

impl BackupRow {
    fn of(known: &Known, checks: &Checks, now: &Now) -> Self {
        let manifest = &known.manifest;
        let places = known.copies.iter().map(|copy| {
            let check = checks.get(&(manifest.id, copy.destination.clone()));
            let badge = match check {
                Some(check) if !check.ok => Badge::new(Tone::Bad, "damaged"),
                _ if copy.proven => Badge::new(Tone::Good, "proven"),
                Some(_) => Badge::new(Tone::Good, "read back"),
                None => Badge::new(Tone::Quiet, "stored"),
            };
            (copy.destination.clone(), badge)
        });
        Self {
            id: manifest.id,
            at: now.when(manifest.started_at),
            size: bytes(manifest.stored_bytes()),
            label: manifest.label.clone(),
            kind: manifest.kind.as_str(),
            pinned: known.copies.iter().any(|copy| copy.pinned),
            suspect: manifest.suspect,
            places: places.collect(),
        }
    }
}

pub(super) async fn show(
    Viewer(caller): Viewer,
    State(live): State<Arc<dyn Live>>,
    Path(name): Path<String>,
) -> Result<Response, Missing> {
    let app = live.app();
    let now = now(&app);
    let job = job_of(&app, &name)?;
    let catalog = &app.site.catalog;
    let health = health::job_health(&app.site.health_facts(job).await?, now.at);
    let checks = catalog.latest_checks(&job.name).await?;
    let backups = catalog.newest_backups(&job.name, BACKUPS).await?;
    let query = RunQuery { job: Some(job.name.clone()), most: RUNS, ..RunQuery::default() };
    let runs = catalog.find_runs(&query).await?;
    let drills = catalog.recent_drills(Some(&job.name), None, DRILLS).await?;
    Ok(page(&JobPage {
        frame: Frame::new(&app, "/", &caller, &now),
        glance: glance(&app, job, &health, &now).await?,
        sources: sources(job),
        troubles: troubles(&health),
        planned: planned(job, &now),
        cut: backups.len() == BACKUPS as usize,
        backups: backups.iter().map(|known| BackupRow::of(known, &checks, &now)).collect(),
        runs: runs.iter().map(|run| Progress::of(run, &now)).collect(),
        drills: rows(&app, &drills, &now),
        has_drill: job.schedule_of(RunKind::Drill).is_some(),
        has_verify: job.verify.is_some(),
    }))
}

/// What is backed up, without how to get in.
fn sources(job: &Job) -> String {
    let words = job.sources.iter().map(|source| {
        let server = source.server().map(|server| format!(" on {server}")).unwrap_or_default();
        format!("{} {}{server}", source.engine().as_str(), source.name())
    });
    words.collect::<Vec<_>>().join(", ")
}

fn planned(job: &Job, now: &Now) -> Vec<(&'static str, String)> {
    let kinds = [
        ("Next incremental", RunKind::Incremental),
        ("Next drill", RunKind::Drill),
        ("Next verification", RunKind::Verify),
    ];
    let next = |(what, kind)| Some((what, now.hour(job.next_time(kind, now.at)?)));
    kinds.into_iter().filter_map(next).collect()
}
