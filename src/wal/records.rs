//! What the log itself says: where its last record ends, when transactions ended, which restore points
//! it holds. Knows how records lie in pages, as PostgreSQL 13 to 18 write them; must not know what they
//! change.
//!
//! A server that is told to stop at a moment, and meets nothing that is later, refuses to open. So it is
//! asked here first: <https://git.postgresql.org/gitweb/?p=postgresql.git;f=src/include/access/xlogrecord.h>.

use std::io::{self, Read};

use jiff::Timestamp;

use crate::model::{Lsn, SegmentSize};

const LONG_HEADER: usize = 40;
const SHORT_HEADER: usize = 24;
const RECORD_HEADER: usize = 24;
/// All that is looked at: the header, two small blocks, and the name of a restore point.
const LOOKED_AT: usize = 160;
/// PostgreSQL refuses to write a longer one.
const MOST_BYTES: u32 = 1 << 30;
/// Set in a page that goes on with a record.
const GOES_ON: u16 = 1;
const POSTGRES_EPOCH_SECONDS: i64 = 946_684_800;

/// One record, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub start: Lsn,
    /// Where the next one may begin.
    pub end: Lsn,
    pub kind: RecordKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordKind {
    /// A transaction was committed or rolled back.
    Ended(Timestamp),
    RestorePoint(String),
    /// The rest of the segment is empty.
    Switch,
    Other,
}

/// Records out of segments that follow one another.
pub struct Records<R> {
    input: R,
    at: u64,
    /// Behind this there is nothing.
    limit: u64,
    size: SegmentSize,
    page: u64,
    previous: Option<u64>,
    broken: Option<Lsn>,
}

/// What a page begins with.
struct Page {
    goes_on: bool,
    /// How many bytes of an earlier record it begins with.
    rest: u64,
}

/// What came of reading some bytes.
enum Taken {
    Bytes(Vec<u8>),
    /// A record that was never finished: its server crashed, and began anew with this page.
    Abandoned,
    Over,
}

impl<R: Read> Records<R> {
    /// `input` begins with a segment at `start`, and holds the log up to `limit`.
    pub fn new(input: R, start: Lsn, limit: Lsn, size: SegmentSize) -> Self {
        // The first page says how large pages are.
        Self { input, at: start.0, limit: limit.0, size, page: 8192, previous: None, broken: None }
    }

    /// Where something lies that is no log, if that was met before the limit.
    pub fn broken(&self) -> Option<Lsn> {
        self.broken
    }

    fn broke<T>(&mut self, at: u64) -> io::Result<Option<T>> {
        self.broken = Some(Lsn(at));
        Ok(None)
    }

    /// The next whole one; `None` at the end of what was written.
    pub fn next_record(&mut self) -> io::Result<Option<Record>> {
        loop {
            self.skip(self.at.next_multiple_of(8) - self.at)?;
            if self.at.is_multiple_of(self.page) {
                let Some(page) = self.header()? else { return Ok(None) };
                if page.rest > 0 {
                    match self.take(page.rest, 0)? {
                        Taken::Over => return Ok(None),
                        _ => continue,
                    }
                }
            }
            let start = self.at;
            if start + 8 > self.limit {
                return Ok(None);
            }
            let Taken::Bytes(length) = self.take(4, 4)? else { return Ok(None) };
            let length = u32_at(&length, 0);
            if !(24..=MOST_BYTES).contains(&length) {
                return self.broke(start);
            }
            let bytes = match self.take(u64::from(length) - 4, LOOKED_AT)? {
                Taken::Bytes(bytes) => [&length.to_le_bytes()[..], &bytes].concat(),
                Taken::Abandoned => continue,
                Taken::Over => return Ok(None),
            };
            // What an earlier use of the file has left does not follow on this one.
            let follows = self.previous.is_none_or(|previous| u64_at(&bytes, 8) == previous);
            if !follows {
                return self.broke(start);
            }
            self.previous = Some(start);
            let kind = kind(&bytes);
            if kind == RecordKind::Switch {
                self.skip(self.at.next_multiple_of(self.size.bytes()) - self.at)?;
            }
            let end = Lsn(self.at.next_multiple_of(8));
            return Ok(Some(Record { start: Lsn(start), end, kind }));
        }
    }

