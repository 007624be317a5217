//! The scheduled verification: a share of a job's copies, read back so that each is within the days
//! that were asked for. Knows what was read when, and who is told; how a copy is read it leaves to
//! `verify`, and which are next to `rotation`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::delivery::within;
use super::record::{Ending, recorded};
use super::verify::remember;
use super::{Choice, Control, Depth, Job, Place, Site, Spool, Verified, bytes, find, verify};
use crate::catalog::{Checks, Known};
use crate::destination::{Destination, list_backups};
use crate::fault::{Context, Fault, FaultKind, Result};
use crate::model::{BackupId, Event, EventKind, RunId, RunKind, RunState};
use crate::pipeline::Identities;
use crate::rotation::{self, CopyFacts};

/// A copy that could not be looked at, and why.
#[derive(Debug)]
pub struct Unread {
    pub id: BackupId,
    pub destination: String,
    pub error: String,
    pub hint: Option<String>,
}

/// What one run has read.
#[derive(Debug, Default)]
pub struct Reread {
    pub run: Option<RunId>,
    pub read: Vec<Verified>,
    pub unread: Vec<Unread>,
    /// Where another copy of what is damaged is whole, by the backup's id.
    whole: BTreeMap<BackupId, String>,
}

impl Reread {
    pub fn damaged(&self) -> impl Iterator<Item = &Verified> {
        self.read.iter().filter(|read| !read.ok)
    }

    /// How it ended, but for a cancel.
    pub fn state(&self) -> RunState {
        let damaged = self.damaged().next().is_some();
        match (damaged, self.unread.is_empty(), self.read.is_empty()) {
            (false, true, _) => RunState::Succeeded,
            (false, false, false) => RunState::Partial,
            _ => RunState::Failed,
        }
    }

    fn error(&self) -> Option<String> {
        let damaged = self.damaged().map(|read| {
            format!("{} on '{}': {}", read.id, read.destination, read.failures.join("; "))
        });
        let unread = self.unread.iter();
        let unread =
            unread.map(|copy| format!("{} on '{}': {}", copy.id, copy.destination, copy.error));
        damaged.chain(unread).next()
    }

    fn hint(&self, job: &Job) -> Option<String> {
        match self.damaged().next() {
            Some(read) => Some(self.mend(job, read)),
            None => self.unread.iter().find_map(|copy| copy.hint.clone()),
        }
    }

    /// What to do about a damaged copy.
    fn mend(&self, job: &Job, read: &Verified) -> String {
        let (name, id) = (&job.name, &read.id);
        match self.whole.get(id) {
            Some(other) => format!(
                "move the folder {name}/{id} away from '{}'; `respaldo sync {name}` then brings it from '{other}', where it is whole",
                read.destination
            ),
            None => format!(
                "no other copy of it is known to be whole: `respaldo verify {name} {id}` reads each, `respaldo backup {name}` makes a new one"
            ),
        }
    }
}

/// Reads what is due, as a run of its own. The caller holds the lock of the job's verifications.
pub async fn verify_due(
    site: &Arc<Site>,
    job: &Arc<Job>,
    run: RunId,
    control: &Control,
) -> Result<Reread> {
    let ending = |reread: &Reread| Ending {
        state: reread.state(),
        error: reread.error(),
        hint: reread.hint(job),
        warnings: reread.read.iter().flat_map(warnings).collect(),
    };
    let work = read_all(site, job, run, control);
    let key = (&job.name, run, RunKind::Verify);
    let mut reread = recorded(site, key, None, control, work, ending).await?;
    reread.run = Some(run);
    tell(site, job, &reread).await?;
    Ok(reread)
}

fn warnings(read: &Verified) -> Vec<String> {
    let said = |warning: &String| format!("{} on '{}': {warning}", read.id, read.destination);
    read.warnings.iter().map(said).collect()
}

