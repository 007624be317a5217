//! Which base backup a recovery begins with, and on which destination: the newest that was over before
//! the moment, where the log comes furthest. Knows manifests; must not know what is done with them.

use std::sync::Arc;

use super::super::{Choice, Found, find};
use super::chain::{Below, facts_of};
use super::log::{Log, physical};
use crate::destination::{Destination, list_backups, read_manifest};
use crate::fault::{Fault, Result};
use crate::model::{BackupId, JobName, SourceFacts};
use crate::wal::{Moment, Way};

/// Where a recovery begins.
pub(super) struct Base {
    pub found: Found,
    /// What it stands on.
    pub below: Below,
    pub facts: SourceFacts,
    pub log: Log,
    pub way: Way,
}

/// Looks on all of them, local ones first. Whatever one lacks, another may have.
pub(super) async fn find_base(
    destinations: &[Arc<dyn Destination>],
    job: &JobName,
    choice: Choice,
    moment: &Moment,
    trusted: &[String],
) -> Result<Base> {
    let mut order: Vec<&Arc<dyn Destination>> = destinations.iter().collect();
    order.sort_by_key(|destination| !destination.is_local());
    let (mut best, mut trouble): (Option<Base>, Option<Fault>) = (None, None);
    for destination in order {
        match on(destination, job, choice, moment, trusted).await {
            Ok(Some(base)) => {
                if best.as_ref().is_none_or(|best| base.way.end > best.way.end) {
                    best = Some(base);
                }
            }
            Ok(None) => {}
            Err(fault) => {
                tracing::warn!("destination '{}': {}", destination.name(), fault.chain());
                trouble.get_or_insert(fault);
            }
        }
    }
    if let Some(best) = best {
        return Ok(best);
    }
    Err(trouble.unwrap_or_else(|| {
        let which = match (choice, moment) {
            (Choice::Id(id), _) => format!("the base backup {id} that was over"),
            (_, Moment::Latest | Moment::Name(_)) => "a base backup".to_owned(),
            _ => "a base backup that was over".to_owned(),
        };
        let before = match moment {
            Moment::Time(_) | Moment::Lsn(_) => format!(" before {moment}"),
            _ => String::new(),
        };
        Fault::usage(format!("job '{job}' has not {which}{before}"))
            .hint(format!("`respaldo list {job}` shows what there is"))
    }))
}

/// On one destination: the newest that fits. One whose server had damaged pages comes after all others.
async fn on(
    destination: &Arc<dyn Destination>,
    job: &JobName,
    choice: Choice,
    moment: &Moment,
    trusted: &[String],
) -> Result<Option<Base>> {
    let mut ids: Vec<BackupId> = match choice {
        Choice::Id(id) => vec![id],
        Choice::Latest => list_backups(destination.as_ref(), job).await?,
    };
    ids.sort();
    let mut suspect = None;
    for id in ids.into_iter().rev() {
        let manifest = match read_manifest(destination.as_ref(), job, &id).await {
            Ok(Some((manifest, _))) => manifest,
            Ok(None) => continue,
            Err(fault) if choice == Choice::Latest && !fault.is_transient() => {
                tracing::warn!("backup {id} on '{}': {}", destination.name(), fault.chain());
                continue;
            }
            Err(fault) => return Err(fault),
        };
        let Some(facts) = facts_of(&manifest) else { continue };
        if !moment.is_after(manifest.finished_at, physical(facts)?) {
            continue;
        }
        if manifest.kind.counts() {
            match begin(destination, job, id, moment, trusted).await {
                // An older one does as well, by more of the log.
                Err(fault) if manifest.stands_on().is_some() && choice == Choice::Latest => {
                    tracing::warn!("backup {id} on '{}': {}", destination.name(), fault.chain());
                    continue;
                }
                begun => return begun.map(Some),
            }
        }
        suspect = suspect.or(Some(id));
    }
    match suspect {
        Some(id) => begin(destination, job, id, moment, trusted).await.map(Some),
        None => Ok(None),
    }
}

async fn begin(
    destination: &Arc<dyn Destination>,
    job: &JobName,
    id: BackupId,
    moment: &Moment,
    trusted: &[String],
) -> Result<Base> {
    let found = find(std::slice::from_ref(destination), job, Choice::Id(id), trusted).await?;
    let facts = facts_of(&found.manifest).cloned();
    let facts = facts.ok_or_else(|| Fault::permanent(format!("{id} is no base backup")))?;
    let below = Below::find(&found, trusted).await?;
    let log = Log::read(destination, job, &facts).await?;
    let way = log.way(&facts, moment)?;
    Ok(Base { found, below, facts, log, way })
}
