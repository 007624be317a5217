//! What a keeper does with what was received: packs it as the job's backups are packed, stores it in every
//! place, and brings to a place that was away what another one has. Knows lanes; must not know the server.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::keeper::Keeper;
use super::lane::{Lane, Packed, Refused};
use super::telling;
use crate::fault::{Context, Result};
use crate::model::{Lsn, Segment, WalFile, WalGap};
use crate::pipeline::{Encoding, Meter, Piece, Seal, encode, sha256};
use crate::source::postgres::physical::received;

/// So many segments are brought in a round to a place that was away.
const CAUGHT_UP: usize = 8;

impl Keeper<'_> {
    /// Stores what lies in the receiver's folder: histories, whole segments, and of the newest one what
    /// is durable by `durable`; by `all`, whatever of it there is.
    pub(super) async fn store_received(&mut self, durable: Option<Lsn>, all: bool) -> Result<()> {
        let size = self.progress.segment_bytes;
        if !self.folder.is_dir() {
            return Ok(());
        }
        let found = received(&self.folder, size)?;
        for (timeline, path) in found.histories {
            let file = WalFile::History { timeline };
            let bytes = Bytes::from(std::fs::read(&path).context("read a timeline's history")?);
            self.put_all(Packed { name: file.stem(size), file, bytes }).await?;
        }
        for (segment, path) in found.whole {
            if self.lanes.iter().all(|lane| lane.next().is_none_or(|n| segment.number < n.number)) {
                std::fs::remove_file(&path).ok();
                continue;
            }
            let is_wanted = |lane: &Lane| {
                !lane.is_resting() && lane.next().is_some_and(|next| next.number == segment.number)
            };
            if !self.lanes.iter().any(is_wanted) {
                continue;
            }
            let bytes = std::fs::read(&path).context("read a segment")?;
            let file = WalFile::whole(segment, sha256(&bytes));
            let packed = self.pack(file, bytes).await?;
            self.lanes.iter_mut().for_each(|lane| {
                if lane.next().is_some_and(|next| next.number == segment.number) {
                    lane.follow(segment.timeline);
                }
            });
            self.put_all(packed).await?;
            join_all(self.lanes.iter_mut().map(Lane::tidy)).await;
            // One that has it suffices: the others get it from there.
            if self.lanes.iter().any(|lane| lane.next().is_some_and(|n| n.number > segment.number))
            {
                std::fs::remove_file(&path).context("remove a segment that is stored")?;
            }
        }
        match found.partial.last() {
            Some((segment, path)) => self.store_tail(*segment, path, durable, all).await,
            None => Ok(()),
        }
    }

    /// Stores what came of the newest segment since the last time.
    async fn store_tail(
        &mut self,
        segment: Segment,
        path: &Path,
        durable: Option<Lsn>,
        all: bool,
    ) -> Result<()> {
        let size = self.progress.segment_bytes;
        let start = segment.start(size).0;
        let mut held = None;
        for lane in &mut self.lanes {
            if lane.next().is_some_and(|next| next.number == segment.number) {
                lane.follow(segment.timeline);
                let here = lane.stored().map_or(0, |stored| stored.0 - start);
                held = Some(held.map_or(here, |held: u64| held.min(here)));
            }
        }
        let Some(from) = held else { return Ok(()) };
        let end = match durable {
            // Behind what is durable the file may hold what another start of the receiver left.
            Some(lsn) => lsn.0.saturating_sub(start).min(size.bytes()),
            None if all => size.bytes(),
            None => 0,
        };
        let mut bytes = match read_part(path, from, end) {
            // It was completed meanwhile, and comes whole in the next round.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            read => read.context("read the newest segment")?,
        };
        if all && durable.is_none() {
            // The rest is filled up with zeros.
            bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let to = from + bytes.len() as u64;
        let packed = self.pack(WalFile::Piece { segment, from, to }, bytes).await?;
        self.put_all(packed).await
    }

    /// Compresses and encrypts as the job's backups are.
    async fn pack(&self, file: WalFile, bytes: Vec<u8>) -> Result<Packed> {
        let encoding = Encoding { volume_bytes: u64::MAX, ..self.job.encoding.clone() };
        let cipher = encoding.seal.as_ref().map_or("", Seal::suffix);
        let stem = file.stem(self.progress.segment_bytes);
        let name = format!("{stem}{}{cipher}", encoding.compression.suffix());
        let (out, mut pieces) = mpsc::channel(4);
        let encoding = tokio::task::spawn_blocking({
            let name = name.clone();
            move || {
                let reader = Box::new(std::io::Cursor::new(bytes));
                encode(reader, &name, &encoding, out, &Meter::default(), &CancellationToken::new())
            }
        });
        let mut packed = BytesMut::new();
        while let Some(piece) = pieces.recv().await {
            if let Piece::Data(data) = piece {
                packed.extend_from_slice(&data);
            }
        }
        encoding.await.context("encode the log")??;
        Ok(Packed { file, name, bytes: packed.freeze() })
    }

    /// Stores a file in every place that is ready for it. One that fails is caught up later; another
    /// content of the same segment stops everything.
    async fn put_all(&mut self, packed: Packed) -> Result<()> {
        let ready = |lane: &&mut Lane| match (&packed.file, lane.next()) {
            (WalFile::Whole { segment, .. } | WalFile::Piece { segment, .. }, Some(next)) => {
                next == *segment
            }
            (_, next) => next.is_some(),
        };
        let puts = self
            .lanes
            .iter_mut()
            .filter(|lane| !lane.is_resting())
            .filter(ready)
            .map(async |lane| lane.put(&packed).await);
        for put in join_all(puts).await {
            match put {
                Ok(()) => {}
                Err(Refused::Conflict(fault)) => return Err(fault),
                Err(Refused::Later(fault)) => {
                    tracing::warn!("{} is not stored: {}", packed.name, fault.chain());
                }
            }
        }
        Ok(())
    }

    /// Brings to a place that was away what another one has.
    pub(super) async fn catch_up(&mut self) {
        for n in 0..self.lanes.len() {
            if self.lanes[n].is_resting() {
                continue;
            }
            if !self.lanes[n].is_read() {
                self.lanes[n].look().await;
                if let (true, None) = (self.lanes[n].is_read(), self.lanes[n].next()) {
                    // What was stored since then the others have.
                    let best = self.lanes.iter().filter_map(Lane::next).max_by_key(|s| s.number);
                    let first = self.began.into_iter().chain(best).min_by_key(|s| s.number);
                    first.into_iter().for_each(|first| self.lanes[n].begin(first));
                }
            }
            for _ in 0..CAUGHT_UP {
                match self.bring_next(n).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(fault) => {
                        let place = self.lanes[n].name();
                        tracing::warn!("'{place}' is behind with the log: {}", fault.chain());
                        break;
                    }
                }
            }
        }
    }

    /// The other place let go, by its retention, of what this one has missed: a gap, like one that the server
    /// has made.
    async fn give_up_for(&mut self, n: usize, next: Segment, first: Segment) -> Result<bool> {
        let size = self.progress.segment_bytes;
        let place = self.lanes[n].name().to_owned();
        let gap = WalGap {
            system_id: self.progress.system_id.clone(),
            timeline: next.timeline,
            from: next.start(size),
            to: first.start(size),
            at: self.site.clock.now(),
            reason: format!("'{place}' was away until no other place had it any more"),
        };
        self.site.catalog.add_wal_gap(&self.job.name, &gap).await?;
        telling::gap(self.site, self.job, &gap).await?;
        self.lanes[n].begin(first);
        self.gaps.push(gap);
        Ok(true)
    }

    /// Brings the next segment that a lane lacks from another one; false where none has it.
    async fn bring_next(&mut self, n: usize) -> Result<bool> {
        let Some(next) = self.lanes[n].next() else { return Ok(false) };
        let is_ahead = |lane: &&Lane| lane.next().is_some_and(|theirs| theirs.number > next.number);
        let Some(ahead) = self.lanes.iter().find(is_ahead) else { return Ok(false) };
        let Some(packed) = ahead.holding(next.number).await? else {
            return match ahead.begins_behind(next).await? {
                Some(first) => self.give_up_for(n, next, first).await,
                None => Ok(false),
            };
        };
        // Without its history nobody finds where a timeline came from.
        for history in ahead.histories_beyond(&self.lanes[n]) {
            self.lanes[n].put(&history).await.map_err(Refused::fault)?;
        }
        if let WalFile::Whole { segment, .. } = &packed.file {
            self.lanes[n].follow(segment.timeline);
        }
        self.lanes[n].put(&packed).await.map_err(Refused::fault)?;
        Ok(true)
    }
}

/// A file's bytes from `from` to `end`; none where those are in the wrong order.
fn read_part(path: &Path, from: u64, end: u64) -> io::Result<Vec<u8>> {
    let Some(count) = end.checked_sub(from).filter(|count| *count > 0) else {
        return Ok(Vec::new());
    };
    let mut bytes = vec![0; usize::try_from(count).map_err(io::Error::other)?];
    File::open(path)?.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}
