//! A base backup with all that it stands on: found on one destination, and put together in a data folder.
//! Knows manifests; which programs do it, `source::postgres::physical` knows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::super::proof::{self, Opened};
use super::super::reading::read_artifact;
use super::super::restore::check_signature;
use super::super::{Choice, Found, find};
use super::log::physical;
use crate::destination::Destination;
use crate::fault::{Fault, Result};
use crate::lock::Lock;
use crate::model::{BackupId, JobName, Manifest, SourceFacts};
use crate::pipeline::{Identities, Meter};
use crate::source::postgres::physical::{Combiner, DataFolder};

/// Nobody lets a chain become so long; bounds what a hostile manifest can make us read.
const MOST: usize = 1_000;

/// A server's facts, as a base backup has them.
pub(super) fn facts_of(manifest: &Manifest) -> Option<&SourceFacts> {
    manifest.sources.iter().find(|facts| facts.physical.is_some())
}

/// What a base backup stands on, the full one first; nothing where it is full itself.
pub(in crate::job) struct Below {
    all: Vec<Found>,
    combiner: Option<Combiner>,
}

impl Below {
    /// Looks on the destination that has the backup.
    pub(in crate::job) async fn find(found: &Found, trusted: &[String]) -> Result<Self> {
        let from = std::slice::from_ref(&found.destination);
        let (job, id) = (&found.manifest.job, found.manifest.id);
        let mut all: Vec<Found> = Vec::new();
        let mut last = &found.manifest;
        while let Some(since) = last.stands_on() {
            if since >= last.id {
                return Err(Fault::permanent(format!("{} stands on what came later", last.id)));
            }
            let below = look(from, job, since, trusted).await;
            let below = below.map_err(|fault| missing(found, since, fault))?;
            check_pair(last, &below.manifest)?;
            all.push(below);
            last = match all.last() {
                Some(below) => &below.manifest,
                None => break,
            };
            if all.len() > MOST {
                return Err(Fault::permanent(format!("{id} stands on more than {MOST} others")));
            }
        }
        all.reverse();
        Ok(Self { all, combiner: None })
    }

    /// Looks for the programs that put it together, before anything is fetched.
    pub(in crate::job) async fn prepare(
        &mut self,
        found: &Found,
        bin_dirs: &[PathBuf],
        cancel: &CancellationToken,
    ) -> Result<()> {
        let Some(full) = self.all.first() else { return Ok(()) };
        let major =
            facts_of(&found.manifest).and_then(SourceFacts::server_major).unwrap_or_default();
        let combiner = Combiner::find(major, bin_dirs, cancel).await.map_err(|fault| {
            let hint = fault.next_step().unwrap_or_default().to_owned();
            let id = full.manifest.id;
            fault.hint(format!(
                "{hint}; or begin with the full backup {id}, from which the log leads to every later moment"
            ))
        })?;
        self.combiner = Some(combiner);
        Ok(())
    }

    /// Refuses one that nobody known has signed, unless it is trusted all the same; gives warnings.
    pub(in crate::job) fn check_signatures(&self, trust: bool) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        for found in &self.all {
            for warning in check_signature(found, trust)? {
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
        }
        Ok(warnings)
    }

    /// Opens what is encrypted, all of it.
    pub(in crate::job) async fn open(&mut self, identities: &Identities) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        for found in &mut self.all {
            if proof::open(found, identities).await? == Opened::Shut {
                warnings.push(proof::stays_shut(&found.manifest, identities)?);
            }
            proof::check(found.manifest.artifacts.iter(), identities)?;
        }
        Ok(warnings)
    }

    pub(in crate::job) fn leases(&self, data_dir: &Path) -> Result<Vec<Option<Lock>>> {
        self.all.iter().map(|found| found.lease(data_dir)).collect()
    }

    /// How many it stands on.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The full one, where the backup itself is not.
    pub(super) fn full(&self) -> Option<BackupId> {
        self.all.first().map(|found| found.manifest.id)
    }

    /// How much passes when it is read.
    pub(in crate::job) fn read_bytes(&self) -> u64 {
        self.all.iter().map(|found| found.manifest.read_bytes()).sum()
    }

    /// How much there is of it once it is unpacked.
    pub(super) fn plain_bytes(&self) -> u64 {
        self.all.iter().map(|found| found.manifest.plain_bytes()).sum()
    }

    /// How much more is written for it than is read: all of the server, once more.
    pub(super) fn combined_bytes(&self, found: &Found) -> u64 {
        let Some(full) = self.all.first() else { return 0 };
        let size = facts_of(&found.manifest).and_then(|facts| facts.size_bytes).unwrap_or(0);
        full.manifest.plain_bytes().max(size)
    }

    /// Brings the backup into the folder, where it then lies as a full one would.
    pub(in crate::job) async fn fill(
        &self,
        found: &Found,
        folder: &DataFolder,
        identities: &Identities,
        meter: &Meter,
    ) -> Result<()> {
        if self.all.is_empty() {
            for artifact in &found.manifest.artifacts {
                let intake = folder.load(artifact).await?;
                let (from, place) = (&found.destination, found.folder());
                let read = read_artifact(from, &place, artifact, identities, intake, meter).await?;
                read.warnings().iter().for_each(|line| tracing::warn!("{}: {line}", artifact.name));
                stopped(folder)?;
            }
            return Ok(());
        }
        for (n, one) in self.all.iter().chain([found]).enumerate() {
            let stage = folder.stage(n)?;
            let wanted = one.manifest.artifacts.iter().filter(|artifact| stage.takes(artifact));
            for artifact in wanted {
                let intake = stage.load(artifact).await?;
                let (from, place) = (&one.destination, one.folder());
                let read = read_artifact(from, &place, artifact, identities, intake, meter).await?;
                read.warnings().iter().for_each(|line| tracing::warn!("{}: {line}", artifact.name));
                stopped(folder)?;
            }
        }
        let none = || Fault::permanent("nobody looked for what puts the chain together");
        let combiner = self.combiner.as_ref().ok_or_else(none)?;
        folder.combine(self.all.len() + 1, combiner).await
    }
}

fn stopped(folder: &DataFolder) -> Result<()> {
    match folder.cancel.is_cancelled() {
        true => Err(Fault::cancelled("the recovery was stopped")),
        false => Ok(()),
    }
}

async fn look(
    from: &[Arc<dyn Destination>],
    job: &JobName,
    id: BackupId,
    trusted: &[String],
) -> Result<Found> {
    find(from, job, Choice::Id(id), trusted).await
}

fn missing(found: &Found, since: BackupId, fault: Fault) -> Fault {
    if fault.is_transient() {
        return fault;
    }
    let (id, place) = (found.manifest.id, found.destination.name());
    Fault::permanent(format!("{id} stands on {since}, which is not on '{place}'"))
        .cause(fault)
        .hint("try --destination NAME: another one may have both; or begin with an older backup")
}

/// Both must be of one server and one timeline, or old pages would come back with the new ones.
fn check_pair(upper: &Manifest, lower: &Manifest) -> Result<()> {
    let of = |manifest: &Manifest| -> Result<(Option<String>, u32)> {
        let none = || Fault::permanent(format!("{} is no base backup", manifest.id));
        let facts = facts_of(manifest).ok_or_else(none)?;
        Ok((facts.system_id.clone(), physical(facts)?.timeline))
    };
    match of(upper)? == of(lower)? {
        true => Ok(()),
        false => Err(Fault::permanent(format!(
            "{} can't stand on {}: the one is of another server or timeline than the other",
            upper.id, lower.id
        ))),
    }
}
