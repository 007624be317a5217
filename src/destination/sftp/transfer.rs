//! Bytes to and from an SFTP server, many requests under way at once, so that a distant server is not a
//! slow one. Knows offsets and handles; must not know where a file lies.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, FuturesOrdered};
use futures::{StreamExt, stream};
use russh_sftp::client::error::Error;
use russh_sftp::protocol::{FileAttributes, OpenFlags};
use tokio::task::JoinHandle;

use super::session::Session;
use super::{Sftp, status};
use crate::destination::{Destination, Key, Stored, Upload, confirm, taken};
use crate::durable::Existing;
use crate::fault::{Context, Fault, Result};

/// Every server takes a request of this size.
const REQUEST_BYTES: usize = 32 << 10;
/// 2 MiB under way: as much as OpenSSH's window lets through, and 20 MB/s at 100 ms.
const UNDER_WAY: usize = 64;

/// A file being written under a hidden name.
pub(super) struct SftpUpload {
    sftp: Sftp,
    session: Arc<Session>,
    key: Key,
    existing: Existing,
    handle: String,
    hidden: String,
    target: String,
    sent: u64,
    under_way: FuturesOrdered<JoinHandle<Result<(), Error>>>,
}

impl SftpUpload {
    pub(super) fn new(
        sftp: Sftp,
        session: Arc<Session>,
        (key, existing): (Key, Existing),
        handle: String,
        hidden: String,
        target: String,
    ) -> Self {
        let under_way = FuturesOrdered::new();
        Self { sftp, session, key, existing, handle, hidden, target, sent: 0, under_way }
    }

    /// Waits for the oldest write; `false` when there is none.
    async fn collect(&mut self) -> Result<bool> {
        match self.under_way.next().await {
            None => Ok(false),
            Some(written) => match written.context("send a piece")? {
                Ok(()) => Ok(true),
                Err(error) => Err(self.fault(error).await),
            },
        }
    }

    async fn fault(&self, error: Error) -> Fault {
        self.sftp.fault(format!("write {}", self.key), error).await
    }

    /// How many bytes the server holds under the hidden name.
    pub(super) async fn held(&self) -> Result<Option<u64>> {
        match self.session.raw().fstat(self.handle.as_str()).await {
            Ok(found) => Ok(found.attrs.size),
            Err(error) => Err(self.fault(error).await),
        }
    }

    /// Makes it durable, and gives it its name.
    pub(super) async fn publish(mut self) -> Result<Stored> {
        match self.finish().await {
            Ok(()) => {}
            Err(fault) => {
                self.discard().await;
                return Err(fault);
            }
        }
        confirm(&self.key, self.sent, self.sftp.size(&self.key).await?)
    }

    async fn finish(&mut self) -> Result<()> {
        while self.collect().await? {}
        confirm(&self.key, self.sent, self.held().await?)?;
        let named = async {
            self.session.sync(&self.handle).await?;
            self.session.raw().close(self.handle.as_str()).await?;
            match self.existing {
                Existing::Replace => {
                    self.session.replace(&self.hidden, &self.target).await.map(|()| true)
                }
                Existing::Refuse => self.session.claim(&self.hidden, &self.target).await,
            }
        };
        match named.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(taken(&self.key, &self.sftp, "folder")),
            Err(error) => Err(self.fault(error).await),
        }
    }

    /// Leaves nothing behind, as far as the server can be reached.
    pub(super) async fn discard(mut self) {
        // A write that is still under way would come after the file is gone.
        while self.under_way.next().await.is_some() {}
        // It may be closed already.
        self.session.raw().close(self.handle.as_str()).await.ok();
        if let Err(error) = self.session.remove(&self.hidden).await
            && status(&error).is_none()
        {
            // The line is down. With its backup's folder it goes at the next start.
            tracing::warn!("{} stays on '{}': {error}", self.hidden, self.sftp.name());
        }
    }
}

#[async_trait]
impl Upload for SftpUpload {
    async fn write(&mut self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            while self.under_way.len() >= UNDER_WAY {
                self.collect().await?;
            }
            let piece = data.split_to(data.len().min(REQUEST_BYTES));
            let (session, handle, offset) = (self.session.clone(), self.handle.clone(), self.sent);
            self.sent += piece.len() as u64;
            // Spawned, so that it is sent now and not when it is asked for.
            self.under_way.push_back(tokio::spawn(async move {
                session.raw().write(handle, offset, piece.to_vec()).await.map(drop)
            }));
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<bool> {
        self.collect().await
    }

    async fn commit(self: Box<Self>) -> Result<Stored> {
        self.publish().await
    }

    async fn abort(self: Box<Self>) {
        self.discard().await;
    }
}

/// An open file, closed when nobody reads it any more.
struct Opened {
    session: Arc<Session>,
    handle: String,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let (session, handle) = (self.session.clone(), std::mem::take(&mut self.handle));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { session.raw().close(handle).await.ok() });
        }
    }
}

/// A file's bytes in order, of the length that it has now.
pub(super) async fn read(
    session: Arc<Session>,
    path: String,
) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
    let opened = session.raw().open(path, OpenFlags::READ, FileAttributes::empty()).await?;
    let file = Arc::new(Opened { session, handle: opened.handle });
    let found = file.session.raw().fstat(file.handle.as_str()).await?;
    let length = found.attrs.size.unwrap_or(0);
    let pieces = stream::iter((0..length).step_by(REQUEST_BYTES))
        .map(move |offset| {
            let wanted = (length - offset).min(REQUEST_BYTES as u64);
            let file = file.clone();
            async move { read_piece(&file, offset, wanted).await }
        })
        .buffered(UNDER_WAY);
    Ok(pieces.boxed())
}

/// A server may give less than was asked for.
async fn read_piece(file: &Opened, offset: u64, wanted: u64) -> Result<Bytes, Error> {
    let mut piece = Vec::new();
    while (piece.len() as u64) < wanted {
        let had = piece.len() as u64;
        let ask = u32::try_from(wanted - had).unwrap_or(u32::MAX);
        let got = file.session.raw().read(file.handle.as_str(), offset + had, ask).await?;
        if got.data.is_empty() {
            return Err(Error::UnexpectedBehavior("the file became shorter".to_owned()));
        }
        piece.extend_from_slice(&got.data);
    }
    // No more than was asked for, whatever the server sends.
    piece.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
    Ok(piece.into())
}
