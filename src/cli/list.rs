//! `respaldo list` and `respaldo show`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::args::{List, Show};
use super::{Desk, open};
use super::{Exit, output};
use crate::app::{self, App};
use crate::catalog::{Check, Checks, Copy, Known};
use crate::clock::Clock;
use crate::config;
use crate::destination::{Destination, Key, list_backups, list_marks, read_manifest};
use crate::fault::{Fault, Result};
use crate::job::bytes;
use crate::model::{Artifact, BackupId, BackupKind, JobName, Manifest};

/// One backup in `list --json`.
#[derive(Debug, Serialize)]
pub(super) struct Listed<'a> {
    pub(super) job: &'a JobName,
    pub(super) id: BackupId,
    pub(super) kind: BackupKind,
    pub(super) label: Option<&'a str>,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
    pub(super) stored_bytes: u64,
    pub(super) plain_bytes: u64,
    pub(super) artifacts: &'a [Artifact],
    pub(super) destinations: Vec<Held>,
    pub(super) warnings: &'a [String],
    /// It is much smaller than those before it.
    pub(super) suspect: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Held {
    pub(super) name: String,
    /// `stored`, or `missing` where the job wants it and it is not.
    pub(super) state: &'static str,
    pub(super) pinned: bool,
    pub(super) proven: bool,
    /// When, where a drill of this machine did it.
    proven_at: Option<Timestamp>,
    /// When it was last read back, and whether it was not whole then.
    pub(super) verified_at: Option<Timestamp>,
    pub(super) damaged: bool,
}

impl Held {
    fn new(copy: &Copy, check: Option<&Check>, proven_at: Option<Timestamp>) -> Self {
        Self {
            name: copy.destination.clone(),
            state: "stored",
            pinned: copy.pinned,
            proven: copy.proven,
            proven_at: proven_at.filter(|_| copy.proven),
            verified_at: check.map(|check| check.at),
            damaged: check.is_some_and(|check| !check.ok),
        }
    }

    fn missing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: "missing",
            pinned: false,
            proven: false,
            proven_at: None,
            verified_at: None,
            damaged: false,
        }
    }

    fn words(&self) -> String {
        match (self.state, self.damaged) {
            ("stored", true) => format!("{} (damaged)", self.name),
            ("stored", false) if self.proven => format!("{} (proven)", self.name),
            ("stored", false) => self.name.clone(),
            (state, _) => format!("{} ({state})", self.name),
        }
    }
}

/// When backups of a job were proven, by backup and destination.
type Proofs = BTreeMap<(JobName, BackupId, String), Timestamp>;

/// A config's jobs, and what was found when their copies were last read and restored.
pub(super) struct Context<'a> {
    app: &'a App,
    checks: BTreeMap<JobName, Checks>,
    proofs: Proofs,
}

impl<'a> Context<'a> {
    pub(super) async fn of(app: &'a App, known: &[Known]) -> Result<Self> {
        let (mut checks, mut proofs) = (BTreeMap::new(), Proofs::new());
        for job in known.iter().map(|known| &known.manifest.job) {
            if !checks.contains_key(job) {
                checks.insert(job.clone(), app.site.catalog.latest_checks(job).await?);
                let proven = app.site.catalog.proofs(job).await?;
                proofs.extend(proven.into_iter().map(|((id, on), at)| ((job.clone(), id, on), at)));
            }
        }
        Ok(Self { app, checks, proofs })
    }

    fn check(&self, manifest: &Manifest, destination: &str) -> Option<&Check> {
        self.checks.get(&manifest.job)?.get(&(manifest.id, destination.to_owned()))
    }

    fn proven_at(&self, manifest: &Manifest, destination: &str) -> Option<Timestamp> {
        let key = (manifest.job.clone(), manifest.id, destination.to_owned());
        self.proofs.get(&key).copied()
    }
}

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
    print(&known, Some(&Context::of(&desk.app, &known).await?), wanted.json)
}

pub(super) fn listed<'a>(known: &'a Known, context: Option<&Context<'_>>) -> Listed<'a> {
    let manifest = &known.manifest;
    let mut destinations: Vec<Held> = known
        .copies
        .iter()
        .map(|copy| {
            let name = copy.destination.as_str();
            let check = context.and_then(|context| context.check(manifest, name));
            let proven_at = context.and_then(|context| context.proven_at(manifest, name));
            Held::new(copy, check, proven_at)
        })
        .collect();
    let job = context.and_then(|context| context.app.job(manifest.job.as_str()).ok());
    // A cold one takes only some: it misses nothing.
    let places = job.iter().flat_map(|job| &job.places);
    for place in places.filter(|place| place.policy.accept.is_none()) {
        let name = place.destination.name();
        if !destinations.iter().any(|held| held.name == name) {
            destinations.push(Held::missing(name));
        }
    }
    Listed {
        job: &manifest.job,
        id: manifest.id,
        kind: manifest.kind,
        label: manifest.label.as_deref(),
        started_at: manifest.started_at,
        finished_at: manifest.finished_at,
        stored_bytes: manifest.stored_bytes(),
        plain_bytes: manifest.plain_bytes(),
        artifacts: &manifest.artifacts,
        destinations,
        warnings: &manifest.warnings,
        suspect: manifest.suspect,
    }
}

fn print(known: &[Known], context: Option<&Context<'_>>, json: bool) -> Result<Exit> {
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

/// `show --json`: the manifest, and where it is.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    manifest: &'a Manifest,
    destinations: Vec<Held>,
}

pub(super) async fn show(desk: &Desk, wanted: Show) -> Result<Exit> {
    let job = &desk.app.job(&wanted.job)?.name;
    let known = desk.app.site.catalog.backups(Some(job)).await?;
    let known = known.iter().find(|known| known.manifest.id == wanted.id).ok_or_else(|| {
        Fault::usage(format!("job '{job}' has no backup {}", wanted.id))
            .hint(format!("`respaldo list {job}` shows what there is"))
    })?;
    let manifest = &known.manifest;
    let context = Context::of(&desk.app, std::slice::from_ref(known)).await?;
    let destinations = listed(known, Some(&context)).destinations;
    if wanted.json {
        output::json(&Shown { manifest, destinations })?;
        return Ok(Exit::Done);
    }
    let mut rows = vec![
        vec!["job".to_owned(), manifest.job.to_string()],
        vec!["id".to_owned(), manifest.id.to_string()],
        vec!["kind".to_owned(), manifest.kind.as_str().to_owned()],
        vec!["started".to_owned(), manifest.started_at.to_string()],
        vec!["finished".to_owned(), manifest.finished_at.to_string()],
    ];
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