async fn read_all(site: &Site, job: &Job, run: RunId, control: &Control) -> Result<Reread> {
    let before = site.catalog.latest_checks(&job.name).await?;
    let known = site.catalog.backups(Some(&job.name)).await?;
    let due = due(site, job, &known, &before).await?;
    let sizes: BTreeMap<BackupId, u64> =
        known.iter().map(|known| (known.manifest.id, known.manifest.read_bytes())).collect();
    control.add_total(Some(due.iter().filter_map(|copy| sizes.get(&copy.id)).sum()));
    let spool = Spool::create(site, &format!("run-{run}"), control)?;
    let mut reread = Reread::default();
    for copy in due {
        let place = job.place(&copy.destination)?;
        let reading = read_one(site, job, place, &copy.id, &spool, control);
        let limit = async {
            let reading = tokio::time::timeout(job.deadline, reading).await;
            reading.unwrap_or_else(|_| {
                let most = job.deadline;
                Err(Fault::transient(format!(
                    "reading it took longer than its deadline of {most:?}"
                ))
                .hint("raise `deadline` on the job, or find out what is slow"))
            })
        };
        let read = tokio::select! {
            read = limit => read,
            () = control.cancel.cancelled() => return Err(Fault::cancelled("the run was stopped")),
        };
        match read {
            // It went, by retention or by hand, and the catalog knows.
            Ok(None) => {}
            Ok(Some(read)) if read.unread => {
                let error = read.failures.join("; ");
                tracing::warn!("{} on '{}' was not read: {error}", read.id, read.destination);
                let (id, destination) = (read.id, read.destination);
                reread.unread.push(Unread { id, destination, error, hint: None });
            }
            Ok(Some(read)) => {
                log(&read);
                remember(site, &read).await?;
                reread.read.push(read);
            }
            Err(fault) if fault.kind() == FaultKind::Cancelled => return Err(fault),
            Err(fault) => {
                let (error, hint) = (fault.chain(), fault.next_step().map(str::to_owned));
                tracing::warn!("{} on '{}' was not read: {error}", copy.id, copy.destination);
                let (id, destination) = (copy.id, copy.destination);
                reread.unread.push(Unread { id, destination, error, hint });
            }
        }
    }
    reread.whole = whole(site, job, &reread, &known).await?;
    Ok(reread)
}

/// What the rotation chooses among all that the catalog knows.
async fn due(site: &Site, job: &Job, known: &[Known], before: &Checks) -> Result<Vec<CopyFacts>> {
    // It was taken out of the config while the run waited.
    let Some(plan) = &job.verify else { return Ok(Vec::new()) };
    let now = site.clock.now();
    let began = match since(site, job).await? {
        Some(began) => began,
        None => {
            site.catalog.set_fact(&since_fact(job), &now.to_string()).await?;
            now
        }
    };
    let wanted = |destination: &str| job.place(destination).is_ok();
    let copies = known.iter().flat_map(|known| {
        let id = known.manifest.id;
        let copies = known.copies.iter().filter(|copy| wanted(&copy.destination));
        copies.map(move |copy| {
            let check = before.get(&(id, copy.destination.clone()));
            CopyFacts {
                id,
                destination: copy.destination.clone(),
                read: check.map_or(began.max(id.started()), |check| check.at),
                damaged: check.is_some_and(|check| !check.ok),
            }
        })
    });
    Ok(rotation::due(copies.collect(), now, plan.schedule.next(now), plan.days))
}

/// Since when the job's copies are read by a schedule: what was there before did not wait for it.
pub(super) async fn since(site: &Site, job: &Job) -> Result<Option<Timestamp>> {
    let since = site.catalog.fact(&since_fact(job)).await?;
    let since = since.map(|since| since.parse().context("read since when a job is verified"));
    since.transpose()
}

fn since_fact(job: &Job) -> String {
    format!("verified-since:{}", job.name)
}

/// Reads one copy; `None` when it is gone and nobody expects it there any more.
async fn read_one(
    site: &Site,
    job: &Job,
    place: &Place,
    id: &BackupId,
    spool: &Spool,
    control: &Control,
) -> Result<Option<Verified>> {
    let destination = std::slice::from_ref(&place.destination);
    let looked = find(destination, &job.name, Choice::Id(*id), &site.trusted);
    let found = match within(job.stall, looked).await {
        Ok(found) => found,
        Err(fault) if fault.is_transient() => return Err(fault),
        Err(fault) => {
            let destination = place.destination.as_ref();
            if !site.catalog.is_known(&job.name, id, destination.name()).await? {
                return Ok(None);
            }
            // Nothing at all may be read there: that is no word about this copy.
            if within(job.stall, list_backups(destination, &job.name)).await.is_err() {
                return Err(fault);
            }
            return Ok(Some(lost(site, job, destination, id, &fault)));
        }
    };
    // No key is here: what is encrypted is checked from outside.
    let identities = Identities::default();
    let read = verify(site, found, Depth::Whole, &identities, spool.session(), &control.meter);
    read.await.map(Some)
}

