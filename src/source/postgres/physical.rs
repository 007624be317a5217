//! A whole PostgreSQL server by its own replication protocol: base backups by `pg_basebackup`, the
//! write-ahead log by `pg_receivewal`. Knows programs, slots and what a server must allow; must not know
//! where anything is stored.

mod base;
mod combine;
mod data_folder;
mod inside;
mod packed;
mod primary;
mod proving;
mod receiver;
mod settings;

use std::sync::atomic::Ordering;

use async_trait::async_trait;

use super::{Postgres, client};
use crate::fault::{Fault, Result};
use crate::model::{BackupId, Engine, Lsn, PhysicalFacts, Segment, SegmentSize, SourceFacts};
use crate::source::child;
use crate::source::{Closing, Dump, Scratch, Session, Since, Source, Target, Wanted};
use base::Base;
pub use base::{INCREMENTAL_FROM, manifest_in};
pub use combine::{Combiner, Stage};
pub use data_folder::{DataFolder, Space, UNFINISHED};
use inside::{Label, Listed};
use packed::PACKED_FROM;
pub use primary::{Primary, Sample, Slot};
use proving::PhysicalScratch;
pub use receiver::{Ending, Received, Receiver, first_missing, received};

/// A server that is backed up whole.
#[derive(Debug, Clone)]
pub struct Physical {
    /// How to get in, and the database in which questions are asked.
    pub postgres: Postgres,
    /// The slot that keeps the log until it is stored.
    pub slot: String,
    /// Goes on though nothing bounds what the slot keeps.
    pub allow_unbounded_slot: bool,
    /// The zstd level that the server may compress at before it sends; None: it does not.
    pub zstd: Option<i32>,
    /// PostgreSQL's own list of the files is an artifact too: an incremental backup begins with it.
    pub listed: bool,
}

#[async_trait]
impl Source for Physical {
    fn engine(&self) -> Engine {
        Engine::Physical
    }

    fn name(&self) -> String {
        format!("{}:{}", self.postgres.host, self.postgres.port)
    }

    fn server(&self) -> Option<String> {
        self.postgres.server()
    }

    fn physical(&self) -> Option<&Physical> {
        Some(self)
    }

    async fn inspect(&self, session: &Session) -> Result<SourceFacts> {
        let mut primary = Primary::connect(self).await?;
        let facts = self.facts(&mut primary, session).await;
        let major = primary.major;
        primary.close().await;
        self.try_replication(major, session).await?;
        facts
    }

    async fn open(&self, session: &Session) -> Result<Dump> {
        let mut primary = Primary::connect(self).await?;
        let facts = self.facts(&mut primary, session).await?;
        let tablespaces = primary.tablespaces().await?;
        let whole = PhysicalFacts {
            timeline: primary.timeline,
            start_lsn: Lsn(0),
            stop_lsn: Lsn(0),
            segment_bytes: primary.segment_bytes,
            since: None,
            checksums: Some(primary.checksums),
            tablespaces: tablespaces.clone(),
            settings: primary.recovery_settings().await?,
        };
        let bin_dir = self.postgres.bin_dir.as_deref();
        let client = client::for_server("pg_basebackup", primary.major, bin_dir)?;
        let major = primary.major;
        let listed = self.listed && major >= INCREMENTAL_FROM;
        let base = Base::new(&Self { listed, ..self.clone() }, client.path, session);
        primary.close().await;
        let (seen, damaged) = (base.seen.clone(), base.damaged.clone());
        let packed = match self.zstd.filter(|_| major >= PACKED_FROM && tablespaces.is_empty()) {
            Some(level) => base.packed(level).await?,
            None => None,
        };
        let parts = match packed {
            Some(parts) => parts,
            None if tablespaces.is_empty() => base.streamed(),
            None => base.spooled(&tablespaces).await?,
        };
        let wanted = session.since.clone();
        let closing = async move {
            let label = seen.label()?;
            let Listed { stop_lsn, tar_bytes } = seen.listed(label.timeline)?;
            let (start_lsn, timeline) = (label.start_lsn, label.timeline);
            let log = log_tar_bytes(whole.segment_bytes, start_lsn, stop_lsn);
            let since = stands_on(label, wanted.as_ref())?;
            let refused = seen.refused();
            let refused = refused.map(|why| format!("it is a full backup: {why}"));
            Ok(Closing {
                physical: Some(PhysicalFacts { timeline, start_lsn, stop_lsn, since, ..whole }),
                unpacked_bytes: Some(tar_bytes.saturating_add(log)),
                damaged: damaged.load(Ordering::Acquire),
                warnings: refused.into_iter().collect(),
                ..Closing::default()
            })
        };
        Ok(Dump::new(facts, parts).closing_with(closing))
    }

