//! Which backup is meant, and where it lies: asked of the destinations themselves, so that it works
//! without a catalog.

use std::path::Path;
use std::sync::Arc;

use super::Site;
use crate::destination::{Destination, Key, SIGNATURE, list_backups, read_manifest, read_small};
use crate::fault::{Fault, Result};
use crate::lock::Lock;
use crate::model::{BackupId, JobName, Manifest};
use crate::signature::{self, MAX_SIGNATURE_BYTES, Verdict};

/// The words `latest` or an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Latest,
    Id(BackupId),
}

impl std::str::FromStr for Choice {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self> {
        if text == "latest" { Ok(Self::Latest) } else { text.parse().map(Self::Id) }
    }
}

/// A committed backup on one destination.
pub struct Found {
    pub manifest: Manifest,
    pub signature: Verdict,
    pub destination: Arc<dyn Destination>,
    /// Where its files are.
    pub(super) folder: Key,
}

impl Found {
    pub fn folder(&self) -> Key {
        self.folder.clone()
    }

    /// Keeps retention away while it is being read, by one reader or several.
    pub fn lease(&self, data_dir: &Path) -> Result<Option<Lock>> {
        Lock::try_share(&lease_path(data_dir, &self.manifest.job, &self.manifest.id))
            .map_err(|error| Fault::permanent("take a lease").cause(error))
    }
}

/// Somebody reads or writes the backup at this moment: retention leaves it alone.
pub(super) fn is_leased(data_dir: &Path, job: &JobName, id: &BackupId) -> bool {
    let lease = lease_path(data_dir, job, id);
    lease.exists() && !matches!(Lock::try_take(&lease), Ok(Some(_)))
}

pub(super) fn lease_path(data_dir: &Path, job: &JobName, id: &BackupId) -> std::path::PathBuf {
    data_dir.join(format!("locks/lease-{job}-{id}"))
}

/// The job's full backup that is nearest in time to a moment, as the catalog knows them; of two that
/// are as near the later one, for files are read after the databases that speak of them.
pub async fn nearest(site: &Site, job: &JobName, moment: &BackupId) -> Result<BackupId> {
    let known = site.catalog.backups(Some(job)).await?;
    let full = known.iter().filter(|known| known.manifest.kind.counts());
    // They come newest first.
    let distance = |id: &BackupId| id.started().duration_since(moment.started()).abs();
    full.map(|known| known.manifest.id)
        .min_by_key(distance)
        .ok_or_else(|| Fault::usage(format!("job '{job}' has no backup")))
}

/// Finds the backup on the first destination that has it: local ones first, those that must be thawed last.
/// `latest` is the newest full backup on any of them.
pub async fn find(
    destinations: &[Arc<dyn Destination>],
    job: &JobName,
    choice: Choice,
    trusted: &[String],
) -> Result<Found> {
    let mut order: Vec<&Arc<dyn Destination>> = destinations.iter().collect();
    order.sort_by_key(|destination| (destination.is_frozen(), !destination.is_local()));
    let mut best: Option<Found> = None;
    let mut unreachable = None;
    for destination in order {
        match find_on(destination, job, choice, trusted).await {
            Ok(Some(found)) => {
                let newer = best.as_ref().is_none_or(|best| found.manifest.id > best.manifest.id);
                if newer {
                    best = Some(found);
                }
                if choice != Choice::Latest {
                    break;
                }
            }
            Ok(None) => {}
            Err(fault) => {
                tracing::warn!("destination '{}': {}", destination.name(), fault.chain());
                unreachable = Some(fault);
            }
        }
    }
    match (best, unreachable) {
        (Some(found), _) => Ok(found),
        (None, Some(fault)) => Err(fault),
        (None, None) => Err(Fault::usage(match choice {
            Choice::Latest => format!("job '{job}' has no backup there"),
            Choice::Id(id) => format!("job '{job}' has no backup {id} there"),
        })
        .hint(format!("`respaldo list {job}` shows what there is"))),
    }
}

async fn find_on(
    destination: &Arc<dyn Destination>,
    job: &JobName,
    choice: Choice,
    trusted: &[String],
) -> Result<Option<Found>> {
    let mut ids = match choice {
        Choice::Id(id) => vec![id],
        Choice::Latest => list_backups(destination.as_ref(), job).await?,
    };
    ids.sort();
    for id in ids.iter().rev() {
        match read_manifest(destination.as_ref(), job, id).await {
            Ok(Some((manifest, bytes))) => {
                if choice == Choice::Latest && !manifest.kind.counts() {
                    continue;
                }
                let key = Key::backup(job, id).child(SIGNATURE)?;
                let text = read_small(destination.as_ref(), &key, MAX_SIGNATURE_BYTES).await?;
                let signature = signature::verify(&bytes, text.as_deref(), trusted);
                let (destination, folder) = (destination.clone(), Key::backup(job, id));
                return Ok(Some(Found { manifest, signature, destination, folder }));
            }
            // Not committed: not a backup.
            Ok(None) => {}
            Err(fault) if choice == Choice::Latest && !fault.is_transient() => {
                tracing::warn!("backup {id} on '{}': {}", destination.name(), fault.chain());
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(None)
}

/// The newest full backup with this label on any of the destinations. One that can't be reached is
/// passed over where another has one, and told of.
pub async fn labelled(
    destinations: &[Arc<dyn Destination>],
    job: &JobName,
    label: &str,
) -> Result<BackupId> {
    let mut best = None;
    let mut unreachable = None;
    for destination in destinations {
        match labelled_on(destination.as_ref(), job, label, best).await {
            Ok(found) => best = best.max(found),
            Err(fault) => {
                tracing::warn!("destination '{}': {}", destination.name(), fault.chain());
                unreachable = Some(fault);
            }
        }
    }
    match (best, unreachable) {
        (Some(id), _) => Ok(id),
        (None, Some(fault)) => Err(fault),
        (None, None) => {
            Err(Fault::usage(format!("job '{job}' has no backup labelled '{label}' there"))
                .hint(format!("`respaldo list {job}` shows each with its label")))
        }
    }
}

/// On one destination, where it is newer than `than`.
async fn labelled_on(
    destination: &dyn Destination,
    job: &JobName,
    label: &str,
    than: Option<BackupId>,
) -> Result<Option<BackupId>> {
    let mut ids = list_backups(destination, job).await?;
    ids.sort();
    for id in ids.into_iter().rev().take_while(|id| than.is_none_or(|than| *id > than)) {
        match read_manifest(destination, job, &id).await {
            Ok(Some((manifest, _))) => {
                let full = manifest.kind.counts();
                if full && manifest.label.as_deref() == Some(label) {
                    return Ok(Some(id));
                }
            }
            Ok(None) => {}
            Err(fault) if !fault.is_transient() => {
                tracing::warn!("backup {id} on '{}': {}", destination.name(), fault.chain());
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(None)
}
