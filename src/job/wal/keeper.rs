//! The keeper of one job's log: a receiver that writes segments into a folder, and rounds in which what
//! is there is stored everywhere and the server told what it may let go. Knows the order of things: a
//! segment is stored before the slot moves; must not know where a gap begins or ends.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::super::{Job, LogPlan, Site};
use super::lane::{Lane, conflict};
use super::{heartbeats, identity, telling};
use crate::catalog::Request;
use crate::fault::{Fault, Result};
use crate::model::{Heartbeats, Lsn, RunKind, Segment, Trigger, WalGap, WalProgress, WalState};
use crate::retry::Backoff;
use crate::source::postgres::physical::{
    Ending, Physical, Primary, Receiver, Sample, first_missing,
};

/// Between two tries to reach the server.
const AGAIN: Backoff =
    Backoff { first: Duration::from_secs(1), factor: 2, most: Duration::from_secs(30) };
/// How long a place or a server may take to say what it has.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
/// So many samples are remembered to tell from when on all is stored.
const SAMPLES: usize = 2000;
/// How often a base backup is asked for behind a gap.
const ASK_AGAIN: SignedDuration = SignedDuration::from_mins(60);

/// Keeps the log until `cancel`, whatever happens to the server and to the places.
pub async fn keep(site: &Arc<Site>, job: &Arc<Job>, cancel: &CancellationToken) {
    let mut failures = 0;
    while !cancel.is_cancelled() {
        let Err(fault) = stream(site, job, cancel, &mut failures).await else { continue };
        if cancel.is_cancelled() {
            return;
        }
        failures += 1;
        tracing::warn!(
            "the log of '{}' is not received: {}{}",
            job.name,
            fault.chain(),
            fault.next_step().map(|hint| format!(" (hint: {hint})")).unwrap_or_default()
        );
        if let Err(fault) = telling::stopped(site, job, &fault).await {
            tracing::error!("{}", fault.chain());
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN.after(failures)) => {}
            () = cancel.cancelled() => return,
        }
    }
}

/// One connection's worth of it. Without an error the next one follows at once.
async fn stream(
    site: &Arc<Site>,
    job: &Arc<Job>,
    cancel: &CancellationToken,
    failures: &mut u32,
) -> Result<()> {
    let (physical, plan) = job.log_or_refuse()?;
    let mut primary = Primary::connect(physical).await?;
    let mut keeper = Keeper::open(site, job, physical, plan, &primary).await?;
    let kept = keeper.go_on(&mut primary, cancel, failures).await;
    primary.close().await;
    kept
}

pub(super) struct Keeper<'a> {
    pub(super) site: &'a Site,
    pub(super) job: &'a Job,
    physical: &'a Physical,
    pub(super) plan: &'a LogPlan,
    pub(super) folder: PathBuf,
    /// What our receiver is called on the server.
    receiver: String,
    pub(super) lanes: Vec<Lane>,
    pub(super) samples: VecDeque<(Timestamp, Lsn)>,
    pub(super) heartbeats: Heartbeats,
    /// With which segment storing began.
    pub(super) began: Option<Segment>,
    /// Holes that are known, and behind which it goes on.
    pub(super) gaps: Vec<WalGap>,
    /// When a base backup is asked for again.
    ask_at: Timestamp,
    pub(super) progress: WalProgress,
}

impl<'a> Keeper<'a> {
    /// Looks at what is stored, and refuses a server that is not the job's own.
    async fn open(
        site: &'a Site,
        job: &'a Job,
        physical: &'a Physical,
        plan: &'a LogPlan,
        primary: &Primary,
    ) -> Result<Self> {
        let (system_id, size) = (primary.system_id.clone(), primary.segment_bytes);
        let mut lanes: Vec<Lane> =
            job.places.iter().map(|place| Lane::new(job, place, &system_id, size)).collect();
        join_all(lanes.iter_mut().map(Lane::look)).await;
        if lanes.iter().all(|lane| !lane.is_read()) {
            let fault = lanes.iter_mut().find_map(|lane| lane.fault.take());
            return Err(fault.unwrap_or_else(|| Fault::usage("the job has no destination")));
        }
        let known = site.catalog.wal_progress(&job.name).await?;
        let read = lanes.iter().filter(|lane| lane.is_read());
        identity::check(site, job, &system_id, read.map(|lane| lane.destination.as_ref())).await?;
        if let Some((lane, segment)) = lanes.iter().find_map(|l| Some((l, l.conflict()?))) {
            return Err(conflict(&segment.name(size), lane.name()));
        }
        let now = site.clock.now();
        let same = known.filter(|known| known.system_id == system_id);
        let (safe_at, places) = same.map(|known| (known.safe_at, known.places)).unwrap_or_default();
        let progress = WalProgress {
            system_id,
            major: Some(primary.major),
            timeline: primary.timeline,
            segment_bytes: size,
            state: WalState::Waiting,
            error: None,
            hint: None,
            server_lsn: Lsn(0),
            sampled_at: now,
            stored_lsn: Lsn(0),
            safe_at,
            retained_bytes: 0,
            retained_most: primary.retained_most,
            places,
        };
        let receiver = format!("respaldo wal {}", job.name);
        let folder = site.wal_spool(&job.name).join(&progress.system_id);
        let gaps = site.catalog.wal_gaps(&job.name).await?;
        let samples = VecDeque::new();
        let heartbeats = heartbeats(site, &job.name).await?;
        Ok(Self {
            site,
            job,
            physical,
            plan,
            folder,
            receiver,
            lanes,
            samples,
            began: None,
            heartbeats,
            gaps,
            ask_at: now,
            progress,
        })
    }

