//! The anomaly guard at work: which backups are compared, and what a person has confirmed. Knows
//! manifests and the catalog; what is too small is decided in `anomaly`.

use super::{Job, Site, bytes};
use crate::anomaly::{self, Finding, Measure, What};
use crate::catalog::Known;
use crate::fault::Result;
use crate::model::{BackupId, BackupKind, JobName, Manifest};

/// Backups that another program made are no measure for ours.
pub(super) const IMPORTED: &str = "imported";

/// What is wrong with the newest of these backups, in whatever order they come.
pub(super) async fn newest<'a>(
    site: &Site,
    job: &Job,
    manifests: impl Iterator<Item = &'a Manifest>,
) -> Result<Option<(BackupId, Finding)>> {
    let Some(share) = job.anomaly else { return Ok(None) };
    let mut measures: Vec<Measure> = manifests.filter(|m| counts(m)).map(Measure::of).collect();
    measures.sort_by_key(|measure| measure.id);
    let confirmed = site.catalog.fact(&fact(&job.name)).await?.and_then(|id| id.parse().ok());
    let finding = anomaly::newest(&measures, share, confirmed);
    Ok(measures.last().map(|last| last.id).zip(finding))
}

/// What is wrong with a backup that is about to be committed.
pub(super) async fn look_at(
    site: &Site,
    job: &Job,
    known: &[Known],
    made: &Manifest,
) -> Result<Option<Finding>> {
    let manifests = known.iter().map(|known| &known.manifest).chain([made]);
    let found = newest(site, job, manifests).await?;
    Ok(found.filter(|(id, _)| *id == made.id).map(|(_, finding)| finding))
}

/// A person says that the backups up to this one are right.
pub(super) async fn confirm(site: &Site, job: &Job, id: &BackupId) -> Result<()> {
    site.catalog.set_fact(&fact(&job.name), &id.to_string()).await
}

/// For people: what fell, and how far.
pub(super) fn sentence(finding: &Finding) -> String {
    let (what, now, usual) = match finding.what {
        What::Rows => ("rows", finding.now.to_string(), finding.usual.to_string()),
        What::PlainBytes => ("bytes", bytes(finding.now), bytes(finding.usual)),
        What::StoredBytes => ("stored bytes", bytes(finding.now), bytes(finding.usual)),
    };
    format!("{}% fewer {what} than usual: {now} after {usual}", finding.percent())
}

fn counts(manifest: &Manifest) -> bool {
    manifest.kind == BackupKind::Full && manifest.label.as_deref() != Some(IMPORTED)
}

fn fact(job: &JobName) -> String {
    format!("anomaly-confirmed:{job}")
}
