//! Recovery to a moment: a data folder made of a base backup and the log after it, from which a stock
//! server recovers by itself. Everything that may be missing is looked for before anything is written,
//! and all of the log is there, and whole, before a server is let near it.

mod base;
mod chain;
mod log;
mod rehearsal;

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use super::backup::{bytes, count};
use super::proof::{self, Opened};
use super::record::{Ending, recorded};
use super::restore::{age, check_signature, signature_words};
use super::{Choice, Control, Job, Site};
use crate::destination::Destination;
use crate::fault::{Context, Fault, Result};
use crate::model::{JobName, Lsn, PhysicalFacts, RunId, RunKind, RunState};
use crate::pipeline::{Identities, Meter};
use crate::source::Session;
use crate::source::postgres::physical::{DataFolder, Space};
use crate::wal::{Moment, RecordKind, Records, Way};
use base::{Base, find_base};
use log::{Fetched, Log, fetched_to, physical};

pub(super) use chain::Below;
pub(super) use rehearsal::{Rehearsed, Turn, rehearse, turn};

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct PitrRequest {
    pub job: JobName,
    /// The base backup, where a person named one.
    pub choice: Choice,
    pub moment: Moment,
    pub data_dir: PathBuf,
    /// Where each tablespace goes, by its oid.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// Whom the files are given to.
    pub owner: Option<(u32, u32)>,
    /// Take a manifest that no known key signed.
    pub trust: bool,
    /// How many files of the log are fetched at once.
    pub at_once: Option<usize>,
    pub identities: Identities,
}

/// A recovery that was planned and not begun.
pub struct Pitr {
    base: Base,
    moment: Moment,
    folder: DataFolder,
    identities: Identities,
    warnings: Vec<String>,
}

impl Pitr {
    /// Looks at both ends and changes nothing.
    pub async fn plan(
        destinations: &[Arc<dyn Destination>],
        request: &PitrRequest,
        (trusted, bin_dirs): (&[String], &[PathBuf]),
        session: &Session,
    ) -> Result<Self> {
        let absolute =
            |path: &PathBuf| std::path::absolute(path).context(format!("find {}", path.display()));
        let mut spaces = BTreeMap::new();
        for (oid, path) in &request.tablespaces {
            let folder = absolute(path)?;
            spaces.insert(*oid, Space { called: folder.clone(), folder });
        }
        let folder = DataFolder {
            path: absolute(&request.data_dir)?,
            spaces,
            owner: request.owner,
            cancel: session.cancel.clone(),
        };
        let (job, moment) = (&request.job, request.moment.clone());
        let mut base = find_base(destinations, job, request.choice, &moment, trusted).await?;
        base.log.at_once = request.at_once.unwrap_or(base.log.at_once);
        let mut warnings = check_signature(&base.found, request.trust)?;
        let identities = request.identities.clone();
        if proof::open(&mut base.found, &identities).await? == Opened::Shut {
            warnings.push(proof::stays_shut(&base.found.manifest, &identities)?);
        }
        proof::check(base.found.manifest.artifacts.iter(), &identities)?;
        let below = &mut base.below;
        warnings.extend(below.check_signatures(request.trust)?);
        warnings.extend(below.open(&identities).await?);
        warnings.sort();
        warnings.dedup();
        below.prepare(&base.found, bin_dirs, &session.cancel).await?;
        folder.check(physical(&base.facts)?)?;
        if !base.found.manifest.kind.counts() {
            warnings.push(format!(
                "it is of the kind '{}', and no better one leads there",
                base.found.manifest.kind.as_str()
            ));
        }
        warnings.extend(base.found.manifest.warnings.iter().cloned());
        Ok(Self { base, moment, folder, identities, warnings })
    }

