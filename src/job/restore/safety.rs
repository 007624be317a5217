//! The backup that is made of what a restore is about to overwrite. It counts for nothing else: not as
//! the latest, not for health, not for a drill.

use std::sync::Arc;

use super::super::backup::{backup, free_id};
use super::super::guide::quote;
use super::super::{Control, Job, Site, Spool};
use super::Restore;
use crate::fault::{Context, Fault, Result};
use crate::model::BackupKind;
use crate::source::Source;

/// Makes one for each restore that overwrites something; nothing is overwritten without. Says how each
/// comes back.
pub(super) async fn backups_before(
    site: &Site,
    jobs: &[Arc<Job>],
    restores: &[Restore],
    control: &Control,
) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for restore in restores {
        let overwritten = restore.overwrites();
        if !overwritten.is_empty() {
            let job = jobs.iter().find(|job| job.name == restore.found.manifest.job);
            lines.push(backup_before(site, job, overwritten, control).await?);
        }
    }
    Ok(lines)
}

async fn backup_before(
    site: &Site,
    job: Option<&Arc<Job>>,
    overwritten: Vec<Arc<dyn Source>>,
    control: &Control,
) -> Result<String> {
    let job = job.ok_or_else(|| {
        Fault::usage("a restore in place needs a job in the config, for its safety backup").hint(
            "name the config that backs this database up, or restore beside it with --database",
        )
    })?;
    // The config may have another name for what is overwritten, or none.
    let elsewhere = overwritten
        .iter()
        .map(|source| source.name())
        .find(|name| job.sources.iter().all(|source| source.name() != *name));
    let job = &Job { sources: overwritten, ..Job::clone(job) };
    let id = free_id(site, job).await;
    let control = Control::new(&control.cancel);
    let spool = Spool::create(site, &format!("safety-{id}"), &control)?;
    let label = Some("before a restore".to_owned());
    let made = backup(site, job, (id, BackupKind::Safety, label), spool.session(), &control).await;
    let made = made.context("make a safety backup of what is there")?;
    let where_to: Vec<&str> = made
        .deliveries
        .iter()
        .filter(|(_, fault)| fault.is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    tracing::info!("the safety backup {id} is on {}", where_to.join(", "));
    let name = elsewhere.map(|name| format!(" --database {}", quote(&name)));
    Ok(format!(
        "what was there is the backup {id}: `respaldo restore {} {id} --in-place{}` brings it back",
        job.name,
        name.unwrap_or_default()
    ))
}
