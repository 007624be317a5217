//! `/metrics`, in the text format of OpenMetrics: what the catalog knows at the moment of asking, so
//! that it is the same before and after a restart. Knows names and labels; must not decide anything.

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
use crate::model::{RunKind, RunState};

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

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    is_counter: bool,
    samples: Vec<(Labels, f64)>,
}

/// Everything that is told, in its order.
#[derive(Debug, Default)]
struct Page(Vec<Family>);

impl Page {
    /// Begins a family; what follows are its samples.
    fn family(&mut self, name: &'static str, help: &'static str) {
        self.0.push(Family { name, help, is_counter: false, samples: Vec::new() });
    }

    /// As `family`, of a number that only rises; `_total` is added to its name.
    fn counter(&mut self, name: &'static str, help: &'static str) {
        self.0.push(Family { name, help, is_counter: true, samples: Vec::new() });
    }

    fn add(&mut self, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        if let Some(family) = self.0.last_mut() {
            family.samples.push((labels, value));
        }
    }

    /// What is not known is not there.
    fn add_some(&mut self, labels: &[(&'static str, &str)], value: Option<f64>) {
        if let Some(value) = value {
            self.add(labels, value);
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
        for family in self.0.iter().filter(|family| !family.samples.is_empty()) {
            let kind = if family.is_counter { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.samples {
                match (labels.is_empty(), family.is_counter) {
                    (true, _) => metric.encode_gauge(value)?,
                    (_, false) => metric.encode_family(labels)?.encode_gauge(value)?,
                    (_, true) => metric
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
    page.family("respaldo_build_info", "The version that runs");
    page.add(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    if let Some(bytes) = resident_bytes() {
        page.family("process_resident_memory_bytes", "Memory of the daemon alone");
        page.add(&[], bytes);
    }
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
    let mut known = Vec::new();
    for job in app.jobs.iter().filter(|job| job.log().is_some()) {
        let gaps = app.site.catalog.wal_gaps(&job.name).await?.len();
        let progress = app.site.catalog.wal_progress(&job.name).await?;
        known.extend(progress.map(|progress| (job.name.as_str(), progress, gaps)));
    }
    page.family(
        "respaldo_wal_safe_timestamp_seconds",
        "Whatever the server committed before this is stored",
    );
    for (job, progress, _) in &known {
        page.add_some(&[("job", job)], progress.safe_at.map(seconds));
    }
    page.family("respaldo_wal_lag_bytes", "What the server had written and was not stored yet");
    for (job, progress, _) in &known {
        let lag = progress.server_lsn.0.saturating_sub(progress.stored_lsn.0);
        page.add(&[("job", job)], lag as f64);
    }
    page.family("respaldo_wal_retained_bytes", "What the server keeps for the job's slot");
    for (job, progress, _) in &known {
        page.add(&[("job", job)], progress.retained_bytes as f64);
    }
    page.family("respaldo_wal_gaps", "Gaps that were recorded in the job's log");
    for (job, _, gaps) in &known {
        page.add(&[("job", job)], *gaps as f64);
    }
    Ok(())
}

async fn health(app: &App, page: &mut Page) -> Result<()> {
    const STATES: [Status; 5] =
        [Status::Healthy, Status::Unproven, Status::Late, Status::Failing, Status::Never];
    let report = app.site.health(&app.jobs).await?;
    page.family("respaldo_job_status", "1 for the status that the job has, as in /health");
    for job in &report.jobs {
        for status in STATES {
            let labels = [("job", job.job.as_str()), ("status", status.as_str())];
            page.add(&labels, truth(job.status == status));
        }
    }
    page.family(
        "respaldo_last_success_timestamp_seconds",
        "When the newest backup on the destination was started",
    );
    for job in &report.jobs {
        for place in &job.destinations {
            let labels = [("job", job.job.as_str()), ("destination", place.name.as_str())];
            page.add_some(&labels, place.last_success.map(seconds));
        }
    }
    page.family(
        "respaldo_rpo_seconds",
        "Age of the newest backup that is on every destination: what would be lost now",
    );
    for job in &report.jobs {
        page.add_some(&[("job", job.job.as_str())], job.age_seconds.map(|age| age as f64));
    }
    page.family("respaldo_max_age_seconds", "How old the newest backup may become");
    for job in &report.jobs {
        page.add_some(&[("job", job.job.as_str())], job.max_age_seconds.map(|age| age as f64));
    }
    page.family(
        "respaldo_last_proven_timestamp_seconds",
        "When a backup was last proven to restore",
    );
    for job in &report.jobs {
        page.add_some(&[("job", job.job.as_str())], job.last_proven.map(seconds));
    }
    Ok(())
}

fn schedule(app: &App, page: &mut Page) {
    let now = app.site.clock.now();
    page.family("respaldo_next_run_timestamp_seconds", "When the next run of that kind is due");
    for job in &app.jobs {
        for kind in [RunKind::Backup, RunKind::Drill, RunKind::Verify] {
            let next = job.schedule_of(kind).and_then(|schedule| schedule.next(now));
            let labels = [("job", job.name.as_str()), ("kind", kind.as_str())];
            page.add_some(&labels, next.map(seconds));
        }
    }
}

async fn backups(app: &App, page: &mut Page) -> Result<()> {
    let mut newest = Vec::new();
    let mut copies = Vec::new();
    for job in &app.jobs {
        let label = [("job", job.name.as_str())];
        if let Some(known) = app.site.catalog.newest_full(&job.name).await? {
            newest.push((label, known.manifest));
        }
        copies.push((label, app.site.copies(job).await?));
    }
    page.family("respaldo_backup_duration_seconds", "How long the newest backup took");
    for (label, manifest) in &newest {
        let lasted = manifest.finished_at.duration_since(manifest.started_at);
        page.add(label, lasted.as_secs_f64());
    }
    page.family("respaldo_backup_stored_bytes", "The newest backup as it is stored");
    newest.iter().for_each(|(label, manifest)| page.add(label, manifest.stored_bytes() as f64));
    page.family("respaldo_backup_plain_bytes", "The newest backup as it was read");
    newest.iter().for_each(|(label, manifest)| page.add(label, manifest.plain_bytes() as f64));
    page.family("respaldo_copies", "Copies of the newest backup; the original is one");
    copies.iter().for_each(|(label, copies)| page.add(label, copies.copies as f64));
    page.family("respaldo_copies_met", "1: three copies, on two kinds of media, one off-site");
    copies.iter().for_each(|(label, copies)| page.add(label, truth(copies.met)));
    let kept = app.site.catalog.kept_copies().await?;
    page.family("respaldo_backups", "Backups on the destination");
    for kept in &kept {
        let labels = [("job", kept.job.as_str()), ("destination", kept.destination.as_str())];
        page.add(&labels, kept.count as f64);
    }
    page.family("respaldo_backups_stored_bytes", "What the backups on the destination take");
    for kept in &kept {
        let labels = [("job", kept.job.as_str()), ("destination", kept.destination.as_str())];
        page.add(&labels, kept.stored_bytes as f64);
    }
    Ok(())
}

async fn runs(app: &App, page: &mut Page) -> Result<()> {
    let catalog = &app.site.catalog;
    let ended = catalog.ended().await?;
    page.counter("respaldo_runs", "Runs that are over, by how they ended");
    for run in &ended {
        let labels = [("job", run.job.as_str()), ("kind", &run.kind), ("state", &run.state)];
        page.add(&labels, run.count as f64);
    }
    page.family(
        "respaldo_last_failure_timestamp_seconds",
        "When a backup last failed, was interrupted or missed a destination",
    );
    let bad = [RunState::Failed, RunState::Interrupted, RunState::Partial].map(RunState::as_str);
    for job in &app.jobs {
        let of_job = ended.iter().filter(|run| run.job == job.name.as_str());
        let backups = of_job.filter(|run| run.kind == RunKind::Backup.as_str());
        let last = backups.filter(|run| bad.contains(&run.state.as_str())).filter_map(|r| r.last);
        page.add_some(&[("job", job.name.as_str())], last.max().map(seconds));
    }
    let (queued, running) = catalog.busy(app.site.clock.now()).await?;
    page.family("respaldo_queue_length", "Runs that wait for their turn");
    page.add(&[], queued as f64);
    page.family("respaldo_running_runs", "Runs that go on");
    page.add(&[], running as f64);
    page.family("respaldo_unsent_messages", "Messages that wait to be sent");
    page.add(&[], catalog.unsent().await? as f64);
    Ok(())
}

async fn drills(app: &App, page: &mut Page) -> Result<()> {
    let catalog = &app.site.catalog;
    let drills = catalog.last_drill_outcomes().await?;
    page.family("respaldo_last_drill_proven", "1: the last drill there proved a backup");
    for drill in &drills {
        let labels = [("job", drill.job.as_str()), ("destination", drill.destination.as_str())];
        page.add(&labels, truth(drill.proven));
    }
    page.family("respaldo_last_drill_timestamp_seconds", "When the last drill there ended");
    for drill in &drills {
        let labels = [("job", drill.job.as_str()), ("destination", drill.destination.as_str())];
        page.add(&labels, seconds(drill.at));
    }
    let proofs = catalog.last_proofs().await?;
    page.family("respaldo_restore_seconds", "How long the last proven drill took to load: the RTO");
    for proof in &proofs {
        page.add(&[("job", proof.job.as_str())], proof.seconds);
    }
    page.family("respaldo_proven_rows", "Rows that the last proven drill found as they were");
    for proof in &proofs {
        page.add(&[("job", proof.job.as_str())], proof.rows as f64);
    }
    Ok(())
}

async fn space(app: &App, page: &mut Page) -> Result<()> {
    let rooms = rooms(&app.site, &app.jobs).await?;
    page.family("respaldo_destination_free_bytes", "Free space; also of (data_dir)");
    for place in &rooms {
        page.add(&[("destination", &place.destination)], place.room.free_bytes as f64);
    }
    page.family("respaldo_destination_total_bytes", "The whole of it");
    for place in &rooms {
        page.add(&[("destination", &place.destination)], place.room.total_bytes as f64);
    }
    page.family("respaldo_destination_low", "1: less is free than should be");
    for place in &rooms {
        page.add(&[("destination", &place.destination)], truth(place.room.low));
    }
    page.family(
        "respaldo_destination_fills_timestamp_seconds",
        "When it is full if it goes on as in the last two weeks",
    );
    for place in &rooms {
        page.add_some(&[("destination", &place.destination)], place.room.fills_at.map(seconds));
    }
    Ok(())
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}
