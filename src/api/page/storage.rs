//! What is kept where, and for how long there is room. Knows how to put it into words; what is little
//! is decided elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::super::Live;
use super::super::access::Viewer;
use super::picture::{Picture, meter};
use super::words::{Badge, Tone};
use super::{Frame, Missing, now, page};
use crate::fault::Result;
use crate::job::{PlaceRoom, bytes, count, rooms};

#[derive(Template)]
#[template(path = "storage.html")]
struct Storage {
    frame: Frame,
    places: Vec<PlaceCard>,
}

struct PlaceCard {
    name: String,
    address: String,
    badge: Option<Badge>,
    /// How full it is, where it says so.
    full: Option<Picture>,
    room: String,
    /// Job, backups, bytes.
    kept: Vec<(String, String, String)>,
    total: String,
}

pub(super) async fn show(
    Viewer(caller): Viewer,
    State(live): State<Arc<dyn Live>>,
) -> Result<Response, Missing> {
    let app = live.app();
    let now = now(&app);
    let rooms = rooms(&app.site, &app.jobs).await?;
    let kept = app.site.catalog.kept_copies().await?;
    let mut addresses: BTreeMap<String, String> = BTreeMap::new();
    for place in app.jobs.iter().flat_map(|job| &job.places) {
        let destination = &place.destination;
        addresses.insert(destination.name().to_owned(), destination.place());
    }
    let mut places: Vec<PlaceCard> = Vec::new();
    for (name, address) in addresses {
        let here: Vec<_> = kept.iter().filter(|kept| kept.destination == name).collect();
        let size = |bytes: i64| self::bytes(bytes.max(0).cast_unsigned());
        let room = rooms.iter().find(|room| room.destination == name);
        places.push(PlaceCard {
            badge: room.map(badge),
            full: room.map(full),
            room: room.map_or("it does not say how much is free".to_owned(), PlaceRoom::sentence),
            kept: here
                .iter()
                .map(|kept| {
                    let backups = count(kept.count.max(0).cast_unsigned());
                    (kept.job.clone(), backups, size(kept.stored_bytes))
                })
                .collect(),
            total: size(here.iter().map(|kept| kept.stored_bytes).sum()),
            name,
            address,
        });
    }
    // The data folder is no destination, and matters as much.
    let is_other = |room: &&PlaceRoom| places.iter().all(|place| place.name != room.destination);
    if let Some(room) = rooms.iter().find(is_other) {
        places.push(PlaceCard {
            name: "data_dir".to_owned(),
            address: format!(
                "{}: the catalog, logs and what is being restored",
                app.site.data_dir.display()
            ),
            badge: Some(badge(room)),
            full: Some(full(room)),
            room: room.sentence(),
            kept: Vec::new(),
            total: String::new(),
        });
    }
    Ok(page(&Storage { frame: Frame::new(&app, "/storage", &caller, &now), places }))
}

fn badge(place: &PlaceRoom) -> Badge {
    match (place.room.low, place.is_worth_a_word()) {
        (true, _) => Badge::new(Tone::Bad, "low"),
        (false, true) => Badge::new(Tone::Warning, "fills soon"),
        (false, false) => Badge::new(Tone::Good, "enough"),
    }
}

fn full(place: &PlaceRoom) -> Picture {
    let (free, total) = (place.room.free_bytes, place.room.total_bytes.max(1));
    let percent = total.saturating_sub(free).saturating_mul(100) / total;
    let tone = if place.room.low { Tone::Bad } else { Tone::Good };
    meter(percent, tone, &format!("{percent} % full"))
}
