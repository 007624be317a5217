//! The moment in which a backup comes to be: its small files, its signature, and last of all its
//! manifest.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::delivery::Receipt;
use super::{Job, Site, guide};
use crate::destination::{
    Destination, Key, MANIFEST, MARKER, SIGNATURE, holds, list_backups, read_small,
};
use crate::durable::Existing;
use crate::fault::{Context, Fault, Result};
use crate::model::{BackupId, Manifest};
use crate::report::counted;
use crate::source::Clean;

/// The small files of a backup, the same on every destination.
pub(super) struct Draft<'a> {
    manifest: &'a Manifest,
    files: Vec<(String, Bytes)>,
    bytes: Bytes,
}

impl<'a> Draft<'a> {
    /// Asks for the proof that every stream's maker ended well. `below` is what it stands on, the full
    /// one first; `files` are those that may be encrypted.
    pub(super) fn new(
        site: &Site,
        manifest: &'a Manifest,
        below: &[BackupId],
        cleans: &[Clean],
        mut files: Vec<(String, Bytes)>,
    ) -> Result<Self> {
        if cleans.len() != manifest.artifacts.len() || cleans.is_empty() {
            return Err(Fault::permanent("a stream's end was not awaited"));
        }
        let (bytes, signature) = signed(site, manifest)?;
        files.extend([
            ("RESTORE.md".to_owned(), guide::restore_md(manifest, below).into()),
            ("SHA256SUMS".to_owned(), manifest.sha256sums().into()),
            (SIGNATURE.to_owned(), signature),
        ]);
        Ok(Self { manifest, files, bytes })
    }
}

/// The manifest's bytes, and the line that signs them.
pub(super) fn signed(site: &Site, manifest: &Manifest) -> Result<(Bytes, Bytes)> {
    let mut bytes = serde_json::to_vec_pretty(manifest).context("write the manifest")?;
    bytes.push(b'\n');
    let mut signature =
        serde_json::to_vec(&site.signer.sign(&bytes)).context("sign the manifest")?;
    signature.push(b'\n');
    Ok((bytes.into(), signature.into()))
}

/// Commits on one destination. `receipt` is its proof that it holds every volume.
pub(super) async fn commit(
    draft: &Draft<'_>,
    receipt: &Receipt,
    destination: &dyn Destination,
) -> Result<()> {
    receipt.covers(draft.manifest.volumes())?;
    let folder = Key::backup(&draft.manifest.job, &draft.manifest.id);
    // Hours may lie between, in which somebody has cleared away or written over what was stored.
    for volume in draft.manifest.volumes() {
        if destination.size(&folder.child(&volume.name)?).await? != Some(volume.bytes) {
            let text = format!("{} is not there any more as it was stored", volume.name);
            return Err(Fault::transient(text));
        }
    }
    for (name, bytes) in &draft.files {
        put_once(destination, &folder.child(name)?, bytes).await?;
    }
    put_manifest(destination, &folder, &draft.bytes).await
}

/// Puts the manifest, which is what makes a backup exist, and never over another one.
pub(super) async fn put_manifest(
    destination: &dyn Destination,
    folder: &Key,
    bytes: &Bytes,
) -> Result<()> {
    put_once(destination, &folder.child(MANIFEST)?, bytes).await
}

async fn put_once(destination: &dyn Destination, key: &Key, bytes: &Bytes) -> Result<()> {
    match destination.put(key, bytes.clone(), Existing::Refuse).await {
        Err(fault) if !holds(destination, key, bytes).await => Err(fault),
        _ => Ok(()),
    }
}

/// Whose job folder this is.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    installation: Uuid,
    host: String,
}

/// Names this installation as the owner of the job's folder, where nobody is named yet and no backups
/// should be there.
pub(super) async fn mark_owner(
    site: &Site,
    job: &Job,
    destination: &dyn Destination,
) -> Result<()> {
    if home(site, job, destination).await?.is_some() {
        return Ok(());
    }
    match write_owner(site, job, destination, Existing::Refuse).await {
        Err(fault) if fault.lasts() => {
            // Somebody was faster, or it can't be written: the next read tells.
            owner(job, destination).await?.map(|_| ()).ok_or(fault)
        }
        other => other,
    }
}

/// Takes the folder over from whoever is named there.
pub(super) async fn adopt(site: &Site, job: &Job, destination: &dyn Destination) -> Result<()> {
    write_owner(site, job, destination, Existing::Replace).await
}

async fn write_owner(
    site: &Site,
    job: &Job,
    destination: &dyn Destination,
    existing: Existing,
) -> Result<()> {
    let owner = Owner { installation: site.installation, host: site.host.clone() };
    let bytes = serde_json::to_vec_pretty(&owner).context("write the owner's marker")?;
    let key = Key::job(&job.name).child(MARKER)?;
    destination.put(&key, bytes.into(), existing).await?;
    Ok(())
}

/// As [`owner`], where what is known to be there is there. An error where neither an owner nor any of
/// those backups is: what is written into such a place may be lost, and what is missing there may be
/// well.
pub(super) async fn home(
    site: &Site,
    job: &Job,
    destination: &dyn Destination,
) -> Result<Option<Uuid>> {
    let owner = owner(job, destination).await?;
    if owner.is_some() {
        return Ok(owner);
    }
    let believed = site.catalog.copies_on(&job.name, destination.name()).await?;
    let there = list_backups(destination, &job.name).await?;
    if believed.is_empty() || there.iter().any(|id| believed.contains_key(id)) {
        return Ok(None);
    }
    let (name, place) = (&job.name, destination.place());
    let backups = counted(believed.len(), "backup", "backups");
    // A mount may come back by itself.
    Err(Fault::transient(format!(
        "'{}' does not have {backups} of '{name}' that should be there, nor the folder's owner.json",
        destination.name()
    ))
    .hint(format!(
        "is {place} mounted, and the right one? if it was emptied or is another one on purpose, say so: respaldo prune {name} --adopt"
    )))
}

/// The installation that owns the job's folder.
pub(super) async fn owner(job: &Job, destination: &dyn Destination) -> Result<Option<Uuid>> {
    let key = Key::job(&job.name).child(MARKER)?;
    let Some(bytes) = read_small(destination, &key, 4096).await? else { return Ok(None) };
    let owner: Owner = serde_json::from_slice(&bytes).context("read owner.json")?;
    Ok(Some(owner.installation))
}
