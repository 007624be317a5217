//! Drills: what was tried, and whether it was proven; each with the report that it wrote.

use std::collections::BTreeSet;
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
use crate::job::reports;
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

/// As rows, each with whether its report is there.
pub(super) fn rows(app: &App, drills: &[Drill], now: &Now) -> Vec<DrillRow> {
    let jobs: BTreeSet<&JobName> = drills.iter().map(|drill| &drill.job).collect();
    let reports: BTreeSet<RunId> =
        jobs.into_iter().flat_map(|job| reports(&app.site, job).into_keys()).collect();
    drills.iter().map(|drill| DrillRow::of(drill, &reports, now)).collect()
}

impl DrillRow {
    fn of(drill: &Drill, reports: &BTreeSet<RunId>, now: &Now) -> Self {
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
            has_report: reports.contains(&drill.run),
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
        drills: rows(&app, &drills, &now),
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
    let report = reports(&app.site, &run.job).remove(&id).ok_or(Missing::NotThere("report"))?;
    let text = std::fs::read_to_string(report).map_err(|_| Missing::NotThere("report"))?;
    let policy = (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    Ok(([policy], Html(text)).into_response())
}
