//! One destination's part of the log: what lies there, and how a file comes to it. Knows keys and
//! conditional creation; must not know the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::{Job, Place};
use crate::clock::Stopwatch;
use crate::destination::{Destination, StoredWal, list_wal, read_small, read_wal, wal_key};
use crate::durable::Existing;
use crate::fault::{Fault, Result};
use crate::model::{JobName, Lsn, Segment, SegmentSize, WalFile, WalPlace};
use crate::wal::{Archive, Needed, Spent, spent};

/// How long a place that failed is left alone.
const REST: Duration = Duration::from_secs(10);

/// A file of the log as it is stored, the same everywhere.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    pub file: WalFile,
    /// With the endings of codec and cipher.
    pub name: String,
    pub bytes: Bytes,
}

/// Why a file was not stored.
pub(super) enum Refused {
    /// It is tried again.
    Later(Fault),
    /// The segment is there with another content: everything stops.
    Conflict(Fault),
}

impl Refused {
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Later(fault) | Self::Conflict(fault) => fault,
        }
    }
}

/// The log in one place.
pub(super) struct Lane {
    pub destination: Arc<dyn Destination>,
    job: JobName,
    system_id: String,
    size: SegmentSize,
    stall: Duration,
    /// What lies there; None: it could not be read yet.
    archive: Option<Archive>,
    /// What the timelines came from whose history lies there.
    histories: BTreeMap<u32, String>,
    /// Where the newest stretch begins, and the segment that comes next.
    from: Option<Segment>,
    next: Option<Segment>,
    /// How many bytes of `next` lie there in pieces.
    pieced: u64,
    /// Pieces there that are to go once their segment is whole, each with its name.
    loose: BTreeSet<(WalFile, String)>,
    pub fault: Option<Fault>,
    /// Since its last failure; the others do not wait for it again at once.
    failed: Option<Stopwatch>,
}

