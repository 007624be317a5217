//! A restore: planned first, loaded beside what is there, put in place only when every digest was
//! right. A failure at any step leaves what was there before.

use std::path::PathBuf;
use std::sync::Arc;

use super::proof::{self, Opened};
use super::reading::read_artifact;
use super::{Found, Job, Site};
use crate::comparison::{compare, expected_of};
use crate::fault::{Fault, Result};
use crate::model::{Artifact, Content, Engine, Erasure, SourceFacts};
use crate::pipeline::{Identities, Meter};
use crate::signature::Verdict;
use crate::source::{Finished, Kept, Session, Source, Target, Wanted};

/// What the command line asks for.
#[derive(Debug, Clone, Default)]
pub struct RestoreRequest {
    pub database: Option<String>,
    pub path: Option<PathBuf>,
    /// Names of the artifacts that are meant; empty: all that can be loaded.
    pub artifacts: Vec<String>,
    pub no_owner: bool,
    /// Make the roles that are missing.
    pub create_roles: bool,
    /// How many sessions load at once.
    pub jobs: Option<usize>,
    /// Put it in place although it is not what was backed up.
    pub unchecked: bool,
    /// Take a manifest that no known key signed.
    pub trust: bool,
    /// What opens an encrypted backup.
    pub identities: Identities,
    /// What must not come back, by the ledger of where the backup lies.
    pub erasures: Vec<Erasure>,
}

/// A restore that was planned and not begun.
pub struct Restore {
    found: Found,
    loads: Vec<Load>,
    session: Session,
    identities: Identities,
    unchecked: bool,
    warnings: Vec<String>,
}

/// What a restore has done.
#[derive(Debug, Default)]
pub struct Restored {
    pub said: Vec<String>,
    /// What was replaced, of which source.
    pub kept: Vec<(SourceFacts, Kept)>,
}

/// One source's artifacts, and where they go.
struct Load {
    target: Box<dyn Target>,
    facts: SourceFacts,
    artifacts: Vec<Artifact>,
    /// What is erased again once it is loaded.
    erasures: Vec<String>,
}

/// The job's own source for what a manifest says was backed up: the one of that name, else one of
/// that kind, for a server's databases come and go.
pub fn source_for(job: &Job, facts: &SourceFacts) -> Option<Arc<dyn Source>> {
    let of_kind = || job.sources.iter().filter(|source| source.engine() == facts.engine);
    of_kind().find(|source| source.name() == facts.name).or_else(|| of_kind().next()).cloned()
}

impl Restore {
    /// Looks at both ends and changes nothing. `choose` says through what each source is restored.
    pub async fn plan(
        mut found: Found,
        choose: impl Fn(&SourceFacts) -> Result<Arc<dyn Source>>,
        request: &RestoreRequest,
        session: &Session,
    ) -> Result<Self> {
        let mut warnings = check_signature(&found, request.trust)?;
        let identities = request.identities.clone();
        if proof::open(&mut found, &identities).await? == Opened::Shut {
            warnings.push(proof::stays_shut(&found.manifest, &identities)?);
        }
        let chosen = choose_artifacts(&found, request, &mut warnings)?;
        proof::check(chosen.iter().flat_map(|(_, artifacts)| artifacts), &identities)?;
        let mut loads = Vec::new();
        for (facts, artifacts) in chosen {
            let wanted = Wanted {
                database: request.database.clone(),
                path: request.path.clone(),
                facts: Some(facts.clone()),
                artifacts: artifacts.clone(),
                tag: found.manifest.id.to_string().to_lowercase(),
                no_owner: request.no_owner,
                create_roles: request.create_roles,
                jobs: request.jobs,
                erasures: reapplied(&found, request, &facts),
            };
            let target = choose(&facts)?.target(&wanted, session).await?;
            let erasures = wanted.erasures.iter().map(Erasure::words).collect();
            loads.push(Load { target, facts, artifacts, erasures });
        }
        let (session, unchecked) = (session.clone(), request.unchecked);
        Ok(Self { found, loads, session, identities, unchecked, warnings })
    }

