//! What was read back and found whole or damaged. Knows rows; must not know how a copy is read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::FromRow;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Catalog, millis, time};
use crate::fault::{Context, Result};
use crate::model::{BackupId, JobName};

/// One reading of one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub id: BackupId,
    pub destination: String,
    pub at: Timestamp,
    pub ok: bool,
    /// How far it went: `stored`, `part` or `whole`.
    pub depth: String,
    /// What is wrong with it.
    pub error: Option<String>,
}

impl FromRow<'_, SqliteRow> for Check {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let id: String = row.try_get("id")?;
        Ok(Self {
            id: id
                .parse()
                .map_err(|fault| sqlx::Error::Decode(Box::<crate::fault::Fault>::new(fault)))?,
            destination: row.try_get("destination")?,
            at: time(row.try_get("at")?),
            ok: row.try_get("ok")?,
            depth: row.try_get("depth")?,
            error: row.try_get("error")?,
        })
    }
}

/// The newest reading of each copy, by backup and destination.
pub type Checks = BTreeMap<(BackupId, String), Check>;

impl Catalog {
    pub async fn add_check(&self, job: &JobName, check: &Check) -> Result<()> {
        sqlx::query(
            "INSERT INTO checks (job, id, destination, at, ok, depth, error)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(job.as_str())
        .bind(check.id.to_string())
        .bind(&check.destination)
        .bind(millis(check.at))
        .bind(check.ok)
        .bind(&check.depth)
        .bind(&check.error)
        .execute(&self.pool)
        .await
        .context("record a verification")?;
        Ok(())
    }

    /// What is known of each copy of a job, from the newest time that it was read.
    pub async fn latest_checks(&self, job: &JobName) -> Result<Checks> {
        let rows: Vec<Check> = sqlx::query_as(
            "SELECT * FROM checks WHERE seq IN
                 (SELECT max(seq) FROM checks WHERE job = ? GROUP BY id, destination)",
        )
        .bind(job.as_str())
        .fetch_all(&self.pool)
        .await
        .context("read the verifications")?;
        Ok(rows.into_iter().map(|row| ((row.id, row.destination.clone()), row)).collect())
    }

    /// Every reading from `from` on and before `to`, in order.
    pub async fn checks_between(
        &self,
        job: &JobName,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Vec<Check>> {
        sqlx::query_as("SELECT * FROM checks WHERE job = ? AND at >= ? AND at < ? ORDER BY seq")
            .bind(job.as_str())
            .bind(millis(from))
            .bind(millis(to))
            .fetch_all(&self.pool)
            .await
            .context("read the verifications")
    }
}
