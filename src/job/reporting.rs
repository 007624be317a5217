//! The facts of a report, gathered from what the catalog remembers. Knows where each is kept; what
//! they amount to is decided in `report`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Job, Place, Site};
use crate::catalog::{Gone, Known, Removed, Run};
use crate::fault::Result;
use crate::model::{BackupId, RunKind, RunState, VERSION};
use crate::report::{
    self, BackupFacts, CopyFacts, DestinationFacts, Drill, Facts, Failure, JobFacts, Month,
    ReadFacts, Report,
};
use crate::schedule::Schedule;

/// A schedule of every minute has no more times in a month, by far.
const MOST_TIMES: usize = 50_000;

/// The report of a month, or of the last one that is over.
pub async fn monthly(
    site: &Site,
    jobs: &[Arc<Job>],
    month: Option<Month>,
    zone: &TimeZone,
) -> Result<Report> {
    let now = site.clock.now();
    let month = month.unwrap_or_else(|| Month::before(now, zone));
    let bounds = month.bounds(zone);
    let mut facts = Facts {
        month,
        bounds,
        now,
        host: site.host.clone(),
        respaldo: VERSION.to_owned(),
        jobs: Vec::new(),
    };
    for job in jobs {
        facts.jobs.push(of_job(site, job, bounds).await?);
    }
    Ok(report::report(facts))
}

async fn of_job(site: &Site, job: &Job, bounds: (Timestamp, Timestamp)) -> Result<JobFacts> {
    let catalog = &site.catalog;
    let runs = catalog.runs_of(&job.name).await?;
    let known = catalog.backups(Some(&job.name)).await?;
    let full = known.iter().filter(|known| known.manifest.kind.counts());
    let full: Vec<&Known> = full.collect();
    let backups = backups(&runs, &full);
    let first_run = runs.iter().map(|run| run.requested_at).min();
    let first_backup = backups.first().map(|made| made.id.started());
    let drills_between = catalog.drills_between(&job.name, bounds).await?;
    let removed = catalog.removals_between(&job.name, bounds).await?;
    let copies = site.copies(job).await?;
    let newest = full.first();
    let times = |schedule: Option<&Schedule>| {
        schedule.map(|schedule| times(schedule, bounds)).unwrap_or_default()
    };
    Ok(JobFacts {
        job: job.name.clone(),
        sources: job
            .sources
            .iter()
            .map(|source| format!("{} {}", source.engine().as_str(), source.name()))
            .collect(),
        encrypted: newest.map(|known| known.manifest.is_encrypted()),
        max_age: job.max_age,
        known_since: first_run.into_iter().chain(first_backup).min(),
        planned: times(job.schedule_of(RunKind::Backup)),
        drills_planned: times(job.schedule_of(RunKind::Drill)),
        failures: failures(&runs, bounds),
        verify_days: job.verify.as_ref().map(|plan| plan.days),
        reads: catalog
            .checks_between(&job.name, bounds)
            .await?
            .into_iter()
            .map(|check| read(&check.id, &check.destination, check.at, check.ok))
            .collect(),
        held: held(site, job, &known).await?,
        drills: drills_between
            .into_iter()
            .map(|drill| Drill {
                at: drill.at,
                backup: drill.backup.map(|id| id.to_string()),
                destination: drill.destination,
                proven: drill.proven,
                seconds: Some(drill.seconds),
                tables: Some(drill.tables),
                rows: Some(drill.rows),
                failure: drill.failure,
            })
            .collect(),
        copies: CopyFacts {
            met: copies.met,
            copies: copies.copies,
            media: copies.media.iter().map(|medium| medium.as_str().to_owned()).collect(),
            off_site: copies.off_site,
            missing: copies.missing,
        },
        destinations: job
            .places
            .iter()
            .map(|place| destination(place, &known, newest, &removed))
            .collect(),
        backups,
    })
}

