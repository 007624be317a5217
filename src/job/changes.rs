//! What a job's files looked like when they were last backed up, as a fact of the catalog.

use tokio_util::sync::CancellationToken;

use super::{Job, Site};
use crate::fault::Result;
use crate::model::Sha256;

fn fact(job: &Job) -> String {
    format!("files:{}", job.name)
}

/// The state of the job's files now and at its last backup; nothing where it has none to look at.
pub async fn changed_since(
    site: &Site,
    job: &Job,
    cancel: &CancellationToken,
) -> Result<Option<(Sha256, Option<Sha256>)>> {
    let Some(now) = state(job, cancel).await? else { return Ok(None) };
    let backed_up = site.catalog.fact(&fact(job)).await?;
    Ok(Some((now, backed_up.and_then(|text| text.parse().ok()))))
}

/// All of the job's sources that can be looked at, in one.
pub(super) async fn state(job: &Job, cancel: &CancellationToken) -> Result<Option<Sha256>> {
    let mut all: Option<Sha256> = None;
    for source in &job.sources {
        let Some(one) = source.state(cancel).await? else { continue };
        let mut sum = all.unwrap_or(Sha256([0; 32]));
        sum.0.iter_mut().zip(one.0).for_each(|(sum, byte)| *sum = sum.rotate_left(1) ^ byte);
        all = Some(sum);
    }
    Ok(all)
}

/// Remembers what a backup was made of: the state before its first byte was read, so that what
/// changed meanwhile is a change.
pub(super) async fn remember(site: &Site, job: &Job, state: Sha256) -> Result<()> {
    site.catalog.set_fact(&fact(job), &state.to_string()).await
}