    /// What will happen, line by line.
    pub fn lines(&self, site: &Site) -> Result<Vec<String>> {
        let Base { found, below, facts, way, .. } = &self.base;
        let manifest = &found.manifest;
        let physical = physical(facts)?;
        let age = age(site.clock.now(), manifest.id.started());
        let timeline = match way.is_same {
            true => format!("on timeline {}", way.timeline),
            false => format!("from timeline {} to {}", physical.timeline, way.timeline),
        };
        let segments = count(way.segments.len() as u64);
        let free = self.folder.free_bytes();
        let mut lines = vec![
            format!("recover {} to {}", manifest.job, self.moment),
            format!("base backup {} ({age} old): {}", manifest.id, facts.name),
            format!("from '{}' {}", found.destination.name(), found.destination.place()),
            signature_words(&found.signature).to_owned(),
            format!(
                "the log leads from {} ({}) to {}, {timeline}",
                way.start,
                manifest.finished_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
                way.end
            ),
            format!(
                "{} of files, {segments} segments of the log ({})",
                bytes(manifest.plain_bytes() + below.plain_bytes()),
                bytes(self.log_bytes()),
            ),
            format!(
                "into {} ({} free)",
                self.folder.path.display(),
                free.map_or("an unknown number of bytes".to_owned(), bytes)
            ),
        ];
        if let Some(full) = below.full() {
            let others = below.len();
            let most = bytes(self.needed_bytes());
            lines.insert(2, format!(
                "it stands on {others} other(s), down to the full backup {full}: put together, all of it takes {most} for a while"
            ));
        }
        for space in &physical.tablespaces {
            if let Some(to) = self.folder.spaces.get(&space.oid) {
                let (from, to) = (&space.location, to.folder.display());
                lines.push(format!("tablespace {} from {from} to {to}", space.oid));
            }
        }
        if let Some(gap) = way.gap {
            let gap = gap.name(physical.segment_bytes);
            lines.push(format!(
                "warning: segment {gap} of the log is missing: what lies behind it can't be reached"
            ));
        }
        lines.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        lines.extend(self.obstacle().map(|obstacle| format!("obstacle: {obstacle}")));
        Ok(lines)
    }

    fn log_bytes(&self) -> u64 {
        let segment = physical(&self.base.facts).map_or(0, |facts| facts.segment_bytes.bytes());
        self.base.way.segments.len() as u64 * segment
    }

    /// How much passes when all of it is read.
    pub fn read_bytes(&self) -> u64 {
        let Base { found, below, .. } = &self.base;
        found.manifest.read_bytes() + below.read_bytes() + self.log_bytes()
    }

    /// How much there is of it at the most: the stages of a chain go once they are put together.
    fn needed_bytes(&self) -> u64 {
        let Base { found, below, .. } = &self.base;
        let unpacked = found.manifest.plain_bytes() + below.plain_bytes() + self.log_bytes();
        unpacked + below.combined_bytes(found)
    }

    fn obstacle(&self) -> Option<String> {
        let (wanted, free) = (self.needed_bytes(), self.folder.free_bytes()?);
        let place = self.folder.path.display();
        (free < wanted)
            .then(|| format!("{place} has {} free, and {} are wanted", bytes(free), bytes(wanted)))
    }

    /// Refuses what can't go well, before anybody is asked.
    pub fn check(&self) -> Result<()> {
        match self.obstacle() {
            None => Ok(()),
            Some(obstacle) => Err(Fault::usage(obstacle).hint("nothing was written")),
        }
    }

    /// What a person types to confirm.
    pub fn target_name(&self) -> String {
        self.folder.path.display().to_string()
    }

    /// For the audit: which backup, from where, to which moment.
    pub fn words(&self) -> String {
        let found = &self.base.found;
        let (job, id) = (&found.manifest.job, found.manifest.id);
        format!("{job} {id} from {} to {}", found.destination.name(), self.moment)
    }

    /// As [`run`](Self::run), as a run of the job.
    pub async fn run_as(
        self,
        site: &Arc<Site>,
        job: &Job,
        run: RunId,
        control: &Control,
    ) -> Result<Vec<String>> {
        control.add_total(Some(self.read_bytes()));
        let of = (&job.name, run, RunKind::Restore);
        let id = self.base.found.manifest.id;
        let ending = |said: &Vec<String>| Ending {
            state: RunState::Succeeded,
            error: None,
            hint: None,
            warnings: said.clone(),
        };
        recorded(site, of, Some(id), control, self.run(site, control), ending).await
    }

    /// Carries out what was planned, and says what a person should know.
    pub async fn run(self, site: &Site, control: &Control) -> Result<Vec<String>> {
        self.check()?;
        let Base { found, below, facts, log, way } = &self.base;
        let physical = physical(facts)?;
        let _lease = (found.lease(&site.data_dir)?, below.leases(&site.data_dir)?);
        let (folder, identities, meter) = (&self.folder, &self.identities, &control.meter);
        folder.begin()?;
        below.fill(found, folder, identities, meter).await?;
        let brought = tokio::select! {
            brought = bring_log(log, physical, way, &self.moment, folder, identities, meter) => brought?,
            () = control.cancel.cancelled() => {
                return Err(Fault::cancelled("the recovery was stopped"));
            }
        };
        let mut said = brought.said;
        let version = facts.server_version.as_deref().unwrap_or_default();
        let major = version.split(['.', ' ']).next().unwrap_or_default();
        let place = folder.path.display();
        if let Some((user, group)) = folder.belongs_to() {
            said.push(format!("{place} is ready, and belongs to {user}:{group}"));
        }
        said.push(format!(
            "start PostgreSQL {major} on it: it recovers to {}, and then opens for writing; its log says how far it came",
            self.moment
        ));
        said.push(format!(
            "for example: docker run -d -e PGDATA=/var/lib/postgresql/data -v {place}:/var/lib/postgresql/data postgres:{major}"
        ));
        Ok(said)
    }
}

