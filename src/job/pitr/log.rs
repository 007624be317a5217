//! The log of one server on one destination: what of it is there, and the bringing of what a recovery
//! needs into a data folder. Knows names, digests and pieces; must not know what a server does with it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::destination::{Destination, StoredWal, list_wal, read_wal, wal_key};
use crate::fault::{Context, Fault, FaultKind, Result};
use crate::model::{
    Cipher, Compression, JobName, Lsn, PhysicalFacts, Segment, SegmentSize, SourceFacts, WalFile,
};
use crate::pipeline::{Decoded, Expected, Identities, Meter, decode, feed};
use crate::retry::Backoff;
use crate::source::postgres::physical::DataFolder;
use crate::wal::{Moment, Way};

/// As many as hide a store's latency.
const AT_ONCE: usize = 8;
/// How often one is tried, where trying again may help.
const ATTEMPTS: u32 = 4;
const BETWEEN: Backoff =
    Backoff { first: Duration::from_secs(1), factor: 4, most: Duration::from_secs(30) };

/// What lies there.
pub(in crate::job) struct Log {
    destination: Arc<dyn Destination>,
    job: JobName,
    system_id: String,
    size: SegmentSize,
    stored: StoredWal,
    /// Files on their way at the same time.
    pub(super) at_once: usize,
    /// Between the attempts at one.
    between: Backoff,
}

/// What a base backup's manifest says of its server's log.
pub(super) fn physical(facts: &SourceFacts) -> Result<&PhysicalFacts> {
    let none = || Fault::permanent("the backup does not say what of the log it needs");
    facts.physical.as_ref().ok_or_else(none)
}

impl Log {
    /// Looks at what is there of the log that a base backup goes on with.
    pub(in crate::job) async fn read(
        destination: &Arc<dyn Destination>,
        job: &JobName,
        facts: &SourceFacts,
    ) -> Result<Self> {
        let size = physical(facts)?.segment_bytes;
        let none = || Fault::permanent("the backup does not say of which server it is");
        let system_id = facts.system_id.clone().ok_or_else(none)?;
        let stored = read_wal(destination.as_ref(), job, &system_id, size).await?;
        let (destination, job) = (destination.clone(), job.clone());
        Ok(Self { destination, job, system_id, size, stored, at_once: AT_ONCE, between: BETWEEN })
    }

    pub(in crate::job) fn way(&self, facts: &SourceFacts, moment: &Moment) -> Result<Way> {
        self.stored.archive.way(physical(facts)?, moment)
    }

    /// Brings everything on the way into the folder: segments at once, each digest compared, the last
    /// one put together from its pieces and filled up with zeros.
    pub(super) async fn fetch(
        &self,
        way: &Way,
        folder: &DataFolder,
        identities: &Identities,
        meter: &Meter,
    ) -> Result<()> {
        for (timeline, text) in &self.stored.histories {
            let name = WalFile::History { timeline: *timeline }.stem(self.size);
            let mut file = folder.create_wal(&name)?;
            file.write_all(text.as_bytes()).context(format!("write {name}"))?;
        }
        let mut fetching: Vec<BoxFuture<'_, Result<()>>> = Vec::new();
        for segment in way.segments.iter().copied() {
            let doing =
                format!("fetch {} from '{}'", segment.name(self.size), self.destination.name());
            let fetch = self.segment(segment, folder, identities, meter);
            fetching.push(async move { fetch.await.context(doing).map_err(elsewhere) }.boxed());
        }
        stream::iter(fetching).buffer_unordered(self.at_once).try_collect::<()>().await
    }

    async fn segment(
        &self,
        segment: Segment,
        folder: &DataFolder,
        identities: &Identities,
        meter: &Meter,
    ) -> Result<()> {
        let into = Into { folder, name: &segment.name(self.size), identities, meter };
        // A segment that is whole holds all that its pieces do.
        let whole = self.stored.names.iter().find(|(file, _)| is_whole(file, segment));
        if let Some((file, name)) = whole {
            return self.whole(file, name, &into).await;
        }
        let Err(fault) = self.pieces(segment, &into).await else { return Ok(()) };
        // A server that lives goes on: its segment may have become whole, and then its pieces go.
        let file = WalFile::Piece { segment, from: 0, to: 0 };
        let (from, part) = (self.destination.as_ref(), file.folder(self.size));
        let now = list_wal(from, &self.job, &self.system_id, self.size, part.as_deref()).await?;
        match now.iter().find(|(file, _)| is_whole(file, segment)) {
            Some((file, name)) => self.whole(file, name, &into).await,
            None => Err(fault),
        }
    }

