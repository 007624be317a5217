//! An incremental base backup from both ends: before it is made, what it stands on, or why it has to be a
//! full one; afterwards, the list of its files, kept for the next. Knows the catalog, the server and the
//! places; the rules are in `crate::chain`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::reading::read_artifact;
use super::{ChainPlan, Choice, Found, Job, Outcome, Place, Site, find};
use crate::catalog::{Finish, Known};
use crate::chain::{self as rules, Newest, Server, Step};
use crate::destination::{Destination, list_backups};
use crate::durable::{self, Draft, Existing};
use crate::fault::{Context, Fault, Result};
use crate::model::{
    BackupId, Content, JobName, Manifest, PhysicalFacts, RunId, RunState, SourceFacts, chain,
};
use crate::pipeline::{Identities, Meter};
use crate::signature::Verdict;
use crate::source::postgres::physical::{INCREMENTAL_FROM, Physical, Primary, manifest_in};
use crate::source::{Intake, Since};

impl Job {
    /// The server whose changes it backs up, and when; or a clear error.
    pub fn chain_or_refuse(&self) -> Result<(&Physical, &ChainPlan)> {
        let physical = self.sources.iter().find_map(|source| source.physical());
        physical.zip(self.incremental.as_ref()).ok_or_else(|| {
            Fault::usage(format!("job '{}' makes no incremental backups", self.name)).hint(
                "add incremental = \"0 */4 * * *\" to it; its source must have kind = \"physical\"",
            )
        })
    }
}

/// What a new base backup stands on.
pub(super) struct Ground {
    pub since: Option<Since>,
    /// Why it stands on nothing, though it was to.
    pub why: Option<String>,
    /// What it stands on, the full one first.
    pub below: Vec<BackupId>,
    /// Destinations that lack some of that, and so can't take it.
    pub lacking: Vec<String>,
}

impl Ground {
    /// Of a backup that is whole.
    pub(super) fn none() -> Self {
        Self { since: None, why: None, below: Vec::new(), lacking: Vec::new() }
    }

    /// The destinations that can take what stands on it.
    pub(super) fn places(&self, job: &Job) -> Vec<Place> {
        let can =
            |place: &&Place| !self.lacking.iter().any(|name| name == place.destination.name());
        job.places.iter().filter(can).cloned().collect()
    }

    /// Those that can't, each with what it lacks.
    pub(super) fn lacks(&self) -> impl Iterator<Item = (String, Option<Fault>)> {
        self.lacking.iter().map(|name| {
            let what = "it has not all of what this incremental backup stands on";
            let fault =
                Fault::transient(what).hint("`respaldo sync` brings both there, in their order");
            (name.clone(), Some(fault))
        })
    }
}

/// Why an incremental run makes nothing here, as a sentence: by what the log's keeper saw of the server.
pub async fn knows_no_incremental(site: &Site, job: &Job) -> Result<Option<String>> {
    let known = site.catalog.wal_progress(&job.name).await?;
    Ok(known.and_then(|known| known.major).and_then(|major| too_old(&job.name, major)))
}

/// As [`knows_no_incremental`], by asking the server. One that does not answer is told of by the backup.
pub(super) async fn asks_in_vain(job: &Job) -> Result<Option<String>> {
    let (physical, _) = job.chain_or_refuse()?;
    let Ok(primary) = Primary::connect(physical).await else { return Ok(None) };
    let major = primary.major;
    primary.close().await;
    Ok(too_old(&job.name, major))
}

fn too_old(job: &JobName, major: u32) -> Option<String> {
    (major < INCREMENTAL_FROM).then(|| {
        format!(
            "PostgreSQL {major} makes no incremental base backups: of '{job}' the log since the last full backup is what is incremental"
        )
    })
}

/// A run that ends well without a backup, and says why.
pub(super) async fn nothing_to_do(site: &Site, run: RunId, why: String) -> Result<Outcome> {
    tracing::info!("{why}");
    let finish = Finish {
        state: RunState::Succeeded,
        error: None,
        hint: None,
        warnings: vec![why.clone()],
        deliveries: Vec::new(),
    };
    site.catalog.finish(run, &finish, site.clock.now()).await?;
    fs::remove_file(site.run_lock(run)).ok();
    let (made, fault, pruned) = (None, None, Vec::new());
    Ok(Outcome { run, state: RunState::Succeeded, made, fault, pruned, note: Some(why) })
}

