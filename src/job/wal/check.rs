//! Looks through what is stored of a log: whether every base backup has what it needs, and from when to
//! when a recovery can go. Knows destinations and manifests; what a gap is, is decided in `crate::wal`.

use jiff::Timestamp;
use serde::Serialize;

use super::super::{Job, Place, Site};
use super::{Lying, bases, let_go, needed};
use crate::destination::{read_wal, wal_servers};
use crate::fault::{Fault, Result};
use crate::model::{BackupId, Lsn, PhysicalFacts, WalFile, WalGap, chain};
use crate::wal::{Archive, Kept};

/// What was found in all places.
#[derive(Debug, Serialize)]
pub struct Checked {
    pub job: String,
    /// No gap, no conflict, and a base backup to start from, in every place.
    pub ok: bool,
    pub places: Vec<PlaceCheck>,
    /// Gaps that are known and that a new base backup has made good.
    pub recorded_gaps: Vec<WalGap>,
}

/// What was found in one place.
#[derive(Debug, Serialize)]
pub struct PlaceCheck {
    pub destination: String,
    pub system_id: Option<String>,
    pub timelines: Vec<u32>,
    pub bases: Vec<Base>,
    /// What is wrong, each in a sentence.
    pub troubles: Vec<String>,
}

/// A base backup, and how far a recovery from it goes.
#[derive(Debug, Serialize)]
pub struct Base {
    pub id: BackupId,
    /// The backup that it holds only the changes since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<BackupId>,
    /// From here on, in time and position, every moment can be recovered...
    pub from: Timestamp,
    pub from_lsn: Lsn,
    /// ... to here.
    pub to_lsn: Lsn,
    pub timeline: u32,
    /// The log goes on behind what is missing.
    pub ends_in_gap: bool,
    /// The log behind it was let go on purpose (`wal.keep`): it comes to its own end and no further.
    pub own_end_only: bool,
}

/// Looks in every place of the job.
pub async fn check(site: &Site, job: &Job) -> Result<Checked> {
    job.log_or_refuse()?;
    let recorded_gaps = site.catalog.wal_gaps(&job.name).await?;
    let mut places = Vec::new();
    for place in &job.places {
        let found = look(site, job, place, &recorded_gaps).await;
        places.push(found.unwrap_or_else(|fault| PlaceCheck {
            destination: place.destination.name().to_owned(),
            system_id: None,
            timelines: Vec::new(),
            bases: Vec::new(),
            troubles: vec![fault.chain()],
        }));
    }
    let ok = !places.is_empty() && places.iter().all(|place| place.troubles.is_empty());
    Ok(Checked { job: job.name.to_string(), ok, places, recorded_gaps })
}

async fn look(site: &Site, job: &Job, place: &Place, gaps: &[WalGap]) -> Result<PlaceCheck> {
    let destination = place.destination.as_ref();
    let mut bases = bases(destination, &job.name).await?;
    let servers = wal_servers(destination, &job.name).await?;
    let known = site.catalog.wal_progress(&job.name).await?.map(|known| known.system_id);
    let newest = bases.last().map(|base| base.system_id.clone());
    let system_id = known.or(newest).or(servers.last().cloned());
    let Some(system_id) = system_id else {
        return Err(Fault::permanent("there is no log yet").hint("is the daemon running?"));
    };
    bases.retain(|base| base.system_id == system_id);
    let mut troubles = Vec::new();
    let size = bases.first().map(|base| base.kept.facts.segment_bytes);
    let Some(size) = size else {
        troubles.push("there is no base backup that a recovery could start from".to_owned());
        let destination = destination.name().to_owned();
        let (timelines, bases) = Default::default();
        return Ok(PlaceCheck {
            destination,
            system_id: Some(system_id),
            timelines,
            bases,
            troubles,
        });
    };
    let archive = read_wal(destination, &job.name, &system_id, size).await?.archive;
    if let Some(conflict) = archive.conflict() {
        troubles.push(format!("the segment {} is there with two contents", conflict.0.name(size)));
    }
    let oldest = bases.iter().map(|base| base.kept.facts.timeline).min().unwrap_or(1);
    if let Some(timeline) = archive.withheld_after(oldest) {
        let name = WalFile::History { timeline }.stem(size);
        troubles
            .push(format!("{name} is missing: what was written on that timeline can't be reached"));
    }
    let needed = needed(site, place, &system_id, &bases);
    let let_go = site.catalog.fact(&let_go(&job.name, place, &system_id)).await?;
    let let_go: Lsn = let_go.and_then(|text| text.parse().ok()).unwrap_or_default();
    let went = |lsn: Lsn| lsn < let_go || !needed.has(lsn.0 / size.bytes());
    let mut found = Vec::new();
    for Lying { id, kept: Kept { facts, finished, .. }, .. } in &bases {
        let since =
            |id: &BackupId| Some(bases.iter().find(|base| base.id == *id)?.kept.facts.since);
        if let Err(missing) = chain(*id, since) {
            troubles.push(format!(
                "{id} is worth nothing here: {missing}, on which it stands, is gone"
            ));
        }
        let mut base = reach(&archive, *id, *finished, facts);
        if base.ends_in_gap && base.to_lsn >= facts.stop_lsn && went(base.to_lsn) {
            (base.ends_in_gap, base.own_end_only) = (false, true);
        }
        if base.to_lsn < facts.stop_lsn {
            troubles.push(format!(
                "{id} lacks its log: it needs {} to {}, and has it to {}",
                facts.start_lsn, facts.stop_lsn, base.to_lsn
            ));
        } else if base.ends_in_gap && !is_recorded(&base, gaps) {
            troubles.push(format!("behind {id} the log is missing from {} on", base.to_lsn));
        }
        found.push(base);
    }
    // Behind a gap that is known there must be something to start from.
    if let (Some(gap), Some(last)) = (gaps.first(), bases.last())
        && last.kept.facts.start_lsn < gap.to
    {
        troubles.push(format!("there is no base backup behind the gap at {}", gap.from));
    }
    Ok(PlaceCheck {
        destination: destination.name().to_owned(),
        system_id: Some(system_id),
        timelines: archive.timelines().into_iter().collect(),
        bases: found,
        troubles,
    })
}

fn reach(archive: &Archive, id: BackupId, finished: Timestamp, facts: &PhysicalFacts) -> Base {
    let target = archive.newest_through(facts.timeline, facts.stop_lsn);
    let reach = archive.reach(facts.timeline, facts.start_lsn, target);
    Base {
        id,
        since: facts.since,
        from: finished,
        from_lsn: facts.stop_lsn,
        to_lsn: reach.end,
        timeline: reach.timeline,
        ends_in_gap: reach.gap.is_some(),
        own_end_only: false,
    }
}

/// A gap of which people were told, and after which a new base backup was made. Its beginning may lie
/// behind what pieces hold.
fn is_recorded(base: &Base, gaps: &[WalGap]) -> bool {
    gaps.iter().any(|gap| (gap.from..=gap.to).contains(&base.to_lsn))
}
