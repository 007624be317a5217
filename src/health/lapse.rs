//! What of a job's health is news: its backups became too old, there never was one, or that is over.
//! Pure: the health now and what was told before in, what to tell out.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{DestinationHealth, JobHealth, is_late};

/// Worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lapse {
    /// The newest backup is older than it may be, or from the future.
    Late,
    /// The time in which there should have been a first backup is over.
    Never,
}

/// What is remembered of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The worst that people know of and that is not over.
    pub lapse: Option<Lapse>,
    /// Since when each destination without a backup is looked at.
    pub empty_since: BTreeMap<String, Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The destinations that it is about.
    Lapsed(Lapse, Vec<String>),
    /// It is over; the worst that was told.
    Over(Lapse),
}

/// What to remember from now on, and what to tell. A job that keeps failing is late all the same.
pub fn lapse(health: &JobHealth, told: &Told, now: Timestamp) -> (Told, Option<News>) {
    let empty = health.destinations.iter().filter(|place| place.last_success.is_none());
    // A clock that was set back starts anew.
    let since = |name: &String| told.empty_since.get(name).map_or(now, |since| now.min(*since));
    let empty_since: BTreeMap<String, Timestamp> =
        empty.map(|place| (place.name.clone(), since(&place.name))).collect();
    let found: Vec<(Lapse, &String)> = health
        .destinations
        .iter()
        .filter_map(|place| Some((of(place, &empty_since, now)?, &place.name)))
        .collect();
    let worst = found.iter().map(|(lapse, _)| *lapse).max();
    let news = match worst {
        Some(worst) if told.lapse < Some(worst) => {
            let about = found.iter().filter(|(lapse, _)| *lapse == worst);
            Some(News::Lapsed(worst, about.map(|(_, name)| (*name).clone()).collect()))
        }
        None => told.lapse.map(News::Over),
        Some(_) => None,
    };
    // What has become less bad is over only when all is well.
    let lapse = if worst.is_some() { worst.max(told.lapse) } else { None };
    (Told { lapse, empty_since }, news)
}

fn of(
    place: &DestinationHealth,
    empty_since: &BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> Option<Lapse> {
    let most = place.max_age_seconds.map(SignedDuration::from_secs);
    if let Some(age) = place.age_seconds {
        return is_late(SignedDuration::from_secs(age), most).then_some(Lapse::Late);
    }
    let waited = now.duration_since(*empty_since.get(&place.name)?);
    (waited > most?).then_some(Lapse::Never)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Status;

    const HOUR: i64 = 3600;

    fn now() -> Timestamp {
        "2025-11-24T02:00:00Z".parse().unwrap()
    }

    /// A job of destinations whose newest backups are so many seconds old; 25 h are allowed.
    fn health(ages: &[Option<i64>]) -> JobHealth {
        let place = |(n, age): (usize, &Option<i64>)| DestinationHealth {
            name: format!("d{n}"),
            status: Status::Healthy,
            last_success: age.map(|age| now() - SignedDuration::from_secs(age)),
            age_seconds: *age,
            max_age_seconds: Some(25 * HOUR),
        };
        JobHealth {
            job: "db".parse().unwrap(),
            status: Status::Healthy,
            last_success: None,
            age_seconds: None,
            max_age_seconds: Some(25 * HOUR),
            next_run: None,
            last_proven: None,
            destinations: ages.iter().enumerate().map(place).collect(),
            log: None,
        }
    }

    fn late(names: &[&str]) -> Option<News> {
        Some(News::Lapsed(Lapse::Late, names.iter().map(|name| (*name).to_owned()).collect()))
    }

    #[test]
    fn late_is_told_once_and_its_end_once() {
        let told = Told::default();
        let (told, news) = lapse(&health(&[Some(25 * HOUR)]), &told, now());
        assert_eq!(news, None, "as old as it may be");
        let (told, news) = lapse(&health(&[Some(25 * HOUR + 60), Some(0)]), &told, now());
        assert_eq!(news, late(&["d0"]));
        let (told, news) = lapse(&health(&[Some(99 * HOUR), Some(99 * HOUR)]), &told, now());
        assert_eq!(news, None);
        let (told, news) = lapse(&health(&[Some(1), Some(99 * HOUR)]), &told, now());
        assert_eq!(news, None, "not all of it is over");
        let (told, news) = lapse(&health(&[Some(1), Some(1)]), &told, now());
        assert_eq!((news, &told), (Some(News::Over(Lapse::Late)), &Told::default()));
        assert_eq!(lapse(&health(&[Some(1)]), &told, now()).1, None);
    }

    #[test]
    fn a_backup_from_the_future_is_late_by_the_rule_of_health() {
        let hour = health(&[Some(-HOUR)]);
        assert_eq!(lapse(&hour, &Told::default(), now()).1, None, "clocks differ a little");
        let ahead = health(&[Some(-HOUR - 1), Some(0)]);
        assert_eq!(lapse(&ahead, &Told::default(), now()).1, late(&["d0"]));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_hold_never_back() {
        let later = now() + SignedDuration::from_hours(24 * 365);
        let (told, _) = lapse(&health(&[None]), &Told::default(), later);
        let (told, _) = lapse(&health(&[None]), &told, now());
        let due = now() + SignedDuration::from_hours(25) + SignedDuration::from_secs(1);
        assert!(matches!(lapse(&health(&[None]), &told, due).1, Some(News::Lapsed(..))));
    }

    #[test]
    fn what_never_had_a_backup_has_its_time_first() {
        let (told, news) = lapse(&health(&[None]), &Told::default(), now());
        assert_eq!((news, told.empty_since["d0"]), (None, now()));
        let later = now() + SignedDuration::from_hours(25);
        assert_eq!(lapse(&health(&[None]), &told, later).1, None);
        let later = later + SignedDuration::from_secs(1);
        let (told, news) = lapse(&health(&[None, Some(99 * HOUR)]), &told, later);
        assert_eq!(news, Some(News::Lapsed(Lapse::Never, vec!["d0".into()])));
        // Worse was told already.
        let (told, news) = lapse(&health(&[Some(30 * HOUR)]), &told, later);
        assert_eq!((news, told.lapse), (None, Some(Lapse::Never)));
        assert_eq!(lapse(&health(&[Some(0)]), &told, later).1, Some(News::Over(Lapse::Never)));
    }

    #[test]
    fn late_that_becomes_never_is_told_and_a_job_without_times_is_neither() {
        let told = Told { lapse: Some(Lapse::Late), ..Told::default() };
        let (told, _) = lapse(&health(&[None]), &told, now() - SignedDuration::from_hours(26));
        assert_eq!(told.lapse, None, "a new destination has its time, so nothing is wrong now");
        let told = Told { lapse: Some(Lapse::Late), ..told };
        let (_, news) = lapse(&health(&[None]), &told, now());
        assert_eq!(news, Some(News::Lapsed(Lapse::Never, vec!["d0".into()])));
        let mut health = health(&[None, Some(999 * HOUR)]);
        health.destinations.iter_mut().for_each(|place| place.max_age_seconds = None);
        assert_eq!(lapse(&health, &Told::default(), now()).1, None);
    }
}
