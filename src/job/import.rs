//! The dumps of an old script taken in: each file becomes a backup, its bytes kept as they are, its
//! digests computed, its manifest signed; where the job's rules would keep it. Knows files and
//! destinations; what a file is, is told in `recognise`.

pub(super) mod examine;
mod recognise;
mod stamp;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures::future::join_all;
use serde::Serialize;
use tokio::sync::mpsc;

use super::commit::{Draft, commit, mark_owner};
use super::delivery::{Delivery, within};
use super::leftovers::clear;
use super::select::lease_path;
use super::watch::IMPORTED;
use super::{Control, Job, Site, proof};
use crate::catalog::Known;
use crate::destination::{Destination, Key, list_backups};
use crate::fault::{Context, Fault, Result};
use crate::lock::Lock;
use crate::model::manifest::FORMAT;
use crate::model::{
    Artifact, BackupId, BackupKind, Compression, Content, Engine, Manifest, SourceFacts, VERSION,
};
use crate::pipeline::{Encoding, Seal, encode};
use crate::retention::{self, Candidate};
use crate::source::{Clean, given};
use examine::{Dump, Not, examine};

/// Pieces between the file and the destinations.
const PIECES: usize = 4;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    pub dry_run: bool,
    /// Delete a file once every destination that wants it has it.
    pub move_files: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportState {
    /// A dry run found that it would be.
    Importable,
    Imported,
    /// It is there already.
    Known,
    /// No destination would keep it.
    Unwanted,
    /// Nothing that is imported.
    Left,
    /// Damaged, encrypted, or not as its digest says.
    Refused,
    /// Some or all destinations do not have it.
    Failed,
}

/// What became of one file.
#[derive(Debug, Serialize)]
pub struct Imported {
    pub file: String,
    pub state: ImportState,
    pub id: Option<BackupId>,
    /// Those that have it now, or would have it.
    pub destinations: Vec<String>,
    pub stored_bytes: u64,
    /// Why it is not imported, or not everywhere.
    pub reason: Option<String>,
}

/// A dump that will be a backup.
struct Item {
    /// Of its line in the report.
    index: usize,
    dump: Dump,
    /// What the job calls what was dumped: where a restore goes.
    source: String,
    id: BackupId,
}

/// Imports the files of a folder, oldest first. The caller holds the job's lock.
pub async fn import(
    site: &Site,
    job: &Job,
    folder: &Path,
    options: &ImportOptions,
    control: &Control,
) -> Result<Vec<Imported>> {
    let (now, zone) = (site.clock.now(), job.schedule.zone());
    let known = site.catalog.backups(Some(&job.name)).await?;
    let mut taken = taken_ids(job, &known).await?;
    let mut digests: BTreeMap<String, BackupId> = known
        .iter()
        .flat_map(|known| known.manifest.artifacts.iter().map(|a| (a, &known.manifest)))
        .map(|(artifact, manifest)| match artifact.encryption {
            None => (artifact.stored_sha256.to_string(), manifest.id),
            Some(_) => (name_and_size(manifest.source_of(artifact), artifact), manifest.id),
        })
        .collect();
    let mut report = Vec::new();
    let mut items = Vec::new();
    for examined in examine(folder, now, zone, &control.meter).await? {
        let mut line = Imported {
            file: examined.name,
            state: ImportState::Left,
            id: None,
            destinations: Vec::new(),
            stored_bytes: 0,
            reason: None,
        };
        match examined.dump {
            Err(Not::Left(why)) => line.reason = Some(why),
            Err(Not::Refused(why)) => {
                (line.state, line.reason) = (ImportState::Refused, Some(why));
            }
            Ok(dump) => {
                line.stored_bytes = dump.stored_bytes;
                let encrypted = format!("{} {}", tool(&dump), dump.plain_bytes);
                let same = digests.get(&dump.stored_sha256.to_string());
                line.id = same.or_else(|| digests.get(&encrypted)).copied();
                if line.id.is_some() {
                    line.state = ImportState::Known;
                } else {
                    let source = match source_of(job, &line.file, dump.engine) {
                        Ok(source) => source,
                        Err(why) => {
                            line.reason = Some(why);
                            report.push(line);
                            continue;
                        }
                    };
                    let mut id = BackupId::at(dump.made_at);
                    while !taken.insert(id) {
                        id = id.bump();
                    }
                    digests.insert(dump.stored_sha256.to_string(), id);
                    line.id = Some(id);
                    items.push(Item { index: report.len(), dump, source, id });
                }
            }
        }
        report.push(line);
    }
    items.sort_by_key(|item| item.id);
    let wanted = wanted(site, job, &known, &items);
    for item in &items {
        let line = &mut report[item.index];
        let taking: Vec<String> = wanted
            .iter()
            .filter(|(_, ids)| ids.contains(&item.id))
            .map(|(name, _)| name.clone())
            .collect();
        if taking.is_empty() {
            line.state = ImportState::Unwanted;
            line.reason = Some("no rule of any destination would keep it".to_owned());
            line.id = None;
        } else if options.dry_run {
            (line.state, line.destinations) = (ImportState::Importable, taking);
        } else if control.cancel.is_cancelled() {
            (line.state, line.reason) = (ImportState::Failed, Some("stopped".to_owned()));
        } else {
            take_in(site, job, item, &taking, options, control, line).await;
        }
    }
    Ok(report)
}

