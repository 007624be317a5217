//! The sources of one backup, each loaded into a place of its own and asked. Knows scratch places and
//! what they answer; must not know why somebody wants to know.

use std::sync::Arc;

use serde::Serialize;

use super::pitr::{Below, Rehearsed, Turn, rehearse};
use super::reading::read_artifact;
use super::{DrillPlan, Found};
use crate::clock::Stopwatch;
use crate::comparison::{TableMatch, compare, expected_of};
use crate::fault::{Fault, FaultKind, Result};
use crate::model::{Artifact, Content, Engine, Replayed, SourceFacts};
use crate::pipeline::{Identities, Meter};
use crate::source::child::{self, Program};
use crate::source::{Scratch, Session, Source, Wanted};
use crate::wal::{Moment, heartbeat};

/// A statement or a program of the job's own, and its answer.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    pub check: String,
    pub ok: bool,
    /// What it said, where it is not as it should be.
    pub said: Option<String>,
}

/// One table of one of the backup's sources.
#[derive(Debug, Serialize)]
pub struct TableResult {
    pub source: String,
    #[serde(flatten)]
    pub table: TableMatch,
}

/// What the sources showed.
#[derive(Default)]
pub(super) struct Outcome {
    /// How long it took to load them all.
    pub seconds: f64,
    pub tables: Vec<TableResult>,
    pub checks: Vec<Checked>,
    pub failures: Vec<String>,
    pub notes: Vec<String>,
}

