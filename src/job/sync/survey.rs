//! What each destination of a job lacks. Knows the catalog and asks the destinations; changes
//! nothing on them.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;

use super::{Lacking, Repair, RepairState, Synced, Unreachable};
use crate::catalog::Known;
use crate::destination::{list_backups, list_marks, read_manifest, read_pin};
use crate::fault::Result;
use crate::job::commit::home;
use crate::job::contents::{Vanished, lacks, vanished};
use crate::job::delivery::within;
use crate::job::select::is_leased;
use crate::job::{Job, Place, Site};
use crate::model::{BackupId, Pin};
use crate::retention::{self, Candidate};

/// What lies on a destination that could be looked at.
struct Shelf<'a> {
    place: &'a Place,
    vanished: Vanished,
    /// Manifests without their files.
    warnings: Vec<String>,
    there: BTreeSet<BackupId>,
    /// There is something that can't be read: a person has to look.
    unreadable: BTreeSet<BackupId>,
}

impl Shelf<'_> {
    fn name(&self) -> &str {
        self.place.destination.name()
    }
}

/// Looks at every destination of the job, and says what is to be brought where. A copy that the
/// catalog knows, and whose folder is there, is believed to be whole: `verify` reads it. One that is
/// gone is forgotten only when that is told.
pub async fn survey(site: &Site, job: &Job) -> Result<Synced> {
    let mut synced = Synced {
        job: job.name.clone(),
        run: None,
        repairs: Vec::new(),
        unreachable: Vec::new(),
        warnings: Vec::new(),
        damaged: BTreeMap::new(),
        vanished: Vec::new(),
    };
    // Asked before and after the look: what a run is just committing is missing for a moment only.
    let mut busy = under_way(site, job).await?;
    let looks = join_all(job.places.iter().map(|place| look(site, job, place))).await;
    busy.extend(under_way(site, job).await?);
    let mut shelves = Vec::new();
    for (place, shelf) in job.places.iter().zip(looks) {
        let name = place.destination.name();
        match shelf {
            Ok(Some(shelf)) => shelves.push(shelf),
            Ok(None) => synced.warnings.push(format!(
                "'{name}' is left out: another respaldo owns this job's folder there (`respaldo prune {} --adopt` takes it over)",
                job.name
            )),
            Err(fault) => {
                tracing::warn!("destination '{name}': {}", fault.chain());
                let (destination, error) = (name.to_owned(), fault.chain());
                synced.unreachable.push(Unreachable { destination, error });
            }
        }
    }
    let mut known = site.catalog.backups(Some(&job.name)).await?;
    known.retain(|known| {
        let id = &known.manifest.id;
        !busy.contains(id) && !is_leased(&site.data_dir, &job.name, id)
    });
    for shelf in &shelves {
        synced.repairs.extend(lacking(site, job, shelf, &shelves, &known));
    }
    for known in &known {
        synced.repairs.extend(disagreeing(job, &shelves, known).await?);
    }
    for shelf in shelves {
        synced.warnings.extend(shelf.vanished.words.iter().cloned().chain(shelf.warnings));
        synced.vanished.push((shelf.place.destination.name().to_owned(), shelf.vanished));
    }
    Ok(synced)
}

async fn under_way(site: &Site, job: &Job) -> Result<BTreeSet<BackupId>> {
    let running = site.catalog.running().await?;
    Ok(running.into_iter().filter(|run| run.job == job.name).filter_map(|run| run.backup).collect())
}

/// What is there, with the catalog put right; `None`: it is somebody else's.
async fn look<'a>(site: &Site, job: &Job, place: &'a Place) -> Result<Option<Shelf<'a>>> {
    let destination = place.destination.as_ref();
    let owner = within(job.stall, home(site, job, destination)).await?;
    if owner.is_some_and(|owner| owner != site.installation) {
        return Ok(None);
    }
    let believed = site.catalog.copies_on(&job.name, destination.name()).await?;
    let ids = within(job.stall, list_backups(destination, &job.name)).await?;
    let vanished = vanished(site, job, place, &believed, &ids).await?;
    let (there, unreadable) = (BTreeSet::new(), BTreeSet::new());
    let mut shelf = Shelf { place, vanished, warnings: Vec::new(), there, unreadable };
    for id in ids {
        if believed.contains_key(&id) {
            shelf.there.insert(id);
            continue;
        }
        match within(job.stall, read_manifest(destination, &job.name, &id)).await {
            Ok(Some((manifest, _))) => {
                if let Some(words) = within(job.stall, lacks(destination, &manifest)).await? {
                    shelf.warnings.push(format!("'{}': {words}", destination.name()));
                    continue;
                }
                let marks = within(job.stall, list_marks(destination, &job.name, &id)).await?;
                site.catalog.add_copy(&manifest, destination.name(), &marks).await?;
                shelf.there.insert(id);
            }
            Ok(None) => {}
            Err(fault) if fault.is_transient() => return Err(fault),
            Err(_) => {
                shelf.unreadable.insert(id);
            }
        }
    }
    Ok(Some(shelf))
}

