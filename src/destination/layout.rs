//! Where things lie on every destination: `<job>/<id>/<file>`. Knows names; must not know a store.

use std::fmt;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use super::Destination;
use crate::fault::{Fault, Result};
use crate::model::manifest::MAX_MANIFEST_BYTES;
use crate::model::{BackupId, JobName, Manifest};

pub const MANIFEST: &str = "manifest.json";
pub const SIGNATURE: &str = "manifest.sig";
pub const MARKS: &str = "marks";
/// In the job's folder: which installation owns it.
pub const MARKER: &str = "owner.json";
/// In the job's folder: what was erased, and must not come back by a restore.
pub const LEDGER: &str = "erasures.json";

/// A path below the destination: parts that hold no separator and do not start with a dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// The destination itself.
    pub fn root() -> Self {
        Self(String::new())
    }

    pub fn job(job: &JobName) -> Self {
        Self(job.to_string())
    }

    pub fn backup(job: &JobName, id: &BackupId) -> Self {
        Self(format!("{job}/{id}"))
    }

    /// A file or folder in this one.
    pub fn child(&self, name: &str) -> Result<Self> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return Err(Fault::permanent(format!("{name:?} is not a file name")));
        }
        Ok(Self(if self.0.is_empty() { name.to_owned() } else { format!("{}/{name}", self.0) }))
    }

    /// A path that respaldo itself wrote down.
    pub fn parse(text: &str) -> Result<Self> {
        text.split('/').try_fold(Self::root(), |key, part| key.child(part))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a whole small file; `None` when there is none. Refuses one above `most` bytes.
pub async fn read_small(
    destination: &dyn Destination,
    key: &Key,
    most: u64,
) -> Result<Option<Bytes>> {
    match destination.size(key).await? {
        None => return Ok(None),
        Some(bytes) if bytes > most => {
            return Err(Fault::permanent(format!("{key} is too large: {bytes} bytes")));
        }
        Some(_) => {}
    }
    let mut stream = destination.read(key).await?;
    let mut whole = BytesMut::new();
    while let Some(piece) = stream.next().await {
        whole.extend_from_slice(&piece?);
        if whole.len() as u64 > most {
            return Err(Fault::permanent(format!("{key} is too large")));
        }
    }
    Ok(Some(whole.freeze()))
}

/// Whether a small file is there as it should be: the answer to a write may have been lost on its way, and the
/// next try have met what the first wrote.
pub async fn holds(destination: &dyn Destination, key: &Key, bytes: &Bytes) -> bool {
    let there = read_small(destination, key, bytes.len() as u64).await;
    matches!(there, Ok(Some(there)) if there == *bytes)
}

/// The ids of the folders in a job's folder: backups, and what a run is writing or left.
pub async fn list_backups(destination: &dyn Destination, job: &JobName) -> Result<Vec<BackupId>> {
    let listing = destination.list(&Key::job(job)).await?;
    let mut ids: Vec<BackupId> =
        listing.folders.iter().filter_map(|name| name.parse().ok()).collect();
    ids.sort();
    Ok(ids)
}

/// The manifest with its bytes, for the signature; `None`: not committed, so not a backup.
pub async fn read_manifest(
    destination: &dyn Destination,
    job: &JobName,
    id: &BackupId,
) -> Result<Option<(Manifest, Bytes)>> {
    let key = Key::backup(job, id).child(MANIFEST)?;
    let Some(bytes) = read_small(destination, &key, MAX_MANIFEST_BYTES).await? else {
        return Ok(None);
    };
    Ok(Some((Manifest::parse(&bytes, job, id)?, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_leaves_its_folder() {
        let job = Key::job(&"db".parse().unwrap());
        assert_eq!(job.child("a b").unwrap().as_str(), "db/a b");
        for name in ["", ".", "..", "a/b", ".hidden", "a\\b", "a\0"] {
            assert!(job.child(name).is_err(), "{name:?} was taken");
        }
        assert!(Key::parse("db/../x").is_err());
        assert!(Key::parse("/etc").is_err());
    }
}
