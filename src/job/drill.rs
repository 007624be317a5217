//! A drill: the newest backup of a job loaded into a place of its own, compared with what its source
//! held, and only then called proven. Knows what has to be right; must not know an engine.

mod mark;
mod report;

pub use report::reports;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::messages::tell_of_drill;
use super::pitr::{Below, turn};
use super::proof::{self, Opened};
use super::record::{Ending, recorded};
use super::restore::{check_signature, is_loaded};
use super::trial::{Checked, TableResult, Trial};
use super::{Choice, Control, DrillPlan, Found, Job, Place, Site, Spool, find};
use crate::catalog::Drill as Record;
use crate::destination::Destination;
use crate::fault::{Fault, FaultKind, Result};
use crate::model::{Artifact, BackupId, JobName, RunId, RunKind, RunState, SourceFacts};
use crate::pipeline::Identities;
use crate::source::{Session, Source};

/// How long a drill that is told to stop may take to clear up behind itself.
const STOPPING: std::time::Duration = std::time::Duration::from_secs(15);

/// What is to be drilled.
#[derive(Clone)]
pub struct DrillRequest {
    pub job: JobName,
    pub choice: Choice,
    /// Where it may come from, with how old the newest one there may be; the first that has it.
    pub from: Vec<(Arc<dyn Destination>, Option<SignedDuration>)>,
    pub plan: Option<DrillPlan>,
    /// What a person gave to open it; else the plan's is looked for.
    pub identities: Identities,
    /// Take a manifest that no known key signed.
    pub trust: bool,
}

impl DrillRequest {
    /// The next one of a job: from the destination that was drilled longest ago, of those that can be read.
    pub async fn next(site: &Site, job: &Job) -> Result<Self> {
        let last = site.catalog.last_drills(&job.name).await?;
        let mut places: Vec<&Place> = job.places.iter().collect();
        places.sort_by_key(|place| {
            let name = place.destination.name();
            (place.destination.is_frozen(), last.get(name).copied().unwrap_or(Timestamp::MIN))
        });
        Ok(Self::of(job, places.into_iter().take(1)))
    }

    /// Of a job, from these of its destinations.
    pub fn of<'a>(job: &'a Job, places: impl IntoIterator<Item = &'a Place>) -> Self {
        let from = places
            .into_iter()
            .map(|place| (place.destination.clone(), place.max_age(job.max_age)))
            .collect();
        Self {
            job: job.name.clone(),
            choice: Choice::Latest,
            from,
            plan: job.drill.clone(),
            identities: Identities::default(),
            trust: false,
        }
    }

    /// Of a job that no config here knows.
    pub fn without_config(job: JobName) -> Self {
        let (choice, identities) = (Choice::Latest, Identities::default());
        Self { job, choice, from: Vec::new(), plan: None, identities, trust: false }
    }
}

/// What a drill found.
#[derive(Debug, Default, Serialize)]
pub struct Drilled {
    pub job: String,
    pub id: Option<BackupId>,
    pub destination: String,
    pub run: i64,
    pub at: Timestamp,
    pub proven: bool,
    /// Why it can't be held here, and what would help; then nothing was found wrong, and nothing proven.
    pub unprovable: Option<String>,
    /// How long it took to load: what a restore would take here.
    pub seconds: f64,
    pub age_seconds: Option<i64>,
    pub max_age_seconds: Option<i64>,
    pub tables: Vec<TableResult>,
    pub checks: Vec<Checked>,
    /// What is wrong, each in a sentence.
    pub failures: Vec<String>,
    pub notes: Vec<String>,
    /// The file of the readable report; the JSON lies beside it.
    pub report: Option<String>,
    #[serde(skip)]
    hint: Option<String>,
}

impl Drilled {
    pub fn rows(&self) -> u64 {
        let held = self.tables.iter().filter_map(|table| table.table.found.as_ref());
        held.map(|held| held.rows).sum()
    }

    /// The first thing that keeps it from being proven.
    pub fn trouble(&self) -> Option<&str> {
        self.failures.first().or(self.unprovable.as_ref()).map(String::as_str)
    }