    /// What will happen, line by line.
    pub fn lines(&self, site: &Site) -> Vec<String> {
        let manifest = &self.found.manifest;
        let age = site.clock.now().duration_since(manifest.id.started());
        let age = match age.as_hours() {
            ..2 => format!("{} min", age.as_mins()),
            hours @ 2..48 => format!("{hours} h"),
            hours => format!("{} days", hours / 24),
        };
        let signature = match &self.found.signature {
            Verdict::Trusted => "signature: good, by a known key",
            Verdict::UnknownKey(_) => "signature: good, but by a key that is not known here",
            Verdict::Missing => "signature: missing",
            Verdict::Broken => "signature: broken",
        };
        let mut lines = vec![
            format!("restore {} {} ({age} old)", manifest.job, manifest.id),
            format!("from '{}' {}", self.found.destination.name(), self.found.destination.place()),
            format!(
                "{}: {} artifacts, {} stored, {} plain",
                manifest.subject(),
                manifest.artifacts.len(),
                super::backup::bytes(manifest.stored_bytes()),
                super::backup::bytes(manifest.plain_bytes()),
            ),
            signature.to_owned(),
        ];
        for load in &self.loads {
            lines.extend(load.target.plan());
            if !load.erasures.is_empty() {
                lines.push(format!(
                    "{} erasures are reapplied once it is loaded:",
                    load.erasures.len()
                ));
                lines.extend(load.erasures.iter().map(|erasure| format!("  {erasure}")));
            }
        }
        lines.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        lines.extend(self.obstacles().map(|obstacle| format!("obstacle: {obstacle}")));
        lines
    }

    fn obstacles(&self) -> impl Iterator<Item = String> {
        self.loads.iter().flat_map(|load| load.target.obstacles())
    }

    /// What a person types to confirm.
    pub fn target_name(&self) -> String {
        let names: Vec<String> = self.loads.iter().map(|load| load.target.name()).collect();
        names.join(" ")
    }

    pub fn plain_bytes(&self) -> u64 {
        self.loads.iter().flat_map(|load| &load.artifacts).map(|a| a.plain_bytes).sum()
    }

    /// Refuses what can't go well, before anybody is asked.
    pub fn check(&self) -> Result<()> {
        match self.obstacles().next() {
            None => Ok(()),
            Some(first) => Err(Fault::usage(first).hint("nothing was changed")),
        }
    }

    /// Carries it out, and says what was done.
    pub async fn run(mut self, site: &Site, meter: &Meter) -> Result<Restored> {
        self.check()?;
        let _lease = self.found.lease(&site.data_dir)?;
        let mut loads = std::mem::take(&mut self.loads);
        let mut loaded = Ok(());
        for load in &mut loads {
            loaded = self.load(load, meter).await;
            if loaded.is_err() {
                break;
            }
        }
        // All of it is there before any of it is put in place.
        let mut done = Restored::default();
        for mut load in loads {
            let finished = match &loaded {
                Ok(()) => load.target.finish().await,
                Err(_) => Ok(Finished::default()),
            };
            match finished {
                Ok(finished) if loaded.is_ok() => {
                    done.said.extend(finished.said);
                    done.kept.extend(finished.kept.map(|kept| (load.facts, kept)));
                }
                Ok(_) => load.target.discard().await,
                Err(fault) => {
                    load.target.discard().await;
                    loaded = Err(fault);
                }
            }
        }
        if loaded.is_err() {
            // It stays: what was there before is kept beside it.
            done.said.iter().for_each(|line| tracing::warn!("done before the failure: {line}"));
        }
        loaded.map(|()| done)
    }

    async fn load(&self, load: &mut Load, meter: &Meter) -> Result<()> {
        load.target.begin().await?;
        for artifact in &load.artifacts {
            let intake = load.target.load(artifact).await?;
            let folder = self.found.folder();
            let (from, identities) = (&self.found.destination, &self.identities);
            let clean = read_artifact(from, &folder, artifact, identities, intake, meter).await?;
            for warning in clean.warnings() {
                tracing::warn!("{}: {warning}", artifact.name);
            }
            if self.session.cancel.is_cancelled() {
                return Err(Fault::cancelled("the restore was stopped"));
            }
        }
        load.target.complete().await?;
        let found = load.target.holds(&load.facts).await?;
        found.map_or(Ok(()), |found| self.compare(load, &found))
    }

