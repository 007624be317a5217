//! Every job at a look: health, copies, and the runs under way.

use std::sync::Arc;

use serde::Serialize;

use super::{Job, PlaceRoom, Site, rooms};
use crate::catalog::Run;
use crate::copies::Copies;
use crate::fault::Result;
use crate::health::Report;
use crate::model::JobName;

#[derive(Debug, Serialize)]
pub struct Status {
    #[serde(flatten)]
    pub health: Report,
    /// How each job's newest backup is kept.
    pub copies: Vec<JobCopies>,
    /// Running and waiting ones first, then the newest.
    pub runs: Vec<Run>,
    /// Free space, where it is known.
    pub space: Vec<PlaceRoom>,
    pub unsent_messages: i64,
}

#[derive(Debug, Serialize)]
pub struct JobCopies {
    pub job: JobName,
    #[serde(flatten)]
    pub copies: Copies,
}

const RUNS: i64 = 20;

/// As things stand now.
pub async fn status(site: &Site, jobs: &[Arc<Job>]) -> Result<Status> {
    let mut runs = site.catalog.recent(RUNS).await?;
    runs.sort_by_key(|run| run.state.is_over());
    let mut copies = Vec::new();
    for job in jobs {
        copies.push(JobCopies { job: job.name.clone(), copies: site.copies(job).await? });
    }
    Ok(Status {
        health: site.health(jobs).await?,
        copies,
        runs,
        space: rooms(site, jobs).await?,
        unsent_messages: site.catalog.unsent().await?,
    })
}
