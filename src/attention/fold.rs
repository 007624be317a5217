//! What comes again is no message each time, and a flood is one. Knows counting and times; must not
//! know what happened.

use jiff::{SignedDuration, Timestamp};

use crate::model::Again;

/// How long a message may wait for anything else than its repetition.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// What one route was told of a trouble that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// How often it has happened.
    pub count: u32,
    pub first: Timestamp,
    /// When it was last told, or will be.
    pub told: Timestamp,
}

/// What is to be remembered, and when the message goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folded {
    pub now: Before,
    pub due: Timestamp,
    /// It waits because the same was told a while ago.
    pub is_held: bool,
}

impl Folded {
    /// What the message says of the times before; `None`: it is the first.
    pub fn again(&self) -> Option<Again> {
        (self.now.count > 1).then_some(Again { times: self.now.count, since: self.now.first })
    }
}

/// The first time is told at once, the next ones together, `repeat` after that. `waiting`: what the
/// message that is not sent yet stands for, and when that is due; the new one takes its place.
pub fn fold(
    before: Option<Before>,
    waiting: Option<(Again, Timestamp)>,
    repeat: SignedDuration,
    now: Timestamp,
) -> Folded {
    // A clock that was set back: nothing was told in the future, and nothing waits for it.
    let ahead = |before: Before| Before { told: before.told.min(now), ..before };
    let before = if waiting.is_none() { before.map(ahead) } else { before };
    let most = now.checked_add(repeat.max(LONGEST)).unwrap_or(now);
    let waiting = waiting.map(|(again, due)| (again, due.min(most)));
    let counted = before.map_or(0, |before| before.count);
    let waited = waiting.map_or(0, |(again, _)| again.times);
    let firsts = before.map(|before| before.first).into_iter();
    let first = firsts.chain(waiting.map(|(again, _)| again.since)).min().unwrap_or(now);
    let next = before.map_or(now, |before| before.told.checked_add(repeat).unwrap_or(now).max(now));
    let due = waiting.map_or(next, |(_, due)| due);
    let told = match (before, waiting) {
        // What waits is told when it is told.
        (Some(before), Some(_)) => before.told,
        _ => due,
    };
    let is_held = waiting.is_none() && due > now;
    Folded { now: Before { count: counted.max(waited) + 1, first, told }, due, is_held }
}

/// How many of the messages that are due go out through a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// So many, one by one; the others wait.
    Each(usize),
    /// All of them as one message.
    Together,
}

/// `sent` of `most` messages went out within the hour. What had to wait goes out as one.
pub fn portion(due: usize, has_waited: bool, sent: usize, most: usize) -> Portion {
    match most.saturating_sub(sent) {
        0 => Portion::Each(0),
        _ if has_waited && due > 1 => Portion::Together,
        free => Portion::Each(free.min(due)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPEAT: SignedDuration = SignedDuration::from_hours(6);

    fn at(hour: i64) -> Timestamp {
        "2025-11-24T02:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(hour)
    }

    #[test]
    fn what_comes_every_hour_is_told_every_six_hours_with_its_count() {
        let mut before = None;
        let mut waiting: Option<(Again, Timestamp)> = None;
        let mut told = Vec::new();
        for hour in 0..20 {
            // What is due by now was sent.
            if let Some((again, _)) = waiting.take_if(|(_, due)| *due <= at(hour)) {
                told.push((hour, again.times));
            }
            let folded = fold(before, waiting, REPEAT, at(hour));
            before = Some(folded.now);
            let again = folded.again().unwrap_or(Again { times: 1, since: at(hour) });
            assert_eq!(again.since, at(0));
            match folded.due <= at(hour) {
                true => told.push((hour, again.times)),
                false => waiting = Some((again, folded.due)),
            }
        }
        assert_eq!(told, [(0, 1), (6, 6), (12, 12), (18, 18)]);
    }

    #[test]
    fn what_comes_rarely_is_told_each_time() {
        let first = fold(None, None, REPEAT, at(0));
        assert_eq!((first.due, first.again(), first.is_held), (at(0), None, false));
        let second = fold(Some(first.now), None, REPEAT, at(7));
        assert_eq!((second.due, second.is_held), (at(7), false));
        assert_eq!(second.again(), Some(Again { times: 2, since: at(0) }));
    }

    #[test]
    fn a_message_that_waits_is_counted_though_the_trouble_was_over_in_between() {
        let waiting = Again { times: 3, since: at(0) };
        let folded = fold(None, Some((waiting, at(5))), REPEAT, at(4));
        assert_eq!(folded.again(), Some(Again { times: 4, since: at(0) }));
        assert_eq!((folded.due, folded.is_held), (at(5), false));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_back_for_ever() {
        let told = Before { count: 3, first: at(0), told: at(9000) };
        let folded = fold(Some(told), None, REPEAT, at(1));
        assert_eq!((folded.due, folded.now.told, folded.is_held), (at(7), at(7), true));
        let waiting = Again { times: 2, since: at(0) };
        let folded = fold(Some(told), Some((waiting, at(9006))), REPEAT, at(1));
        assert_eq!(folded.due, at(7));
    }

    #[test]
    fn a_flood_is_cut_and_its_rest_is_one_message() {
        assert_eq!(portion(5, false, 0, 20), Portion::Each(5));
        assert_eq!(portion(30, false, 0, 20), Portion::Each(20));
        assert_eq!(portion(10, true, 20, 20), Portion::Each(0));
        assert_eq!(portion(10, true, 25, 20), Portion::Each(0));
        assert_eq!(portion(10, true, 19, 20), Portion::Together);
        assert_eq!(portion(1, true, 0, 20), Portion::Each(1));
    }
}
