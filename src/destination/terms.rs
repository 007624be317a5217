//! What the owner allows of a destination: how fast, and whether anything may be deleted. Stands in
//! front of any destination; must not know of which kind it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::{Destination, Expiry, Key, Lifecycle, Listing, Removal, Stored, Upload};
use crate::durable::Existing;
use crate::fault::{Fault, Result};
use crate::retention::{Doomed, Erased};
use crate::space::Space;
use crate::wal::Spent;

/// A destination on terms.
pub struct Terms {
    inner: Arc<dyn Destination>,
    up: Option<Pace>,
    down: Option<Pace>,
    append_only: bool,
}

impl Terms {
    /// `bandwidth` is in bytes per second, for uploads and for downloads each.
    pub fn new(inner: Arc<dyn Destination>, bandwidth: Option<u64>, append_only: bool) -> Self {
        let pace = || bandwidth.map(Pace::new);
        Self { inner, up: pace(), down: pace(), append_only }
    }
}

/// A bucket of tokens that never holds more than one second's worth: whoever takes more than it holds
/// waits until it would be full again. All streams of a destination share it.
#[derive(Clone)]
struct Pace {
    per_second: f64,
    /// When it will be empty of debts.
    free_at: Arc<Mutex<Option<Instant>>>,
}

impl Pace {
    fn new(bytes_per_second: u64) -> Self {
        #[allow(clippy::cast_precision_loss)]
        Self { per_second: bytes_per_second.max(1) as f64, free_at: Arc::default() }
    }

    /// Waits until so many bytes may pass.
    async fn take(&self, bytes: usize) {
        let until = self.reserve(bytes, crate::clock::tick());
        tokio::time::sleep_until(until).await;
    }

    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        #[allow(clippy::cast_precision_loss)]
        let cost = Duration::from_secs_f64(bytes as f64 / self.per_second);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not used is saved up, for one second at most.
        let oldest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let start = free_at.map_or(now, |free_at| free_at.max(oldest));
        let end = start + cost;
        *free_at = Some(end);
        end
    }
}

#[async_trait]
impl Destination for Terms {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    fn is_local(&self) -> bool {
        self.inner.is_local()
    }

    fn append_only(&self) -> bool {
        self.append_only
    }

    fn is_frozen(&self) -> bool {
        self.inner.is_frozen()
    }

    async fn upload(&self, key: &Key, existing: Existing) -> Result<Box<dyn Upload>> {
        let upload = self.inner.upload(key, existing).await?;
        Ok(match &self.up {
            Some(pace) => Box::new(Paced { upload, pace: pace.clone() }),
            None => upload,
        })
    }

    async fn put(&self, key: &Key, bytes: Bytes, existing: Existing) -> Result<Stored> {
        self.inner.put(key, bytes, existing).await
    }

    async fn read(&self, key: &Key) -> Result<BoxStream<'static, Result<Bytes>>> {
        let pieces = self.inner.read(key).await?;
        let Some(pace) = self.down.clone() else { return Ok(pieces) };
        let paced = pieces.and_then(move |piece| {
            let pace = pace.clone();
            async move {
                pace.take(piece.len()).await;
                Ok(piece)
            }
        });
        Ok(paced.boxed())
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>> {
        self.inner.size(key).await
    }

    async fn list(&self, folder: &Key) -> Result<Listing> {
        self.inner.list(folder).await
    }

    async fn delete(&self, doomed: &Doomed) -> Result<Removal> {
        if self.append_only {
            let (name, id) = (self.name(), doomed.id());
            return Err(Fault::permanent(format!("{id} stays: '{name}' is append_only"))
                .hint("`respaldo lifecycle` prints the rules by which the store itself deletes"));
        }
        self.inner.delete(doomed).await
    }

    async fn erase(&self, erased: &Erased) -> Result<Removal> {
        if self.append_only {
            let (name, file) = (self.name(), erased.file());
            return Err(Fault::permanent(format!("{file} stays: '{name}' is append_only")));
        }
        self.inner.erase(erased).await
    }

    async fn discard(&self, spent: &Spent) -> Result<Removal> {
        if self.append_only {
            let (name, file) = (self.name(), spent.name());
            return Err(Fault::permanent(format!("{file} stays: '{name}' is append_only")));
        }
        self.inner.discard(spent).await
    }

    async fn abort_upload(&self, key: &Key, upload: &str) -> Result<()> {
        self.inner.abort_upload(key, upload).await
    }

    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }

    fn lifecycle(&self, expiries: &[Expiry]) -> Option<Lifecycle> {
        self.inner.lifecycle(expiries)
    }

    async fn space(&self) -> Option<Space> {
        self.inner.space().await
    }
}

struct Paced {
    upload: Box<dyn Upload>,
    pace: Pace,
}

#[async_trait]
impl Upload for Paced {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        self.pace.take(data.len()).await;
        self.upload.write(data).await
    }

    async fn settle(&mut self) -> Result<bool> {
        self.upload.settle().await
    }

    async fn commit(self: Box<Self>) -> Result<Stored> {
        self.upload.commit().await
    }

    async fn abort(self: Box<Self>) {
        self.upload.abort().await;
    }

    fn reader(&self) -> Option<std::fs::File> {
        self.upload.reader()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Local;

    fn local(folder: &tempfile::TempDir, bandwidth: Option<u64>, append_only: bool) -> Terms {
        Terms::new(Arc::new(Local::new("local", folder.path())), bandwidth, append_only)
    }

    /// How long it took can only be longer than the pace allows, however slow the machine.
    #[tokio::test]
    async fn uploads_and_downloads_keep_the_pace() {
        let folder = tempfile::tempdir().unwrap();
        let terms = local(&folder, Some(10_000_000), false);
        let key = Key::parse("job/x").unwrap();
        let begun = crate::clock::tick();
        let mut upload = terms.upload(&key, Existing::Refuse).await.unwrap();
        for _ in 0..3 {
            upload.write(Bytes::from(vec![0; 1_000_000])).await.unwrap();
        }
        let up = begun.elapsed();
        upload.commit().await.unwrap();
        let begun = crate::clock::tick();
        let read: Vec<Bytes> = terms.read(&key).await.unwrap().try_collect().await.unwrap();
        let down = begun.elapsed();
        assert_eq!(read.iter().map(Bytes::len).sum::<usize>(), 3_000_000);
        for took in [up, down] {
            assert!(took >= Duration::from_millis(300), "{took:?}");
        }
    }

    /// Two uploads at once share what there is, and a pause saves up one second's worth.
    #[test]
    fn streams_share_the_pace() {
        let pace = Pace::new(1000);
        let now = crate::clock::tick();
        let seconds = |bytes, at: Instant| (pace.reserve(bytes, at) - now).as_secs();
        assert_eq!(seconds(2000, now), 2);
        assert_eq!(seconds(2000, now), 4);
        let later = now + Duration::from_secs(100);
        assert_eq!(seconds(1000, later), 100);
        assert_eq!(seconds(1000, later), 101);
    }

    #[tokio::test]
    async fn without_terms_nothing_is_paced() {
        let folder = tempfile::tempdir().unwrap();
        let terms = local(&folder, None, true);
        let upload = terms.upload(&Key::parse("job/x").unwrap(), Existing::Refuse).await.unwrap();
        assert!(upload.reader().is_some() && terms.is_local() && terms.append_only());
        upload.abort().await;
    }
}
