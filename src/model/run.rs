//! One execution of a job, and what is told about it. Knows the words; must not know the catalog or
//! how a message is sent.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::JobName;
use crate::fault::Fault;

/// A run's number in the catalog, rising.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub i64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for RunId {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        text.parse().map(Self).map_err(|_| {
            Fault::usage(format!("'{text}' is not a run number"))
                .hint("`respaldo status` shows the runs that are under way")
        })
    }
}

/// Words that stand in the catalog, in JSON and on the screen alike.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $(#[serde(rename = $word)] $variant),* }

        impl $name {
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = Fault;

            fn from_str(text: &str) -> Result<Self, Fault> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(Fault::permanent(format!("unknown {} '{text}'", stringify!($name)))),
                }
            }
        }
    };
}

pub(super) use words;

words! {
    /// What a run does.
    RunKind {
        Backup = "backup", Verify = "verify", Restore = "restore", Prune = "prune", Sync = "sync",
        Erase = "erase", Drill = "drill", Incremental = "incremental",
    }
}

impl RunKind {
    /// Whether a backup comes of it.
    pub fn makes_backup(self) -> bool {
        matches!(self, Self::Backup | Self::Incremental)
    }
}

words! {
    /// Where a run stands. `Queued` and `Running` are the only ones that change.
    RunState {
        Queued = "queued", Running = "running", Succeeded = "succeeded", Partial = "partial",
        Failed = "failed", Interrupted = "interrupted", Cancelled = "cancelled",
    }
}

words! {
    /// Why a run was asked for.
    Trigger { Schedule = "schedule", CatchUp = "catch_up", Manual = "manual", Retry = "retry",
        Change = "change" }
}

words! {
    /// What somebody is told.
    EventKind {
        Failed = "failed", Partial = "partial", Interrupted = "interrupted", Recovered = "recovered",
        PruneHeld = "prune_held", Anomaly = "anomaly", SyncFailed = "sync_failed",
        HookFailed = "hook_failed", DrillFailed = "drill_failed", VerifyFailed = "verify_failed",
        DiskLow = "disk_low", WalLate = "wal_late", WalGap = "wal_gap", WalHalted = "wal_halted",
        WalRetained = "wal_retained",
        Late = "late", Never = "never", Expiring = "expiring",
        Started = "started", Succeeded = "succeeded", Digest = "digest", Test = "test",
    }
}

words! {
    /// How much a message matters; the worst last.
    #[derive(PartialOrd, Ord)]
    Severity { Info = "info", Warning = "warning", Error = "error" }
}

impl EventKind {
    pub const fn severity(self) -> Severity {
        match self {
            Self::Failed
            | Self::Interrupted
            | Self::Late
            | Self::Never
            | Self::DrillFailed
            | Self::WalLate
            | Self::WalGap
            | Self::WalHalted
            | Self::VerifyFailed => Severity::Error,
            Self::Partial
            | Self::PruneHeld
            | Self::Anomaly
            | Self::SyncFailed
            | Self::HookFailed
            | Self::DiskLow
            | Self::WalRetained
            | Self::Expiring => Severity::Warning,
            Self::Recovered | Self::Started | Self::Succeeded | Self::Digest | Self::Test => {
                Severity::Info
            }
        }
    }

    /// Trouble that goes on: the same again is no news for a while.
    pub fn goes_on(self) -> bool {
        self.severity() > Severity::Info
    }
}

impl RunState {
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// Something that happened and that a person should hear of. Kept in the outbox until sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub kind: EventKind,
    /// `None`: it is about all of them, or about none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// Where a job may have several such troubles at once, which one: a destination, a file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    pub at: Timestamp,
    /// One sentence.
    pub summary: String,
    /// Further facts, `label` and `value`.
    #[serde(default)]
    pub details: Vec<(String, String)>,
    /// The next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Of a recovery: the kinds of trouble that are over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<EventKind>,
    /// It happened before, and people know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Again>,
}

/// How often something has happened, this time included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    pub times: u32,
    pub since: Timestamp,
}

impl Event {
    /// The bare fact; `..Event::new(...)` for one with more to it.
    pub fn new(
        kind: EventKind,
        job: Option<JobName>,
        at: Timestamp,
        summary: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            job,
            about: String::new(),
            run: None,
            at,
            summary: summary.into(),
            details: Vec::new(),
            hint: None,
            ends: Vec::new(),
            again: None,
        }
    }

    /// How much it matters: the end of trouble as much as the trouble.
    pub fn severity(&self) -> Severity {
        let ended = self.ends.iter().map(|kind| kind.severity()).max();
        ended.unwrap_or(self.kind.severity())
    }
}