/// What the job calls what was dumped; of several databases the one that the file's name speaks of.
fn source_of(job: &Job, file: &str, engine: Engine) -> Result<String, String> {
    let of_kind: Vec<String> = job
        .sources
        .iter()
        .filter(|source| source.engine() == engine)
        .map(|source| source.name())
        .collect();
    let named = of_kind.iter().find(|name| file.contains(*name));
    match (named, of_kind.as_slice()) {
        (Some(name), _) => Ok(name.clone()),
        (None, [one]) => Ok(one.clone()),
        (None, []) => {
            let ours: BTreeSet<&str> = job.sources.iter().map(|s| s.engine().as_str()).collect();
            let ours = ours.into_iter().collect::<Vec<_>>().join(" and ");
            Err(format!("it is a backup of {}, and this job's are of {ours}", engine.as_str()))
        }
        (None, several) => Err(format!(
            "its name does not say of which it is: this job's are of {}",
            several.join(", ")
        )),
    }
}

/// Every id that some destination has a folder for.
async fn taken_ids(job: &Job, known: &[Known]) -> Result<BTreeSet<BackupId>> {
    let listings = job.places.iter().map(async |place| {
        let destination = place.destination.as_ref();
        within(job.stall, list_backups(destination, &job.name))
            .await
            .map_err(|fault| (place, fault))
    });
    let mut taken: BTreeSet<BackupId> = known.iter().map(|known| known.manifest.id).collect();
    for listing in join_all(listings).await {
        match listing {
            Ok(ids) => taken.extend(ids),
            // It fails in its own words when something is brought there.
            Err((place, fault)) => {
                tracing::warn!("destination '{}': {}", place.destination.name(), fault.chain());
            }
        }
    }
    Ok(taken)
}

/// Which of the items each destination would keep.
fn wanted(
    site: &Site,
    job: &Job,
    known: &[Known],
    items: &[Item],
) -> BTreeMap<String, BTreeSet<BackupId>> {
    let candidate = |id, kind, pinned, proven| Candidate {
        id,
        kind,
        // Dumps are, and so are those of a job that takes them in.
        since: None,
        pinned,
        leased: false,
        proven,
        retained: false,
    };
    let missing: Vec<Candidate> =
        items.iter().map(|item| candidate(item.id, BackupKind::Full, false, false)).collect();
    let wanted = job.places.iter().map(|place| {
        let name = place.destination.name();
        let there = known.iter().filter_map(|known| {
            let copy = known.copies.iter().find(|copy| copy.destination == name)?;
            Some(candidate(known.manifest.id, known.manifest.kind, copy.pinned, copy.proven))
        });
        let there: Vec<Candidate> = there.collect();
        let (now, zone) = (site.clock.now(), job.schedule.zone());
        let ids = retention::wanted(&place.policy, &there, &missing, now, zone);
        (name.to_owned(), ids.into_iter().collect())
    });
    wanted.collect()
}

/// One file to the destinations that want it, and what became of it into its line.
async fn take_in(
    site: &Site,
    job: &Job,
    item: &Item,
    taking: &[String],
    options: &ImportOptions,
    control: &Control,
    line: &mut Imported,
) {
    let mut job = job.clone();
    job.places.retain(|place| taking.iter().any(|name| name == place.destination.name()));
    // An import that was killed left it, for its id is the file's own time.
    clear_all(site, &job, item).await;
    let delivered = deliver(site, &job, item, control).await;
    let failed = match delivered {
        Ok(delivered) => {
            let stored = delivered.iter().filter(|(_, fault)| fault.is_none());
            line.destinations = stored.map(|(name, _)| name.clone()).collect();
            let failed = delivered.into_iter().filter_map(|(name, f)| Some((name, f?.chain())));
            failed.map(|(name, why)| format!("'{name}': {why}")).collect::<Vec<_>>().join("; ")
        }
        Err(fault) => fault.chain(),
    };
    if !failed.is_empty() {
        (line.state, line.reason) = (ImportState::Failed, Some(failed));
        clear_all(site, &job, item).await;
        return;
    }
    line.state = ImportState::Imported;
    if options.move_files {
        for path in item.dump.sums.iter().chain([&item.dump.path]) {
            if let Err(error) = fs::remove_file(path) {
                line.reason = Some(format!("{} could not be deleted: {error}", path.display()));
            }
        }
    }
}

