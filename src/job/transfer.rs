//! One backup carried from one destination to another, byte for byte: its volumes are digested on
//! the way and compared with the manifest, its small files follow, the manifest comes last. Knows
//! both ends; must not know why it is carried.

use bytes::Bytes;
use futures::StreamExt;
use sha2::Digest;

use super::commit::{mark_owner, put_manifest};
use super::delivery::{COMMIT, within};
use super::ledger::remembered;
use super::{Control, Job, Site};
use crate::destination::{
    Destination, Key, MANIFEST, SIGNATURE, Upload, list_marks, read_manifest, read_mark,
    read_small, write_mark,
};
use crate::durable::Existing;
use crate::fault::{Fault, Result};
use crate::model::{BackupId, Manifest, Mark, Sha256, Tombstone, Volume};
use crate::signature::{self, MAX_SIGNATURE_BYTES, Verdict};

/// What a backup may hold beside its volumes: bounds what a hostile store can make us keep in memory.
const MAX_SMALL_BYTES: u64 = 16 << 20;
const MAX_SMALL_FILES: usize = 32;

/// On which side it broke: instead of a source, another one may do.
pub(super) enum Broke {
    Source(Fault),
    Target(Fault),
}

type Carried<T> = std::result::Result<T, Broke>;

/// A backup that is whole on its source, as far as can be told before its volumes are read.
struct Whole {
    manifest: Manifest,
    /// Of the manifest, as it was signed.
    bytes: Bytes,
    /// By name, the signature last.
    small: Vec<(String, Bytes)>,
    marks: Vec<(Mark, Bytes)>,
}

/// Carries a backup and records that it is there. The caller holds a lease on it.
pub(super) async fn carry(
    site: &Site,
    job: &Job,
    id: &BackupId,
    from: &dyn Destination,
    to: &dyn Destination,
    control: &Control,
) -> Carried<Manifest> {
    let folder = Key::backup(&job.name, id);
    let reading = read_small_part(site, job, id, &folder, from);
    let whole = within(job.stall, reading).await.map_err(Broke::Source)?;
    within(job.stall, mark_owner(site, job, to)).await.map_err(Broke::Target)?;
    for volume in files(&whole.manifest) {
        carry_volume(job, &folder, volume, from, to, control).await?;
    }
    let finishing = finish(job, id, &folder, &whole, to);
    within(job.stall.max(COMMIT), finishing).await.map_err(Broke::Target)?;
    let marks: Vec<Mark> = whole.marks.iter().map(|(mark, _)| *mark).collect();
    let known = site.catalog.add_copy(&whole.manifest, to.name(), &marks).await;
    known.map_err(Broke::Target)?;
    Ok(whole.manifest)
}

/// What the manifest knows the digest of.
fn files(manifest: &Manifest) -> impl Iterator<Item = &Volume> {
    manifest.volumes().chain(&manifest.proof)
}

async fn read_small_part(
    site: &Site,
    job: &Job,
    id: &BackupId,
    folder: &Key,
    from: &dyn Destination,
) -> Result<Whole> {
    let damaged =
        |what: &str| Err(Fault::permanent(format!("{id} on '{}' is damaged: {what}", from.name())));
    let Some((manifest, bytes)) = read_manifest(from, &job.name, id).await? else {
        return damaged("it has no manifest");
    };
    let text = read_small(from, &folder.child(SIGNATURE)?, MAX_SIGNATURE_BYTES).await?;
    match signature::verify(&bytes, text.as_deref(), &site.trusted) {
        Verdict::Trusted => {}
        // What nobody here has signed is not spread.
        Verdict::UnknownKey(key) => {
            let what =
                format!("{id} on '{}' is signed by a key not known here: {key}", from.name());
            return Err(Fault::permanent(what)
                .hint("if you know where it comes from, add the key to `trusted_keys`"));
        }
        Verdict::Missing => return damaged("it is not signed"),
        Verdict::Broken => return damaged("its manifest is not the one that was signed"),
    }
    let mut small = Vec::new();
    let tombstone = read_mark(from, &job.name, id, Mark::Tombstone).await?;
    let tombstone = tombstone.and_then(|text| Tombstone::parse(&text).ok()).unwrap_or_default();
    let open = remembered(site, &job.name).await?;
    if open.iter().any(|erasure| erasure.is_open_in(&manifest)) {
        let what = format!("from {id} on '{}' something is to be erased first", from.name());
        return Err(Fault::transient(what));
    }
    let own = |name: &str| {
        [MANIFEST, SIGNATURE].contains(&name)
            || files(&manifest).chain(tombstone.volumes()).any(|v| v.name == name)
    };
    for (name, _) in from.list(folder).await?.files {
        if own(&name) {
            continue;
        }
        let content = read_small(from, &folder.child(&name)?, MAX_SMALL_BYTES).await?;
        small.extend(content.map(|content| (name, content)));
        if small.len() > MAX_SMALL_FILES {
            return damaged("it holds more files than a backup has");
        }
    }
    let sums = small.iter().find(|(name, _)| name == "SHA256SUMS");
    if sums.is_none_or(|(_, sums)| *sums != manifest.sha256sums()) {
        return damaged("SHA256SUMS is not the one that was written");
    }
    small.extend(text.map(|text| (SIGNATURE.to_owned(), text)));
    let mut marks = Vec::new();
    for mark in list_marks(from, &job.name, id).await? {
        marks.extend(read_mark(from, &job.name, id, mark).await?.map(|bytes| (mark, bytes)));
    }
    Ok(Whole { manifest, bytes, small, marks })
}

