//! Reads every byte of a backup back: stored digests, plain digests, and the engine's own reader. What
//! is encrypted to somebody else is checked from outside, and it is said so. Must not know which
//! copies are to be read when.

use jiff::Timestamp;
use serde::Serialize;

use super::erase::is_half_erased;
use super::proof::{self, Opened};
use super::reading::{read_artifact, weigh_artifact};
use super::{Found, Site};
use crate::catalog::Check;
use crate::destination::{read_manifest, read_small};
use crate::fault::{Context, Fault, FaultKind, Result};
use crate::model::{Artifact, BackupId, Encryption, JobName};
use crate::pipeline::{Identities, Meter};
use crate::signature::Verdict;
use crate::source::{Session, reader};

/// How far a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// Every stored byte; nothing was decrypted.
    Stored,
    /// Some of it to the innermost; the rest is encrypted to others.
    Part,
    /// Everything, to the innermost.
    Whole,
}

impl Depth {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Part => "part",
            Self::Whole => "whole",
        }
    }
}

/// What was found on one destination.
#[derive(Debug, Serialize)]
pub struct Verified {
    pub job: JobName,
    pub id: BackupId,
    pub destination: String,
    pub ok: bool,
    pub checked_at: Timestamp,
    pub depth: Depth,
    /// Bytes read: plain ones, and stored ones of what was not opened.
    pub bytes: u64,
    /// What is wrong; empty when `ok`.
    pub failures: Vec<String>,
    pub warnings: Vec<String>,
    /// Artifacts in an archive tier, which can't be read until they are thawed.
    pub archived: Vec<String>,
    /// It could not be read in full, which says nothing of what lies there.
    #[serde(skip)]
    pub unread: bool,
}

/// Everything that is wrong with a copy.
#[derive(Default)]
struct Wrong {
    failures: Vec<String>,
    /// Something lasting is among it: it is damaged.
    lasting: bool,
}

impl Wrong {
    fn say(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
        self.lasting = true;
    }

    fn add(&mut self, fault: &Fault) {
        self.failures.push(fault.chain());
        self.lasting |= !fault.is_transient();
    }
}

