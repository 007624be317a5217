//! Reads every byte of a backup back: stored digests, plain digests, and the engine's own reader.

use jiff::Timestamp;
use serde::Serialize;

use super::reading::read_artifact;
use super::{Found, Site};
use crate::destination::read_small;
use crate::fault::{Context, FaultKind, Result};
use crate::model::{BackupId, JobName};
use crate::pipeline::Meter;
use crate::signature::Verdict;
use crate::source::{Session, reader};

/// What was found on one destination.
#[derive(Debug, Serialize)]
pub struct Verified {
    pub job: JobName,
    pub id: BackupId,
    pub destination: String,
    pub ok: bool,
    pub checked_at: Timestamp,
    /// Plain bytes read.
    pub bytes: u64,
    /// What is wrong; empty when `ok`.
    pub failures: Vec<String>,
    pub warnings: Vec<String>,
    /// Artifacts in an archive tier, which can't be read until they are thawed.
    pub archived: Vec<String>,
}

/// Checks everything, and goes on after a failure to find the others.
pub async fn verify(
    site: &Site,
    found: &Found,
    session: &Session,
    meter: &Meter,
) -> Result<Verified> {
    let _lease = found.lease(&site.data_dir)?;
    let mut failures = Vec::new();
    let mut warnings = Vec::new();
    let mut archived = Vec::new();
    match &found.signature {
        Verdict::Trusted => {}
        Verdict::UnknownKey(key) => {
            warnings.push(format!("signed by a key that is not known here: {key}"));
        }
        Verdict::Missing => failures.push("manifest.sig is missing".to_owned()),
        Verdict::Broken => failures.push("manifest.json is not the one that was signed".to_owned()),
    }
    let sums = found.manifest.sha256sums();
    let key = found.folder().child("SHA256SUMS")?;
    match read_small(found.destination.as_ref(), &key, 16 << 20).await {
        Ok(Some(text)) if text == sums => {}
        Ok(Some(_)) => failures.push("SHA256SUMS is not the one that was written".to_owned()),
        Ok(None) => failures.push("SHA256SUMS is missing".to_owned()),
        Err(fault) => failures.push(fault.chain()),
    }
    for artifact in &found.manifest.artifacts {
        let intake = reader::check(artifact, session).await?;
        let read =
            read_artifact(&found.destination, &found.folder(), artifact, intake, meter).await;
        match read.context(artifact.name.clone()) {
            Ok(_) => {}
            Err(fault) if fault.kind() == FaultKind::Archived => {
                warnings.push(format!("{}: archived, not read", artifact.name));
                archived.push(artifact.name.clone());
            }
            Err(fault) => failures.push(fault.chain()),
        }
    }
    Ok(Verified {
        job: found.manifest.job.clone(),
        id: found.manifest.id,
        destination: found.destination.name().to_owned(),
        ok: failures.is_empty(),
        checked_at: site.clock.now(),
        bytes: meter.plain(),
        failures,
        warnings,
        archived,
    })
}
