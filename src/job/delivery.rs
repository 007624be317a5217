//! One stream to every destination at once. A local destination takes the lead, and the others read
//! its file as it grows, as far behind as they like; without one, or once it fails, the pieces are
//! handed to each directly and the slowest sets the pace. A destination that fails or stalls is
//! dropped, and the others go on.

mod follower;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::destination::{Destination, Key, Stored, Upload};
use crate::durable::Existing;
use crate::fault::{Context, Fault, Result};
use crate::model::artifact::volume_name;
use crate::model::{Sha256, Volume};
use crate::pipeline::Piece;
use follower::{Carrier, Feed};

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

/// A destination's end of it.
struct Follower {
    name: String,
    feeds: mpsc::UnboundedSender<Feed>,
    task: JoinHandle<Result<Receipt>>,
}

struct Lead {
    destination: Arc<dyn Destination>,
    stored: Mutex<Vec<(String, Stored)>>,
    failed: OnceLock<Fault>,
}

impl Lead {
    fn fail(&self, fault: Fault) {
        let said = fault.chain();
        // Another lane may have been first: its reason does.
        if self.failed.set(fault).is_ok() {
            tracing::warn!("destination '{}' failed: {said}", self.destination.name());
        }
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

/// A delivery under way: every artifact of a run, each in a lane of its own.
pub struct Delivery {
    folder: Key,
    stall: Duration,
    lead: Option<Lead>,
    followers: Vec<Follower>,
}

impl Delivery {
    /// The first destination whose files can be followed as they grow takes the lead; the others then
    /// follow one file after the other. Without it each takes as many as `lanes` at once. Once
    /// `cancel` is, nobody waits for a store that is silent.
    pub fn start(
        destinations: &[Arc<dyn Destination>],
        folder: Key,
        stall: Duration,
        lanes: usize,
        cancel: &CancellationToken,
    ) -> Self {
        let lead = destinations.iter().position(|destination| destination.is_local());
        let lanes = if lead.is_some() { 1 } else { lanes.max(1) };
        let followers = destinations
            .iter()
            .enumerate()
            .filter(|(n, _)| Some(*n) != lead)
            .map(|(_, destination)| {
                let (feeds, receiver) = mpsc::unbounded_channel();
                let name = destination.name().to_owned();
                let carrier = Carrier {
                    destination: destination.clone(),
                    folder: folder.clone(),
                    stall,
                    cancel: cancel.child_token(),
                };
                Follower { name, feeds, task: tokio::spawn(carrier.follow(receiver, lanes)) }
            })
            .collect();
        let lead = lead.map(|n| Lead {
            destination: destinations[n].clone(),
            stored: Mutex::default(),
            failed: OnceLock::new(),
        });
        Self { folder, stall, lead, followers }
    }

    /// Where one artifact goes.
    pub fn lane(&self) -> Lane<'_> {
        Lane { delivery: self, upload: None, progress: None, handed: Vec::new(), bytes: 0 }
    }

    fn leading(&self) -> Option<&Lead> {
        self.lead.as_ref().filter(|lead| lead.failed.get().is_none())
    }

    fn anyone_left(&self) -> bool {
        self.leading().is_some() || self.followers.iter().any(|f| !f.task.is_finished())
    }

    /// Waits for every destination, and says what became of each.
    pub async fn finish(self) -> Vec<(String, Result<Receipt>)> {
        let mut outcomes = Vec::new();
        if let Some(Lead { destination, stored, failed }) = self.lead {
            let stored = stored.into_inner().unwrap_or_default();
            let receipt = Receipt { stored, digests: HashMap::new() };
            let outcome = failed.into_inner().map_or(Ok(receipt), Err);
            outcomes.push((destination.name().to_owned(), outcome));
        }
        for follower in self.followers {
            drop(follower.feeds);
            let outcome = match follower.task.await {
                Ok(outcome) => outcome,
                Err(error) => Err(error).transient("deliver"),
            };
            outcomes.push((follower.name, outcome));
        }
        outcomes
    }
}

/// One artifact on its way to every destination.
pub struct Lane<'a> {
    delivery: &'a Delivery,
    /// The lead's, of the volume under way.
    upload: Option<(String, Box<dyn Upload>)>,
    progress: Option<watch::Sender<Progress>>,
    /// To each follower.
    handed: Vec<mpsc::Sender<Bytes>>,
    bytes: u64,
}

