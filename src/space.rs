//! Whether a place has room for the backups that come, and when it will be full. Pure: samples and
//! `now` in, a verdict out. Must not know how free space is asked for or where samples are kept.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// What a file system says of itself, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What respaldo may still write.
    pub free: u64,
    /// More than nothing.
    pub total: u64,
}

impl Space {
    /// `None` where the numbers say nothing, as some network file systems answer.
    pub fn of(free: u64, total: u64) -> Option<Self> {
        (total > 0 && free <= total).then_some(Self { free, total })
    }
}

/// How much must stay free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    Bytes(u64),
    /// Of the whole; at most 100.
    Percent(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub at: Timestamp,
    pub space: Space,
}

/// How a place stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Room {
    pub free_bytes: u64,
    pub total_bytes: u64,
    /// Below so many free bytes it is low.
    pub floor_bytes: u64,
    /// What the next backup of every job that writes there will take, by the last ones.
    pub next_backup_bytes: u64,
    pub low: bool,
    /// When it will be full if it goes on as in the last two weeks; `None`: not within a year, or
    /// not known yet.
    pub fills_at: Option<Timestamp>,
    /// That is within two weeks.
    #[serde(skip)]
    pub fills_soon: bool,
}

impl Room {
    /// Enough to say that it is no longer low: what one more backup takes does not make it low again.
    pub fn is_ample(&self) -> bool {
        let more = self.next_backup_bytes.max(self.floor_bytes / 10);
        self.free_bytes >= self.floor_bytes.saturating_add(more).min(self.total_bytes)
    }
}

/// How far back a forecast looks, in days.
const DAYS: i64 = 14;
/// What is compared lies a week apart: backups and retention go by the day and by the week, so that
/// their saw-teeth cancel out.
const WEEK: i64 = 7;
/// So many pairs of days make a forecast.
const PAIRS: usize = 3;
/// What is further away is not foretold.
const HORIZON_DAYS: i64 = 365;

/// Judges by the newest of `samples`, which are in order; `None` when there are none. `next` is what
/// the next backups take, in bytes.
pub fn judge(samples: &[Sample], floor: Option<Floor>, next: u64, now: Timestamp) -> Option<Room> {
    let Space { free, total } = samples.last()?.space;
    let floor = match floor {
        Some(Floor::Bytes(bytes)) => bytes,
        Some(Floor::Percent(percent)) => part(total, percent),
        None => next.saturating_mul(2).max(part(total, 5)),
    };
    let fills_at = fills_at(samples, now);
    let soon = SignedDuration::from_hours(24 * DAYS);
    Some(Room {
        free_bytes: free,
        total_bytes: total,
        floor_bytes: floor,
        next_backup_bytes: next,
        low: free < floor,
        fills_at,
        fills_soon: fills_at.is_some_and(|at| at.duration_since(now) < soon),
    })
}

