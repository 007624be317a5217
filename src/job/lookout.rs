//! The watch over what no run tells of: backups that become too old, and keys and certificates that
//! expire. Knows the facts; what is news is decided in `health` and `attention`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::messages::trouble_of;
use super::{Job, Site};
use crate::attention::{self, Warned, warn};
use crate::catalog::Note;
use crate::fault::{Context, Result};
use crate::health::{self, DestinationHealth, JobHealth, Lapse, News, Told};
use crate::model::{Event, EventKind, JobName};
use crate::pipeline;
use crate::report::span;

/// A bundle of every authority there is has a tenth of this.
const MOST_BYTES: u64 = 4 << 20;

/// Tells once of each job whose backups are too old or were never made, and once when that is over.
pub async fn look_at_health(site: &Site, jobs: &[Arc<Job>]) -> Result<()> {
    for job in jobs {
        let look = look(site, job).await?;
        let Some((news, note)) = look.news.zip(look.note) else { continue };
        let event = match news {
            // The next backup that goes well tells of it.
            News::Over(_) if site.catalog.fact(&trouble_of(&job.name)).await?.is_some() => continue,
            News::Over(lapse) => Event {
                ends: ended(lapse),
                ..Event::new(
                    EventKind::Recovered,
                    Some(job.name.clone()),
                    site.clock.now(),
                    format!("the backups of '{}' are as new as they should be again", job.name),
                )
            },
            News::Lapsed(lapse, about) => lapsed(&look.health, lapse, &about, site.clock.now()),
        };
        site.tell_noting(&event, &[note]).await?;
    }
    Ok(())
}

/// What to forget when somebody else tells that the job is well again, and what people know of, if
/// they know that it was late.
pub(super) async fn over(site: &Site, job: &Job) -> Result<Option<(Note, Vec<EventKind>)>> {
    let look = look(site, job).await?;
    Ok(match (look.news, look.note) {
        (Some(News::Over(lapse)), Some(note)) => Some((note, ended(lapse))),
        _ => None,
    })
}

/// What is over with it: it may have been less bad at first.
fn ended(worst: Lapse) -> Vec<EventKind> {
    [Lapse::Late, Lapse::Never].into_iter().filter(|lapse| *lapse <= worst).map(kind).collect()
}

fn kind(lapse: Lapse) -> EventKind {
    match lapse {
        Lapse::Late => EventKind::Late,
        Lapse::Never => EventKind::Never,
    }
}

struct Look {
    health: JobHealth,
    news: Option<News>,
    /// What to remember together with the news.
    note: Option<Note>,
}

async fn look(site: &Site, job: &Job) -> Result<Look> {
    let now = site.clock.now();
    let health = health::job_health(&site.health_facts(job).await?, now);
    let name = format!("lapse:{}", job.name);
    let was = site.catalog.fact(&name).await?;
    let told: Told =
        was.as_deref().and_then(|was| serde_json::from_str(was).ok()).unwrap_or_default();
    let (next, news) = health::lapse(&health, &told, now);
    if next == told {
        return Ok(Look { health, news, note: None });
    }
    let is = (next != Told::default()).then(|| serde_json::to_string(&next));
    let is = is.transpose().context("write what was told")?;
    if news.is_none() {
        match is {
            Some(is) => site.catalog.set_fact(&name, &is).await?,
            None => site.catalog.clear_fact(&name).await?,
        }
        return Ok(Look { health, news, note: None });
    }
    Ok(Look { health, news, note: Some(Note { name, was, is }) })
}

