//! Which copies are read back next, so that each is read again in time. Pure: what was read when, a
//! schedule's next time and `now` in, a share of the copies out. Must not know how a copy is read.

use jiff::{SignedDuration, Timestamp};

use crate::model::BackupId;

/// One backup on one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFacts {
    pub id: BackupId,
    pub destination: String,
    /// When it was last read; where it never was, since when it is known.
    pub read: Timestamp,
    /// It was not whole when it was last read.
    pub damaged: bool,
}

/// What is to be read now, in order, so that no copy waits longer than `days` days.
///
/// The damaged ones first: one that was mended should be known to be. Then the ones that were not read
/// for longest: an even share of all, and whatever would be too late if the run after this one did
/// not come. `next` is when the next run is due; `None`: nobody knows, so everything is read.
pub fn due(
    mut copies: Vec<CopyFacts>,
    now: Timestamp,
    next: Option<Timestamp>,
    days: u32,
) -> Vec<CopyFacts> {
    let Some(next) = next.filter(|next| *next > now) else { return copies };
    let interval = next.duration_since(now);
    let within =
        SignedDuration::from_hours(24).saturating_mul(i32::try_from(days).unwrap_or(i32::MAX));
    // One run may be missed, and another come late: what is left must do for all.
    let usable = within.saturating_sub(interval.saturating_mul(3)).max(interval);
    let share = (copies.len() as f64 * (interval.as_secs_f64() / usable.as_secs_f64())).ceil();
    // Of copies of one age those of one backup follow each other: each destination has its turn.
    copies.sort_by(|one, other| {
        let key = |copy: &CopyFacts| (!copy.damaged, copy.read, copy.id);
        key(one).cmp(&key(other)).then_with(|| one.destination.cmp(&other.destination))
    });
    let latest = next.saturating_add(interval.saturating_mul(2)).unwrap_or(Timestamp::MAX);
    let is_pressing = |copy: &CopyFacts| {
        copy.damaged || copy.read.saturating_add(within).is_ok_and(|deadline| deadline <= latest)
    };
    let damaged = copies.iter().filter(|copy| copy.damaged).count();
    let pressing = copies.iter().filter(|copy| is_pressing(copy)).count();
    copies.truncate(pressing.max(damaged.saturating_add(share as usize)));
    copies
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn copy(made: i64, destination: &str, read: i64) -> CopyFacts {
        let (id, destination) = (BackupId::at(at(made)), destination.to_owned());
        CopyFacts { id, destination, read: at(read), damaged: false }
    }

    fn names(copies: &[CopyFacts]) -> Vec<(i64, &str)> {
        let day = |copy: &CopyFacts| (copy.id.started().as_second() - 1_700_000_000) / DAY;
        copies.iter().map(|copy| (day(copy), copy.destination.as_str())).collect()
    }

    #[test]
    fn the_longest_unread_come_first_on_each_destination_in_turn() {
        let all: Vec<CopyFacts> = (0..10)
            .flat_map(|day| [copy(day * DAY, "b", day * DAY), copy(day * DAY, "a", day * DAY)])
            .collect();
        let now = 10 * DAY;
        let due = |days| due(all.clone(), at(now), Some(at(now + DAY)), days);
        assert_eq!(names(&due(30)), [(0, "a")]);
        // 20 copies in 13 - 3 days.
        assert_eq!(names(&due(13)), [(0, "a"), (0, "b")]);
        assert_eq!(due(1).len(), 20, "each within a day is each every day");
    }

    #[test]
    fn what_is_nearly_too_late_is_read_however_much_it_is() {
        let all: Vec<CopyFacts> = (0..50).map(|n| copy(n, "a", n)).collect();
        let now = 28 * DAY;
        assert_eq!(due(all.clone(), at(now), Some(at(now + DAY)), 30).len(), 50);
        assert_eq!(due(all, at(now - 2 * DAY), Some(at(now - DAY)), 30).len(), 2);
    }

    #[test]
    fn a_damaged_copy_is_looked_at_each_time_and_takes_nobodys_place() {
        let mut all: Vec<CopyFacts> = (0..5).map(|day| copy(day * DAY, "a", day * DAY)).collect();
        all[4].damaged = true;
        let due = due(all, at(5 * DAY), Some(at(6 * DAY)), 30);
        assert_eq!(names(&due), [(4, "a"), (0, "a")]);
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(due(Vec::new(), at(0), Some(at(DAY)), 30), []);
    }

    proptest! {
        /// Whatever the schedule and its delays, and whatever is made, carried and deleted meanwhile: no
        /// copy is ever unread for longer than the days that were promised.
        #[test]
        fn every_copy_is_read_within_the_days(
            every in 1_i64..=48,
            days in 4_u32..=40,
            kept in 1_usize..=60,
            places in 1_usize..=3,
            late in proptest::collection::vec((0_i64..=3_000, any::<bool>()), 120),
        ) {
            let every = every * 3_600;
            prop_assume!(every * 4 <= i64::from(days) * DAY);
            let mut read: BTreeMap<(i64, usize), i64> = BTreeMap::new();
            let (mut made, mut skipped, mut most_read) = (0_i64, false, 0);
            for (n, (late, skip)) in late.into_iter().enumerate() {
                let scheduled = i64::try_from(n).unwrap() * every;
                let now = scheduled + late.min(every / 3);
                while made * DAY / 2 <= scheduled {
                    (0..places).for_each(|place| { read.insert((made, place), made * DAY / 2); });
                    made += 1;
                    while read.len() > kept * places {
                        read.pop_first();
                    }
                }
                for (copy, at) in &read {
                    prop_assert!(now - at <= i64::from(days) * DAY, "{copy:?} waits since {at}, {now}");
                }
                // Now and then a run is missed, but no two of them.
                skipped = skip && !skipped;
                if skipped {
                    continue;
                }
                let facts = read.iter().map(|((made, place), at)| copy(made * DAY / 2, &place.to_string(), *at));
                let due = due(facts.collect(), at(now), Some(at(scheduled + every)), days);
                most_read = most_read.max(due.len());
                for copy in due {
                    let made = (copy.id.started().as_second() - 1_700_000_000) * 2 / DAY;
                    read.insert((made, copy.destination.parse().unwrap()), now);
                }
            }
            prop_assert!(most_read > 0);
        }
    }
}