impl Lane {
    pub(super) fn new(job: &Job, place: &Place, system_id: &str, size: SegmentSize) -> Self {
        Self {
            destination: place.destination.clone(),
            job: job.name.clone(),
            system_id: system_id.to_owned(),
            size,
            stall: job.stall,
            archive: None,
            histories: BTreeMap::new(),
            from: None,
            next: None,
            pieced: 0,
            loose: BTreeSet::new(),
            fault: None,
            failed: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.destination.name()
    }

    /// Runs what may take too long; what goes wrong is remembered.
    async fn bounded<T>(stall: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(stall, work).await {
            Ok(done) => done,
            Err(_) => Err(Fault::transient(format!("no answer in {stall:?}"))),
        }
    }

    /// Looks at what lies there.
    pub(super) async fn look(&mut self) {
        let reading = read_wal(self.destination.as_ref(), &self.job, &self.system_id, self.size);
        match Self::bounded(self.stall, reading).await {
            Ok(StoredWal { archive, histories, .. }) => {
                self.histories = histories;
                self.from = archive.newest_stretch();
                self.next = self.from.map(|from| archive.next_after(from));
                self.pieced = self.next.map_or(0, |next| archive.pieced(next));
                self.archive = Some(archive);
                self.fault = None;
            }
            Err(fault) => {
                self.fault = Some(fault);
                self.failed = Some(Stopwatch::start());
            }
        }
    }

    /// The first segment with two contents, where there is one.
    pub(super) fn conflict(&self) -> Option<Segment> {
        Some(self.archive.as_ref()?.conflict()?.0)
    }

    /// The segment that is to be stored next; None: there is none yet.
    pub(super) fn next(&self) -> Option<Segment> {
        self.next
    }

    pub(super) fn is_resting(&self) -> bool {
        self.failed.as_ref().is_some_and(|since| since.elapsed() < REST)
    }

    pub(super) fn is_read(&self) -> bool {
        self.archive.is_some()
    }

    /// The log begins anew with `first`: behind a gap, or for the first time.
    pub(super) fn begin(&mut self, first: Segment) {
        (self.from, self.next, self.pieced) = (Some(first), Some(first), 0);
    }

    /// Everything from the beginning of its newest stretch to here is there.
    pub(super) fn stored(&self) -> Option<Lsn> {
        self.next.map(|next| Lsn(next.start(self.size).0 + self.pieced))
    }

    pub(super) fn place(&self) -> Option<WalPlace> {
        Some(WalPlace {
            name: self.name().to_owned(),
            from_lsn: self.from?.start(self.size),
            stored_lsn: self.stored()?,
            safe_at: None,
            error: self.fault.as_ref().map(Fault::chain),
        })
    }

    /// Stores a file. The same one once more is fine; another content of a segment that is there is
    /// not.
    pub(super) async fn put(&mut self, packed: &Packed) -> Result<(), Refused> {
        let put = Self::bounded(self.stall, self.put_new(packed)).await;
        let put = put.map_err(Refused::Later).and_then(|agrees| match agrees {
            true => Ok(()),
            false => {
                let segment = packed.name.split('-').next().unwrap_or_default();
                Err(Refused::Conflict(conflict(segment, self.name())))
            }
        });
        match &put {
            Ok(()) => {
                (self.fault, self.failed) = (None, None);
                self.note(packed);
            }
            Err(Refused::Later(fault) | Refused::Conflict(fault)) => {
                self.fault = Some(Fault::transient(fault.chain()));
                self.failed = Some(Stopwatch::start());
            }
        }
        put
    }

    /// False: the segment is there with another content.
    async fn put_new(&self, packed: &Packed) -> Result<bool> {
        let Packed { file, name, bytes } = packed;
        if matches!(file, WalFile::History { timeline } if self.histories.contains_key(timeline)) {
            return Ok(true);
        }
        if let (WalFile::Whole { segment, digest }, Some(archive)) = (file, &self.archive) {
            let mut held = archive.contents(*segment).peekable();
            if held.peek().is_some() {
                return Ok(held.all(|held| held == digest));
            }
        }
        let key = wal_key(&self.job, &self.system_id, self.size, file, name)?;
        let put = self.destination.put(&key, bytes.clone(), Existing::Refuse).await;
        match put {
            Ok(_) => {}
            Err(fault) if fault.lasts() => {
                // Its name says what is in it, so that one that is there is this one.
                if self.destination.size(&key).await?.is_none_or(|held| held == 0) {
                    return Err(fault);
                }
            }
            Err(fault) => return Err(fault),
        }
        // Somebody else may store the same segment of another server at this moment.
        if let WalFile::Whole { segment, digest } = file {
            let (destination, folder) = (self.destination.as_ref(), file.folder(self.size));
            let (job, id) = (&self.job, &self.system_id);
            let there = list_wal(destination, job, id, self.size, folder.as_deref()).await?;
            let is_other = |file: &WalFile| matches!(file, WalFile::Whole { segment: one, digest: held } if one == segment && held != digest);
            return Ok(!there.iter().any(|(file, _)| is_other(file)));
        }
        Ok(true)
    }

    /// What was stored, by the file's name.
    fn note(&mut self, packed: &Packed) {
        if let Some(archive) = &mut self.archive {
            archive.add(&packed.file);
        }
        match &packed.file {
            WalFile::Whole { segment, .. } if Some(*segment) == self.next => {
                self.next = Some(segment.next());
                self.pieced = 0;
            }
            WalFile::Piece { segment, from, to } => {
                if Some(*segment) == self.next && *from <= self.pieced {
                    self.pieced = self.pieced.max(*to);
                }
                self.loose.insert((packed.file.clone(), packed.name.clone()));
            }
            WalFile::History { timeline } => {
                let text = String::from_utf8_lossy(&packed.bytes).into_owned();
                self.histories.insert(*timeline, text);
            }
            WalFile::Whole { .. } => {}
        }
    }

    /// Histories that lie here and not there.
    pub(super) fn histories_beyond(&self, other: &Self) -> Vec<Packed> {
        let lacking = self.histories.iter().filter(|one| !other.histories.contains_key(one.0));
        let packed = |(timeline, text): (&u32, &String)| {
            let file = WalFile::History { timeline: *timeline };
            Packed { name: file.stem(self.size), file, bytes: text.clone().into() }
        };
        lacking.map(packed).collect()
    }

    /// The whole segment of that number, as it lies there.
    pub(super) async fn holding(&self, number: u64) -> Result<Option<Packed>> {
        let segment = Segment { timeline: self.next.map_or(1, |next| next.timeline), number };
        let folders = (1..=segment.timeline).rev().map(|timeline| Segment { timeline, number });
        for segment in folders {
            let folder = segment.name(self.size)[..16].to_owned();
            let destination = self.destination.as_ref();
            let (job, id) = (&self.job, &self.system_id);
            for (file, name) in list_wal(destination, job, id, self.size, Some(&folder)).await? {
                if !matches!(&file, WalFile::Whole { segment: one, .. } if *one == segment) {
                    continue;
                }
                let key = wal_key(job, id, self.size, &file, &name)?;
                let most = 2 * self.size.bytes();
                let Some(bytes) = read_small(destination, &key, most).await? else { continue };
                return Ok(Some(Packed { file, name, bytes }));
            }
        }
        Ok(None)
    }

    /// Where the log that lies here now begins, if that is behind `wanted`: what was before it is gone.
    pub(super) async fn begins_behind(&self, wanted: Segment) -> Result<Option<Segment>> {
        let reading = read_wal(self.destination.as_ref(), &self.job, &self.system_id, self.size);
        let first = Self::bounded(self.stall, reading).await?.archive.newest_stretch();
        Ok(first.filter(|first| first.number > wanted.number))
    }

    /// A new timeline has the segment that the old one ended in.
    pub(super) fn follow(&mut self, timeline: u32) {
        if let Some(next) = &mut self.next
            && next.timeline < timeline
        {
            next.timeline = timeline;
            self.pieced = 0;
        }
    }

    /// Deletes the pieces of segments that are stored whole by now.
    pub(super) async fn tidy(&mut self) {
        let Some(next) = self.next.filter(|_| !self.destination.append_only()) else { return };
        let is_over = |(file, _): &&(WalFile, String)| match file {
            WalFile::Piece { segment, .. } => {
                segment.timeline == next.timeline && segment.number < next.number
            }
            _ => false,
        };
        let over: Vec<(WalFile, String)> = self.loose.iter().filter(is_over).cloned().collect();
        let mut known = over.clone();
        let wholes = over.iter().filter_map(|(file, _)| match file {
            WalFile::Piece { segment, .. } => {
                let digest = self.archive.as_ref()?.contents(*segment).next()?.to_owned();
                Some((WalFile::Whole { segment: *segment, digest }, String::new()))
            }
            _ => None,
        });
        known.extend(wholes.collect::<Vec<_>>());
        for spent in spent(&self.job, &self.system_id, self.size, &Needed::all(), &known) {
            match self.discard(&spent).await {
                Ok(()) => {
                    self.loose.remove(&(spent.file().clone(), spent.name().to_owned()));
                }
                Err(fault) => return tracing::debug!("a piece stays: {}", fault.chain()),
            }
        }
    }

    async fn discard(&self, spent: &Spent) -> Result<()> {
        Self::bounded(self.stall, self.destination.discard(spent)).await.map(drop)
    }
}

/// Two servers write one archive, or one of them is not what it was.
pub(super) fn conflict(segment: &str, place: &str) -> Fault {
    Fault::permanent(format!("the segment {segment} is on '{place}' with another content"))
        .hint("two servers with one identifier write there: give one of the two jobs another name")
}