/// Clears away what lies in the backup's folders and is none.
async fn clear_all(site: &Site, job: &Job, item: &Item) {
    for place in &job.places {
        let destination = place.destination.as_ref();
        let clearing = async {
            match destination.list(&Key::backup(&job.name, &item.id)).await?.files.as_slice() {
                [] => Ok(()),
                _ => clear(site, job, destination, Some(&item.id)).await,
            }
        };
        if let Err(fault) = within(job.stall, clearing).await {
            tracing::warn!("leftovers stay on '{}': {}", destination.name(), fault.chain());
        }
    }
}

/// Streams the file as it is, and commits where all of it arrived. An error: nowhere.
async fn deliver(
    site: &Site,
    job: &Job,
    item: &Item,
    control: &Control,
) -> Result<Vec<(String, Option<Fault>)>> {
    let (dump, id) = (&item.dump, item.id);
    // Its folder belongs to no run that is known: nobody else may take it for a leftover.
    let lease =
        Lock::try_share(&lease_path(&site.data_dir, &job.name, &id)).context("take a lease")?;
    let _lease = lease.ok_or_else(|| Fault::transient(format!("{id} is in use")))?;
    let destinations: Vec<Arc<dyn Destination>> =
        job.places.iter().map(|place| place.destination.clone()).collect();
    let folder = Key::backup(&job.name, &id);
    let delivery = Delivery::start(&destinations, folder, job.stall, 1, &control.cancel);
    let streamed = stream(job, dump, &delivery, control).await;
    let outcomes = delivery.finish().await;
    let (artifact, clean) = streamed?;
    let mut manifest = Manifest {
        format: FORMAT,
        job: job.name.clone(),
        id,
        kind: BackupKind::Full,
        label: Some(IMPORTED.to_owned()),
        sources: vec![SourceFacts {
            tool: Some(tool(dump)),
            ..SourceFacts::named(dump.engine, &item.source)
        }],
        started_at: id.started(),
        finished_at: id.started(),
        artifacts: vec![artifact],
        proof: None,
        warnings: Vec::new(),
        suspect: false,
        respaldo: VERSION.to_owned(),
    };
    let private = proof::private_files(site, job, &mut manifest)?;
    let draft = Draft::new(site, &manifest, &[], &[clean], private)?;
    let commits = outcomes.into_iter().map(async |(name, outcome)| {
        let committed = async {
            let destination = job.place(&name)?.destination.as_ref();
            let receipt = outcome?;
            within(job.stall, mark_owner(site, job, destination)).await?;
            within(job.stall, commit(&draft, &receipt, destination)).await?;
            site.catalog.add_copy(&manifest, &name, &[]).await
        };
        let fault = committed.await.err();
        (name, fault)
    });
    Ok(join_all(commits).await)
}

async fn stream(
    job: &Job,
    dump: &Dump,
    delivery: &Delivery,
    control: &Control,
) -> Result<(Artifact, Clean)> {
    let file = line_of(&dump.path);
    let (mut name, stem) = recognise::artifact_name(&file, dump.format, dump.compression);
    let seal = job.encoding.seal.as_ref();
    name.push_str(seal.map_or("", Seal::suffix));
    let flow = given::part(dump.path.clone(), &stem, dump.format).open().await?;
    // As it is: neither compressed again nor changed, but encrypted where the job's backups are.
    let encoding = Encoding { compression: Compression::None, level: None, ..job.encoding.clone() };
    let (out, pieces) = mpsc::channel(PIECES);
    let encoding = tokio::task::spawn_blocking({
        let (name, control, reader) = (name.clone(), control.clone(), flow.reader);
        move || encode(reader, &name, &encoding, out, &control.meter, &control.cancel)
    });
    let mut lane = delivery.lane();
    lane.carry(&name, pieces).await;
    let encoded = encoding.await.context("read").flatten();
    let exit = flow.exit.wait().await;
    lane.end(encoded.is_ok() && exit.is_ok()).await;
    let (encoded, clean) = (encoded?, exit?);
    if encoded.plain_sha256 == dump.stored_sha256 {
        let artifact = Artifact {
            name,
            source: 0,
            content: Content::Whole,
            format: dump.format,
            compression: dump.compression,
            encryption: seal.map(|seal| seal.encryption().clone()),
            plain_bytes: dump.plain_bytes,
            unpacked_bytes: None,
            plain_sha256: Some(dump.plain_sha256),
            stored_bytes: encoded.stored_bytes,
            stored_sha256: encoded.stored_sha256,
            volumes: encoded.volumes,
        };
        return Ok((artifact, clean));
    }
    Err(Fault::transient(format!("{file} changed after it was examined")))
}

/// Where it came from, as its manifest says it.
fn tool(dump: &Dump) -> String {
    format!("imported from {}", line_of(&dump.path))
}

/// What tells an import from another once its digest is of what is encrypted.
fn name_and_size(facts: &SourceFacts, artifact: &Artifact) -> String {
    format!("{} {}", facts.tool.as_deref().unwrap_or_default(), artifact.plain_bytes)
}

/// The file's name, on one line.
fn line_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}
