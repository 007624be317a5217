//! Whether each job is all right. Pure: stored facts and `now` in, states with reasons out. Must not
//! know where the facts are kept or who asks. Never comforts: what is not known is not healthy.

mod lapse;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::model::JobName;

pub use lapse::{Lapse, News, Told, lapse};

/// Worst last. `Healthy` and `Unproven` are well; the others answer 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Healthy,
    /// Drills are planned, and for two of their intervals none has proven a backup.
    Unproven,
    /// The newest backup is older than the job allows.
    Late,
    /// The last run did not reach this destination.
    Failing,
    /// There is no backup at all.
    Never,
}

impl Status {
    pub fn is_well(self) -> bool {
        matches!(self, Self::Healthy | Self::Unproven)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unproven => "unproven",
            Self::Late => "late",
            Self::Failing => "failing",
            Self::Never => "never",
        }
    }
}

/// What the catalog knows of one job on one destination.
#[derive(Debug, Clone)]
pub struct DestinationFacts {
    pub name: String,
    /// How old the newest backup there may become.
    pub max_age: Option<SignedDuration>,
    /// It takes only the first backup of each period, so its newest is no measure for the job.
    pub cold: bool,
    /// Start of the newest committed full backup there.
    pub last_success: Option<Timestamp>,
    /// Start of the newest run that did not reach it.
    pub last_failure: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub struct JobFacts {
    pub job: JobName,
    /// `None`: the job has no schedule and no `max_age`, so it can't be late.
    pub max_age: Option<SignedDuration>,
    pub next_run: Option<Timestamp>,
    /// When a backup of it was last proven to restore.
    pub last_proven: Option<Timestamp>,
    /// How long ago that may be; `None`: no drills are planned.
    pub proven_within: Option<SignedDuration>,
    pub destinations: Vec<DestinationFacts>,
    /// Of a server that is backed up whole.
    pub log: Option<LogFacts>,
}

/// What the catalog knows of a server's write-ahead log.
#[derive(Debug, Clone)]
pub struct LogFacts {
    /// Whatever was committed before this is stored.
    pub safe_at: Option<Timestamp>,
    /// It does not go on until somebody acts.
    pub halted: bool,
    /// How old what is not stored yet may become.
    pub max_lag: SignedDuration,
}

/// The body of `/health`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub status: Status,
    pub jobs: Vec<JobHealth>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobHealth {
    pub job: JobName,
    pub status: Status,
    /// The oldest among the destinations' newest backups: the one that a person would miss.
    pub last_success: Option<Timestamp>,
    pub age_seconds: Option<i64>,
    pub max_age_seconds: Option<i64>,
    pub next_run: Option<Timestamp>,
    /// When a backup was last proven to restore.
    pub last_proven: Option<Timestamp>,
    pub destinations: Vec<DestinationHealth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogHealth>,
}

/// How far a server's write-ahead log is stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogHealth {
    pub status: Status,
    pub safe_at: Option<Timestamp>,
    /// How much time would be lost now.
    pub lag_seconds: Option<i64>,
    pub max_lag_seconds: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DestinationHealth {
    pub name: String,
    pub status: Status,
    pub last_success: Option<Timestamp>,
    pub age_seconds: Option<i64>,
    pub max_age_seconds: Option<i64>,
}

/// The state of all jobs; as bad as the worst of them. No job at all is not health.
pub fn report(jobs: &[JobFacts], now: Timestamp) -> Report {
    let jobs: Vec<JobHealth> = jobs.iter().map(|job| job_health(job, now)).collect();
    let status = jobs.iter().map(|job| job.status).max().unwrap_or(Status::Never);
    Report { status, jobs }
}

pub fn job_health(facts: &JobFacts, now: Timestamp) -> JobHealth {
    let age = |at: Timestamp| now.duration_since(at).as_secs();
    let destinations: Vec<DestinationHealth> = facts
        .destinations
        .iter()
        .map(|destination| DestinationHealth {
            name: destination.name.clone(),
            status: destination_status(destination, now),
            last_success: destination.last_success,
            age_seconds: destination.last_success.map(age),
            max_age_seconds: destination.max_age.map(|age| age.as_secs()),
        })
        .collect();
    let status = destinations.iter().map(|d| d.status).max().unwrap_or(Status::Never);
    let is_proven = facts
        .proven_within
        .is_none_or(|most| facts.last_proven.is_some_and(|at| now.duration_since(at) <= most));
    let log = facts.log.as_ref().map(|log| log_health(log, now));
    let status = log.as_ref().map_or(status, |log| status.max(log.status));
    let status = if is_proven { status } else { status.max(Status::Unproven) };
    // One destination without any backup makes the whole "never", but the job's own last success is
    // still worth telling.
    let all_cold = facts.destinations.iter().all(|d| d.cold);
    let telling = facts.destinations.iter().filter(|d| all_cold || !d.cold);
    let last_success = telling.filter_map(|d| d.last_success).min();
    JobHealth {
        job: facts.job.clone(),
        status,
        last_success,
        age_seconds: last_success.map(age),
        max_age_seconds: facts.max_age.map(|age| age.as_secs()),
        next_run: facts.next_run,
        last_proven: facts.last_proven,
        destinations,
        log,
    }
}

fn log_health(facts: &LogFacts, now: Timestamp) -> LogHealth {
    let lag = facts.safe_at.map(|at| now.duration_since(at));
    let status = match lag {
        _ if facts.halted => Status::Failing,
        Some(lag) if lag <= facts.max_lag => Status::Healthy,
        _ => Status::Late,
    };
    LogHealth {
        status,
        safe_at: facts.safe_at,
        lag_seconds: lag.map(|lag| lag.as_secs()),
        max_lag_seconds: facts.max_lag.as_secs(),
    }
}

/// How far in the future a backup may lie: clocks differ a little.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);

/// Whether a newest backup of that age is too old. One from the future says that a clock is wrong; it
/// must not hold health up for ever.
fn is_late(age: SignedDuration, most: Option<SignedDuration>) -> bool {
    most.is_some_and(|most| age > most) || age < -AHEAD
}

fn destination_status(facts: &DestinationFacts, now: Timestamp) -> Status {
    let Some(success) = facts.last_success else { return Status::Never };
    if facts.last_failure.is_some_and(|failure| failure > success) {
        return Status::Failing;
    }
    match is_late(now.duration_since(success), facts.max_age) {
        true => Status::Late,
        false => Status::Healthy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn facts(destinations: &[(Option<&str>, Option<&str>)]) -> JobFacts {
        let destination =
            |(n, (success, failure)): (usize, &(Option<&str>, Option<&str>))| DestinationFacts {
                name: format!("d{n}"),
                max_age: Some(SignedDuration::from_hours(13)),
                cold: false,
                last_success: success.map(at),
                last_failure: failure.map(at),
            };
        JobFacts {
            job: "db".parse().unwrap(),
            max_age: Some(SignedDuration::from_hours(13)),
            next_run: None,
            last_proven: None,
            proven_within: None,
            destinations: destinations.iter().enumerate().map(destination).collect(),
            log: None,
        }
    }

    fn status(destinations: &[(Option<&str>, Option<&str>)], now: &str) -> Status {
        report(&[facts(destinations)], at(now)).status
    }

    #[test]
    fn never_failing_late_and_healthy() {
        let early = "2025-11-24T01:00:00Z";
        let retry = "2025-11-24T13:30:00Z";
        let now = "2025-11-24T14:00:00Z";
        assert_eq!(status(&[(None, None)], now), Status::Never);
        assert_eq!(status(&[(Some(early), Some(retry))], now), Status::Failing);
        assert_eq!(status(&[(Some(retry), Some(early))], now), Status::Healthy);
        assert_eq!(status(&[(Some(early), None)], now), Status::Healthy);
        assert_eq!(status(&[(Some(early), None)], "2025-11-24T14:00:01Z"), Status::Late);
        assert_eq!(status(&[(Some(now), None)], "2020-01-01T00:00:00Z"), Status::Late);
    }

    #[test]
    fn a_job_whose_drills_prove_nothing_is_unproven_and_well() {
        let now = at("2025-11-24T02:00:00Z");
        let mut facts = facts(&[(Some("2025-11-24T01:00:00Z"), None)]);
        let status = |facts: &JobFacts| job_health(facts, now).status;
        facts.proven_within = Some(SignedDuration::from_hours(14 * 24));
        assert_eq!(status(&facts), Status::Unproven);
        assert!(Status::Unproven.is_well());
        facts.last_proven = Some(at("2025-11-10T02:00:00Z"));
        assert_eq!(status(&facts), Status::Healthy);
        facts.last_proven = Some(at("2025-11-10T01:59:59Z"));
        assert_eq!(status(&facts), Status::Unproven);
        facts.destinations[0].last_success = None;
        assert_eq!(status(&facts), Status::Never, "worse things are said first");
    }

    #[test]
    fn a_log_that_is_stored_too_late_or_stands_still_is_no_health() {
        let now = at("2025-11-24T02:00:00Z");
        let mut facts = facts(&[(Some("2025-11-24T01:00:00Z"), None)]);
        let mut with = |safe_at: Option<&str>, halted| {
            let max_lag = SignedDuration::from_mins(15);
            facts.log = Some(LogFacts { safe_at: safe_at.map(at), halted, max_lag });
            job_health(&facts, now).status
        };
        assert_eq!(with(Some("2025-11-24T01:45:00Z"), false), Status::Healthy);
        assert_eq!(with(Some("2025-11-24T01:44:59Z"), false), Status::Late);
        assert_eq!(with(None, false), Status::Late);
        assert_eq!(with(Some("2025-11-24T02:00:00Z"), true), Status::Failing);
    }

    #[test]
    fn a_cold_destination_has_an_age_of_its_own() {
        let (month_ago, now) = ("2025-11-01T01:00:00Z", "2025-11-24T02:00:00Z");
        let mut facts = facts(&[(Some("2025-11-24T01:00:00Z"), None), (Some(month_ago), None)]);
        assert_eq!(job_health(&facts, at(now)).status, Status::Late);
        facts.destinations[1].cold = true;
        facts.destinations[1].max_age = Some(SignedDuration::from_hours(32 * 24));
        let health = job_health(&facts, at(now));
        assert_eq!((health.status, health.age_seconds), (Status::Healthy, Some(3600)));
        assert_eq!(health.destinations[1].max_age_seconds, Some(32 * 86_400));
        facts.destinations[1].last_success = None;
        assert_eq!(job_health(&facts, at(now)).status, Status::Never);
    }

    #[test]
    fn one_destination_that_never_got_a_backup_is_enough() {
        let early = "2025-11-24T01:00:00Z";
        assert_eq!(
            status(&[(Some(early), None), (None, None)], "2025-11-24T02:00:00Z"),
            Status::Never
        );
        assert_eq!(report(&[], at(early)).status, Status::Never, "no job is not health");
        assert_eq!(status(&[], early), Status::Never);
    }
}
