//! What happened, for reports: runs, drills and deletions of a job. Knows rows; must not know what a
//! report says of them.

use jiff::Timestamp;
use sqlx::Row;

use super::{Catalog, Run, millis, time};
use crate::fault::{Context, Result};
use crate::model::{BackupId, JobName};

/// Why something was deleted from a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// No rule kept it.
    Pruned,
    /// A part of it was erased.
    Erased,
}

impl Gone {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pruned => "pruned",
            Self::Erased => "erased",
        }
    }
}

/// Something that was deleted.
#[derive(Debug, Clone)]
pub struct Removed {
    pub id: BackupId,
    pub destination: String,
    pub what: Gone,
}

/// A drill as it was recorded.
#[derive(Debug, Clone)]
pub struct DrillRecord {
    /// `None`: there was none to try.
    pub backup: Option<String>,
    pub destination: String,
    pub at: Timestamp,
    pub proven: bool,
    pub seconds: Option<f64>,
    pub tables: Option<i64>,
    pub rows: Option<i64>,
    pub failure: Option<String>,
}

impl Catalog {
    /// Every run of a job, in order.
    pub async fn runs_of(&self, job: &JobName) -> Result<Vec<Run>> {
        sqlx::query_as("SELECT * FROM runs WHERE job = ? ORDER BY id")
            .bind(job.as_str())
            .fetch_all(&self.pool)
            .await
            .context("read the runs")
    }

    pub async fn add_removal(
        &self,
        job: &JobName,
        (id, destination): (&BackupId, &str),
        what: Gone,
        now: Timestamp,
    ) -> Result<()> {
        sqlx::query("INSERT INTO removals (job, id, destination, at, what) VALUES (?, ?, ?, ?, ?)")
            .bind(job.as_str())
            .bind(id.to_string())
            .bind(destination)
            .bind(millis(now))
            .bind(what.as_str())
            .execute(&self.pool)
            .await
            .context("record a deletion")?;
        Ok(())
    }

    /// What was deleted from `from` on and before `to`, in order.
    pub async fn removals_between(
        &self,
        job: &JobName,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Vec<Removed>> {
        let rows: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT id, destination, what FROM removals WHERE job = ? AND at >= ? AND at < ?
             ORDER BY seq",
        )
        .bind(job.as_str())
        .bind(millis(from))
        .bind(millis(to))
        .fetch_all(&self.pool)
        .await
        .context("read the deletions")?;
        let removed = rows.into_iter().map(|(id, destination, what)| {
            let what = if what == Gone::Erased.as_str() { Gone::Erased } else { Gone::Pruned };
            Ok(Removed { id: id.parse()?, destination, what })
        });
        removed.collect()
    }

    /// Drills that ended from `from` on and before `to`, in order.
    pub async fn drills_between(
        &self,
        job: &JobName,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Vec<DrillRecord>> {
        let doing = "read the drills";
        let rows =
            sqlx::query("SELECT * FROM drills WHERE job = ? AND at >= ? AND at < ? ORDER BY id")
                .bind(job.as_str())
                .bind(millis(from))
                .bind(millis(to))
                .fetch_all(&self.pool)
                .await
                .context(doing)?;
        let drill = |row: sqlx::sqlite::SqliteRow| -> sqlx::Result<DrillRecord> {
            Ok(DrillRecord {
                backup: row.try_get("backup")?,
                destination: row.try_get("destination")?,
                at: time(row.try_get("at")?),
                proven: row.try_get("proven")?,
                seconds: row.try_get("seconds")?,
                tables: row.try_get("tables")?,
                rows: row.try_get("rows")?,
                failure: row.try_get("failure")?,
            })
        };
        rows.into_iter().map(drill).collect::<sqlx::Result<_>>().context(doing)
    }
}
