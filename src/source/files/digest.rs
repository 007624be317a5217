//! A folder's state in one digest, cheap enough to be taken every minute: names, sizes, times and
//! inodes, and no content.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use sha2::Digest;
use tokio_util::sync::CancellationToken;

use super::{Files, walk};
use crate::fault::Result;
use crate::model::Sha256;

impl Files {
    /// Of all its folders. What can't be looked at counts as that: it changes when it can.
    pub(super) fn digest(&self, cancel: &CancellationToken) -> Result<Sha256> {
        let mut sum = [0_u8; 32];
        for (n, folder) in self.folders.iter().enumerate() {
            walk(folder, &self.exclude, cancel, |relative, entry| {
                let mut hash = sha2::Sha256::new();
                hash.update(n.to_le_bytes());
                hash.update(relative.as_os_str().as_bytes());
                if let Some(meta) = entry.ok().and_then(|entry| entry.metadata().ok()) {
                    let size = if meta.is_dir() { 0 } else { meta.size() };
                    for number in [size, meta.ino(), u64::from(meta.mode()), u64::from(meta.uid())]
                    {
                        hash.update(number.to_le_bytes());
                    }
                    hash.update(meta.mtime().to_le_bytes());
                    hash.update(meta.mtime_nsec().to_le_bytes());
                }
                // The order in which a folder lists its entries may differ from look to look.
                sum.iter_mut().zip(hash.finalize()).for_each(|(sum, byte)| *sum ^= byte);
                Ok(())
            })?;
        }
        Ok(Sha256(sum))
    }
}
