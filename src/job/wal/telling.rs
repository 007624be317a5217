//! What people are told of a log: that it stands still, is stored too late, has a gap, or fills its
//! server's disk; and once when that is over. Knows facts in the catalog; must not send anything.

use std::sync::Arc;

use super::super::{Job, Site, bytes};
use crate::catalog::Note;
use crate::fault::{Fault, Result};
use crate::model::{Event, EventKind, WalGap, WalState};
use crate::report::span;

/// Trouble of one kind begins or is over: told at once, and once. `now` is what there is to say.
async fn turn(site: &Site, job: &Job, event: Event, is_trouble: bool, over: &str) -> Result<()> {
    let name = format!("{}:{}", event.kind, job.name);
    let was = site.catalog.fact(&name).await?;
    if was.is_some() == is_trouble {
        return Ok(());
    }
    let is = is_trouble.then(|| "told".to_owned());
    let event = match is_trouble {
        true => event,
        false => Event {
            ends: vec![event.kind],
            ..Event::new(EventKind::Recovered, event.job, event.at, over)
        },
    };
    site.tell_noting(&event, &[Note { name, was, is }]).await.map(drop)
}

fn event(site: &Site, job: &Job, kind: EventKind, summary: String) -> Event {
    Event::new(kind, Some(job.name.clone()), site.clock.now(), summary)
}

/// It does not go on, for now or until somebody acts.
pub(super) async fn stopped(site: &Site, job: &Job, fault: &Fault) -> Result<()> {
    let halted = fault.lasts();
    if let Some(mut progress) = site.catalog.wal_progress(&job.name).await? {
        progress.state = if halted { WalState::Halted } else { WalState::Waiting };
        progress.error = Some(fault.chain());
        progress.hint = fault.next_step().map(str::to_owned);
        site.catalog.set_wal_progress(&job.name, &progress).await?;
    }
    if !halted {
        return Ok(());
    }
    let summary = format!("the log of '{}' is not stored any more", job.name);
    let event = Event {
        details: vec![("Error".to_owned(), fault.chain())],
        hint: fault.next_step().map(str::to_owned),
        ..event(site, job, EventKind::WalHalted, summary)
    };
    turn(site, job, event, true, "").await
}

/// It goes on.
pub(super) async fn goes_on(site: &Site, job: &Job) -> Result<()> {
    let event = event(site, job, EventKind::WalHalted, String::new());
    turn(site, job, event, false, &format!("the log of '{}' is stored again", job.name)).await
}

/// A hole that nothing fills.
pub(super) async fn gap(site: &Site, job: &Job, gap: &WalGap) -> Result<()> {
    let summary = format!("the log of '{}' has a gap: a new base backup is made", job.name);
    let event = Event {
        about: gap.from.to_string(),
        details: vec![
            ("Missing".to_owned(), format!("{} to {}, timeline {}", gap.from, gap.to, gap.timeline)),
            ("Error".to_owned(), gap.reason.clone()),
        ],
        hint: Some("no moment between the two can be recovered; raise max_slot_wal_keep_size if the destinations were away".into()),
        ..event(site, job, EventKind::WalGap, summary)
    };
    site.tell(&event).await
}

/// The server keeps more than half of what it may keep for us.
pub(super) async fn retained(
    site: &Site,
    job: &Job,
    retained: u64,
    most: Option<u64>,
) -> Result<()> {
    let Some(most) = most else { return Ok(()) };
    // Between a quarter and a half nothing is news.
    if (most / 4..=most / 2).contains(&retained) {
        return Ok(());
    }
    let summary = format!(
        "the server of '{}' keeps {} of its log for us, and gives it up at {}",
        job.name,
        bytes(retained),
        bytes(most)
    );
    let event = Event {
        hint: Some(format!("`respaldo wal status {}` says which place is behind", job.name)),
        ..event(site, job, EventKind::WalRetained, summary)
    };
    let over = format!("the server of '{}' keeps little of its log again", job.name);
    turn(site, job, event, retained > most / 2, &over).await
}

/// Tells once of each log that is stored too late, and once when that is over.
pub async fn look_at_logs(site: &Site, jobs: &[Arc<Job>]) -> Result<()> {
    for job in jobs {
        let Some((_, plan)) = job.log() else { continue };
        let Some(progress) = site.catalog.wal_progress(&job.name).await? else { continue };
        let now = site.clock.now();
        let lag = progress.safe_at.map(|at| now.duration_since(at));
        let late = lag.is_some_and(|lag| lag > plan.max_lag);
        let summary = format!(
            "the log of '{}' is stored only up to {} ago",
            job.name,
            lag.map(|lag| span(lag.as_secs())).unwrap_or_default()
        );
        let event = Event {
            details: progress
                .error
                .clone()
                .map(|error| ("Error".to_owned(), error))
                .into_iter()
                .collect(),
            hint: Some(format!("`respaldo wal status {}` says where it stands still", job.name)),
            ..event(site, job, EventKind::WalLate, summary)
        };
        let over = format!("the log of '{}' is stored in time again", job.name);
        turn(site, job, event, late, &over).await?;
    }
    Ok(())
}