/// Checks everything, and goes on after a failure to find the others. Identities that open nothing of
/// it are a fault of usage: who gives a key wants it used. `most`: how far it should go; with
/// [`Depth::Stored`] nothing is opened.
pub async fn verify(
    site: &Site,
    mut found: Found,
    most: Depth,
    identities: &Identities,
    session: &Session,
    meter: &Meter,
) -> Result<Verified> {
    let Some(_lease) = found.lease(&site.data_dir)? else {
        return Err(Fault::transient("it is being deleted or changed at this moment")
            .hint("try again in a moment"));
    };
    let before = meter.plain();
    let mut wrong = Wrong::default();
    let mut warnings = Vec::new();
    let mut archived = Vec::new();
    match &found.signature {
        Verdict::Trusted => {}
        Verdict::UnknownKey(key) => {
            warnings.push(format!("signed by a key that is not known here: {key}"));
        }
        Verdict::Missing => wrong.say("manifest.sig is missing"),
        Verdict::Broken => wrong.say("manifest.json is not the one that was signed"),
    }
    if let Some(below) = found.manifest.stands_on() {
        match read_manifest(found.destination.as_ref(), &found.manifest.job, &below).await {
            Ok(Some(_)) => {}
            Ok(None) => wrong.say(format!("it stands on {below}, which is not there")),
            Err(fault) => wrong.add(&fault),
        }
    }
    let sums = found.manifest.sha256sums();
    let key = found.folder().child("SHA256SUMS")?;
    match read_small(found.destination.as_ref(), &key, 16 << 20).await {
        Ok(Some(text)) if text == sums => {}
        Ok(Some(text))
            if is_half_erased(found.destination.as_ref(), &found.manifest, &text).await =>
        {
            warnings.push("an erasure was cut off: the next sync ends it".into());
        }
        Ok(Some(_)) => wrong.say("SHA256SUMS is not the one that was written"),
        Ok(None) => wrong.say("SHA256SUMS is missing"),
        Err(fault) => wrong.add(&fault),
    }
    let opens = |artifact: &&Artifact| most != Depth::Stored && proof::opens(artifact, identities);
    let opened = match proof::open(&mut found, identities).await {
        Ok(opened) => Some(opened),
        Err(fault) if fault.kind() == FaultKind::Archived => {
            warnings.push("the proof: archived, not read".into());
            None
        }
        Err(fault) => {
            wrong.add(&fault);
            None
        }
    };
    let artifacts = &found.manifest.artifacts;
    if opened == Some(Opened::Shut) && !identities.is_empty() {
        warnings.push(proof::stays_shut(&found.manifest, identities)?);
    }
    let mut unopened = Vec::new();
    for artifact in artifacts {
        let folder = found.folder();
        let read = if opens(&artifact) {
            let facts = found.manifest.source_of(artifact);
            let intake = reader::check(artifact, facts, &site.bin_dirs, session).await?;
            read_artifact(&found.destination, &folder, artifact, identities, intake, meter)
                .await
                .map(|_| ())
        } else {
            unopened.push(artifact);
            weigh_artifact(&found.destination, &folder, artifact, meter).await
        };
        match read.context(artifact.name.clone()) {
            Ok(()) => {}
            Err(fault) if fault.kind() == FaultKind::Archived => {
                warnings.push(format!("{}: archived, not read", artifact.name));
                archived.push(artifact.name.clone());
            }
            Err(fault) => wrong.add(&fault),
        }
    }
    if most != Depth::Stored {
        warnings.extend(unchecked(&unopened, artifacts.len()));
    }
    let depth = match unopened.len() {
        0 if opened == Some(Opened::Whole) && archived.is_empty() => Depth::Whole,
        count if count == artifacts.len() => Depth::Stored,
        _ => Depth::Part,
    };
    Ok(Verified {
        job: found.manifest.job.clone(),
        id: found.manifest.id,
        destination: found.destination.name().to_owned(),
        ok: wrong.failures.is_empty(),
        checked_at: site.clock.now(),
        depth,
        bytes: meter.plain().saturating_sub(before),
        unread: !wrong.failures.is_empty() && !wrong.lasting,
        failures: wrong.failures,
        warnings,
        archived,
    })
}

impl Verified {
    /// What the catalog should remember; nothing of a copy that could not be read.
    pub(super) fn check(&self) -> Option<Check> {
        (!self.unread).then(|| Check {
            id: self.id,
            destination: self.destination.clone(),
            at: self.checked_at,
            ok: self.ok,
            depth: self.depth.as_str().to_owned(),
            error: (!self.ok).then(|| self.failures.join("; ")),
        })
    }
}

/// Remembers what was found, where the catalog knows the copy.
pub async fn remember(site: &Site, verified: &Verified) -> Result<()> {
    let Some(check) = verified.check() else { return Ok(()) };
    if !site.catalog.is_known(&verified.job, &check.id, &check.destination).await? {
        return Ok(());
    }
    site.catalog.add_check(&verified.job, &check).await
}

/// What was not looked into, and how it could be.
fn unchecked(unopened: &[&Artifact], all: usize) -> Vec<String> {
    let mut readers: Vec<(&Encryption, Vec<&str>)> = Vec::new();
    for artifact in unopened {
        let Some(to) = &artifact.encryption else { continue };
        match readers.iter_mut().find(|(known, _)| *known == to) {
            Some((_, names)) => names.push(&artifact.name),
            None => readers.push((to, vec![&artifact.name])),
        }
    }
    let said = readers.into_iter().map(|(to, names)| {
        let what = match names.len() == all {
            true => String::new(),
            false => format!("{}: ", names.join(", ")),
        };
        let add = proof::missing(to.recipients.is_empty());
        format!("{what}encrypted {}: its inside was not checked; {add}", to.reader())
    });
    said.collect()
}