    async fn whole(&self, file: &WalFile, name: &str, into: &Into<'_>) -> Result<()> {
        let decoded = self.file(file, name, 0, self.size.bytes(), into).await?;
        let is_right = matches!(file, WalFile::Whole { digest, .. }
            if decoded.plain_sha256.to_string().starts_with(digest))
            && decoded.plain_bytes == self.size.bytes();
        match is_right {
            true => Ok(()),
            false => Err(Fault::permanent("it is damaged: it is not what its name says")),
        }
    }

    async fn pieces(&self, segment: Segment, into: &Into<'_>) -> Result<()> {
        let pieces = self.stored.archive.pieces_of(segment);
        // Later pieces are written over earlier ones: they were shipped when more was known.
        for (from, to) in covering(&pieces) {
            let file = WalFile::Piece { segment, from, to };
            let name =
                self.stored.names.get(&file).ok_or_else(|| Fault::permanent("it is not there"))?;
            let decoded = self.file(&file, name, from, to - from, into).await?;
            if decoded.plain_bytes != to - from {
                return Err(Fault::permanent(format!("its piece from {from} to {to} is damaged")));
            }
        }
        let file = into.open(false)?;
        file.set_len(self.size.bytes()).context("fill it up")
    }

    /// Reads one file to `offset` of a segment's file; tried again where that may help.
    async fn file(
        &self,
        file: &WalFile,
        name: &str,
        offset: u64,
        bytes: u64,
        into: &Into<'_>,
    ) -> Result<Decoded> {
        let key = wal_key(&self.job, &self.system_id, self.size, file, name)?;
        let expected = expected(name, bytes, into.identities);
        let mut failures = 0;
        loop {
            let attempt = async {
                let mut writer = into.open(offset == 0)?;
                writer.seek(SeekFrom::Start(offset)).context("write it")?;
                let (drive, fed) = feed(self.destination.read(&key).await?);
                let (expected, meter) = (expected.clone(), into.meter.clone());
                let decoding = tokio::task::spawn_blocking(move || {
                    decode(fed, &expected, &mut writer, &meter)
                });
                let (decoded, ()) = tokio::join!(decoding, drive);
                let mut decoded = decoded.context("decode")??;
                match decoded.writer_broke.take() {
                    Some(error) => {
                        Err(Fault::permanent("write it").cause(error).hint("is the disk full?"))
                    }
                    None => Ok(decoded),
                }
            };
            match attempt.await {
                Err(fault) if fault.is_transient() && failures + 1 < ATTEMPTS => {
                    failures += 1;
                    tracing::warn!("{key}: {}; trying again", fault.chain());
                    rest(self.between.after(failures), &into.folder.cancel).await?;
                }
                Err(fault) if fault.kind() == FaultKind::Usage => {
                    let hint = "the log is encrypted as its job was when it was written: add --identity FILE or --passphrase-file FILE";
                    return Err(fault.hint(hint));
                }
                other => return other,
            }
        }
    }
}

/// What is damaged here may be whole in another place.
fn elsewhere(fault: Fault) -> Fault {
    match fault.next_step() {
        Some(_) => fault,
        None => fault.hint(
            "try --destination NAME: another one may have it whole; --to-lsn with a position before it does without it",
        ),
    }
}

fn is_whole(file: &WalFile, wanted: Segment) -> bool {
    matches!(file, WalFile::Whole { segment, .. } if *segment == wanted)
}

async fn rest(wait: Duration, cancel: &CancellationToken) -> Result<()> {
    tokio::select! {
        () = tokio::time::sleep(wait) => Ok(()),
        () = cancel.cancelled() => Err(Fault::cancelled("the recovery was stopped")),
    }
}

/// Where a segment goes, and what opens it.
struct Into<'a> {
    folder: &'a DataFolder,
    name: &'a str,
    identities: &'a Identities,
    meter: &'a Meter,
}

impl Into<'_> {
    /// The segment's file; `anew`: without what is in it.
    fn open(&self, anew: bool) -> Result<File> {
        match anew {
            true => self.folder.create_wal(self.name),
            false => File::options()
                .write(true)
                .open(self.folder.wal_file(self.name))
                .context("write it"),
        }
    }
}

/// How a file is packed, by the endings of its name.
fn expected(name: &str, plain_bytes: u64, identities: &Identities) -> Expected {
    let cipher =
        [Cipher::Age, Cipher::Openpgp].into_iter().find(|one| name.ends_with(one.suffix()));
    let name = cipher.and_then(|cipher| name.strip_suffix(cipher.suffix())).unwrap_or(name);
    let codecs = [Compression::Zstd, Compression::Gzip];
    let codec = codecs.into_iter().find(|codec| name.ends_with(codec.suffix()));
    Expected {
        compression: codec.unwrap_or(Compression::None),
        plain_bytes,
        cipher,
        identities: identities.clone(),
    }
}

