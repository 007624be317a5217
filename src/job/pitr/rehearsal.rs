//! What a drill of a server recovers to: in turn the end of the log, and some position in it. Knows the
//! log; must not know how a server is asked.

use jiff::Timestamp;

use super::super::{Found, Site};
use super::log::{Log, physical};
use super::{Brought, bring_log};
use crate::fault::Result;
use crate::model::{JobName, Lsn, SourceFacts};
use crate::pipeline::{Identities, Meter};
use crate::source::postgres::physical::DataFolder;
use crate::wal::{Moment, Way};

/// How many drills of the job there were: they take turns.
pub(in crate::job) async fn turn(site: &Site, job: &JobName) -> Result<usize> {
    let all = (Timestamp::UNIX_EPOCH, site.clock.now());
    Ok(site.catalog.drills_between(job, all).await?.len())
}

/// Brings into a drill's data folder what leads to the moment whose turn it is.
pub(in crate::job) async fn rehearse(
    found: &Found,
    facts: &SourceFacts,
    turn: usize,
    folder: &DataFolder,
    identities: &Identities,
    meter: &Meter,
) -> Result<Brought> {
    let log = Log::read(&found.destination, &found.manifest.job, facts).await?;
    let mut way = log.way(facts, &Moment::Latest)?;
    let mut moment = Moment::Latest;
    if turn % 2 == 1 {
        moment = Moment::Lsn(somewhere(&way, uuid::Uuid::new_v4().as_u128(), facts)?);
        way = log.way(facts, &moment)?;
    }
    bring_log(&log, physical(facts)?, &way, &moment, folder, identities, meter).await
}

/// A position of the way, by a number that nobody chose: not in the last segment, so that there is
/// something behind it.
fn somewhere(way: &Way, number: u128, facts: &SourceFacts) -> Result<Lsn> {
    let size = physical(facts)?.segment_bytes;
    let last = way.segments.last().map_or(way.start, |last| last.start(size));
    let room = last.0.saturating_sub(way.start.0);
    let offset = number % (u128::from(room) + 1);
    Ok(Lsn(way.start.0 + u64::try_from(offset).unwrap_or(0)))
}
