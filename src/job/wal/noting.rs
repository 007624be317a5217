//! What a keeper writes down in each round: how far all is stored, in which place, and what the server said of
//! itself. Knows the catalog; must not store anything, nor tell the server.

use jiff::{SignedDuration, Timestamp};

use super::beating;
use super::keeper::Keeper;
use super::lane::Lane;
use super::telling;
use crate::fault::{Context, Fault, Result};
use crate::model::{Heartbeat, Heartbeats, Lsn, WalPlace, WalState};
use crate::source::postgres::physical::Sample;
use crate::wal::heartbeat::remember;

/// So many rounds lie between two heartbeats that are remembered.
const ROUNDS: i32 = 12;

impl Keeper<'_> {
    /// How far all is, for whoever asks.
    pub(super) async fn note(
        &mut self,
        timeline: u32,
        sample: &Sample,
        now: Timestamp,
    ) -> Result<()> {
        self.note_heartbeat(timeline, sample).await?;
        let off_site = |lane: &&Lane| {
            let place = self.job.places.iter().find(|p| p.destination.name() == lane.name());
            place.is_some_and(|place| place.off_site)
        };
        let far = self.lanes.iter().filter(off_site).filter_map(Lane::stored).max();
        let anywhere = self.lanes.iter().filter_map(Lane::stored).max();
        let has_far = self.job.places.iter().any(|place| place.off_site);
        let stored = if has_far { far } else { anywhere };
        let stored = stored.unwrap_or(Lsn(0));
        self.progress.safe_at = self.progress.safe_at.max(self.safe_at(stored));
        let timeline = self.lanes.iter().filter_map(Lane::next).map(|next| next.timeline).max();
        self.progress.timeline = timeline.unwrap_or(self.progress.timeline);
        self.progress.state = WalState::Streaming;
        self.progress.server_lsn = sample.server;
        self.progress.sampled_at = now;
        self.progress.stored_lsn = stored;
        self.progress.retained_bytes = sample.slot.as_ref().map_or(0, |slot| slot.retained);
        self.progress.places = self.places();
        self.site.catalog.set_wal_progress(&self.job.name, &self.progress).await?;
        telling::goes_on(self.site, self.job).await
    }

    /// From when on all is stored, where all before `stored` is.
    fn safe_at(&self, stored: Lsn) -> Option<Timestamp> {
        self.samples.iter().rev().find(|(_, lsn)| *lsn <= stored).map(|(at, _)| *at)
    }

    /// How far each place is; one that can't be looked at is as it was.
    fn places(&self) -> Vec<WalPlace> {
        let known = |lane: &Lane| self.progress.places.iter().find(|one| one.name == lane.name());
        let place = |lane: &Lane| match lane.place() {
            Some(now) => {
                let before = known(lane).and_then(|known| known.safe_at);
                Some(WalPlace { safe_at: before.max(self.safe_at(now.stored_lsn)), ..now })
            }
            None => {
                let error = lane.fault.as_ref().map(Fault::chain);
                known(lane).map(|known| WalPlace { error, ..known.clone() })
            }
        };
        self.lanes.iter().filter_map(place).collect()
    }

    /// Remembers where the server was, by its own word, for drills.
    async fn note_heartbeat(&mut self, timeline: u32, sample: &Sample) -> Result<()> {
        let system_id = &self.progress.system_id;
        if self.heartbeats.system_id != *system_id {
            self.heartbeats = Heartbeats { system_id: system_id.clone(), beats: Vec::new() };
        }
        let beat = Heartbeat { at: sample.at, lsn: sample.server, timeline };
        let apart = SignedDuration::try_from(self.plan.every).unwrap_or_default() * ROUNDS;
        if !remember(&mut self.heartbeats.beats, beat, apart) {
            return Ok(());
        }
        let text = serde_json::to_string(&self.heartbeats).context("write a heartbeat")?;
        self.site.catalog.set_fact(&beating(&self.job.name), &text).await
    }
}
