//! One backup: open the source, stream every artifact to every destination, and commit where all of
//! it arrived.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::chain::{self, Ground};
use super::commit::{Draft, commit, mark_owner};
use super::delivery::Delivery;
use super::gone;
use super::space::space_now;
use super::streaming::Streaming;
use super::wal::is_stored;
use super::{Control, Job, Site, leftovers, proof, watch};
use crate::anomaly::Finding;
use crate::catalog::Known;
use crate::destination::{Destination, Key, list_backups};
use crate::fault::{Fault, FaultKind, Result};
use crate::model::manifest::FORMAT;
use crate::model::{Artifact, BackupId, BackupKind, Content, Manifest, VERSION};
use crate::source::Session;

/// A backup that was committed on at least one destination.
#[derive(Debug)]
pub struct Made {
    pub manifest: Manifest,
    /// What is worth a word; the manifest of an encrypted backup does not have it.
    pub warnings: Vec<String>,
    /// Each destination, and what went wrong there.
    pub deliveries: Vec<(String, Option<Fault>)>,
    /// It is much smaller than those before it.
    pub anomaly: Option<Finding>,
}

impl Made {
    pub fn is_complete(&self) -> bool {
        self.deliveries.iter().all(|(_, fault)| fault.is_none())
    }
}

/// How long a destination may take to say which ids it has.
const ANSWER: Duration = Duration::from_secs(10);

/// An id that no destination has a folder for.
pub(super) async fn free_id(site: &Site, job: &Job) -> BackupId {
    let listings = job.places.iter().map(async |place| {
        let listing = list_backups(place.destination.as_ref(), &job.name);
        // One that does not answer will fail in its own time, and with its own words.
        tokio::time::timeout(ANSWER, listing).await.ok()?.ok()
    });
    let taken: Vec<BackupId> = join_all(listings).await.into_iter().flatten().flatten().collect();
    let mut id = BackupId::at(site.clock.now());
    while taken.contains(&id) {
        id = id.bump();
    }
    id
}

/// A destination with less room than the last backup took: worth a word, for this one may be
/// smaller, and what does not fit fails in its own time.
async fn scarce_room(job: &Job, known: &[Known], incremental: bool) -> Vec<String> {
    // One that holds only changes is no measure for one that holds all, nor the other way round.
    let alike = |known: &&Known| known.manifest.stands_on().is_some() == incremental;
    let last = known.iter().find(alike).map(|known| known.manifest.stored_bytes());
    let Some(last) = last else { return Vec::new() };
    let mut warnings = Vec::new();
    for place in &job.places {
        let free = space_now(place.destination.as_ref()).await.map(|space| space.free);
        if let Some(free) = free.filter(|free| *free < last) {
            let name = place.destination.name();
            let text = format!(
                "only {} free on '{name}'; the last backup took {}",
                bytes(free),
                bytes(last)
            );
            tracing::warn!("{text}");
            warnings.push(text);
        }
    }
    warnings
}

/// For people: what a backup of the kind `Suspect` is about.
pub(super) const DAMAGED: &str =
    "pages of the server's own files do not have the checksum that they should have";

