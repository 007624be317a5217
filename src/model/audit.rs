//! Who did what, when, from where. Knows the words of the audit; must not know how it is kept.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::JobName;
use super::run::words;
use crate::fault::Fault;

/// Somebody who does something, and where they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Actor {
    /// `cli:anna`, `token:ci`, `anonymous`, `signal` or `daemon`.
    pub name: String,
    /// An IP address, or `local`.
    pub origin: String,
}

impl Actor {
    /// The daemon, by itself.
    pub fn daemon() -> Self {
        Self { name: "daemon".into(), origin: "local".into() }
    }

    /// Whoever sent the daemon a signal.
    pub fn signal() -> Self {
        Self { name: "signal".into(), origin: "local".into() }
    }

    /// Who runs a command.
    pub fn command(user: &str) -> Self {
        Self { name: format!("cli:{user}"), origin: "local".into() }
    }

    /// Who came with a token of that name.
    pub fn token(name: &str, from: IpAddr) -> Self {
        Self { name: format!("token:{name}"), origin: from.to_string() }
    }

    /// Who came without one that opens.
    pub fn nobody(from: IpAddr) -> Self {
        Self { name: "anonymous".into(), origin: from.to_string() }
    }
}

words! {
    /// What somebody did.
    Action {
        Backup = "backup", Verify = "verify", Drill = "drill", Restore = "restore", Undo = "undo",
        Erase = "erase", Pin = "pin", Unpin = "unpin", Prune = "prune", Cancel = "cancel",
        Reload = "reload", Download = "download", TokenCreate = "token_create",
        TokenRevoke = "token_revoke", TokenUse = "token_use", Login = "login", Logout = "logout",
        WalAdopt = "wal_adopt", WalDetach = "wal_detach",
    }
}

words! {
    /// What came of it. `Begun` is an intent: without a later row that names it, it was cut off.
    AuditOutcome { Begun = "begun", Done = "done", Failed = "failed", Refused = "refused" }
}

/// Something that somebody does.
#[derive(Debug, Clone)]
pub struct Deed {
    pub action: Action,
    pub job: Option<JobName>,
    /// What it is done to: a backup, a run, a token, a database.
    pub subject: Option<String>,
    pub detail: Option<String>,
}

impl Deed {
    pub fn new(action: Action) -> Self {
        Self { action, job: None, subject: None, detail: None }
    }

    /// To something of a job.
    pub fn of(action: Action, job: &JobName) -> Self {
        Self { job: Some(job.clone()), ..Self::new(action) }
    }

    pub fn to(mut self, subject: impl fmt::Display) -> Self {
        self.subject = Some(subject.to_string());
        self
    }

    pub fn saying(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// A row of the audit.
#[derive(Debug, Clone, Serialize)]
pub struct AuditEvent {
    /// Rising, without gaps.
    pub seq: i64,
    pub at: Timestamp,
    pub actor: String,
    pub from: String,
    pub action: Action,
    pub outcome: AuditOutcome,
    /// The `seq` of the intent whose outcome this is.
    pub intent: Option<i64>,
    pub job: Option<JobName>,
    pub subject: Option<String>,
    pub detail: Option<String>,
}
