//! Which server a job's log is of: the one that its places know, or one that somebody has said it is. Knows
//! system identifiers; must not know what is stored of them.

use super::super::{Job, Site};
use super::adopted;
use super::keeper::ANSWER;
use crate::destination::{Destination, wal_servers};
use crate::fault::{Fault, Result};
use crate::source::postgres::physical::{Physical, Primary};

/// Refuses a server whose log a place does not know, where it knows another's.
pub(super) async fn check(
    site: &Site,
    job: &Job,
    own: &str,
    places: impl Iterator<Item = &dyn Destination>,
) -> Result<()> {
    if is_known(site, job, own).await? {
        return Ok(());
    }
    for place in places {
        refusal(job, own, place).await?.map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// The same of the server that answers now, before anything is read of it. A place that can't be asked is
/// the business of whoever stores something there.
pub(super) async fn check_server(site: &Site, job: &Job, physical: &Physical) -> Result<()> {
    let primary = Primary::connect(physical).await?;
    let own = primary.system_id.clone();
    primary.close().await;
    if is_known(site, job, &own).await? {
        return Ok(());
    }
    for place in &job.places {
        if let Ok(Some(fault)) = refusal(job, &own, place.destination.as_ref()).await {
            return Err(fault);
        }
    }
    Ok(())
}

async fn is_known(site: &Site, job: &Job, own: &str) -> Result<bool> {
    let known = site.catalog.wal_progress(&job.name).await?;
    let adopted = site.catalog.fact(&adopted(&job.name)).await?;
    Ok(known.is_some_and(|known| known.system_id == own) || adopted.as_deref() == Some(own))
}

async fn refusal(job: &Job, own: &str, place: &dyn Destination) -> Result<Option<Fault>> {
    let servers = tokio::time::timeout(ANSWER, wal_servers(place, &job.name)).await;
    let servers = servers.unwrap_or_else(|_| Err(Fault::transient("no answer")))?;
    if servers.is_empty() || servers.iter().any(|server| server == own) {
        return Ok(None);
    }
    let (place, servers) = (place.name(), servers.join(", "));
    Ok(Some(
        Fault::permanent(format!(
            "'{place}' holds the log of another server for job '{}': {servers}, and this one is {own}",
            job.name
        ))
        .hint(format!(
            "give the job another name; or, if the server was made anew, say so: respaldo wal adopt {}",
            job.name
        )),
    ))
}
