//! Moments of which a server itself has said how far it was: what a drill is held against, besides what we read
//! in the log. Knows which of them are remembered and which of them a recovery must have reached; must not
//! know who asks a server.

use jiff::{SignedDuration, Timestamp};

use super::{Moment, Way};
use crate::model::{Heartbeat, Lsn, Replayed};

/// How long they are remembered, and for how long more than one in an hour.
const LONGEST: SignedDuration = SignedDuration::from_hours(24 * 8);
const CLOSE: SignedDuration = SignedDuration::from_hours(2);
const HOUR: i64 = 3600;

/// Adds one, where the newest is `apart` from it, and forgets what is too old or too many. Says whether
/// anything changed.
pub fn remember(beats: &mut Vec<Heartbeat>, new: Heartbeat, apart: SignedDuration) -> bool {
    let is_news = beats.last().is_none_or(|last| {
        new.at.duration_since(last.at) >= apart
            && (new.lsn, new.timeline) > (last.lsn, last.timeline)
    });
    if !is_news {
        return false;
    }
    let mut hour = None;
    beats.retain(|beat| {
        let age = new.at.duration_since(beat.at);
        let of = Some(beat.at.as_second().div_euclid(HOUR));
        age < CLOSE || (age < LONGEST && std::mem::replace(&mut hour, of) != of)
    });
    beats.push(new);
    true
}

/// Those that a recovery on this way passes: what another timeline's server said is not of this one.
pub fn passed<'a>(beats: &'a [Heartbeat], way: &Way) -> impl Iterator<Item = &'a Heartbeat> {
    let (timeline, range) = (way.timeline, way.start..=way.end);
    beats.iter().filter(move |beat| beat.timeline == timeline && range.contains(&beat.lsn))
}

/// What contradicts that a server was recovered to `moment`: it must have come as far as it said itself that
/// it was (`beat`), and hold no transaction from after the moment.
pub fn contradiction(
    moment: &Moment,
    beat: Option<&Heartbeat>,
    replayed: &Replayed,
) -> Option<String> {
    if let Some(beat) = beat.filter(|beat| replayed.lsn < beat.lsn) {
        return Some(format!(
            "at {} the server itself was at {}, and what was recovered ends at {}",
            words(beat.at),
            beat.lsn,
            replayed.lsn
        ));
    }
    match (moment, replayed.last_ended) {
        (Moment::Time(time), Some(ended)) if ended > *time => Some(format!(
            "it was to be recovered to {}, and holds a transaction that ended at {}",
            words(*time),
            words(ended)
        )),
        _ => None,
    }
}

/// What it proves that nothing contradicts.
pub fn proof(beat: &Heartbeat, replayed: &Replayed) -> String {
    let ended = replayed
        .last_ended
        .map(|ended| format!("; its last transaction ended at {}", words(ended)));
    format!(
        "all from before {} is there: by the server's own clock it was at {} then{}",
        words(beat.at),
        beat.lsn,
        ended.unwrap_or_default()
    )
}

fn words(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()
}

/// One of them by a number that nobody chose.
pub fn any_of(beats: &[Heartbeat], number: u128) -> Option<Heartbeat> {
    let count = u128::try_from(beats.len()).ok().filter(|count| *count > 0)?;
    beats.get(usize::try_from(number % count).ok()?).copied()
}

/// The last one before a position.
pub fn last_before(beats: &[Heartbeat], lsn: Lsn) -> Option<Heartbeat> {
    beats.iter().filter(|beat| beat.lsn <= lsn).max_by_key(|beat| beat.lsn).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn beat(second: i64, lsn: u64) -> Heartbeat {
        Heartbeat { at: Timestamp::from_second(second).unwrap(), lsn: Lsn(lsn), timeline: 1 }
    }

    fn replayed(lsn: u64, second: i64) -> Replayed {
        let last_ended = Some(Timestamp::from_second(second).unwrap());
        Replayed { lsn: Lsn(lsn), last_ended }
    }

    #[test]
    fn a_server_that_stopped_early_or_late_is_caught() {
        let (moment, beat) = (Moment::Time(beat(100, 0).at), beat(100, 5000));
        assert_eq!(contradiction(&moment, Some(&beat), &replayed(5000, 100)), None);
        let early = contradiction(&moment, Some(&beat), &replayed(4999, 90)).unwrap();
        assert!(early.contains("itself was at 0/1388"), "{early}");
        let late = contradiction(&moment, Some(&beat), &replayed(6000, 101)).unwrap();
        assert!(late.contains("holds a transaction that ended at"), "{late}");
        // To the end of the log nothing is too late.
        assert_eq!(contradiction(&Moment::Latest, Some(&beat), &replayed(6000, 101)), None);
    }

    #[test]
    fn what_another_timelines_server_said_is_not_held_against_it() {
        let (start, end) = (Lsn(100), Lsn(900));
        let (segments, gap) = Default::default();
        let (timeline, withheld) = (2, None);
        let way = Way { start, end, timeline, is_same: false, segments, gap, withheld };
        let other = Heartbeat { timeline: 2, ..beat(3, 300) };
        let beats = [beat(1, 50), beat(2, 200), other, Heartbeat { lsn: Lsn(901), ..other }];
        assert_eq!(passed(&beats, &way).collect::<Vec<_>>(), [&other]);
    }

    proptest! {
        #[test]
        fn few_are_remembered_and_the_newest_always(steps in proptest::collection::vec(1_i64..4000, 1..800)) {
            let (mut beats, mut now, mut last) = (Vec::new(), 0, None);
            for (n, step) in steps.into_iter().enumerate() {
                now += step;
                let new = beat(now, n as u64 + 1);
                if remember(&mut beats, new, SignedDuration::from_mins(1)) {
                    last = Some(new);
                }
            }
            prop_assert_eq!(beats.last().copied(), last);
            prop_assert!(beats.len() <= 120 + 24 * 8 + 2, "{}", beats.len());
            prop_assert!(beats.is_sorted_by(|a, b| a.at < b.at && a.lsn < b.lsn));
        }
    }
}