/// Makes a backup of a kind under `id`. An error means that nothing was committed anywhere.
pub(super) async fn backup(
    site: &Site,
    job: &Job,
    (id, kind, label): (BackupId, BackupKind, Option<String>),
    session: &Session,
    control: &Control,
) -> Result<Made> {
    let started_at = site.clock.now();
    let session = &Session { drilled: job.is_drilled_next(started_at), ..session.clone() };
    let known = site.catalog.backups(Some(&job.name)).await?;
    let ground = match kind {
        BackupKind::Incremental => chain::ground(site, job, &known).await?,
        _ => Ground::none(),
    };
    let kind = if kind == BackupKind::Incremental { BackupKind::Full } else { kind };
    let session = &Session { since: ground.since.clone(), ..session.clone() };
    let job = &Job { places: ground.places(job), ..job.clone() };
    let mut warnings = scarce_room(job, &known, ground.since.is_some()).await;
    if let Some(why) = &ground.why {
        tracing::info!("a full backup is made in the place of an incremental one: {why}");
        warnings.push(format!("it is a full backup: {why}"));
    }
    let destinations: Vec<Arc<dyn Destination>> =
        job.places.iter().map(|place| place.destination.clone()).collect();
    let folder = Key::backup(&job.name, &id);
    let delivery =
        Delivery::start(&destinations, folder, job.stall, job.streams(), &control.cancel);
    let mut streaming = Streaming::new(job, &delivery, session, control);
    let streamed = streaming.every_source(&id).await;
    let Streaming { sources, artifacts, cleans, warnings: said, damaged, .. } = streaming;
    let outcomes = delivery.finish().await;
    for (name, outcome) in &outcomes {
        if outcome.as_ref().is_err_and(|fault| fault.kind() == FaultKind::Taken) {
            leftovers::shared(site, job, job.place(name)?.destination.as_ref(), id).await?;
        }
    }
    if let Err(fault) = streamed {
        return Err(blame(fault, outcomes.into_iter().filter_map(|(_, o)| o.err())));
    }
    warnings.extend(said);
    if let Some(last) = known.iter().find(|known| known.manifest.kind == BackupKind::Full) {
        warnings.extend(gone::since(&last.manifest, &sources, &artifacts));
    }
    let mut manifest = Manifest {
        format: FORMAT,
        job: job.name.clone(),
        id,
        kind,
        label,
        sources,
        proof: None,
        started_at,
        finished_at: site.clock.now(),
        warnings,
        suspect: false,
        artifacts,
        respaldo: VERSION.to_owned(),
    };
    if manifest.stands_on().is_some() {
        manifest.kind = BackupKind::Incremental;
    }
    if damaged {
        manifest.kind = BackupKind::Suspect;
        manifest.warnings.push(DAMAGED.to_owned());
    }
    let is_listed = |artifact: &Artifact| artifact.content == Content::BackupManifest;
    let is_ground = job.incremental.is_some()
        && manifest.kind.counts()
        && manifest.artifacts.iter().any(is_listed);
    if is_ground {
        chain::keep(site, job, &manifest.id, &session.spool)?;
    }
    let anomaly = watch::look_at(site, job, &known, &manifest).await?;
    manifest.suspect = anomaly.is_some();
    manifest.warnings.extend(anomaly.as_ref().map(watch::sentence));
    let warnings = manifest.warnings.clone();
    let private = proof::private_files(site, job, &mut manifest)?;
    let below = if manifest.stands_on().is_some() { &*ground.below } else { &[] };
    let draft = Draft::new(site, &manifest, below, &cleans, private)?;
    let commits = outcomes.into_iter().map(async |(name, outcome)| {
        let committed = async {
            let place = job.place(&name)?;
            let receipt = outcome?;
            mark_owner(site, job, place.destination.as_ref()).await?;
            for source in &manifest.sources {
                let Some(facts) = &source.physical else { continue };
                let taken = (source.system_id.as_deref(), facts);
                is_stored(site, job, &name, taken, &session.cancel).await?;
            }
            let committing = commit(&draft, &receipt, place.destination.as_ref());
            match tokio::time::timeout(job.stall, committing).await {
                Ok(committed) => committed?,
                Err(_) => return Err(Fault::transient(format!("no answer in {:?}", job.stall))),
            }
            site.catalog.add_copy(&manifest, &name, &[]).await
        };
        let fault = committed.await.err();
        (name, fault)
    });
    let mut deliveries = join_all(commits).await;
    if is_ground && deliveries.iter().any(|(_, fault)| fault.is_none()) {
        chain::forget_others(site, job, &manifest.id);
    }
    deliveries.extend(ground.lacks());
    for (place, fault) in &deliveries {
        if let Some(fault) = fault {
            tracing::error!("destination '{place}' has no backup of this run: {}", fault.chain());
        }
    }
    if deliveries.iter().all(|(_, fault)| fault.is_some()) {
        let first = deliveries.into_iter().find_map(|(_, fault)| fault);
        return Err(first.unwrap_or_else(|| Fault::usage("the job has no destination")));
    }
    Ok(Made { manifest, warnings, deliveries, anomaly })
}

/// When no destination was left, why each went says more than that.
fn blame(fault: Fault, mut destinations: impl Iterator<Item = Fault>) -> Fault {
    if fault.chain().contains("no destination is left") {
        return destinations.next().unwrap_or(fault);
    }
    fault
}

/// For people: `1.1 GB`.
pub fn bytes(count: u64) -> String {
    indicatif::DecimalBytes(count).to_string()
}

/// For people: `12,345,678`.
pub fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn large_numbers_can_be_read() {
        let shown = [0, 999, 1000, 1_234_567, 12_345_678].map(count);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567", "12,345,678"]);
    }
}