    /// The next step, where there is one.
    pub fn next_step(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Takes a fault in: what can't be tried here is not wrong.
    fn note_fault(&mut self, fault: Fault) -> Result<()> {
        match fault.kind() {
            FaultKind::Cancelled => return Err(fault),
            FaultKind::Unprovable | FaultKind::Archived => self.unprovable = Some(fault.chain()),
            _ => self.failures.push(fault.chain()),
        }
        if self.hint.is_none() {
            self.hint = fault.next_step().map(str::to_owned);
        }
        Ok(())
    }
}

/// Holds a drill as a run of its own. The caller holds the job's drill lock. `choose` says through
/// what each source would be restored; nothing of it is connected to. An error means that it did not
/// come to an end; what is not proven is told in [`Drilled`].
pub async fn drill(
    site: &Arc<Site>,
    run: RunId,
    request: &DrillRequest,
    choose: impl Fn(&SourceFacts) -> Result<Arc<dyn Source>>,
    control: &Control,
) -> Result<Drilled> {
    let found = look(site, request).await;
    let id = found.as_ref().ok().map(|found| found.manifest.id);
    let ending = |drilled: &Drilled| Ending {
        state: if drilled.proven { RunState::Succeeded } else { RunState::Failed },
        error: drilled.trouble().map(str::to_owned),
        hint: drilled.hint.clone(),
        warnings: drilled.notes.clone(),
    };
    let work = async {
        let spool = Spool::create(site, &format!("run-{run}"), control)?;
        let mut drilled = Drilled {
            job: request.job.to_string(),
            run: run.0,
            at: site.clock.now(),
            destination: request.from.first().map_or("", |(from, _)| from.name()).to_owned(),
            ..Drilled::default()
        };
        match found {
            Ok(found) => {
                let work = Work { site, request, choose: &choose, control };
                work.within_deadline(found, &spool, &mut drilled).await?;
            }
            Err(fault) => drilled.note_fault(fault)?,
        }
        record(site, request, run, &mut drilled).await?;
        Ok(drilled)
    };
    let drilled =
        recorded(site, (&request.job, run, RunKind::Drill), id, control, work, ending).await?;
    tell_of_drill(site, &request.job, run, &drilled).await?;
    Ok(drilled)
}

async fn look(site: &Site, request: &DrillRequest) -> Result<Found> {
    let from: Vec<_> = request.from.iter().map(|(from, _)| from.clone()).collect();
    find(&from, &request.job, request.choice, &site.trusted).await
}

/// The report, and the catalog's own memory.
async fn record(
    site: &Site,
    request: &DrillRequest,
    run: RunId,
    drilled: &mut Drilled,
) -> Result<()> {
    match report::write(site, drilled) {
        Ok(path) => tracing::info!("the report is {}", path.display()),
        Err(fault) => drilled.notes.push(format!("there is no report: {}", fault.chain())),
    }
    let record = Record {
        job: request.job.clone(),
        backup: drilled.id,
        destination: drilled.destination.clone(),
        run,
        at: drilled.at,
        proven: drilled.proven,
        seconds: drilled.seconds,
        tables: drilled.tables.len() as u64,
        rows: drilled.rows(),
        failure: drilled.trouble().map(str::to_owned),
    };
    site.catalog.add_drill(&record).await
}

struct Work<'a, C> {
    site: &'a Arc<Site>,
    request: &'a DrillRequest,
    choose: &'a C,
    control: &'a Control,
}

