//! What people are told of runs: events become messages in the outbox. Knows what is news; must not
//! send anything.

use super::backup::DAMAGED;
use super::contents::forget;
use super::{Drilled, Job, RepairState, Site, Synced, lookout};
use crate::catalog::{Finish, Note, Post};
use crate::fault::Result;
use crate::model::{BackupId, Event, EventKind, JobName, RunId, RunState};

/// What is written at once.
#[derive(Default)]
pub(super) struct Telling<'a> {
    /// For the heartbeats of its job.
    pub(super) pinged: Option<&'a Event>,
    /// For all other routes.
    pub(super) told: Option<&'a Event>,
    pub(super) notes: &'a [Note],
    /// The run that is over by it.
    pub(super) ended: Option<(RunId, &'a Finish)>,
}

impl Site {
    /// Puts an event into the outbox, once for each route that wants it.
    pub(super) async fn tell(&self, event: &Event) -> Result<()> {
        self.tell_noting(event, &[]).await.map(|_| ())
    }

    /// As `tell`, together with facts; false where one of them has changed meanwhile.
    pub(super) async fn tell_noting(&self, event: &Event, notes: &[Note]) -> Result<bool> {
        self.write(Telling { told: Some(event), notes, ..Telling::default() }).await
    }

    /// Writes a whole, so that no kill and no other process comes in between.
    pub(super) async fn write(&self, telling: Telling<'_>) -> Result<bool> {
        let mut posts = Vec::new();
        for route in &self.routes {
            let (event, repeat) = match route.is_heartbeat() {
                true => (telling.pinged, None),
                false => (telling.told, Some(route.repeat)),
            };
            let event = event.filter(|event| route.wants(event));
            posts.extend(event.map(|event| Post { route: &route.name, event, repeat }));
        }
        self.catalog.post(&posts, telling.notes, telling.ended, self.clock.now()).await
    }

    /// Trouble of that kind is over, and nobody has to be told: the next is told at once.
    pub(super) async fn forget_trouble(&self, job: &JobName, kind: EventKind) -> Result<()> {
        let event = Event::new(kind, Some(job.clone()), self.clock.now(), "");
        for route in &self.routes {
            self.catalog.forget_trouble(&route.name, &event).await?;
        }
        Ok(())
    }
}

/// Tells the heartbeats that a backup begins.
pub(super) async fn tell_of_start(site: &Site, job: &JobName, run: RunId) -> Result<()> {
    let summary = format!("the backup of '{job}' begins");
    let event = Event::new(EventKind::Started, Some(job.clone()), site.clock.now(), summary);
    let event = Event { run: Some(run), ..event };
    site.write(Telling { pinged: Some(&event), ..Telling::default() }).await.map(|_| ())
}

/// What was odd about retention, and the next step.
pub(super) type Trouble = (String, Option<String>);

/// Writes down how a backup run has ended, and tells of it: of trouble, and of its end once trouble
/// was told.
pub(super) async fn end_and_tell(
    site: &Site,
    job: &Job,
    run: RunId,
    finish: &Finish,
) -> Result<()> {
    let name = &job.name;
    let (kind, summary) = match finish.state {
        RunState::Succeeded => {
            (EventKind::Succeeded, format!("the backup of '{name}' is on every destination"))
        }
        RunState::Partial => {
            (EventKind::Partial, format!("the backup of '{name}' did not reach every destination"))
        }
        RunState::Failed => (EventKind::Failed, format!("the backup of '{name}' failed")),
        RunState::Interrupted => {
            (EventKind::Interrupted, format!("the backup of '{name}' was interrupted"))
        }
        _ => return site.catalog.finish(run, finish, site.clock.now()).await,
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
        run: Some(run),
        details,
        hint: finish.hint.clone(),
        ..Event::new(kind, Some(name.clone()), site.clock.now(), summary)
    };
    let ended = Some((run, finish));
    if kind != EventKind::Succeeded {
        let notes = [trouble_note(site, name, kind).await?];
        let telling = Telling { pinged: Some(&event), told: Some(&event), notes: &notes, ended };
        return site.write(telling).await.map(|_| ());
    }
    let (ends, notes) = trouble_over(site, job).await?;
    let recovered = (!notes.is_empty()).then(|| Event {
        kind: EventKind::Recovered,
        summary: format!("'{name}' is backed up again"),
        ends,
        ..event.clone()
    });
    let told = Some(recovered.as_ref().unwrap_or(&event));
    if !site.write(Telling { pinged: Some(&event), told, notes: &notes, ended }).await? {
        // Somebody else has told of the recovery meanwhile.
        site.write(Telling { pinged: Some(&event), ended, ..Telling::default() }).await?;
    }
    Ok(())
}

