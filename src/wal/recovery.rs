//! The way from a base backup to a moment: by which segments, how far it comes, and what stands in it.
//! Knows positions and timelines; must not know where a file lies.

use std::fmt;

use jiff::Timestamp;

use super::Archive;
use crate::fault::{Fault, Result};
use crate::model::{Lsn, PhysicalFacts, Segment, WalFile};

/// What a server is recovered to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// The end of what there is.
    Latest,
    /// Everything that was committed by then.
    Time(Timestamp),
    /// Everything before this position.
    Lsn(Lsn),
    /// A restore point, `pg_create_restore_point(name)`.
    Name(String),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the end of the log"),
            Self::Time(time) => write!(f, "{}", time.strftime("%Y-%m-%d %H:%M:%S%.f UTC")),
            Self::Lsn(lsn) => write!(f, "the position {lsn}"),
            Self::Name(name) => write!(f, "the restore point '{name}'"),
        }
    }
}

impl Moment {
    /// Whether a base backup may lead there, that was over at `finished`: before its end the files do
    /// not fit together.
    pub fn is_after(&self, finished: Timestamp, facts: &PhysicalFacts) -> bool {
        match self {
            Self::Latest | Self::Name(_) => true,
            Self::Time(time) => finished <= *time,
            Self::Lsn(lsn) => facts.stop_lsn <= *lsn,
        }
    }
}

/// What leads from a base backup to a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The first moment that can be reached.
    pub start: Lsn,
    /// The last one: everything before it is there.
    pub end: Lsn,
    /// The timeline that is followed, and whether it is that of the base backup.
    pub timeline: u32,
    pub is_same: bool,
    /// What has to be fetched, in order; the last may be in pieces.
    pub segments: Vec<Segment>,
    /// The first segment that is missing, where there are more behind it.
    pub gap: Option<Segment>,
    /// A later timeline whose history is missing: what was written on it can't be reached.
    pub withheld: Option<u32>,
}

