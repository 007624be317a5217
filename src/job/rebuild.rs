//! The catalog made anew from what lies on the destinations.

use std::sync::Arc;

use super::contents::lacks;
use super::ledger::gather;
use super::{Job, Site};
use crate::destination::{list_backups, list_marks, read_manifest};
use crate::fault::Result;

/// Reads every manifest of every job; returns how many copies were found, and what could not be
/// read.
pub async fn rebuild(site: &Site, jobs: &[Arc<Job>]) -> Result<(usize, Vec<String>)> {
    let mut count = 0;
    let mut troubles = Vec::new();
    for job in jobs {
        // What a destination says of its backups it says below; a ledger is read where it can be.
        gather(site, job).await?;
        for place in &job.places {
            let destination = place.destination.as_ref();
            let ids = match list_backups(destination, &job.name).await {
                Ok(ids) => ids,
                Err(fault) => {
                    troubles.push(format!("'{}': {}", destination.name(), fault.chain()));
                    continue;
                }
            };
            for known in site.catalog.copies_on(&job.name, destination.name()).await?.keys() {
                if !ids.contains(known) {
                    site.catalog.remove_copy(&job.name, known, destination.name()).await?;
                }
            }
            for id in ids {
                match read_manifest(destination, &job.name, &id).await {
                    Ok(Some((manifest, _))) => {
                        if let Some(words) = lacks(destination, &manifest).await? {
                            site.catalog.remove_copy(&job.name, &id, destination.name()).await?;
                            troubles.push(format!("'{}': {words}", destination.name()));
                            continue;
                        }
                        let marks = list_marks(destination, &job.name, &id).await?;
                        site.catalog.add_copy(&manifest, destination.name(), &marks).await?;
                        count += 1;
                    }
                    Ok(None) => {
                        site.catalog.remove_copy(&job.name, &id, destination.name()).await?;
                    }
                    Err(fault) => {
                        troubles.push(format!(
                            "{id} on '{}': {}",
                            destination.name(),
                            fault.chain()
                        ));
                    }
                }
            }
        }
    }
    Ok((count, troubles))
}
