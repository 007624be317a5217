//! `respaldo backup`: runs now, in this process, one job after the other.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::args::Backup;
use super::output::{self, Progress};
use super::{Desk, Exit, pin};
use crate::catalog::Request;
use crate::fault::{Context, Fault, Result};
use crate::job::{Control, Job, Outcome, bytes, execute, look_at_space, send_messages};
use crate::lock::Lock;
use crate::model::{Action, BackupId, Deed, JobName, RunId, RunKind, RunState, Trigger};

/// How often a lock that another run holds is tried again.
const WAIT: Duration = Duration::from_millis(200);
/// How long the command waits for its messages to go out; the daemon sends what is left.
const MESSAGES: Duration = Duration::from_secs(40);

/// One job's part of `backup --json`.
#[derive(Debug, Serialize)]
struct Report {
    run: RunId,
    job: JobName,
    state: RunState,
    id: Option<BackupId>,
    label: Option<String>,
    stored_bytes: Option<u64>,
    plain_bytes: Option<u64>,
    destinations: Vec<Delivered>,
    warnings: Vec<String>,
    error: Option<String>,
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct Delivered {
    name: String,
    state: &'static str,
    error: Option<String>,
}

pub(super) async fn backup(desk: &Desk, wanted: Backup) -> Result<Exit> {
    let jobs: Vec<Arc<Job>> = if wanted.all {
        let wanted = |job: &&Arc<Job>| !wanted.incremental || job.incremental.is_some();
        desk.app.jobs.iter().filter(wanted).cloned().collect()
    } else {
        wanted.jobs.iter().map(|name| desk.app.job(name).cloned()).collect::<Result<_>>()?
    };
    let mut reports = Vec::new();
    let mut exit = Exit::Done;
    for job in &jobs {
        let kind = match wanted.incremental {
            true => RunKind::Incremental,
            false => RunKind::Backup,
        };
        let report = one(desk, job, kind, wanted.label.clone()).await?;
        exit = exit.max(match report.state {
            RunState::Succeeded => Exit::Done,
            RunState::Partial => Exit::Partial,
            _ => Exit::Failed,
        });
        tell(&report);
        if let (true, Some(id)) = (wanted.pin, &report.id) {
            exit = exit.max(pin::mark(desk, job, id, true, wanted.label.clone(), false).await?);
        }
        reports.push(report);
    }
    if wanted.json {
        output::json(&reports)?;
    }
    if let Err(fault) = look_at_space(&desk.app.site, &desk.app.jobs).await {
        tracing::error!("{}", fault.chain());
    }
    let sending = send_messages(&desk.app.site);
    if let Ok(Err(fault)) = tokio::time::timeout(MESSAGES, sending).await {
        tracing::error!("{}", fault.chain());
    }
    Ok(exit)
}

async fn one(desk: &Desk, job: &Arc<Job>, kind: RunKind, label: Option<String>) -> Result<Report> {
    let site = &desk.app.site;
    if kind == RunKind::Incremental {
        job.chain_or_refuse()?;
    }
    let _lock = wait_for(desk, job).await?;
    let request =
        Request { label: label.clone(), ..Request::own(&job.name, kind, Trigger::Manual) };
    let run = site.catalog.add_run(&request, site.clock.now()).await?;
    let control = Control::new(&desk.stop);
    let (meter, progress) = (control.meter.clone(), control.clone());
    let bar = Progress::show(job.name.to_string(), move || (meter.plain(), progress.total()));
    let deed = Deed::of(Action::Backup, &job.name).to(format!("run {run}"));
    let work = execute(site, job, (run, kind, label.clone()), |_| true, &control);
    let trouble = |outcome: &Outcome| {
        (outcome.state != RunState::Succeeded)
            .then(|| outcome.state.as_str().to_owned())
            .map_or(Ok(None), Err)
    };
    let done = site.audited_by(&site.actor, deed, work, trouble).await;
    bar.end();
    Ok(report(job, label, done?))
}

pub(super) async fn wait_for(desk: &Desk, job: &Job) -> Result<Lock> {
    let path = desk.app.site.job_lock(&job.name);
    let mut said = false;
    loop {
        if let Some(lock) = Lock::try_take(&path).context("lock the job")? {
            return Ok(lock);
        }
        if !said {
            output::say(&format!("job '{}' is running already: waiting for it", job.name));
            said = true;
        }
        tokio::select! {
            () = tokio::time::sleep(WAIT) => {}
            () = desk.stop.cancelled() => return Err(Fault::cancelled("stopped while waiting")),
        }
    }
}

fn report(job: &Job, label: Option<String>, outcome: Outcome) -> Report {
    let delivered = |name: &str, fault: Option<&Fault>| Delivered {
        name: name.to_owned(),
        state: if fault.is_some() { "failed" } else { "stored" },
        error: fault.map(Fault::chain),
    };
    let destinations = match (&outcome.made, &outcome.fault) {
        (Some(made), _) => {
            made.deliveries.iter().map(|(name, fault)| delivered(name, fault.as_ref())).collect()
        }
        (None, fault) => job
            .places
            .iter()
            .map(|place| delivered(place.destination.name(), fault.as_ref()))
            .collect(),
    };
    let partial = outcome
        .made
        .as_ref()
        .and_then(|made| made.deliveries.iter().find_map(|(_, fault)| fault.as_ref()));
    let fault = outcome.fault.as_ref().or(partial);
    let manifest = outcome.made.as_ref().map(|made| &made.manifest);
    Report {
        run: outcome.run,
        job: job.name.clone(),
        state: outcome.state,
        id: manifest.map(|manifest| manifest.id),
        label,
        stored_bytes: manifest.map(|manifest| manifest.stored_bytes()),
        plain_bytes: manifest.map(|manifest| manifest.plain_bytes()),
        warnings: match &outcome.made {
            Some(made) => made.warnings.clone(),
            None => outcome.note.iter().cloned().collect(),
        },
        error: fault.map(Fault::chain),
        hint: fault.and_then(Fault::next_step).map(str::to_owned),
        destinations,
    }
}

fn tell(report: &Report) {
    let name = &report.job;
    match (report.id, report.stored_bytes) {
        (Some(id), Some(stored)) => {
            output::say(&format!("{name}: {id} {}, {} stored", report.state, bytes(stored)));
        }
        _ => output::say(&format!("{name}: {}", report.state)),
    }
    for delivered in report.destinations.iter().filter(|_| report.id.is_some()) {
        let error = delivered.error.as_deref().map(|e| format!(": {e}")).unwrap_or_default();
        output::say(&format!("  {} {}{error}", delivered.name, delivered.state));
    }
    if report.id.is_none() {
        report.warnings.iter().for_each(|warning| output::say(warning));
    }
    if let (Some(error), None) = (&report.error, report.id) {
        output::say(&format!("error: {error}"));
    }
    if let Some(hint) = &report.hint {
        output::say(&format!("hint: {hint}"));
    }
}
