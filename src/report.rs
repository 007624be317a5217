//! A month of every job, for whoever has to answer for it. Pure: what is recorded in, a report with a
//! verdict and its reasons out. Must not know where the facts are kept or how a report looks. Never
//! comforts: what is not known is not well.

mod facts;
mod month;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::model::{BackupId, JobName, RunKind};

pub use facts::{
    BackupFacts, CopyFacts, DestinationFacts, Drill, Facts, Failure, JobFacts, ReadFacts,
};
pub use month::Month;

/// The shape of `report --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub month: Month,
    pub from: Timestamp,
    /// The month's end; of the running month, this moment.
    pub to: Timestamp,
    /// The month is over.
    pub complete: bool,
    pub generated_at: Timestamp,
    pub host: String,
    /// The version that made it.
    pub respaldo: String,
    pub well: bool,
    /// One sentence.
    pub summary: String,
    pub jobs: Vec<JobReport>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobReport {
    pub job: JobName,
    /// What is backed up, each as `postgres shop`.
    pub sources: Vec<String>,
    /// Whether the newest backup is; `None` without one.
    pub encrypted: Option<bool>,
    pub well: bool,
    /// What is not as it was promised.
    pub findings: Vec<String>,
    /// What could be better, though nothing was promised.
    pub remarks: Vec<String>,
    pub backups: Backups,
    pub rpo: Rpo,
    pub verification: Verification,
    pub drills: Drills,
    /// Of the newest backup, when the report was made.
    pub copies: CopyFacts,
    pub destinations: Vec<DestinationFacts>,
    /// Runs that failed in the month, of any kind; the newest ones.
    pub failures: Vec<Failure>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Backups {
    /// Times of the schedule, since the job is known.
    pub planned: usize,
    /// Committed ones, also those that a person asked for.
    pub made: usize,
    /// Planned times after which no backup came before the next.
    pub missed: usize,
    pub missed_at: Vec<Timestamp>,
    /// Made, but not on every destination at first.
    pub partial: usize,
    /// Runs that came to nothing, tried again or not.
    pub failed: usize,
    pub newest: Option<BackupId>,
    /// Sizes of the newest, in bytes.
    pub stored_bytes: Option<u64>,
    pub plain_bytes: Option<u64>,
}

/// How much work would have been lost at the worst moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rpo {
    /// The longest time between two backups that follow each other.
    pub longest_gap_seconds: Option<i64>,
    /// How old the newest was at the end.
    pub age_at_end_seconds: Option<i64>,
    pub max_age_seconds: Option<i64>,
}

/// What was read back.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Verification {
    /// Within so many days each copy is to be read; `None`: nothing was promised.
    pub days: Option<u32>,
    /// Copies that were read back in the month, and how often in all.
    pub copies: usize,
    pub reads: usize,
    pub damaged_reads: usize,
    /// Copies that are there now and were not whole when they were last read.
    pub damaged: Vec<String>,
    /// Copies that waited for longer than the days.
    pub overdue: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Drills {
    pub planned: usize,
    pub held: usize,
    pub proven: usize,
    pub failed: usize,
    /// How long the newest proven restore took: the measured recovery time.
    pub rto_seconds: Option<f64>,
    pub longest_seconds: Option<f64>,
    pub all: Vec<Drill>,
}

/// Failures that a report names; more are counted only.
const MOST_FAILURES: usize = 50;
/// What a run of the job itself is called.
const BACKUPS: [&str; 2] = [RunKind::Backup.as_str(), RunKind::Incremental.as_str()];
/// A run is recorded a moment after its time.
const MOMENT: SignedDuration = SignedDuration::from_mins(1);

/// The report of `month`, as the facts say it at `facts.now`.
pub fn report(facts: Facts) -> Report {
    let (from, to) = facts.bounds;
    let end = to.min(facts.now);
    let jobs: Vec<JobReport> =
        facts.jobs.into_iter().map(|job| of_job(job, (from, end), facts.now)).collect();
    let well = !jobs.is_empty() && jobs.iter().all(|job| job.well);
    Report {
        month: facts.month,
        from,
        to: end,
        complete: to <= facts.now,
        generated_at: facts.now,
        host: facts.host,
        respaldo: facts.respaldo,
        well,
        summary: summary(&jobs, well),
        jobs,
    }
}

