//! Backups as they are listed, at the command line and over HTTP: each with where it is, and what is
//! known of each copy. From the catalog alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::{Job, Site};
use crate::catalog::{Check, Checks, Copy, Known};
use crate::fault::{Fault, Result};
use crate::model::{Artifact, BackupId, BackupKind, JobName, Manifest};

/// One backup in `list --json`.
#[derive(Debug, Serialize)]
pub struct Listed<'a> {
    pub job: &'a JobName,
    pub id: BackupId,
    pub kind: BackupKind,
    /// The backup that it holds only the changes since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<BackupId>,
    pub label: Option<&'a str>,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub stored_bytes: u64,
    pub plain_bytes: u64,
    pub artifacts: &'a [Artifact],
    pub destinations: Vec<Held>,
    pub warnings: &'a [String],
    /// It is much smaller than those before it.
    pub suspect: bool,
}

#[derive(Debug, Serialize)]
pub struct Held {
    pub name: String,
    /// `stored`, or `missing` where the job wants it and it is not.
    pub state: &'static str,
    pub pinned: bool,
    pub proven: bool,
    /// When, where a drill of this machine did it.
    pub proven_at: Option<Timestamp>,
    /// When it was last read back, and whether it was not whole then.
    pub verified_at: Option<Timestamp>,
    pub damaged: bool,
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

    /// For people: `local (proven)`.
    pub fn words(&self) -> String {
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
pub struct Records<'a> {
    jobs: &'a [Arc<Job>],
    checks: BTreeMap<JobName, Checks>,
    proofs: Proofs,
}

impl<'a> Records<'a> {
    pub async fn of(site: &Site, jobs: &'a [Arc<Job>], known: &[Known]) -> Result<Self> {
        let (mut checks, mut proofs) = (BTreeMap::new(), Proofs::new());
        for job in known.iter().map(|known| &known.manifest.job) {
            if !checks.contains_key(job) {
                checks.insert(job.clone(), site.catalog.latest_checks(job).await?);
                let proven = site.catalog.proofs(job).await?;
                proofs.extend(proven.into_iter().map(|((id, on), at)| ((job.clone(), id, on), at)));
            }
        }
        Ok(Self { jobs, checks, proofs })
    }

    fn check(&self, manifest: &Manifest, destination: &str) -> Option<&Check> {
        self.checks.get(&manifest.job)?.get(&(manifest.id, destination.to_owned()))
    }

    fn proven_at(&self, manifest: &Manifest, destination: &str) -> Option<Timestamp> {
        let key = (manifest.job.clone(), manifest.id, destination.to_owned());
        self.proofs.get(&key).copied()
    }
}

/// As it is listed; without a context, as what lies in a place that no config knows.
pub fn listed<'a>(known: &'a Known, context: Option<&Records<'_>>) -> Listed<'a> {
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
    let job = context.and_then(|context| context.jobs.iter().find(|job| job.name == manifest.job));
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
        since: manifest.stands_on(),
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

/// A backup in full: its manifest, and where it is.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    #[serde(flatten)]
    pub manifest: &'a Manifest,
    pub destinations: Vec<Held>,
}

/// What the catalog knows of one backup.
pub async fn known(site: &Site, job: &JobName, id: &BackupId) -> Result<Known> {
    site.catalog.backup(job, id).await?.ok_or_else(|| {
        Fault::usage(format!("job '{job}' has no backup {id}"))
            .hint(format!("`respaldo list {job}` shows what there is"))
    })
}
