//! Retention carried out: look at the destination itself, plan, delete, remember the policy. Clears
//! what runs left behind on the way.

use std::collections::HashMap;
use std::fs;

use jiff::Timestamp;
use serde::Serialize;

use super::commit::{adopt, home, owner};
use super::contents::{look, remember, vanished};
use super::leftovers::{clear_away, removed, removing, sorted, words_of_damage};
use super::select::{is_leased, lease_path};
use super::{Job, Place, Site, watch};
use crate::catalog::{Copy, Gone};
use crate::destination::{Destination, Removal, list_marks};
use crate::fault::{Context, Result};
use crate::lock::Lock;
use crate::model::{Action, BackupId, BackupKind, Deed, Mark, chain};
use crate::retention::{self, Candidate, Decision, Doomed, Facts, Held};

/// What a person may say about a prune.
#[derive(Debug, Clone, Copy, Default)]
pub struct PruneOptions {
    pub dry_run: bool,
    /// The plan was looked at and is right.
    pub confirmed: bool,
    /// Take over a folder that another installation owns.
    pub adopt: bool,
}

/// What was planned and done on one destination.
#[derive(Debug, Serialize)]
pub struct Pruned {
    pub job: crate::model::JobName,
    pub destination: String,
    pub decisions: Vec<Decision>,
    pub held: Option<Held>,
    /// Ids that are gone now.
    pub deleted: Vec<BackupId>,
    /// What the store itself keeps, and until when.
    pub retained: Vec<Retained>,
    /// The destination is append-only: what would go stays.
    pub append_only: bool,
    /// Folders without a manifest that were cleared away.
    pub cleared: Vec<BackupId>,
    pub warnings: Vec<String>,
}

impl Pruned {
    /// It stays after all.
    fn keep(&mut self, id: &BackupId, why: &str) {
        let decision = self.decisions.iter_mut().find(|decision| decision.id == *id);
        if let Some(decision) = decision {
            (decision.keep, decision.reasons) = (true, vec![why.to_owned()]);
        }
    }
}

/// A backup that no rule keeps, but a lock or a retention policy of the store does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retained {
    pub id: BackupId,
    /// None: the store does not say when, or never.
    pub until: Option<Timestamp>,
}

impl Retained {
    /// For people: `retained until 2026-01-01T00:00:00Z`.
    pub fn words(&self) -> String {
        self.until
            .map_or("retained by the store".to_owned(), |until| format!("retained until {until}"))
    }
}

/// Prunes a job on one of its destinations. The caller holds the job's lock.
pub async fn prune(site: &Site, job: &Job, place: &Place, options: PruneOptions) -> Result<Pruned> {
    let destination = place.destination.as_ref();
    if options.adopt && !options.dry_run {
        adopt(site, job, destination).await?;
    }
    // Where all is gone, nothing is believed of it before somebody says that it is meant.
    let owner = match options.adopt {
        true => owner(job, destination).await?,
        false => home(site, job, destination).await?,
    };
    let foreign = owner.is_some_and(|owner| owner != site.installation) && !options.adopt;
    let believed = site.catalog.copies_on(&job.name, destination.name()).await?;
    let mut contents = look(job, destination, &believed).await?;
    let vanished = vanished(site, job, place, &believed, &contents.ids).await?;
    let sorted = sorted(site, job, destination, &contents.uncommitted, None).await?;
    if !foreign {
        contents.warnings.extend(vanished.words.clone());
        contents.warnings.extend(sorted.damaged.iter().map(|id| words_of_damage(job, id)));
    }
    // Whoever only looks tells nobody: the next run is to find the same.
    if !options.dry_run {
        remember(site, job, destination, &contents, (&sorted, &vanished)).await?;
    }
    let policy = serde_json::to_string(&place.policy).context("write the policy")?;
    let last = site.catalog.last_policy(job.name.as_str(), destination.name()).await?;
    let retained = format!("retained:{}:{}", job.name, destination.name());
    let known = site.catalog.fact(&retained).await?.unwrap_or_default();
    let candidates: Vec<Candidate> = contents
        .committed
        .iter()
        .map(|(manifest, marks)| Candidate {
            id: manifest.id,
            kind: manifest.kind,
            since: manifest.stands_on(),
            pinned: marks.contains(&Mark::Pin),
            leased: is_leased(&site.data_dir, &job.name, &manifest.id),
            proven: marks.contains(&Mark::Proof),
            retained: known.split(' ').any(|id| id == manifest.id.to_string()),
        })
        .collect();
    let manifests = contents.committed.iter().map(|(manifest, _)| manifest);
    let suspect = watch::newest(site, job, manifests).await?;
    let plan = retention::plan(&Facts {
        job: &job.name,
        policy: &place.policy,
        backups: &candidates,
        now: site.clock.now(),
        zone: job.schedule.zone(),
        foreign,
        policy_changed: last.as_ref().is_some_and(|last| *last != policy),
        suspect: suspect.is_some(),
        confirmed: options.confirmed,
    });
    if let (Some((id, _)), true, false) = (&suspect, options.confirmed, options.dry_run) {
        watch::confirm(site, job, id).await?;
    }
    let mut pruned = Pruned {
        job: job.name.clone(),
        destination: destination.name().to_owned(),
        decisions: plan.decisions,
        held: plan.held,
        deleted: Vec::new(),
        retained: Vec::new(),
        append_only: destination.append_only(),
        cleared: Vec::new(),
        warnings: contents.warnings,
    };
    if pruned.append_only {
        // Nothing goes, so nothing has to be held back.
        pruned.held = None;
        return Ok(pruned);
    }
    if options.dry_run {
        return Ok(pruned);
    }
    if !plan.doomed.is_empty() {
        let ids: Vec<String> = plan.doomed.iter().map(|doomed| doomed.id().to_string()).collect();
        let deed = Deed::of(Action::Prune, &job.name).to(destination.name()).saying(ids.join(" "));
        let since: Since = candidates.iter().map(|one| (one.id, one.since)).collect();
        let deleting = delete(site, job, destination, (&plan.doomed, &since), &mut pruned);
        site.audited(&site.actor, deed, deleting).await?;
    }
    // What the store keeps is still there, and listed.
    for (manifest, marks) in &contents.committed {
        if pruned.retained.iter().any(|retained| retained.id == manifest.id) {
            site.catalog.add_copy(manifest, destination.name(), marks).await?;
        }
    }
    if pruned.held.is_none() {
        let ids: Vec<String> = pruned.retained.iter().map(|one| one.id.to_string()).collect();
        match ids.is_empty() {
            true => site.catalog.clear_fact(&retained).await?,
            false => site.catalog.set_fact(&retained, &ids.join(" ")).await?,
        }
        site.catalog.set_policy(job.name.as_str(), destination.name(), &policy).await?;
    }
    if !foreign {
        pruned.cleared = clear_away(site, job, destination, sorted.leftovers).await?;
    }
    Ok(pruned)
}

