//! One stream to every destination at once. A local destination takes the lead, and the others read
//! its file as it grows, as far behind as they like; without one, or once it fails, the pieces are
//! handed to each directly and the slowest sets the pace. A destination that fails or stalls is
//! dropped, and the others go on.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use sha2::Digest;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::destination::{Destination, Key, Stored, Upload};
use crate::fault::{Context, Fault, Result};
use crate::model::manifest::volume_name;
use crate::model::{Sha256, Volume};
use crate::pipeline::Piece;

/// What a follower reads from the growing file at once.
const READ_BYTES: u64 = 1 << 20;
/// Pieces on their way to each destination where there is no file to follow.
const HANDED_PIECES: usize = 2;

/// How far a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// So many bytes are in the lead's file.
    Growing(u64),
    /// So many bytes are in the lead's file; the rest is handed over.
    HandedOver(u64),
    /// The volume is whole.
    Ended(u64),
    Aborted,
}

/// One volume as a follower sees it.
struct Feed {
    name: String,
    file: Option<File>,
    progress: watch::Receiver<Progress>,
    handed: mpsc::Receiver<Bytes>,
}

/// A destination's end of it.
struct Follower {
    name: String,
    feeds: mpsc::UnboundedSender<Feed>,
    handed: Option<mpsc::Sender<Bytes>>,
    task: JoinHandle<Result<Receipt>>,
}

struct Lead {
    destination: Arc<dyn Destination>,
    /// The volume under way.
    upload: Option<(String, Box<dyn Upload>)>,
    stored: Vec<(String, Stored)>,
    failed: Option<Fault>,
}

impl Lead {
    fn fail(&mut self, fault: Fault) {
        tracing::warn!("destination '{}' failed: {}", self.destination.name(), fault.chain());
        self.failed = Some(fault);
    }
}

/// The volumes that a destination acknowledged. Only a delivery makes one.
#[derive(Debug)]
pub struct Receipt {
    stored: Vec<(String, Stored)>,
    /// What a follower read on its own account.
    digests: HashMap<String, Sha256>,
}

impl Receipt {
    /// Whether exactly these volumes were stored.
    pub fn covers<'a>(&self, volumes: impl Iterator<Item = &'a Volume>) -> Result<()> {
        let mut count = 0;
        for volume in volumes {
            count += 1;
            let stored = self
                .stored
                .iter()
                .any(|(name, stored)| *name == volume.name && stored.bytes() == volume.bytes);
            let same = self.digests.get(&volume.name).is_none_or(|d| *d == volume.sha256);
            if !stored || !same {
                return Err(Fault::transient(format!(
                    "{} was not stored as it was made",
                    volume.name
                )));
            }
        }
        if count != self.stored.len() {
            return Err(Fault::transient("more was stored than was made"));
        }
        Ok(())
    }
}

/// A delivery under way.
pub struct Delivery {
    folder: Key,
    stall: Duration,
    lead: Option<Lead>,
    followers: Vec<Follower>,
    progress: Option<watch::Sender<Progress>>,
    bytes: u64,
}

impl Delivery {
    /// The first destination whose files can be followed as they grow takes the lead.
    /// Once `cancel` is, nobody waits for a store that is silent.
    pub fn start(
        destinations: &[Arc<dyn Destination>],
        folder: Key,
        stall: Duration,
        cancel: &CancellationToken,
    ) -> Self {
        let is_local = |d: &Arc<dyn Destination>| d.place().starts_with("file://");
        let lead = destinations.iter().position(is_local);
        let followers = destinations
            .iter()
            .enumerate()
            .filter(|(n, _)| Some(*n) != lead)
            .map(|(_, destination)| {
                let (feeds, receiver) = mpsc::unbounded_channel();
                let (destination, folder) = (destination.clone(), folder.clone());
                let follow = follow(destination.clone(), folder, receiver, stall, cancel.clone());
                let name = destination.name().to_owned();
                Follower { name, feeds, handed: None, task: tokio::spawn(follow) }
            })
            .collect();
        let lead = lead.map(|n| Lead {
            destination: destinations[n].clone(),
            upload: None,
            stored: Vec::new(),
            failed: None,
        });
        Self { folder, stall, lead, followers, progress: None, bytes: 0 }
    }