/// What a recovery will come to.
pub(super) struct Brought {
    /// What the server is told, where the log holds it.
    pub moment: Moment,
    /// The end of the last record that it replays.
    pub reaches: Lsn,
    pub said: Vec<String>,
}

/// The base backup is in the folder: brings the log in, asks it whether the moment is in it, and
/// completes the folder.
pub(super) async fn bring_log(
    log: &Log,
    physical: &PhysicalFacts,
    way: &Way,
    moment: &Moment,
    folder: &DataFolder,
    identities: &Identities,
    meter: &Meter,
) -> Result<Brought> {
    folder.settle()?;
    log.fetch(way, folder, identities, meter).await?;
    let (physical, way) = (physical.clone(), way.clone());
    let (moment, folder) = (moment.clone(), folder.clone());
    let completing = tokio::task::spawn_blocking(move || {
        let mut brought = look(&folder, &physical, &way, moment)?;
        let timeline = (!way.is_same).then_some(way.timeline);
        brought.said.extend(folder.finish(&physical, &brought.moment, timeline)?);
        Ok(brought)
    });
    completing.await.context("complete the data folder")?
}

/// Whether the moment is in the log: a server that looks for it in vain would not open.
fn look(
    folder: &DataFolder,
    physical: &PhysicalFacts,
    way: &Way,
    moment: Moment,
) -> Result<Brought> {
    let size = physical.segment_bytes;
    let (mut reaches, mut last, mut points) = (way.start, None, Vec::new());
    let mut is_there = false;
    if let Some(first) = way.segments.first() {
        // The server ended the segment before, when the backup was over.
        reaches = first.start(size);
        let input = BufReader::with_capacity(1 << 20, Fetched::new(folder, way, size));
        let mut records = Records::new(input, first.start(size), fetched_to(way, size), size);
        while let Some(record) = records.next_record().context("read the log")? {
            is_there = match (&moment, &record.kind) {
                (Moment::Lsn(lsn), _) => record.start >= *lsn,
                (Moment::Time(time), RecordKind::Ended(at)) => at > time,
                _ => false,
            };
            if is_there {
                break;
            }
            reaches = record.end;
            match record.kind {
                RecordKind::Ended(at) => last = Some(at),
                RecordKind::RestorePoint(name) if moment == Moment::Name(name.clone()) => {
                    is_there = true;
                    break;
                }
                RecordKind::RestorePoint(name) => points.push(name),
                _ => {}
            }
        }
        // The last segment may end anywhere. Before it a server would end its recovery as if all were well.
        let last = way.segments.last().map_or(Lsn(0), |last| last.start(size));
        if let Some(at) = records.broken().filter(|at| *at < last) {
            return Err(Fault::permanent(format!(
                "the log can't be read on at {at}, and there is more behind it"
            ))
            .hint(format!("--to-lsn {reaches} comes as far as that; or try another destination")));
        }
    }
    if is_there || moment == Moment::Latest {
        return Ok(Brought { moment, reaches, said: Vec::new() });
    }
    let last = match last {
        Some(last) => {
            format!("its last transaction ended at {}", last.strftime("%Y-%m-%d %H:%M:%S%.3f UTC"))
        }
        None => "it holds no transaction from after the base backup".to_owned(),
    };
    match &moment {
        Moment::Name(name) => {
            points.reverse();
            points.truncate(10);
            let known = match points.is_empty() {
                true => "it has none".to_owned(),
                false => format!("it has, newest first: {}", points.join(", ")),
            };
            Err(Fault::usage(format!(
                "the log from this base backup on has no restore point '{name}'"
            ))
            .hint(format!(
                "{known}; one from before needs an older base backup: restore JOB ID --to-name"
            )))
        }
        // All that is before the position is there, and nothing behind it would stop a server.
        Moment::Lsn(_) => Ok(Brought { moment: Moment::Latest, reaches, said: Vec::new() }),
        _ if way.gap.is_some() || way.withheld.is_some() => {
            let what = match way.withheld {
                Some(timeline) => format!(
                    "{moment} may lie on timeline {timeline}, whose history is missing: before it {last}"
                ),
                None => format!("{moment} lies behind a gap of the log: before the gap {last}"),
            };
            Err(Fault::permanent(what)
                .hint("name an earlier moment, or a base backup from after the gap"))
        }
        // What lies behind the end is not there, whatever is asked for: so all there is.
        _ => {
            let said = vec![format!(
                "nothing in the log is later than {moment}: {last}; all of it is recovered"
            )];
            Ok(Brought { moment: Moment::Latest, reaches, said })
        }
    }
}
