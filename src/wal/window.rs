//! Which of the log a destination still needs, and what may go: by base backups and positions, never by the
//! age of a file. Knows when base backups were over; must not know where a file lies. Only this file can make
//! a [`Spent`], and nothing else of a log can be deleted.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use jiff::Timestamp;

use crate::model::{JobName, Lsn, PhysicalFacts, Segment, SegmentSize, WalFile};

/// A base backup that a destination keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub facts: PhysicalFacts,
    pub finished: Timestamp,
    /// Its server had damaged pages: no recovery begins with it where there is another.
    pub suspect: bool,
}

/// The segments that are needed, by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// All from here on.
    from: u64,
    /// What each older base backup needs to come to its own end.
    own: Vec<RangeInclusive<u64>>,
}

impl Needed {
    /// Nothing is known of what is needed, so all of it is.
    pub fn all() -> Self {
        Self { from: 0, own: Vec::new() }
    }

    /// By what is kept, where every moment since `since` must be reached; None: every one since the oldest
    /// base backup. A moment is reached from the newest base backup that was over before it.
    pub fn by(kept: &[Kept], since: Option<Timestamp>, size: SegmentSize) -> Self {
        let number = |lsn: Lsn| lsn.0 / size.bytes();
        let over = |since| kept.iter().filter(move |base| !base.suspect && base.finished <= since);
        let anchor = since.and_then(|since| over(since).map(|base| base.finished).max());
        // Of two that overlapped, the one that was over later may have begun earlier.
        let later = kept.iter().filter(|base| anchor.is_none_or(|anchor| base.finished >= anchor));
        let from = later.map(|base| number(base.facts.start_lsn)).min().unwrap_or(0);
        let own = kept.iter().map(|base| {
            let last = base.facts.stop_lsn.0.saturating_sub(1);
            number(base.facts.start_lsn)..=number(Lsn(last))
        });
        Self { from, own: own.filter(|range| *range.start() < from).collect() }
    }

    pub fn has(&self, number: u64) -> bool {
        number >= self.from || self.own.iter().any(|range| range.contains(&number))
    }

    /// From this segment on nothing goes.
    pub fn from(&self) -> u64 {
        self.from
    }
}

/// Permission to delete one file of the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Spent {
    job: JobName,
    system_id: String,
    size: SegmentSize,
    file: WalFile,
    name: String,
}

impl Spent {
    pub fn job(&self) -> &JobName {
        &self.job
    }

    pub fn system_id(&self) -> &str {
        &self.system_id
    }

    /// What it is called there, with all endings.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn segment_bytes(&self) -> SegmentSize {
        self.size
    }

    pub fn file(&self) -> &WalFile {
        &self.file
    }
}