impl<C: Fn(&SourceFacts) -> Result<Arc<dyn Source>>> Work<'_, C> {
    async fn within_deadline(
        &self,
        found: Found,
        spool: &Spool,
        drilled: &mut Drilled,
    ) -> Result<()> {
        // The deadline stops the work, and is no word of a person.
        let cancel = self.control.cancel.child_token();
        let session = Session { cancel: cancel.clone(), ..spool.session().clone() };
        let plan = self.request.plan.as_ref();
        let limit = plan.map(|plan| plan.deadline);
        let late = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let done = {
            let mut work = Box::pin(self.hold(found, &session, drilled));
            let done = tokio::select! {
                done = &mut work => Some(done),
                () = late => None,
                () = self.control.cancel.cancelled() => None,
            };
            match done {
                Some(done) => Some(done),
                None => {
                    cancel.cancel();
                    tokio::time::timeout(STOPPING, work).await.ok()
                }
            }
        };
        match done {
            _ if self.control.cancel.is_cancelled() => {
                Err(Fault::cancelled("the drill was stopped"))
            }
            _ if cancel.is_cancelled() => drilled.note_fault(
                Fault::permanent(format!(
                    "the drill took longer than its deadline of {:?}",
                    limit.unwrap_or_default()
                ))
                .hint("raise `deadline` in the job's `drill`, or find out what is slow"),
            ),
            Some(Err(fault)) => drilled.note_fault(fault),
            _ => Ok(()),
        }
    }

    /// Everything that has to be right, in the order of what it costs to find out.
    async fn hold(&self, mut found: Found, session: &Session, drilled: &mut Drilled) -> Result<()> {
        let (site, request) = (self.site, self.request);
        drilled.id = Some(found.manifest.id);
        drilled.destination = found.destination.name().to_owned();
        let _lease = found.lease(&site.data_dir)?;
        self.check_age(&found, drilled);
        drilled.notes.extend(check_signature(&found, request.trust)?);
        let identities = self.identities()?;
        open(&mut found, &identities).await?;
        let below = self.below(&found, &identities, session, drilled).await?;
        let _leases = below.leases(&site.data_dir)?;
        let loads = sources(&found);
        if loads.is_empty() {
            return Err(Fault::permanent("there is nothing in the backup that could be loaded"));
        }
        let all = loads.iter().flat_map(|(_, artifacts)| artifacts);
        let total: u64 = all.map(|artifact| artifact.plain_bytes).sum();
        self.control.add_total(Some(total + below.read_bytes()));
        let empty = DrillPlan::only_when_asked();
        let plan = request.plan.as_ref().unwrap_or(&empty);
        let turn = turn(site, &request.job).await?;
        let mut trial = Trial::new((&found, &below), &identities, plan, &self.control.meter, turn);
        let mut tried = Ok(());
        for (facts, artifacts) in loads {
            tried = trial.source((self.choose)(&facts)?, facts, artifacts, session).await;
            if tried.is_err() {
                break;
            }
        }
        if tried.is_ok() {
            tried = trial.ask_programs(session).await;
        }
        let outcome = trial.over(tried.is_ok()).await;
        drilled.seconds = outcome.seconds;
        drilled.tables = outcome.tables;
        drilled.checks = outcome.checks;
        drilled.failures.extend(outcome.failures);
        drilled.notes.extend(outcome.notes);
        tried?;
        drilled.proven = drilled.failures.is_empty() && drilled.unprovable.is_none();
        if drilled.proven
            && let Err(fault) = mark::write(site, &found, drilled).await
        {
            let name = found.destination.name();
            drilled.notes.push(format!("the proof is not on '{name}': {}", fault.chain()));
        }
        Ok(())
    }

    /// What an incremental backup stands on, ready to be read; what can't be put together here is not
    /// wrong.
    async fn below(
        &self,
        found: &Found,
        identities: &Identities,
        session: &Session,
        drilled: &mut Drilled,
    ) -> Result<Below> {
        let mut below = Below::find(found, &self.site.trusted).await?;
        let warnings = below.check_signatures(self.request.trust)?;
        drilled.notes.extend(warnings);
        drilled.notes.dedup();
        below.open(identities).await.map_err(|fault| unprovable(&fault))?;
        let prepared = below.prepare(found, &self.site.bin_dirs, &session.cancel).await;
        prepared.map_err(|fault| {
            let hint = fault.next_step().unwrap_or_default().to_owned();
            Fault::unprovable(fault.chain()).hint(hint)
        })?;
        Ok(below)
    }

    /// A drill that passes on an old backup would hide that no new one comes.
    fn check_age(&self, found: &Found, drilled: &mut Drilled) {
        let age = drilled.at.duration_since(found.manifest.id.started());
        drilled.age_seconds = Some(age.as_secs());
        if self.request.choice != Choice::Latest {
            return;
        }
        let name = found.destination.name();
        let allowed = self.request.from.iter().find(|(from, _)| from.name() == name);
        let Some(most) = allowed.and_then(|(_, most)| *most) else { return };
        drilled.max_age_seconds = Some(most.as_secs());
        if age > most {
            drilled.failures.push(format!(
                "the newest backup on '{name}' is {}: {} old, and the job allows {}",
                found.manifest.id,
                hours(age),
                hours(most)
            ));
        }
    }

    fn identities(&self) -> Result<Identities> {
        let given = &self.request.identities;
        match self.request.plan.as_ref().filter(|_| given.is_empty()) {
            None => Ok(given.clone()),
            Some(plan) => {
                let read = plan.unlock.read(("drill.identity_file", "drill.passphrase_file"));
                read.map_err(|fault| unprovable(&fault))
            }
        }
    }
}

fn hours(span: SignedDuration) -> String {
    match span.as_mins() {
        minutes @ ..120 => format!("{minutes} min"),
        minutes => format!("{:.1} h", minutes as f64 / 60.0),
    }
}

/// The same, but as something that is missing here and not wrong there.
fn unprovable(fault: &Fault) -> Fault {
    Fault::unprovable(fault.chain()).hint(
        "set `drill.identity_file` (or `passphrase_file`) on the job, or run `respaldo drill JOB --from URL --identity FILE` on a host that has the key",
    )
}

/// Opens what is encrypted, all of it.
async fn open(found: &mut Found, identities: &Identities) -> Result<()> {
    let opened = proof::open(found, identities).await?;
    if opened == Opened::Shut {
        proof::stays_shut(&found.manifest, identities).map_err(|fault| unprovable(&fault))?;
        let what = "the proof of the backup is encrypted to others: nothing could be compared";
        return Err(unprovable(&Fault::unprovable(what)));
    }
    let loaded = found.manifest.artifacts.iter().filter(|artifact| is_loaded(artifact));
    proof::check(loaded, identities).map_err(|fault| unprovable(&fault))
}

/// What is loaded, by source.
fn sources(found: &Found) -> Vec<(SourceFacts, Vec<Artifact>)> {
    let manifest = &found.manifest;
    let of = |n: usize| {
        let of_source = manifest.artifacts.iter().filter(move |artifact| artifact.source == n);
        of_source.filter(|artifact| is_loaded(artifact)).cloned().collect::<Vec<_>>()
    };
    let loads = manifest.sources.iter().enumerate().map(|(n, facts)| (facts.clone(), of(n)));
    loads.filter(|(_, artifacts)| !artifacts.is_empty()).collect()
}
