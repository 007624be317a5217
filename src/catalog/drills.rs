//! What drills have found: which backup was tried, from where, and whether it is proven.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Catalog, millis, time};
use crate::fault::{Context, Result};
use crate::model::{BackupId, JobName, RunId};

/// One drill that came to its end.
#[derive(Debug, Clone)]
pub struct Drill {
    pub job: JobName,
    pub backup: Option<BackupId>,
    pub destination: String,
    pub run: RunId,
    pub at: Timestamp,
    pub proven: bool,
    /// How long it took to load.
    pub seconds: f64,
    pub tables: u64,
    pub rows: u64,
    /// The first thing that was wrong.
    pub failure: Option<String>,
}

impl Catalog {
    pub async fn add_drill(&self, drill: &Drill) -> Result<()> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        sqlx::query(
            "INSERT INTO drills (job, backup, destination, run, at, proven, seconds, tables, rows, failure)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(drill.job.as_str())
        .bind(drill.backup.map(|id| id.to_string()))
        .bind(&drill.destination)
        .bind(drill.run.0)
        .bind(millis(drill.at))
        .bind(drill.proven)
        .bind(drill.seconds)
        .bind(number(drill.tables))
        .bind(number(drill.rows))
        .bind(&drill.failure)
        .execute(&self.pool)
        .await
        .context("record a drill")?;
        Ok(())
    }

    /// Drills that ended from `from` on and before `to`, in order.
    pub async fn drills_between(
        &self,
        job: &JobName,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Vec<Drill>> {
        let doing = "read the drills";
        let rows =
            sqlx::query("SELECT * FROM drills WHERE job = ? AND at >= ? AND at < ? ORDER BY id")
                .bind(job.as_str())
                .bind(millis(from))
                .bind(millis(to))
                .fetch_all(&self.pool)
                .await
                .context(doing)?;
        rows.iter().map(drill).collect()
    }

    /// The newest drills, newest first: of one job or of all, of runs before `before`.
    pub async fn recent_drills(
        &self,
        job: Option<&JobName>,
        before: Option<i64>,
        most: i64,
    ) -> Result<Vec<Drill>> {
        let rows = sqlx::query(
            "SELECT * FROM drills WHERE (?1 IS NULL OR job = ?1) AND run < ?2
             ORDER BY id DESC LIMIT ?3",
        )
        .bind(job.map(JobName::as_str))
        .bind(before.unwrap_or(i64::MAX))
        .bind(most)
        .fetch_all(&self.pool)
        .await
        .context("read the drills")?;
        rows.iter().map(drill).collect()
    }

    /// The newest drill of a job that proved a backup.
    pub async fn latest_proof(&self, job: &JobName) -> Result<Option<Drill>> {
        let row =
            sqlx::query("SELECT * FROM drills WHERE job = ? AND proven ORDER BY id DESC LIMIT 1")
                .bind(job.as_str())
                .fetch_optional(&self.pool)
                .await
                .context("read the drills")?;
        row.as_ref().map(drill).transpose()
    }

    /// When each destination of a job was last drilled, proven or not.
    pub async fn last_drills(&self, job: &JobName) -> Result<BTreeMap<String, Timestamp>> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT destination, max(at) FROM drills WHERE job = ? GROUP BY 1")
                .bind(job.as_str())
                .fetch_all(&self.pool)
                .await
                .context("read the drills")?;
        Ok(rows.into_iter().map(|(destination, at)| (destination, time(at))).collect())
    }

    /// When backups of a job were last proven, by backup and destination.
    pub async fn proofs(&self, job: &JobName) -> Result<BTreeMap<(BackupId, String), Timestamp>> {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT backup, destination, max(at) FROM drills
             WHERE job = ? AND proven AND backup IS NOT NULL GROUP BY 1, 2",
        )
        .bind(job.as_str())
        .fetch_all(&self.pool)
        .await
        .context("read the drills")?;
        rows.into_iter()
            .map(|(backup, destination, at)| Ok(((backup.parse()?, destination), time(at))))
            .collect()
    }

    /// When a backup of the job was last proven. Where the drill itself is forgotten its mark still
    /// counts, as of the moment that was backed up.
    pub async fn last_proven(&self, job: &JobName) -> Result<Option<Timestamp>> {
        let at: Option<i64> = sqlx::query_scalar(
            "SELECT max(at) FROM (
                SELECT at FROM drills WHERE job = ?1 AND proven
                UNION ALL
                SELECT b.started FROM backups b JOIN copies c USING (job, id)
                WHERE b.job = ?1 AND c.proven)",
        )
        .bind(job.as_str())
        .fetch_one(&self.pool)
        .await
        .context("read the drills")?;
        Ok(at.map(time))
    }
}

fn drill(row: &SqliteRow) -> Result<Drill> {
    let doing = "read the drills";
    let number = |column: &str| -> Result<u64> {
        Ok(row.try_get::<i64, _>(column).context(doing)?.max(0).cast_unsigned())
    };
    let job: String = row.try_get("job").context(doing)?;
    let backup: Option<String> = row.try_get("backup").context(doing)?;
    Ok(Drill {
        job: job.parse()?,
        backup: backup.map(|id| id.parse()).transpose()?,
        destination: row.try_get("destination").context(doing)?,
        run: RunId(row.try_get("run").context(doing)?),
        at: time(row.try_get("at").context(doing)?),
        proven: row.try_get("proven").context(doing)?,
        seconds: row.try_get("seconds").context(doing)?,
        tables: number("tables")?,
        rows: number("rows")?,
        failure: row.try_get("failure").context(doing)?,
    })
}
