//! Names of the write-ahead log: positions, segments, timelines, and the files that hold them at rest.
//! Knows PostgreSQL's spelling and ours; must not know where a file lies or what is missing.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de};

use super::Sha256;
use super::run::words;
use crate::fault::{Fault, Result};

/// A position in the log, in bytes since its beginning; written as PostgreSQL does, `0/16B3740`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Fault::usage(format!("'{text}' is not a WAL position"))
                .hint("positions look like 0/16B3740, as pg_current_wal_lsn() writes them")
        };
        let (high, low) = text.split_once('/').ok_or_else(wrong)?;
        let is_hex = |text: &str| text.bytes().all(|c| c.is_ascii_hexdigit());
        let half = |text: &str| match text.len() {
            1..=8 if is_hex(text) => u32::from_str_radix(text, 16).ok().map(u64::from),
            _ => None,
        };
        Ok(Self(half(high).ok_or_else(wrong)? << 32 | half(low).ok_or_else(wrong)?))
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: de::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(de::Error::custom)
    }
}

/// How many bytes a segment of this server has: a power of two from 1 MiB to 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SegmentSize(u64);

impl SegmentSize {
    /// What a server has that was made without `--wal-segsize`.
    pub const USUAL: Self = Self(16 << 20);

    pub fn bytes(self) -> u64 {
        self.0
    }

    /// How many segments have the same first sixteen digits.
    fn in_a_log(self) -> u64 {
        (1 << 32) / self.0
    }
}

impl TryFrom<u64> for SegmentSize {
    type Error = Fault;

    fn try_from(bytes: u64) -> Result<Self> {
        match bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes) {
            true => Ok(Self(bytes)),
            false => Err(Fault::permanent(format!("{bytes} is no size of a WAL segment"))),
        }
    }
}

impl From<SegmentSize> for u64 {
    fn from(size: SegmentSize) -> Self {
        size.0
    }
}

/// One segment of one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    pub timeline: u32,
    /// Counted from the beginning of the log.
    pub number: u64,
}

impl Segment {
    /// The one that holds the byte at `lsn`.
    pub fn at(timeline: u32, lsn: Lsn, size: SegmentSize) -> Self {
        Self { timeline, number: lsn.0 / size.0 }
    }

    pub fn next(self) -> Self {
        Self { number: self.number + 1, ..self }
    }

    pub fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.number * size.0)
    }

    pub fn end(self, size: SegmentSize) -> Lsn {
        self.next().start(size)
    }

    /// PostgreSQL's name for it: `000000010000000000000003`.
    pub fn name(self, size: SegmentSize) -> String {
        let (log, of_log) = (self.number / size.in_a_log(), self.number % size.in_a_log());
        format!("{:08X}{log:08X}{of_log:08X}", self.timeline)
    }

    pub fn parse(name: &str, size: SegmentSize) -> Option<Self> {
        let [timeline, log, of_log] = eights(name)?;
        let segment =
            Self { timeline, number: u64::from(log) * size.in_a_log() + u64::from(of_log) };
        (timeline > 0 && u64::from(of_log) < size.in_a_log()).then_some(segment)
    }
}

/// Three numbers of eight upper-case hexadecimal digits each.
fn eights(name: &str) -> Option<[u32; 3]> {
    let digits = |c: u8| c.is_ascii_digit() || (b'A'..=b'F').contains(&c);
    if name.len() != 24 || !name.bytes().all(digits) {
        return None;
    }
    let number = |from: usize| u32::from_str_radix(&name[from..from + 8], 16).ok();
    Some([number(0)?, number(8)?, number(16)?])
}

/// A file of the archive, without the endings that say how it is packed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFile {
    /// All of a segment. The first half of its SHA-256 is in its name, so that the same segment with
    /// other content is another file.
    Whole { segment: Segment, digest: String },
    /// The bytes of a segment from `from` to `to`, of one that is not complete yet.
    Piece { segment: Segment, from: u64, to: u64 },
    /// Where a timeline came from.
    History { timeline: u32 },
}

