//! What of the log may go, once retention has decided about base backups. Knows what a destination holds;
//! the rule is `crate::wal::spent`.

use super::super::{Job, Place};
use crate::destination::{list_backups, list_wal, read_manifest, wal_servers};
use crate::fault::Result;
use crate::wal::{Kept, spent};

/// Deletes the log before the oldest base backup that lies there, and says how many files went.
pub(in crate::job) async fn spend(job: &Job, place: &Place) -> Result<usize> {
    let destination = place.destination.as_ref();
    if job.log().is_none() || destination.append_only() {
        return Ok(0);
    }
    // By the manifests that are there, and not by a catalog that may have forgotten one.
    let mut kept = Vec::new();
    for id in list_backups(destination, &job.name).await? {
        let Some((manifest, _)) = read_manifest(destination, &job.name, &id).await? else {
            continue;
        };
        for facts in manifest.sources {
            if let (Some(physical), Some(system_id)) = (facts.physical, facts.system_id) {
                kept.push((system_id, Kept { id, facts: physical }));
            }
        }
    }
    let mut gone = 0;
    for system_id in wal_servers(destination, &job.name).await? {
        let own: Vec<Kept> =
            kept.iter().filter(|(of, _)| *of == system_id).map(|(_, kept)| kept.clone()).collect();
        let Some(size) = own.first().map(|kept| kept.facts.segment_bytes) else { continue };
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
