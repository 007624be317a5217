//! `respaldo prune`: the plan with its reasons, and the doing.

use std::sync::Arc;

use super::args::Prune;
use super::{Desk, Exit, output};
use crate::fault::{Context, Fault, Result};
use crate::job::{self, Job, PruneOptions, Pruned};
use crate::lock::Lock;

pub(super) async fn prune(desk: &Desk, wanted: Prune) -> Result<Exit> {
    let jobs: Vec<Arc<Job>> = match &wanted.job {
        Some(name) => vec![desk.app.job(name)?.clone()],
        None => desk.app.jobs.clone(),
    };
    let options =
        PruneOptions { dry_run: wanted.dry_run, confirmed: wanted.yes, adopt: wanted.adopt };
    let mut all = Vec::new();
    let mut exit = Exit::Done;
    for job in &jobs {
        let site = &desk.app.site;
        let lock = Lock::try_take(&site.job_lock(&job.name)).context("lock the job")?;
        if lock.is_none() && !wanted.dry_run {
            return Err(Fault::transient(format!("job '{}' is running", job.name))
                .hint("try again when it is done; it prunes by itself"));
        }
        for place in &job.places {
            match job::prune(site, job, place, options).await {
                Ok(pruned) => {
                    if pruned.held.is_some() && !wanted.dry_run {
                        exit = Exit::Failed;
                    }
                    all.push(pruned);
                }
                Err(fault) => {
                    output::fault(&fault);
                    exit = Exit::Failed;
                }
            }
        }
    }
    if wanted.json {
        output::json(&all)?;
    } else {
        print(&all, wanted.dry_run)?;
    }
    tell(&all);
    Ok(exit)
}

fn print(all: &[Pruned], dry_run: bool) -> Result<()> {
    let mut rows = Vec::new();
    for pruned in all {
        for decision in &pruned.decisions {
            let planned = dry_run || pruned.held.is_some();
            let retained = pruned.retained.iter().find(|retained| retained.id == decision.id);
            let word = match retained {
                Some(retained) => retained.words(),
                None if decision.keep => "keep".to_owned(),
                None if pruned.append_only => "stays (append_only)".to_owned(),
                None if planned => "would delete".to_owned(),
                None => "deleted".to_owned(),
            };
            rows.push(vec![
                pruned.job.to_string(),
                pruned.destination.clone(),
                decision.id.to_string(),
                word,
                decision.reasons.join(", "),
            ]);
        }
    }
    output::table(&["JOB", "ON", "ID", "PLAN", "WHY"], rows)
}

/// What a person must know of it, whoever reads the plan.
fn tell(all: &[Pruned]) {
    for pruned in all {
        if let Some(held) = pruned.held {
            output::say(&format!(
                "{} on {}: nothing is deleted: {}\nhint: {}",
                pruned.job,
                pruned.destination,
                held.reason(),
                held.next_step()
            ));
        }
        pruned.warnings.iter().for_each(|warning| output::say(&format!("warning: {warning}")));
    }
}