impl WalFile {
    /// The file that holds all of `segment`.
    pub fn whole(segment: Segment, digest: Sha256) -> Self {
        Self::Whole { segment, digest: digest.to_string()[..32].to_owned() }
    }

    /// The folder that it lies in, below that of the server: as many segments as have the same first
    /// sixteen digits, so that none grows too long to be listed.
    pub fn folder(&self, size: SegmentSize) -> Option<String> {
        match self {
            Self::Whole { segment, .. } | Self::Piece { segment, .. } => {
                Some(segment.name(size)[..16].to_owned())
            }
            Self::History { .. } => None,
        }
    }

    /// Its name without the endings of codec and cipher.
    pub fn stem(&self, size: SegmentSize) -> String {
        match self {
            Self::Whole { segment, digest } => format!("{}-{digest}", segment.name(size)),
            Self::Piece { segment, from, to } => {
                format!("{}-{from:08x}-{to:08x}.piece", segment.name(size))
            }
            Self::History { timeline } => format!("{timeline:08X}.history"),
        }
    }

    /// Reads a name that lies in an archive, with whatever endings it has. None: it is no such file.
    pub fn parse(name: &str, size: SegmentSize) -> Option<Self> {
        if let Some(timeline) = name.strip_suffix(".history") {
            let timeline = u32::from_str_radix(timeline, 16).ok().filter(|t| *t > 0)?;
            let file = Self::History { timeline };
            return (file.stem(size) == name).then_some(file);
        }
        let (segment, rest) = name.split_at_checked(24)?;
        let segment = Segment::parse(segment, size)?;
        let (stem, _) = rest.strip_prefix('-')?.split_once('.').unwrap_or((&rest[1..], ""));
        let hex =
            |text: &str| text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        if let Some((from, to)) = stem.split_once('-') {
            let offset = |text: &str| match text.len() == 8 && hex(text) {
                true => u64::from_str_radix(text, 16).ok(),
                false => None,
            };
            let (from, to) = (offset(from)?, offset(to)?);
            return (from < to && to <= size.0).then_some(Self::Piece { segment, from, to });
        }
        let is_digest = stem.len() == 32 && hex(stem);
        is_digest.then(|| Self::Whole { segment, digest: stem.to_owned() })
    }
}

/// What of a server's log a base backup needs, and what started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhysicalFacts {
    pub timeline: u32,
    /// Recovery begins here.
    pub start_lsn: Lsn,
    /// Before this the copied files do not fit together.
    pub stop_lsn: Lsn,
    pub segment_bytes: SegmentSize,
    /// The backup that this one holds only the changes since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<super::BackupId>,
    /// Whether the server's pages had checksums; those of a chain all have them, or none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksums: Option<bool>,
    /// Folders outside of the data folder, by their oid: a restore asks where they are to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tablespaces: Vec<Tablespace>,
    /// Settings that a server which recovers must have at least as high, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<(String, String)>,
}

/// A tablespace of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    pub oid: u32,
    /// Where it lay.
    pub location: String,
}

/// How far the log of a job is stored, as its keeper last saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalProgress {
    pub system_id: String,
    /// The server's major version; None: nobody has noted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<u32>,
    pub timeline: u32,
    pub segment_bytes: SegmentSize,
    pub state: WalState,
    /// Why it does not go on, and the next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What the server had written at `sampled_at`.
    pub server_lsn: Lsn,
    /// When the server was last asked.
    pub sampled_at: Timestamp,
    /// Everything before it is stored, in one place at least.
    pub stored_lsn: Lsn,
    /// Whatever was committed before this is stored; None: that is not known yet.
    pub safe_at: Option<Timestamp>,
    /// How many bytes the server keeps for us.
    pub retained_bytes: u64,
    /// How many it may keep; None: nothing bounds them.
    pub retained_most: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<WalPlace>,
}

