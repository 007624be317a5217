//! `respaldo pin` and `respaldo unpin`: on every destination that has the backup.

use super::args::{Pin, Unpin};
use super::{Desk, Exit, output};
use crate::fault::{Fault, Result};
use crate::job::{self, Job, Pinned};
use crate::model::BackupId;

/// A note is a sentence, and goes to every destination.
const NOTE_CHARS: usize = 500;

pub(super) async fn pin(desk: &Desk, wanted: Pin) -> Result<Exit> {
    if wanted.note.as_ref().is_some_and(|note| note.chars().count() > NOTE_CHARS) {
        return Err(Fault::usage(format!("--note is longer than {NOTE_CHARS} characters"))
            .hint("say it in a sentence"));
    }
    let job = desk.app.job(&wanted.job)?;
    mark(desk, job, &wanted.id, true, wanted.note, wanted.json).await
}

pub(super) async fn unpin(desk: &Desk, wanted: Unpin) -> Result<Exit> {
    let job = desk.app.job(&wanted.job)?;
    mark(desk, job, &wanted.id, false, None, wanted.json).await
}

/// Marks the backup, and says where. `Partial`: some destination could not be reached.
pub(super) async fn mark(
    desk: &Desk,
    job: &Job,
    id: &BackupId,
    pinned: bool,
    note: Option<String>,
    json: bool,
) -> Result<Exit> {
    let site = &desk.app.site;
    let all = job::pin_audited(site, &site.actor, job, id, pinned, note).await?;
    if json {
        output::json(&all)?;
    }
    let word = if pinned { "pinned" } else { "unpinned" };
    for one in all.iter().filter(|one| one.held) {
        output::say(&format!("{} {id} on {}: {word}", job.name, one.destination));
    }
    let failed: Vec<&Pinned> = all.iter().filter(|one| one.error.is_some()).collect();
    for one in &failed {
        let error = one.error.as_deref().unwrap_or_default();
        output::say(&format!("error: {id} on {} is not {word}: {error}", one.destination));
    }
    if failed.is_empty() {
        return Ok(Exit::Done);
    }
    let held = all.iter().any(|one| one.held);
    output::say(&match held {
        true => {
            format!("hint: `respaldo sync {}` brings it there once it can be reached", job.name)
        }
        false => "hint: try again once the destinations can be reached".to_owned(),
    });
    Ok(if held { Exit::Partial } else { Exit::Failed })
}
