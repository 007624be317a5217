//! Runs: the list of them, and one with its progress and its log. Knows how far a run says it is; the
//! script on the page only keeps what is written here up to date.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Path as Address, Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::super::Live;
use super::super::access::Viewer;
use super::super::ask::last_of_full;
use super::words::{Badge, Now, Tone, When, took};
use super::{Frame, Missing, job_of, now, page};
use crate::catalog::{Run, RunQuery};
use crate::fault::Result;
use crate::job::bytes;
use crate::model::{JobName, RunId, RunKind, RunState};

const PAGE: i64 = 50;
/// So much of a log's end is shown, in bytes.
const LOG: u64 = 64 << 10;

/// How far a run is.
pub(super) struct Progress {
    pub(super) id: RunId,
    pub(super) job: JobName,
    pub(super) kind: RunKind,
    pub(super) badge: Badge,
    pub(super) since: When,
    /// Of a hundred, where the size is known.
    pub(super) share: Option<u64>,
    /// Bytes, rate and what is left, as far as they are known.
    pub(super) progress: String,
    pub(super) trigger: &'static str,
    pub(super) took: String,
    pub(super) error: Option<String>,
    pub(super) label: Option<String>,
}

impl Progress {
    pub(super) fn of(run: &Run, now: &Now) -> Self {
        let is_running = run.state == RunState::Running;
        let total = run.total_bytes.filter(|total| is_running && *total > 0);
        Self {
            id: run.id,
            job: run.job.clone(),
            kind: run.kind,
            badge: Badge::new(Tone::of_run(run.state), run.state.as_str()),
            since: now.when(run.started_at.unwrap_or(run.requested_at)),
            share: total.map(|total| (run.plain_bytes.saturating_mul(100) / total).min(99)),
            progress: progress(run, now),
            trigger: match run.trigger.as_str() {
                "catch_up" => "catch-up",
                word => word,
            },
            took: duration(run, now).map(took).unwrap_or_default(),
            error: run.error.clone(),
            label: run.label.clone(),
        }
    }
}

/// How long it took, or takes already, in seconds.
fn duration(run: &Run, now: &Now) -> Option<f64> {
    let end = run.finished_at.unwrap_or(now.at);
    Some(end.duration_since(run.started_at?).as_secs_f64().max(0.0))
}

fn progress(run: &Run, now: &Now) -> String {
    if run.state == RunState::Queued {
        return "waits for its turn".to_owned();
    }
    if run.plain_bytes == 0 {
        return String::new();
    }
    let mut said = vec![match run.total_bytes.filter(|_| run.state == RunState::Running) {
        Some(total) => format!("{} of about {}", bytes(run.plain_bytes), bytes(total)),
        None if run.stored_bytes == 0 => format!("{} read", bytes(run.plain_bytes)),
        None => format!("{} read, {} stored", bytes(run.plain_bytes), bytes(run.stored_bytes)),
    }];
    #[expect(clippy::cast_precision_loss, reason = "a rate is an estimate")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive")]
    if let Some(seconds) = duration(run, now).filter(|seconds| *seconds >= 1.0) {
        let rate = run.plain_bytes as f64 / seconds;
        said.push(format!("{} a second", bytes(rate as u64)));
        let left = run.total_bytes.map(|total| total.saturating_sub(run.plain_bytes));
        if let Some(left) = left.filter(|left| *left > 0 && run.state == RunState::Running) {
            said.push(format!("about {} left", took(left as f64 / rate)));
        }
    }
    said.join(", ")
}

#[derive(Template)]
#[template(path = "runs.html")]
struct Runs {
    frame: Frame,
    job: Option<JobName>,
    jobs: Vec<JobName>,
    runs: Vec<Progress>,
    /// Where the list goes on.
    older: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    job: Option<String>,
    before: Option<i64>,
}

pub(super) async fn list(
    Viewer(caller): Viewer,
    State(live): State<Arc<dyn Live>>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Missing> {
    let app = live.app();
    let now = now(&app);
    let named = wanted.job.filter(|name| !name.is_empty());
    let job = named.map(|name| job_of(&app, &name).map(|job| job.name.clone())).transpose()?;
    let before = wanted.before;
    let query = RunQuery { job: job.clone(), before, most: PAGE, ..RunQuery::default() };
    let runs = app.site.catalog.find_runs(&query).await?;
    let more = last_of_full(&runs, PAGE).filter(|run| run.id.0 > 1);
    let of = job.as_ref().map(|job| format!("job={job}&")).unwrap_or_default();
    Ok(page(&Runs {
        frame: Frame::new(&app, "/runs", &caller, &now),
        jobs: app.jobs.iter().map(|job| job.name.clone()).collect(),
        older: more.map(|run| format!("/runs?{of}before={}", run.id)),
        runs: runs.iter().map(|run| Progress::of(run, &now)).collect(),
        job,
    }))
}

#[derive(Template)]
#[template(path = "run.html")]
struct RunPage {
    frame: Frame,
    run: Progress,
    is_over: bool,
    backup: Option<String>,
    hint: Option<String>,
    warnings: Vec<String>,
    /// Destination, and what went wrong there.
    deliveries: Vec<(String, Option<String>)>,
    log: String,
    cut: bool,
}

pub(super) async fn show(
    Viewer(caller): Viewer,
    State(live): State<Arc<dyn Live>>,
    Address(id): Address<String>,
) -> Result<Response, Missing> {
    let app = live.app();
    let now = now(&app);
    let catalog = &app.site.catalog;
    let id: RunId = id.parse().map_err(|_| Missing::NotThere("run"))?;
    let run = catalog.run(id).await?.ok_or(Missing::NotThere("run"))?;
    let (log, cut) = run.log.as_deref().map(|log| tail(Path::new(log))).unwrap_or_default();
    let backup = match run.backup.filter(|_| run.kind.makes_backup()) {
        Some(id) => catalog.backup(&run.job, &id).await?.map(|known| known.manifest.id.to_string()),
        None => None,
    };
    Ok(page(&RunPage {
        frame: Frame::new(&app, "/runs", &caller, &now),
        is_over: run.state.is_over(),
        backup,
        hint: run.hint.clone(),
        warnings: run.warnings.clone(),
        deliveries: catalog.deliveries(id).await?,
        run: Progress::of(&run, &now),
        log,
        cut,
    }))
}

/// The end of a log, and whether there is more before it.
fn tail(path: &Path) -> (String, bool) {
    let read = || -> std::io::Result<(String, bool)> {
        let mut file = std::fs::File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(LOG);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(LOG).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let whole = if start == 0 { &text } else { text.split_once('\n').map_or("", |cut| cut.1) };
        Ok((whole.to_owned(), start > 0))
    };
    // It may have been cleared away.
    read().unwrap_or_default()
}
