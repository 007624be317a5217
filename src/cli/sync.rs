//! `respaldo sync`: what each destination lacks, and the bringing of it.

use std::sync::Arc;

use super::args::Sync;
use super::output::{self, Progress};
use super::{Desk, Exit};
use crate::catalog::Request;
use crate::fault::{Context, Fault, Result};
use crate::job::{
    self, Control, Job, Lacking, RepairState, Synced, bytes, catch_up_erasures, send_messages,
    survey, tell_of_sync,
};
use crate::lock::Lock;
use crate::model::{RunKind, RunState, Trigger};

pub(super) async fn sync(desk: &Desk, wanted: Sync) -> Result<Exit> {
    let jobs: Vec<Arc<Job>> = match &wanted.job {
        Some(name) => vec![desk.app.job(name)?.clone()],
        None => desk.app.jobs.iter().filter(|job| job.places.len() > 1).cloned().collect(),
    };
    let mut all = Vec::new();
    let mut exit = Exit::Done;
    for job in &jobs {
        let synced = one(desk, job, wanted.dry_run).await?;
        tell(&synced, wanted.dry_run);
        exit = exit.max(match synced.state() {
            _ if wanted.dry_run && synced.unreachable.is_empty() => Exit::Done,
            RunState::Succeeded => Exit::Done,
            RunState::Partial => Exit::Partial,
            _ => Exit::Failed,
        });
        all.push(synced);
    }
    if wanted.json {
        output::json(&all)?;
    }
    if !wanted.dry_run
        && let Err(fault) = send_messages(&desk.app.site).await
    {
        tracing::error!("{}", fault.chain());
    }
    Ok(exit)
}

async fn one(desk: &Desk, job: &Arc<Job>, dry_run: bool) -> Result<Synced> {
    let site = &desk.app.site;
    if dry_run {
        return survey(site, job).await;
    }
    let lock = Lock::try_take(&site.sync_lock(&job.name)).context("lock the sync")?;
    let Some(_lock) = lock else {
        return Err(Fault::transient(format!("a sync of job '{}' is running", job.name))
            .hint("`respaldo status` shows how far it is"));
    };
    if let Some(erasing) = catch_up_erasures(site, job, &Control::new(&desk.stop)).await? {
        super::erase::tell(&erasing);
    }
    let found = survey(site, job).await?;
    if found.repairs.is_empty() {
        tell_of_sync(site, job, &found).await?;
        return Ok(found);
    }
    let request = Request::own(&job.name, RunKind::Sync, Trigger::Manual);
    let run = site.catalog.add_run(&request, site.clock.now()).await?;
    let control = Control::new(&desk.stop);
    let (meter, progress) = (control.meter.clone(), control.clone());
    let bar = Progress::show(job.name.to_string(), move || (meter.stored(), progress.total()));
    let synced = job::sync(site, job, run, &control).await;
    bar.end();
    synced
}

fn tell(synced: &Synced, dry_run: bool) {
    let name = &synced.job;
    for repair in &synced.repairs {
        let what = match repair.what {
            Lacking::Backup => format!("{} ({})", repair.id, bytes(repair.stored_bytes)),
            Lacking::Pin => format!("the pin of {}", repair.id),
        };
        let from = repair.from.as_deref().unwrap_or_default();
        let became = match (repair.state, &repair.error) {
            (RepairState::Copied, _) => format!("copied from {from}"),
            (_, Some(error)) => format!("not copied: {error}"),
            _ => "missing".to_owned(),
        };
        output::say(&format!("{name}: {what} on {}: {became}", repair.destination));
    }
    for down in &synced.unreachable {
        output::say(&format!("error: {name} on {}: {}", down.destination, down.error));
    }
    synced.warnings.iter().for_each(|warning| output::say(&format!("warning: {warning}")));
    if synced.repairs.is_empty() && synced.unreachable.is_empty() {
        output::say(&format!("{name}: nothing is missing"));
    } else if !dry_run && synced.state() != RunState::Succeeded {
        output::say("hint: it is tried again by the daemon, or by the same command");
    }
}
