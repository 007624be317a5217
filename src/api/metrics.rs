//! `/metrics`, in the text format of OpenMetrics: what the catalog knows at the moment of asking, so
//! that it is the same before and after a restart. Knows where each number is; must not decide anything.

mod families;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Live;
use super::probes::ANSWER;
use crate::app::App;
use crate::fault::{Context, Fault, Result};
use crate::health::Status;
use crate::job::rooms;
use crate::model::{RunKind, RunState, VERSION};
use families::*;
pub use families::{FAMILIES, Family, Kind};

const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn metrics(State(live): State<Arc<dyn Live>>) -> Response {
    let app = live.app();
    let written = match tokio::time::timeout(ANSWER, page(&app)).await {
        Ok(page) => page.and_then(Page::write),
        Err(_) => Err(Fault::transient("the catalog does not answer")),
    };
    match written {
        Ok(text) => ([(header::CONTENT_TYPE, FORMAT)], text).into_response(),
        Err(fault) => {
            tracing::error!("the metrics are unknown: {}", fault.chain());
            (StatusCode::SERVICE_UNAVAILABLE, fault.chain()).into_response()
        }
    }
}

type Labels = Vec<(&'static str, String)>;

/// The samples of each family.
#[derive(Debug, Default)]
struct Page(BTreeMap<&'static str, Vec<(Labels, f64)>>);

impl Page {
    /// One sample; `values` are those of the family's labels, in their order.
    fn add(&mut self, family: Family, values: &[&str], value: f64) {
        let labels = family.labels.iter().zip(values);
        let labels = labels.map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.0.entry(family.name).or_default().push((labels, value));
    }

    /// What is not known is not there.
    fn add_some(&mut self, family: Family, values: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.add(family, values, value);
        }
    }

    fn write(self) -> Result<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry).context("write the metrics")?;
        Ok(text)
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        for family in FAMILIES {
            let Some(samples) = self.0.get(family.name) else { continue };
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in samples {
                match (labels.is_empty(), family.kind) {
                    (true, _) => metric.encode_gauge(value)?,
                    (_, Kind::Gauge) => metric.encode_family(labels)?.encode_gauge(value)?,
                    (_, Kind::Counter) => metric
                        .encode_family(labels)?
                        .encode_counter::<NoLabelSet, _, f64>(value, None)?,
                }
            }
        }
        Ok(())
    }
}

/// Seconds since 1970.
fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}

async fn page(app: &App) -> Result<Page> {
    let mut page = Page::default();
    page.add(BUILD_INFO, &[VERSION], 1.0);
    page.add_some(RESIDENT_MEMORY, &[], resident_bytes());
    health(app, &mut page).await?;
    schedule(app, &mut page);
    backups(app, &mut page).await?;
    runs(app, &mut page).await?;
    drills(app, &mut page).await?;
    logs(app, &mut page).await?;
    space(app, &mut page).await?;
    Ok(page)
}

/// Of servers that are backed up whole.
async fn logs(app: &App, page: &mut Page) -> Result<()> {
    for job in app.jobs.iter().filter(|job| job.log().is_some()) {
        let name = [job.name.as_str()];
        let Some(known) = app.site.catalog.wal_progress(&job.name).await? else { continue };
        let lag = known.server_lsn.0.saturating_sub(known.stored_lsn.0);
        page.add_some(WAL_SAFE, &name, known.safe_at.map(seconds));
        page.add(WAL_LAG, &name, lag as f64);
        page.add(WAL_RETAINED, &name, known.retained_bytes as f64);
        page.add(WAL_GAPS, &name, app.site.catalog.wal_gaps(&job.name).await?.len() as f64);
    }
    Ok(())
}

async fn health(app: &App, page: &mut Page) -> Result<()> {
    const STATES: [Status; 5] =
        [Status::Healthy, Status::Unproven, Status::Late, Status::Failing, Status::Never];
    let report = app.site.health(&app.jobs).await?;
    for job in &report.jobs {
        let name = job.job.as_str();
        for status in STATES {
            page.add(JOB_STATUS, &[name, status.as_str()], truth(job.status == status));
        }
        for place in &job.destinations {
            page.add_some(LAST_SUCCESS, &[name, &place.name], place.last_success.map(seconds));
        }
        page.add_some(RPO, &[name], job.age_seconds.map(|age| age as f64));
        page.add_some(MAX_AGE, &[name], job.max_age_seconds.map(|age| age as f64));
        page.add_some(LAST_PROVEN, &[name], job.last_proven.map(seconds));
    }
    Ok(())
}

