//! `respaldo list` and `respaldo show`.

use std::path::Path;
use std::sync::Arc;

use super::args::{List, Show};
use super::{Desk, open};
use super::{Exit, output};
use crate::app;
use crate::catalog::{Copy, Known};
use crate::clock::Clock;
use crate::config;
use crate::destination::{Destination, Key, list_backups, list_marks, read_manifest};
use crate::fault::Result;
use crate::job::{self, Held, Listed, Records, Shown, bytes, listed};
use crate::model::JobName;

pub(super) async fn list(file: Option<&Path>, clock: Clock, wanted: List) -> Result<Exit> {
    if let Some(url) = &wanted.from {
        let known = read_directly(url, wanted.job.as_deref(), &clock).await?;
        return print(&known, None, wanted.json);
    }
    let desk = open(file, clock).await?;
    let job = match &wanted.job {
        Some(name) => Some(desk.app.job(name)?.name.clone()),
        None => None,
    };
    let known = desk.app.site.catalog.backups(job.as_ref()).await?;
    let context = Records::of(&desk.app.site, &desk.app.jobs, &known).await?;
    print(&known, Some(&context), wanted.json)
}

fn print(known: &[Known], context: Option<&Records<'_>>, json: bool) -> Result<Exit> {
    let listed: Vec<Listed<'_>> = known.iter().map(|known| listed(known, context)).collect();
    if json {
        output::json(&listed)?;
        return Ok(Exit::Done);
    }
    if listed.is_empty() {
        output::say("no backups yet");
        return Ok(Exit::Done);
    }
    let rows = listed
        .iter()
        .map(|backup| {
            let places: Vec<String> = backup.destinations.iter().map(Held::words).collect();
            vec![
                backup.job.to_string(),
                backup.id.to_string(),
                backup.kind.as_str().to_owned(),
                bytes(backup.stored_bytes),
                places.join(", "),
                backup.label.unwrap_or_default().to_owned(),
            ]
        })
        .collect();
    output::table(&["JOB", "ID", "KIND", "STORED", "ON", "LABEL"], rows)?;
    for backup in listed.iter().filter(|backup| backup.suspect) {
        let warnings = backup.warnings.join("; ");
        output::say(&format!("warning: {} {}: {warnings}", backup.job, backup.id));
    }
    Ok(Exit::Done)
}

/// What lies at a URL, without any config.
async fn read_directly(url: &str, job: Option<&str>, clock: &Clock) -> Result<Vec<Known>> {
    let written = config::destination(url, clock.now())?;
    let destination: Arc<dyn Destination> = app::destination("from", &written, None)?;
    let jobs: Vec<JobName> = match job {
        Some(name) => vec![name.parse()?],
        None => {
            let listing = destination.list(&Key::root()).await?;
            listing.folders.iter().filter_map(|name| name.parse().ok()).collect()
        }
    };
    let mut known = Vec::new();
    for job in jobs {
        for id in list_backups(destination.as_ref(), &job).await?.into_iter().rev() {
            match read_manifest(destination.as_ref(), &job, &id).await {
                Ok(Some((manifest, _))) => {
                    let marks = list_marks(destination.as_ref(), &job, &id).await?;
                    known.push(Known { manifest, copies: vec![Copy::new(url, &marks)] });
                }
                Ok(None) => {}
                Err(fault) => output::say(&format!("warning: {job} {id}: {}", fault.chain())),
            }
        }
    }
    Ok(known)
}

pub(super) async fn show(desk: &Desk, wanted: Show) -> Result<Exit> {
    let job = &desk.app.job(&wanted.job)?.name;
    let known = &job::known(&desk.app.site, job, &wanted.id).await?;
    let manifest = &known.manifest;
    let context = Records::of(&desk.app.site, &desk.app.jobs, std::slice::from_ref(known)).await?;
    let destinations = listed(known, Some(&context)).destinations;
    if wanted.json {
        output::json(&Shown { manifest, destinations })?;
        return Ok(Exit::Done);
    }
    let mut rows = vec![
        vec!["job".to_owned(), manifest.job.to_string()],
        vec!["id".to_owned(), manifest.id.to_string()],
        vec!["kind".to_owned(), manifest.kind.as_str().to_owned()],
        vec!["since".to_owned(), manifest.stands_on().map_or(String::new(), |id| id.to_string())],
        vec!["started".to_owned(), manifest.started_at.to_string()],
        vec!["finished".to_owned(), manifest.finished_at.to_string()],
    ];
    rows.retain(|row| !row[1].is_empty());
    rows.extend(manifest.label.iter().map(|label| vec!["label".to_owned(), label.clone()]));
    for source in &manifest.sources {
        let name = format!("{} {}", source.engine.as_str(), source.name);
        let rows_in = source
            .fingerprint
            .as_ref()
            .filter(|print| !print.tables.is_empty())
            .map(|print| format!("{} in {} tables", print.rows(), print.tables.len()));
        let facts = [
            ("source", Some(name)),
            ("server", source.server_version.clone()),
            ("made by", source.tool.clone()),
            ("reads with", source.reads_with.clone()),
            ("rows", rows_in),
        ];
        rows.extend(facts.into_iter().filter_map(|(k, v)| Some(vec![k.to_owned(), v?])));
    }
    for artifact in &manifest.artifacts {
        let sizes = format!(
            "{} ({} stored, {} plain)",
            artifact.name,
            bytes(artifact.stored_bytes),
            bytes(artifact.plain_bytes)
        );
        rows.push(vec!["artifact".to_owned(), sizes]);
    }
    rows.extend(manifest.readers().into_iter().map(|to| vec!["encrypted".to_owned(), to]));
    for held in destinations {
        let verified = match (held.verified_at, held.damaged) {
            (Some(at), true) => format!(", damaged ({at})"),
            (Some(at), false) => format!(", read back whole {at}"),
            (None, _) => String::new(),
        };
        let proven = match (held.proven, held.proven_at) {
            (true, Some(at)) => format!(", proven {at}"),
            (true, None) => ", proven".to_owned(),
            _ => String::new(),
        };
        let place = format!("{} {}{verified}{proven}", held.name, held.state);
        rows.push(vec!["destination".to_owned(), place]);
    }
    for warning in &manifest.warnings {
        rows.push(vec!["warning".to_owned(), warning.clone()]);
    }
    output::table(&["", ""], rows)?;
    Ok(Exit::Done)
}
