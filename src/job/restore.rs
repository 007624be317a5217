//! A restore: planned first, loaded beside what is there, put in place only when every digest was
//! right. A failure at any step leaves what was there before.

mod choose;
mod replaced;
mod safety;

use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::proof::{self, Opened};
use super::reading::read_artifact;
use super::record::{Ending, recorded};
use super::{Control, Found, Job, Site, hooks};
use crate::comparison::compare;
use crate::fault::{Fault, Result};
use crate::model::{Artifact, Erasure, RunId, RunKind, RunState, SourceFacts};
use crate::pipeline::{Identities, Meter};
use crate::source::{Piece, Session, Source, Target, Wanted};
use choose::{choose_artifacts, reapplied};

pub(super) use choose::{check_signature, is_loaded, signature_words};
pub(super) use replaced::settle;
pub use replaced::{forget_old, undo, undo_plan};

/// What the command line asks for.
#[derive(Debug, Clone, Default)]
pub struct RestoreRequest {
    pub database: Option<String>,
    pub path: Option<PathBuf>,
    /// Of files, only what these globs name.
    pub paths: Vec<String>,
    /// Names of the artifacts that are meant; empty: all that can be loaded.
    pub artifacts: Vec<String>,
    pub no_owner: bool,
    /// Make the roles that are missing.
    pub create_roles: bool,
    /// How many sessions load at once.
    pub jobs: Option<usize>,
    /// Change what is there.
    pub in_place: bool,
    /// Only this of a database.
    pub piece: Option<Piece>,
    /// The schema that it goes into.
    pub into: Option<String>,
    /// The rows of it that are copied back to where they were: an SQL condition.
    pub rows: Option<String>,
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

/// As [`restore`], as a run of the first one's. The caller holds the jobs' locks.
pub async fn restore_run(
    site: &Arc<Site>,
    (job, run): (&Job, RunId),
    jobs: &[Arc<Job>],
    restores: Vec<Restore>,
    control: &Control,
) -> Result<Restored> {
    let Some(id) = restores.first().map(|restore| restore.found.manifest.id) else {
        return Ok(Restored::default());
    };
    control.add_total(Some(restores.iter().map(Restore::plain_bytes).sum()));
    let of = (&job.name, run, RunKind::Restore);
    let work = restore(site, restores, jobs, control);
    let ending = |done: &Restored| Ending {
        state: RunState::Succeeded,
        error: None,
        hint: None,
        warnings: done.said.clone(),
    };
    recorded(site, of, Some(id), control, work, ending).await
}

/// Carries out what was planned: all of it is there, and right, before any of it is put in its place.
/// `site` remembers what was replaced. `jobs`: whose it is, of which the first one's hooks are run.
pub async fn restore(
    site: &Arc<Site>,
    mut restores: Vec<Restore>,
    jobs: &[Arc<Job>],
    control: &Control,
) -> Result<Restored> {
    restores.iter().try_for_each(Restore::check)?;
    let id = restores.first().map(|restore| restore.found.manifest.id);
    let hooks = jobs.first().zip(id);
    let leases = restores.iter().map(|one| one.found.lease(&site.data_dir));
    let _leases = leases.collect::<Result<Vec<_>>>()?;
    let mut ready = Ok(());
    for one in &mut restores {
        ready = one.load_all(&control.meter).await;
        if ready.is_err() {
            break;
        }
    }
    // Whoever uses what is there is sent away only now.
    if let (Ok(()), Some((job, id))) = (&ready, &hooks) {
        ready = hooks::before_restore(job, id, &control.cancel).await;
    }
    let begun = ready.is_ok();
    let mut safety = Vec::new();
    if begun {
        match safety::backups_before(site, jobs, &restores, control).await {
            Ok(lines) => safety = lines,
            Err(fault) => ready = Err(fault),
        }
    }
    let mut done = put_in_place(site, restores, ready).await;
    match &mut done {
        Ok(done) => done.said.extend(safety),
        Err(_) => safety.iter().for_each(|line| tracing::warn!("{line}")),
    }
    if let (true, Some((job, id))) = (begun, &hooks) {
        let state = if done.is_ok() { RunState::Succeeded } else { RunState::Failed };
        if let Err(fault) = hooks::after_restore(job, id, state).await {
            tracing::error!("{}", fault.chain());
        }
    }
    done
}

async fn put_in_place(
    site: &Site,
    restores: Vec<Restore>,
    mut ready: Result<()>,
) -> Result<Restored> {
    let (mut done, now) = (Restored::default(), site.clock.now());
    for mut restore in restores {
        let (job, backup) = (restore.found.manifest.job.clone(), restore.found.manifest.id);
        let mut loads = std::mem::take(&mut restore.loads);
        for mut load in loads.drain(..) {
            if ready.is_err() {
                load.target.discard().await;
                continue;
            }
            match load.target.finish().await {
                Ok(finished) => {
                    done.said.extend(finished.said);
                    done.said.extend(restore.look_in_place(&mut load).await);
                    for kept in finished.kept {
                        let names = (kept.current.as_str(), kept.kept.as_str());
                        let of = (&job, &backup);
                        site.catalog.remember_kept(of, &load.facts, names, now).await?;
                        done.can_undo = true;
                    }
                }
                Err(fault) => {
                    load.target.discard().await;
                    ready = Err(fault);
                }
            }
        }
    }
    if ready.is_err() {
        // It stays: what was there before is kept beside it.
        done.said.iter().for_each(|line| tracing::warn!("done before the failure: {line}"));
    }
    ready.map(|()| done)
}

/// What a restore has done.
#[derive(Debug, Default)]
pub struct Restored {
    pub said: Vec<String>,
    /// What was replaced is kept for a while.
    pub can_undo: bool,
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
                paths: request.paths.clone(),
                facts: Some(facts.clone()),
                artifacts: artifacts.clone(),
                tag: found.manifest.id.to_string().to_lowercase(),
                no_owner: request.no_owner,
                create_roles: request.create_roles,
                jobs: request.jobs,
                in_place: request.in_place,
                piece: request.piece.clone(),
                into: request.into.clone(),
                rows: request.rows.clone(),
                erasures: reapplied(&found, request, &facts),
                unchecked: request.unchecked,
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
        let age = age(site.clock.now(), manifest.id.started());
        let signature = signature_words(&self.found.signature);
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

