//! What of the log may go, once retention has decided about base backups. Knows what a destination holds;
//! the rule is `crate::wal::spent`.

use super::super::{Job, Place};
use super::bases;
use crate::destination::{list_wal, wal_servers};
use crate::fault::Result;
use crate::model::PhysicalFacts;
use crate::wal::spent;

/// Deletes the log before the oldest base backup that lies there, and says how many files went.
pub(in crate::job) async fn spend(job: &Job, place: &Place) -> Result<usize> {
    let destination = place.destination.as_ref();
    if job.log().is_none() || destination.append_only() {
        return Ok(0);
    }
    let kept = bases(destination, &job.name).await?;
    let mut gone = 0;
    for system_id in wal_servers(destination, &job.name).await? {
        let own = kept.iter().filter(|base| base.system_id == system_id);
        let own: Vec<PhysicalFacts> = own.map(|base| base.facts.clone()).collect();
        let Some(size) = own.first().map(|facts| facts.segment_bytes) else { continue };
        let files = list_wal(destination, &job.name, &system_id, size, None).await?;
        for spent in spent(&job.name, &system_id, size, &own, &files) {
            destination.discard(&spent).await?;
            gone += 1;
        }
    }
    if gone > 0 {
        tracing::info!("{gone} files of the log went from '{}'", destination.name());
    }
    Ok(gone)
}