/// The fewest pieces that hold a segment's beginning as far as it is there, in order.
fn covering(pieces: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut chosen = Vec::new();
    let mut held = 0;
    while let Some(next) =
        pieces.iter().filter(|(from, to)| *from <= held && *to > held).max_by_key(|(_, to)| *to)
    {
        chosen.push(*next);
        held = next.1;
    }
    chosen
}

/// The segments of a way that were fetched, one behind the other.
pub(super) struct Fetched<'a> {
    folder: &'a DataFolder,
    size: SegmentSize,
    left: std::slice::Iter<'a, Segment>,
    open: Option<File>,
}

impl<'a> Fetched<'a> {
    pub(super) fn new(folder: &'a DataFolder, way: &'a Way, size: SegmentSize) -> Self {
        Self { folder, size, left: way.segments.iter(), open: None }
    }
}

impl io::Read for Fetched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.open {
                match file.read(buffer)? {
                    0 => self.open = None,
                    count => return Ok(count),
                }
            }
            let Some(segment) = self.left.next() else { return Ok(0) };
            self.open = Some(File::open(self.folder.wal_file(&segment.name(self.size)))?);
        }
    }
}

/// Behind this position nothing was fetched.
pub(super) fn fetched_to(way: &Way, size: SegmentSize) -> Lsn {
    way.segments.last().map_or(way.end, |last| last.end(size).min(way.end))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn no_more_pieces_are_fetched_than_are_needed() {
        assert_eq!(
            covering(&[(0, 10), (0, 30), (20, 40), (30, 50), (60, 70)]),
            [(0, 30), (30, 50)]
        );
        assert_eq!(covering(&[(10, 20)]), []);
    }

    /// Between the look at it and the fetching the server has filled its segment.
    #[tokio::test]
    async fn a_segment_that_became_whole_meanwhile_is_fetched_whole() {
        let place = tempfile::tempdir().unwrap();
        let size = SegmentSize::try_from(1 << 20).unwrap();
        let job: JobName = "db".parse().unwrap();
        let segment = Segment { timeline: 1, number: 3 };
        let folder = place.path().join("db/wal/7").join(&segment.name(size)[..16]);
        std::fs::create_dir_all(&folder).unwrap();
        let piece = folder.join(WalFile::Piece { segment, from: 0, to: 9 }.stem(size));
        std::fs::write(&piece, b"the start").unwrap();
        let facts = SourceFacts {
            system_id: Some("7".into()),
            physical: Some(PhysicalFacts {
                timeline: 1,
                start_lsn: Lsn(2 << 20),
                stop_lsn: Lsn((2 << 20) + 9),
                segment_bytes: size,
                since: None,
                checksums: None,
                tablespaces: vec![],
                settings: vec![],
            }),
            ..SourceFacts::named(crate::model::Engine::Physical, "x")
        };
        let destination: Arc<dyn Destination> =
            Arc::new(crate::destination::Local::new("local", place.path()));
        let mut log = Log::read(&destination, &job, &facts).await.unwrap();
        log.between.most = Duration::ZERO;
        let way = log.way(&facts, &Moment::Latest).unwrap();
        assert_eq!(way.segments, [segment]);
        std::fs::remove_file(piece).unwrap();
        let mut whole = b"the start and the rest".to_vec();
        whole.resize(1 << 20, 0);
        let file = WalFile::whole(segment, crate::pipeline::sha256(&whole));
        std::fs::write(folder.join(file.stem(size)), &whole).unwrap();
        let into = DataFolder {
            path: place.path().join("data"),
            spaces: BTreeMap::new(),
            owner: None,
            cancel: CancellationToken::new(),
        };
        std::fs::create_dir_all(into.path.join("pg_wal")).unwrap();
        log.fetch(&way, &into, &Identities::default(), &Meter::default()).await.unwrap();
        assert_eq!(std::fs::read(into.wal_file(&segment.name(size))).unwrap(), whole);
    }

    #[test]
    fn a_name_says_how_its_file_is_packed() {
        let of = |name: &str| {
            let expected = expected(name, 1, &Identities::default());
            (expected.compression, expected.cipher)
        };
        assert_eq!(of("x.zst"), (Compression::Zstd, None));
        assert_eq!(of("x.gz.gpg"), (Compression::Gzip, Some(Cipher::Openpgp)));
        assert_eq!(of("x.piece.zst.age"), (Compression::Zstd, Some(Cipher::Age)));
        assert_eq!(of("x"), (Compression::None, None));
    }
}
