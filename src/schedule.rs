//! When a job runs next, and whether it missed its time. Pure: cron lines, a zone and `now` in, an
//! instant out. Must not know timers or jobs.

use std::hash::{DefaultHasher, Hash, Hasher};

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::fault::{Fault, Result};

/// One or more cron lines in a named time zone.
///
/// Daylight saving: a wall-clock time that is skipped fires once, right after the gap; one that
/// repeats fires once.
#[derive(Debug, Clone)]
pub struct Schedule {
    lines: Vec<Cron>,
    zone: TimeZone,
    jitter: SignedDuration,
}

impl Schedule {
    /// Reads five-field cron lines or `@daily`-style names.
    ///
    /// Refuses a line that never fires within the calendar, such as `0 2 31 2 *`. `from` is where
    /// that search starts.
    pub fn parse<'a>(
        lines: impl IntoIterator<Item = &'a str>,
        zone: TimeZone,
        jitter: SignedDuration,
        from: Timestamp,
    ) -> Result<Self> {
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let mut crons = Vec::new();
        for line in lines {
            let cron = parser.parse(line).map_err(|error| {
                Fault::usage(format!("'{line}' is not a cron expression: {error}")).hint(
                    "five fields: minute hour day month weekday, as in \"0 1 * * *\", or @daily",
                )
            })?;
            let start = from.to_zoned(zone.clone());
            cron.find_next_occurrence(&start, false).map_err(|_| {
                Fault::usage(format!("'{line}' never fires"))
                    .hint("no such day comes; look at the day and month fields")
            })?;
            crons.push(cron);
        }
        Ok(Self { lines: crons, zone, jitter })
    }

    /// Without any line.
    pub fn none() -> Self {
        Self { lines: Vec::new(), zone: TimeZone::UTC, jitter: SignedDuration::ZERO }
    }

    /// No line: the job runs only when asked to.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first time after `after`.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let start = after.to_zoned(self.zone.clone());
        self.lines
            .iter()
            .filter_map(|line| line.find_next_occurrence(&start, false).ok())
            .map(|at| at.timestamp())
            .min()
    }

    /// The last time at or before `now`.
    pub fn previous(&self, now: Timestamp) -> Option<Timestamp> {
        let start = now.to_zoned(self.zone.clone());
        self.lines
            .iter()
            .filter_map(|line| line.find_previous_occurrence(&start, true).ok())
            .map(|at| at.timestamp())
            .max()
    }

    /// The scheduled time at or before `now` of which the job named `name` starts only after `now`, and
    /// when it starts.
    pub fn pending(&self, name: &str, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let at = self.previous(now)?;
        Some((at, self.start(name, at))).filter(|(_, start)| *start > now)
    }

    /// When the job named `name` starts for the scheduled time `at`.
    pub fn start(&self, name: &str, at: Timestamp) -> Timestamp {
        at.checked_add(self.jitter(name, at)).unwrap_or(at)
    }

    /// How long after the scheduled time `at` the job named `name` starts: the same answer at every
    /// call, less than the jitter.
    pub fn jitter(&self, name: &str, at: Timestamp) -> SignedDuration {
        let seconds = u64::try_from(self.jitter.as_secs()).unwrap_or(0);
        if seconds == 0 {
            return SignedDuration::ZERO;
        }
        let mut hasher = DefaultHasher::new();
        (name, at.as_second()).hash(&mut hasher);
        SignedDuration::from_secs(i64::try_from(hasher.finish() % seconds).unwrap_or(0))
    }

    /// How old the newest backup may become before the job is late: the longest wait between two
    /// runs in the coming year (at most 1,000 runs are looked at), a tenth more for the run itself
    /// (10 minutes to 6 hours), and the jitter.
    pub fn derived_max_age(&self, from: Timestamp) -> Option<SignedDuration> {
        let longest = self.interval(from)?;
        let margin =
            (longest / 10).clamp(SignedDuration::from_mins(10), SignedDuration::from_hours(6));
        Some(longest + margin + self.jitter)
    }

    /// The longest time between two runs within a year from `from`.
    pub fn interval(&self, from: Timestamp) -> Option<SignedDuration> {
        let horizon = from.checked_add(SignedDuration::from_hours(366 * 24)).ok()?;
        let mut at = self.next(from)?;
        let mut longest = SignedDuration::ZERO;
        for _ in 0..1_000 {
            let Some(next) = self.next(at) else { break };
            longest = longest.max(next.duration_since(at));
            at = next;
            if at > horizon {
                break;
            }
        }
        Some(longest)
    }

    /// Whether a job should run now because it missed its time: it never succeeded, or a scheduled
    /// time passed since its last success.
    pub fn missed(&self, last_success: Option<Timestamp>, now: Timestamp) -> bool {
        if self.is_empty() {
            return false;
        }
        match (last_success, self.previous(now)) {
            (None, _) => true,
            (Some(success), Some(due)) => success < due,
            (Some(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(lines: &[&str], zone: &str) -> Schedule {
        let zone = TimeZone::get(zone).unwrap();
        Schedule::parse(
            lines.iter().copied(),
            zone,
            SignedDuration::ZERO,
            at("2025-01-01T00:00:00Z"),
        )
        .unwrap()
    }

    fn firings(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
        let mut now = at(from);
        (0..count)
            .map(|_| {
                now = schedule.next(now).unwrap();
                now.to_string()
            })
            .collect()
    }

    #[test]
    fn twice_daily_in_lima() {
        let schedule = schedule(&["0 1 * * *", "30 13 * * *"], "America/Lima");
        assert_eq!(
            firings(&schedule, "2025-11-24T00:00:00Z", 3),
            ["2025-11-24T06:00:00Z", "2025-11-24T18:30:00Z", "2025-11-25T06:00:00Z"]
        );
    }

    #[test]
    fn a_skipped_hour_fires_once_and_a_repeated_one_once() {
        let schedule = schedule(&["30 2 * * *"], "Europe/Madrid");
        // 2025-03-30: 02:00 to 03:00 does not exist.
        assert_eq!(
            firings(&schedule, "2025-03-29T12:00:00Z", 2),
            ["2025-03-30T01:00:00Z", "2025-03-31T00:30:00Z"]
        );
        // 2025-10-26: 02:00 to 03:00 comes twice.
        assert_eq!(
            firings(&schedule, "2025-10-25T12:00:00Z", 2),
            ["2025-10-26T00:30:00Z", "2025-10-27T01:30:00Z"]
        );
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for line in
            ["", "61 * * * *", "* * * *", "0 0 1 * * *", "0 2 31 2 *", "@fortnightly", "every day"]
        {
            let parsed = Schedule::parse(
                [line],
                TimeZone::UTC,
                SignedDuration::ZERO,
                at("2025-01-01T00:00:00Z"),
            );
            assert!(parsed.is_err(), "'{line}' was taken");
        }
    }

    #[test]
    fn max_age_is_the_longest_wait_and_a_margin() {
        let twice = schedule(&["0 1 * * *", "30 13 * * *"], "UTC");
        let age = twice.derived_max_age(at("2025-01-01T00:00:00Z")).unwrap();
        assert_eq!(age, SignedDuration::from_mins(12 * 60 + 30 + 75));
        let weekly = schedule(&["0 3 * * sun"], "UTC");
        let age = weekly.derived_max_age(at("2025-01-01T00:00:00Z")).unwrap();
        assert_eq!(age, SignedDuration::from_hours(7 * 24 + 6));
    }

    #[test]
    fn a_missed_time_is_seen_from_the_last_success() {
        let daily = schedule(&["@daily"], "UTC");
        let now = at("2025-01-03T08:00:00Z");
        assert!(daily.missed(None, now));
        assert!(daily.missed(Some(at("2025-01-02T00:00:01Z")), now));
        assert!(!daily.missed(Some(at("2025-01-03T00:00:01Z")), now));
        let manual = schedule(&[], "UTC");
        assert!(!manual.missed(None, now));
    }

    #[test]
    fn a_time_is_pending_until_its_jitter_has_passed() {
        let day = at("2025-01-02T00:00:00Z");
        let second = SignedDuration::from_secs(1);
        let jitter = SignedDuration::from_secs(3600);
        let schedule = Schedule::parse(["@daily"], TimeZone::UTC, jitter, day).unwrap();
        let start = schedule.start("db", day);
        assert!(start > day + second, "choose another name: {start}");
        assert_eq!(schedule.pending("db", day - second), None);
        assert_eq!(schedule.pending("db", day), Some((day, start)));
        assert_eq!(schedule.pending("db", start - second), Some((day, start)));
        assert_eq!(schedule.pending("db", start), None);
    }

    #[test]
    fn jitter_stays_below_its_limit_and_does_not_change() {
        let zone = TimeZone::UTC;
        let start = at("2025-01-01T00:00:00Z");
        let schedule =
            Schedule::parse(["@daily"], zone, SignedDuration::from_secs(300), start).unwrap();
        let jitter = schedule.jitter("db", start);
        assert!(jitter < SignedDuration::from_secs(300));
        assert_eq!(jitter, schedule.jitter("db", start));
    }
}