impl Archive {
    /// The way to a moment from a base backup, which brings the log up to its own end itself.
    pub fn way(&self, facts: &PhysicalFacts, moment: &Moment) -> Result<Way> {
        let size = facts.segment_bytes;
        let (start, stop) = (facts.start_lsn, facts.stop_lsn);
        // Whoever wrote the manifest may have wanted to make us count for ever.
        if start > stop || stop == Lsn(0) || stop.0 > u64::MAX / 2 || facts.timeline == 0 {
            return Err(Fault::permanent("the base backup's positions in the log make no sense"));
        }
        let timeline = self.newest_through(facts.timeline, stop);
        // The server began a new segment when the backup was over.
        let first = Segment::at(facts.timeline, Lsn(stop.0 - 1), size).next();
        let reach = self.reach(facts.timeline, first.start(size), timeline);
        let mut segments = reach.segments;
        let end = if segments.is_empty() { stop } else { reach.end };
        let gap = reach.gap;
        let withheld = self.withheld_after(timeline);
        let missing = gap.map(|gap| gap.name(size)).unwrap_or_default();
        match moment {
            Moment::Latest if gap.is_some() => {
                return Err(Fault::permanent(format!(
                    "the log has a gap: segment {missing} is missing, and there is more behind it"
                ))
                .hint(format!(
                    "--to-lsn {end} comes as far as the gap; what lies behind it needs a base backup from after it, or another destination"
                )));
            }
            Moment::Latest if withheld.is_some() => {
                let name = WalFile::History { timeline: withheld.unwrap_or_default() }.stem(size);
                return Err(Fault::permanent(format!(
                    "{name} is missing: where that timeline begins is not known, and a server would end before it"
                ))
                .hint(format!(
                    "a restarted daemon brings it from the server again, or another destination has it; --to-lsn {end} comes as far as it goes without"
                )));
            }
            Moment::Lsn(lsn) if *lsn > end || *lsn < stop => {
                let gap = gap.map(|_| format!(" (segment {missing} is missing)"));
                return Err(Fault::usage(format!(
                    "{lsn} can't be reached: the log reaches from {stop} to {end}{}",
                    gap.unwrap_or_default()
                ))
                .hint("name a position in between, or --latest"));
            }
            // The server must read a record that is not before it, to know that it has come there.
            Moment::Lsn(lsn) => {
                let last = Segment::at(timeline, *lsn, size).number + 1;
                segments.retain(|segment| segment.number <= last);
            }
            _ => {}
        }
        if let Some(twice) = segments.iter().find(|segment| self.contents(**segment).count() > 1) {
            return Err(Fault::permanent(format!(
                "the log has two contents of segment {}",
                twice.name(size)
            ))
            .hint("two servers wrote one archive: move the files of the wrong one out of the folder, by their time"));
        }
        Ok(Way {
            start: stop,
            end,
            timeline,
            is_same: timeline == facts.timeline,
            segments,
            gap,
            withheld,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Archive, Lineage};
    use super::*;
    use crate::model::{SegmentSize, Sha256};

    const SIZE: SegmentSize = SegmentSize::USUAL;

    fn at(number: u64) -> Lsn {
        Segment { timeline: 1, number }.start(SIZE)
    }

    fn archive(whole: &[(u32, u64)]) -> Archive {
        let mut archive = Archive::new(SIZE);
        for (timeline, number) in whole {
            let segment = Segment { timeline: *timeline, number: *number };
            archive.add(&WalFile::whole(segment, Sha256([1; 32])));
        }
        archive
    }

    /// Taken in segment 3.
    fn base() -> PhysicalFacts {
        PhysicalFacts {
            timeline: 1,
            start_lsn: Lsn(at(3).0 + 40),
            stop_lsn: Lsn(at(3).0 + 400),
            segment_bytes: SIZE,
            since: None,
            checksums: None,
            tablespaces: vec![],
            settings: vec![],
        }
    }

    fn numbers(way: &Way) -> Vec<u64> {
        way.segments.iter().map(|segment| segment.number).collect()
    }

    #[test]
    fn what_comes_after_the_base_backup_is_fetched() {
        let way = archive(&[(1, 3), (1, 4), (1, 5)]).way(&base(), &Moment::Latest).unwrap();
        assert_eq!((numbers(&way), way.end, way.timeline), (vec![4, 5], at(6), 1));
        let way = archive(&[]).way(&base(), &Moment::Latest).unwrap();
        assert_eq!((numbers(&way), way.end), (vec![], base().stop_lsn));
        let stop_lsn = at(4);
        let way = archive(&[(1, 4)]).way(&PhysicalFacts { stop_lsn, ..base() }, &Moment::Latest);
        assert_eq!(numbers(&way.unwrap()), [4], "the byte before its end is in segment 3");
    }

    #[test]
    fn a_gap_is_refused_where_it_lies_before_the_moment() {
        let held = archive(&[(1, 4), (1, 6)]);
        let said = held.way(&base(), &Moment::Latest).unwrap_err();
        assert!(said.chain().contains("000000010000000000000005"), "{said}");
        assert!(said.next_step().unwrap().contains("--to-lsn 0/5000000"), "{said:?}");
        let before = held.way(&base(), &Moment::Lsn(Lsn(at(4).0 + 9))).unwrap();
        assert_eq!(numbers(&before), [4]);
        let behind = held.way(&base(), &Moment::Lsn(Lsn(at(5).0 + 1))).unwrap_err();
        assert!(behind.chain().contains("is missing"), "{behind}");
        let early = held.way(&base(), &Moment::Lsn(Lsn(at(3).0 + 399))).unwrap_err();
        assert!(early.chain().contains("from 0/3000190 to 0/5000000"), "{early}");
        // By its name nobody knows where it lies: the server says so.
        let by_name = held.way(&base(), &Moment::Name("x".into())).unwrap();
        assert_eq!(by_name.gap.map(|gap| gap.number), Some(5));
    }

    #[test]
    fn two_contents_are_refused_where_they_would_be_read() {
        let mut held = archive(&[(1, 4), (1, 5), (1, 6)]);
        let twice = Segment { timeline: 1, number: 6 };
        held.add(&WalFile::whole(twice, Sha256([2; 32])));
        let said = held.way(&base(), &Moment::Latest).unwrap_err().chain();
        assert!(said.contains("two contents of segment 000000010000000000000006"), "{said}");
        assert!(held.way(&base(), &Moment::Lsn(at(4))).is_ok());
    }

    #[test]
    fn a_timeline_is_followed_only_from_where_it_began() {
        let mut held = archive(&[(1, 4), (1, 5), (1, 9), (2, 5), (2, 6)]);
        held.add_history(2, Lineage::parse("1\t0/5000500\tpromoted\n").unwrap());
        let way = held.way(&base(), &Moment::Latest).unwrap();
        let names: Vec<(u32, u64)> =
            way.segments.iter().map(|segment| (segment.timeline, segment.number)).collect();
        assert_eq!((names, way.timeline, way.gap), (vec![(1, 4), (2, 5), (2, 6)], 2, None));
        // A base backup of the former timeline, from after the promotion, never comes to the new one.
        let late = PhysicalFacts { stop_lsn: Lsn(at(5).0 + 0x600), ..base() };
        let way = held.way(&late, &Moment::Lsn(late.stop_lsn)).unwrap();
        assert_eq!((way.timeline, way.is_same), (1, true));
    }

    #[test]
    fn positions_that_make_no_sense_are_refused() {
        for (start, stop) in [(at(4), at(3)), (Lsn(0), Lsn(0)), (at(1), Lsn(u64::MAX))] {
            let facts = PhysicalFacts { start_lsn: start, stop_lsn: stop, ..base() };
            assert!(archive(&[]).way(&facts, &Moment::Latest).is_err(), "{start} {stop}");
        }
    }
}
