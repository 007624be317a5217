//! Whether the next base backup of a server may hold only the changes since the last one. Pure: what is
//! known of the last one, of its server and of the places in; a step, and why, out. Must not know how a
//! server is asked or where anything lies.
//!
//! PostgreSQL refuses some of these itself. The others it takes, and a restore brings old pages back:
//! after a promotion, or after checksums were turned on, the log does not tell of all that changed.

use std::fmt;

use crate::model::{BackupId, Lsn, PhysicalFacts, WalGap};

/// The newest backup of a job that counts.
#[derive(Debug, Clone, Copy)]
pub struct Newest<'a> {
    pub id: BackupId,
    pub system_id: Option<&'a str>,
    pub facts: &'a PhysicalFacts,
    /// How many incremental ones its chain has; None: a part of the chain is nowhere.
    pub length: Option<usize>,
    /// The destinations that have all of its chain.
    pub places: usize,
    /// PostgreSQL's own list of its files is at hand.
    pub listed: bool,
}

/// What the server is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub system_id: String,
    pub timeline: u32,
    pub checksums: bool,
    /// It notes which blocks change.
    pub summarizes: bool,
}

/// What the next base backup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The changes since that one.
    On(BackupId),
    Full(Why),
}

/// Why it has to be a full one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    First,
    OtherServer,
    Promoted { from: u32, to: u32 },
    Gap(Lsn),
    Checksums { now: bool },
    NoSummaries,
    Broken(BackupId),
    Nowhere(BackupId),
    Unlisted(BackupId),
    TooLong(usize),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("there is no base backup yet that it could stand on"),
            Self::OtherServer => f.write_str("the last base backup is of another server"),
            Self::Promoted { from, to } => {
                write!(f, "the server went from timeline {from} to {to}")
            }
            Self::Gap(at) => write!(f, "the log has a gap at {at}, since the last base backup"),
            Self::Checksums { now: true } => f.write_str("checksums of pages were turned on"),
            Self::Checksums { now: false } => f.write_str("checksums of pages were turned off"),
            Self::NoSummaries => f.write_str("the server's summarize_wal is off"),
            Self::Broken(id) => write!(f, "a backup that {id} stands on is gone"),
            Self::Nowhere(id) => write!(f, "no destination has all that {id} needs"),
            Self::Unlisted(id) => write!(f, "the backup_manifest of {id} is not at hand"),
            Self::TooLong(most) => write!(f, "the chain has {most} incremental backups already"),
        }
    }
}

/// Decides; `most` incremental ones may follow a full one.
pub fn next(newest: Option<Newest<'_>>, server: &Server, gaps: &[WalGap], most: usize) -> Step {
    let Some(newest) = newest else { return Step::Full(Why::First) };
    let id = newest.id;
    if newest.system_id != Some(&*server.system_id) {
        return Step::Full(Why::OtherServer);
    }
    let from = newest.facts.timeline;
    if from != server.timeline {
        return Step::Full(Why::Promoted { from, to: server.timeline });
    }
    let since =
        |gap: &&WalGap| gap.system_id == server.system_id && gap.to > newest.facts.start_lsn;
    if let Some(gap) = gaps.iter().find(since) {
        return Step::Full(Why::Gap(gap.from));
    }
    if newest.facts.checksums.is_some_and(|then| then != server.checksums) {
        return Step::Full(Why::Checksums { now: server.checksums });
    }
    if !server.summarizes {
        return Step::Full(Why::NoSummaries);
    }
    match newest.length {
        None => Step::Full(Why::Broken(id)),
        Some(_) if newest.places == 0 => Step::Full(Why::Nowhere(id)),
        Some(length) if length >= most => Step::Full(Why::TooLong(length)),
        Some(_) if !newest.listed => Step::Full(Why::Unlisted(id)),
        Some(_) => Step::On(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SegmentSize;

    const START: Lsn = Lsn(0x500_0028);

    fn facts() -> PhysicalFacts {
        PhysicalFacts {
            timeline: 1,
            start_lsn: START,
            stop_lsn: Lsn(0x500_0100),
            segment_bytes: SegmentSize::USUAL,
            since: None,
            checksums: Some(true),
            tablespaces: vec![],
            settings: vec![],
        }
    }

    fn server() -> Server {
        Server { system_id: "7".into(), timeline: 1, checksums: true, summarizes: true }
    }

    fn newest(facts: &PhysicalFacts) -> Newest<'_> {
        Newest {
            id: "20251124T020000Z".parse().unwrap(),
            system_id: Some("7"),
            facts,
            length: Some(2),
            places: 1,
            listed: true,
        }
    }

    fn gap(to: Lsn) -> WalGap {
        WalGap {
            system_id: "7".into(),
            timeline: 1,
            from: Lsn(0x100_0000),
            to,
            at: "2025-11-24T00:00:00Z".parse().unwrap(),
            reason: "removed".into(),
        }
    }

    #[test]
    fn it_stands_on_the_last_one_where_nothing_is_in_the_way() {
        let facts = facts();
        let newest = newest(&facts);
        assert_eq!(next(Some(newest), &server(), &[], 3), Step::On(newest.id));
        // What was lost before the last one began is no matter.
        assert_eq!(next(Some(newest), &server(), &[gap(START)], 3), Step::On(newest.id));
        // Whatever it was before, nobody noted it.
        let unknown = PhysicalFacts { checksums: None, ..facts.clone() };
        let newest = Newest { facts: &unknown, ..newest };
        assert_eq!(next(Some(newest), &server(), &[], 3), Step::On(newest.id));
    }

    #[test]
    fn each_rule_forces_a_full_one() {
        let facts = facts();
        let newest = newest(&facts);
        let full = |newest: Newest<'_>, server: Server, gaps: &[WalGap]| match next(
            Some(newest),
            &server,
            gaps,
            3,
        ) {
            Step::Full(why) => why,
            Step::On(id) => panic!("it stands on {id}"),
        };
        let id = newest.id;
        assert_eq!(next(None, &server(), &[], 3), Step::Full(Why::First));
        let other = Server { system_id: "8".into(), ..server() };
        assert_eq!(full(newest, other, &[]), Why::OtherServer);
        assert_eq!(full(Newest { system_id: None, ..newest }, server(), &[]), Why::OtherServer);
        let promoted = Server { timeline: 2, ..server() };
        assert_eq!(full(newest, promoted, &[]), Why::Promoted { from: 1, to: 2 });
        let lost = [gap(Lsn(START.0 + 1))];
        assert_eq!(full(newest, server(), &lost), Why::Gap(Lsn(0x100_0000)));
        let off = Server { checksums: false, ..server() };
        assert_eq!(full(newest, off, &[]), Why::Checksums { now: false });
        let blind = Server { summarizes: false, ..server() };
        assert_eq!(full(newest, blind, &[]), Why::NoSummaries);
        assert_eq!(full(Newest { length: None, ..newest }, server(), &[]), Why::Broken(id));
        assert_eq!(full(Newest { places: 0, ..newest }, server(), &[]), Why::Nowhere(id));
        assert_eq!(full(Newest { listed: false, ..newest }, server(), &[]), Why::Unlisted(id));
        assert_eq!(full(Newest { length: Some(3), ..newest }, server(), &[]), Why::TooLong(3));
    }
}
