//! What a drill of a server recovers to: in turn the end of the log, and some moment before it. Knows the log,
//! and what the server said of itself while it lived; must not know how a server is asked.

use jiff::Timestamp;

use super::super::wal::heartbeats;
use super::super::{Found, Site};
use super::log::{Log, physical};
use super::{Brought, bring_log};
use crate::fault::Result;
use crate::model::{Heartbeat, Heartbeats, JobName, Lsn, SourceFacts};
use crate::pipeline::{Identities, Meter};
use crate::source::postgres::physical::DataFolder;
use crate::wal::Moment;
use crate::wal::heartbeat::{any_of, last_before, passed};

/// Whose turn it is.
pub(in crate::job) struct Turn {
    /// How many drills of the job there were.
    number: usize,
    heartbeats: Heartbeats,
}

/// What a server was brought to, and what it is held against.
pub(in crate::job) struct Rehearsed {
    pub moment: Moment,
    /// It must have come as far as this.
    pub beat: Option<Heartbeat>,
    pub brought: Brought,
}

/// The next drill of the job: they take turns.
pub(in crate::job) async fn turn(site: &Site, job: &JobName) -> Result<Turn> {
    let all = (Timestamp::UNIX_EPOCH, site.clock.now());
    let number = site.catalog.drills_between(job, all).await?.len();
    Ok(Turn { number, heartbeats: heartbeats(site, job).await? })
}

/// Brings into a drill's data folder what leads to the moment whose turn it is.
pub(in crate::job) async fn rehearse(
    found: &Found,
    facts: &SourceFacts,
    turn: &Turn,
    folder: &DataFolder,
    identities: &Identities,
    meter: &Meter,
) -> Result<Rehearsed> {
    let log = Log::read(&found.destination, &found.manifest.job, facts).await?;
    let mut way = log.way(facts, &Moment::Latest)?;
    let beats: Vec<Heartbeat> = match facts.system_id.as_ref() == Some(&turn.heartbeats.system_id) {
        true => passed(&turn.heartbeats.beats, &way).copied().collect(),
        false => Vec::new(),
    };
    let number = uuid::Uuid::new_v4().as_u128();
    let (moment, beat) = match (turn.number % 2, any_of(&beats, number)) {
        (0, _) => (Moment::Latest, last_before(&beats, way.end)),
        // Nothing of what was committed until then may be missing, and nothing later may be there.
        (_, Some(beat)) => (Moment::Time(beat.at), Some(beat)),
        (_, None) => match (way.segments.first(), way.segments.last()) {
            (Some(first), Some(last)) => {
                let size = physical(facts)?.segment_bytes;
                (Moment::Lsn(somewhere(first.start(size), last.start(size), number)), None)
            }
            _ => (Moment::Latest, None),
        },
    };
    way = log.way(facts, &moment)?;
    let physical = physical(facts)?;
    let brought = bring_log(&log, physical, &way, &moment, folder, identities, meter).await?;
    Ok(Rehearsed { moment, beat, brought })
}

/// A position from `first` to `last`, by a number that nobody chose. Behind the start of the last segment
/// there may be nothing.
fn somewhere(first: Lsn, last: Lsn, number: u128) -> Lsn {
    let room = u128::from(last.0.saturating_sub(first.0)) + 1;
    Lsn(first.0 + u64::try_from(number % room).unwrap_or(0))
}