words! {
    /// What the keeper of a log is doing.
    WalState { Streaming = "streaming", Waiting = "waiting", Halted = "halted" }
}

/// How far the log is stored in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalPlace {
    pub name: String,
    /// Where the newest stretch without a gap begins.
    pub from_lsn: Lsn,
    /// Everything from there to here is there.
    pub stored_lsn: Lsn,
    /// Whatever was committed before this is there; None: that is not known yet.
    #[serde(default)]
    pub safe_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a server said of itself while it lived: at this moment, by its own clock, it had made its log durable
/// up to here. Whatever it committed before that moment lies before this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub at: Timestamp,
    pub lsn: Lsn,
    pub timeline: u32,
}

/// What one server said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeats {
    pub system_id: String,
    /// The newest last.
    pub beats: Vec<Heartbeat>,
}

/// How far a server that was recovered has come, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    pub lsn: Lsn,
    /// When the last transaction that it replayed had ended.
    pub last_ended: Option<Timestamp>,
}

/// A hole in the log that nothing fills any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalGap {
    pub system_id: String,
    pub timeline: u32,
    /// Everything from here to `to` is missing.
    pub from: Lsn,
    pub to: Lsn,
    pub at: Timestamp,
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: SegmentSize = SegmentSize::USUAL;

    #[test]
    fn positions_are_written_as_postgresql_writes_them() {
        let lsn: Lsn = "1A/16B3740".parse().unwrap();
        assert_eq!(lsn, Lsn(0x1A_016B_3740));
        assert_eq!(lsn.to_string(), "1A/16B3740");
        for wrong in ["", "0", "0/", "/0", "0/x", "0/123456789", "-1/0", "0/+1"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn a_segment_has_postgresqls_name() {
        let segment = Segment::at(1, Lsn(0x16B_3740), SIZE);
        assert_eq!(segment.name(SIZE), "000000010000000000000001");
        let last = Segment { timeline: 2, number: 255 };
        assert_eq!(last.name(SIZE), "0000000200000000000000FF");
        assert_eq!(last.next().name(SIZE), "000000020000000100000000");
        assert_eq!(Segment::parse("000000020000000100000000", SIZE), Some(last.next()));
        assert_eq!(last.next().start(SIZE), Lsn(1 << 32));
        let mega = SegmentSize::try_from(1 << 20).unwrap();
        assert_eq!(Segment { timeline: 1, number: 4096 }.name(mega), "000000010000000100000000");
        for wrong in
            ["", "00000001000000000000000g", "000000000000000000000001", "000000010000000000000100"]
        {
            assert_eq!(Segment::parse(wrong, SIZE), None, "{wrong} was taken");
        }
    }

    #[test]
    fn files_of_an_archive_read_back_and_nothing_else_does() {
        let segment = Segment { timeline: 1, number: 3 };
        let whole = WalFile::whole(segment, Sha256([0xab; 32]));
        let piece = WalFile::Piece { segment, from: 0x4000, to: 0x8000 };
        for (file, ending) in
            [(whole, ".zst.age"), (piece, ".zst"), (WalFile::History { timeline: 17 }, "")]
        {
            let name = format!("{}{ending}", file.stem(SIZE));
            assert_eq!(WalFile::parse(&name, SIZE), Some(file), "{name}");
        }
        let wrong = [
            "manifest.json",
            "000000010000000000000003",
            "000000010000000000000003-ab.zst",
            "000000010000000000000003-00008000-00004000.piece.zst",
            "000000010000000000000003-00000000-ffffffff.piece.zst",
            "0000001.history",
            "ÄÄÄÄÄÄÄÄÄÄÄÄ-",
        ];
        for name in wrong {
            assert_eq!(WalFile::parse(name, SIZE), None, "{name} was taken");
        }
    }
}
