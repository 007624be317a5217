//! What of the log may go, once retention has decided about base backups. Knows what a destination holds;
//! the rule is `crate::wal::Needed`.

use super::super::{Job, Place, Site};
use super::{bases, let_go, needed};
use crate::destination::{list_wal, wal_servers};
use crate::fault::Result;
use crate::model::Segment;
use crate::wal::spent;

/// Deletes the log that no base backup there needs, and says how many files went.
pub(in crate::job) async fn spend(site: &Site, job: &Job, place: &Place) -> Result<usize> {
    let destination = place.destination.as_ref();
    if job.log().is_none() || destination.append_only() {
        return Ok(0);
    }
    let kept = bases(destination, &job.name).await?;
    let mut gone = 0;
    for system_id in wal_servers(destination, &job.name).await? {
        let own = kept.iter().find(|base| base.system_id == system_id);
        let Some(size) = own.map(|base| base.kept.facts.segment_bytes) else { continue };
        let needed = needed(site, place, &system_id, &kept);
        let files = list_wal(destination, &job.name, &system_id, size, None).await?;
        let spent = spent(&job.name, &system_id, size, &needed, &files);
        if place.window.is_some() && !spent.is_empty() {
            // Before the first one goes: what is missing then is no gap.
            let from = Segment { timeline: 1, number: needed.from() }.start(size);
            let fact = let_go(&job.name, place, &system_id);
            site.catalog.set_fact(&fact, &from.to_string()).await?;
        }
        for spent in spent {
            destination.discard(&spent).await?;
            gone += 1;
        }
    }
    if gone > 0 {
        tracing::info!("{gone} files of the log went from '{}'", destination.name());
    }
    Ok(gone)
}
