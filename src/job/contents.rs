//! What lies in a job's folder on a destination, and the catalog put right by it. Knows manifests and
//! marks; deletes nothing there.

use std::collections::HashSet;

use futures::{StreamExt, stream};

use super::leftovers::Sorted;
use super::{Job, Site};
use crate::catalog::Copy;
use crate::destination::{Destination, list_backups, list_marks, read_manifest};
use crate::fault::Result;
use crate::model::{BackupId, Manifest, Mark};

/// Manifests read at once.
const AT_ONCE: usize = 8;

/// What lies in a job's folder.
#[derive(Default)]
pub(super) struct Contents {
    pub committed: Vec<(Manifest, Vec<Mark>)>,
    /// Folders without a manifest.
    pub uncommitted: Vec<BackupId>,
    pub warnings: Vec<String>,
}

/// Reads every manifest there.
pub(super) async fn look(job: &Job, destination: &dyn Destination) -> Result<Contents> {
    let ids = list_backups(destination, &job.name).await?;
    let mut contents = Contents::default();
    let mut reads = stream::iter(ids)
        .map(async |id| (id, inspect(job, destination, id).await))
        .buffer_unordered(AT_ONCE);
    while let Some((id, read)) = reads.next().await {
        match read {
            Ok(Some(backup)) => contents.committed.push(backup),
            Ok(None) => contents.uncommitted.push(id),
            Err(fault) if fault.is_transient() => return Err(fault),
            // What can't be read is never deleted; a person has to look.
            Err(fault) => contents.warnings.push(format!("{id}: {}", fault.chain())),
        }
    }
    Ok(contents)
}

async fn inspect(
    job: &Job,
    destination: &dyn Destination,
    id: BackupId,
) -> Result<Option<(Manifest, Vec<Mark>)>> {
    match read_manifest(destination, &job.name, &id).await? {
        None => Ok(None),
        Some((manifest, _)) => Ok(Some((manifest, list_marks(destination, &job.name, &id).await?))),
    }
}

/// Makes the catalog say what the destination says.
pub(super) async fn remember(
    site: &Site,
    job: &Job,
    destination: &dyn Destination,
    contents: &Contents,
    sorted: &Sorted,
) -> Result<()> {
    // Before it is forgotten that they were backups.
    sorted.remember(site, job, destination, &contents.uncommitted).await?;
    let believed = site.catalog.copies_on(&job.name, destination.name()).await?;
    let there: HashSet<BackupId> =
        contents.committed.iter().map(|(manifest, _)| manifest.id).collect();
    for id in believed.keys().filter(|id| !there.contains(id)) {
        tracing::warn!("backup {id} is no longer on '{}'", destination.name());
        site.catalog.remove_copy(&job.name, id, destination.name()).await?;
    }
    for (manifest, marks) in &contents.committed {
        let copy = Copy::new(destination.name(), marks);
        if believed.get(&manifest.id) != Some(&copy) {
            site.catalog.add_copy(manifest, destination.name(), marks).await?;
        }
    }
    Ok(())
}