async fn carry_volume(
    job: &Job,
    folder: &Key,
    volume: &Volume,
    from: &dyn Destination,
    to: &dyn Destination,
    control: &Control,
) -> Carried<()> {
    let key = folder.child(&volume.name).map_err(Broke::Source)?;
    let mut upload =
        within(job.stall, to.upload(&key, Existing::Replace)).await.map_err(Broke::Target)?;
    let poured = tokio::select! {
        poured = pour(job, &key, volume, from, upload.as_mut(), control) => poured,
        () = control.cancel.cancelled() => Err(Broke::Target(Fault::cancelled("the run was stopped"))),
    };
    if let Err(broke) = poured {
        tokio::time::timeout(job.stall, upload.abort()).await.ok();
        return Err(broke);
    }
    let stored = within(job.stall.max(COMMIT), upload.commit()).await.map_err(Broke::Target)?;
    if stored.bytes() != volume.bytes {
        let what = format!("{} was not stored as it was read", volume.name);
        return Err(Broke::Target(Fault::transient(what)));
    }
    Ok(())
}

/// From one end into the other, a piece at a time. Not yet committed: what was read may be damaged.
async fn pour(
    job: &Job,
    key: &Key,
    volume: &Volume,
    from: &dyn Destination,
    upload: &mut dyn Upload,
    control: &Control,
) -> Carried<()> {
    let mut pieces = within(job.stall, from.read(key)).await.map_err(Broke::Source)?;
    let mut digest = sha2::Sha256::new();
    let mut bytes = 0;
    loop {
        let next = within(job.stall, async { pieces.next().await.transpose() });
        let Some(piece) = next.await.map_err(Broke::Source)? else { break };
        bytes += piece.len() as u64;
        if bytes > volume.bytes {
            break;
        }
        digest.update(&piece);
        control.meter.add_stored(piece.len());
        within(job.stall, upload.write(piece)).await.map_err(Broke::Target)?;
    }
    if bytes != volume.bytes || Sha256(digest.finalize().into()) != volume.sha256 {
        let what = format!("{key} on '{}' is damaged: it is not as it was written", from.name());
        return Err(Broke::Source(
            Fault::permanent(what)
                .hint("its disk or store may be failing; `respaldo verify` tells what else is"),
        ));
    }
    while within(job.stall, upload.settle()).await.map_err(Broke::Target)? {}
    Ok(())
}

/// The small files, the marks, a last look at what is there, and the manifest.
async fn finish(
    job: &Job,
    id: &BackupId,
    folder: &Key,
    whole: &Whole,
    to: &dyn Destination,
) -> Result<()> {
    for (mark, bytes) in &whole.marks {
        write_mark(to, &job.name, id, *mark, bytes.clone()).await?;
    }
    for (name, bytes) in &whole.small {
        to.put(&folder.child(name)?, bytes.clone(), Existing::Replace).await?;
    }
    // Whoever cleared this folder meanwhile must not find a manifest in it afterwards.
    let there = to.list(folder).await?.files;
    let volumes = files(&whole.manifest).map(|volume| (&volume.name, volume.bytes));
    let small = whole.small.iter().map(|(name, bytes)| (name, bytes.len() as u64));
    for (name, bytes) in volumes.chain(small) {
        if !there.iter().any(|(other, held)| other == name && *held == bytes) {
            return Err(Fault::transient(format!("{name} of {id} is no longer there")));
        }
    }
    put_manifest(to, folder, &whole.bytes).await
}
