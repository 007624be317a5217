//! Room for what comes: asks every destination and the data folder how much is free, remembers it,
//! and tells people when it gets little. What is little is decided in `crate::space`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::SignedDuration;
use serde::Serialize;

use super::{Job, Site, bytes};
use crate::catalog::Note;
use crate::destination::{Destination, Local};
use crate::fault::Result;
use crate::model::{Event, EventKind, JobName};
use crate::space::{self, Floor, Room, Space};

/// What the data folder is called beside the destinations, none of which can have that name.
const DATA_DIR: &str = "(data_dir)";
/// How long a place may take to say how much is free.
const ANSWER: Duration = Duration::from_secs(10);
/// How far back samples matter.
const MEMORY: SignedDuration = SignedDuration::from_hours(15 * 24);
/// A sample that is older says nothing of today.
const FRESH: SignedDuration = SignedDuration::from_hours(2);

/// One place, and how much room there is.
#[derive(Debug, Clone, Serialize)]
pub struct PlaceRoom {
    /// A destination's name, or `(data_dir)`.
    pub destination: String,
    #[serde(flatten)]
    pub room: Room,
    /// The jobs that write there.
    #[serde(skip)]
    jobs: Vec<JobName>,
}

impl PlaceRoom {
    /// It is low, or will be full within two weeks.
    pub fn is_worth_a_word(&self) -> bool {
        self.room.low || self.room.fills_soon
    }

    /// `only 1 GB of 50 GB is free on 'local', ...`.
    pub fn sentence(&self) -> String {
        let Room { free_bytes, total_bytes, next_backup_bytes, fills_at, .. } = &self.room;
        let mut text = format!(
            "{} of {} is free on '{}'",
            bytes(*free_bytes),
            bytes(*total_bytes),
            self.destination
        );
        if *next_backup_bytes > 0 {
            text += &format!(", and the next backups take about {}", bytes(*next_backup_bytes));
        }
        if let Some(at) = fills_at {
            text += &format!("; it will be full about {}", at.strftime("%Y-%m-%d"));
        }
        text
    }
}

/// A destination as its jobs see it.
struct Shared<'a> {
    destination: Arc<dyn Destination>,
    floor: Option<Floor>,
    jobs: Vec<&'a Job>,
}

fn shared<'a>(site: &Site, jobs: &'a [Arc<Job>]) -> BTreeMap<String, Shared<'a>> {
    let mut places: BTreeMap<String, Shared<'a>> = BTreeMap::new();
    for job in jobs {
        for place in &job.places {
            let new = || Shared {
                destination: place.destination.clone(),
                floor: place.free,
                jobs: Vec::new(),
            };
            let name = place.destination.name().to_owned();
            places.entry(name).or_insert_with(new).jobs.push(job);
        }
    }
    let data = Local::new(DATA_DIR, &site.data_dir);
    let data = Shared { destination: Arc::new(data), floor: None, jobs: Vec::new() };
    places.insert(DATA_DIR.to_owned(), data);
    places
}

/// How much room there is at this moment, where a destination says so in time.
pub async fn space_now(destination: &dyn Destination) -> Option<Space> {
    tokio::time::timeout(ANSWER, destination.space()).await.ok().flatten()
}

/// Asks every place, remembers what it said, and tells people when it got little or is enough again.
pub async fn look_at_space(site: &Site, jobs: &[Arc<Job>]) -> Result<()> {
    let places = shared(site, jobs);
    let asked = places.iter().map(async |(name, place)| {
        Some((name.clone(), space_now(place.destination.as_ref()).await?))
    });
    let seen = join_all(asked).await.into_iter().flatten().collect();
    site.catalog.add_space(&seen, site.clock.now()).await?;
    for place in rooms(site, jobs).await? {
        tell(site, &place).await?;
    }
    Ok(())
}

/// How every place stands, by what was seen lately.
pub async fn rooms(site: &Site, jobs: &[Arc<Job>]) -> Result<Vec<PlaceRoom>> {
    let now = site.clock.now();
    let samples = site.catalog.space_since(now.checked_sub(MEMORY).unwrap_or(now)).await?;
    let mut rooms = Vec::new();
    for (name, place) in shared(site, jobs) {
        let Some(samples) = samples.get(&name) else { continue };
        if samples.last().is_none_or(|last| now.duration_since(last.at) > FRESH) {
            continue;
        }
        let mut next: u64 = 0;
        for job in &place.jobs {
            let newest = site.catalog.newest_full(&job.name).await?;
            let taken = newest.map_or(0, |newest| newest.manifest.stored_bytes());
            next = next.saturating_add(taken);
        }
        let Some(room) = space::judge(samples, place.floor, next, now) else { continue };
        let jobs = place.jobs.iter().map(|job| job.name.clone()).collect();
        rooms.push(PlaceRoom { destination: name, room, jobs });
    }
    Ok(rooms)
}

/// Once when it gets little, and once when it is enough again.
async fn tell(site: &Site, place: &PlaceRoom) -> Result<()> {
    let fact = format!("disk-low:{}", place.destination);
    let was = site.catalog.fact(&fact).await?;
    let (kind, summary, hint) = match (was.is_some(), place.room.low) {
        (false, true) => {
            let hint = "make room, keep fewer backups there, or say with `free` how much is enough";
            (EventKind::DiskLow, format!("only {}", place.sentence()), Some(hint.to_owned()))
        }
        (true, false) if place.room.is_ample() => {
            (EventKind::Recovered, format!("there is room again: {}", place.sentence()), None)
        }
        _ => return Ok(()),
    };
    let Room { free_bytes, next_backup_bytes, fills_at, .. } = &place.room;
    let names: Vec<&str> = place.jobs.iter().map(JobName::as_str).collect();
    let mut details = vec![
        ("Destination".to_owned(), place.destination.clone()),
        ("Free".to_owned(), bytes(*free_bytes)),
        ("Next backups".to_owned(), bytes(*next_backup_bytes)),
    ];
    details
        .extend(fills_at.map(|at| ("Full about".to_owned(), at.strftime("%Y-%m-%d").to_string())));
    details.push(("Jobs".to_owned(), names.join(", ")));
    details.retain(|(_, value)| !value.is_empty());
    let is = (kind == EventKind::DiskLow).then(|| "low".to_owned());
    if is.is_some() {
        tracing::warn!("{summary}");
    }
    let ends = Vec::from_iter((kind == EventKind::Recovered).then_some(EventKind::DiskLow));
    // A place belongs to every job that writes there; the message is the first one's.
    let job = place.jobs.first().cloned();
    let about = place.destination.clone();
    let event = Event::new(kind, job, site.clock.now(), summary);
    let event = Event { about, details, hint, ends, ..event };
    // At once: a kill between the two would lose the word.
    site.tell_noting(&event, &[Note { name: fact, was, is }]).await.map(drop)
}
