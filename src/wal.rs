//! What an archive of the write-ahead log is good for: how far it reaches without a gap, what a recovery
//! must fetch, and what may go. Knows names of files and the rules of timelines; must not know where they
//! lie.
//!
//! A timeline begins where a server was promoted. The segment in which it does is written again under the
//! new timeline's name with all that came before, so that recovery always takes the newest timeline's
//! file: <https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES>.

pub mod heartbeat;
mod records;
mod recovery;
mod window;

use std::collections::{BTreeMap, BTreeSet};

use crate::fault::{Context, Fault, Result};
use crate::model::{Lsn, Segment, SegmentSize, WalFile};

pub use records::{Record, RecordKind, Records};
pub use recovery::{Moment, Way};
pub use window::{Kept, Needed, Spent, spent};

/// The timelines that led to one, oldest first, each with the position at which the next one began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage(Vec<(u32, Lsn)>);

impl Lineage {
    /// Reads a timeline's `.history` file: `1<TAB>0/5000000<TAB>reason`, with comments.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let parents = lines.map(|line| {
            let mut words = line.split_whitespace();
            let timeline = words.next().and_then(|word| word.parse().ok());
            let lsn = words.next().and_then(|word| word.parse().ok());
            timeline.zip(lsn).ok_or_else(|| Fault::permanent(format!("'{line}' is no timeline")))
        });
        let parents: Vec<(u32, Lsn)> =
            parents.collect::<Result<_>>().context("read a timeline's history")?;
        match parents.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
            true => Ok(Self(parents)),
            false => Err(Fault::permanent("a timeline's history goes back and forth")),
        }
    }
}

/// The files of one server in one place.
#[derive(Debug, Clone)]
pub struct Archive {
    pub segment_bytes: SegmentSize,
    /// Complete segments; more than one content is one too many.
    whole: BTreeMap<Segment, BTreeSet<String>>,
    /// Of segments that were not complete yet: from and to.
    pieces: BTreeMap<Segment, BTreeSet<(u64, u64)>>,
    lineages: BTreeMap<u32, Lineage>,
}

/// How far a recovery comes, and by which files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Everything before this is there.
    pub end: Lsn,
    /// The timeline that it ends on.
    pub timeline: u32,
    /// In order; the last may be in pieces.
    pub segments: Vec<Segment>,
    /// Where there is more behind it: the first segment that is missing.
    pub gap: Option<Segment>,
}

/// Files of a segment with two contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict(pub Segment);

impl Archive {
    pub fn new(segment_bytes: SegmentSize) -> Self {
        let (whole, pieces, lineages) = Default::default();
        Self { segment_bytes, whole, pieces, lineages }
    }

    pub fn add(&mut self, file: &WalFile) {
        match file {
            WalFile::Whole { segment, digest } => {
                self.whole.entry(*segment).or_default().insert(digest.clone());
            }
            WalFile::Piece { segment, from, to } => {
                self.pieces.entry(*segment).or_default().insert((*from, *to));
            }
            WalFile::History { .. } => {}
        }
    }

