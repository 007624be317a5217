//! `respaldo import`: the dumps of an old script, listed and taken in.

use super::args::Import;
use super::backup::wait_for;
use super::output::{self, Progress};
use super::{Desk, Exit};
use crate::fault::Result;
use crate::job::{self, Control, ImportOptions, ImportState, Imported, bytes};

pub(super) async fn import(desk: &Desk, wanted: Import) -> Result<Exit> {
    let job = desk.app.job(&wanted.job)?;
    let options = ImportOptions { dry_run: wanted.dry_run, move_files: wanted.move_files };
    let _lock = match wanted.dry_run {
        true => None,
        false => Some(wait_for(desk, job).await?),
    };
    let control = Control::new(&desk.stop);
    let meter = control.meter.clone();
    let bar = Progress::show("import".to_owned(), move || (meter.plain(), None));
    let done = job::import(&desk.app.site, job, &wanted.folder, &options, &control).await;
    bar.end();
    let all = done?;
    if wanted.json {
        output::json(&all)?;
    } else {
        print(&all)?;
    }
    tell(&all, &wanted);
    let bad = all.iter().filter(|one| is_bad(one)).count();
    let good = all.iter().any(|one| !one.destinations.is_empty());
    Ok(match (bad, good) {
        (0, _) => Exit::Done,
        (_, true) => Exit::Partial,
        (_, false) => Exit::Failed,
    })
}

fn is_bad(one: &Imported) -> bool {
    matches!(one.state, ImportState::Refused | ImportState::Failed)
}

fn word(state: ImportState) -> &'static str {
    match state {
        ImportState::Importable => "would be imported",
        ImportState::Imported => "imported",
        ImportState::Known => "known already",
        ImportState::Unwanted => "not kept",
        ImportState::Left => "left",
        ImportState::Refused => "refused",
        ImportState::Failed => "failed",
    }
}

fn print(all: &[Imported]) -> Result<()> {
    let rows = all.iter().map(|one| {
        let id = one.id.map(|id| id.to_string()).unwrap_or_default();
        let size = if one.stored_bytes > 0 { bytes(one.stored_bytes) } else { String::new() };
        vec![
            one.file.clone(),
            word(one.state).to_owned(),
            id,
            size,
            one.destinations.join(", "),
            one.reason.clone().unwrap_or_default(),
        ]
    });
    output::table(&["FILE", "STATE", "ID", "SIZE", "ON", ""], rows.collect())
}

fn tell(all: &[Imported], wanted: &Import) {
    let count = |state| all.iter().filter(|one| one.state == state).count();
    output::say(&match wanted.dry_run {
        true => {
            format!("{} of {} files would be imported", count(ImportState::Importable), all.len())
        }
        false => format!("{} of {} files are imported", count(ImportState::Imported), all.len()),
    });
    for one in all.iter().filter(|one| is_bad(one)) {
        let reason = one.reason.as_deref().unwrap_or_default();
        output::say(&format!("error: {} {}: {reason}", one.file, word(one.state)));
    }
}