/// The kinds of trouble with backups that people know of, and what to forget when they hear that it is
/// over.
async fn trouble_over(site: &Site, job: &Job) -> Result<(Vec<EventKind>, Vec<Note>)> {
    let mut notes = Vec::new();
    let mut ends = Vec::new();
    if let Some((note, kinds)) = lookout::over(site, job).await? {
        notes.push(note);
        ends.extend(kinds);
    }
    if let Some(was) = site.catalog.fact(&trouble_of(&job.name)).await? {
        ends.extend(was.split(' ').filter_map(|kind| kind.parse::<EventKind>().ok()));
        notes.push(over(trouble_of(&job.name), was));
    }
    Ok((ends, notes))
}

/// Trouble is over that people were told of.
fn over(name: String, was: String) -> Note {
    Note { name, was: Some(was), is: None }
}

/// Tells of a backup that is much smaller than those before it.
pub(super) async fn tell_of_anomaly(site: &Site, job: &Job, run: RunId, what: &str) -> Result<()> {
    let summary = format!("the backup of '{}' is committed, but something may be lost", job.name);
    let hint = format!(
        "older backups are kept until it is as before again; if it is right so, say it with `respaldo prune {} --yes`",
        job.name
    );
    let event = Event {
        run: Some(run),
        details: vec![("What".into(), what.to_owned())],
        hint: Some(hint),
        ..Event::new(EventKind::Anomaly, Some(job.name.clone()), site.clock.now(), summary)
    };
    site.tell(&event).await
}

/// Tells of a base backup that was made of a damaged server.
pub(super) async fn tell_of_damage(site: &Site, job: &Job, run: RunId) -> Result<()> {
    let summary =
        format!("the server of '{}' is damaged: its base backup does not count", job.name);
    let hint = "the server's own log names the files; restore them from a base backup of before, and find out what the disk does";
    let event = Event {
        run: Some(run),
        details: vec![("What".into(), DAMAGED.to_owned())],
        hint: Some(hint.to_owned()),
        ..Event::new(EventKind::Anomaly, Some(job.name.clone()), site.clock.now(), summary)
    };
    site.tell(&event).await
}

/// Tells of a sync once for each kind of trouble, however often it is tried again; and once more when
/// every destination has what it should have.
pub async fn tell_of_sync(site: &Site, job: &Job, synced: &Synced) -> Result<()> {
    tell_of_loss(site, job, synced).await?;
    let name = &job.name;
    let fact = format!("sync-trouble:{name}");
    let before = site.catalog.fact(&fact).await?;
    let event = |kind, summary: String| Event {
        run: synced.run,
        ..Event::new(kind, Some(name.clone()), site.clock.now(), summary)
    };
    let trouble = synced.trouble();
    if !trouble.is_empty() {
        let now = trouble.keys().cloned().collect::<Vec<_>>().join(" ");
        if before.as_deref() == Some(now.as_str()) {
            return Ok(());
        }
        let summary = format!("backups of '{name}' could not be made the same everywhere");
        let hint = format!("it is tried again by itself; `respaldo sync {name}` tries it now");
        let event = Event {
            about: now.clone(),
            details: trouble.into_iter().collect(),
            hint: Some(hint),
            ..event(EventKind::SyncFailed, summary)
        };
        let note = Note { name: fact, was: None, is: Some(now) };
        return site.tell_noting(&event, &[note]).await.map(|_| ());
    }
    if !synced.damaged.is_empty() {
        let summary =
            format!("backups of '{name}' are damaged; what was missing came from another");
        let hint = format!("its disk or store may be failing; `respaldo verify {name}` tells more");
        let event = Event {
            details: synced.damaged.clone().into_iter().collect(),
            hint: Some(hint),
            ..event(EventKind::SyncFailed, summary)
        };
        site.tell(&event).await?;
    }
    let mut notes: Vec<Note> = before.map(|was| over(fact, was)).into_iter().collect();
    let mut ends = vec![EventKind::SyncFailed];
    let trouble = site.catalog.fact(&trouble_of(name)).await?;
    let is_partial = |trouble: &String| trouble.ends_with(EventKind::Partial.as_str());
    if synced.run.is_some() && trouble.as_ref().is_some_and(is_partial) {
        let (kinds, more) = trouble_over(site, job).await?;
        ends.extend(kinds);
        notes.extend(more);
    }
    if notes.is_empty() {
        return Ok(());
    }
    let summary = format!("every destination of '{name}' has its backups again");
    let recovered = Event { ends, ..event(EventKind::Recovered, summary) };
    site.tell_noting(&recovered, &notes).await.map(|_| ())
}