    /// Reads the head of the page that begins here.
    fn header(&mut self) -> io::Result<Option<Page>> {
        let is_first = self.at.is_multiple_of(self.size.bytes());
        let length = if is_first { LONG_HEADER } else { SHORT_HEADER };
        if self.at + length as u64 > self.limit {
            return Ok(None);
        }
        let mut whole = [0; LONG_HEADER];
        let bytes = &mut whole[..length];
        self.input.read_exact(bytes)?;
        if u64_at(bytes, 8) != self.at {
            return self.broke(self.at);
        }
        if is_first {
            let page = u64::from(u32_at(bytes, 36));
            let fits = page.is_power_of_two() && (1024..=65536).contains(&page);
            if !fits {
                return self.broke(self.at);
            }
            self.page = page;
        }
        self.at += length as u64;
        let goes_on = u16::from_le_bytes([bytes[2], bytes[3]]) & GOES_ON != 0;
        let rest = if goes_on { u64::from(u32_at(bytes, 16)) } else { 0 };
        Ok(Some(Page { goes_on, rest }))
    }

    /// Takes so many bytes of a record, over as many pages as it lies in; the first `most` are given.
    fn take(&mut self, mut count: u64, most: usize) -> io::Result<Taken> {
        let mut kept = Vec::new();
        while count > 0 {
            if self.at.is_multiple_of(self.page) {
                match self.header()? {
                    Some(page) if page.goes_on => {}
                    Some(_) => return Ok(Taken::Abandoned),
                    None => return Ok(Taken::Over),
                }
            }
            let here = count.min(self.page - self.at % self.page);
            if self.at + here > self.limit {
                return Ok(Taken::Over);
            }
            let held = kept.len();
            let wanted = usize::try_from(here).unwrap_or(usize::MAX).min(most - held.min(most));
            kept.resize(held + wanted, 0);
            self.input.read_exact(&mut kept[held..])?;
            self.at += wanted as u64;
            self.skip(here - wanted as u64)?;
            count -= here;
        }
        Ok(Taken::Bytes(kept))
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let count = count.min(self.limit.saturating_sub(self.at));
        io::copy(&mut self.input.by_ref().take(count), &mut io::sink())?;
        self.at += count;
        Ok(())
    }
}

/// What a record says, by the first bytes of it.
fn kind(bytes: &[u8]) -> RecordKind {
    let (Some(info), Some(manager)) = (bytes.get(16), bytes.get(17)) else {
        return RecordKind::Other;
    };
    match (manager, info & 0xF0) {
        (0, 0x40) => RecordKind::Switch,
        (0, 0x70) => {
            main_data(bytes).and_then(name).map_or(RecordKind::Other, RecordKind::RestorePoint)
        }
        // Commit and abort, also of what was prepared.
        (1, info) if matches!(info & 0x70, 0x00 | 0x20 | 0x30 | 0x40) => {
            main_data(bytes).and_then(time).map_or(RecordKind::Other, RecordKind::Ended)
        }
        _ => RecordKind::Other,
    }
}

/// Where what a record says begins, behind its list of blocks; those that are looked at have none.
fn main_data(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(RECORD_HEADER..)?;
    loop {
        let (id, behind) = rest.split_first()?;
        rest = match id {
            255 => return behind.get(1..),
            254 => return behind.get(4..),
            // Where it was replicated from; the transaction that it is a part of.
            253 => behind.get(2..)?,
            252 => behind.get(4..)?,
            _ => return None,
        };
    }
}

fn time(data: &[u8]) -> Option<Timestamp> {
    let micros = i64::from_le_bytes(data.get(..8)?.try_into().ok()?);
    Timestamp::from_microsecond(micros.checked_add(POSTGRES_EPOCH_SECONDS * 1_000_000)?).ok()
}