/// What each backup stands on.
type Since = HashMap<BackupId, Option<BackupId>>;

/// Deletes what is doomed, in its order, and writes into `pruned` what became of it. The plan may be
/// old by then: each is held while it goes, so that nobody begins to read it, and its pin is looked at
/// once more.
async fn delete(
    site: &Site,
    job: &Job,
    destination: &dyn Destination,
    (all, since): (&[Doomed], &Since),
    pruned: &mut Pruned,
) -> Result<()> {
    // What stays, and why what it stands on stays too.
    let mut needed: HashMap<BackupId, String> = HashMap::new();
    for doomed in all {
        let id = doomed.id();
        let lease = lease_path(&site.data_dir, &job.name, id);
        let held = Lock::try_take(&lease).context("take a lease")?;
        let stays = match &held {
            _ if needed.contains_key(id) => needed.remove(id),
            None => Some("in use".to_owned()),
            Some(_) => {
                let marks = list_marks(destination, &job.name, id).await?;
                marks.contains(&Mark::Pin).then(|| "pinned".to_owned())
            }
        };
        if let Some(why) = stays {
            tracing::info!("{id} stays on '{}': {why}", destination.name());
            pruned.keep(id, &why);
            needed.extend(below(id, since));
            continue;
        }
        // Written down and forgotten first: what a crash leaves half deleted must not be listed, nor be
        // taken for damage. What was not deleted after all, the next look finds again.
        removing(site, job, destination, *id).await?;
        site.catalog.remove_copy(&job.name, id, destination.name()).await?;
        if let Removal::Retained { until } = destination.delete(doomed).await? {
            let retained = Retained { id: *id, until };
            tracing::info!("{id} on '{}' is {}", destination.name(), retained.words());
            needed.extend(below(id, since));
            pruned.retained.push(retained);
            continue;
        }
        fs::remove_file(lease).ok();
        let gone = (id, destination.name());
        site.catalog.add_removal(&job.name, gone, Gone::Pruned, site.clock.now()).await?;
        removed(site, job, destination, id).await?;
        tracing::info!("deleted {id} from '{}': no rule keeps it", destination.name());
        pruned.deleted.push(*id);
    }
    Ok(())
}

/// What a backup stands on, and the reason by which it stays.
fn below(id: &BackupId, since: &Since) -> Vec<(BackupId, String)> {
    let chain = chain(*id, |id| since.get(id).copied()).unwrap_or_default();
    chain.into_iter().skip(1).map(|below| (below, format!("{id} stands on it"))).collect()
}

/// What retention makes of each backup on each destination, by what the catalog knows: for people to
/// see; what is deleted is decided by what lies there.
pub async fn kept_why(site: &Site, job: &Job) -> Result<Vec<(String, Vec<Decision>)>> {
    let mut all = Vec::new();
    for place in &job.places {
        all.push((place.destination.name().to_owned(), decided(site, job, place).await?));
    }
    Ok(all)
}

/// As [`kept_why`], on one destination.
pub(super) async fn decided(site: &Site, job: &Job, place: &Place) -> Result<Vec<Decision>> {
    let kinds = site.catalog.kinds(&job.name).await?;
    let name = place.destination.name();
    let fact = format!("retained:{}:{name}", job.name);
    let retained = site.catalog.fact(&fact).await?.unwrap_or_default();
    let candidate = |(id, copy): (BackupId, Copy)| {
        let (kind, since) = kinds.get(&id).copied().unwrap_or((BackupKind::Full, None));
        Candidate {
            id,
            kind,
            since,
            pinned: copy.pinned,
            leased: is_leased(&site.data_dir, &job.name, &id),
            proven: copy.proven,
            retained: retained.split(' ').any(|one| one == id.to_string()),
        }
    };
    let copies = site.catalog.copies_on(&job.name, name).await?;
    let candidates: Vec<Candidate> = copies.into_iter().map(candidate).collect();
    let plan = retention::plan(&Facts {
        job: &job.name,
        policy: &place.policy,
        backups: &candidates,
        now: site.clock.now(),
        zone: job.schedule.zone(),
        foreign: false,
        policy_changed: false,
        suspect: false,
        confirmed: true,
    });
    Ok(plan.decisions)
}