fn lapsed(health: &JobHealth, lapse: Lapse, about: &[String], now: Timestamp) -> Event {
    let job = &health.job;
    let places = health.destinations.iter().filter(|place| about.contains(&place.name));
    let is_ahead = |place: &DestinationHealth| place.age_seconds.is_some_and(|age| age < 0);
    let from_future = places.clone().all(is_ahead);
    let summary = match lapse {
        Lapse::Late if from_future => {
            format!("the newest backup of '{job}' is from the future: a clock is or was wrong")
        }
        Lapse::Late => format!("the newest backup of '{job}' is older than it may be"),
        Lapse::Never => format!("there is no backup of '{job}'"),
    };
    let details = places.map(|place| {
        let most = place.max_age_seconds.map(span).unwrap_or_default();
        let said = match place.age_seconds {
            Some(age) if age < 0 => format!("{} in the future", span(-age)),
            Some(age) if span(age) == most => format!("just over {most} old; {most} allowed"),
            Some(age) => format!("{} old; {most} allowed", span(age)),
            None => format!("none; the first was due within {most}"),
        };
        (place.name.clone(), said)
    });
    Event {
        details: details.collect(),
        hint: Some(format!(
            "`respaldo status` shows its runs; `respaldo backup {job}` makes one now"
        )),
        ..Event::new(kind(lapse), Some(job.clone()), now, summary)
    }
}

/// A certificate or a key in a file of its own.
#[derive(Debug, Clone)]
pub struct Paper {
    /// The only job that needs it.
    pub job: Option<JobName>,
    pub kind: PaperKind,
    pub path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaperKind {
    /// Certificates that vouch for others; one of several is enough.
    Authority,
    /// A certificate of our own, and those that vouch for it: all are needed.
    Certificate,
    /// Public keys of OpenPGP.
    Openpgp,
}

/// Tells of what will soon expire, and once more when it has.
pub async fn look_at_papers(site: &Site) -> Result<()> {
    let now = site.clock.now();
    for paper in &site.papers {
        let read = paper.clone();
        let ends = tokio::task::spawn_blocking(move || ends(&read, now)).await;
        for (what, ends) in ends.context("look at what expires")? {
            let name = format!("expiry:{what}");
            let was = site.catalog.fact(&name).await?;
            let told = was.as_deref().and_then(|was| serde_json::from_str::<Warned>(was).ok());
            let Some(warned) = warn(ends, told, now) else { continue };
            let is = Some(serde_json::to_string(&warned).context("write what was told")?);
            let event = expires(paper, &what, warned, now);
            site.tell_noting(&event, &[Note { name, was, is }]).await?;
        }
    }
    Ok(())
}

/// What the file holds, by name, and when that ends. A file that can't be read is somebody else's
/// trouble.
fn ends(paper: &Paper, now: Timestamp) -> Vec<(String, Timestamp)> {
    let Some(bytes) = read(&paper.path) else { return Vec::new() };
    let shown = paper.path.display();
    let certificates = || attention::ends(&String::from_utf8_lossy(&bytes)).into_iter();
    let end = match paper.kind {
        PaperKind::Openpgp => {
            let keys = pipeline::key_ends(&bytes, now).into_iter();
            return keys.map(|(key, ends)| (format!("key {key} in {shown}"), ends)).collect();
        }
        PaperKind::Authority => certificates().max(),
        PaperKind::Certificate => certificates().min(),
    };
    end.map(|end| (format!("certificate {shown}"), end)).into_iter().collect()
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn expires(paper: &Paper, what: &str, warned: Warned, now: Timestamp) -> Event {
    let day = warned.ends.strftime("%Y-%m-%d");
    let summary = match warned.days {
        0 => format!("the {what} expired on {day}"),
        _ => format!(
            "the {what} expires on {day}, in {}",
            span(warned.ends.duration_since(now).as_secs())
        ),
    };
    let hint = match paper.kind {
        PaperKind::Openpgp => {
            "prolong the key, and export its public part to the file again: nothing is encrypted to a key that has expired"
        }
        _ => "put the renewed certificate into the file; the next run takes it",
    };
    Event {
        about: format!("{what}, {} d", warned.days),
        hint: Some(hint.into()),
        ..Event::new(EventKind::Expiring, paper.job.clone(), now, summary)
    }
}
