//! `pg_receivewal`, started where the archive ends. Knows its folder's habits and what its words mean;
//! must not know where segments go.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Physical;
use crate::durable;
use crate::fault::{Context, Fault, Result};
use crate::model::{Segment, SegmentSize};
use crate::source::child::{self, Ended, Pipes};
use crate::source::postgres::client;

/// The ending of a segment that is not complete yet.
const PARTIAL: &str = ".partial";

/// A running `pg_receivewal`. Dropped, it is ended.
pub struct Receiver {
    stop: CancellationToken,
    end: Option<JoinHandle<Result<Ended>>>,
}

/// How a receiver ended.
#[derive(Debug)]
pub enum Ending {
    /// The server has removed what it was to send.
    Removed(String),
    /// The timeline that it was to go on with ended right where it was to begin.
    Over,
    /// It lost its server, or was told to stop.
    Broken(Fault),
}

/// What lies in the folder that a receiver writes to.
#[derive(Debug, Default)]
pub struct Received {
    /// Complete segments, oldest first.
    pub whole: Vec<(Segment, PathBuf)>,
    /// Those that are being written, or that a timeline ended in.
    pub partial: Vec<(Segment, PathBuf)>,
    pub histories: Vec<(u32, PathBuf)>,
}

/// Looks into the folder.
pub fn received(folder: &Path, size: SegmentSize) -> Result<Received> {
    let mut found = Received::default();
    for entry in fs::read_dir(folder).context("look at the received WAL")? {
        let path = entry.context("look at the received WAL")?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let is_full = || path.metadata().is_ok_and(|meta| meta.len() == size.bytes());
        if let Some(timeline) = name.strip_suffix(".history") {
            let timeline = u32::from_str_radix(timeline, 16).ok();
            found.histories.extend(timeline.map(|timeline| (timeline, path.clone())));
        } else if let Some(name) = name.strip_suffix(PARTIAL) {
            // An empty one only says where to start.
            let segment = Segment::parse(name, size).filter(|_| is_full());
            found.partial.extend(segment.map(|segment| (segment, path.clone())));
        } else if let Some(segment) = Segment::parse(name, size).filter(|_| is_full()) {
            found.whole.push((segment, path.clone()));
        }
    }
    let by_number = |(segment, _): &(Segment, PathBuf)| (segment.number, segment.timeline);
    found.whole.sort_by_key(by_number);
    found.partial.sort_by_key(by_number);
    found.histories.sort();
    Ok(found)
}

/// The first segment that is not there, going on from `next`: what was received and is not stored yet need
/// not come again, and may be gone at the server.
pub fn first_missing(folder: &Path, next: Segment, size: SegmentSize) -> Result<Segment> {
    let mut missing = next;
    if folder.is_dir() {
        for (segment, _) in received(folder, size)?.whole {
            if segment.number == missing.number && segment.timeline >= missing.timeline {
                missing = segment.next();
            }
        }
    }
    Ok(missing)
}

/// Leaves of the folder only the whole segments from `kept` on, and lets a receiver start with `start`:
/// without any file it would start with whatever the server is writing now.
fn steer(folder: &Path, kept: Segment, start: Segment, size: SegmentSize) -> Result<()> {
    let doing = "prepare the folder for the WAL";
    durable::create_folder(folder).context(doing)?;
    let whole = received(folder, size)?.whole;
    let stays = |path: &PathBuf| {
        whole.iter().any(|(segment, of)| {
            of == path && (kept.number..start.number).contains(&segment.number)
        })
    };
    for entry in fs::read_dir(folder).context(doing)? {
        let path = entry.context(doing)?.path();
        if !stays(&path) {
            fs::remove_file(path).context(doing)?;
        }
    }
    File::create(folder.join(format!("{}{PARTIAL}", start.name(size)))).context(doing)?;
    Ok(())
}

