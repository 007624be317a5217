//! What exists beside that which is backed up, and is in no job: a new database on the server, a
//! volume that somebody mounted. Knows jobs; what lies beside a source the source says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Job, Site};
/// How long a server may take to say what it has.
const ANSWER: Duration = Duration::from_secs(10);

/// A sentence for each. A source that does not answer will fail in its own time, with its own words.
pub async fn uncovered(site: &Site, jobs: &[Arc<Job>]) -> Vec<String> {
    let mut covered: BTreeMap<String, bool> = BTreeMap::new();
    for source in jobs.iter().flat_map(|job| &job.sources) {
        let asked = tokio::time::timeout(ANSWER, source.beside()).await;
        for (what, is_taken) in asked.into_iter().flatten().flatten() {
            *covered.entry(what).or_default() |= is_taken;
        }
    }
    // Where backups and the catalog are is not to be backed up.
    let own: Vec<String> = jobs
        .iter()
        .flat_map(|job| &job.places)
        .filter_map(|place| Some(place.destination.place().strip_prefix("file://")?.to_owned()))
        .chain([site.data_dir.display().to_string()])
        .collect();
    let is_own = |what: &str| {
        let folder = what.strip_prefix("the volume ").map(Path::new);
        folder.is_some_and(|folder| own.iter().any(|own| Path::new(own).starts_with(folder)))
    };
    covered
        .into_iter()
        .filter(|(what, is_taken)| !is_taken && !is_own(what))
        .map(|(what, _)| format!("{what} is in no job: if it is lost, no backup has it"))
        .collect()
}
