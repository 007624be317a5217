//! `respaldo erase`: somebody taken out of every backup, or noted so that no restore brings them back.

use super::args::Erase;
use super::output;
use super::restore::confirm;
use super::{Desk, Exit};
use crate::fault::{Context, Fault, Result};
use crate::job::{
    self, Control, EraseState, ErasedCopy, Erasing, Job, Unreachable, bytes, plan_erasure, wish,
};
use crate::lock::Lock;
use crate::model::{Action, Deed, Erasure, RunState, Subject, Trigger};

/// A note is a sentence, and goes to every destination.
const NOTE_CHARS: usize = 500;
const SQL_CHARS: usize = 20_000;

pub(super) async fn erase(desk: &Desk, wanted: Erase) -> Result<Exit> {
    let job = desk.app.job(&wanted.job)?;
    let site = &desk.app.site;
    if wanted.list {
        return list(desk, job, wanted.json).await;
    }
    let subject = match (&wanted.schema, &wanted.sql) {
        (Some(schema), _) if schema.trim().is_empty() => {
            return Err(Fault::usage("--schema is empty").hint("name a schema"));
        }
        (Some(schema), _) => Subject::Schema(schema.clone()),
        (None, Some(sql)) if sql.trim().is_empty() || sql.chars().count() > SQL_CHARS => {
            return Err(Fault::usage(format!(
                "--sql is empty or longer than {SQL_CHARS} characters"
            ))
            .hint("give statements such as DELETE FROM public.orders WHERE tenant_id = '7'"));
        }
        (None, Some(sql)) => Subject::Sql(sql.clone()),
        (None, None) => {
            return Err(Fault::usage("nothing to erase is named")
                .hint("add --schema NAME or --sql STATEMENT; --list shows what was erased"));
        }
    };
    if wanted.note.as_ref().is_some_and(|note| note.chars().count() > NOTE_CHARS) {
        return Err(Fault::usage(format!("--note is longer than {NOTE_CHARS} characters"))
            .hint("say it in a sentence"));
    }
    let erasure = wish(site, subject, wanted.database, wanted.note);
    let found = plan_erasure(site, job, &erasure).await?;
    if let Subject::Schema(schema) = &erasure.subject {
        let nothing = found.copies.is_empty() && found.unreachable.is_empty();
        let known = || found.remains.iter().any(|remains| remains.id.is_some());
        if nothing && !known() && !is_noted(desk, job, &erasure).await? {
            return Err(Fault::usage(format!(
                "no backup of '{}' holds a schema '{schema}'",
                job.name
            ))
            .hint(format!("`respaldo show {} ID` names the archives of a backup", job.name)));
        }
    }
    if wanted.dry_run {
        tell(&found);
        if wanted.json {
            output::json(&found)?;
        }
        return Ok(Exit::Done);
    }
    if !wanted.yes {
        tell(&found);
        match &erasure.subject {
            Subject::Schema(schema) => confirm(schema)?,
            Subject::Sql(sql) => {
                output::say(&format!("after each restore of '{}': {sql}", job.name));
                confirm(job.name.as_str())?;
            }
        }
    }
    let busy = |what: &str| {
        Fault::transient(format!("{what} of job '{}' is running", job.name))
            .hint("`respaldo status` shows how far it is; try again after it")
    };
    let lock = Lock::try_take(&site.job_lock(&job.name)).context("lock the job")?;
    let _lock = lock.ok_or_else(|| busy("a run"))?;
    let lock = Lock::try_take(&site.sync_lock(&job.name)).context("lock the sync")?;
    let _sync = lock.ok_or_else(|| busy("a sync"))?;
    let control = Control::new(&desk.stop);
    let deed = Deed::of(Action::Erase, &job.name).to(erasure.words());
    let work = job::erase(site, job, Some(erasure), Trigger::Manual, &control);
    let incomplete = |erasing: &Erasing| {
        (erasing.state() != RunState::Succeeded)
            .then(|| "some of it is left".to_owned())
            .map_or(Ok(None), Err)
    };
    let erasing = site.audited_by(&site.actor, deed, work, incomplete).await?;
    tell(&erasing);
    if wanted.json {
        output::json(&erasing)?;
    }
    Ok(match erasing.state() {
        RunState::Succeeded => Exit::Done,
        _ => Exit::Partial,
    })
}

async fn is_noted(desk: &Desk, job: &Job, erasure: &Erasure) -> Result<bool> {
    let (erasures, _) = job::erasures(&desk.app.site, job).await?;
    Ok(erasures.iter().any(|noted| noted.subject == erasure.subject))
}

/// The ledger.
async fn list(desk: &Desk, job: &Job, json: bool) -> Result<Exit> {
    let (erasures, unreachable) = job::erasures(&desk.app.site, job).await?;
    if json {
        output::json(&erasures)?;
    } else {
        let rows = erasures.iter().map(|erasure| {
            let at = erasure.at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
            let note = erasure.note.clone().unwrap_or_default();
            vec![at, erasure.host.clone(), erasure.words(), note]
        });
        output::table(&["AT", "BY", "WHAT", "NOTE"], rows.collect())?;
    }
    tell_of_missed(&unreachable);
    Ok(if unreachable.is_empty() { Exit::Done } else { Exit::Partial })
}

pub(super) fn tell(erasing: &Erasing) {
    for copy in &erasing.copies {
        output::say(&format!(
            "{} {} on {}: {}",
            erasing.job,
            copy.id,
            copy.destination,
            words(copy)
        ));
    }
    tell_of_missed(&erasing.unreachable);
    for remains in &erasing.remains {
        let place = remains.destination.as_ref().filter(|_| remains.id.is_some());
        let place = place.map_or(String::new(), |name| format!(" on '{name}'"));
        let until = remains.until.map_or(String::new(), |until| format!(" (until {until})"));
        output::say(&format!("remains{place}: {}{until}", remains.what));
    }
    if erasing.run.is_some() && erasing.state() != RunState::Succeeded {
        output::say(&format!(
            "hint: `respaldo sync {}` goes on where a destination was down; for the rest, the same command once more",
            erasing.job
        ));
    }
}

fn words(copy: &ErasedCopy) -> String {
    let became = &copy.became;
    let size = format!("{} files, {}", became.files, bytes(became.bytes));
    let pinned = if copy.pinned { " (it is pinned, and stays so)" } else { "" };
    match (became.state, &became.error) {
        (EraseState::Untouched, _) => "nothing of it is there".to_owned(),
        (EraseState::Planned, _) => format!("would be erased: {size}{pinned}"),
        (EraseState::Erased, _) => format!("erased: {size}{pinned}"),
        (EraseState::Retained, _) => match became.until {
            Some(until) => format!("taken out, but the file remains until {until}{pinned}"),
            None => format!("taken out, but the store keeps the file{pinned}"),
        },
        (EraseState::Left, error) => {
            format!("remains: {}{pinned}", error.as_deref().unwrap_or_default())
        }
    }
}

fn tell_of_missed(unreachable: &[Unreachable]) {
    for down in unreachable {
        output::say(&format!("error: '{}' is left out: {}", down.destination, down.error));
    }
}
