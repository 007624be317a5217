//! Where the write-ahead log lies: `<job>/wal/<system id>/<sixteen digits>/<segment>...`. Knows names of
//! files and folders; must not know what is missing among them.

use std::collections::BTreeMap;

use super::{Destination, Key, read_small};
use crate::fault::{Context, Result};
use crate::model::{JobName, SegmentSize, WalFile};
use crate::wal::{Archive, Lineage, Spent};

/// The folder of the log in a job's folder.
const WAL: &str = "wal";
/// A server that was promoted a thousand times has less to tell.
const MAX_HISTORY_BYTES: u64 = 1 << 20;

/// The folder of one server's log. The system identifier tells servers apart that have one name.
pub fn wal_folder(job: &JobName, system_id: &str) -> Result<Key> {
    Key::job(job).child(WAL)?.child(system_id)
}

/// Where a file of the log lies; `name` is its stem with the endings of codec and cipher.
pub fn wal_key(
    job: &JobName,
    system_id: &str,
    size: SegmentSize,
    file: &WalFile,
    name: &str,
) -> Result<Key> {
    let folder = wal_folder(job, system_id)?;
    match file.folder(size) {
        Some(part) => folder.child(&part)?.child(name),
        None => folder.child(name),
    }
}

/// Where a file lies that may go.
pub(super) fn spent_key(spent: &Spent) -> Result<Key> {
    wal_key(spent.job(), spent.system_id(), spent.segment_bytes(), spent.file(), spent.name())
}

/// The servers whose log lies here.
pub async fn wal_servers(destination: &dyn Destination, job: &JobName) -> Result<Vec<String>> {
    let mut servers = destination.list(&Key::job(job).child(WAL)?).await?.folders;
    servers.retain(|name| !name.is_empty() && name.bytes().all(|c| c.is_ascii_digit()));
    servers.sort();
    Ok(servers)
}

/// The log's files, each with its name; what is none of ours is left out. `of` limits it to one folder of
/// segments.
pub async fn list_wal(
    destination: &dyn Destination,
    job: &JobName,
    system_id: &str,
    size: SegmentSize,
    of: Option<&str>,
) -> Result<Vec<(WalFile, String)>> {
    let folder = wal_folder(job, system_id)?;
    let mut names = Vec::new();
    match of {
        Some(part) => names.extend(destination.list(&folder.child(part)?).await?.files),
        None => {
            let listing = destination.list(&folder).await?;
            names.extend(listing.files);
            for part in listing.folders {
                if part.len() == 16 {
                    names.extend(destination.list(&folder.child(&part)?).await?.files);
                }
            }
        }
    }
    let file = |(name, _): (String, u64)| Some((WalFile::parse(&name, size)?, name));
    Ok(names.into_iter().filter_map(file).collect())
}

/// What lies in one place of a server's log.
pub struct StoredWal {
    pub archive: Archive,
    /// What each file is called there.
    pub names: BTreeMap<WalFile, String>,
    /// What each timeline came from, as PostgreSQL wrote it.
    pub histories: BTreeMap<u32, String>,
}

/// Looks at all that lies here of a server's log.
pub async fn read_wal(
    destination: &dyn Destination,
    job: &JobName,
    system_id: &str,
    size: SegmentSize,
) -> Result<StoredWal> {
    let (names, histories) = Default::default();
    let mut stored = StoredWal { archive: Archive::new(size), names, histories };
    for (file, name) in list_wal(destination, job, system_id, size, None).await? {
        stored.archive.add(&file);
        if let WalFile::History { timeline } = file {
            let key = wal_key(job, system_id, size, &file, &name)?;
            if let Some(bytes) = read_small(destination, &key, MAX_HISTORY_BYTES).await? {
                let doing = || format!("read {key}");
                let text = String::from_utf8(bytes.into()).context(doing())?;
                stored.archive.add_history(timeline, Lineage::parse(&text).context(doing())?);
                stored.histories.insert(timeline, text);
            }
        }
        stored.names.insert(file, name);
    }
    Ok(stored)
}
