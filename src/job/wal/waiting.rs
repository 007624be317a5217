//! A base backup is worth nothing without the log that was written while it was taken: its commit waits
//! for it, place by place.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::{Job, Site, bytes};
use super::{identity, keeper};
use crate::fault::{Context, Fault, Result};
use crate::lock::Lock;
use crate::model::PhysicalFacts;

const LOOK: Duration = Duration::from_millis(200);
/// How long the log may need to follow.
const PATIENCE: Duration = Duration::from_secs(600);

/// Does `work` while the job's log is kept: by the daemon where one does, else here and for so long.
pub(in crate::job) async fn while_kept<T>(
    site: &Arc<Site>,
    job: &Arc<Job>,
    work: impl Future<Output = T>,
) -> Result<T> {
    let Some((physical, _)) = job.log() else { return Ok(work.await) };
    identity::check_server(site, job, physical).await?;
    let Some(_lock) = Lock::try_take(&site.wal_lock(&job.name)).context("lock the log")? else {
        return Ok(work.await);
    };
    let stop = CancellationToken::new();
    let mut own = Job::clone(job);
    // Somebody waits for the end of it.
    own.wal.iter_mut().for_each(|plan| plan.every = plan.every.min(LOOK));
    let keeping = tokio::spawn({
        let (site, job, stop) = (site.clone(), Arc::new(own), stop.clone());
        async move { keeper::keep(&site, &job, &stop).await }
    });
    // Whoever drops this in the middle ends it too.
    let guard = stop.clone().drop_guard();
    let done = work.await;
    drop(guard);
    keeping.await.context("keep the log")?;
    Ok(done)
}

/// Waits until a place has all of the log from the beginning of a backup of `system_id` to its end.
pub(in crate::job) async fn is_stored(
    site: &Site,
    job: &Job,
    place: &str,
    (system_id, facts): (Option<&str>, &PhysicalFacts),
    cancel: &CancellationToken,
) -> Result<()> {
    let size = facts.segment_bytes.bytes();
    let begins = facts.start_lsn.0 / size * size;
    let waiting = async {
        loop {
            let progress = site.catalog.wal_progress(&job.name).await?;
            // What is known of an earlier server, or of a timeline that was left, says nothing of this one.
            let its = progress.filter(|progress| {
                system_id == Some(&*progress.system_id) && progress.timeline >= facts.timeline
            });
            let places = its.into_iter().flat_map(|progress| progress.places);
            let there = places
                .filter(|one| one.name == place)
                .any(|one| one.from_lsn.0 <= begins && one.stored_lsn >= facts.stop_lsn);
            if there {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = cancel.cancelled() => return Err(Fault::cancelled("the run was stopped")),
            }
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(stored) => stored,
        Err(_) => {
            let missing = format!(
                "the log from {} to {} is not on '{place}' after {PATIENCE:?}, {} of it",
                facts.start_lsn,
                facts.stop_lsn,
                bytes(facts.stop_lsn.0.saturating_sub(facts.start_lsn.0))
            );
            Err(Fault::transient(missing)
                .hint(format!("`respaldo wal status {}` says why it is not stored", job.name)))
        }
    }
}
