//! Schedules as other schedulers write them, in five fields. Knows those spellings; must not judge an
//! expression: what can't be said otherwise stays as it is, and the config refuses it.

/// How docker-volume-backup says "never by itself".
const NEVER: &str = "0 0 5 31 2 ?";

/// The lines of a variable, each in our words.
pub(super) fn lines(text: &str) -> String {
    text.split(';').map(|line| line_of(line.trim())).collect::<Vec<_>>().join(";")
}

fn line_of(line: &str) -> String {
    if line == NEVER {
        return String::new();
    }
    if let Some(every) = line.strip_prefix("@every ").and_then(minutes).and_then(every) {
        return every;
    }
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        // Seconds first; only a whole minute can be kept.
        ["0", rest @ ..] if rest.len() == 5 => rest.join(" "),
        _ => line.to_owned(),
    }
}

/// The whole minutes of a duration such as `6h` or `1h30m00s`.
fn minutes(text: &str) -> Option<u32> {
    let mut rest = text.trim();
    let mut total = 0_u32;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        let factor = match (&rest[digits..=digits], number) {
            ("h", _) => 60,
            ("m", _) => 1,
            ("s", 0) => 0,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = &rest[digits + 1..];
    }
    Some(total)
}

/// A cron line that comes as often, where the clock's own hours allow it.
fn every(minutes: u32) -> Option<String> {
    let (hours, rest) = (minutes / 60, minutes % 60);
    match (hours, rest) {
        (0, minute) if minute > 0 && 60 % minute == 0 => Some(format!("*/{minute} * * * *")),
        (24, 0) => Some("0 0 * * *".to_owned()),
        (hour, 0) if hour > 0 && 24 % hour == 0 => Some(format!("0 */{hour} * * *")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_spellings_are_understood_and_the_rest_is_left() {
        for (theirs, ours) in [
            ("@daily", "@daily"),
            ("30 4 * * *; 0 5 * * 0", "30 4 * * *;0 5 * * 0"),
            ("0 15 4 * * MON-FRI", "15 4 * * MON-FRI"),
            ("30 15 4 * * *", "30 15 4 * * *"),
            (NEVER, ""),
            ("@every 6h", "0 */6 * * *"),
            ("@every 0h30m00s", "*/30 * * * *"),
            ("@every 24h", "0 0 * * *"),
            ("@every 1h30m", "@every 1h30m"),
            ("@every 5h", "@every 5h"),
            ("@every 90s", "@every 90s"),
            ("@every 5", "@every 5"),
            ("@every ñ", "@every ñ"),
            ("@every 0m", "@every 0m"),
            ("@every 99999999999h", "@every 99999999999h"),
        ] {
            assert_eq!(lines(theirs), ours, "{theirs}");
        }
    }
}
