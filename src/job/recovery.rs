//! The first thing after a start: tell the truth about runs whose process is gone, and clear away
//! what they left.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::contents::lacks;
use super::leftovers::clear;
use super::messages::{Telling, trouble_note};
use super::places;
use super::restore::settle;
use super::select::is_leased;
use super::{Job, Site};
use crate::catalog::{Finish, Run};
use crate::destination::{Key, read_manifest};
use crate::fault::{Context, Result};
use crate::lock::Lock;
use crate::model::{BackupId, Event, EventKind, RunKind, RunState};

/// A destination that is down does not hold the start up; the next run clears it.
const ANSWER: Duration = Duration::from_secs(15);

/// Ends what a killed process left open: runs, uploads, half-made backups, spool folders. Safe
/// beside living processes: who is alive is told by locks. `thorough`: also where no run is known to
/// have died.
pub async fn recover(site: &Site, jobs: &[Arc<Job>], thorough: bool) -> Result<()> {
    let mut died = false;
    for run in site.catalog.running().await? {
        let lock = site.run_lock(run.id);
        let Some(lock) = Lock::try_take(&lock).context("look for a living run")? else { continue };
        let job = jobs.iter().find(|job| job.name == run.job);
        let job = match (job, &run.backup) {
            (Some(job), Some(id)) => Some(places::taking(site, job, id, run.kind.into()).await?),
            _ => job.cloned(),
        };
        end(site, job.as_deref(), &run).await?;
        drop(lock);
        died = true;
        fs::remove_file(site.run_lock(run.id)).ok();
    }
    for run in site.catalog.queued_by_commands().await? {
        // A command holds its lock from before it records the run.
        let lock = site.lock_of(run.kind, &run.job);
        let lock = Lock::try_take(&lock).context("look for a living command")?;
        if lock.is_some() {
            site.catalog.request_cancel(run.id, site.clock.now()).await?;
        }
    }
    clear_spool(site);
    settle_again(site, jobs).await?;
    if !died && !thorough {
        return Ok(());
    }
    abort_uploads(site, jobs).await?;
    for job in jobs {
        clear_unfinished(site, job).await;
        clear_restores(job).await;
    }
    Ok(())
}

/// What a restore that was killed left where it loaded: finished or removed.
async fn clear_restores(job: &Job) {
    for source in &job.sources {
        // However long it takes to finish one: until then what was restored is half there.
        match source.clear_leftovers().await {
            Ok(left) => left.said.iter().for_each(|line| tracing::warn!("{}: {line}", job.name)),
            Err(fault) => tracing::warn!("{} of '{}': {}", source.name(), job.name, fault.chain()),
        }
    }
}

/// A run whose process is gone: committed where a manifest is, interrupted where none is.
async fn end(site: &Site, job: Option<&Job>, run: &Run) -> Result<()> {
    let mut deliveries = Vec::new();
    let mut committed = false;
    if let (Some(job), Some(id), true) = (job, run.backup, run.kind.makes_backup()) {
        for place in &job.places {
            let destination = place.destination.as_ref();
            let error = match read_manifest(destination, &job.name, &id).await {
                Ok(Some((manifest, _))) => match lacks(destination, &manifest).await {
                    Ok(None) => {
                        site.catalog.add_copy(&manifest, destination.name(), &[]).await?;
                        committed = true;
                        None
                    }
                    Ok(Some(words)) => Some(words),
                    Err(fault) => Some(fault.chain()),
                },
                Ok(None) => Some("interrupted".to_owned()),
                Err(fault) => Some(fault.chain()),
            };
            deliveries.push((destination.name().to_owned(), error));
        }
    }
    if let (Some(job), Some(id), RunKind::Restore) = (job, run.backup, run.kind) {
        return end_restore(site, job, run, &id).await;
    }
    let complete = committed && deliveries.iter().all(|(_, error)| error.is_none());
    let state = match (complete, committed) {
        (true, _) => RunState::Succeeded,
        (_, true) => RunState::Partial,
        _ => RunState::Interrupted,
    };
    tracing::warn!("run {} of '{}' was cut off: {state}", run.id, run.job);
    let error = (!complete).then(|| "the process was killed or the machine stopped".to_owned());
    let finish =
        Finish { state, error: error.clone(), hint: None, warnings: Vec::new(), deliveries };
    let kind = match (complete, committed) {
        (true, _) => EventKind::Succeeded,
        (_, true) => EventKind::Partial,
        _ => EventKind::Interrupted,
    };
    let summary = format!("the {} of '{}' was cut off", run.kind, run.job);
    let event = Event {
        run: Some(run.id),
        details: error.map(|error| ("Error".into(), error)).into_iter().collect(),
        hint: Some(match run.kind {
            RunKind::Sync => "the next sync goes on with it".into(),
            RunKind::Drill | RunKind::Verify => "the next one comes by its schedule".into(),
            _ => "it is made up for at the next start of the daemon; was the container out of memory?"
                .into(),
        }),
        ..Event::new(kind, Some(run.job.clone()), site.clock.now(), summary)
    };
    // The next backup says nothing of drills and verifications.
    let is_alone = matches!(run.kind, RunKind::Drill | RunKind::Verify);
    let event = if is_alone { of_this_run(event) } else { event };
    let note = match complete || is_alone {
        true => None,
        false => Some(trouble_note(site, &run.job, kind).await?),
    };
    let telling = Telling {
        pinged: run.kind.makes_backup().then_some(&event),
        told: (!complete).then_some(&event),
        notes: note.as_slice(),
        ended: Some((run.id, &finish)),
    };
    site.write(telling).await.map(|_| ())
}