impl Lane<'_> {
    /// Takes the artifact's pieces until their channel closes. That is not its end: the caller finds
    /// out whether the stream was whole, and says so with [`end`](Self::end).
    pub async fn carry(&mut self, name: &str, mut pieces: mpsc::Receiver<Piece>) {
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
            if !self.delivery.anyone_left() {
                return;
            }
        }
    }

    pub async fn end(mut self, whole: bool) {
        self.end_volume(whole).await;
    }

    async fn begin_volume(&mut self, name: String) {
        self.bytes = 0;
        let Delivery { folder, stall, followers, .. } = self.delivery;
        let lead = self.delivery.leading();
        if let Some(lead) = lead {
            let begun =
                async { lead.destination.upload(&folder.child(&name)?, Existing::Refuse).await };
            match within(*stall, begun).await {
                Ok(upload) => self.upload = Some((name.clone(), upload)),
                Err(fault) => lead.fail(fault),
            }
        }
        let leads = self.upload.is_some();
        let first = if leads { Progress::Growing(0) } else { Progress::HandedOver(0) };
        let (progress, watched) = watch::channel(first);
        self.progress = Some(progress);
        self.handed.clear();
        for follower in followers {
            let (sender, handed) = mpsc::channel(HANDED_PIECES);
            let file = self.upload.as_ref().and_then(|(_, upload)| upload.reader());
            self.handed.push(sender);
            let feed = Feed { name: name.clone(), file, progress: watched.clone(), handed };
            // A follower that is gone has its reason; it is read at the end.
            follower.feeds.send(feed).ok();
        }
    }

    async fn send(&mut self, data: Bytes) {
        if let Some(lead) = &self.delivery.lead
            && let Some((_, upload)) = self.upload.as_mut()
        {
            let written = match lead.failed.get() {
                None => within(self.delivery.stall, upload.write(data.clone())).await,
                Some(_) => Err(stopped()),
            };
            match written {
                Ok(()) => {
                    self.bytes += data.len() as u64;
                    self.tell(Progress::Growing(self.bytes));
                    return;
                }
                Err(fault) => {
                    // The file stays open for those who still read it.
                    lead.fail(fault);
                    self.tell(Progress::HandedOver(self.bytes));
                    if let Some((_, upload)) = self.upload.take() {
                        upload.abort().await;
                    }
                }
            }
        }
        let sends = self.handed.iter().map(|handed| {
            let data = data.clone();
            // Ends when the follower takes it, or stalls and is gone.
            async move { handed.send(data).await.ok() }
        });
        join_all(sends).await;
    }

    async fn end_volume(&mut self, whole: bool) {
        self.tell(if whole { Progress::Ended(self.bytes) } else { Progress::Aborted });
        self.handed.clear();
        let Some((name, upload)) = self.upload.take() else { return };
        let Some(lead) = self.delivery.leading().filter(|_| whole) else {
            return upload.abort().await;
        };
        match within(self.delivery.stall.max(COMMIT), upload.commit()).await {
            Ok(stored) => match lead.stored.lock() {
                Ok(mut receipt) => receipt.push((name, stored)),
                Err(_) => lead.fail(stopped()),
            },
            Err(fault) => lead.fail(fault),
        }
    }

    fn tell(&self, progress: Progress) {
        if let Some(sender) = &self.progress {
            sender.send_replace(progress);
        }
    }
}

/// Putting a large file together, or its fsync, takes longer than one piece.
pub(super) const COMMIT: Duration = Duration::from_secs(300);

fn stopped() -> Fault {
    Fault::cancelled("the run was stopped")
}

pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Fault::transient(format!("no progress for {} s", limit.as_secs()))
            .hint("is its network or mount all right? a slow one may need a longer `stall`")),
    }
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
        let delivery = Delivery::start(&places, key, stall, 1, &CancellationToken::new());
        let (out, pieces) = mpsc::channel(3);
        for piece in [Piece::Data("one".into()), Piece::NextVolume, Piece::Data("three".into())] {
            out.send(piece).await.unwrap();
        }
        drop(out);
        let mut lane = delivery.lane();
        lane.carry("x", pieces).await;
        lane.end(whole).await;
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
