//! The doors to where backups are kept. Knows keys, folders and what a store can promise; must not
//! know what a backup means, when it was made or why it goes.

mod azure;
mod bucket;
mod gcs;
mod layout;
mod lifecycle;
mod local;
mod lock;
mod marks;
mod s3;
mod sftp;
mod terms;
mod wal;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::durable::Existing;
use crate::fault::{Fault, FaultKind, Result};
use crate::retention::{Doomed, Erased};
use crate::space::Space;
use crate::wal::Spent;

pub use azure::AzureOptions;
pub use bucket::Bucket;
pub use gcs::GcsOptions;
pub use layout::{
    Key, LEDGER, MANIFEST, MARKER, MARKS, SIGNATURE, holds, list_backups, read_manifest, read_small,
};
pub use lifecycle::{Expiry, Lifecycle};
pub use local::Local;
pub use marks::{list_marks, read_mark, read_pin, write_mark, write_pin};
pub use s3::{FROZEN, S3Options, Sse};
pub use sftp::{Sftp, SftpOptions, host_key, private_key};
pub use terms::Terms;
pub use wal::{StoredWal, list_wal, read_wal, wal_folder, wal_key, wal_servers};

/// A place where backups are kept.
#[async_trait]
pub trait Destination: Send + Sync {
    /// Its name in the config.
    fn name(&self) -> &str;

    /// Its URL, without secrets.
    fn place(&self) -> String;

    /// Whether it is a folder here, whose files can be followed as they grow.
    fn is_local(&self) -> bool {
        false
    }

    /// Whether nothing may be deleted there.
    fn append_only(&self) -> bool {
        false
    }

    /// Whether what is written there must be thawed, by hand and for hours, before it can be read.
    fn is_frozen(&self) -> bool {
        false
    }

    /// Begins a file. Nothing is visible under `key` before [`Upload::settle`] and
    /// [`Upload::commit`]; what is there by then is replaced or, as `existing` says, a fault. An object store
    /// can't refuse in one step what comes in parts, and looks right before.
    async fn upload(&self, key: &Key, existing: Existing) -> Result<Box<dyn Upload>>;

    /// Writes a small file whole.
    async fn put(&self, key: &Key, bytes: Bytes, existing: Existing) -> Result<Stored>;

    async fn read(&self, key: &Key) -> Result<BoxStream<'static, Result<Bytes>>>;

    /// The file's size in bytes; `None` when there is no such file.
    async fn size(&self, key: &Key) -> Result<Option<u64>>;

    /// What lies directly in a folder; empty when there is no such folder.
    async fn list(&self, folder: &Key) -> Result<Listing>;

    /// Deletes a backup: its manifest first, so that what is half deleted is not a backup.
    async fn delete(&self, doomed: &Doomed) -> Result<Removal>;

    /// Deletes one file of a backup that goes on without it; one that is not there is fine.
    async fn erase(&self, erased: &Erased) -> Result<Removal>;

    /// Deletes one file of the write-ahead log; one that is not there is fine.
    async fn discard(&self, spent: &Spent) -> Result<Removal>;

    /// Ends an upload that a run which is over left open; see [`Uploads`].
    async fn abort_upload(&self, _key: &Key, _upload: &str) -> Result<()> {
        Ok(())
    }

    /// Finds out whether it can be written, and leaves nothing behind.
    async fn check(&self) -> Result<()>;

    /// The rules by which the store itself would delete; `None` where it knows none.
    fn lifecycle(&self, _expiries: &[Expiry]) -> Option<Lifecycle> {
        None
    }

    /// How much room there is, where that is known.
    async fn space(&self) -> Option<Space> {
        None
    }
}

/// A file being written.
#[async_trait]
pub trait Upload: Send {
    async fn write(&mut self, data: Bytes) -> Result<()>;

    /// After the last byte: waits for the next piece that is still on its way, and says whether there
    /// may be more, so that a store which is slow can be told from one which is silent.
    async fn settle(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// Makes it durable, confirms its size, and gives it its name.
    async fn commit(self: Box<Self>) -> Result<Stored>;

    async fn abort(self: Box<Self>);

    /// A local file can be read while it grows.
    fn reader(&self) -> Option<std::fs::File> {
        None
    }
}

/// Proof that every byte of a file was acknowledged. Only a destination makes one.
#[derive(Debug)]
pub struct Stored {
    bytes: u64,
}

impl Stored {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What became of a backup or a file that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    Gone,
    /// The store keeps it: by an object lock, a retention policy or a legal hold of its own. `until`
    /// is when that ends, where the store says it.
    Retained {
        until: Option<Timestamp>,
    },
}

/// What lies in a folder.
#[derive(Debug, Default)]
pub struct Listing {
    pub folders: Vec<String>,
    /// Name and size in bytes.
    pub files: Vec<(String, u64)>,
}

/// Remembers uploads that would stay open in the store if this process died.
#[async_trait]
pub trait Uploads: Send + Sync {
    async fn opened(&self, destination: &str, key: &Key, upload: &str) -> Result<()>;
    async fn closed(&self, destination: &str, upload: &str);
}

/// Something else has written it; `place` is what the two share.
fn taken(key: &Key, destination: &dyn Destination, place: &str) -> Fault {
    Fault::new(FaultKind::Taken, format!("{key} exists on '{}'", destination.name()))
        .hint(format!("something else wrote it: do two respaldos share this {place}?"))
}

/// Compares what a store says it holds with what it was sent.
fn confirm(key: &Key, sent: u64, held: Option<u64>) -> Result<Stored> {
    if held == Some(sent) {
        return Ok(Stored { bytes: sent });
    }
    let held = held.map_or("nothing".to_owned(), |bytes| format!("{bytes} bytes"));
    Err(Fault::transient(format!("{key}: {sent} bytes were sent, but the store holds {held}")))
}
