//! A way to tell people, checked. Knows no file format.

use std::path::PathBuf;

use globset::GlobSet;
use jiff::SignedDuration;

use crate::alert::{Heartbeat, Webhook};
use crate::model::Severity;
use crate::schedule::Schedule;
use crate::secret::Secret;

/// A named way to tell people.
#[derive(Debug, Clone)]
pub struct AlertRoute {
    pub name: String,
    pub channel: Channel,
    /// As it was written; each matches a job. Empty: all jobs.
    pub jobs: Vec<String>,
    pub matching: Option<GlobSet>,
    pub severity: Severity,
    pub success: bool,
    pub repeat: SignedDuration,
    /// At least 1.
    pub per_hour: usize,
    /// May be empty.
    pub digest: Schedule,
    /// That schedule as it was written.
    pub digest_lines: Vec<String>,
}

#[derive(Debug, Clone)]
pub enum Channel {
    Email(Email),
    Slack { webhook: Secret },
    Webhook(Webhook),
    Heartbeat(Heartbeat),
}

#[derive(Debug, Clone)]
pub struct Email {
    /// `a@b` or `Name <a@b>`, checked; so is each of `to`.
    pub from: String,
    /// At least one.
    pub to: Vec<String>,
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    /// Both or neither.
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// A further certificate authority, PEM.
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// From the first byte (`smtps://`).
    Implicit,
    /// By STARTTLS, and not at all without it (`smtp://`).
    StartTls,
    None,
}
