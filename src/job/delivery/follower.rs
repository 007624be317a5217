//! A destination that follows: it reads the lead's files as they grow, or takes what it is handed, and
//! digests what it sends. Knows one destination; must not know of the others.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sha2::Digest;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{COMMIT, Progress, Receipt, stopped, within};
use crate::destination::{Destination, Key, Stored, Upload};
use crate::durable::Existing;
use crate::fault::{Context, Fault, Result};
use crate::model::Sha256;

/// What is read from the growing file at once.
const READ_BYTES: u64 = 1 << 20;
/// How long a store gets to take back what a cancelled run sent; what it does not take back now, the
/// next start ends.
const PARTING: Duration = Duration::from_secs(1);

/// One volume as a follower sees it.
pub(super) struct Feed {
    pub name: String,
    pub file: Option<File>,
    pub progress: watch::Receiver<Progress>,
    pub handed: mpsc::Receiver<Bytes>,
}

/// A destination that follows.
pub(super) struct Carrier {
    pub destination: Arc<dyn Destination>,
    pub folder: Key,
    pub stall: Duration,
    pub cancel: CancellationToken,
}

impl Carrier {
    /// Takes up to `lanes` volumes at once, until there are no more or one fails.
    pub(super) async fn follow(
        self,
        mut feeds: mpsc::UnboundedReceiver<Feed>,
        lanes: usize,
    ) -> Result<Receipt> {
        let mut receipt = Receipt { stored: Vec::new(), digests: HashMap::new() };
        let mut under_way = FuturesUnordered::new();
        let mut failed = None;
        loop {
            let room = under_way.len() < lanes && failed.is_none();
            let carried = tokio::select! {
                Some(feed) = feeds.recv(), if room => {
                    under_way.push(self.carry(feed));
                    continue;
                }
                Some(carried) = under_way.next() => carried,
                else => break,
            };
            match carried {
                Ok((name, stored, digest)) => {
                    receipt.digests.insert(name.clone(), digest);
                    receipt.stored.push((name, stored));
                }
                Err(fault) => {
                    // The others take back what they sent.
                    self.cancel.cancel();
                    failed.get_or_insert(fault);
                }
            }
        }
        match failed {
            None => Ok(receipt),
            Some(fault) => {
                let name = self.destination.name();
                tracing::warn!("destination '{name}' failed: {}", fault.chain());
                Err(fault)
            }
        }
    }

    async fn carry(&self, feed: Feed) -> Result<(String, Stored, Sha256)> {
        let Self { destination, folder, stall, cancel } = self;
        let name = feed.name.clone();
        let mut upload =
            within(*stall, destination.upload(&folder.child(&name)?, Existing::Refuse)).await?;
        let sent = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(stopped()),
            sent = send_feed(feed, upload.as_mut(), *stall) => sent,
        };
        let patience = if cancel.is_cancelled() { PARTING } else { *stall };
        match sent {
            Ok(Some(digest)) => tokio::select! {
                stored = within((*stall).max(COMMIT), upload.commit()) => {
                    Ok((name, stored?, digest))
                }
                () = cancel.cancelled() => Err(stopped()),
            },
            Ok(None) => {
                within(patience, abort(upload)).await?;
                Err(Fault::transient("the stream broke off"))
            }
            Err(fault) => {
                within(patience, abort(upload)).await.ok();
                Err(fault)
            }
        }
    }
}

async fn abort(upload: Box<dyn Upload>) -> Result<()> {
    upload.abort().await;
    Ok(())
}

/// Sends a volume as it comes. `None`: it was aborted at its source.
async fn send_feed(
    mut feed: Feed,
    upload: &mut dyn Upload,
    stall: Duration,
) -> Result<Option<Sha256>> {
    let mut digest = sha2::Sha256::new();
    let mut offset = 0;
    let mut file = feed.file.take().map(Arc::new);
    loop {
        let progress = *feed.progress.borrow_and_update();
        let in_file = match progress {
            Progress::Aborted => return Ok(None),
            Progress::Growing(bytes) | Progress::HandedOver(bytes) | Progress::Ended(bytes) => {
                bytes
            }
        };
        if offset < in_file {
            let source = file
                .clone()
                .ok_or_else(|| Fault::transient("the local file could not be followed"))?;
            let wanted = (in_file - offset).min(READ_BYTES);
            let data = within(stall, read_at(source, offset, wanted)).await?;
            offset += data.len() as u64;
            digest.update(&data);
            within(stall, upload.write(data)).await?;
            continue;
        }
        if let Progress::Growing(_) = progress {
            if feed.progress.changed().await.is_err() {
                return Ok(None);
            }
            continue;
        }
        // Lets go of the file: it may be what fills the disk.
        file = None;
        match feed.handed.recv().await {
            Some(data) => {
                digest.update(&data);
                within(stall, upload.write(data)).await?;
            }
            None if matches!(*feed.progress.borrow(), Progress::Ended(_)) => break,
            // The sender went without a word.
            None => return Ok(None),
        }
    }
    while within(stall, upload.settle()).await? {}
    Ok(Some(Sha256(digest.finalize().into())))
}

async fn read_at(file: Arc<File>, offset: u64, bytes: u64) -> Result<Bytes> {
    let read = tokio::task::spawn_blocking(move || {
        let mut data = vec![0; usize::try_from(bytes).unwrap_or(0)];
        file.read_exact_at(&mut data, offset)?;
        Ok::<_, std::io::Error>(Bytes::from(data))
    });
    read.await.context("read the local file")?.transient("read the local file")
}
