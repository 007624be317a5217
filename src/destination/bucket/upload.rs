//! A file on its way to an object store: parts of one size, few of them in memory, aborted when given
//! up.

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt, TryFutureExt};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{MultipartUpload, PutMultipartOptions, PutPayload};

use super::Bucket;
use crate::destination::{Destination, Key, Stored, Upload, confirm, holds};
use crate::durable::Existing;
use crate::fault::{Context, Result};

/// S3 and GCS take 10,000 parts of a file: a volume of 64 GiB fits.
const PART_BYTES: usize = 8 << 20;
/// Of all files that go to a bucket at once. Of one file no more is held in memory, the part that is being filled
/// included; of several each may have one that waits for its turn.
pub(super) const PARTS_UNDER_WAY: usize = 2;

type Part = BoxFuture<'static, Result<Option<PartId>>>;

/// An upload in parts that the store has begun.
enum Multipart {
    /// The store gave it a name, by which a later process can end it too.
    Named(String),
    /// Azure: blocks that no list names vanish by themselves, and the tier comes with the list.
    Unnamed(Box<dyn MultipartUpload>),
}

/// Below one part's size it is a plain put; from there on a multipart upload.
pub(super) struct BucketUpload {
    bucket: Bucket,
    path: Path,
    key: Key,
    existing: Existing,
    multipart: Option<Multipart>,
    pieces: Vec<Bytes>,
    pieces_bytes: usize,
    under_way: FuturesOrdered<Part>,
    parts: Vec<PartId>,
    next_part: usize,
    sent: u64,
    /// It was small, and has been put.
    whole: bool,
}

impl BucketUpload {
    pub(super) fn new(bucket: Bucket, path: Path, key: Key, existing: Existing) -> Self {
        Self {
            bucket,
            path,
            key,
            existing,
            multipart: None,
            pieces: Vec::new(),
            pieces_bytes: 0,
            under_way: FuturesOrdered::new(),
            parts: Vec::new(),
            next_part: 0,
            sent: 0,
            whole: false,
        }
    }

    fn take(&mut self) -> PutPayload {
        self.pieces_bytes = 0;
        std::mem::take(&mut self.pieces).into_iter().collect()
    }

    async fn open(&mut self) -> Result<()> {
        if self.multipart.is_some() {
            return Ok(());
        }
        let bucket = &self.bucket;
        let options =
            PutMultipartOptions { attributes: bucket.attributes.clone(), ..Default::default() };
        let fault = |error| bucket.fault(format!("begin {}", self.key), error);
        let begun = if bucket.dialect.names_uploads {
            let begun = bucket.store.create_multipart_opts(&self.path, options).await;
            Multipart::Named(begun.map_err(fault)?)
        } else {
            let begun = bucket.store.put_multipart_opts(&self.path, options).await;
            Multipart::Unnamed(begun.map_err(fault)?)
        };
        if let (Some(uploads), Multipart::Named(upload)) = (&bucket.uploads, &begun) {
            uploads.opened(&bucket.name, &self.key, upload).await?;
        }
        self.multipart = Some(begun);
        Ok(())
    }

    async fn send_part(&mut self) -> Result<()> {
        self.open().await?;
        // Whoever has one sends: it comes back by itself.
        let turn =
            self.bucket.turns.clone().acquire_owned().await.context("wait to send a part")?;
        let payload = self.take();
        let number = self.next_part;
        self.next_part += 1;
        let (bucket, path, key) = (self.bucket.clone(), self.path.clone(), self.key.clone());
        let sending = match &mut self.multipart {
            Some(Multipart::Named(upload)) => {
                let (store, upload) = (bucket.store.clone(), upload.clone());
                async move { store.put_part(&path, &upload, number, payload).await.map(Some) }
                    .boxed()
            }
            Some(Multipart::Unnamed(upload)) => upload.put_part(payload).map_ok(|()| None).boxed(),
            None => return Ok(()),
        };
        // Spawned, so that it goes on while the next part is being filled.
        let part = tokio::spawn(async move {
            let sent = sending.await;
            drop(turn);
            sent.map_err(|error| bucket.fault(format!("send part {} of {key}", number + 1), error))
        });
        self.under_way.push_back(Box::pin(async move { part.await.context("send a part")? }));
        Ok(())
    }

    async fn collect(&mut self) -> Result<()> {
        if let Some(part) = self.under_way.next().await {
            self.parts.extend(part?);
        }
        Ok(())
    }

    async fn put_whole(&mut self) -> Result<()> {
        let bytes = Bytes::from(self.take());
        let Self { bucket, key, existing, .. } = self;
        let put = bucket.put_whole(key, bytes.clone(), *existing, &bucket.attributes).await;
        if let Err(fault) = put
            && !(*existing == Existing::Refuse && holds(bucket, key, &bytes).await)
        {
            return Err(fault);
        }
        self.whole = true;
        Ok(())
    }

    async fn complete(&mut self) -> Result<()> {
        while self.settle().await? {}
        if self.multipart.is_some() && self.existing == Existing::Refuse {
            self.bucket.is_free(&self.key).await?;
        }
        let done = match &mut self.multipart {
            None => return Ok(()),
            Some(Multipart::Named(upload)) => {
                let parts = std::mem::take(&mut self.parts);
                self.bucket.store.complete_multipart(&self.path, upload, parts).await
            }
            Some(Multipart::Unnamed(upload)) => upload.complete().await,
        };
        done.map(drop).map_err(|error| self.bucket.fault(format!("finish {}", self.key), error))
    }

    async fn forget(&mut self) {
        let multipart = self.multipart.take();
        if let (Some(uploads), Some(Multipart::Named(upload))) = (&self.bucket.uploads, multipart) {
            uploads.closed(&self.bucket.name, &upload).await;
        }
    }
}

#[async_trait]
impl Upload for BucketUpload {
    async fn write(&mut self, mut data: Bytes) -> Result<()> {
        self.sent += data.len() as u64;
        while !data.is_empty() {
            // One is sent while the next is filled. One that failed is noticed here.
            while self.pieces.is_empty() && self.under_way.len() >= PARTS_UNDER_WAY {
                self.collect().await?;
            }
            // Parts of one size: some stores ask for it.
            let piece = data.split_to(data.len().min(PART_BYTES - self.pieces_bytes));
            self.pieces_bytes += piece.len();
            self.pieces.push(piece);
            if self.pieces_bytes == PART_BYTES {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<bool> {
        match self.multipart {
            None if self.whole => Ok(false),
            None => self.put_whole().await.map(|()| false),
            Some(_) if self.pieces_bytes > 0 => self.send_part().await.map(|()| true),
            Some(_) => self.collect().await.map(|()| !self.under_way.is_empty()),
        }
    }

    async fn commit(mut self: Box<Self>) -> Result<Stored> {
        if let Err(fault) = self.complete().await {
            self.abort().await;
            return Err(fault);
        }
        self.forget().await;
        confirm(&self.key, self.sent, self.bucket.head(&self.key).await?)
    }

    async fn abort(mut self: Box<Self>) {
        // A part that is still being sent would be stored after the abort.
        while self.under_way.next().await.is_some() {}
        let Some(Multipart::Named(upload)) = &self.multipart else { return };
        match self.bucket.abort_upload(&self.key, upload).await {
            Ok(()) => self.forget().await,
            // It stays remembered: the next start tries again.
            Err(fault) => tracing::warn!("an upload stays open: {}", fault.chain()),
        }
    }
}
