//! What lies in a job's folder on a destination, and the catalog put right by it. Knows manifests and
//! marks; deletes nothing there.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt, stream};

use super::leftovers::Sorted;
use super::prune::decided;
use super::{Job, Place, Site};
use crate::catalog::Copy;
use crate::destination::{Destination, Key, list_backups, list_marks, read_manifest};
use crate::fault::Result;
use crate::model::{BackupId, Manifest, Mark};
use crate::report::counted;

/// Manifests read at once.
const AT_ONCE: usize = 8;

/// What lies in a job's folder.
#[derive(Default)]
pub(super) struct Contents {
    /// Every folder with an id's name.
    pub ids: Vec<BackupId>,
    pub committed: Vec<(Manifest, Vec<Mark>)>,
    /// Folders without a manifest.
    pub uncommitted: Vec<BackupId>,
    /// There is a manifest, and it can't be read: never deleted, and not counted.
    pub unreadable: Vec<BackupId>,
    pub warnings: Vec<String>,
}

/// Reads every manifest there. One that is not `believed` yet must have its files beside it.
pub(super) async fn look(
    job: &Job,
    destination: &dyn Destination,
    believed: &BTreeMap<BackupId, Copy>,
) -> Result<Contents> {
    let ids = list_backups(destination, &job.name).await?;
    let mut contents = Contents { ids: ids.clone(), ..Contents::default() };
    let mut reads = stream::iter(ids)
        .map(async |id| (id, inspect(job, destination, id).await))
        .buffer_unordered(AT_ONCE);
    while let Some((id, read)) = reads.next().await {
        match read {
            Ok(Some((manifest, marks))) => {
                let lacks = match believed.contains_key(&id) {
                    true => None,
                    false => lacks(destination, &manifest).await?,
                };
                match lacks {
                    None => contents.committed.push((manifest, marks)),
                    Some(words) => contents.warnings.push(words),
                }
            }
            Ok(None) => contents.uncommitted.push(id),
            Err(fault) if fault.is_transient() => return Err(fault),
            // A person has to look.
            Err(fault) => {
                contents.warnings.push(format!("{id}: {}", fault.chain()));
                contents.unreadable.push(id);
            }
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

/// Backups that the catalog believes to be on a destination, and that are gone from it.
#[derive(Debug)]
pub(super) struct Vanished {
    pub ids: Vec<BackupId>,
    /// For people; `None` where that was to be expected.
    pub words: Option<String>,
}

/// What is gone though respaldo did not remove it. `before` is what the catalog believed before it was
/// looked at what is `there`: what respaldo itself brings or deletes, it knows of meanwhile.
pub(super) async fn vanished(
    site: &Site,
    job: &Job,
    place: &Place,
    before: &BTreeMap<BackupId, Copy>,
    there: &[BackupId],
) -> Result<Vanished> {
    let name = place.destination.name();
    let after = site.catalog.copies_on(&job.name, name).await?;
    let is_gone = |id: &&BackupId| after.contains_key(id) && !there.contains(id);
    let ids: Vec<BackupId> = before.keys().filter(is_gone).copied().collect();
    if ids.is_empty() {
        return Ok(Vanished { ids, words: None });
    }
    // Whoever moves a damaged one away does what the hint says; and where respaldo may not delete, the
    // store's own rule does.
    let checks = site.catalog.latest_checks(&job.name).await?;
    let is_damaged =
        |id: BackupId| checks.get(&(id, name.to_owned())).is_some_and(|check| !check.ok);
    let spent: HashSet<BackupId> = match place.destination.append_only() {
        true => {
            let decisions = decided(site, job, place).await?.into_iter();
            decisions.filter(|decision| !decision.keep).map(|decision| decision.id).collect()
        }
        false => HashSet::new(),
    };
    let missed: Vec<&Copy> = ids
        .iter()
        .filter(|id| !is_damaged(**id) && !spent.contains(id))
        .filter_map(|id| before.get(id))
        .collect();
    let pinned = missed.iter().filter(|copy| copy.pinned).count();
    let words = words_of_loss(name, missed.len(), pinned);
    Ok(Vanished { ids, words })
}

/// One sentence for all of them.
fn words_of_loss(destination: &str, count: usize, pinned: usize) -> Option<String> {
    let pins = match (count, pinned) {
        (0, _) => return None,
        (_, 0) => String::new(),
        (1, _) => ", a pinned one,".to_owned(),
        (_, 1) => ", one of them pinned,".to_owned(),
        _ => format!(", {pinned} of them pinned,"),
    };
    let backups = counted(count, "backup", "backups");
    let are = if count == 1 { "is" } else { "are" };
    Some(format!(
        "{backups}{pins} {are} no longer on '{destination}', and respaldo did not delete that: is it mounted, and does no rule of the store delete?"
    ))
}

/// Makes the catalog say what the destination says.
pub(super) async fn remember(
    site: &Site,
    job: &Job,
    destination: &dyn Destination,
    contents: &Contents,
    (sorted, vanished): (&Sorted, &Vanished),
) -> Result<()> {
    // Before it is forgotten that they were backups.
    sorted.remember(site, job, destination, &contents.uncommitted).await?;
    forget(site, job, destination.name(), &vanished.ids).await?;
    for id in sorted.damaged.iter().chain(&contents.unreadable) {
        site.catalog.remove_copy(&job.name, id, destination.name()).await?;
    }
    let believed = site.catalog.copies_on(&job.name, destination.name()).await?;
    for (manifest, marks) in &contents.committed {
        let copy = Copy::new(destination.name(), marks);
        if believed.get(&manifest.id) != Some(&copy) {
            site.catalog.add_copy(manifest, destination.name(), marks).await?;
        }
    }
    Ok(())
}

/// Has the catalog forget what vanished from a destination.
pub(super) async fn forget(
    site: &Site,
    job: &Job,
    destination: &str,
    vanished: &[BackupId],
) -> Result<()> {
    for id in vanished {
        tracing::warn!("backup {id} is no longer on '{destination}'");
        site.catalog.remove_copy(&job.name, id, destination).await?;
    }
    Ok(())
}

/// Why a folder with that manifest is no backup, where it does not hold what the manifest lists: a
/// store may take a manifest after its volumes were given up and deleted. Sizes tell; `verify` reads.
pub(super) async fn lacks(
    destination: &dyn Destination,
    manifest: &Manifest,
) -> Result<Option<String>> {
    let folder = Key::backup(&manifest.job, &manifest.id);
    let there: HashMap<String, u64> = destination.list(&folder).await?.files.into_iter().collect();
    let mut volumes = manifest.volumes().chain(&manifest.proof);
    let missing = volumes.find(|volume| there.get(&volume.name) != Some(&volume.bytes));
    Ok(missing.map(|volume| {
        format!(
            "{} is no backup: its manifest came alone, '{}' is not there as it should be; `respaldo sync {}` brings it where another destination has it, else move its folder away",
            manifest.id, volume.name, manifest.job
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::words_of_loss;

    #[test]
    fn what_is_lost_is_said_in_one_sentence() {
        let said = |count, pinned| words_of_loss("nas", count, pinned).unwrap_or_default();
        assert_eq!(said(0, 0), "");
        assert!(said(1, 0).starts_with("1 backup is no longer on 'nas', "));
        assert!(said(1, 1).starts_with("1 backup, a pinned one, is no longer on 'nas', "));
        assert!(said(3, 1).starts_with("3 backups, one of them pinned, are no longer on 'nas', "));
        assert!(said(3, 2).starts_with("3 backups, 2 of them pinned, are no longer on 'nas', "));
    }
}