/// Everything that was ever committed: runs are remembered when their backups are gone, and backups
/// when their runs are, as after a loss of the catalog.
fn backups(runs: &[Run], known: &[&Known]) -> Vec<BackupFacts> {
    let mut made = BTreeMap::new();
    let is_made = |run: &&Run| {
        let state = matches!(run.state, RunState::Succeeded | RunState::Partial);
        run.kind.makes_backup() && state
    };
    for run in runs.iter().filter(is_made) {
        let Some(id) = run.backup else { continue };
        let partial = run.state == RunState::Partial;
        let sizes = (Some(run.stored_bytes), Some(run.plain_bytes));
        let (stored_bytes, plain_bytes) = sizes;
        made.insert(id, BackupFacts { id, partial, stored_bytes, plain_bytes });
    }
    for known in known {
        let (id, manifest) = (known.manifest.id, &known.manifest);
        let partial = made.get(&id).is_some_and(|made| made.partial);
        let (stored_bytes, plain_bytes) =
            (Some(manifest.stored_bytes()), Some(manifest.plain_bytes()));
        made.insert(id, BackupFacts { id, partial, stored_bytes, plain_bytes });
    }
    made.into_values().collect()
}

/// The times of a schedule from the month's start to the first one after its end.
fn times(schedule: &Schedule, (from, to): (Timestamp, Timestamp)) -> Vec<Timestamp> {
    let mut times = Vec::new();
    let mut at = from.checked_sub(jiff::SignedDuration::from_millis(1)).unwrap_or(from);
    while let Some(next) = schedule.next(at) {
        times.push(next);
        at = next;
        if next >= to || times.len() >= MOST_TIMES {
            break;
        }
    }
    times
}

fn failures(runs: &[Run], (from, to): (Timestamp, Timestamp)) -> Vec<Failure> {
    let failed = runs.iter().filter_map(|run| {
        let at = run.started_at.unwrap_or(run.requested_at);
        let failed = matches!(run.state, RunState::Failed | RunState::Interrupted);
        (failed && at >= from && at < to).then(|| Failure {
            at,
            kind: run.kind.to_string(),
            error: run.error.clone().unwrap_or_else(|| run.state.to_string()),
        })
    });
    failed.collect()
}

fn read(id: &BackupId, destination: &str, at: Timestamp, ok: bool) -> ReadFacts {
    ReadFacts { copy: format!("{id} on {destination}"), at, ok }
}

/// Each copy that is there now; one that was never read waits since it was made, or since its job is
/// verified by a schedule.
async fn held(site: &Site, job: &Job, known: &[Known]) -> Result<Vec<ReadFacts>> {
    let checks = site.catalog.latest_checks(&job.name).await?;
    let since = super::rereading::since(site, job).await?.unwrap_or(Timestamp::MIN);
    let copies = known.iter().flat_map(|known| {
        let id = known.manifest.id;
        known.copies.iter().map(move |copy| (id, copy.destination.clone()))
    });
    let held = copies.filter(|(_, destination)| job.place(destination).is_ok()).map(|copy| {
        let check = checks.get(&copy);
        let at = check.map_or(since.max(copy.0.started()), |check| check.at);
        read(&copy.0, &copy.1, at, check.is_none_or(|check| check.ok))
    });
    Ok(held.collect())
}

fn destination(
    place: &Place,
    known: &[Known],
    newest: Option<&&Known>,
    removed: &[Removed],
) -> DestinationFacts {
    let name = place.destination.name();
    let copy = |known: &Known| known.copies.iter().find(|copy| copy.destination == name).cloned();
    // Newest first.
    let here: Vec<_> =
        known.iter().filter_map(|known| Some((&known.manifest, copy(known)?))).collect();
    let gone = |what: Gone| -> Vec<BackupId> {
        let of = removed.iter().filter(|gone| gone.destination == name && gone.what == what);
        of.map(|gone| gone.id).collect::<BTreeSet<_>>().into_iter().collect()
    };
    DestinationFacts {
        name: name.to_owned(),
        place: place.destination.place(),
        off_site: place.off_site,
        append_only: place.destination.append_only(),
        retention: serde_json::to_value(&place.policy).unwrap_or_default(),
        copies: here.len(),
        stored_bytes: here.iter().map(|(manifest, _)| manifest.stored_bytes()).sum(),
        oldest: here.last().map(|(manifest, _)| manifest.id),
        newest: here.first().map(|(manifest, _)| manifest.id),
        proven: here.iter().filter(|(_, copy)| copy.proven).count(),
        pinned: here.iter().filter(|(_, copy)| copy.pinned).count(),
        // A cold one takes only some.
        lacks_newest: place.policy.accept.is_none()
            && newest.is_some_and(|newest| copy(newest).is_none()),
        pruned: gone(Gone::Pruned),
        erased: gone(Gone::Erased),
    }
}