fn of_job(facts: JobFacts, (from, end): (Timestamp, Timestamp), now: Timestamp) -> JobReport {
    let backups = backups(&facts, (from, end), now);
    let rpo = rpo(&facts, (from, end));
    let verification = verification(&facts, now);
    let drills = drills(&facts, end);
    let findings = findings(&facts, &backups, &rpo, &verification, &drills);
    let mut failures = facts.failures;
    failures.reverse();
    failures.truncate(MOST_FAILURES);
    JobReport {
        remarks: remarks(&verification, &drills, &facts.copies),
        job: facts.job,
        sources: facts.sources,
        encrypted: facts.encrypted,
        well: findings.is_empty(),
        findings,
        backups,
        rpo,
        verification,
        drills,
        copies: facts.copies,
        destinations: facts.destinations,
        failures,
    }
}

fn backups(facts: &JobFacts, (from, end): (Timestamp, Timestamp), now: Timestamp) -> Backups {
    let within = |at: Timestamp| at >= from && at < end;
    let starts: Vec<Timestamp> = facts.backups.iter().map(|made| made.id.started()).collect();
    let mut backups = Backups::default();
    for (n, planned) in facts.planned.iter().enumerate() {
        let known = facts.known_since.is_some_and(|since| since <= *planned + MOMENT);
        if !within(*planned) || !known {
            continue;
        }
        let next = facts.planned.get(n + 1).copied().unwrap_or(Timestamp::MAX);
        let made = starts.iter().any(|start| start >= planned && *start < next);
        // Its turn is not over yet.
        if !made && next > now {
            continue;
        }
        backups.planned += 1;
        backups.missed_at.extend((!made).then_some(*planned));
    }
    backups.missed = backups.missed_at.len();
    let made: Vec<&BackupFacts> =
        facts.backups.iter().filter(|made| within(made.id.started())).collect();
    backups.made = made.len();
    backups.partial = made.iter().filter(|made| made.partial).count();
    backups.failed =
        facts.failures.iter().filter(|failure| BACKUPS.contains(&&*failure.kind)).count();
    let newest = facts.backups.iter().rfind(|made| made.id.started() < end);
    backups.newest = newest.map(|made| made.id);
    backups.stored_bytes = newest.and_then(|made| made.stored_bytes);
    backups.plain_bytes = newest.and_then(|made| made.plain_bytes);
    backups
}

fn rpo(facts: &JobFacts, (from, end): (Timestamp, Timestamp)) -> Rpo {
    let starts = facts.backups.iter().map(|made| made.id.started());
    let starts: Vec<Timestamp> = starts.filter(|start| *start < end).collect();
    let gaps = starts.windows(2).filter(|pair| pair[1] >= from);
    Rpo {
        longest_gap_seconds: gaps.map(|pair| pair[1].duration_since(pair[0]).as_secs()).max(),
        age_at_end_seconds: starts.last().map(|last| end.duration_since(*last).as_secs()),
        max_age_seconds: facts.max_age.map(|age| age.as_secs()),
    }
}

fn verification(facts: &JobFacts, now: Timestamp) -> Verification {
    let mut copies: Vec<&String> = facts.reads.iter().map(|read| &read.copy).collect();
    copies.sort();
    copies.dedup();
    let days = facts.verify_days;
    let late = |read: &&ReadFacts| {
        days.is_some_and(|days| now.duration_since(read.at).as_hours() > i64::from(days) * 24)
    };
    let damaged = facts.held.iter().filter(|held| !held.ok);
    Verification {
        days,
        copies: copies.len(),
        reads: facts.reads.len(),
        damaged_reads: facts.reads.iter().filter(|read| !read.ok).count(),
        damaged: damaged.map(|held| held.copy.clone()).collect(),
        overdue: facts.held.iter().filter(late).count(),
    }
}

fn drills(facts: &JobFacts, end: Timestamp) -> Drills {
    let proven = || facts.drills.iter().filter(|drill| drill.proven);
    Drills {
        planned: facts
            .drills_planned
            .iter()
            .filter(|at| **at < end && facts.known_since.is_some_and(|since| since <= **at))
            .count(),
        held: facts.drills.len(),
        proven: proven().count(),
        failed: facts.drills.len() - proven().count(),
        rto_seconds: proven().next_back().and_then(|drill| drill.seconds),
        longest_seconds: proven().filter_map(|drill| drill.seconds).max_by(f64::total_cmp),
        all: facts.drills.clone(),
    }
}

