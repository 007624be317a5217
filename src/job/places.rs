//! Which of a job's destinations a backup goes to: a cold one takes only the first of each period.

use std::sync::Arc;

use super::{Job, Site};
use crate::fault::Result;
use crate::model::{BackupId, BackupKind};
use crate::retention;

/// The job without the destinations that do not take the backup `id`.
pub(super) async fn taking(
    site: &Site,
    job: &Arc<Job>,
    id: &BackupId,
    kind: BackupKind,
) -> Result<Arc<Job>> {
    if job.places.iter().all(|place| place.policy.accept.is_none()) {
        return Ok(job.clone());
    }
    let mut known = site.catalog.backups(Some(&job.name)).await?;
    known.retain(|known| known.manifest.kind == BackupKind::Full && known.manifest.id != *id);
    let mut taking = Job::clone(job);
    taking.places.retain(|place| {
        // It has not what an incremental one stands on.
        if kind == BackupKind::Incremental && place.policy.accept.is_some() {
            return false;
        }
        let name = place.destination.name();
        let held = known.iter().filter(|k| k.copies.iter().any(|copy| copy.destination == name));
        let there = held.map(|known| known.manifest.id);
        retention::takes(&place.policy, job.schedule.zone(), *id, there)
    });
    Ok(Arc::new(taking))
}
