//! What exists beside that which is backed up, and is in no job: a new database on the server, a
//! volume that somebody mounted. Knows jobs; what lies beside a source the source says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Job, Site};
use crate::source::Neighbour;

/// How long a server may take to say what it has.
const ANSWER: Duration = Duration::from_secs(10);

/// A sentence for each. A source that does not answer will fail in its own time, with its own words.
pub async fn uncovered(site: &Site, jobs: &[Arc<Job>]) -> Vec<String> {
    let mut covered: BTreeMap<Neighbour, bool> = BTreeMap::new();
    for source in jobs.iter().flat_map(|job| &job.sources) {
        let asked = tokio::time::timeout(ANSWER, source.beside()).await;
        for (neighbour, is_taken) in asked.into_iter().flatten().flatten() {
            *covered.entry(neighbour).or_default() |= is_taken;
        }
    }
    // Where backups and the catalog are is not to be backed up.
    let own: Vec<PathBuf> = jobs
        .iter()
        .flat_map(|job| &job.places)
        .filter_map(|place| Some(place.destination.place().strip_prefix("file://")?.into()))
        .chain([site.data_dir.clone()])
        .collect();
    let is_own = |neighbour: &Neighbour| match neighbour {
        Neighbour::Volume(folder) => own.iter().any(|own| own.starts_with(folder)),
        Neighbour::Database { .. } => false,
    };
    covered
        .into_iter()
        .filter(|(neighbour, is_taken)| !is_taken && !is_own(neighbour))
        .map(|(neighbour, _)| format!("{neighbour} is in no job: if it is lost, no backup has it"))
        .collect()
}
