//! A server that is backed up whole, and how its log is kept. Knows which keys make no sense there; must
//! not connect.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::{Desk, postgres};
use crate::config::file::{FileSource, FileWal};
use crate::config::settings::{Incremental, Physical, Source, Wal};
use crate::config::units;
use crate::fault::Result;
use crate::retention::Policy;

/// How old what is not stored yet may become.
const MAX_LAG: SignedDuration = SignedDuration::from_mins(15);
/// So many incremental backups may follow a full one.
const MAX_CHAIN: usize = 24;
/// How often what is being written is stored.
const EVERY: Duration = Duration::from_secs(5);

pub(super) fn source(
    desk: &mut Desk<'_>,
    key: &str,
    url: &str,
    written: FileSource,
) -> Result<Source> {
    let logical = [
        ("format", written.format.is_some()),
        ("databases", written.databases.is_some()),
        ("schemas", written.schemas.is_some()),
        ("exclude_tables", written.exclude_tables.is_some()),
        ("exclude_rows", written.exclude_rows.is_some()),
        ("streams", written.streams.is_some()),
        ("streams_above", written.streams_above.is_some()),
        ("fingerprint", written.fingerprint.is_some()),
        ("globals", written.globals.is_some()),
    ];
    if let Some((name, _)) = logical.iter().find(|(_, given)| *given) {
        return Err(desk
            .refuse(&format!("{key}.{name}"), "with kind = \"physical\" the server is taken whole")
            .hint("remove it"));
    }
    let allow_unbounded_slot = written.allow_unbounded_slot.unwrap_or(false);
    let server_compression = written.server_compression.unwrap_or(true);
    let server = postgres::resolve(desk, key, url, written)?;
    Ok(Source::Physical(Physical { server, allow_unbounded_slot, server_compression }))
}

/// When only the changes are backed up; `None`: never.
pub(super) fn incremental(
    desk: &Desk<'_>,
    key: &impl Fn(&str) -> String,
    sources: &[Source],
    (lines, most): (Option<Vec<String>>, Option<usize>),
    (zone, jitter): (&TimeZone, SignedDuration),
) -> Result<Option<Incremental>> {
    let is_physical = sources.iter().any(|source| matches!(source, Source::Physical(_)));
    let given = [("incremental", lines.is_some()), ("max_chain", most.is_some())];
    if let (Some((name, _)), false) = (given.iter().find(|(_, given)| *given), is_physical) {
        return Err(desk
            .refuse(&key(name), "only base backups, of kind = \"physical\", can be incremental")
            .hint("remove it, or add kind = \"physical\" to the source"));
    }
    let Some(schedule_lines) = lines else {
        return match most {
            None => Ok(None),
            Some(_) => Err(desk
                .refuse(&key("max_chain"), "it bounds incremental backups, and there are none")
                .hint("add incremental = \"0 */4 * * *\", or remove it")),
        };
    };
    let schedule = desk.schedule(&key("incremental"), &schedule_lines, zone, jitter)?;
    Ok(Some(Incremental { schedule, schedule_lines, most: most.unwrap_or(MAX_CHAIN) }))
}

/// How a job's log is kept; `None`: it has none.
pub(super) fn wal(
    desk: &Desk<'_>,
    key: &str,
    (sources, places): (&[Source], &BTreeMap<String, Policy>),
    written: Option<FileWal>,
) -> Result<Option<Wal>> {
    let is_physical = sources.iter().any(|source| matches!(source, Source::Physical(_)));
    if is_physical && sources.len() > 1 {
        return Err(desk
            .refuse(key, "a server that is backed up whole is the only source of its job")
            .hint("make a job of its own for each of the others"));
    }
    if !is_physical {
        return match written {
            None => Ok(None),
            Some(_) => Err(desk
                .refuse(key, "only a job with kind = \"physical\" keeps a log")
                .hint("remove it, or add kind = \"physical\" to the source")),
        };
    }
    let written = written.unwrap_or_default();
    let max_lag = match &written.max_lag {
        None => MAX_LAG,
        Some(text) => units::duration(text).map_err(|why| {
            desk.wrong(&format!("{key}.max_lag"), text, why).hint("for example 15m")
        })?,
    };
    let every_key = format!("{key}.every");
    let every = desk.wait(&every_key, written.every, EVERY)?;
    if every < Duration::from_millis(100) {
        return Err(desk.refuse(&every_key, "it is less than 100 ms").hint("for example 5s"));
    }
    let slot_limit = match &written.slot_limit {
        None => None,
        Some(text) => Some(units::size(text).map_err(|why| {
            desk.wrong(&format!("{key}.slot_limit"), text, why).hint("for example 10GiB")
        })?),
    };
    let mut keep = BTreeMap::new();
    for (name, text) in written.keep.unwrap_or_default() {
        let key = format!("{key}.keep.{name}");
        if !places.contains_key(&name) {
            let names: Vec<&str> = places.keys().map(String::as_str).collect();
            return Err(desk
                .refuse(&key, format!("the job has no destination '{name}'"))
                .hint(format!("it has: {}", names.join(", "))));
        }
        let window = units::duration(&text)
            .and_then(|window| match window.is_zero() {
                true => Err("it must be more than nothing".into()),
                false => Ok(window),
            })
            .map_err(|why| desk.wrong(&key, &text, why).hint("for example 7d"))?;
        keep.insert(name, window);
    }
    Ok(Some(Wal { max_lag, every, slot_limit, keep }))
}