/// What an incremental backup needs of the server, for `config check`: a word about what it has, or what it
/// lacks with the SQL that mends it.
pub async fn look_at_server(job: &Job) -> Result<Option<String>> {
    let Ok((physical, _)) = job.chain_or_refuse() else { return Ok(None) };
    let primary = Primary::connect(physical).await?;
    let (major, summarizes) = (primary.major, primary.summarizes);
    primary.close().await;
    if let Some(said) = too_old(&job.name, major) {
        return Ok(Some(said));
    }
    match summarizes {
        true => Ok(Some("the server notes which blocks change".to_owned())),
        false => Err(Fault::permanent(
            "the server's summarize_wal is off: each incremental backup will be a full one",
        )
        .hint("ALTER SYSTEM SET summarize_wal = 'on'; SELECT pg_reload_conf();")),
    }
}

/// Looks for what the next backup may stand on. It is made in any case: where nothing holds, as a full one.
pub(super) async fn ground(site: &Site, job: &Job, known: &[Known]) -> Result<Ground> {
    let (physical, plan) = job.chain_or_refuse()?;
    let primary = Primary::connect(physical).await?;
    let server = Server {
        system_id: primary.system_id.clone(),
        timeline: primary.timeline,
        checksums: primary.checksums,
        summarizes: primary.summarizes,
    };
    primary.close().await;
    let last = known.iter().find(|known| known.manifest.kind.counts());
    let facts = last.and_then(|last| facts_of(&last.manifest));
    let Some((last, facts, physical)) = last.zip(facts).map(|(l, (f, p))| (l, f, p)) else {
        let Step::Full(why) = rules::next(None, &server, &[], plan.most) else {
            return Ok(Ground::none());
        };
        return Ok(Ground { why: Some(why.to_string()), ..Ground::none() });
    };
    let id = last.manifest.id;
    let all = chain_of(known, id);
    let has = having(job, known, all.as_deref().unwrap_or_default()).await;
    let listed = listed_at(site, job, &last.manifest).await;
    let newest = Newest {
        id,
        system_id: facts.system_id.as_deref(),
        facts: physical,
        length: all.as_ref().ok().map(|all| all.len() - 1),
        places: has.len(),
        listed: listed.is_some(),
    };
    let gaps = site.catalog.wal_gaps(&job.name).await?;
    let step = rules::next(Some(newest), &server, &gaps, plan.most);
    let (Step::On(id), Some(manifest)) = (&step, listed) else {
        let why = match step {
            Step::Full(why) => why.to_string(),
            Step::On(id) => rules::Why::Unlisted(id).to_string(),
        };
        return Ok(Ground { why: Some(why), ..Ground::none() });
    };
    let mut below = all.unwrap_or_default();
    below.reverse();
    let names = job.places.iter().map(|place| place.destination.name());
    let lacking = names.filter(|name| !has.contains(*name)).map(str::to_owned).collect();
    let (start_lsn, timeline) = (physical.start_lsn, physical.timeline);
    let since = Some(Since { id: *id, start_lsn, timeline, manifest });
    Ok(Ground { since, why: None, below, lacking })
}

fn facts_of(manifest: &Manifest) -> Option<(&SourceFacts, &PhysicalFacts)> {
    manifest.sources.iter().find_map(|facts| Some((facts, facts.physical.as_ref()?)))
}

/// A backup and what it stands on, as the catalog knows them.
pub(super) fn chain_of(known: &[Known], id: BackupId) -> Result<Vec<BackupId>, BackupId> {
    let find = |id: &BackupId| known.iter().find(|known| known.manifest.id == *id);
    chain(id, |id| Some(find(id)?.manifest.stands_on()))
}

