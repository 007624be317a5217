//! Folders without a manifest: those that never were a backup, or whose deletion was cut off, are
//! cleared away; those that were one are damaged, and stay. Gathers the facts; what they mean is
//! decided in `retention`.

use std::collections::BTreeSet;
use std::fs;

use jiff::SignedDuration;

use super::select::{is_leased, lease_path};
use super::{Job, Site};
use crate::catalog::Gone;
use crate::destination::{Destination, Removal, list_backups, list_marks, read_manifest};
use crate::fault::{Context, Result};
use crate::lock::Lock;
use crate::model::{BackupId, Mark};
use crate::retention::{self, Doomed, Uncommitted, Unlisted};

/// Folders without a manifest, by what they are.
#[derive(Default)]
pub(super) struct Sorted {
    pub leftovers: Vec<Doomed>,
    /// They were backups.
    pub damaged: Vec<BackupId>,
}

/// What each of these folders is; that of `own` is its caller's, although its run is not over yet.
pub(super) async fn sorted(
    site: &Site,
    job: &Job,
    destination: &dyn Destination,
    uncommitted: &[BackupId],
    own: Option<&BackupId>,
) -> Result<Sorted> {
    let (catalog, name) = (&site.catalog, destination.name());
    let deadline = SignedDuration::try_from(job.deadline).unwrap_or(SignedDuration::MAX);
    let removing = ids_of(site, &removing_fact(job, destination)).await?;
    let lost = ids_of(site, &lost_fact(job, destination)).await?;
    let shared = ids_of(site, &shared_fact(job, destination)).await?;
    let mut sorted = Sorted::default();
    for id in uncommitted {
        // It is being brought here from another destination, or deleted.
        if is_leased(&site.data_dir, &job.name, id) {
            continue;
        }
        let folder = Uncommitted {
            id: *id,
            run_is_over: !shared.contains(id)
                && (own == Some(id) || catalog.backup_run_is_over(&job.name, id).await?),
            deadline,
            was_committed: lost.contains(id)
                || catalog.is_known(&job.name, id, name).await?
                || catalog.was_delivered(&job.name, id, name).await?,
            removing: removing.contains(id),
            pinned: list_marks(destination, &job.name, id).await?.contains(&Mark::Pin),
        };
        match retention::unlisted(&job.name, folder, site.clock.now()) {
            Unlisted::Leftover(doomed) => sorted.leftovers.push(doomed),
            Unlisted::Open => {}
            // A sync may have brought it since, or the store have answered wrongly.
            Unlisted::Damaged => {
                if read_manifest(destination, &job.name, id).await?.is_none() {
                    sorted.damaged.push(*id);
                }
            }
        }
    }
    Ok(sorted)
}

impl Sorted {
    /// Has the catalog remember what was a backup, for as long as its folder is there without a
    /// manifest; and which deletions are not done with.
    pub(super) async fn remember(
        &self,
        site: &Site,
        job: &Job,
        destination: &dyn Destination,
        uncommitted: &[BackupId],
    ) -> Result<()> {
        let facts = [
            (lost_fact(job, destination), &*self.damaged),
            (removing_fact(job, destination), &[]),
            (shared_fact(job, destination), &[]),
        ];
        for (fact, more) in facts {
            let before = ids_of(site, &fact).await?;
            let mut now: BTreeSet<BackupId> = before.iter().chain(more).copied().collect();
            now.retain(|id| uncommitted.contains(id));
            if now != before {
                set_ids(site, &fact, &now).await?;
            }
        }
        Ok(())
    }
}

/// For people: a backup whose manifest is lost, and what can be done.
pub(super) fn words_of_damage(job: &Job, id: &BackupId) -> String {
    let name = &job.name;
    format!(
        "{id} is damaged: it has no manifest; `respaldo sync {name}` brings it anew where another destination has it, else move the folder {name}/{id} away"
    )
}