/// What may go of `files`, each with its name there: segments that are not needed, and pieces of what is
/// stored whole.
pub fn spent(
    job: &JobName,
    system_id: &str,
    size: SegmentSize,
    needed: &Needed,
    files: &[(WalFile, String)],
) -> Vec<Spent> {
    let whole: BTreeSet<Segment> = files
        .iter()
        .filter_map(|(file, _)| match file {
            WalFile::Whole { segment, .. } => Some(*segment),
            _ => None,
        })
        .collect();
    let goes = |(file, _): &&(WalFile, String)| match file {
        WalFile::Whole { segment, .. } => !needed.has(segment.number),
        WalFile::Piece { segment, .. } => !needed.has(segment.number) || whole.contains(segment),
        // It is small, and without it what came of a timeline is not found.
        WalFile::History { .. } => false,
    };
    let doom = |(file, name): &(WalFile, String)| Spent {
        job: job.clone(),
        system_id: system_id.to_owned(),
        size,
        file: file.clone(),
        name: name.clone(),
    };
    files.iter().filter(goes).map(doom).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Sha256;

    const SIZE: SegmentSize = SegmentSize::USUAL;

    fn segment(number: u64) -> Segment {
        Segment { timeline: 1, number }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Begun in the segment `first`, over at `finished` in the segment `last`.
    fn base(first: u64, last: u64, finished: i64, suspect: bool) -> Kept {
        let facts = PhysicalFacts {
            timeline: 1,
            start_lsn: Lsn(segment(first).start(SIZE).0 + 40),
            stop_lsn: Lsn(segment(last).start(SIZE).0 + 400),
            segment_bytes: SIZE,
            since: None,
            checksums: None,
            tablespaces: vec![],
            settings: vec![],
        };
        Kept { facts, finished: at(finished), suspect }
    }

    fn needed(kept: &[Kept], since: Option<i64>, of: u64) -> Vec<u64> {
        let needed = Needed::by(kept, since.map(at), SIZE);
        (0..of).filter(|number| needed.has(*number)).collect()
    }

    #[test]
    fn what_goes_lies_before_the_oldest_base_backup_that_is_kept() {
        let job: JobName = "db".parse().unwrap();
        let named = |file: WalFile| (file.clone(), file.stem(SIZE));
        let mut files: Vec<(WalFile, String)> =
            (1..8).map(|number| named(WalFile::whole(segment(number), Sha256([1; 32])))).collect();
        files.push(named(WalFile::Piece { segment: segment(7), from: 0, to: 10 }));
        files.push(named(WalFile::Piece { segment: segment(8), from: 0, to: 10 }));
        files.push(named(WalFile::History { timeline: 2 }));
        let names = |kept: &[Kept]| -> Vec<String> {
            let spent = spent(&job, "1", SIZE, &Needed::by(kept, None, SIZE), &files);
            spent.into_iter().map(|one| one.name).collect()
        };
        let piece = "000000010000000000000007-00000000-0000000a.piece".to_owned();
        let old = |numbers: std::ops::Range<usize>| -> Vec<String> {
            let mut names: Vec<String> = files[numbers].iter().map(|file| file.1.clone()).collect();
            names.push(piece.clone());
            names
        };
        let kept = |number: u64| base(number, number + 1, number.try_into().unwrap(), false);
        assert_eq!(names(&[kept(6), kept(3)]), old(0..2));
        assert_eq!(names(&[kept(1)]), old(0..0));
        assert_eq!(names(&[]), old(0..0), "without a base backup nothing goes but pieces");
    }

    #[test]
    fn a_window_leaves_to_older_ones_what_they_need_for_themselves() {
        let kept = [base(2, 3, 100, false), base(10, 10, 200, false), base(20, 21, 300, false)];
        assert_eq!(needed(&kept, None, 12), (2..12).collect::<Vec<_>>());
        // Moments since 250 are reached from the one that was over at 200.
        assert_eq!(needed(&kept, Some(250), 12), [2, 3, 10, 11]);
        assert_eq!(needed(&kept, Some(999), 22), [2, 3, 10, 20, 21]);
        // There is none before it: then all since the oldest.
        assert_eq!(needed(&kept, Some(50), 12), needed(&kept, None, 12));
        // One that a recovery would not begin with is no beginning.
        let doubtful = [base(2, 3, 100, false), base(10, 10, 200, true), base(20, 21, 300, false)];
        assert_eq!(needed(&doubtful, Some(250), 12), needed(&doubtful, None, 12));
    }

    prop_compose! {
        /// Base backups that may overlap, and be over in another order than they were begun.
        fn some_kept()(
            all in proptest::collection::vec((0_u64..60, 0_u64..9, 0_i64..40, 0_u8..5), 0..8)
        ) -> Vec<Kept> {
            let mut kept = Vec::new();
            for (first, length, late, suspect) in all {
                // A later end has a later position.
                let finished = i64::try_from(first + length).unwrap() * 100 + late;
                kept.push(base(first, first + length, finished, suspect == 0));
            }
            kept
        }
    }

    proptest! {
        #[test]
        fn every_base_backup_comes_to_its_own_end(kept in some_kept(), since in 0_i64..8000) {
            let needed = Needed::by(&kept, Some(at(since)), SIZE);
            for one in &kept {
                let (start, stop) = (one.facts.start_lsn.0, one.facts.stop_lsn.0 - 1);
                for number in start / SIZE.bytes()..=stop / SIZE.bytes() {
                    prop_assert!(needed.has(number), "{number} of {one:?} is let go");
                }
            }
        }

        #[test]
        fn every_moment_of_the_window_is_reached(
            kept in some_kept(), since in 0_i64..8000, after in 0_i64..3000,
        ) {
            let (needed, moment) = (Needed::by(&kept, Some(at(since)), SIZE), at(since + after));
            let over = kept.iter().filter(|base| !base.suspect && base.finished <= moment);
            if let Some(base) = over.max_by_key(|base| base.finished) {
                let first = base.facts.start_lsn.0 / SIZE.bytes();
                prop_assert!((first..first + 100).all(|number| needed.has(number)));
            }
        }

        #[test]
        fn a_window_keeps_no_more_than_none(kept in some_kept(), since in 0_i64..8000) {
            let (with, without) =
                (Needed::by(&kept, Some(at(since)), SIZE), Needed::by(&kept, None, SIZE));
            prop_assert!((0..100).all(|number| without.has(number) || !with.has(number)));
            prop_assert!(without.own.is_empty());
        }

        #[test]
        fn a_shorter_window_needs_no_more(
            kept in some_kept(), since in 0_i64..8000, less in 0_i64..3000,
        ) {
            let long = Needed::by(&kept, Some(at(since)), SIZE);
            let short = Needed::by(&kept, Some(at(since + less)), SIZE);
            prop_assert!((0..100).all(|number| long.has(number) || !short.has(number)));
        }
    }
}