/// A copy that should be there, and whose manifest is not or can't be read.
fn lost(
    site: &Site,
    job: &Job,
    destination: &dyn Destination,
    id: &BackupId,
    fault: &Fault,
) -> Verified {
    Verified {
        job: job.name.clone(),
        id: *id,
        destination: destination.name().to_owned(),
        ok: false,
        checked_at: site.clock.now(),
        depth: Depth::Stored,
        bytes: 0,
        failures: vec![fault.chain()],
        warnings: Vec::new(),
        archived: Vec::new(),
        unread: false,
    }
}

fn log(read: &Verified) {
    let (id, destination) = (&read.id, &read.destination);
    match read.ok {
        true => tracing::info!("{id} on '{destination}' is whole: {} read", bytes(read.bytes)),
        false => {
            tracing::error!("{id} on '{destination}' is damaged: {}", read.failures.join("; "))
        }
    }
    read.warnings.iter().for_each(|warning| tracing::warn!("{id} on '{destination}': {warning}"));
}

/// For each damaged backup a destination where it was whole when it was last read.
async fn whole(
    site: &Site,
    job: &Job,
    reread: &Reread,
    known: &[Known],
) -> Result<BTreeMap<BackupId, String>> {
    let checks = site.catalog.latest_checks(&job.name).await?;
    let is_whole = |id: BackupId, destination: &str| {
        checks.get(&(id, destination.to_owned())).is_some_and(|check| check.ok)
    };
    let damaged = reread.damaged().filter_map(|read| {
        let known = known.iter().find(|known| known.manifest.id == read.id)?;
        let whole = known.copies.iter().find(|copy| is_whole(read.id, &copy.destination))?;
        Some((read.id, whole.destination.clone()))
    });
    Ok(damaged.collect())
}

/// Tells of each damaged copy once, until something else is wrong with it; and once more when it is
/// whole again or gone. From what is remembered, so that a run that was cut off is made up for.
async fn tell(site: &Site, job: &Job, reread: &Reread) -> Result<()> {
    let fact = format!("damaged:{}", job.name);
    let told = site.catalog.fact(&fact).await?.unwrap_or_default();
    let told: BTreeMap<String, String> = serde_json::from_str(&told).unwrap_or_default();
    let mut damaged = BTreeMap::new();
    let mut whole = BTreeSet::new();
    for (_, check) in site.catalog.latest_checks(&job.name).await? {
        let named = format!("{} on {}", check.id, check.destination);
        if check.ok {
            whole.insert(named);
        } else if site.catalog.is_known(&job.name, &check.id, &check.destination).await? {
            damaged.insert(named, check.error.unwrap_or_default());
        }
    }
    let event = |kind, summary: String, details: Vec<(String, String)>| Event {
        // Each copy once, so that one is not taken for the other.
        about: details.iter().map(|(copy, _)| copy.as_str()).collect::<Vec<_>>().join(", "),
        run: reread.run,
        details,
        ..Event::new(kind, Some(job.name.clone()), site.clock.now(), summary)
    };
    let is_news = |(copy, error): &(&String, &String)| told.get(*copy) != Some(*error);
    let owned = |(copy, error): (&String, &String)| (copy.clone(), error.clone());
    let news: Vec<(String, String)> = damaged.iter().filter(is_news).map(owned).collect();
    if !news.is_empty() {
        let summary = format!("a stored backup of '{}' is not what was written", job.name);
        let failed = event(EventKind::VerifyFailed, summary, news);
        site.tell(&Event { hint: reread.hint(job), ..failed }).await?;
    }
    let over = told.keys().filter(|copy| !damaged.contains_key(*copy));
    let became = |copy: &String| match whole.contains(copy) {
        true => (copy.clone(), "whole again".to_owned()),
        false => (copy.clone(), "gone".to_owned()),
    };
    let over: Vec<(String, String)> = over.map(became).collect();
    if !over.is_empty() {
        let summary = format!("a stored backup of '{}' is damaged no longer", job.name);
        let recovered = event(EventKind::Recovered, summary, over);
        let all = if damaged.is_empty() { String::new() } else { recovered.about.clone() };
        let ends = vec![EventKind::VerifyFailed];
        site.tell(&Event { about: all, ends, ..recovered }).await?;
    }
    match damaged.is_empty() {
        true => site.catalog.clear_fact(&fact).await,
        false => {
            let damaged = serde_json::to_string(&damaged).context("write what is damaged")?;
            site.catalog.set_fact(&fact, &damaged).await
        }
    }
}
