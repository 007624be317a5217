//! Durations and sizes as people write them. Knows units; must not know keys.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};

use crate::space::Floor;

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// `13h`, `90s`, `7d`, `1h 30m`: not negative; a day has 24 hours.
pub fn duration(text: &str) -> Result<SignedDuration, String> {
    let wrong =
        || "a duration is a number with a unit, such as 90s, 30m, 13h, 7d or 1h 30m".to_owned();
    let span: Span = text.trim().parse().map_err(|_| wrong())?;
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    if length.is_negative() { Err("a duration can't be negative".into()) } else { Ok(length) }
}

/// As [`duration`], for what can't be nothing.
pub(super) fn wait(text: &str) -> Result<Duration, String> {
    match Duration::try_from(duration(text)?) {
        Ok(wait) if !wait.is_zero() => Ok(wait),
        _ => Err("it must be more than nothing".into()),
    }
}

/// The shortest text that [`duration`] reads back, without a fraction of a second.
pub(super) fn show_duration(length: SignedDuration) -> String {
    let seconds = length.as_secs();
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let parts: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if parts.is_empty() { "0s".into() } else { parts.join(" ") }
}

/// `64GiB`, `500 MB`, `1.5 GiB`: bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong =
        || "a size is a number with a unit: B, kB, MB, GB, TB, KiB, MiB, GiB or TiB".to_owned();
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let (_, factor) =
        SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
    let digits = digits.trim();
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(*factor).ok_or_else(wrong);
    }
    let (whole, fraction) = digits.split_once('.').ok_or_else(wrong)?;
    let places = u32::try_from(fraction.len()).ok().filter(|places| (1..=6).contains(places));
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part: u64 = fraction.parse().map_err(|_| wrong())?;
    let part = part * factor / 10_u64.pow(places.ok_or_else(wrong)?);
    whole.checked_mul(*factor).and_then(|bytes| bytes.checked_add(part)).ok_or_else(wrong)
}

/// `10%` of the whole, or a size.
pub(super) fn floor(text: &str) -> Result<Floor, String> {
    let Some(percent) = text.trim().strip_suffix('%') else {
        return size(text).map(Floor::Bytes);
    };
    match percent.trim().parse() {
        Ok(percent @ 0..=100) => Ok(Floor::Percent(percent)),
        _ => Err("a share is a whole number from 0% to 100%".into()),
    }
}

pub(super) fn show_floor(floor: Floor) -> String {
    match floor {
        Floor::Bytes(bytes) => show_size(bytes),
        Floor::Percent(percent) => format!("{percent}%"),
    }
}

/// `10MB/s`: bytes per second.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    let wrong = || "a bandwidth is a size per second, such as 10MB/s".to_owned();
    let bytes = text.trim().strip_suffix("/s").ok_or_else(wrong)?;
    size(bytes).map_err(|_| wrong())
}

/// The largest unit that needs no fraction.
pub(super) fn show_size(bytes: u64) -> String {
    let fits = |(_, factor): &&(&str, u64)| bytes >= *factor && bytes.is_multiple_of(*factor);
    SIZES
        .iter()
        .find(fits)
        .map_or("0B".into(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_read_back() {
        for (text, seconds) in
            [("13h", 46_800), ("90s", 90), ("7d", 604_800), ("1h 30m", 5_400), ("2w", 1_209_600)]
        {
            let length = duration(text).unwrap();
            assert_eq!(length.as_secs(), seconds, "{text}");
            assert_eq!(duration(&show_duration(length)), Ok(length));
        }
        for text in ["", "13", "13 parsecs", "-1h", "1mo", "1y"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(wait("0s").is_err());
    }

    #[test]
    fn sizes_read_and_read_back() {
        for (text, bytes) in [
            ("64GiB", 64 << 30),
            ("500 MB", 500_000_000),
            ("1.5 GiB", 3 << 29),
            ("8mib", 8 << 20),
            ("1TiB", 1 << 40),
            ("17B", 17),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }
        for text in ["", "64", "GiB", "64 gigs", "-1GiB", "1.GiB", "99999999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn floors_read_and_read_back() {
        for (text, wanted) in [("10%", Floor::Percent(10)), ("5GiB", Floor::Bytes(5 << 30))] {
            assert_eq!(floor(text), Ok(wanted));
            assert_eq!(show_floor(wanted), text);
        }
        for text in ["101%", "-1%", "%", "ten", "1.5%", "10"] {
            assert!(floor(text).is_err(), "{text}");
        }
    }
}
