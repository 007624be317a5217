//! The audit: rows are added, read, and never changed; the table itself refuses anything else.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Catalog, millis, time};
use crate::fault::{Context, Result};
use crate::model::{Actor, AuditEvent, AuditOutcome, Deed, JobName};

/// Which rows are wanted.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    pub since: Option<Timestamp>,
    pub job: Option<JobName>,
    /// Only rows before that `seq`.
    pub before: Option<i64>,
    pub most: i64,
}

impl Catalog {
    /// Adds a row; `intent` is the one whose outcome it is.
    pub async fn add_audit(
        &self,
        actor: &Actor,
        deed: &Deed,
        outcome: AuditOutcome,
        intent: Option<i64>,
        now: Timestamp,
    ) -> Result<i64> {
        sqlx::query_scalar(
            "INSERT INTO audit (at, actor, origin, action, outcome, intent, job, subject, detail)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq",
        )
        .bind(millis(now))
        .bind(&actor.name)
        .bind(&actor.origin)
        .bind(deed.action.as_str())
        .bind(outcome.as_str())
        .bind(intent)
        .bind(deed.job.as_ref().map(JobName::as_str))
        .bind(&deed.subject)
        .bind(&deed.detail)
        .fetch_one(&self.pool)
        .await
        .context("write into the audit")
    }

    /// The newest rows that are wanted, newest first.
    pub async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEvent>> {
        let doing = "read the audit";
        let rows = sqlx::query(
            "SELECT * FROM audit WHERE at >= ?1 AND (?2 IS NULL OR job = ?2) AND seq < ?3
             ORDER BY seq DESC LIMIT ?4",
        )
        .bind(query.since.map_or(i64::MIN, millis))
        .bind(query.job.as_ref().map(JobName::as_str))
        .bind(query.before.unwrap_or(i64::MAX))
        .bind(query.most)
        .fetch_all(&self.pool)
        .await
        .context(doing)?;
        rows.iter().map(event).collect()
    }

    /// Rows after `seq`, in order, at most `most`.
    pub async fn audit_after(&self, seq: i64, most: i64) -> Result<Vec<AuditEvent>> {
        let rows = sqlx::query("SELECT * FROM audit WHERE seq > ? ORDER BY seq LIMIT ?")
            .bind(seq)
            .bind(most)
            .fetch_all(&self.pool)
            .await
            .context("read the audit")?;
        rows.iter().map(event).collect()
    }
}

fn event(row: &SqliteRow) -> Result<AuditEvent> {
    let doing = "read the audit";
    let text = |column: &str| row.try_get::<String, _>(column).context(doing);
    let maybe = |column: &str| row.try_get::<Option<String>, _>(column).context(doing);
    Ok(AuditEvent {
        seq: row.try_get("seq").context(doing)?,
        at: time(row.try_get("at").context(doing)?),
        actor: text("actor")?,
        from: text("origin")?,
        action: text("action")?.parse()?,
        outcome: text("outcome")?.parse()?,
        intent: row.try_get("intent").context(doing)?,
        job: maybe("job")?.map(|job| job.parse()).transpose()?,
        subject: maybe("subject")?,
        detail: maybe("detail")?,
    })
}
