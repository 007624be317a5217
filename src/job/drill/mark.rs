//! The mark beside a backup that was proven: where it lies, whoever reads it next knows. Knows the mark's
//! shape; must not know what was compared.

use jiff::Timestamp;
use serde::Serialize;

use super::super::{Found, Site};
use super::Drilled;
use crate::destination::{list_marks, read_manifest, write_mark};
use crate::fault::{Context, Result};
use crate::model::{Mark, VERSION};

/// What the mark beside a proven backup says.
#[derive(Debug, Serialize)]
struct Proven {
    at: Timestamp,
    /// How long it took to load.
    seconds: f64,
    /// Not where the backup is encrypted: its manifest does not tell either.
    #[serde(skip_serializing_if = "Option::is_none")]
    tables: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    /// The machine that it was loaded on.
    host: String,
    respaldo: String,
}

/// Writes beside the backup that it is proven, so that it does not depend on this machine's memory.
pub(super) async fn write(site: &Site, found: &Found, drilled: &Drilled) -> Result<()> {
    let manifest = &found.manifest;
    let told = manifest.proof.is_none();
    let proven = Proven {
        at: drilled.at,
        seconds: drilled.seconds,
        tables: told.then_some(drilled.tables.len() as u64),
        rows: told.then(|| drilled.rows()),
        host: site.host.clone(),
        respaldo: VERSION.to_owned(),
    };
    let mut bytes = serde_json::to_vec(&proven).context("write the proof")?;
    bytes.push(b'\n');
    let destination = found.destination.as_ref();
    let (job, id) = (&manifest.job, &manifest.id);
    write_mark(destination, job, id, Mark::Proof, bytes.into()).await?;
    // The manifest as it lies there: what an encrypted one hides is not for the catalog.
    if let Some((stored, _)) = read_manifest(destination, job, id).await? {
        let marks = list_marks(destination, job, id).await?;
        site.catalog.add_copy(&stored, destination.name(), &marks).await?;
    }
    Ok(())
}