/// The backups that the others have and this one would keep.
fn lacking(
    site: &Site,
    job: &Job,
    shelf: &Shelf<'_>,
    shelves: &[Shelf<'_>],
    known: &[Known],
) -> Vec<Repair> {
    let candidate = |known: &Known| Candidate {
        id: known.manifest.id,
        kind: known.manifest.kind,
        since: known.manifest.stands_on(),
        pinned: known.copies.iter().any(|copy| copy.pinned),
        leased: false,
        proven: known.copies.iter().any(|copy| copy.proven),
        retained: false,
    };
    let (there, missing): (Vec<&Known>, Vec<&Known>) =
        known.iter().partition(|known| shelf.there.contains(&known.manifest.id));
    let there: Vec<Candidate> = there.into_iter().map(candidate).collect();
    let missing: Vec<&Known> = missing
        .into_iter()
        .filter(|known| !shelf.unreadable.contains(&known.manifest.id))
        .filter(|known| !sources(shelves, &known.manifest.id).is_empty())
        .collect();
    let candidates: Vec<Candidate> = missing.iter().map(|known| candidate(known)).collect();
    let (now, zone) = (site.clock.now(), job.schedule.zone());
    let wanted = retention::wanted(&shelf.place.policy, &there, &candidates, now, zone);
    let wanted = missing.into_iter().filter(|known| wanted.contains(&known.manifest.id));
    wanted
        .map(|known| Repair {
            id: known.manifest.id,
            destination: shelf.name().to_owned(),
            what: Lacking::Backup,
            state: RepairState::Missing,
            from: None,
            stored_bytes: known.manifest.stored_bytes(),
            error: None,
            sources: sources(shelves, &known.manifest.id),
        })
        .collect()
}

/// Who has it: folders first, for they are near; cold ones last.
fn sources(shelves: &[Shelf<'_>], id: &BackupId) -> Vec<String> {
    let mut holding: Vec<&Shelf<'_>> = shelves.iter().filter(|s| s.there.contains(id)).collect();
    holding.sort_by_key(|shelf| {
        let far = !shelf.place.destination.is_local();
        (shelf.place.policy.accept.is_some(), far)
    });
    holding.into_iter().map(|shelf| shelf.name().to_owned()).collect()
}

/// Where a pin, or the word that it was taken off, did not arrive.
async fn disagreeing(job: &Job, shelves: &[Shelf<'_>], known: &Known) -> Result<Vec<Repair>> {
    let id = &known.manifest.id;
    let pinned = |name: &str| known.copies.iter().find(|c| c.destination == name).map(|c| c.pinned);
    let there = shelves.iter().filter(|shelf| shelf.there.contains(id));
    let copies: Vec<(&Shelf<'_>, bool)> =
        there.filter_map(|shelf| Some((shelf, pinned(shelf.name())?))).collect();
    if copies.iter().all(|(_, pinned)| *pinned == copies[0].1) {
        return Ok(Vec::new());
    }
    let mut newest: Option<(Pin, &Shelf<'_>)> = None;
    for (shelf, _) in &copies {
        let read = read_pin(shelf.place.destination.as_ref(), &job.name, id);
        let Ok(Some(pin)) = within(job.stall, read).await else { continue };
        // At the same instant a pin is the safer word.
        let order = |pin: &Pin| (pin.at, pin.pinned);
        if newest.as_ref().is_none_or(|(other, _)| order(&pin) > order(other)) {
            newest = Some((pin, shelf));
        }
    }
    let Some((pin, source)) = newest else { return Ok(Vec::new()) };
    let behind = copies.iter().filter(|(_, pinned)| *pinned != pin.pinned);
    Ok(behind
        .map(|(shelf, _)| Repair {
            id: *id,
            destination: shelf.name().to_owned(),
            what: Lacking::Pin,
            state: RepairState::Missing,
            from: None,
            stored_bytes: 0,
            error: None,
            sources: vec![source.name().to_owned()],
        })
        .collect())
}
