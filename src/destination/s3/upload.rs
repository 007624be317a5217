//! A file on its way to S3: parts of one size, few of them in memory, aborted when given up.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{ObjectStore, PutMultipartOptions, PutOptions, PutPayload};

use super::S3;
use crate::destination::{Destination, Key, Stored, Upload, confirm};
use crate::fault::{Context, Result};

/// S3 takes 10,000 parts of a file: a volume of 64 GiB fits.
const PART_BYTES: usize = 8 << 20;
/// Two under way and one being filled is all that is ever held in memory.
const PARTS_UNDER_WAY: usize = 2;

type Part = futures::future::BoxFuture<'static, Result<PartId>>;

/// Below one part's size it is a plain put; from there on a multipart upload.
pub(super) struct S3Upload {
    s3: S3,
    path: Path,
    key: Key,
    multipart: Option<String>,
    pieces: Vec<Bytes>,
    pieces_bytes: usize,
    under_way: FuturesOrdered<Part>,
    parts: Vec<PartId>,
    next_part: usize,
    sent: u64,
    /// It was small, and has been put.
    whole: bool,
}

impl S3Upload {
    pub(super) fn new(s3: S3, path: Path, key: Key) -> Self {
        Self {
            s3,
            path,
            key,
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

    async fn open(&mut self) -> Result<String> {
        if let Some(upload) = &self.multipart {
            return Ok(upload.clone());
        }
        let options =
            PutMultipartOptions { attributes: self.s3.attributes.clone(), ..Default::default() };
        let upload = self
            .s3
            .store
            .create_multipart_opts(&self.path, options)
            .await
            .map_err(|error| self.s3.fault(format!("begin {}", self.key), error))?;
        if let Some(uploads) = &self.s3.uploads {
            uploads.opened(&self.s3.name, &self.key, &upload).await?;
        }
        self.multipart = Some(upload.clone());
        Ok(upload)
    }

    async fn send_part(&mut self) -> Result<()> {
        let upload = self.open().await?;
        while self.under_way.len() >= PARTS_UNDER_WAY {
            self.collect().await?;
        }
        let payload = self.take();
        let (s3, path, key, number) =
            (self.s3.clone(), self.path.clone(), self.key.clone(), self.next_part);
        self.next_part += 1;
        // Spawned, so that it goes on while the next part is being filled.
        let part = tokio::spawn(async move {
            let sent = s3.store.put_part(&path, &upload, number, payload).await;
            sent.map_err(|error| s3.fault(format!("send part {} of {key}", number + 1), error))
        });
        self.under_way.push_back(Box::pin(async move { part.await.context("send a part")? }));
        Ok(())
    }

    async fn collect(&mut self) -> Result<()> {
        if let Some(part) = self.under_way.next().await {
            self.parts.push(part?);
        }
        Ok(())
    }

    async fn put_whole(&mut self) -> Result<()> {
        let payload = self.take();
        let options =
            PutOptions { attributes: self.s3.attributes.clone(), ..PutOptions::default() };
        let put = self.s3.store.put_opts(&self.path, payload, options).await;
        put.map_err(|error| self.s3.fault(format!("write {}", self.key), error))?;
        self.whole = true;
        Ok(())
    }

    async fn complete(&mut self) -> Result<()> {
        while self.settle().await? {}
        let Some(upload) = self.multipart.clone() else { return Ok(()) };
        let parts = std::mem::take(&mut self.parts);
        let done = self.s3.store.complete_multipart(&self.path, &upload, parts).await;
        done.map_err(|error| self.s3.fault(format!("finish {}", self.key), error))?;
        Ok(())
    }

    async fn forget(&mut self) {
        if let (Some(uploads), Some(upload)) = (&self.s3.uploads, self.multipart.take()) {
            uploads.closed(&self.s3.name, &upload).await;
        }
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn write(&mut self, mut data: Bytes) -> Result<()> {
        self.sent += data.len() as u64;
        while !data.is_empty() {
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
        confirm(&self.key, self.sent, self.s3.head(&self.key).await?)
    }

    async fn abort(mut self: Box<Self>) {
        // A part that is still being sent would be stored after the abort.
        while self.under_way.next().await.is_some() {}
        let Some(upload) = self.multipart.clone() else { return };
        match self.s3.abort_upload(&self.key, &upload).await {
            Ok(()) => self.forget().await,
            // It stays remembered: the next start tries again.
            Err(fault) => tracing::warn!("an upload stays open: {}", fault.chain()),
        }
    }
}
