//! When a dump of an old script was made, by its name. Pure; knows the ways in which scripts write a
//! date.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

/// A date in a name, and the time where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    date: Date,
    time: Option<Time>,
    utc: bool,
}

/// When the file `name` was made: by its name, in the time zone of the script; else by when it was
/// written last. A name from the future tells nothing.
pub(super) fn made_at(
    name: &str,
    written: Timestamp,
    now: Timestamp,
    zone: &TimeZone,
) -> Timestamp {
    let written = written.min(now);
    let named = find(name).and_then(|stamp| {
        let zone = if stamp.utc { TimeZone::UTC } else { zone.clone() };
        let Some(time) = stamp.time else {
            // A date alone: the file itself knows the time of that day, unless it was copied since.
            if written.to_zoned(zone.clone()).date() == stamp.date {
                return Some(written);
            }
            return zone.to_timestamp(stamp.date.into()).ok();
        };
        zone.to_timestamp(DateTime::from_parts(stamp.date, time)).ok()
    });
    named.filter(|at| *at <= now).unwrap_or(written)
}

fn find(name: &str) -> Option<Stamp> {
    let bytes = name.as_bytes();
    let starts = (0..bytes.len()).filter(|at| begins(bytes, *at));
    starts.filter_map(|at| parse(&bytes[at..])).next()
}

/// A number begins here.
fn begins(bytes: &[u8], at: usize) -> bool {
    bytes[at].is_ascii_digit() && (at == 0 || !bytes[at - 1].is_ascii_digit())
}

/// `20251124`, `2025-11-24`, `20251124_020000`, `2025-11-24T02:00:00Z` and their like.
fn parse(text: &[u8]) -> Option<Stamp> {
    let mut cursor = Cursor { text, at: 0 };
    let year = cursor.number(4)?;
    cursor.skip(b"-_.");
    let month = cursor.number(2)?;
    cursor.skip(b"-_.");
    let day = cursor.number(2)?;
    let small = |number: i16| i8::try_from(number).ok();
    if !(1990..2200).contains(&year) {
        return None;
    }
    let date = Date::new(year, small(month)?, small(day)?).ok()?;
    let after_date = cursor.at;
    let time = cursor.time();
    let (time, end) = match time {
        Some(time) => (Some(time), cursor.at),
        None => (None, after_date),
    };
    let rest = &text[end..];
    // A longer number is something else.
    if rest.first().is_some_and(u8::is_ascii_digit) && time.is_none() {
        return None;
    }
    let utc = time.is_some() && rest.first() == Some(&b'Z');
    Some(Stamp { date, time, utc })
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// Exactly so many digits.
    fn number(&mut self, digits: usize) -> Option<i16> {
        let part = self.text.get(self.at..self.at + digits)?;
        if !part.iter().all(u8::is_ascii_digit) {
            return None;
        }
        self.at += digits;
        std::str::from_utf8(part).ok()?.parse().ok()
    }

    fn skip(&mut self, any_of: &[u8]) {
        if self.text.get(self.at).is_some_and(|byte| any_of.contains(byte)) {
            self.at += 1;
        }
    }

    fn time(&mut self) -> Option<Time> {
        self.skip(b"-_T. ");
        let hour = self.number(2)?;
        self.skip(b":-_.h");
        let minute = self.number(2)?;
        let before_second = self.at;
        self.skip(b":-_.m");
        let second = self.number(2).unwrap_or_else(|| {
            self.at = before_second;
            0
        });
        if self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let small = |number: i16| i8::try_from(number).ok();
        Time::new(small(hour)?, small(minute)?, small(second)?, 0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str) -> String {
        let (written, now) = ("2025-11-24T09:30:00Z", "2025-12-01T00:00:00Z");
        let zone = TimeZone::get("America/Lima").unwrap();
        made_at(name, written.parse().unwrap(), now.parse().unwrap(), &zone).to_string()
    }

    #[test]
    fn dates_in_names_are_read_where_the_script_lived() {
        for (name, time) in [
            ("db_20251124_020000.sql.gz", "2025-11-24T07:00:00Z"),
            ("full_20251124_020000.dump", "2025-11-24T07:00:00Z"),
            ("2025-11-24T02:00:00Z.sql", "2025-11-24T02:00:00Z"),
            ("db-2025-11-24_02-00-00.sql", "2025-11-24T07:00:00Z"),
            ("db-2025-11-24-0200.sql", "2025-11-24T07:00:00Z"),
            ("20251124020000-media.tar.gz", "2025-11-24T07:00:00Z"),
            ("v15_shop.2025.11.23.sql", "2025-11-23T05:00:00Z"),
            ("año-2025-11-24.sql", "2025-11-24T09:30:00Z"),
            // No date, none that exists, one from the future, a number.
            ("latest.sql", "2025-11-24T09:30:00Z"),
            ("db_20251324_020000.sql", "2025-11-24T09:30:00Z"),
            ("db_20991124_020000.sql", "2025-11-24T09:30:00Z"),
            ("db_1763949600.sql", "2025-11-24T09:30:00Z"),
            ("db_202511240.sql", "2025-11-24T09:30:00Z"),
        ] {
            assert_eq!(at(name), time, "{name}");
        }
    }
}
