//! Drills: what was tried, and whether it was proven; each with the report that it wrote.

use std::path::PathBuf;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

use super::super::Live;
use super::super::access::Viewer;
use super::overview::proof;
use super::words::{Badge, Now, Tone, When};
use super::{Frame, Missing, now, page};
use crate::app::App;
use crate::catalog::Drill;
use crate::fault::Result;
use crate::model::{BackupId, JobName, RunId};

const DRILLS: i64 = 100;
/// A report is one page with its own style, and nothing else.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "drills.html")]
struct Drills {
    frame: Frame,
    drills: Vec<DrillRow>,
}

impl Drills {
    fn frame(&self) -> Option<&Frame> {
        Some(&self.frame)
    }
}

pub(super) struct DrillRow {
    pub(super) job: JobName,
    pub(super) run: RunId,
    pub(super) at: When,
    pub(super) backup: Option<BackupId>,
    pub(super) from: String,
    pub(super) badge: Badge,
    pub(super) said: String,
    pub(super) has_report: bool,
}

impl DrillRow {
    pub(super) fn of(app: &App, drill: &Drill, now: &Now) -> Self {
        let (badge, said) = if drill.proven {
            (Badge::new(Tone::Good, "proven"), proof(drill))
        } else {
            let why = drill.failure.clone().unwrap_or_else(|| "it proved nothing".to_owned());
            (Badge::new(Tone::Bad, "not proven"), why)
        };
        Self {
            job: drill.job.clone(),
            run: drill.run,
            at: now.when(drill.at),
            backup: drill.backup,
            from: drill.destination.clone(),
            badge,
            said,
            has_report: report_of(app, &drill.job, drill.run).is_some(),
        }
    }
}

pub(super) async fn list(
    Viewer(caller): Viewer,
    State(live): State<Arc<dyn Live>>,
) -> Result<Response, Missing> {
    let app = live.app();
    let now = now(&app);
    let drills = app.site.catalog.recent_drills(None, None, DRILLS).await?;
    Ok(page(&Drills {
        frame: Frame::new(&app, "/drills", &caller, &now),
        drills: drills.iter().map(|drill| DrillRow::of(&app, drill, &now)).collect(),
    }))
}

/// The report that a drill wrote.
pub(super) async fn show(
    Viewer(_): Viewer,
    State(live): State<Arc<dyn Live>>,
    Path(run): Path<String>,
) -> Result<Response, Missing> {
    let app = live.app();
    let id: RunId = run.parse().map_err(|_| Missing::NotThere("drill"))?;
    let run = app.site.catalog.run(id).await?.ok_or(Missing::NotThere("drill"))?;
    let report = report_of(&app, &run.job, id).ok_or(Missing::NotThere("report"))?;
    let text = std::fs::read_to_string(report).map_err(|_| Missing::NotThere("report"))?;
    let policy = (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    Ok(([policy], Html(text)).into_response())
}

/// Its name ends with the run's number.
fn report_of(app: &App, job: &JobName, run: RunId) -> Option<PathBuf> {
    let folder = app.site.data_dir.join("drills").join(job.as_str());
    let ending = format!("-{run}.html");
    let mut reports = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    reports.find(|entry| entry.file_name().to_string_lossy().ends_with(&ending)).map(|e| e.path())
}