    /// What was restored, beside what was backed up: nothing else is put in place.
    fn compare(&self, load: &Load, found: &SourceFacts) -> Result<()> {
        let loaded: Vec<Content> = load.artifacts.iter().map(|a| a.content.clone()).collect();
        let compared = compare(&expected_of(&load.facts, &loaded), found);
        compared.notes.iter().for_each(|note| tracing::info!("{note}"));
        if compared.failures.is_empty() {
            tracing::info!("{} tables hold what they held", compared.tables.len());
            return Ok(());
        }
        compared.failures.iter().for_each(|failure| tracing::warn!("{failure}"));
        if self.unchecked {
            return Ok(());
        }
        let more = match compared.failures.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let what = format!("what was restored is not what was backed up: {}", compared.failures[0]);
        Err(Fault::permanent(format!("{what}{more}")).hint(
            "nothing was put in place; another backup may be whole, or --unchecked takes this one",
        ))
    }
}

/// What is loaded, by source. Of several databases, and of several sets of files, one name or path
/// can't mean them all.
fn choose_artifacts(
    found: &Found,
    request: &RestoreRequest,
    warnings: &mut Vec<String>,
) -> Result<Vec<(SourceFacts, Vec<Artifact>)>> {
    let manifest = &found.manifest;
    let names =
        || manifest.artifacts.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join(", ");
    for name in &request.artifacts {
        if !manifest.artifacts.iter().any(|artifact| artifact.name == *name) {
            return Err(Fault::usage(format!("the backup has no artifact '{name}'"))
                .hint(format!("it has: {}", names())));
        }
    }
    let mut chosen = Vec::new();
    for (n, facts) in manifest.sources.iter().enumerate() {
        let of_source = manifest.artifacts.iter().filter(|artifact| artifact.source == n);
        let artifacts: Vec<Artifact> = match request.artifacts.as_slice() {
            [] => of_source.filter(|artifact| is_loaded(artifact)).cloned().collect(),
            names => of_source.filter(|artifact| names.contains(&artifact.name)).cloned().collect(),
        };
        if !artifacts.is_empty() {
            chosen.push((facts.clone(), artifacts));
        }
    }
    if request.artifacts.is_empty() {
        let left: Vec<&str> = manifest
            .artifacts
            .iter()
            .filter(|artifact| !is_loaded(artifact))
            .map(|artifact| artifact.name.as_str())
            .collect();
        if !left.is_empty() {
            let left = left.join(", ");
            warnings
                .push(format!("not loaded, for it is the server's own: {left} (see RESTORE.md)"));
        }
    }
    let databases = chosen.iter().filter(|(facts, _)| is_database(facts)).count();
    let places = chosen.len() - databases;
    if request.database.is_some() && databases > 1 || request.path.is_some() && places > 1 {
        let what = if databases > 1 { "--database" } else { "--to" };
        return Err(Fault::usage(format!("{what} can't mean several of {}", manifest.subject()))
            .hint(format!("choose with --artifact, one of: {}", names())));
    }
    Ok(chosen)
}

fn is_database(facts: &SourceFacts) -> bool {
    matches!(facts.engine, Engine::Postgres | Engine::Mysql)
}

/// Roles and settings belong to a server, and are for a person to look at first.
fn is_loaded(artifact: &Artifact) -> bool {
    !matches!(artifact.content, Content::Globals | Content::Settings | Content::Grants)
}

/// What is erased again from one of the backup's databases.
fn reapplied(found: &Found, request: &RestoreRequest, facts: &SourceFacts) -> Vec<Erasure> {
    let concerns = |erasure: &&Erasure| erasure.concerns(&found.manifest.id, facts);
    request.erasures.iter().filter(concerns).cloned().collect()
}

fn check_signature(found: &Found, trust: bool) -> Result<Vec<String>> {
    let (what, hint) = match &found.signature {
        Verdict::Trusted => return Ok(Vec::new()),
        Verdict::UnknownKey(key) => (
            format!("the backup is signed by a key that is not known here ({key})"),
            "if you know where it comes from, add --trust, or the key to `trusted_keys` in the config",
        ),
        Verdict::Missing => {
            ("the backup is not signed".to_owned(), "if you know where it comes from, add --trust")
        }
        Verdict::Broken => (
            "the backup's manifest is not the one that was signed".to_owned(),
            "somebody or something changed it: use another destination or backup; --trust takes it all the same",
        ),
    };
    if trust { Ok(vec![what]) } else { Err(Fault::permanent(what).hint(hint)) }
}
