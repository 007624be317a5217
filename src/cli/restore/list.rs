//! `respaldo restore --list`: every backup of every job, and the dumps that lie beside them.

use std::fs;

use jiff::Timestamp;
use serde::Serialize;

use super::super::args::Restore;
use super::super::{Desk, Exit, output};
use super::given::shelves;
use crate::fault::{Context, Result};
use crate::job::{Listed, Records, age, bytes, listed};

/// Endings of what scripts write.
const DUMPS: [&str; 8] =
    [".sql", ".dump", ".backup", ".tar", ".tgz", ".sqlite3", ".sqlite", ".pgdump"];

/// `restore --list --json`.
#[derive(Serialize)]
struct List<'a> {
    backups: Vec<Listed<'a>>,
    files: Vec<Dump>,
}

/// A dump that respaldo did not make.
#[derive(Serialize)]
struct Dump {
    file: String,
    bytes: u64,
    written_at: Timestamp,
}

pub(super) async fn list(desk: &Desk, wanted: &Restore) -> Result<Exit> {
    let job = match &wanted.job {
        Some(name) => Some(desk.app.job(name)?.name.clone()),
        None => None,
    };
    let known = desk.app.site.catalog.backups(job.as_ref()).await?;
    let context = Records::of(&desk.app.site, &desk.app.jobs, &known).await?;
    let mut backups: Vec<_> = known.iter().map(|known| listed(known, Some(&context))).collect();
    backups.sort_by_key(|backup| std::cmp::Reverse(backup.id));
    let files = dumps(desk)?;
    if wanted.given.json {
        output::json(&List { backups, files })?;
        return Ok(Exit::Done);
    }
    let now = desk.app.site.clock.now();
    if backups.is_empty() {
        output::say("no backups yet");
    } else {
        let rows = backups.iter().map(|backup| {
            let stored = backup.destinations.iter().filter(|held| held.state == "stored");
            let on: Vec<&str> = stored.map(|held| held.name.as_str()).collect();
            let proven = backup.destinations.iter().any(|held| held.proven);
            vec![
                backup.job.to_string(),
                backup.id.to_string(),
                age(now, backup.started_at),
                bytes(backup.stored_bytes),
                if proven { "proven" } else { "" }.to_owned(),
                on.join(", "),
            ]
        });
        output::table(&["JOB", "ID", "AGE", "STORED", "PROOF", "ON"], rows.collect())?;
    }
    if !files.is_empty() {
        let rows = files
            .iter()
            .map(|dump| vec![dump.file.clone(), age(now, dump.written_at), bytes(dump.bytes)]);
        output::table(&["DUMP (--file, --db, --media)", "AGE", "SIZE"], rows.collect())?;
    }
    Ok(Exit::Done)
}

/// Files that are called like dumps, newest first.
fn dumps(desk: &Desk) -> Result<Vec<Dump>> {
    let mut dumps = Vec::new();
    for folder in shelves(desk) {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let doing = || format!("read {}", folder.display());
            let entry = entry.context(doing())?;
            let name = entry.file_name().to_string_lossy().to_lowercase();
            let plain = [".gz", ".zst"].iter().find_map(|ending| name.strip_suffix(ending));
            let plain = plain.unwrap_or(&name);
            let meta = entry.metadata().context(doing())?;
            if name.starts_with('.')
                || !meta.is_file()
                || !DUMPS.iter().any(|end| plain.ends_with(end))
            {
                continue;
            }
            let written = meta.modified().context(doing())?;
            dumps.push(Dump {
                file: entry.path().display().to_string(),
                bytes: meta.len(),
                written_at: Timestamp::try_from(written).context(doing())?,
            });
        }
    }
    dumps.sort_by_key(|dump| std::cmp::Reverse(dump.written_at));
    Ok(dumps)
}
