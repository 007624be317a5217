//! The verdict of a month, by facts that are written down here.

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A daily job at 01:00, each of whose backups was made, and on two places.
fn good() -> JobFacts {
    let day = |day: u32| at(&format!("2025-11-{day:02}T01:00:00Z"));
    let after = [at("2025-12-01T01:00:00Z")];
    let made = |start: Timestamp| BackupFacts {
        id: BackupId::at(start),
        partial: false,
        stored_bytes: Some(10),
        plain_bytes: Some(100),
    };
    let planned: Vec<Timestamp> = (1..=30).map(day).chain(after).collect();
    let drill = |day: Timestamp, seconds| Drill {
        at: day,
        backup: Some("b".into()),
        destination: "local".into(),
        proven: true,
        seconds: Some(seconds),
        tables: Some(1),
        rows: Some(2),
        failure: None,
    };
    let held = |copy: &str| ReadFacts { copy: copy.into(), at: day(28), ok: true };
    JobFacts {
        job: "db".parse().unwrap(),
        sources: vec!["postgres shop".into()],
        encrypted: Some(true),
        max_age: Some(SignedDuration::from_hours(26)),
        known_since: Some(at("2025-10-01T00:00:00Z")),
        backups: std::iter::once(at("2025-10-31T01:00:00Z"))
            .chain(planned.clone())
            .map(|at| made(at + SignedDuration::from_secs(5)))
            .collect(),
        planned,
        drills_planned: vec![day(9), day(16)],
        failures: vec![],
        verify_days: Some(30),
        reads: vec![held("a"), held("a"), held("b")],
        held: vec![held("a"), held("b")],
        drills: vec![drill(day(9), 7.0), drill(day(16), 5.5)],
        copies: CopyFacts { met: true, ..CopyFacts::default() },
        destinations: vec![],
    }
}

fn of(jobs: Vec<JobFacts>, now: &str) -> Report {
    let month: Month = "2025-11".parse().unwrap();
    report(Facts {
        month,
        bounds: month.bounds(&jiff::tz::TimeZone::UTC),
        now: at(now),
        host: "web1".into(),
        respaldo: "0".into(),
        jobs,
    })
}

const AFTER: &str = "2025-12-02T00:00:00Z";

fn findings(change: impl FnOnce(&mut JobFacts)) -> Vec<String> {
    let mut facts = good();
    change(&mut facts);
    let report = of(vec![facts], AFTER);
    assert_eq!(report.well, report.jobs[0].findings.is_empty());
    report.jobs[0].findings.clone()
}

#[test]
fn a_month_in_which_all_is_well() {
    let report = of(vec![good()], AFTER);
    assert_eq!(
        report.summary,
        "All is well: 30 of 30 planned backups were made, 2 of 2 drills proved that they restore, \
         2 stored copies were read back whole."
    );
    assert!(report.well && report.complete);
    let job = &report.jobs[0];
    assert_eq!((job.backups.made, job.backups.missed), (30, 0));
    assert_eq!(job.backups.newest.unwrap().to_string(), "20251130T010005Z");
    assert_eq!(job.rpo.longest_gap_seconds, Some(86_400));
    assert_eq!(job.rpo.age_at_end_seconds, Some(23 * 3_600 - 5));
    assert_eq!((job.drills.rto_seconds, job.drills.longest_seconds), (Some(5.5), Some(7.0)));
    assert_eq!((job.verification.reads, job.verification.copies), (3, 2));
    assert_eq!(job.remarks, [] as [String; 0]);
}

#[test]
fn each_thing_that_is_not_well_is_named() {
    let lost = |day: &str| {
        let day = day.to_owned();
        findings(|facts| facts.backups.retain(|made| !made.id.to_string().starts_with(&day)))
    };
    assert_eq!(
        lost("20251114"),
        [
            "1 of 30 planned backups were not made",
            "2 days passed between two backups, 26 h are allowed"
        ]
    );
    assert_eq!(
        lost("20251130"),
        [
            "1 of 30 planned backups were not made",
            "the newest backup was 46 h old at the end, 26 h are allowed"
        ]
    );
    let failed = |at: &str| {
        let failure = Failure { at: self::at(at), kind: "backup".into(), error: "no disk".into() };
        findings(|facts| facts.failures = vec![failure])
    };
    assert_eq!(failed("2025-11-30T12:00:00Z"), ["the last backup failed: no disk"]);
    assert_eq!(failed("2025-11-29T12:00:00Z"), [] as [String; 0], "there was one after it");
    assert_eq!(findings(|facts| facts.held[0].ok = false), ["a stored backup is damaged: a"]);
    assert_eq!(
        findings(|facts| facts.held[1].at = at("2025-10-02T00:00:00Z")),
        ["1 copy was not read back within 30 days"]
    );
    assert_eq!(findings(|facts| facts.drills.clear()), ["no drill proved that a backup restores"]);
    assert_eq!(
        findings(|facts| {
            facts.drills[1].proven = false;
            facts.drills[1].failure = Some("t has 1 row less".into());
        }),
        ["the last drill failed: t has 1 row less"]
    );
    assert_eq!(
        findings(|facts| {
            facts.backups.clear();
            facts.known_since = None;
            facts.drills_planned.clear();
        }),
        ["there was no backup at all"]
    );
    assert!(!of(vec![], AFTER).well, "no job is not well");
}

/// A job that came in the middle of the month missed nothing before; a manual backup makes up for a
/// planned one; what is still to come is not missed.
#[test]
fn only_what_could_have_been_made_is_missed() {
    let mut facts = good();
    facts.known_since = Some(at("2025-11-20T12:00:00Z"));
    facts.backups.retain(|made| made.id.started() > at("2025-11-20T12:00:00Z"));
    facts.backups.retain(|made| !made.id.to_string().starts_with("20251125"));
    let manual = at("2025-11-25T17:00:00Z");
    facts.backups.push(BackupFacts { id: BackupId::at(manual), ..facts.backups[0].clone() });
    facts.backups.sort_by_key(|made| made.id);
    let job = &of(vec![facts.clone()], AFTER).jobs[0];
    assert_eq!((job.backups.planned, job.backups.missed, job.backups.made), (10, 0, 10));

    facts.backups.retain(|made| made.id.started() < at("2025-11-28T00:00:00Z"));
    let report = of(vec![facts], "2025-11-29T00:30:00Z");
    assert!(!report.complete);
    let job = &report.jobs[0];
    assert_eq!(
        (job.backups.planned, job.backups.missed),
        (7, 0),
        "that of the 28th may still come"
    );
}

#[test]
fn what_nobody_asked_for_is_a_remark_and_no_finding() {
    let mut facts = good();
    (facts.verify_days, facts.reads, facts.held) = (None, vec![], vec![]);
    (facts.drills, facts.drills_planned) = (vec![], vec![]);
    facts.copies.missing = Some("3-2-1 is not met: none of them off-site".into());
    let job = &of(vec![facts], AFTER).jobs[0];
    assert!(job.well, "{:?}", job.findings);
    assert_eq!(job.remarks.len(), 3, "{:?}", job.remarks);
}