/// The destinations that have all of these, by the catalog and by what lies there.
async fn having(job: &Job, known: &[Known], all: &[BackupId]) -> BTreeSet<String> {
    let believed = |place: &&Place| {
        let name = place.destination.name();
        all.iter().all(|id| {
            let copies = known.iter().filter(|known| known.manifest.id == *id);
            copies.flat_map(|known| &known.copies).any(|copy| copy.destination == name)
        })
    };
    let mut has = BTreeSet::new();
    for place in job.places.iter().filter(believed) {
        let asking = list_backups(place.destination.as_ref(), &job.name);
        match tokio::time::timeout(job.stall, asking).await {
            Ok(Ok(there)) if all.iter().all(|id| there.contains(id)) => {
                has.insert(place.destination.name().to_owned());
            }
            Ok(Err(fault)) => {
                tracing::warn!("destination '{}': {}", place.destination.name(), fault.chain());
            }
            _ => {}
        }
    }
    has
}

/// Where the lists of the job's newest backups are kept.
fn shelf(site: &Site, job: &JobName) -> PathBuf {
    site.data_dir.join("chains").join(job.as_str())
}

/// PostgreSQL's list of a backup's files: as it was kept, or from a destination where it can be read.
async fn listed_at(site: &Site, job: &Job, manifest: &Manifest) -> Option<PathBuf> {
    let path = shelf(site, &job.name).join(manifest.id.to_string());
    if path.is_file() {
        return Some(path);
    }
    let is_list = |content: &Content| *content == Content::BackupManifest;
    let artifact = manifest.artifacts.iter().find(|artifact| is_list(&artifact.content))?;
    // Whoever could read it here could read all backups.
    if artifact.encryption.is_some() {
        return None;
    }
    let all: Vec<Arc<dyn Destination>> =
        job.places.iter().map(|place| place.destination.clone()).collect();
    let fetched = async {
        let found = find(&all, &job.name, Choice::Id(manifest.id), &site.trusted).await?;
        fetch(&found, &path).await
    };
    match fetched.await {
        Ok(()) => Some(path),
        Err(fault) => {
            tracing::warn!("the backup_manifest of {}: {}", manifest.id, fault.chain());
            None
        }
    }
}

/// A new installation does not know the key of the one before it; what nobody signed is not believed.
async fn fetch(found: &Found, path: &Path) -> Result<()> {
    if matches!(found.signature, Verdict::Missing | Verdict::Broken) {
        return Err(Fault::permanent("its manifest is not as it was signed"));
    }
    let is_list = |content: &Content| *content == Content::BackupManifest;
    let artifact = found.manifest.artifacts.iter().find(|artifact| is_list(&artifact.content));
    let artifact = artifact.ok_or_else(|| Fault::permanent("it is not among its files"))?;
    let doing = "keep the backup_manifest";
    path.parent().map(durable::create_folder).transpose().context(doing)?;
    let mut draft = Draft::create(path).context(doing)?;
    let intake = Intake::file(draft.file().try_clone().context(doing)?);
    let (identities, meter) = (Identities::default(), Meter::default());
    let from = &found.destination;
    read_artifact(from, &found.folder(), artifact, &identities, intake, &meter).await?;
    draft.publish(Existing::Replace).context(doing)
}

/// Keeps the list of a backup that is about to be committed. Of one that was read without it nothing is
/// kept: the next is a full one.
pub(super) fn keep(site: &Site, job: &Job, id: &BackupId, spool: &Path) -> Result<()> {
    let doing = "keep the backup_manifest";
    let read = match fs::File::open(manifest_in(spool)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.context(doing)?,
    };
    let path = shelf(site, &job.name).join(id.to_string());
    path.parent().map(durable::create_folder).transpose().context(doing)?;
    let mut draft = Draft::create(&path).context(doing)?;
    io::copy(&mut io::BufReader::new(read), draft.file()).context(doing)?;
    draft.file().flush().context(doing)?;
    draft.publish(Existing::Replace).context(doing)
}

/// The backup `id` is committed: the lists of those before it go. Nothing else stands on them.
pub(super) fn forget_others(site: &Site, job: &Job, id: &BackupId) {
    let kept = id.to_string();
    for entry in fs::read_dir(shelf(site, &job.name)).into_iter().flatten().flatten() {
        if entry.file_name() != kept.as_str() {
            fs::remove_file(entry.path()).ok();
        }
    }
}