fn part(total: u64, percent: u8) -> u64 {
    u64::try_from(u128::from(total) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// The day it will be full. Of each day only the lowest counts, which is when the backups were there
/// and retention had not yet been; of all weeks between two days the middle one is the trend, so that
/// neither one large backup nor one clearing up bends it.
fn fills_at(samples: &[Sample], now: Timestamp) -> Option<Timestamp> {
    let day = |at: Timestamp| at.as_second().div_euclid(86_400);
    let today = day(now);
    let mut lowest: BTreeMap<i64, i64> = BTreeMap::new();
    for sample in samples {
        let free = i64::try_from(sample.space.free).unwrap_or(i64::MAX);
        if (today - DAYS + 1..=today).contains(&day(sample.at)) {
            let low = lowest.entry(day(sample.at)).or_insert(free);
            *low = free.min(*low);
        }
    }
    let grown = |(day, free): (&i64, &i64)| Some(lowest.get(&(day - WEEK))? - free);
    let mut weeks: Vec<i64> = lowest.iter().filter_map(grown).collect();
    if weeks.len() < PAIRS {
        return None;
    }
    weeks.sort_unstable();
    let weekly = weeks[weeks.len() / 2];
    let left = *lowest.last_key_value()?.1;
    if weekly <= 0 {
        return None;
    }
    let seconds = i128::from(left) * i128::from(WEEK * 86_400) / i128::from(weekly);
    let seconds = i64::try_from(seconds).ok().filter(|s| *s <= HORIZON_DAYS * 86_400)?;
    now.checked_add(SignedDuration::from_secs(seconds)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn now() -> Timestamp {
        "2025-11-24T12:00:00Z".parse().unwrap()
    }

    /// Hourly samples of the last `days`; `free` by the hour, counted from the first.
    fn hourly(days: i64, free: impl Fn(i64) -> u64) -> Vec<Sample> {
        let start = now() - SignedDuration::from_hours(days * 24);
        let sample = |hour| Sample {
            at: start + SignedDuration::from_hours(hour),
            space: Space { free: free(hour), total: 1000 * GIB },
        };
        (0..=days * 24).map(sample).collect()
    }

    fn days_left(samples: &[Sample]) -> Option<i64> {
        fills_at(samples, now()).map(|at| at.duration_since(now()).as_secs() / 86_400)
    }

    fn gib(count: i64) -> u64 {
        u64::try_from(count).unwrap() * GIB
    }

    #[test]
    fn low_by_default_is_less_than_two_backups_or_a_twentieth() {
        let low = |free, floor, next| {
            let samples = [Sample { at: now(), space: Space { free, total: 1000 } }];
            judge(&samples, floor, next, now()).unwrap().low
        };
        assert_eq!([low(49, None, 10), low(50, None, 10)], [true, false]);
        assert_eq!([low(399, None, 200), low(400, None, 200)], [true, false]);
        assert_eq!(
            [low(99, Some(Floor::Percent(10)), 200), low(100, Some(Floor::Percent(10)), 200)],
            [true, false]
        );
        assert_eq!(
            [low(6, Some(Floor::Bytes(7)), 200), low(7, Some(Floor::Bytes(7)), 200)],
            [true, false]
        );
        assert_eq!(judge(&[], None, 1, now()), None);
    }

    #[test]
    fn it_is_ample_only_when_another_backup_does_not_make_it_low() {
        let room = |free| {
            let samples = [Sample { at: now(), space: Space { free, total: 1000 } }];
            judge(&samples, None, 100, now()).unwrap()
        };
        assert!(!room(200).low && !room(299).is_ample() && room(300).is_ample());
    }

    #[test]
    fn a_steady_fill_is_foretold_to_the_day() {
        // 10 GiB a day, 200 GiB left now.
        let samples = hourly(14, |hour| gib(340) - gib(10) * hour.unsigned_abs() / 24);
        assert_eq!(days_left(&samples), Some(20));
    }

    #[test]
    fn saw_teeth_that_come_back_fill_nothing() {
        let daily = hourly(14, |hour| gib(500 - 10 * (hour % 24) / 24));
        assert_eq!(days_left(&daily), None);
        let weekly = hourly(14, |hour| gib(500 - 50 * ((hour / 24) % 7)));
        assert_eq!(days_left(&weekly), None);
        let growing = hourly(14, |hour| gib(500 - 50 * ((hour / 24) % 7) - hour / 24));
        let days = days_left(&growing).unwrap();
        assert!((180..=490).contains(&days), "{days}");
    }

    #[test]
    fn one_odd_day_bends_nothing() {
        let odd = |hour: i64| if (24 * 12..24 * 13).contains(&hour) { 400 } else { 0 };
        let samples = hourly(14, |hour| gib(500 - odd(hour)));
        assert_eq!(days_left(&samples), None);
    }

    #[test]
    fn what_is_not_known_or_far_away_is_not_foretold() {
        let fills = |hour: i64| gib(340) - gib(10) * hour.unsigned_abs() / 24;
        assert_eq!(days_left(&hourly(7, fills)), None, "one week is no trend");
        assert_eq!(
            days_left(&hourly(14, |hour| gib(900) - gib(1) * hour.unsigned_abs() / 24)),
            None
        );
        assert_eq!(
            days_left(&hourly(14, |hour| gib(100) + gib(1) * hour.unsigned_abs() / 24)),
            None
        );
        assert_eq!(days_left(&hourly(14, |_| 0)), None);
        // Two weeks ago it was filling up; now it is not looked at any more.
        let old: Vec<Sample> = hourly(30, fills).into_iter().take(24 * 14).collect();
        assert_eq!(days_left(&old), None);
    }
}
