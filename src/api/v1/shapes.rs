//! The shapes that the API has of its own; those of `--json` are in docs/json.md.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::catalog;
use crate::model::{AuditEvent, Role};

/// A run as the catalog knows it.
#[derive(Serialize, ToSchema)]
pub struct Run {
    pub id: i64,
    pub job: String,
    /// `backup`, `incremental`, `verify`, `drill`, `restore`, `prune`, `sync` or `erase`.
    pub kind: String,
    /// `queued`, `running`, `succeeded`, `partial`, `failed`, `interrupted` or `cancelled`.
    pub state: String,
    /// `schedule`, `catch_up`, `manual`, `retry` or `change`.
    pub trigger: String,
    pub label: Option<String>,
    pub attempt: u32,
    pub requested_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub heartbeat_at: Option<Timestamp>,
    /// The id of the backup that it makes or made.
    pub backup: Option<String>,
    pub error: Option<String>,
    pub hint: Option<String>,
    pub warnings: Vec<String>,
    pub plain_bytes: u64,
    pub stored_bytes: u64,
    /// What the source said its size is.
    pub total_bytes: Option<u64>,
}

impl From<catalog::Run> for Run {
    fn from(run: catalog::Run) -> Self {
        Self {
            id: run.id.0,
            job: run.job.to_string(),
            kind: run.kind.to_string(),
            state: run.state.to_string(),
            trigger: run.trigger.to_string(),
            label: run.label,
            attempt: run.attempt,
            requested_at: run.requested_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            heartbeat_at: run.heartbeat_at,
            backup: run.backup.map(|id| id.to_string()),
            error: run.error,
            hint: run.hint,
            warnings: run.warnings,
            plain_bytes: run.plain_bytes,
            stored_bytes: run.stored_bytes,
            total_bytes: run.total_bytes,
        }
    }
}

/// Runs, the newest first.
#[derive(Serialize, ToSchema)]
pub struct Runs {
    pub runs: Vec<Run>,
    /// Give it as `before` for those that follow; `null`: there are no more.
    pub next: Option<i64>,
}

/// A run that was asked for.
#[derive(Serialize, ToSchema)]
pub struct Accepted {
    /// Its number; `/api/v1/runs/{run}` tells how it goes.
    pub run: i64,
}

/// What a run is called.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// A word to find a backup by, such as pre-migration.
    #[serde(default)]
    #[schema(max_length = 200)]
    pub label: Option<String>,
    /// Only what has changed since the last base backup, of a job with `incremental`.
    #[serde(default)]
    pub incremental: bool,
}

/// Why a backup is pinned.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Note {
    #[serde(default)]
    #[schema(max_length = 500)]
    pub note: Option<String>,
}

/// Who asks.
#[derive(Serialize, ToSchema)]
pub struct Me {
    pub name: String,
    /// `viewer`, `operator` or `admin`.
    pub role: String,
}

/// A job of the config.
#[derive(Serialize, ToSchema)]
pub struct Job {
    pub name: String,
    /// What is backed up, such as `postgres shop`.
    pub sources: Vec<String>,
    /// The schedule as it was written; empty: only when asked to.
    pub schedule: Vec<String>,
    pub timezone: String,
    pub next_run: Option<Timestamp>,
    /// Of a job with `incremental`.
    pub next_incremental: Option<Timestamp>,
    pub next_drill: Option<Timestamp>,
    pub next_verify: Option<Timestamp>,
    pub max_age_seconds: Option<i64>,
    pub encrypted: bool,
    pub destinations: Vec<Place>,
}

/// A destination of a job.
#[derive(Serialize, ToSchema)]
pub struct Place {
    pub name: String,
    /// Its URL, without secrets.
    pub place: String,
    pub off_site: bool,
    pub append_only: bool,
    /// As in the config's `keep`.
    #[schema(value_type = Object)]
    pub retention: serde_json::Value,
}

