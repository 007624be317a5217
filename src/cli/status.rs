//! `respaldo status`: every job at a look, and the runs under way.

use jiff::Timestamp;

use super::{Desk, Exit, output};
use crate::fault::Result;
use crate::health;
use crate::job::{self, JobCopies, Status, bytes};
use crate::model::RunState;
use crate::report::span;

pub(super) async fn status(desk: &Desk, json: bool) -> Result<Exit> {
    let status = job::status(&desk.app.site, &desk.app.jobs).await?;
    if json {
        output::json(&status)?;
    } else {
        print(&status, desk.app.site.clock.now())?;
    }
    Ok(Exit::Done)
}

fn print(status: &Status, now: Timestamp) -> Result<()> {
    let troubled = status.health.jobs.iter().filter(|job| !job.status.is_well()).count();
    output::say(&match troubled {
        0 => "all is well".to_owned(),
        1 => "one job needs a look".to_owned(),
        count => format!("{count} jobs need a look"),
    });
    let ago = |at: Option<Timestamp>| match at {
        None => "never".to_owned(),
        Some(at) => format!("{} ago", span(now.duration_since(at).as_secs())),
    };
    let mut rows = Vec::new();
    for job in &status.health.jobs {
        let proof = match job.status {
            health::Status::Unproven => health::Status::Unproven,
            _ => health::Status::Healthy,
        };
        for destination in &job.destinations {
            rows.push(vec![
                job.job.to_string(),
                destination.name.clone(),
                // That it is not proven is said of the job as a whole.
                destination.status.max(proof).as_str().to_owned(),
                ago(destination.last_success),
                destination.max_age_seconds.map(span).unwrap_or_default(),
                ago(job.last_proven),
                job.next_run
                    .map(|at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
                    .unwrap_or_default(),
            ]);
        }
    }
    output::table(
        &["JOB", "ON", "STATUS", "LAST BACKUP", "ALLOWED", "LAST PROVEN", "NEXT RUN"],
        rows,
    )?;
    let rows = status.copies.iter().map(|JobCopies { job, copies }| {
        let media: Vec<&str> = copies.media.iter().map(|medium| medium.as_str()).collect();
        let met = if copies.met { "yes" } else { "no" };
        vec![
            job.to_string(),
            copies.copies.to_string(),
            media.join(", "),
            copies.off_site.join(", "),
            met.to_owned(),
        ]
    });
    output::data("\n")?;
    output::table(&["JOB", "COPIES", "MEDIA", "OFF-SITE", "3-2-1"], rows.collect())?;
    let rows = status.runs.iter().map(|run| {
        let what = match (run.state, run.total_bytes) {
            (RunState::Running, Some(total)) => {
                format!("{} of about {}", bytes(run.plain_bytes), bytes(total))
            }
            _ => run.error.clone().unwrap_or_default(),
        };
        vec![
            run.id.to_string(),
            run.job.to_string(),
            run.kind.to_string(),
            run.state.to_string(),
            ago(Some(run.started_at.unwrap_or(run.requested_at))),
            what,
        ]
    });
    output::data("\n")?;
    output::table(&["RUN", "JOB", "KIND", "STATE", "STARTED", ""], rows.collect())?;
    for JobCopies { job, copies } in &status.copies {
        copies.missing.iter().for_each(|missing| output::say(&format!("{job}: {missing}")));
    }
    for place in status.space.iter().filter(|place| place.is_worth_a_word()) {
        output::say(&format!("warning: {}", place.sentence()));
    }
    if status.unsent_messages > 0 {
        output::say(&format!("{} messages wait to be sent", status.unsent_messages));
    }
    Ok(())
}