    /// For the audit: which backup, from where.
    pub fn words(&self) -> String {
        let manifest = &self.found.manifest;
        format!("{} {} from {}", manifest.job, manifest.id, self.found.destination.name())
    }

    /// What a person types to confirm.
    pub fn target_name(&self) -> String {
        let names: Vec<String> = self.loads.iter().map(|load| load.target.name()).collect();
        names.join(" ")
    }

    pub fn plain_bytes(&self) -> u64 {
        self.loads.iter().flat_map(|load| &load.artifacts).map(|a| a.plain_bytes).sum()
    }

    fn overwrites(&self) -> Vec<Arc<dyn Source>> {
        self.loads.iter().filter_map(|load| load.target.overwrites()).collect()
    }

    /// Refuses what can't go well, before anybody is asked.
    pub fn check(&self) -> Result<()> {
        match self.obstacles().next() {
            None => Ok(()),
            Some(first) => Err(Fault::usage(first).hint("nothing was changed")),
        }
    }

    /// Keeps retention away from the backup, loads all of it beside what is there, and compares.
    async fn load_all(&mut self, meter: &Meter) -> Result<()> {
        let mut loads = std::mem::take(&mut self.loads);
        let mut loaded = Ok(());
        for load in &mut loads {
            loaded = self.load(load, meter).await;
            if loaded.is_err() {
                break;
            }
        }
        self.loads = loads;
        loaded
    }

    async fn load(&self, load: &mut Load, meter: &Meter) -> Result<()> {
        load.target.begin().await?;
        let at_once = load.target.at_once();
        let target = Mutex::new(&mut load.target);
        let load_one = async |artifact: &Artifact| {
            let intake = target.lock().await.load(artifact).await?;
            let folder = self.found.folder();
            let (from, identities) = (&self.found.destination, &self.identities);
            let clean = read_artifact(from, &folder, artifact, identities, intake, meter).await?;
            for warning in clean.warnings() {
                tracing::warn!("{}: {warning}", artifact.name);
            }
            match self.session.cancel.is_cancelled() {
                true => Err(Fault::cancelled("the restore was stopped")),
                false => Ok(()),
            }
        };
        // The others need what the first one defines.
        let (first, rest) = load.artifacts.split_at(load.artifacts.len().min(1));
        for artifact in first {
            load_one(artifact).await?;
        }
        let mut needed = Vec::new();
        for artifact in rest {
            if target.lock().await.needs(artifact).await? {
                needed.push(artifact);
            }
        }
        let rest = stream::iter(needed).map(load_one);
        rest.buffer_unordered(at_once).try_collect::<()>().await?;
        load.target.complete().await?;
        self.look(load).await
    }

    /// Asks a target what it holds, where it can be asked now.
    async fn look(&self, load: &mut Load) -> Result<()> {
        let expected = load.target.expects(&load.facts);
        match load.target.holds(&expected).await? {
            Some(found) => self.compare(&expected, &found),
            None => Ok(()),
        }
    }

    /// What a live database holds that was loaded into. It is in place, and whoever uses it may have written
    /// to it since: a difference is a word, and no failure.
    async fn look_in_place(&self, load: &mut Load) -> Option<String> {
        load.target.overwrites()?;
        // What was erased again is not what was backed up.
        let looked = if load.erasures.is_empty() { self.look(load).await } else { Ok(()) };
        let fault = looked.err()?;
        Some(format!(
            "'{}' is in place and not as it was backed up, unless it was written to since: {fault}",
            load.target.name()
        ))
    }

    /// What was restored, beside what was backed up: nothing else is put in place.
    fn compare(&self, expected: &SourceFacts, found: &SourceFacts) -> Result<()> {
        let compared = compare(expected, found);
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

/// For people: `5 min`, `3 h`, `9 days`.
pub fn age(now: Timestamp, since: Timestamp) -> String {
    let age = now.duration_since(since);
    match age.as_hours() {
        ..2 => format!("{} min", age.as_mins()),
        hours @ 2..48 => format!("{hours} h"),
        hours => format!("{} days", hours / 24),
    }
}