/// A row of the audit.
#[derive(Serialize, ToSchema)]
pub struct Deed {
    /// Rising.
    pub seq: i64,
    pub at: Timestamp,
    /// `cli:USER`, `token:NAME`, `anonymous`, `signal` or `daemon`.
    pub actor: String,
    /// An IP address, or `local`.
    pub from: String,
    pub action: String,
    /// `begun`, `done`, `failed` or `refused`.
    pub outcome: String,
    /// The `seq` of the intent whose outcome this is.
    pub intent: Option<i64>,
    pub job: Option<String>,
    pub subject: Option<String>,
    pub detail: Option<String>,
}

impl From<AuditEvent> for Deed {
    fn from(row: AuditEvent) -> Self {
        Self {
            seq: row.seq,
            at: row.at,
            actor: row.actor,
            from: row.from,
            action: row.action.to_string(),
            outcome: row.outcome.to_string(),
            intent: row.intent,
            job: row.job.map(|job| job.to_string()),
            subject: row.subject,
            detail: row.detail,
        }
    }
}

/// Rows of the audit, the newest first.
#[derive(Serialize, ToSchema)]
pub struct Audit {
    pub events: Vec<Deed>,
    /// Give it as `before` for those that follow; `null`: there are no more.
    pub next: Option<i64>,
}

/// A token; never what it is.
#[derive(Serialize, ToSchema)]
pub struct Token {
    pub name: String,
    pub role: String,
    /// `config` or `catalog`.
    pub from: &'static str,
    pub created_at: Option<Timestamp>,
    /// `null`: never.
    pub expires_at: Option<Timestamp>,
    pub used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

/// Whom a token is for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenWanted {
    /// Lower-case letters, digits, - and _.
    #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$")]
    pub name: crate::model::JobName,
    #[schema(value_type = String, pattern = "^(viewer|operator|admin)$")]
    pub role: Role,
    /// For how many days it is good; none: until it is revoked.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 3650)]
    pub days: Option<u16>,
}

/// A token that was just made.
#[derive(Serialize, ToSchema)]
pub struct TokenMade {
    pub name: String,
    pub role: String,
    /// Shown this once.
    pub token: String,
    pub expires_at: Option<Timestamp>,
}

/// What came of reading the config again.
#[derive(Serialize, ToSchema)]
pub struct Reloaded {
    pub warnings: Vec<String>,
}

/// What is to be restored, and into what.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreWanted {
    /// A backup's id; none: the newest.
    #[serde(default)]
    pub id: Option<String>,
    /// From this destination; none: the first that has it.
    #[serde(default)]
    pub destination: Option<String>,
    /// Into a database of this name; none: the one that was backed up.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 63, pattern = "^[A-Za-z0-9_.-]+$")]
    pub database: Option<String>,
}

/// What a restore would do. It is carried out at the command line alone.
#[derive(Serialize, ToSchema)]
pub struct RestorePlan {
    pub job: String,
    pub id: String,
    pub destination: String,
    /// The plan, for people.
    pub lines: Vec<String>,
    /// What stands in the way; `null`: nothing.
    pub obstacle: Option<String>,
    /// What to type on respaldo's machine.
    pub command: String,
}

/// What one destination keeps of a job, and why.
#[derive(Serialize, ToSchema)]
pub struct Plan {
    pub destination: String,
    pub decisions: Vec<Decision>,
    /// Why nothing would be deleted at all; `null`: nothing holds it back.
    pub held: Option<String>,
    pub append_only: bool,
    pub warnings: Vec<String>,
}

/// What becomes of a backup.
#[derive(Serialize, ToSchema)]
pub struct Decision {
    pub id: String,
    pub keep: bool,
    pub reasons: Vec<String>,
}

/// A drill that came to its end.
#[derive(Serialize, ToSchema)]
pub struct Drill {
    pub job: String,
    pub run: i64,
    pub at: Timestamp,
    /// `null`: none was found there.
    pub backup: Option<String>,
    pub destination: String,
    pub proven: bool,
    /// How long it took to load.
    pub seconds: f64,
    pub tables: u64,
    pub rows: u64,
    /// The first thing that was wrong.
    pub failure: Option<String>,
}