    /// Takes an artifact's pieces until their channel closes. That is not its end: the caller finds
    /// out whether the stream was whole, and says so with [`end_artifact`](Self::end_artifact).
    pub async fn artifact(&mut self, name: &str, mut pieces: mpsc::Receiver<Piece>) {
        let mut volume = 0;
        self.begin_volume(volume_name(name, volume)).await;
        while let Some(piece) = pieces.recv().await {
            match piece {
                Piece::Data(data) => self.send(data).await,
                Piece::NextVolume => {
                    self.end_volume(true).await;
                    volume += 1;
                    self.begin_volume(volume_name(name, volume)).await;
                }
            }
            if !self.anyone_left() {
                return;
            }
        }
    }

    pub async fn end_artifact(&mut self, whole: bool) {
        self.end_volume(whole).await;
    }

    fn leads(&self) -> bool {
        self.lead.as_ref().is_some_and(|lead| lead.failed.is_none())
    }

    fn anyone_left(&self) -> bool {
        self.leads() || self.followers.iter().any(|follower| !follower.task.is_finished())
    }

    async fn begin_volume(&mut self, name: String) {
        self.bytes = 0;
        let stall = self.stall;
        if let Some(lead) = self.lead.as_mut().filter(|lead| lead.failed.is_none()) {
            let begun = async { lead.destination.upload(&self.folder.child(&name)?).await };
            match within(stall, begun).await {
                Ok(upload) => lead.upload = Some((name.clone(), upload)),
                Err(fault) => lead.fail(fault),
            }
        }
        let first = if self.leads() { Progress::Growing(0) } else { Progress::HandedOver(0) };
        let (progress, watched) = watch::channel(first);
        self.progress = Some(progress);
        for follower in &mut self.followers {
            let (sender, handed) = mpsc::channel(HANDED_PIECES);
            let upload = self.lead.as_ref().and_then(|lead| lead.upload.as_ref());
            let file = upload.and_then(|(_, upload)| upload.reader());
            follower.handed = Some(sender);
            let feed = Feed { name: name.clone(), file, progress: watched.clone(), handed };
            // A follower that is gone has its reason; it is read at the end.
            follower.feeds.send(feed).ok();
        }
    }

    async fn send(&mut self, data: Bytes) {
        if let Some(lead) = self.lead.as_mut().filter(|lead| lead.failed.is_none())
            && let Some((_, upload)) = lead.upload.as_mut()
        {
            match within(self.stall, upload.write(data.clone())).await {
                Ok(()) => {
                    self.bytes += data.len() as u64;
                    self.tell(Progress::Growing(self.bytes));
                    return;
                }
                Err(fault) => {
                    // The file stays open for those who still read it.
                    lead.fail(fault);
                    self.tell(Progress::HandedOver(self.bytes));
                }
            }
        }
        let sends = self.followers.iter().filter_map(|f| f.handed.as_ref()).map(|handed| {
            let data = data.clone();
            // Ends when the follower takes it, or stalls and is gone.
            async move { handed.send(data).await.ok() }
        });
        join_all(sends).await;
    }

    async fn end_volume(&mut self, whole: bool) {
        if !whole {
            self.tell(Progress::Aborted);
        } else {
            self.tell(Progress::Ended(self.bytes));
        }
        for follower in &mut self.followers {
            follower.handed = None;
        }
        let Some(lead) = &mut self.lead else { return };
        let Some((name, upload)) = lead.upload.take() else { return };
        if !whole || lead.failed.is_some() {
            return upload.abort().await;
        }
        match within(self.stall.max(COMMIT), upload.commit()).await {
            Ok(stored) => lead.stored.push((name, stored)),
            Err(fault) => lead.fail(fault),
        }
    }

    fn tell(&self, progress: Progress) {
        if let Some(sender) = &self.progress {
            sender.send_replace(progress);
        }
    }

    /// Waits for every destination, and says what became of each.
    pub async fn finish(self) -> Vec<(String, Result<Receipt>)> {
        let mut outcomes = Vec::new();
        if let Some(lead) = self.lead {
            let name = lead.destination.name().to_owned();
            let receipt = Receipt { stored: lead.stored, digests: HashMap::new() };
            outcomes.push((name, lead.failed.map_or(Ok(receipt), Err)));
        }
        for follower in self.followers {
            drop((follower.feeds, follower.handed));
            let outcome = match follower.task.await {
                Ok(outcome) => outcome,
                Err(error) => Err(error).transient("deliver"),
            };
            outcomes.push((follower.name, outcome));
        }
        outcomes
    }
}