impl Receiver {
    /// Starts it with segment `start`; whole ones from `kept` on stay. `name` is what the server calls it.
    pub async fn start(
        physical: &Physical,
        (major, size): (u32, SegmentSize),
        folder: &Path,
        (kept, start): (Segment, Segment),
        name: &str,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        steer(folder, kept, start, size)?;
        let postgres = &physical.postgres;
        let client = client::for_server("pg_receivewal", major, postgres.bin_dir.as_deref())?;
        let program = postgres
            .program(client.path, "replication")
            .env("PGAPPNAME", name)
            .arg("--directory")
            .arg(folder)
            // Without a slot of its own: that would move on with what is only on this disk.
            .args(["--synchronous", "--no-loop", "--no-password", "--status-interval=1"]);
        let stop = cancel.child_token();
        let child = child::spawn(program, Pipes::Stdout, stop.clone()).await?;
        Ok(Self { stop, end: Some(child.end) })
    }

    /// How it ended, once it has.
    pub async fn ended(&mut self) -> Option<Ending> {
        let end = self.end.take_if(|end| end.is_finished())?;
        Some(match child::ended(end).await {
            Ok(ended) => {
                let fault = ended.fault();
                match fault.chain().contains("has already been removed") {
                    true => Ending::Removed(fault.chain()),
                    false if is_over(&ended.stderr) => Ending::Over,
                    false => Ending::Broken(explain(fault)),
                }
            }
            Err(fault) => Ending::Broken(fault),
        })
    }

    /// Ends it and waits for that.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(end) = self.end.take() {
            // That it was stopped is what it says then.
            child::ended(end).await.ok();
        }
    }
}

/// Asked for what lies behind a timeline's end the server answers without an error and without a log, and
/// the program has no word for that.
fn is_over(said: &[String]) -> bool {
    said.iter().any(|line| line.ends_with("replication command \"START_REPLICATION\":"))
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Adds the next step to what a program of the replication protocol said.
pub(super) fn explain(fault: Fault) -> Fault {
    let text = fault.chain();
    let hint = if text.contains("no pg_hba.conf entry for replication") {
        "add a line to pg_hba.conf, as in: host replication USER ADDRESS scram-sha-256; then SELECT pg_reload_conf();"
    } else if text.contains("number of requested standby connections")
        || text.contains("max_wal_senders")
    {
        "ALTER SYSTEM SET max_wal_senders = 10; and restart the server"
    } else if text.contains("must be superuser or replication role")
        || text.contains("permission denied to start WAL sender")
    {
        "give the role the right: ALTER ROLE ... REPLICATION;"
    } else if text.contains("No space left") {
        "the disk of data_dir is full"
    } else {
        return fault;
    };
    fault.hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_complete_is_a_segment() {
        let folder = tempfile::tempdir().unwrap();
        let size = SegmentSize::try_from(1 << 20).unwrap();
        let next = Segment { timeline: 1, number: 7 };
        File::create(folder.path().join("old")).unwrap();
        steer(folder.path(), next, next, size).unwrap();
        let empty = received(folder.path(), size).unwrap();
        assert!(empty.whole.is_empty() && empty.partial.is_empty(), "{empty:?}");
        for (name, bytes) in [
            (next.name(size), 1 << 20),
            (next.next().name(size), 100),
            (format!("{}.partial", next.next().name(size)), 1 << 20),
            ("00000002.history".to_owned(), 10),
        ] {
            File::create(folder.path().join(name)).unwrap().set_len(bytes).unwrap();
        }
        let found = received(folder.path(), size).unwrap();
        let segments =
            |found: &[(Segment, PathBuf)]| found.iter().map(|one| one.0).collect::<Vec<_>>();
        assert_eq!(segments(&found.whole), [next]);
        assert_eq!(segments(&found.partial), [next.next()]);
        assert_eq!(found.histories[0].0, 2);
        // What is whole stays, and what follows it is asked for.
        assert_eq!(first_missing(folder.path(), next, size).unwrap(), next.next());
        steer(folder.path(), next, next.next(), size).unwrap();
        assert_eq!(segments(&received(folder.path(), size).unwrap().whole), [next]);
        let before = Segment { timeline: 1, number: 6 };
        assert_eq!(first_missing(folder.path(), before, size).unwrap(), before);
    }
}
