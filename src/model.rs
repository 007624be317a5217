//! The facts that every room shares: names, ids, digests, manifests, runs. Knows the words of the
//! design and the shape of format 1; must not know how anything is stored, moved or decided.

pub mod artifact;
pub mod audit;
pub mod backup;
pub mod chain;
pub mod database;
pub mod erasure;
pub mod fingerprint;
pub mod manifest;
pub mod pin;
pub mod proof;
pub mod role;
pub mod run;
pub mod wal;

pub use artifact::{
    Artifact, ArtifactFormat, Cipher, Compression, Content, Encryption, TableName, Volume,
};
pub use audit::{Action, Actor, AuditEvent, AuditOutcome, Deed};
pub use backup::{BackupId, BackupKind, JobName, Mark, Sha256};
pub use chain::chain;
pub use database::{Belongings, Locale, Right, Setting};
pub use erasure::{Erasure, Ledger, Subject, Tombstone};
pub use fingerprint::{Fingerprint, FingerprintLevel, SequencePrint, TablePrint};
pub use manifest::{Engine, Manifest, SourceFacts};
pub use pin::Pin;
pub use proof::Proof;
pub use role::Role;
pub use run::{Again, Event, EventKind, RunId, RunKind, RunState, Severity, Trigger};
pub use wal::{
    Heartbeat, Heartbeats, Lsn, PhysicalFacts, Replayed, Segment, SegmentSize, Tablespace, WalFile,
    WalGap, WalPlace, WalProgress, WalState,
};

/// The version of this program: the tag's where it was built from one (`RESPALDO_VERSION`, set by
/// `make dist` and the Dockerfile), else Cargo's.
pub const VERSION: &str = match option_env!("RESPALDO_VERSION") {
    Some(version) if !version.is_empty() => version,
    _ => env!("CARGO_PKG_VERSION"),
};
