//! One backup on one destination, and a schema taken out of it. At every instant the manifest there
//! is signed and lists only what is there: the tombstone goes first, then a signature that fits the
//! old manifest and the new one, then the new manifest, and the files last. What was cut off half-way
//! is finished by the same steps.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::destination::{
    Destination, Key, MANIFEST, Removal, SIGNATURE, list_marks, read_manifest, read_mark,
    read_small, write_mark,
};
use crate::durable::Existing;
use crate::fault::{Context, Result};
use crate::job::commit::signed;
use crate::job::{Site, guide};
use crate::model::{BackupId, Erasure, JobName, Manifest, Mark, Tombstone};
use crate::retention;
use crate::signature::{self, MAX_SIGNATURE_BYTES, Verdict};

use super::{Became, EraseState};

/// A sums file longer than this is none of ours.
const MAX_SUMS_BYTES: u64 = 16 << 20;

/// A committed backup as it lies there.
pub(super) struct Seen {
    pub manifest: Manifest,
    bytes: Bytes,
    signature: Bytes,
    pub verdict: Verdict,
    pub tombstone: Tombstone,
    pub pinned: bool,
}

impl Seen {
    pub(super) async fn look(
        site: &Site,
        destination: &dyn Destination,
        job: &JobName,
        id: &BackupId,
    ) -> Result<Option<Self>> {
        let Some((manifest, bytes)) = read_manifest(destination, job, id).await? else {
            return Ok(None);
        };
        let key = Key::backup(job, id).child(SIGNATURE)?;
        let text = read_small(destination, &key, MAX_SIGNATURE_BYTES).await?;
        let verdict = signature::verify(&bytes, text.as_deref(), &site.trusted);
        let marks = list_marks(destination, job, id).await?;
        let tombstone = match marks.contains(&Mark::Tombstone) {
            true => read_mark(destination, job, id, Mark::Tombstone).await?,
            false => None,
        };
        let tombstone = tombstone.map_or(Ok(Tombstone::default()), |t| Tombstone::parse(&t))?;
        let (signature, pinned) = (text.unwrap_or_default(), marks.contains(&Mark::Pin));
        Ok(Some(Self { manifest, bytes, signature, verdict, tombstone, pinned }))
    }

    /// Takes the schema out, and clears away what an earlier try left. The caller keeps everybody else
    /// from this backup.
    pub(super) async fn erase(
        &mut self,
        site: &Site,
        destination: &dyn Destination,
        schema: &str,
        erasure: &Erasure,
    ) -> Result<Became> {
        let (job, id) = (self.manifest.job.clone(), self.manifest.id);
        let folder = Key::backup(&job, &id);
        let gone = self.manifest.of_schema(schema, erasure.database.as_deref());
        if !gone.is_empty() {
            let rest = self.manifest.without_schema(schema, erasure.database.as_deref());
            if rest.artifacts.is_empty() {
                return Ok(Became::left("it holds nothing else: it goes with its backup"));
            }
            self.tombstone.add(schema, erasure, &gone);
            let mark = serde_json::to_vec(&self.tombstone).context("write a tombstone")?;
            write_mark(destination, &job, &id, Mark::Tombstone, mark.into()).await?;

            let (bytes, signature) = signed(site, &rest)?;
            let both = [signature::holding(&self.bytes, &self.signature), signature.to_vec()];
            self.signature = both.concat().into();
            self.put(destination, &folder, SIGNATURE, self.signature.clone()).await?;
            self.put(destination, &folder, MANIFEST, bytes.clone()).await?;
            (self.manifest, self.bytes) = (rest, bytes);
        }
        if !self.tombstone.erased.is_empty() {
            let marks = list_marks(destination, &job, &id).await?;
            site.catalog.add_copy(&self.manifest, destination.name(), &marks).await?;
        }
        self.settle(destination, &folder).await
    }

    /// Everything beside the manifest as the manifest says it.
    async fn settle(&mut self, destination: &dyn Destination, folder: &Key) -> Result<Became> {
        if self.tombstone.erased.is_empty() {
            return Ok(Became { state: EraseState::Untouched, ..Became::default() });
        }
        let (sums, key) = (self.manifest.sha256sums(), folder.child("SHA256SUMS")?);
        let there = read_small(destination, &key, MAX_SUMS_BYTES).await?;
        if there.is_none_or(|there| there != sums) {
            let guide = guide::restore_md(&self.manifest, &[]);
            self.put(destination, folder, "RESTORE.md", guide.into()).await?;
            self.put(destination, folder, "SHA256SUMS", sums.into()).await?;
        }
        let fitting = signature::holding(&self.bytes, &self.signature);
        if fitting != self.signature {
            self.put(destination, folder, SIGNATURE, fitting.into()).await?;
        }
        let there: BTreeSet<String> =
            destination.list(folder).await?.files.into_iter().map(|(name, _)| name).collect();
        let mut became = Became { state: EraseState::Erased, ..Became::default() };
        for volume in self.tombstone.volumes().filter(|volume| there.contains(&volume.name)) {
            let Some(erased) = retention::erased(&self.manifest, volume) else { continue };
            match destination.erase(&erased).await? {
                Removal::Gone => {
                    became.files += 1;
                    became.bytes += volume.bytes;
                }
                Removal::Retained { until } => {
                    became.state = EraseState::Retained;
                    became.until = became.until.max(until);
                }
            }
        }
        if became == (Became { state: EraseState::Erased, ..Became::default() }) {
            became.state = EraseState::Untouched;
        }
        Ok(became)
    }

    async fn put(
        &self,
        destination: &dyn Destination,
        folder: &Key,
        name: &str,
        bytes: Bytes,
    ) -> Result<()> {
        destination.put(&folder.child(name)?, bytes, Existing::Replace).await.map(drop)
    }
}

/// Whether these sums still name what the manifest no longer does, and nothing else is wrong with
/// them: an erasure was cut off between the two.
pub(in crate::job) async fn is_half_erased(
    destination: &dyn Destination,
    manifest: &Manifest,
    sums: &[u8],
) -> bool {
    let mark = read_mark(destination, &manifest.job, &manifest.id, Mark::Tombstone).await;
    let Ok(Some(mark)) = mark else { return false };
    let Ok(tombstone) = Tombstone::parse(&mark) else { return false };
    let Ok(sums) = std::str::from_utf8(sums) else { return false };
    let wanted = manifest.sha256sums();
    let wanted: BTreeSet<&str> = wanted.lines().collect();
    let there: BTreeSet<&str> = sums.lines().collect();
    let taken: BTreeSet<String> =
        tombstone.volumes().map(|volume| format!("{}  {}", volume.sha256, volume.name)).collect();
    wanted.is_subset(&there) && there.difference(&wanted).all(|line| taken.contains(*line))
}