    async fn target(&self, _wanted: &Wanted, _session: &Session) -> Result<Box<dyn Target>> {
        Err(Fault::usage("a base backup is a whole server, and no database")
            .hint("prepare a data folder: respaldo restore JOB --latest --data-dir DIR"))
    }

    async fn scratch(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Scratch>> {
        Ok(Box::new(PhysicalScratch::new(self, wanted, session).await?))
    }
}

/// How much a tar of the segments takes that hold all between two positions, with what comes besides: their
/// `archive_status`, histories and the archive's end.
fn log_tar_bytes(size: SegmentSize, start: Lsn, stop: Lsn) -> u64 {
    const BESIDES: u64 = 1 << 20;
    let number = |lsn| Segment::at(0, lsn, size).number;
    let count = number(stop).saturating_sub(number(start)) + 1;
    count.saturating_mul(size.bytes() + 1024).saturating_add(BESIDES)
}

/// What the backup itself says that it holds the changes since is what was asked for, or it is whole.
fn stands_on(label: Label, wanted: Option<&Since>) -> Result<Option<BackupId>> {
    match (label.since, wanted) {
        (None, _) => Ok(None),
        (Some(_), Some(since)) if label.timeline != since.timeline => {
            Err(Fault::transient("the server was promoted while it was backed up"))
        }
        (Some(lsn), Some(since)) if lsn == since.start_lsn => Ok(Some(since.id)),
        (Some(lsn), _) => Err(Fault::permanent(format!(
            "the base backup holds the changes since {lsn}, which nobody asked for"
        ))),
    }
}

impl Physical {
    /// Whether the server lets us in by the replication protocol too: pg_hba.conf has lines of its own
    /// for that.
    async fn try_replication(&self, major: u32, session: &Session) -> Result<()> {
        let client = client::for_server("psql", major, self.postgres.bin_dir.as_deref())?;
        let program = self.postgres.program(client.path, "replication").args([
            "-X",
            "--no-password",
            "-A",
            "-t",
            "-c",
            "IDENTIFY_SYSTEM",
            "replication=true",
        ]);
        child::output(program, session.cancel.clone()).await.map(drop).map_err(receiver::explain)
    }

    async fn facts(&self, primary: &mut Primary, session: &Session) -> Result<SourceFacts> {
        let (version, size) = primary.version_and_size().await?;
        let bin_dir = self.postgres.bin_dir.as_deref();
        let client = client::for_server("pg_basebackup", primary.major, bin_dir)?;
        Ok(SourceFacts {
            server_version: Some(version),
            size_bytes: Some(size),
            system_id: Some(primary.system_id.clone()),
            tool: Some(client.version(session).await?),
            reads_with: Some(format!("PostgreSQL {}", primary.major)),
            ..SourceFacts::named(Engine::Physical, self.name())
        })
    }

    /// A server that is nowhere: what a base backup is read by.
    pub fn nowhere() -> Self {
        let slot = String::new();
        let postgres = Postgres::nowhere("postgres");
        Self { postgres, slot, allow_unbounded_slot: true, zstd: None, listed: false }
    }
}
