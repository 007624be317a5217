//! The facts that every room shares: names, ids, digests, manifests, runs. Knows the words of the
//! design and the shape of format 1; must not know how anything is stored, moved or decided.

pub mod backup;
pub mod manifest;
pub mod run;

pub use backup::{BackupId, BackupKind, JobName, Mark, Sha256};
pub use manifest::{Artifact, ArtifactFormat, Compression, Engine, Manifest, SourceFacts, Volume};
pub use run::{Event, EventKind, RunId, RunKind, RunState, Trigger};