fn findings(
    facts: &JobFacts,
    backups: &Backups,
    rpo: &Rpo,
    verification: &Verification,
    drills: &Drills,
) -> Vec<String> {
    let mut findings = Vec::new();
    if backups.newest.is_none() {
        findings.push("there was no backup at all".to_owned());
    }
    if backups.missed > 0 {
        findings.push(format!(
            "{} of {} planned backups were not made",
            backups.missed, backups.planned
        ));
    }
    let last = facts.failures.iter().rfind(|failure| BACKUPS.contains(&&*failure.kind));
    if let Some(failure) =
        last.filter(|last| backups.newest.is_none_or(|id| id.started() < last.at))
    {
        findings.push(format!("the last backup failed: {}", failure.error));
    }
    let late = |age: &Option<i64>| age.zip(rpo.max_age_seconds).filter(|(age, most)| age > most);
    if let Some((gap, most)) = late(&rpo.longest_gap_seconds) {
        findings.push(format!(
            "{} passed between two backups, {} are allowed",
            span(gap),
            span(most)
        ));
    }
    if let Some((age, most)) = late(&rpo.age_at_end_seconds) {
        findings.push(format!(
            "the newest backup was {} old at the end, {} are allowed",
            span(age),
            span(most)
        ));
    }
    let lacking: Vec<&str> =
        facts.destinations.iter().filter(|place| place.lacks_newest).map(|p| &*p.name).collect();
    if !lacking.is_empty() {
        findings.push(format!("the newest backup is not on {}", lacking.join(", ")));
    }
    match verification.damaged.len() {
        0 => {}
        1 => findings.push(format!("a stored backup is damaged: {}", verification.damaged[0])),
        count => findings.push(format!("{count} stored backups are damaged")),
    }
    if verification.overdue > 0 {
        let days = verification.days.unwrap_or_default();
        let overdue = verification.overdue;
        let overdue = counted(overdue, "copy was", "copies were");
        findings.push(format!("{overdue} not read back within {days} days"));
    }
    if let Some(last) = drills.all.last().filter(|drill| !drill.proven) {
        let why = last.failure.as_deref().unwrap_or("it was not proven");
        findings.push(format!("the last drill failed: {why}"));
    } else if drills.planned > 0 && drills.proven == 0 {
        findings.push("no drill proved that a backup restores".to_owned());
    }
    findings
}

fn remarks(verification: &Verification, drills: &Drills, copies: &CopyFacts) -> Vec<String> {
    let mut remarks = Vec::new();
    if drills.planned == 0 && drills.proven == 0 {
        remarks.push("no drill is scheduled: nothing shows that its backups restore".to_owned());
    }
    if verification.days.is_none() && verification.reads == 0 {
        remarks.push("no verification is scheduled: no stored backup was read back".to_owned());
    }
    remarks.extend(copies.missing.clone());
    remarks
}

fn summary(jobs: &[JobReport], well: bool) -> String {
    if jobs.is_empty() {
        return "Not all is well: there is no job.".to_owned();
    }
    if !well {
        let of_job = |job: &JobReport| format!("{}: {}", job.job, job.findings.join(", "));
        let wrong: Vec<String> = jobs.iter().filter(|job| !job.well).map(of_job).collect();
        return format!("Not all is well: {}.", wrong.join("; "));
    }
    let sum = |of: fn(&JobReport) -> usize| jobs.iter().map(of).sum::<usize>();
    let (planned, missed) = (sum(|job| job.backups.planned), sum(|job| job.backups.missed));
    let made = match planned {
        0 => counted(sum(|job| job.backups.made), "backup was made", "backups were made"),
        _ => format!("{} of {planned} planned backups were made", planned - missed),
    };
    let mut parts = vec![made];
    let (held, proven) = (sum(|job| job.drills.held), sum(|job| job.drills.proven));
    if held > 0 {
        parts.push(format!("{proven} of {held} drills proved that they restore"));
    }
    if sum(|job| job.verification.reads) > 0 {
        let copies = sum(|job| job.verification.copies);
        parts.push(counted(
            copies,
            "stored copy was read back whole",
            "stored copies were read back whole",
        ));
    }
    format!("All is well: {}.", parts.join(", "))
}

/// So many of something, in words that fit.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// A time for people, in the largest unit that is still exact enough.
pub fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