/// A restore swaps in one step, so that it is either complete, or nothing has changed.
async fn end_restore(site: &Site, job: &Job, run: &Run, backup: &BackupId) -> Result<()> {
    // However long it takes to finish one; a server that is down is given up by who connects.
    let settled = settle(site, job, backup).await;
    if settled.is_err() {
        site.catalog.set_fact(&unsettled(job), &backup.to_string()).await?;
    }
    let (state, error) = match &settled {
        Ok(true) => (RunState::Succeeded, None),
        Ok(false) => {
            (RunState::Interrupted, Some("it was killed; nothing was put in place".to_owned()))
        }
        Err(fault) => (
            RunState::Interrupted,
            Some(format!(
                "it was killed, and what it left could not be looked at: {}",
                fault.chain()
            )),
        ),
    };
    tracing::warn!("the restore of '{}' (run {}) was cut off: {state}", run.job, run.id);
    let finish = Finish {
        state,
        error: error.clone(),
        hint: None,
        warnings: Vec::new(),
        deliveries: Vec::new(),
    };
    let summary = match state {
        RunState::Succeeded => {
            "was cut off in its last step, which is done now: what was restored is in place"
        }
        _ if settled.is_err() => "was cut off, and what became of it could not be seen yet",
        _ => "was cut off: what was there before is in place, untouched",
    };
    let summary = format!("the restore of {backup} of '{}' {summary}", run.job);
    let event = Event {
        run: Some(run.id),
        details: error.map(|error| ("Error".into(), error)).into_iter().collect(),
        hint: Some(
            "begin it again with `respaldo restore`, or take it back with `respaldo undo`".into(),
        ),
        ..Event::new(EventKind::Interrupted, Some(run.job.clone()), site.clock.now(), summary)
    };
    let event = of_this_run(event);
    let ended = Some((run.id, &finish));
    site.write(Telling { told: Some(&event), ended, ..Telling::default() }).await.map(|_| ())
}

/// Nothing ends it, so that another one is no repetition.
fn of_this_run(event: Event) -> Event {
    Event { about: event.run.map(|run| format!("run {run}")).unwrap_or_default(), ..event }
}

fn unsettled(job: &Job) -> String {
    format!("unsettled-restore:{}", job.name)
}

/// Looks again at what could not be looked at right after a restore was killed.
pub async fn settle_again(site: &Site, jobs: &[Arc<Job>]) -> Result<()> {
    for job in jobs {
        let Some(backup) = site.catalog.fact(&unsettled(job)).await? else { continue };
        match settle(site, job, &backup.parse()?).await {
            Ok(_) => site.catalog.clear_fact(&unsettled(job)).await?,
            Err(fault) => tracing::warn!("{}", fault.chain()),
        }
    }
    Ok(())
}

/// Multipart uploads of runs that are over.
pub(super) async fn abort_uploads(site: &Site, jobs: &[Arc<Job>]) -> Result<()> {
    let alive: Vec<_> =
        site.catalog.running().await?.into_iter().filter_map(|r| r.backup).collect();
    for upload in site.catalog.open_uploads().await? {
        let belongs = |id: &BackupId| upload.key.as_str().contains(&format!("/{id}/"));
        if alive.iter().any(belongs) || is_being_written(site, &upload.key) {
            continue;
        }
        let places = jobs.iter().flat_map(|job| &job.places);
        let place = places.into_iter().find(|p| p.destination.name() == upload.destination);
        let Some(place) = place else { continue };
        match place.destination.abort_upload(&upload.key, &upload.upload).await {
            Ok(()) => {
                tracing::info!("ended an upload of {} that was left open", upload.key);
                site.catalog.forget_upload(&upload.destination, &upload.upload).await?;
            }
            // Remembered until it works.
            Err(fault) => tracing::warn!("{}", fault.chain()),
        }
    }
    Ok(())
}

/// A backup that is being carried here belongs to a run that is over.
fn is_being_written(site: &Site, key: &Key) -> bool {
    let mut parts = key.as_str().split('/');
    let job = parts.next().and_then(|job| job.parse().ok());
    let id = parts.next().and_then(|id| id.parse().ok());
    job.zip(id).is_some_and(|(job, id)| is_leased(&site.data_dir, &job, &id))
}

/// Spool folders whose run is not alive.
fn clear_spool(site: &Site) {
    for entry in fs::read_dir(site.data_dir.join("spool")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let lock = site.data_dir.join("locks").join(format!("spool-{name}"));
        if matches!(Lock::try_take(&lock), Ok(Some(_))) {
            fs::remove_dir_all(entry.path()).ok();
            fs::remove_file(lock).ok();
        }
    }
}

/// Folders without a manifest that a run of ours is known to have left.
async fn clear_unfinished(site: &Site, job: &Job) {
    for place in &job.places {
        let name = place.destination.name();
        match tokio::time::timeout(ANSWER, clear(site, job, place.destination.as_ref(), None)).await
        {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::warn!("destination '{name}': {}", fault.chain()),
            Err(_) => tracing::warn!("destination '{name}' does not answer"),
        }
    }
}
