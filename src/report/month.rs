//! A month of the calendar. Knows its spelling and its bounds.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Serialize, Serializer};

use crate::fault::{Fault, Result};

/// `2025-11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Month(Date);

impl Month {
    /// The last one that was over at `now`.
    pub fn before(now: Timestamp, zone: &TimeZone) -> Self {
        let today = now.to_zoned(zone.clone()).date();
        Self(today.first_of_month().saturating_sub(1.day()).first_of_month())
    }

    /// Its first moment in that zone, and the first one after it.
    pub fn bounds(self, zone: &TimeZone) -> (Timestamp, Timestamp) {
        let start = |day: Date| {
            let zoned = day.to_zoned(zone.clone());
            zoned.map_or(Timestamp::MAX, |zoned| zoned.timestamp())
        };
        (start(self.0), start(self.0.saturating_add(1.month())))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m"))
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl FromStr for Month {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('-').and_then(|(year, month)| {
            let plain = year.len() == 4 && month.len() == 2;
            plain.then_some((year.parse::<i16>().ok()?, month.parse::<i8>().ok()?))
        });
        match parts {
            Some((year @ 1970.., month @ 1..=12)) => Ok(Self(date(year, month, 1))),
            _ => Err(Fault::usage(format!("'{text}' is not a month")).hint("for example 2025-11")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_month_before_and_its_bounds_are_those_of_the_zone() {
        let lima = TimeZone::get("America/Lima").unwrap();
        // Still the last day of November there.
        let now: Timestamp = "2025-12-01T04:59:59Z".parse().unwrap();
        assert_eq!(Month::before(now, &lima).to_string(), "2025-10");
        assert_eq!(Month::before(now, &TimeZone::UTC).to_string(), "2025-11");
        let (from, to) = "2025-12".parse::<Month>().unwrap().bounds(&lima);
        assert_eq!(
            (from.to_string(), to.to_string()),
            ("2025-12-01T05:00:00Z".into(), "2026-01-01T05:00:00Z".into())
        );
        let january: Timestamp = "2026-01-15T00:00:00Z".parse().unwrap();
        assert_eq!(Month::before(january, &lima).to_string(), "2025-12");
    }

    #[test]
    fn what_is_no_month_is_refused() {
        for text in [
            "",
            "2025",
            "2025-13",
            "2025-00",
            "2025-1",
            "25-11",
            "2025-11-01",
            "-025-11",
            "２０25-11",
        ] {
            assert!(text.parse::<Month>().is_err(), "{text:?} was taken");
        }
    }
}