    async fn go_on(
        &mut self,
        primary: &mut Primary,
        cancel: &CancellationToken,
        failures: &mut u32,
    ) -> Result<()> {
        let size = primary.segment_bytes;
        // What was received and not stored when the last process ended.
        self.store_received(None, true).await?;
        let kept = self.settle(primary).await?;
        let start = first_missing(&self.folder, kept, size)?;
        let mut start = self.behind_gap(start, primary.timeline).unwrap_or(start);
        let (of, segments) = ((primary.major, size), (kept, start));
        let starting =
            Receiver::start(self.physical, of, &self.folder, segments, &self.receiver, cancel);
        let mut receiver = starting.await?;
        tracing::info!("the log of '{}' is received from {}", self.job.name, start.start(size));
        let mut rounds = tokio::time::interval(self.plan.every);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            tokio::select! {
                _ = rounds.tick() => {}
                () = cancel.cancelled() => break Ok(()),
            }
            if let Some(ending) = receiver.ended().await {
                break match ending {
                    Ending::Removed(reason) => self.give_up(primary, start, &reason).await,
                    // A promotion right at the beginning of a segment: the new timeline has all of it.
                    Ending::Over if start.timeline < primary.timeline => {
                        start.timeline = primary.timeline;
                        let (folder, segments) = (&self.folder, (kept, start));
                        let again = Receiver::start(
                            self.physical,
                            of,
                            folder,
                            segments,
                            &self.receiver,
                            cancel,
                        );
                        receiver = again.await?;
                        continue;
                    }
                    Ending::Over => Err(Fault::transient("the server sends no log")),
                    Ending::Broken(fault) => Err(fault),
                };
            }
            match self.round(primary).await {
                Ok(()) => *failures = 0,
                Err(fault) => break Err(fault),
            }
        };
        receiver.stop().await;
        // The tail that came before it ended.
        self.store_received(None, true).await.ok();
        ended
    }

    /// Makes sure of the slot, and says with which segment the receiver starts.
    async fn settle(&mut self, primary: &mut Primary) -> Result<Segment> {
        let (slot, size) = (&self.physical.slot, primary.segment_bytes);
        let mut sample = primary.sample(&self.receiver, slot).await?;
        if sample.slot.as_ref().is_none_or(|slot| slot.is_lost()) {
            if sample.slot.is_some() {
                primary.drop_slot(slot).await?;
            }
            primary.make_slot(slot).await?;
            sample = primary.sample(&self.receiver, slot).await?;
        }
        let restart = sample.slot.and_then(|slot| slot.restart);
        let restart = restart.ok_or_else(|| Fault::transient("the slot keeps nothing"))?;
        let stored = self.lanes.iter().filter_map(Lane::next).max_by_key(|next| next.number);
        let next = stored.unwrap_or(Segment::at(primary.timeline, restart, size));
        // Nothing of what comes behind a gap may be stored yet.
        let next = self.behind_gap(next, primary.timeline).unwrap_or(next);
        if next.start(size) > Segment::at(primary.timeline, sample.server, size).end(size)
            || next.timeline > primary.timeline
        {
            return Err(Fault::permanent(format!(
                "the server is at {}, behind what is stored of it ({}, timeline {})",
                sample.server,
                next.start(size),
                next.timeline
            ))
            .hint("was an old copy of it put back? give the job another name for that one"));
        }
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_read() && lane.next().is_none()) {
            lane.begin(next);
        }
        self.began = Some(next);
        self.leap_over_gaps();
        Ok(next)
    }

    /// Where all is stored that comes before a gap, it goes on behind it.
    pub(super) fn leap_over_gaps(&mut self) {
        for n in 0..self.lanes.len() {
            let next = self.lanes[n].next();
            let behind = next.and_then(|next| self.behind_gap(next, self.progress.timeline));
            behind.into_iter().for_each(|first| self.lanes[n].begin(first));
        }
    }

    /// The segment behind a gap that begins with `next`; one gap may follow another.
    pub(super) fn behind_gap(&self, next: Segment, timeline: u32) -> Option<Segment> {
        let (size, own) = (self.progress.segment_bytes, &self.progress.system_id);
        let begins = |at: Lsn| {
            let is = |gap: &&WalGap| gap.system_id == *own && gap.from == at && gap.to > gap.from;
            self.gaps.iter().find(is).map(|gap| gap.to)
        };
        let ends = std::iter::successors(begins(next.start(size)), |end| begins(*end));
        ends.last().map(|end| Segment::at(timeline, end, size))
    }

    /// Behind a gap nothing can be recovered before there is a base backup: it is asked for until
    /// there is one.
    async fn ask_for_base(&mut self, now: Timestamp) -> Result<()> {
        let own = |gap: &&WalGap| gap.system_id == self.progress.system_id;
        let Some(gap) = self.gaps.iter().filter(own).max_by_key(|gap| gap.to) else {
            return Ok(());
        };
        if now < self.ask_at {
            return Ok(());
        }
        self.ask_at = now.checked_add(ASK_AGAIN).unwrap_or(now);
        let newest = self.site.catalog.newest_full(&self.job.name).await?;
        let is_behind = newest.is_some_and(|known| {
            let mut facts =
                known.manifest.sources.iter().filter_map(|facts| facts.physical.as_ref());
            facts.any(|facts| facts.start_lsn >= gap.to)
        });
        if is_behind {
            return Ok(());
        }
        let request = Request::now(&self.job.name, RunKind::Backup, Trigger::CatchUp, now);
        self.site.catalog.enqueue(&request, now).await.map(drop)
    }

    /// One round: what came is stored, and the server told what it may let go.
    async fn round(&mut self, primary: &mut Primary) -> Result<()> {
        let slot = &self.physical.slot;
        // Before it is asked: what is committed while it answers may not be in the answer.
        let now = self.site.clock.now();
        let asked = primary.sample(&self.receiver, slot);
        let sample = tokio::time::timeout(ANSWER, asked).await;
        let sample = sample.unwrap_or_else(|_| Err(Fault::transient("the server is silent")))?;
        self.samples.push_back((now, sample.server));
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        self.leap_over_gaps();
        self.store_received(sample.received, false).await?;
        self.catch_up().await;
        self.ask_for_base(now).await?;
        self.let_go(primary, &sample).await?;
        self.note(primary.timeline, &sample, now).await
    }

    /// Tells the server what is stored, and gives it up where it would have to keep too much.
    async fn let_go(&mut self, primary: &mut Primary, sample: &Sample) -> Result<()> {
        let (slot, size) = (&self.physical.slot, primary.segment_bytes);
        let Some(held) = &sample.slot else {
            return Err(Fault::transient("the replication slot is gone"));
        };
        telling::retained(self.site, self.job, held.retained, self.bound(primary)).await?;
        let given_up = match self.plan.slot_limit {
            _ if held.is_lost() => Some("the server has given the replication slot up"),
            Some(most) if held.retained > most => {
                Some("the server had to keep more than slot_limit allows")
            }
            _ => None,
        };
        if let Some(why) = given_up {
            tracing::warn!(
                "{why}: what was received and is not stored lies on this machine alone (hint: `respaldo wal status {}` shows which place is behind)",
                self.job.name
            );
            // The receiver goes on meanwhile: only what it has not received yet may be gone.
            primary.drop_slot(slot).await?;
            return primary.make_slot(slot).await;
        }
        let stored = self.lanes.iter().filter_map(Lane::next).max_by_key(|next| next.number);
        if let Some(to) = stored.map(|next| next.start(size)).filter(|to| Some(*to) > held.restart)
            && to <= sample.server
        {
            primary.advance_slot(slot, to).await?;
        }
        Ok(())
    }

    /// How much the server may keep for us.
    fn bound(&self, primary: &Primary) -> Option<u64> {
        [self.plan.slot_limit, primary.retained_most].into_iter().flatten().min()
    }

    /// The server has removed what comes next: a gap, which only a new base backup makes good.
    async fn give_up(&mut self, primary: &mut Primary, next: Segment, reason: &str) -> Result<()> {
        let (slot, size) = (&self.physical.slot, primary.segment_bytes);
        primary.drop_slot(slot).await?;
        primary.make_slot(slot).await?;
        let sample = primary.sample(&self.receiver, slot).await?;
        let restart = sample.slot.and_then(|slot| slot.restart).unwrap_or(sample.server);
        let first = Segment::at(primary.timeline, restart, size);
        let now = self.site.clock.now();
        let gap = WalGap {
            system_id: primary.system_id.clone(),
            timeline: next.timeline,
            from: next.start(size),
            to: first.start(size),
            at: now,
            reason: reason.to_owned(),
        };
        self.site.catalog.add_wal_gap(&self.job.name, &gap).await?;
        telling::gap(self.site, self.job, &gap).await?;
        Ok(())
    }
}
