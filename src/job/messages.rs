//! What people are told: events become messages in the outbox, and messages are sent until they
//! arrive.

use jiff::SignedDuration;

use super::{Drilled, Job, Site, Synced};
use crate::catalog::{Finish, Message};
use crate::fault::Result;
use crate::model::{Event, EventKind, JobName, RunId, RunState};
use crate::retry::Backoff;

/// How long a claimed message is left to the process that claimed it.
const CLAIM: SignedDuration = SignedDuration::from_secs(120);

impl Site {
    /// Puts an event into the outbox, once for each route.
    pub(super) async fn tell(&self, event: &Event) -> Result<()> {
        for route in &self.routes {
            self.catalog.post(&route.name, event, self.clock.now()).await?;
        }
        Ok(())
    }
}

/// Sends what is due; returns how many messages were sent. What fails is tried again later.
pub async fn send_messages(site: &Site) -> Result<usize> {
    let now = site.clock.now();
    let due = site.catalog.claim_messages(now, now + CLAIM).await?;
    let mut sent = 0;
    for message in due {
        sent += usize::from(send(site, message).await?);
    }
    Ok(sent)
}

async fn send(site: &Site, message: Message) -> Result<bool> {
    let Some(route) = site.routes.iter().find(|route| route.name == message.route) else {
        tracing::warn!("the alert route '{}' is gone; a message for it is dropped", message.route);
        site.catalog.message_sent(message.id, site.clock.now()).await?;
        return Ok(false);
    };
    match route.send(&message.event, &site.host).await {
        Ok(()) => {
            tracing::info!("told '{}': {}", route.name, message.event.summary);
            site.catalog.message_sent(message.id, site.clock.now()).await?;
            Ok(true)
        }
        Err(fault) => {
            let wait = Backoff::MESSAGE.after(message.attempts + 1);
            let next = site.clock.now().checked_add(wait).unwrap_or(site.clock.now());
            let hint = fault.next_step().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
            tracing::error!(
                "could not tell '{}', will try again in {} s: {}{hint}",
                route.name,
                wait.as_secs(),
                fault.chain()
            );
            site.catalog.message_failed(message.id, &fault.chain(), next).await?;
            Ok(false)
        }
    }
}

/// What was odd about retention, and the next step.
pub(super) type Trouble = (String, Option<String>);

/// Tells of a run that is over: of trouble, and of its end once trouble was told.
pub(super) async fn tell_of_run(
    site: &Site,
    job: &Job,
    run: RunId,
    state: RunState,
    finish: &Finish,
    troubles: &[Trouble],
) -> Result<()> {
    let name = &job.name;
    let (kind, summary) = match state {
        RunState::Succeeded if site.catalog.fact(&trouble_of(name.as_str())).await?.is_some() => {
            (EventKind::Recovered, format!("'{name}' is backed up again"))
        }
        RunState::Partial => {
            (EventKind::Partial, format!("the backup of '{name}' did not reach every destination"))
        }
        RunState::Failed => (EventKind::Failed, format!("the backup of '{name}' failed")),
        RunState::Interrupted => {
            (EventKind::Interrupted, format!("the backup of '{name}' was interrupted"))
        }
        _ => return tell_troubles(site, job, run, troubles).await,
    };
    let mut details = Vec::new();
    details.extend(finish.error.clone().map(|error| ("Error".to_owned(), error)));
    for (destination, error) in &finish.deliveries {
        let said = error.clone().unwrap_or_else(|| "stored".to_owned());
        if finish.error.as_ref() != Some(&said) {
            details.push((destination.clone(), said));
        }
    }
    let event = Event {
        kind,
        job: name.clone(),
        run: Some(run),
        at: site.clock.now(),
        summary,
        details,
        hint: finish.hint.clone(),
    };
    if kind == EventKind::Recovered {
        site.catalog.clear_fact(&trouble_of(name.as_str())).await?;
        site.tell(&event).await?;
    } else {
        note_trouble(site, &event).await?;
    }
    tell_troubles(site, job, run, troubles).await
}

/// Tells of a backup that is much smaller than those before it.
pub(super) async fn tell_of_anomaly(site: &Site, job: &Job, run: RunId, what: &str) -> Result<()> {
    let event = Event {
        kind: EventKind::Anomaly,
        job: job.name.clone(),
        run: Some(run),
        at: site.clock.now(),
        summary: format!("the backup of '{}' is committed, but something may be lost", job.name),
        details: vec![("What".into(), what.to_owned())],
        hint: Some(format!(
            "older backups are kept until it is as before again; if it is right so, say it with `respaldo prune {} --yes`",
            job.name
        )),
    };
    site.tell(&event).await
}

