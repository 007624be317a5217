//! What happened, for reports: runs and deletions of a job. Knows rows; must not know what a
//! report says of them.

use jiff::Timestamp;

use super::{Catalog, Run, millis};
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

    /// Whether a run brought that backup to a destination, and nothing is known of its removal.
    pub async fn was_delivered(
        &self,
        job: &JobName,
        id: &BackupId,
        destination: &str,
    ) -> Result<bool> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM runs r JOIN deliveries d ON d.run = r.id
             WHERE r.job = ?1 AND r.backup = ?2 AND d.destination = ?3 AND d.error IS NULL
             AND NOT EXISTS (SELECT 1 FROM removals m WHERE m.job = ?1 AND m.id = ?2
                 AND m.destination = ?3 AND m.what = ?4)",
        )
        .bind(job.as_str())
        .bind(id.to_string())
        .bind(destination)
        .bind(Gone::Pruned.as_str())
        .fetch_one(&self.pool)
        .await
        .context("look for what a run delivered")?;
        Ok(count > 0)
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
}
