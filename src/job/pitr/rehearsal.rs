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
use crate::wal::Moment;

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
    if let (1, Some(first), Some(last)) = (turn % 2, way.segments.first(), way.segments.last()) {
        let size = physical(facts)?.segment_bytes;
        let number = uuid::Uuid::new_v4().as_u128();
        moment = Moment::Lsn(somewhere(first.start(size), last.start(size), number));
        way = log.way(facts, &moment)?;
    }
    bring_log(&log, physical(facts)?, &way, &moment, folder, identities, meter).await
}

/// A position from `first` to `last`, by a number that nobody chose. Behind the start of the last segment
/// there may be nothing.
fn somewhere(first: Lsn, last: Lsn, number: u128) -> Lsn {
    let room = u128::from(last.0.saturating_sub(first.0)) + 1;
    Lsn(first.0 + u64::try_from(number % room).unwrap_or(0))
}
