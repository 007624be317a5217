//! A backup pinned, so that no rule deletes it, or let go again: on every destination that has it.

use std::time::Duration;

use futures::future::join_all;
use serde::Serialize;

use super::delivery::within;
use super::select::lease_path;
use super::{Job, Place, Site};
use crate::destination::{list_marks, read_manifest, write_pin};
use crate::fault::{Context, Fault, Result};
use crate::lock::Lock;
use crate::model::{Action, Actor, BackupId, Deed, JobName, Pin};

/// So often it is asked whether a backup is free to be pinned, and how long between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// What became of a pin on one destination.
#[derive(Debug, Serialize)]
pub struct Pinned {
    pub job: JobName,
    pub id: BackupId,
    pub destination: String,
    /// The backup is there; what is not there needs no pin.
    pub held: bool,
    pub pinned: bool,
    pub error: Option<String>,
}

/// As [`pin`], asked for by somebody.
pub async fn pin_audited(
    site: &Site,
    actor: &Actor,
    job: &Job,
    id: &BackupId,
    pinned: bool,
    note: Option<String>,
) -> Result<Vec<Pinned>> {
    let action = if pinned { Action::Pin } else { Action::Unpin };
    let mut deed = Deed::of(action, &job.name).to(id);
    deed.detail = note.clone();
    let missed = |all: &Vec<Pinned>| {
        let missed: Vec<&str> = all
            .iter()
            .filter(|one| one.error.is_some())
            .map(|one| one.destination.as_str())
            .collect();
        (!missed.is_empty()).then(|| format!("not on {}", missed.join(", "))).map_or(Ok(None), Err)
    };
    site.audited_by(actor, deed, pin(site, job, id, pinned, note), missed).await
}

/// Pins a backup or lets it go, wherever it is. An error means that it is nowhere. A destination
/// that could not be reached is told in its [`Pinned`], and `sync` makes up for it.
async fn pin(
    site: &Site,
    job: &Job,
    id: &BackupId,
    pinned: bool,
    note: Option<String>,
) -> Result<Vec<Pinned>> {
    let _lease = lease(site, job, id).await?;
    let pin = Pin { pinned, at: Some(site.clock.now()), note };
    let all = job.places.iter().map(async |place| {
        let marked = within(job.stall, mark(site, job, place, id, &pin)).await;
        let error = marked.as_ref().err().map(Fault::chain);
        Pinned {
            job: job.name.clone(),
            id: *id,
            destination: place.destination.name().to_owned(),
            held: marked.as_ref().is_ok_and(|held| *held),
            pinned: pinned && marked.is_ok_and(|held| held),
            error,
        }
    });
    let all = join_all(all).await;
    if all.iter().any(|one| one.held || one.error.is_some()) {
        return Ok(all);
    }
    Err(Fault::usage(format!("job '{}' has no backup {id}", job.name))
        .hint(format!("`respaldo list {}` shows what there is", job.name)))
}

/// Keeps retention away while it is being pinned: what a deletion has in hand is not called pinned.
async fn lease(site: &Site, job: &Job, id: &BackupId) -> Result<Lock> {
    let path = lease_path(&site.data_dir, &job.name, id);
    for _ in 0..TRIES {
        if let Some(lease) = Lock::try_share(&path).context("take a lease")? {
            return Ok(lease);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Fault::transient(format!("{id} is being deleted or changed at this moment")).hint(format!(
        "`respaldo list {}` shows whether it is still there; then try again",
        job.name
    )))
}

/// Whether the backup is there; then it is marked.
async fn mark(site: &Site, job: &Job, place: &Place, id: &BackupId, pin: &Pin) -> Result<bool> {
    let destination = place.destination.as_ref();
    let Some((manifest, _)) = read_manifest(destination, &job.name, id).await? else {
        return Ok(false);
    };
    write_pin(destination, &job.name, id, pin).await?;
    let marks = list_marks(destination, &job.name, id).await?;
    site.catalog.add_copy(&manifest, destination.name(), &marks).await?;
    Ok(true)
}