fn schedule(app: &App, page: &mut Page) {
    let now = app.site.clock.now();
    for job in &app.jobs {
        for kind in [RunKind::Backup, RunKind::Incremental, RunKind::Drill, RunKind::Verify] {
            let next = job.next_time(kind, now);
            page.add_some(NEXT_RUN, &[job.name.as_str(), kind.as_str()], next.map(seconds));
        }
    }
}

async fn backups(app: &App, page: &mut Page) -> Result<()> {
    for job in &app.jobs {
        let name = job.name.as_str();
        if let Some(known) = app.site.catalog.newest_full(&job.name).await? {
            let newest = known.manifest;
            let lasted = newest.finished_at.duration_since(newest.started_at);
            page.add(BACKUP_DURATION, &[name], lasted.as_secs_f64());
            page.add(BACKUP_STORED, &[name], newest.stored_bytes() as f64);
            page.add(BACKUP_PLAIN, &[name], newest.plain_bytes() as f64);
        }
        let copies = app.site.copies(job).await?;
        page.add(COPIES, &[name], copies.copies as f64);
        page.add(COPIES_MET, &[name], truth(copies.met));
    }
    for kept in &app.site.catalog.kept_copies().await? {
        let labels = [kept.job.as_str(), kept.destination.as_str()];
        page.add(BACKUPS, &labels, kept.count as f64);
        page.add(BACKUPS_STORED, &labels, kept.stored_bytes as f64);
    }
    Ok(())
}

async fn runs(app: &App, page: &mut Page) -> Result<()> {
    let catalog = &app.site.catalog;
    let ended = catalog.ended().await?;
    for run in &ended {
        page.add(RUNS, &[run.job.as_str(), &run.kind, &run.state], run.count as f64);
    }
    let bad = [RunState::Failed, RunState::Interrupted, RunState::Partial].map(RunState::as_str);
    for job in &app.jobs {
        let of_job = ended.iter().filter(|run| run.job == job.name.as_str());
        let kinds = [RunKind::Backup, RunKind::Incremental].map(RunKind::as_str);
        let backups = of_job.filter(|run| kinds.contains(&&*run.kind));
        let last = backups.filter(|run| bad.contains(&run.state.as_str())).filter_map(|r| r.last);
        page.add_some(LAST_FAILURE, &[job.name.as_str()], last.max().map(seconds));
    }
    let (queued, running) = catalog.busy(app.site.clock.now()).await?;
    page.add(QUEUE_LENGTH, &[], queued as f64);
    page.add(RUNNING_RUNS, &[], running as f64);
    page.add(UNSENT_MESSAGES, &[], catalog.unsent().await? as f64);
    Ok(())
}

async fn drills(app: &App, page: &mut Page) -> Result<()> {
    let catalog = &app.site.catalog;
    for drill in &catalog.last_drill_outcomes().await? {
        let labels = [drill.job.as_str(), drill.destination.as_str()];
        page.add(LAST_DRILL_PROVEN, &labels, truth(drill.proven));
        page.add(LAST_DRILL, &labels, seconds(drill.at));
    }
    for proof in &catalog.last_proofs().await? {
        page.add(RESTORE_SECONDS, &[proof.job.as_str()], proof.seconds);
        page.add(PROVEN_ROWS, &[proof.job.as_str()], proof.rows as f64);
    }
    Ok(())
}

async fn space(app: &App, page: &mut Page) -> Result<()> {
    for place in &rooms(&app.site, &app.jobs).await? {
        let label = [place.destination.as_str()];
        page.add(FREE, &label, place.room.free_bytes as f64);
        page.add(TOTAL, &label, place.room.total_bytes as f64);
        page.add(LOW, &label, truth(place.room.low));
        page.add_some(FILLS, &label, place.room.fills_at.map(seconds));
    }
    Ok(())
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}