/// Tells of backups that vanished from a destination, and then has the catalog forget them: all but
/// those that are there again.
async fn tell_of_loss(site: &Site, job: &Job, synced: &Synced) -> Result<()> {
    for (destination, vanished) in &synced.vanished {
        if let Some(words) = &vanished.words {
            tracing::warn!("{words}");
            let summary = format!("backups of '{}' are gone from '{destination}'", job.name);
            let event = Event {
                about: destination.clone(),
                run: synced.run,
                details: vec![("What".into(), words.clone())],
                hint: Some(format!(
                    "`respaldo sync {}` brings what another destination has",
                    job.name
                )),
                ..Event::new(
                    EventKind::PruneHeld,
                    Some(job.name.clone()),
                    site.clock.now(),
                    summary,
                )
            };
            site.tell(&event).await?;
        }
        let is_back = |id: &BackupId| {
            synced.repairs.iter().any(|repair| {
                repair.state == RepairState::Copied
                    && (&repair.id, &repair.destination) == (id, destination)
            })
        };
        let gone: Vec<BackupId> = vanished.ids.iter().filter(|id| !is_back(id)).copied().collect();
        forget(site, job, destination, &gone).await?;
    }
    Ok(())
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
    let summary = format!("the backup of '{name}' on '{}' is proven again", drilled.destination);
    let mut event = Event {
        about: drilled.destination.clone(),
        run: Some(run),
        ends: vec![EventKind::DrillFailed],
        ..Event::new(EventKind::Recovered, Some(name.clone()), drilled.at, summary)
    };
    let Some(trouble) = drilled.trouble() else {
        let Some(was) = before else { return Ok(()) };
        return site.tell_noting(&event, &[over(fact, was)]).await.map(|_| ());
    };
    // Numbers and ids change from drill to drill.
    let now: String = without_digits(trouble);
    if before.as_deref() == Some(now.as_str()) {
        return Ok(());
    }
    event.kind = EventKind::DrillFailed;
    event.ends.clear();
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
    let note = Note { name: fact, was: None, is: Some(now) };
    site.tell_noting(&event, &[note]).await.map(|_| ())
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Tells of what was odd about retention.
pub(super) async fn tell_troubles(
    site: &Site,
    job: &Job,
    run: RunId,
    troubles: &[Trouble],
) -> Result<()> {
    for (text, hint) in troubles {
        let summary = format!("retention of '{}' needs a look", job.name);
        let event = Event {
            about: without_digits(text),
            run: Some(run),
            details: vec![("What".into(), text.clone())],
            hint: hint.clone(),
            ..Event::new(EventKind::PruneHeld, Some(job.name.clone()), site.clock.now(), summary)
        };
        site.tell(&event).await?;
    }
    Ok(())
}

/// That people are owed a word when trouble of that kind is over.
pub(super) async fn trouble_note(site: &Site, job: &JobName, kind: EventKind) -> Result<Note> {
    let before = site.catalog.fact(&trouble_of(job)).await?.unwrap_or_default();
    let others = before.split(' ').filter(|other| !other.is_empty() && *other != kind.as_str());
    let is = Some(others.chain([kind.as_str()]).collect::<Vec<_>>().join(" "));
    Ok(Note { name: trouble_of(job), was: None, is })
}

/// The fact that a job is in trouble of which people know: the kinds of it, the newest last.
pub(super) fn trouble_of(job: &JobName) -> String {
    format!("trouble:{job}")
}
