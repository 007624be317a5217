//! Counts and sums over everything, for metrics. Knows rows; must not know what they are called
//! outside. Each is answered by an index: they are asked for every few seconds.

use jiff::Timestamp;

use super::{Catalog, millis, time};
use crate::fault::{Context, Result};

/// Runs of one job and kind that ended in the same way.
#[derive(Debug)]
pub struct Ended {
    pub job: String,
    pub kind: String,
    pub state: String,
    pub count: i64,
    /// When the last of them ended.
    pub last: Option<Timestamp>,
}

/// What is kept of a job on one destination.
#[derive(Debug)]
pub struct Kept {
    pub job: String,
    pub destination: String,
    pub count: i64,
    pub stored_bytes: i64,
}

/// The last drill of a job on one destination.
#[derive(Debug)]
pub struct LastDrill {
    pub job: String,
    pub destination: String,
    pub at: Timestamp,
    pub proven: bool,
}

/// The last drill of a job that proved a backup: how long it took to load, and how many rows.
#[derive(Debug)]
pub struct LastProof {
    pub job: String,
    pub seconds: f64,
    pub rows: i64,
}

impl Catalog {
    /// Runs that are over.
    pub async fn ended(&self) -> Result<Vec<Ended>> {
        let rows: Vec<(String, String, String, i64, Option<i64>)> = sqlx::query_as(
            "SELECT job, kind, state, count(*), max(finished_at) FROM runs
             WHERE state NOT IN ('queued', 'running') GROUP BY job, kind, state",
        )
        .fetch_all(&self.pool)
        .await
        .context("count the runs")?;
        let ended = rows.into_iter().map(|(job, kind, state, count, last)| {
            let last = last.map(time);
            Ended { job, kind, state, count, last }
        });
        Ok(ended.collect())
    }

    /// How many runs wait and could start at `now`, and how many go on.
    pub async fn busy(&self, now: Timestamp) -> Result<(i64, i64)> {
        sqlx::query_as(
            "SELECT (SELECT count(*) FROM runs WHERE state = 'queued' AND not_before <= ?),
                    (SELECT count(*) FROM runs WHERE state = 'running')",
        )
        .bind(millis(now))
        .fetch_one(&self.pool)
        .await
        .context("count the queue")
    }

    /// Every copy, by job and destination.
    pub async fn kept_copies(&self) -> Result<Vec<Kept>> {
        let rows: Vec<(String, String, i64, i64)> = sqlx::query_as(
            "SELECT job, destination, count(*), sum(stored_bytes) FROM copies
             GROUP BY job, destination",
        )
        .fetch_all(&self.pool)
        .await
        .context("count the backups")?;
        let kept = rows.into_iter().map(|(job, destination, count, stored_bytes)| Kept {
            job,
            destination,
            count,
            stored_bytes,
        });
        Ok(kept.collect())
    }

    pub async fn last_drill_outcomes(&self) -> Result<Vec<LastDrill>> {
        let rows: Vec<(String, String, i64, bool)> = sqlx::query_as(
            "SELECT job, destination, at, proven FROM drills
             WHERE id IN (SELECT max(id) FROM drills GROUP BY job, destination) ORDER BY 1, 2",
        )
        .fetch_all(&self.pool)
        .await
        .context("read the drills")?;
        let drill =
            |(job, destination, at, proven)| LastDrill { job, destination, at: time(at), proven };
        Ok(rows.into_iter().map(drill).collect())
    }

    pub async fn last_proofs(&self) -> Result<Vec<LastProof>> {
        let rows: Vec<(String, f64, i64)> = sqlx::query_as(
            "SELECT job, seconds, rows FROM drills
             WHERE id IN (SELECT max(id) FROM drills WHERE proven GROUP BY job) ORDER BY 1",
        )
        .fetch_all(&self.pool)
        .await
        .context("read the drills")?;
        Ok(rows.into_iter().map(|(job, seconds, rows)| LastProof { job, seconds, rows }).collect())
    }
}