pub(super) struct Trial<'a> {
    found: &'a Found,
    /// What the backup stands on.
    below: &'a Below,
    identities: &'a Identities,
    plan: &'a DrillPlan,
    meter: &'a Meter,
    /// To which moment a server is recovered.
    turn: Turn,
    outcome: Outcome,
    /// What each statement answered so far: of several databases one has to know it.
    answers: Vec<Option<Result<bool, String>>>,
    /// Kept for programs, which may want to look at all of them.
    kept: Vec<Box<dyn Scratch>>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        (found, below): (&'a Found, &'a Below),
        identities: &'a Identities,
        plan: &'a DrillPlan,
        meter: &'a Meter,
        turn: Turn,
    ) -> Self {
        let answers = vec![None; plan.checks.len()];
        let (outcome, kept) = (Outcome::default(), Vec::new());
        Self { found, below, identities, plan, meter, turn, outcome, answers, kept }
    }

    /// Tries one source. A place that was made for it does not stay, whatever happens.
    pub(super) async fn source(
        &mut self,
        source: Arc<dyn Source>,
        facts: SourceFacts,
        artifacts: Vec<Artifact>,
        session: &Session,
    ) -> Result<()> {
        self.check_is_telling(&facts)?;
        let wanted = Wanted {
            facts: Some(facts.clone()),
            artifacts: artifacts.clone(),
            tag: self.found.manifest.id.to_string().to_lowercase(),
            ..Wanted::default()
        };
        let named = self.plan.server.as_ref().filter(|_| facts.engine == Engine::Postgres);
        let mut scratch = named.unwrap_or(&source).scratch(&wanted, session).await?;
        let tried = self.load_and_ask(scratch.as_mut(), &facts, &artifacts, session).await;
        if tried.is_ok() && !self.plan.programs.is_empty() {
            self.kept.push(scratch);
        } else {
            remove(scratch).await;
        }
        tried
    }

    /// A restore that nothing is compared with proves too little.
    fn check_is_telling(&self, facts: &SourceFacts) -> Result<()> {
        let is_asked = !self.plan.checks.is_empty() || !self.plan.programs.is_empty();
        match facts.engine {
            Engine::Command if self.plan.programs.is_empty() => {
                Err(Fault::unprovable("only a program of yours can tell whether this output is good")
                    .hint("set `programs` in the job's `drill`: they find the file by RESPALDO_PATH"))
            }
            Engine::Postgres | Engine::Mysql | Engine::Sqlite
                if facts.fingerprint.is_none() && !is_asked =>
            {
                Err(Fault::unprovable(format!(
                    "the backup of {} says nothing of its rows: there is nothing to compare with",
                    facts.name
                ))
                .hint("set `fingerprint` on the source to \"auto\" for the next backup, or `checks` in the job's `drill`"))
            }
            _ => Ok(()),
        }
    }

    async fn load_and_ask(
        &mut self,
        scratch: &mut dyn Scratch,
        facts: &SourceFacts,
        artifacts: &[Artifact],
        session: &Session,
    ) -> Result<()> {
        let watch = Stopwatch::start();
        let target = scratch.target();
        target.begin().await?;
        let data_folder = target.data_folder();
        if let Some(folder) = &data_folder {
            self.below.fill(self.found, folder, self.identities, self.meter).await?;
        }
        for artifact in artifacts.iter().filter(|_| data_folder.is_none()) {
            let intake = target.load(artifact).await?;
            let (from, folder) = (&self.found.destination, self.found.folder());
            let read = read_artifact(from, &folder, artifact, self.identities, intake, self.meter);
            for warning in read.await?.warnings() {
                tracing::info!("{}: {warning}", artifact.name);
            }
            if session.cancel.is_cancelled() {
                return Err(Fault::cancelled("the drill was stopped"));
            }
        }
        let rehearsed = match data_folder {
            Some(folder) => {
                let (found, turn) = (self.found, &self.turn);
                Some(rehearse(found, facts, turn, &folder, self.identities, self.meter).await?)
            }
            None => None,
        };
        target.complete().await?;
        let seconds = watch.elapsed().as_secs_f64();
        self.outcome.seconds += seconds;
        tracing::info!("{} is loaded, in {seconds:.1} s", facts.name);
        let loaded: Vec<Content> = artifacts.iter().map(|a| a.content.clone()).collect();
        let expected = expected_of(facts, &loaded);
        if let Some(held) = target.holds(&expected).await? {
            let compared = compare(&expected, &held);
            let named = |text: String| match self.found.manifest.sources.len() {
                1 => text,
                _ => format!("{}: {text}", facts.name),
            };
            self.outcome.failures.extend(compared.failures.into_iter().map(named));
            self.outcome.notes.extend(compared.notes.into_iter().map(named));
            let of_source = |table| TableResult { source: facts.name.clone(), table };
            self.outcome.tables.extend(compared.tables.into_iter().map(of_source));
        }
        if let Some(rehearsed) = rehearsed {
            let replayed = scratch.replayed().await?;
            self.compare_position(rehearsed, replayed);
        }
        self.ask(scratch, facts).await
    }

    /// A server that stopped too early opens all the same, with less in it.
    fn compare_position(&mut self, rehearsed: Rehearsed, replayed: Option<Replayed>) {
        let Rehearsed { moment, beat, brought } = rehearsed;
        let Outcome { notes, failures, .. } = &mut self.outcome;
        notes.extend(brought.said);
        let reaches = brought.reaches;
        let Some(replayed) = replayed else {
            failures.push("the server has replayed nothing".to_owned());
            return;
        };
        let at = replayed.lsn;
        let too_far = matches!(brought.moment, Moment::Lsn(_)) && at > reaches;
        if at < reaches || too_far {
            failures
                .push(format!("the server was recovered to {at}, and {moment} lies at {reaches}"));
        } else {
            notes.push(format!("recovered to {moment}: {at}"));
        }
        // By the word of two servers, and not by what we read in the log.
        match heartbeat::contradiction(&moment, beat.as_ref(), &replayed) {
            Some(contradiction) => failures.push(contradiction),
            None => notes.extend(beat.map(|beat| heartbeat::proof(&beat, &replayed))),
        }
    }

    async fn ask(&mut self, scratch: &mut dyn Scratch, facts: &SourceFacts) -> Result<()> {
        if matches!(facts.engine, Engine::Files | Engine::Command) {
            return Ok(());
        }
        for (sql, answer) in self.plan.checks.iter().zip(&mut self.answers) {
            if matches!(answer, Some(Ok(true))) {
                continue;
            }
            match scratch.check(sql).await {
                Ok(is_true) => *answer = Some(Ok(is_true)),
                Err(fault) if fault.kind() == FaultKind::Cancelled => return Err(fault),
                // What another database has answered is more than that this one can't.
                Err(fault) => drop(answer.get_or_insert(Err(fault.chain()))),
            }
        }
        Ok(())
    }

    /// Runs the job's programs beside all that was loaded.
    pub(super) async fn ask_programs(&mut self, session: &Session) -> Result<()> {
        let manifest = &self.found.manifest;
        for words in &self.plan.programs {
            let Some((name, arguments)) = words.split_first() else { continue };
            let shown = words.join(" ");
            let Some(path) = child::locate(name) else {
                let what = format!("the program '{name}' is not installed here");
                let hint = format!("write its whole path; looked in {}", child::PATH);
                return Err(Fault::unprovable(what).hint(hint));
            };
            let mut program = Program::new(path)
                .args(arguments)
                .env("RESPALDO_JOB", manifest.job.as_str())
                .env("RESPALDO_ID", manifest.id.to_string());
            // Of two that say the same, the first source is meant: the last word counts.
            for (key, value) in self.kept.iter().rev().flat_map(|kept| kept.environment()) {
                program = program.env(key, value);
            }
            let said = match child::output(program, session.cancel.clone()).await {
                Ok(_) => None,
                Err(fault) if fault.kind() == FaultKind::Cancelled => return Err(fault),
                Err(fault) => Some(fault.chain()),
            };
            self.note(shown, said);
        }
        Ok(())
    }

    fn note(&mut self, check: String, said: Option<String>) {
        if let Some(said) = &said {
            self.outcome.failures.push(format!("the check '{check}': {said}"));
        }
        self.outcome.checks.push(Checked { check, ok: said.is_none(), said });
    }

    /// Removes what was kept, and gives what was found. `all`: it came to its end, and what was not
    /// answered until now never will be.
    pub(super) async fn over(mut self, all: bool) -> Outcome {
        for scratch in std::mem::take(&mut self.kept) {
            remove(scratch).await;
        }
        for (sql, answer) in self.plan.checks.iter().zip(std::mem::take(&mut self.answers)) {
            let said = match answer {
                Some(Ok(true)) => None,
                Some(Ok(false)) => Some("it is not true".to_owned()),
                Some(Err(said)) => Some(said),
                None if !all => continue,
                None => Some("there is no database to ask".to_owned()),
            };
            self.note(sql.clone(), said);
        }
        self.outcome
    }
}

async fn remove(scratch: Box<dyn Scratch>) {
    if let Err(fault) = scratch.remove().await {
        tracing::warn!("{}: the next start clears it away", fault.chain());
    }
}
