//! What lies in a backup's `marks`. Knows its files; must not know who makes a mark, or what for.

use bytes::Bytes;

use super::{Destination, Key, MARKS, read_small};
use crate::durable::Existing;
use crate::fault::{Context, Fault, Result};
use crate::model::{BackupId, JobName, Mark, Pin};

/// Nothing longer is a mark.
const MAX_BYTES: u64 = 1 << 20;

/// The marks of a backup; a pin that was taken off is none.
pub async fn list_marks(
    destination: &dyn Destination,
    job: &JobName,
    id: &BackupId,
) -> Result<Vec<Mark>> {
    let listing = destination.list(&Key::backup(job, id).child(MARKS)?).await?;
    let mut marks: Vec<Mark> =
        listing.files.iter().filter_map(|(name, _)| Mark::from_file(name)).collect();
    if marks.contains(&Mark::Pin) {
        let pin = read_pin(destination, job, id).await?;
        marks.retain(|mark| *mark != Mark::Pin || pin.as_ref().is_some_and(|pin| pin.pinned));
    }
    Ok(marks)
}

/// The pin as it is written there; `None`: nobody ever pinned it there.
pub async fn read_pin(
    destination: &dyn Destination,
    job: &JobName,
    id: &BackupId,
) -> Result<Option<Pin>> {
    match read_mark(destination, job, id, Mark::Pin).await {
        // One that is too long is no pin of ours, and yet somebody meant something by it.
        Err(fault) if !fault.is_transient() => Ok(Some(Pin::default())),
        read => Ok(read?.map(|bytes| Pin::parse(&bytes))),
    }
}

pub async fn write_pin(
    destination: &dyn Destination,
    job: &JobName,
    id: &BackupId,
    pin: &Pin,
) -> Result<()> {
    let mut bytes = serde_json::to_vec(pin).context("write a pin")?;
    bytes.push(b'\n');
    write_mark(destination, job, id, Mark::Pin, bytes.into()).await
}

/// A mark's bytes; `None` where there is none.
pub async fn read_mark(
    destination: &dyn Destination,
    job: &JobName,
    id: &BackupId,
    mark: Mark,
) -> Result<Option<Bytes>> {
    read_small(destination, &key(job, id, mark)?, MAX_BYTES).await
}

pub async fn write_mark(
    destination: &dyn Destination,
    job: &JobName,
    id: &BackupId,
    mark: Mark,
    bytes: Bytes,
) -> Result<()> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Fault::permanent(format!("the {} of {id} is too long", mark.file())));
    }
    destination.put(&key(job, id, mark)?, bytes, Existing::Replace).await?;
    Ok(())
}

fn key(job: &JobName, id: &BackupId, mark: Mark) -> Result<Key> {
    Key::backup(job, id).child(MARKS)?.child(mark.file())
}
