//! `respaldo wal`: how far the log of a server is stored, and whether a recovery could use it.

use jiff::Timestamp;
use serde::Serialize;

use super::args::Wal;
use super::{Desk, Exit, output};
use crate::fault::{Fault, Result};
use crate::job::{self, Job, bytes, check_log};
use crate::model::{WalGap, WalPlace, WalProgress};
use crate::report::span;

pub(super) async fn wal(desk: &Desk, wanted: Wal) -> Result<Exit> {
    let site = &desk.app.site;
    match wanted {
        Wal::Status { job, json } => status(desk, desk.app.job(&job)?, json).await,
        Wal::Check { job, json } => check(desk, desk.app.job(&job)?, json).await,
        Wal::Detach { job } => {
            let job = desk.app.job(&job)?;
            output::say(&match job::detach(site, &site.actor, job).await? {
                true => format!(
                    "the slot of '{}' is gone: what is not stored yet may be lost",
                    job.name
                ),
                false => format!("'{}' has no slot", job.name),
            });
            Ok(Exit::Done)
        }
        Wal::Adopt { job } => {
            let job = desk.app.job(&job)?;
            let system_id = job::adopt_server(site, &site.actor, job).await?;
            output::say(&format!("the server {system_id} is the one of '{}' now", job.name));
            Ok(Exit::Done)
        }
    }
}

/// What `wal status --json` prints.
#[derive(Serialize)]
struct Shown<'a> {
    job: &'a str,
    #[serde(flatten)]
    progress: &'a WalProgress,
    places: Vec<ShownPlace<'a>>,
    /// How much time would be lost now, in seconds; null: the server can't be asked, so nobody knows.
    rpo_seconds: Option<i64>,
    /// How long ago everything was stored, in seconds.
    safe_seconds_ago: Option<i64>,
    gaps: &'a [WalGap],
}

#[derive(Serialize)]
struct ShownPlace<'a> {
    #[serde(flatten)]
    place: &'a WalPlace,
    /// How much time would be lost now if this place were the only one, in seconds.
    rpo_seconds: Option<i64>,
}

/// A server that was not asked for so long is not known any more.
const FRESH_SECONDS: i64 = 60;

async fn status(desk: &Desk, job: &Job, json: bool) -> Result<Exit> {
    let (site, now) = (&desk.app.site, desk.app.site.clock.now());
    job.log_or_refuse()?;
    let Some(mut progress) = site.catalog.wal_progress(&job.name).await? else {
        return Err(Fault::permanent(format!("nothing is known of the log of '{}' yet", job.name))
            .hint("the daemon keeps it: is it running?"));
    };
    let gaps = site.catalog.wal_gaps(&job.name).await?;
    let ago = |at: Timestamp| now.duration_since(at).as_secs();
    let safe = progress.safe_at.map(ago);
    let is_known = ago(progress.sampled_at) <= FRESH_SECONDS;
    let rpo = |safe_at: Option<Timestamp>| safe_at.map(ago).filter(|_| is_known);
    let rpo_seconds = rpo(progress.safe_at);
    let places = std::mem::take(&mut progress.places);
    let places = places.iter().map(|place| ShownPlace { place, rpo_seconds: rpo(place.safe_at) });
    if json {
        let job = job.name.as_str();
        let safe_seconds_ago = safe;
        output::json(&Shown {
            job,
            progress: &progress,
            places: places.collect(),
            rpo_seconds,
            safe_seconds_ago,
            gaps: &gaps,
        })?;
        return Ok(Exit::Done);
    }
    let mut lines = vec![
        vec!["state".to_owned(), progress.state.to_string()],
        vec![
            "server".to_owned(),
            format!("{}, timeline {}", progress.server_lsn, progress.timeline),
        ],
        vec!["stored".to_owned(), progress.stored_lsn.to_string()],
        vec!["would be lost".to_owned(), lost(rpo_seconds, safe)],
        vec![
            "server keeps".to_owned(),
            match progress.retained_most {
                Some(most) => {
                    format!("{} of at most {}", bytes(progress.retained_bytes), bytes(most))
                }
                None => format!("{}, without a bound", bytes(progress.retained_bytes)),
            },
        ],
    ];
    for ShownPlace { place, rpo_seconds } in places {
        let error = place.error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
        let lost = lost(rpo_seconds, place.safe_at.map(ago));
        lines.push(vec![
            place.name.clone(),
            format!("{}; missing there: {lost}{error}", place.stored_lsn),
        ]);
    }
    for gap in &gaps {
        lines.push(vec!["gap".to_owned(), format!("{} to {}, {:.0}", gap.from, gap.to, gap.at)]);
    }
    lines.extend(progress.error.iter().map(|error| vec!["error".to_owned(), error.clone()]));
    lines.extend(progress.hint.iter().map(|hint| vec!["hint".to_owned(), hint.clone()]));
    output::table(&["LOG", job.name.as_str()], lines)?;
    Ok(Exit::Done)
}

/// How much would be lost now, in words.
fn lost(rpo_seconds: Option<i64>, safe_seconds_ago: Option<i64>) -> String {
    match (rpo_seconds, safe_seconds_ago) {
        (Some(seconds), _) => format!("the last {}", span(seconds)),
        (None, Some(ago)) => format!("not known; all was stored {} ago", span(ago)),
        (None, None) => "not known".to_owned(),
    }
}

async fn check(desk: &Desk, job: &Job, json: bool) -> Result<Exit> {
    let checked = check_log(&desk.app.site, job).await?;
    if json {
        output::json(&checked)?;
    } else {
        let mut rows = Vec::new();
        for place in &checked.places {
            for base in &place.bases {
                rows.push(vec![
                    place.destination.clone(),
                    base.id.to_string(),
                    format!("{:.0}", base.from),
                    base.from_lsn.to_string(),
                    base.to_lsn.to_string(),
                    base.timeline.to_string(),
                ]);
            }
        }
        output::table(
            &["DESTINATION", "BASE BACKUP", "FROM", "FROM LSN", "TO LSN", "TIMELINE"],
            rows,
        )?;
    }
    for place in &checked.places {
        for trouble in &place.troubles {
            output::say(&format!("{}: {trouble}", place.destination));
        }
    }
    for place in &checked.places {
        for base in place.bases.iter().filter(|base| base.own_end_only) {
            output::say(&format!(
                "{}: {} can be recovered at its own end, {}, and not later: wal.keep has let the log behind it go",
                place.destination, base.id, base.from_lsn
            ));
        }
    }
    for gap in &checked.recorded_gaps {
        output::say(&format!("recorded gap: {} to {}, {:.0}", gap.from, gap.to, gap.at));
    }
    Ok(if checked.ok { Exit::Done } else { Exit::Failed })
}