    pub fn add_history(&mut self, timeline: u32, lineage: Lineage) {
        self.lineages.insert(timeline, lineage);
    }

    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.pieces.is_empty()
    }

    pub fn timelines(&self) -> BTreeSet<u32> {
        let segments = self.whole.keys().chain(self.pieces.keys());
        segments.map(|segment| segment.timeline).chain(self.lineages.keys().copied()).collect()
    }

    /// The digests of what is stored for a segment.
    pub fn contents(&self, segment: Segment) -> impl Iterator<Item = &str> {
        self.whole.get(&segment).into_iter().flatten().map(String::as_str)
    }

    /// The first segment that has two contents.
    pub fn conflict(&self) -> Option<Conflict> {
        let twice = self.whole.iter().find(|(_, contents)| contents.len() > 1);
        twice.map(|(segment, _)| Conflict(*segment))
    }

    /// How many of a segment's bytes its pieces hold from its start without a gap.
    pub fn pieced(&self, segment: Segment) -> u64 {
        let pieces = self.pieces.get(&segment).into_iter().flatten();
        pieces.fold(0, |held, (from, to)| if *from <= held { held.max(*to) } else { held })
    }

    /// The pieces of a segment that are needed to put it together, in order.
    pub fn pieces_of(&self, segment: Segment) -> Vec<(u64, u64)> {
        self.pieces.get(&segment).into_iter().flatten().copied().collect()
    }

    /// The newest timeline that came from `timeline` after `lsn`, or itself.
    pub fn newest_through(&self, timeline: u32, lsn: Lsn) -> u32 {
        let came = self.lineages.iter().filter(|(_, lineage)| {
            lineage.0.iter().any(|(parent, end)| *parent == timeline && *end >= lsn)
        });
        came.map(|(newest, _)| *newest).max().unwrap_or(timeline)
    }

    /// The first timeline after `timeline` that has files and no history: nobody can tell where it comes from,
    /// and a server would end its recovery before it.
    pub fn withheld_after(&self, timeline: u32) -> Option<u32> {
        let later = self.timelines().into_iter().filter(|one| *one > timeline);
        later.filter(|one| !self.lineages.contains_key(one)).min()
    }

    /// The timeline whose file is read for segment `number`, on the way to `target`.
    fn timeline_of(&self, number: u64, from: u32, target: u32) -> u32 {
        let Some(Lineage(parents)) = self.lineages.get(&target) else { return from };
        // The first parent whose end lies in a later segment, for of the one in which it ends the
        // next timeline has a copy.
        let size = self.segment_bytes.bytes();
        let parent =
            parents.iter().find(|(timeline, end)| *timeline >= from && number < end.0 / size);
        parent.map_or(target, |(timeline, _)| *timeline)
    }

    /// How far the log reaches from `start` of `timeline`, on the way to the timeline `target`.
    pub fn reach(&self, timeline: u32, start: Lsn, target: u32) -> Reach {
        let size = self.segment_bytes;
        let mut segments = Vec::new();
        let mut segment = Segment::at(timeline, start, size);
        loop {
            segment.timeline = self.timeline_of(segment.number, timeline, target);
            if !self.whole.contains_key(&segment) {
                break;
            }
            segments.push(segment);
            segment = segment.next();
        }
        let pieced = self.pieced(segment);
        let end = Lsn(segment.start(size).0 + pieced).max(start);
        if pieced > 0 {
            segments.push(segment);
        }
        // Of a timeline that is not on the way, as a former primary's that went on, nothing is missed.
        let behind = |one: &Segment| {
            one.number > segment.number
                && one.timeline == self.timeline_of(one.number, timeline, target)
        };
        let more = self.whole.keys().chain(self.pieces.keys()).any(behind);
        let timeline = segments.last().map_or(timeline, |last| last.timeline);
        Reach { end, timeline, segments, gap: more.then_some(segment) }
    }

    /// The segment that comes after the last one that is whole, going on from `from`.
    pub fn next_after(&self, from: Segment) -> Segment {
        let target = self.newest_through(from.timeline, from.start(self.segment_bytes));
        let mut segment = from;
        loop {
            segment.timeline = self.timeline_of(segment.number, from.timeline, target);
            if !self.whole.contains_key(&segment) {
                return segment;
            }
            segment = segment.next();
        }
    }

    /// The newest stretch of segments without a gap: its first one. None: there is no whole one.
    pub fn newest_stretch(&self) -> Option<Segment> {
        let numbers: BTreeSet<u64> = self.whole.keys().map(|segment| segment.number).collect();
        let mut first = *numbers.last()?;
        while first > 0 && numbers.contains(&(first - 1)) {
            first -= 1;
        }
        self.whole.keys().find(|segment| segment.number == first).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Sha256;

    const SIZE: SegmentSize = SegmentSize::USUAL;

    fn segment(timeline: u32, number: u64) -> Segment {
        Segment { timeline, number }
    }

    fn archive(whole: &[(u32, u64)]) -> Archive {
        let mut archive = Archive::new(SIZE);
        for (timeline, number) in whole {
            archive.add(&WalFile::whole(segment(*timeline, *number), Sha256([1; 32])));
        }
        archive
    }

    fn start(number: u64) -> Lsn {
        segment(1, number).start(SIZE)
    }

    #[test]
    fn a_log_reaches_to_the_first_gap_and_says_so() {
        let reach = archive(&[(1, 3), (1, 4), (1, 6)]).reach(1, Lsn(start(3).0 + 40), 1);
        assert_eq!(reach.end, start(5));
        assert_eq!(reach.segments, [segment(1, 3), segment(1, 4)]);
        assert_eq!(reach.gap, Some(segment(1, 5)));
        let reach = archive(&[(1, 3), (1, 4)]).reach(1, start(3), 1);
        assert_eq!(reach.gap, None);
    }

    #[test]
    fn pieces_extend_it_as_far_as_they_join() {
        let mut held = archive(&[(1, 3)]);
        for (from, to) in [(0, 100), (50, 300), (400, 500)] {
            held.add(&WalFile::Piece { segment: segment(1, 4), from, to });
        }
        let reach = held.reach(1, start(3), 1);
        assert_eq!(reach.end, Lsn(start(4).0 + 300));
        assert_eq!(reach.segments, [segment(1, 3), segment(1, 4)]);
    }

    #[test]
    fn after_a_promotion_the_new_timelines_file_is_taken() {
        let mut held = archive(&[(1, 3), (1, 4), (2, 4), (2, 5)]);
        assert_eq!(held.reach(1, start(3), 1).segments, [segment(1, 3), segment(1, 4)]);
        let lineage = Lineage::parse("1\t0/4000500\tno recovery target specified\n").unwrap();
        held.add_history(2, lineage);
        assert_eq!(held.newest_through(1, start(3)), 2);
        let reach = held.reach(1, start(3), 2);
        assert_eq!(reach.segments, [segment(1, 3), segment(2, 4), segment(2, 5)]);
        assert_eq!(reach.timeline, 2);
        assert_eq!(held.next_after(segment(1, 3)), segment(2, 6));
    }

    #[test]
    fn what_a_former_primary_wrote_on_is_no_sign_of_a_gap() {
        let mut held = archive(&[(1, 3), (1, 4), (1, 5), (1, 6), (2, 4)]);
        held.add_history(2, Lineage::parse("1\t0/4000500\tpromoted\n").unwrap());
        let reach = held.reach(1, start(3), 2);
        assert_eq!((reach.end, reach.gap), (start(5), None));
    }

    #[test]
    fn a_timeline_without_its_history_is_known() {
        let mut held = archive(&[(1, 3), (1, 4), (2, 4), (2, 5)]);
        assert_eq!(held.withheld_after(1), Some(2));
        // A base backup of the timeline itself needs none.
        assert_eq!(held.withheld_after(2), None);
        held.add_history(2, Lineage::parse("1\t0/4000500\tpromoted\n").unwrap());
        assert_eq!(held.withheld_after(1), None);
    }

    #[test]
    fn a_history_that_is_none_is_refused() {
        for wrong in ["x\t0/1\t", "1\tx\t", "2\t0/1\n1\t0/2", "1\t0/5\n2\t0/4"] {
            assert!(Lineage::parse(wrong).is_err(), "{wrong:?} was taken");
        }
        assert_eq!(Lineage::parse("# a comment\n\n").unwrap(), Lineage::default());
    }

    #[test]
    fn two_contents_of_one_segment_are_a_conflict() {
        let mut held = archive(&[(1, 3)]);
        assert_eq!(held.conflict(), None);
        held.add(&WalFile::whole(segment(1, 3), Sha256([2; 32])));
        assert_eq!(held.conflict(), Some(Conflict(segment(1, 3))));
    }
}
