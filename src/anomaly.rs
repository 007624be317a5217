//! Whether a backup is so much smaller than those before it that something must have been lost.
//! Pure: sizes and a share in, a finding out. Must not know where the sizes come from, nor what is
//! done about a finding.

use crate::model::{BackupId, Compression, Engine, Manifest};

/// How many backups are the measure of the next one.
const RECENT: usize = 5;

/// What is compared of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    pub id: BackupId,
    /// Bytes before compression.
    pub plain_bytes: u64,
    /// Bytes at rest; compared only between backups that are compressed alike.
    pub stored_bytes: u64,
    pub compression: Vec<Compression>,
    /// Rows in all tables, where they were counted.
    pub rows: Option<u64>,
    /// It was found too small when it was made.
    pub suspect: bool,
}

impl Measure {
    pub fn of(manifest: &Manifest) -> Self {
        Self {
            id: manifest.id,
            plain_bytes: manifest.plain_bytes(),
            stored_bytes: manifest.stored_bytes(),
            compression: manifest.artifacts.iter().map(|artifact| artifact.compression).collect(),
            rows: rows(manifest),
            suspect: manifest.suspect,
        }
    }
}

/// The rows of every database in it; `None` where one was not counted.
fn rows(manifest: &Manifest) -> Option<u64> {
    let databases = [Engine::Postgres, Engine::Mysql, Engine::Sqlite];
    let mut counted = manifest.sources.iter().filter(|facts| databases.contains(&facts.engine));
    let first = counted.next()?.fingerprint.as_ref()?.rows();
    counted.try_fold(first, |sum, facts| Some(sum + facts.fingerprint.as_ref()?.rows()))
}

/// What fell, from where to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: What,
    pub now: u64,
    /// The median of the backups before it.
    pub usual: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Rows,
    PlainBytes,
    StoredBytes,
}

impl Finding {
    /// By how much it fell, in percent, rounded down.
    pub fn percent(&self) -> u64 {
        let fallen = u128::from(self.usual.saturating_sub(self.now)) * 100;
        fallen.checked_div(u128::from(self.usual)).and_then(|p| u64::try_from(p).ok()).unwrap_or(0)
    }
}

/// What is wrong with the newest of a job's full backups, which are given oldest first. `share`:
/// how many percent one may be smaller than usual.
///
/// A backup that was found too small is no measure for the next one: a table that was emptied does
/// not become usual by being backed up again. Up to `confirmed`, a person has said that it is right.
pub fn newest(backups: &[Measure], share: u8, confirmed: Option<BackupId>) -> Option<Finding> {
    let mut usual: Vec<&Measure> = Vec::new();
    let mut finding = None;
    for backup in backups {
        let right = confirmed.is_some_and(|confirmed| backup.id <= confirmed);
        if right {
            // The size from here on is what was confirmed last.
            usual.clear();
        }
        let recent = &usual[usual.len().saturating_sub(RECENT)..];
        finding = judge(backup, recent, share);
        if finding.is_none() && (right || !backup.suspect) {
            usual.push(backup);
        }
    }
    finding
}

fn judge(backup: &Measure, recent: &[&Measure], share: u8) -> Option<Finding> {
    let fallen = |what, now: u64, before: Vec<u64>| {
        let usual = median(before)?;
        let least = u128::from(usual) * u128::from(100 - share.min(100));
        (u128::from(now) * 100 < least).then_some(Finding { what, now, usual })
    };
    let rows = || {
        let before = recent.iter().filter_map(|other| other.rows).collect();
        fallen(What::Rows, backup.rows?, before)
    };
    let plain = || {
        let before = recent.iter().map(|other| other.plain_bytes).collect();
        fallen(What::PlainBytes, backup.plain_bytes, before)
    };
    let stored = || {
        let alike = recent.iter().filter(|other| other.compression == backup.compression);
        fallen(What::StoredBytes, backup.stored_bytes, alike.map(|o| o.stored_bytes).collect())
    };
    rows().or_else(plain).or_else(stored)
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(day: usize, plain: u64) -> Measure {
        Measure {
            id: format!("202511{day:02}T120000Z").parse().unwrap(),
            plain_bytes: plain,
            stored_bytes: plain / 4,
            compression: vec![Compression::Zstd],
            rows: None,
            suspect: false,
        }
    }

    fn found(sizes: &[u64], confirmed: Option<usize>) -> Option<(What, u64, u64)> {
        let backups: Vec<Measure> =
            sizes.iter().enumerate().map(|(n, size)| measure(n + 1, *size)).collect();
        let confirmed = confirmed.map(|day| measure(day, 0).id);
        newest(&backups, 50, confirmed).map(|f| (f.what, f.usual, f.percent()))
    }

    #[test]
    fn a_fall_below_the_share_of_the_median_is_found() {
        assert_eq!(found(&[], None), None);
        assert_eq!(found(&[0], None), None);
        assert_eq!(found(&[1000, 400], None), Some((What::PlainBytes, 1000, 60)));
        assert_eq!(found(&[1000, 500], None), None, "half is not more than half");
        assert_eq!(found(&[1000, 0], None), Some((What::PlainBytes, 1000, 100)));
        // One that was odd does not move the median, and what grew is no loss.
        assert_eq!(found(&[1000, 1010, 9000, 1020, 1030, 600], None), None);
        assert_eq!(found(&[100, 9000], None), None);
        // Only the last five count.
        assert_eq!(found(&[9000, 9000, 4600, 4600, 4600, 2400, 2400, 2400, 2400], None), None);
    }

    #[test]
    fn what_is_too_small_does_not_become_usual() {
        let lost = [1000, 1000, 1000, 100, 100, 100, 100, 100, 100, 100];
        assert_eq!(found(&lost, None), Some((What::PlainBytes, 1000, 90)));
        assert_eq!(found(&[&lost[..], &[990]].concat(), None), None, "it is as before again");
        // Confirmed on the fifth: from there on it is usual, and a further fall is found.
        assert_eq!(found(&lost, Some(5)), None);
        assert_eq!(found(&[&lost[..], &[10]].concat(), Some(5)), Some((What::PlainBytes, 100, 90)));
    }

    #[test]
    fn what_was_found_too_small_is_no_measure_even_when_the_good_ones_are_gone() {
        let mut backups = vec![measure(4, 10), measure(5, 10), measure(6, 1000), measure(7, 10)];
        assert_eq!(newest(&backups, 50, None), None);
        backups[..2].iter_mut().for_each(|backup| backup.suspect = true);
        assert!(newest(&backups, 50, None).is_some());
        assert_eq!(newest(&backups, 50, Some(backups[3].id)), None);
    }

    #[test]
    fn rows_come_first_and_another_codec_says_nothing_of_stored_bytes() {
        let mut backups = vec![measure(1, 1000), measure(2, 1000)];
        backups[0].rows = Some(200);
        backups[1].rows = Some(20);
        assert_eq!(newest(&backups, 50, None).map(|f| f.what), Some(What::Rows));
        backups[1].rows = None;
        backups[1].stored_bytes = 10;
        assert_eq!(newest(&backups, 50, None).map(|f| f.what), Some(What::StoredBytes));
        backups[1].compression = vec![Compression::Gzip];
        assert_eq!(newest(&backups, 50, None), None);
    }
}