/// Putting a large file together, or its fsync, takes longer than one piece.
const COMMIT: Duration = Duration::from_secs(300);

/// How long a store gets to take back what a cancelled run sent; what it does not take back now, the
/// next start ends.
const PARTING: Duration = Duration::from_secs(1);

fn stopped() -> Fault {
    Fault::cancelled("the run was stopped")
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Fault::transient(format!("no progress for {} s", limit.as_secs()))
            .hint("is its network or mount all right? a slow one may need a longer `stall`")),
    }
}

async fn follow(
    destination: Arc<dyn Destination>,
    folder: Key,
    mut feeds: mpsc::UnboundedReceiver<Feed>,
    stall: Duration,
    cancel: CancellationToken,
) -> Result<Receipt> {
    let mut receipt = Receipt { stored: Vec::new(), digests: HashMap::new() };
    while let Some(feed) = feeds.recv().await {
        let key = folder.child(&feed.name)?;
        let name = feed.name.clone();
        let mut upload = within(stall, destination.upload(&key)).await?;
        let sent = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(stopped()),
            sent = send_feed(feed, upload.as_mut(), stall) => sent,
        };
        let patience = if cancel.is_cancelled() { PARTING } else { stall };
        let stored = match sent {
            Ok(Some(digest)) => {
                receipt.digests.insert(name.clone(), digest);
                tokio::select! {
                    stored = within(stall.max(COMMIT), upload.commit()) => stored,
                    () = cancel.cancelled() => Err(stopped()),
                }
            }
            Ok(None) => {
                within(patience, abort(upload)).await?;
                return Err(Fault::transient("the stream broke off"));
            }
            Err(fault) => {
                within(patience, abort(upload)).await.ok();
                Err(fault)
            }
        };
        if let Err(fault) = &stored {
            tracing::warn!("destination '{}' failed: {}", destination.name(), fault.chain());
        }
        receipt.stored.push((name, stored?));
    }
    Ok(receipt)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Local;
    use crate::pipeline::sha256;

    fn volume(name: &str, content: &[u8]) -> Volume {
        Volume { name: name.into(), bytes: content.len() as u64, sha256: sha256(content) }
    }

    /// One artifact in two volumes, to two folders: the first leads and the second follows.
    async fn delivered(whole: bool) -> Vec<Result<Receipt>> {
        let folder = tempfile::tempdir().unwrap();
        let places: Vec<Arc<dyn Destination>> = ["a", "b"]
            .map(|name| {
                Arc::new(Local::new(name, folder.path().join(name))) as Arc<dyn Destination>
            })
            .into();
        let key = Key::parse("job/id").unwrap();
        let stall = Duration::from_secs(60);
        let mut delivery = Delivery::start(&places, key, stall, &CancellationToken::new());
        let (out, pieces) = mpsc::channel(3);
        for piece in [Piece::Data("one".into()), Piece::NextVolume, Piece::Data("three".into())] {
            out.send(piece).await.unwrap();
        }
        drop(out);
        delivery.artifact("x", pieces).await;
        delivery.end_artifact(whole).await;
        delivery.finish().await.into_iter().map(|(_, outcome)| outcome).collect()
    }

    #[tokio::test]
    async fn a_receipt_covers_what_was_made_and_nothing_else() {
        for (n, receipt) in delivered(true).await.into_iter().enumerate() {
            let receipt = receipt.unwrap();
            let made = [volume("x", b"one"), volume("x.001", b"three")];
            assert!(receipt.covers(made.iter()).is_ok());
            assert!(receipt.covers(made[..1].iter()).is_err(), "more was stored");
            let longer = [volume("x", b"one"), volume("x.001", b"three!")];
            assert!(receipt.covers(longer.iter()).is_err(), "another size");
            let missing = [made[0].clone(), made[1].clone(), volume("x.002", b"")];
            assert!(receipt.covers(missing.iter()).is_err(), "a volume that was not stored");
            let other = [volume("x", b"one"), volume("x.001", b"thre3")];
            // The leader writes from memory; a follower reads the file, and digests what it read.
            assert_eq!(receipt.covers(other.iter()).is_err(), n == 1);
        }
    }

    #[tokio::test]
    async fn a_stream_that_was_not_whole_is_not_covered() {
        let made = [volume("x", b"one"), volume("x.001", b"three")];
        for receipt in delivered(false).await {
            assert!(receipt.and_then(|receipt| receipt.covers(made.iter())).is_err());
        }
    }
}
