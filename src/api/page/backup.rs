//! One backup: what is in it, where it lies and why it is kept, and the words that bring it back.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;

use super::super::Live;
use super::super::access::Viewer;
use super::words::{Badge, Maybe, Now, Tone, When, took};
use super::{Frame, Missing, job_of, now, page};
use crate::catalog::{Checks, Known};
use crate::fault::Result;
use crate::job::{Job, bytes, count, kept_why};
use crate::model::{BackupId, JobName, Manifest};

#[derive(Template)]
#[template(path = "backup.html")]
struct BackupPage {
    frame: Frame,
    job: JobName,
    id: BackupId,
    at: When,
    facts: Vec<(&'static str, String)>,
    artifacts: Vec<ArtifactRow>,
    copies: Vec<CopyRow>,
    warnings: Vec<String>,
    /// What each command does, and the command.
    commands: Vec<(&'static str, String)>,
}

struct ArtifactRow {
    name: String,
    stored: String,
    plain: String,
    sha256: String,
}

struct CopyRow {
    destination: String,
    badge: Badge,
    pinned: bool,
    verified: Maybe,
    /// Why it stays, or that it goes with the next prune.
    kept: String,
}

pub(super) async fn show(
    Viewer(caller): Viewer,
    State(live): State<Arc<dyn Live>>,
    Path((name, id)): Path<(String, String)>,
) -> Result<Response, Missing> {
    let app = live.app();
    let now = now(&app);
    let job = job_of(&app, &name)?;
    let id: BackupId = id.parse().map_err(|_| Missing::NotThere("backup"))?;
    let known = app.site.catalog.backup(&job.name, &id).await?;
    let known = known.ok_or(Missing::NotThere("backup"))?;
    let checks = app.site.catalog.latest_checks(&job.name).await?;
    let mut copies = copies(&known, &checks, &now);
    for (destination, decisions) in kept_why(&app.site, job).await? {
        let decision = decisions.into_iter().find(|decision| decision.id == id);
        let copy = copies.iter_mut().find(|copy| copy.destination == destination);
        if let (Some(decision), Some(copy)) = (decision, copy) {
            copy.kept = match decision.keep {
                true => format!("kept: {}", decision.reasons.join(", ")),
                false => "goes with the next prune: no rule keeps it".to_owned(),
            };
        }
    }
    let manifest = &known.manifest;
    Ok(page(&BackupPage {
        frame: Frame::new(&app, "/", &caller, &now),
        job: job.name.clone(),
        id,
        at: now.when(manifest.started_at),
        facts: facts(manifest),
        artifacts: manifest
            .artifacts
            .iter()
            .map(|artifact| ArtifactRow {
                name: artifact.name.clone(),
                stored: bytes(artifact.stored_bytes),
                plain: bytes(artifact.plain_bytes),
                sha256: artifact.stored_sha256.to_string(),
            })
            .collect(),
        copies,
        warnings: manifest.warnings.clone(),
        commands: commands(job, &known),
    }))
}

fn facts(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let seconds = manifest.finished_at.duration_since(manifest.started_at).as_secs_f64();
    let sizes =
        format!("{} ({} plain)", bytes(manifest.stored_bytes()), bytes(manifest.plain_bytes()));
    let mut facts = vec![("Stored", sizes), ("Took", took(seconds))];
    facts.extend(manifest.label.clone().map(|label| ("Label", label)));
    for source in &manifest.sources {
        facts.push(("Source", format!("{} {}", source.engine.as_str(), source.name)));
        facts.extend(source.server_version.clone().map(|version| ("Server", version)));
        facts.extend(source.reads_with.clone().map(|program| ("Reads with", program)));
        let print = source.fingerprint.as_ref().filter(|print| !print.tables.is_empty());
        facts.extend(print.map(|print| {
            ("Rows", format!("{} in {} tables", count(print.rows()), print.tables.len()))
        }));
    }
    facts.extend(manifest.readers().into_iter().map(|reader| ("Encrypted", reader)));
    facts
}

fn copies(known: &Known, checks: &Checks, now: &Now) -> Vec<CopyRow> {
    let row = |copy: &crate::catalog::Copy| {
        let check = checks.get(&(known.manifest.id, copy.destination.clone()));
        let badge = match check {
            Some(check) if !check.ok => Badge::new(Tone::Bad, "damaged"),
            _ if copy.proven => Badge::new(Tone::Good, "proven"),
            _ => Badge::new(Tone::Quiet, "stored"),
        };
        CopyRow {
            destination: copy.destination.clone(),
            badge,
            pinned: copy.pinned,
            verified: now.maybe(check.map(|check| check.at)),
            kept: String::new(),
        }
    };
    known.copies.iter().map(row).collect()
}

fn commands(job: &Job, known: &Known) -> Vec<(&'static str, String)> {
    let (name, id) = (&job.name, known.manifest.id);
    let key = match known.manifest.readers().is_empty() {
        true => "",
        false => " --identity KEY_FILE",
    };
    vec![
        ("See what a restore would do", format!("respaldo restore {name} {id}{key} --dry-run")),
        ("Restore it", format!("respaldo restore {name} {id}{key}")),
        ("Put back what that has replaced", format!("respaldo undo {name}")),
        ("Prove it first", format!("respaldo drill {name} {id}{key}")),
    ]
}
