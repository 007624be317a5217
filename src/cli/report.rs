//! `respaldo report`: a month of every job, for people, for programs, or as a page of its own.

mod page;

use super::args;
use super::{Desk, Exit, output};
use crate::durable::{self, Existing};
use crate::fault::{Fault, Result};
use crate::job::{bytes, monthly};
use crate::report::{JobReport, Report, counted, span};

pub(super) async fn report(desk: &Desk, wanted: args::Report) -> Result<Exit> {
    let zone = &desk.app.settings.timezone;
    let report = monthly(&desk.app.site, &desk.app.jobs, wanted.month, zone).await?;
    if wanted.json {
        output::json(&report)?;
        return Ok(Exit::Done);
    }
    if let Some(path) = &wanted.html {
        let page = page::html(&report);
        let written = durable::write(path, page.as_bytes(), Existing::Replace);
        written.map_err(|error| {
            Fault::usage(format!("write {}", path.display()))
                .cause(error)
                .hint("name a file in a folder that is there and may be written")
        })?;
        output::say(&report.summary);
        return Ok(Exit::Done);
    }
    print(&report)?;
    Ok(Exit::Done)
}

/// What is in a report of one job, as label and value; the same words on a terminal and on a page.
fn facts(job: &JobReport) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Backed up", job.sources.join(", "))];
    let made = &job.backups;
    facts.push((
        "Backups",
        format!(
            "{} made; {} planned, {} missed; {} not everywhere at first, {} failed",
            made.made,
            made.planned,
            made.missed,
            made.partial,
            counted(made.failed, "run", "runs")
        ),
    ));
    if let (Some(id), Some(stored), Some(plain)) =
        (made.newest, made.stored_bytes, made.plain_bytes)
    {
        let encrypted = if job.encrypted == Some(true) { ", encrypted" } else { "" };
        facts.push((
            "Newest",
            format!("{id}, {} stored, {} plain{encrypted}", bytes(stored), bytes(plain)),
        ));
    }
    let gap = match job.rpo.longest_gap_seconds {
        Some(gap) => format!("{} between two backups at the most", span(gap)),
        None => "no two backups to measure between".to_owned(),
    };
    let age = job.rpo.age_at_end_seconds;
    let age = age.map(|age| format!(", {} old at the end", span(age))).unwrap_or_default();
    let most = job.rpo.max_age_seconds;
    let most = most.map(|most| format!("; {} allowed", span(most))).unwrap_or_default();
    facts.push(("Recovery point, measured", format!("{gap}{age}{most}")));
    let drills = &job.drills;
    let slowest = drills.longest_seconds.unwrap_or_default();
    facts.push((
        "Recovery time, measured",
        match drills.rto_seconds {
            Some(seconds) => {
                format!("{seconds:.1} s in the last proven drill, {slowest:.1} s at the most")
            }
            None => "unknown: no drill was proven".to_owned(),
        },
    ));
    facts.push((
        "Drills",
        format!("{} proven, {} failed; {} planned", drills.proven, drills.failed, drills.planned),
    ));
    let read = &job.verification;
    let promise = match read.days {
        Some(days) => format!("each within {days} days is promised, {} overdue", read.overdue),
        None => "none is scheduled".to_owned(),
    };
    facts.push((
        "Read back",
        format!(
            "{}, {} in all, {} damaged; {promise}",
            counted(read.copies, "copy", "copies"),
            counted(read.reads, "time", "times"),
            read.damaged_reads
        ),
    ));
    let copies = &job.copies;
    facts.push((
        "3-2-1",
        format!(
            "{}: {} on {} of media, {} off-site",
            if copies.met { "met" } else { "not met" },
            counted(copies.copies, "copy", "copies"),
            counted(copies.media.len(), "kind", "kinds"),
            copies.off_site.len()
        ),
    ));
    facts
}

/// How a destination keeps, such as `days 7, monthly 12`.
fn rules(retention: &serde_json::Value) -> String {
    let rules = retention.as_object().into_iter().flatten();
    let rules: Vec<String> = rules
        .map(|(rule, value)| format!("{rule} {}", value.to_string().trim_matches('"')))
        .collect();
    if rules.is_empty() { "everything".to_owned() } else { rules.join(", ") }
}

const COLUMNS: [&str; 7] = ["ON", "KEEPS", "COPIES", "STORED", "PROVEN", "PRUNED", "ERASED"];

/// A row of [`COLUMNS`] for each destination.
fn rows(job: &JobReport) -> Vec<Vec<String>> {
    let row = |place: &crate::report::DestinationFacts| {
        let mut name = place.name.clone();
        if place.off_site {
            name.push_str(" (off-site)");
        }
        vec![
            name,
            rules(&place.retention),
            place.copies.to_string(),
            bytes(place.stored_bytes),
            place.proven.to_string(),
            place.pruned.len().to_string(),
            place.erased.len().to_string(),
        ]
    };
    job.destinations.iter().map(row).collect()
}

fn period(report: &Report) -> String {
    let until = if report.complete { "" } else { ", not over yet" };
    format!(
        "{} ({} to {}{until})",
        report.month,
        report.from.strftime("%Y-%m-%d %H:%M UTC"),
        report.to.strftime("%Y-%m-%d %H:%M UTC")
    )
}

fn print(report: &Report) -> Result<()> {
    output::data(&format!("{}\n\n", report.summary))?;
    let generated = report.generated_at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let head = [
        ("Period", period(report)),
        ("Host", report.host.clone()),
        ("Generated", format!("{generated} by respaldo {}", report.respaldo)),
    ];
    let table = |facts: Vec<(&str, String)>| {
        output::table(&["", ""], facts.into_iter().map(|(k, v)| vec![k.to_owned(), v]).collect())
    };
    table(head.to_vec())?;
    for job in &report.jobs {
        let word = if job.well { "well" } else { "NOT well" };
        output::data(&format!("\n{}: {word}\n", job.job))?;
        for finding in &job.findings {
            output::data(&format!("  - {finding}\n"))?;
        }
        for remark in &job.remarks {
            output::data(&format!("  (remark) {remark}\n"))?;
        }
        table(facts(job))?;
        output::data("\n")?;
        output::table(&COLUMNS, rows(job))?;
        for failure in &job.failures {
            let at = failure.at.strftime("%Y-%m-%d %H:%M UTC");
            output::data(&format!("failed: {at} {}: {}\n", failure.kind, failure.error))?;
        }
    }
    Ok(())
}