/// Tells of a sync once for each kind of trouble, however often it is tried again; and once more when
/// every destination has what it should have.
pub async fn tell_of_sync(site: &Site, job: &Job, synced: &Synced) -> Result<()> {
    let name = &job.name;
    let fact = format!("sync-trouble:{name}");
    let before = site.catalog.fact(&fact).await?;
    let event = |kind, summary, details, hint| Event {
        kind,
        job: name.clone(),
        run: synced.run,
        at: site.clock.now(),
        summary,
        details,
        hint,
    };
    let trouble = synced.trouble();
    if !trouble.is_empty() {
        let now = trouble.keys().cloned().collect::<Vec<_>>().join(" ");
        if before.as_deref() == Some(now.as_str()) {
            return Ok(());
        }
        site.catalog.set_fact(&fact, &now).await?;
        let summary = format!("backups of '{name}' could not be made the same everywhere");
        let hint = format!("it is tried again by itself; `respaldo sync {name}` tries it now");
        let details = trouble.into_iter().collect();
        return site.tell(&event(EventKind::SyncFailed, summary, details, Some(hint))).await;
    }
    if !synced.damaged.is_empty() {
        let summary =
            format!("backups of '{name}' are damaged; what was missing came from another");
        let hint = format!("its disk or store may be failing; `respaldo verify {name}` tells more");
        let details = synced.damaged.clone().into_iter().collect();
        site.tell(&event(EventKind::SyncFailed, summary, details, Some(hint))).await?;
    }
    let partial = site.catalog.fact(&trouble_of(name.as_str())).await?;
    let repaired = partial.as_deref() == Some(EventKind::Partial.as_str()) && synced.run.is_some();
    site.catalog.clear_fact(&fact).await?;
    if !repaired && before.is_none() {
        return Ok(());
    }
    if repaired {
        site.catalog.clear_fact(&trouble_of(name.as_str())).await?;
    }
    let summary = format!("every destination of '{name}' has its backups again");
    site.tell(&event(EventKind::Recovered, summary, Vec::new(), None)).await
}

/// Tells of a drill once for each kind of trouble of a destination, however often it comes again; and
/// once more when what lies there is proven again.
pub(super) async fn tell_of_drill(
    site: &Site,
    name: &JobName,
    run: RunId,
    drilled: &Drilled,
) -> Result<()> {
    let fact = format!("drill-trouble:{name}:{}", drilled.destination);
    let before = site.catalog.fact(&fact).await?;
    let mut event = Event {
        kind: EventKind::Recovered,
        job: name.clone(),
        run: Some(run),
        at: drilled.at,
        summary: format!("the backup of '{name}' on '{}' is proven again", drilled.destination),
        details: Vec::new(),
        hint: None,
    };
    let Some(trouble) = drilled.trouble() else {
        if before.is_some() {
            site.catalog.clear_fact(&fact).await?;
            site.tell(&event).await?;
        }
        return Ok(());
    };
    // Numbers and ids change from drill to drill.
    let now: String = trouble.chars().filter(|c| !c.is_ascii_digit()).collect();
    if before.as_deref() == Some(now.as_str()) {
        return Ok(());
    }
    site.catalog.set_fact(&fact, &now).await?;
    event.kind = EventKind::DrillFailed;
    event.summary = match drilled.unprovable {
        Some(_) => format!("the backups of '{name}' can't be proven here"),
        None => format!("a backup of '{name}' does not restore as it was"),
    };
    let id = drilled.id.map(|id| ("Backup".to_owned(), id.to_string()));
    event.details.extend(id);
    event.details.push(("From".to_owned(), drilled.destination.clone()));
    let lines = drilled.unprovable.iter().chain(&drilled.failures).take(10);
    event.details.extend(lines.map(|line| ("What".to_owned(), line.clone())));
    event.hint = drilled
        .next_step()
        .map(str::to_owned)
        .or_else(|| drilled.report.as_ref().map(|report| format!("the report is {report}")));
    site.tell(&event).await
}

async fn tell_troubles(site: &Site, job: &Job, run: RunId, troubles: &[Trouble]) -> Result<()> {
    for (text, hint) in troubles {
        let event = Event {
            kind: EventKind::PruneHeld,
            job: job.name.clone(),
            run: Some(run),
            at: site.clock.now(),
            summary: format!("retention of '{}' needs a look", job.name),
            details: vec![("What".into(), text.clone())],
            hint: hint.clone(),
        };
        site.tell(&event).await?;
    }
    Ok(())
}

/// Tells people of trouble, and remembers that they are owed a word when it is over.
pub(super) async fn note_trouble(site: &Site, event: &Event) -> Result<()> {
    site.catalog.set_fact(&trouble_of(event.job.as_str()), event.kind.as_str()).await?;
    site.tell(event).await
}

fn trouble_of(job: &str) -> String {
    format!("trouble:{job}")
}