/// Clears folders without a manifest that runs of this installation left on a destination; that of
/// `own` too, although its run is not over yet.
pub(super) async fn clear(
    site: &Site,
    job: &Job,
    destination: &dyn Destination,
    own: Option<&BackupId>,
) -> Result<()> {
    if destination.append_only() {
        return Ok(());
    }
    let mut uncommitted = Vec::new();
    for id in list_backups(destination, &job.name).await? {
        // What is believed is for retention to look at.
        if !site.catalog.is_known(&job.name, &id, destination.name()).await?
            && read_manifest(destination, &job.name, &id).await?.is_none()
        {
            uncommitted.push(id);
        }
    }
    let sorted = sorted(site, job, destination, &uncommitted, own).await?;
    clear_away(site, job, destination, sorted.leftovers).await.map(drop)
}

/// Deletes leftovers, and returns those that are gone. Each is held meanwhile, so that nobody begins
/// to write into it.
pub(super) async fn clear_away(
    site: &Site,
    job: &Job,
    destination: &dyn Destination,
    leftovers: Vec<Doomed>,
) -> Result<Vec<BackupId>> {
    let removing = ids_of(site, &removing_fact(job, destination)).await?;
    let mut cleared = Vec::new();
    for doomed in leftovers {
        let (id, name) = (doomed.id(), destination.name());
        let path = lease_path(&site.data_dir, &job.name, id);
        let Some(_lease) = Lock::try_take(&path).context("take a lease")? else { continue };
        // A sync may have brought it since.
        if read_manifest(destination, &job.name, id).await?.is_some() {
            continue;
        }
        if destination.delete(&doomed).await? != Removal::Gone {
            continue;
        }
        fs::remove_file(path).ok();
        if removing.contains(id) {
            let now = site.clock.now();
            site.catalog.add_removal(&job.name, (id, name), Gone::Pruned, now).await?;
        }
        tracing::info!("cleared the leftover {id} from '{name}'");
        cleared.push(*id);
    }
    Ok(cleared)
}

/// Written before a deletion begins, so that one which is cut off is not taken for damage.
pub(super) async fn removing(
    site: &Site,
    job: &Job,
    destination: &dyn Destination,
    id: BackupId,
) -> Result<()> {
    add_id(site, &removing_fact(job, destination), id).await
}

/// The deletion is done.
pub(super) async fn removed(
    site: &Site,
    job: &Job,
    destination: &dyn Destination,
    id: &BackupId,
) -> Result<()> {
    let fact = removing_fact(job, destination);
    let mut ids = ids_of(site, &fact).await?;
    ids.remove(id);
    set_ids(site, &fact, &ids).await
}

/// Somebody else writes into the same folder, whose run may go on when ours is over.
pub(super) async fn shared(
    site: &Site,
    job: &Job,
    destination: &dyn Destination,
    id: BackupId,
) -> Result<()> {
    add_id(site, &shared_fact(job, destination), id).await
}

fn shared_fact(job: &Job, destination: &dyn Destination) -> String {
    format!("shared:{}:{}", job.name, destination.name())
}

fn removing_fact(job: &Job, destination: &dyn Destination) -> String {
    format!("removing:{}:{}", job.name, destination.name())
}

fn lost_fact(job: &Job, destination: &dyn Destination) -> String {
    format!("lost:{}:{}", job.name, destination.name())
}

async fn ids_of(site: &Site, fact: &str) -> Result<BTreeSet<BackupId>> {
    let text = site.catalog.fact(fact).await?.unwrap_or_default();
    text.split_whitespace().map(str::parse).collect()
}

async fn add_id(site: &Site, fact: &str, id: BackupId) -> Result<()> {
    let mut ids = ids_of(site, fact).await?;
    ids.insert(id);
    set_ids(site, fact, &ids).await
}

async fn set_ids(site: &Site, fact: &str, ids: &BTreeSet<BackupId>) -> Result<()> {
    if ids.is_empty() {
        return site.catalog.clear_fact(fact).await;
    }
    let ids: Vec<String> = ids.iter().map(BackupId::to_string).collect();
    site.catalog.set_fact(fact, &ids.join(" ")).await
}