fn name(data: &[u8]) -> Option<String> {
    let name = data.get(8..)?.split(|byte| *byte == 0).next()?;
    String::from_utf8(name.to_vec()).ok()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: SegmentSize = SegmentSize::USUAL;
    const START: u64 = 16 << 20;
    const PAGE: u64 = 8192;

    /// A log as a server writes it.
    struct Written {
        bytes: Vec<u8>,
        previous: u64,
    }

    impl Written {
        fn new() -> Self {
            let mut log = Self { bytes: Vec::new(), previous: 0 };
            log.page(0);
            log
        }

        fn at(&self) -> u64 {
            START + self.bytes.len() as u64
        }

        fn page(&mut self, rest: u32) {
            let at = self.at();
            self.bytes.extend([0xD1_u8, 0x10]);
            self.bytes.extend(u16::from(rest > 0).to_le_bytes());
            self.bytes.extend(1_u32.to_le_bytes());
            self.bytes.extend(at.to_le_bytes());
            self.bytes.extend(rest.to_le_bytes());
            self.bytes.extend([0; 4]);
            if at == START {
                self.bytes.extend([0; 8]);
                self.bytes.extend((16_u32 << 20).to_le_bytes());
                self.bytes.extend(8192_u32.to_le_bytes());
            }
        }

        /// A record, over as many pages as it takes; where it begins.
        fn record(&mut self, manager: u8, info: u8, data: &[u8]) -> u64 {
            while !self.at().is_multiple_of(8) {
                self.bytes.push(0);
            }
            if self.at().is_multiple_of(PAGE) {
                self.page(0);
            }
            let start = self.at();
            let mut record = Vec::new();
            record.extend((24 + 5 + data.len() as u32).to_le_bytes());
            record.extend(7_u32.to_le_bytes());
            record.extend(self.previous.to_le_bytes());
            record.extend([info, manager, 0, 0, 1, 2, 3, 4, 254]);
            record.extend((data.len() as u32).to_le_bytes());
            record.extend(data);
            for (n, byte) in record.iter().enumerate() {
                if self.at().is_multiple_of(PAGE) {
                    self.page((record.len() - n) as u32);
                }
                self.bytes.push(*byte);
            }
            self.previous = start;
            start
        }

        fn read(&self, limit: u64) -> (Vec<Record>, Option<Lsn>) {
            let mut bytes = self.bytes.clone();
            bytes.resize(64 << 10, 0);
            read(&bytes, limit)
        }
    }

    fn read(bytes: &[u8], limit: u64) -> (Vec<Record>, Option<Lsn>) {
        let mut records = Records::new(bytes, Lsn(START), Lsn(limit), SIZE);
        let mut all = Vec::new();
        while let Ok(Some(record)) = records.next_record() {
            all.push(record);
        }
        (all, records.broken())
    }

    fn commit(time: Timestamp) -> [u8; 8] {
        (time.as_microsecond() - POSTGRES_EPOCH_SECONDS * 1_000_000).to_le_bytes()
    }

    #[test]
    fn records_are_read_over_pages_up_to_the_last_whole_one() {
        let time: Timestamp = "2025-11-24T19:30:00.25Z".parse().unwrap();
        let mut log = Written::new();
        log.record(10, 0, &[9; 30]);
        let long = log.record(10, 0, &[9; 20_000]);
        let committed = log.record(1, 0x80, &commit(time));
        let mut point = vec![0; 72];
        point[8..14].copy_from_slice(b"before");
        log.record(0, 0x70, &point);
        let end = log.at();
        let (all, broken) = log.read(START + (64 << 10));
        let kinds: Vec<&RecordKind> = all.iter().map(|record| &record.kind).collect();
        let named = RecordKind::RestorePoint("before".into());
        let ended = RecordKind::Ended(time);
        assert_eq!(kinds, [&RecordKind::Other, &RecordKind::Other, &ended, &named]);
        assert_eq!((all[1].start, all[2].start), (Lsn(long), Lsn(committed)));
        assert_eq!(all[3].end, Lsn(end.next_multiple_of(8)));
        assert!(broken.is_some(), "zeros are no log");
        // Of what is not all there nothing is said, and nothing is wrong.
        let (some, broken) = log.read(committed + 10);
        assert_eq!((some.len(), broken), (2, None));
    }

    #[test]
    fn a_record_that_does_not_follow_is_none() {
        let mut log = Written::new();
        log.record(10, 0, &[9; 30]);
        log.previous = 5;
        let wrong = log.record(10, 0, &[9; 30]);
        let (all, broken) = log.read(START + (64 << 10));
        assert_eq!((all.len(), broken), (1, Some(Lsn(wrong))));
    }

    #[test]
    fn a_page_of_another_place_is_none() {
        let mut log = Written::new();
        log.record(10, 0, &[9; 20_000]);
        let second = PAGE as usize;
        log.bytes[second + 8] ^= 1;
        assert_eq!(log.read(START + (64 << 10)), (vec![], Some(Lsn(START + PAGE))));
    }

    proptest! {
        #[test]
        fn whatever_is_read_comes_to_an_end(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..40_000),
            limit in 0_u64..50_000,
        ) {
            let mut head = Written::new();
            head.record(10, 0, &[9; 30]);
            let count = head.bytes.len().min(bytes.len());
            bytes[..count].copy_from_slice(&head.bytes[..count]);
            read(&bytes, START + limit);
        }
    }
}
