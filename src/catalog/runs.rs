//! The queue and the record of runs: one table, for a queue that a restart must not lose.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::{Catalog, millis, time};
use crate::fault::{Context, Result};
use crate::model::{BackupId, JobName, RunId, RunKind, RunState, Trigger};

/// A run that is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub job: JobName,
    pub kind: RunKind,
    pub trigger: Trigger,
    pub label: Option<String>,
    /// Counted from 1.
    pub attempt: u32,
    pub not_before: Timestamp,
}

impl Request {
    /// A first try, as soon as may be.
    pub fn now(job: &JobName, kind: RunKind, trigger: Trigger, now: Timestamp) -> Self {
        Self { job: job.clone(), kind, trigger, label: None, attempt: 1, not_before: now }
    }

    /// One that its asker carries out itself: it is put so far away that no pool ever takes it.
    pub fn own(job: &JobName, kind: RunKind, trigger: Trigger) -> Self {
        Self::now(job, kind, trigger, Timestamp::MAX)
    }
}

/// A run as the catalog knows it.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub id: RunId,
    pub job: JobName,
    pub kind: RunKind,
    pub state: RunState,
    pub trigger: Trigger,
    pub label: Option<String>,
    pub attempt: u32,
    pub requested_at: Timestamp,
    pub not_before: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub heartbeat_at: Option<Timestamp>,
    pub backup: Option<BackupId>,
    pub error: Option<String>,
    pub hint: Option<String>,
    pub warnings: Vec<String>,
    pub plain_bytes: u64,
    pub stored_bytes: u64,
    /// What the source said its size is.
    pub total_bytes: Option<u64>,
    pub log: Option<String>,
}

impl FromRow<'_, SqliteRow> for Run {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        fn word<T: std::str::FromStr>(row: &SqliteRow, column: &'static str) -> sqlx::Result<T>
        where
            T::Err: std::error::Error + Send + Sync + 'static,
        {
            let text: String = row.try_get(column)?;
            text.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))
        }
        let at = |column: &str| row.try_get::<Option<i64>, _>(column).map(|at| at.map(time));
        let count = |column: &str| row.try_get::<i64, _>(column).map(|n| n.max(0).cast_unsigned());
        let warnings: String = row.try_get("warnings")?;
        let backup: Option<String> = row.try_get("backup")?;
        Ok(Self {
            id: RunId(row.try_get("id")?),
            job: word(row, "job")?,
            kind: word(row, "kind")?,
            state: word(row, "state")?,
            trigger: word(row, "trigger")?,
            label: row.try_get("label")?,
            attempt: u32::try_from(count("attempt")?).unwrap_or(1),
            requested_at: time(row.try_get("requested_at")?),
            not_before: time(row.try_get("not_before")?),
            started_at: at("started_at")?,
            finished_at: at("finished_at")?,
            heartbeat_at: at("heartbeat_at")?,
            backup: backup.and_then(|id| id.parse().ok()),
            error: row.try_get("error")?,
            hint: row.try_get("hint")?,
            warnings: serde_json::from_str(&warnings).unwrap_or_default(),
            plain_bytes: count("plain_bytes")?,
            stored_bytes: count("stored_bytes")?,
            total_bytes: row
                .try_get::<Option<i64>, _>("total_bytes")?
                .map(|n| n.max(0).cast_unsigned()),
            log: row.try_get("log")?,
        })
    }
}

/// Which runs are wanted.
#[derive(Debug, Clone, Default)]
pub struct RunQuery {
    pub job: Option<JobName>,
    pub kind: Option<RunKind>,
    pub state: Option<RunState>,
    /// Only runs before that one.
    pub before: Option<i64>,
    pub most: i64,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Finish {
    pub state: RunState,
    pub error: Option<String>,
    pub hint: Option<String>,
    pub warnings: Vec<String>,
    /// Destination and what went wrong there.
    pub deliveries: Vec<(String, Option<String>)>,
}

impl Catalog {
    /// Puts a run into the queue. A run of the same job and kind that already waits there, with the
    /// same label, is the same request; a retry that waits for later comes forward.
    pub async fn enqueue(&self, request: &Request, now: Timestamp) -> Result<RunId> {
        let doing = "put a run into the queue";
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.context(doing)?;
        let waiting: Option<i64> = sqlx::query_scalar(
            "SELECT id FROM runs WHERE state = 'queued' AND job = ? AND kind = ? AND label IS ?
             AND not_before <> ?",
        )
        .bind(request.job.as_str())
        .bind(request.kind.as_str())
        .bind(&request.label)
        .bind(millis(Timestamp::MAX))
        .fetch_optional(&mut *tx)
        .await
        .context(doing)?;
        if let Some(id) = waiting {
            sqlx::query("UPDATE runs SET not_before = min(not_before, ?) WHERE id = ?")
                .bind(millis(request.not_before))
                .bind(id)
                .execute(&mut *tx)
                .await
                .context(doing)?;
            tx.commit().await.context(doing)?;
            return Ok(RunId(id));
        }
        let id = insert(&mut tx, request, RunState::Queued, now).await.context(doing)?;
        tx.commit().await.context(doing)?;
        Ok(id)
    }

    /// Records a run that its asker carries out itself, right now.
    pub async fn add_run(&self, request: &Request, now: Timestamp) -> Result<RunId> {
        let doing = "record a run";
        let mut connection = self.pool.acquire().await.context(doing)?;
        insert(&mut connection, request, RunState::Queued, now).await.context(doing)
    }

    /// What waits and may start at `now`, in order.
    pub async fn queued(&self, now: Timestamp) -> Result<Vec<Run>> {
        self.runs("WHERE state = 'queued' AND not_before <= ? ORDER BY id", Some(millis(now))).await
    }

    /// Runs that their askers recorded and have not begun yet; see [`Self::add_run`].
    pub async fn queued_by_commands(&self) -> Result<Vec<Run>> {
        let never = Some(millis(Timestamp::MAX));
        self.runs("WHERE state = 'queued' AND not_before = ? ORDER BY id", never).await
    }

    pub async fn running(&self) -> Result<Vec<Run>> {
        self.runs("WHERE state = 'running' ORDER BY id", None).await
    }

    /// The newest runs, newest first.
    pub async fn recent(&self, most: i64) -> Result<Vec<Run>> {
        self.runs("ORDER BY id DESC LIMIT ?", Some(most)).await
    }

    /// The newest runs that are wanted, newest first.
    pub async fn find_runs(&self, query: &RunQuery) -> Result<Vec<Run>> {
        sqlx::query_as(
            "SELECT * FROM runs WHERE (?1 IS NULL OR job = ?1) AND (?2 IS NULL OR kind = ?2)
             AND (?3 IS NULL OR state = ?3) AND id < ?4 ORDER BY id DESC LIMIT ?5",
        )
        .bind(query.job.as_ref().map(JobName::as_str))
        .bind(query.kind.map(RunKind::as_str))
        .bind(query.state.map(RunState::as_str))
        .bind(query.before.unwrap_or(i64::MAX))
        .bind(query.most)
        .fetch_all(&self.pool)
        .await
        .context("read the runs")
    }

    pub async fn run(&self, id: RunId) -> Result<Option<Run>> {
        Ok(self.runs("WHERE id = ?", Some(id.0)).await?.pop())
    }

    async fn runs(&self, clause: &'static str, bind: Option<i64>) -> Result<Vec<Run>> {
        let sql = sqlx::AssertSqlSafe(format!("SELECT * FROM runs {clause}"));
        let mut query = sqlx::query_as(sql);
        if let Some(value) = bind {
            query = query.bind(value);
        }
        query.fetch_all(&self.pool).await.context("read the runs")
    }

    /// Takes a run out of the queue; false when somebody else did.
    pub async fn start(
        &self,
        id: RunId,
        backup: Option<BackupId>,
        log: &str,
        now: Timestamp,
    ) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE runs SET state = 'running', started_at = ?1, heartbeat_at = ?1, backup = ?2, log = ?3
             WHERE id = ?4 AND state = 'queued'",
        )
        .bind(millis(now))
        .bind(backup.map(|id| id.to_string()))
        .bind(log)
        .bind(id.0)
        .execute(&self.pool)
        .await
        .context("start a run")?;
        Ok(done.rows_affected() == 1)
    }

    /// Says that the run is alive and how far it is; returns whether it should stop.
    pub async fn beat(
        &self,
        id: RunId,
        (plain, stored, total): (u64, u64, Option<u64>),
        now: Timestamp,
    ) -> Result<bool> {
        sqlx::query_scalar(
            "UPDATE runs SET heartbeat_at = ?, plain_bytes = ?, stored_bytes = ?, total_bytes = ?
             WHERE id = ? RETURNING cancel <> 0",
        )
        .bind(millis(now))
        .bind(plain.cast_signed())
        .bind(stored.cast_signed())
        .bind(total.map(u64::cast_signed))
        .bind(id.0)
        .fetch_one(&self.pool)
        .await
        .context("record a heartbeat")
    }

    pub async fn finish(&self, id: RunId, finish: &Finish, now: Timestamp) -> Result<()> {
        let doing = "record the run's end";
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.context(doing)?;
        end(&mut tx, id, finish, now).await?;
        tx.commit().await.context(doing)
    }

    /// What became of each destination in a run: what went wrong there, if anything.
    pub async fn deliveries(&self, run: RunId) -> Result<Vec<(String, Option<String>)>> {
        sqlx::query_as(
            "SELECT destination, error FROM deliveries WHERE run = ? ORDER BY destination",
        )
        .bind(run.0)
        .fetch_all(&self.pool)
        .await
        .context("read what a run delivered")
    }

    /// Asks a run to stop: one that waits is cancelled here, one that runs sees it at its next
    /// heartbeat. False when it is over already.
    pub async fn request_cancel(&self, id: RunId, now: Timestamp) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE runs SET cancel = 1,
                 finished_at = CASE state WHEN 'queued' THEN ? END,
                 state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END
             WHERE id = ? AND state IN ('queued', 'running')",
        )
        .bind(millis(now))
        .bind(id.0)
        .execute(&self.pool)
        .await
        .context("cancel a run")?;
        Ok(done.rows_affected() == 1)
    }

    /// Whether a run of this installation made that backup's folder, and is over.
    pub async fn backup_run_is_over(&self, job: &JobName, backup: &BackupId) -> Result<bool> {
        let states: Vec<String> =
            sqlx::query_scalar("SELECT state FROM runs WHERE job = ? AND backup = ?")
                .bind(job.as_str())
                .bind(backup.to_string())
                .fetch_all(&self.pool)
                .await
                .context("look for a backup's run")?;
        Ok(!states.is_empty() && !states.iter().any(|state| state == "running"))
    }

    /// Start of the newest run that did not reach the destination, when none after it did and its
    /// backup was not brought there later. Told by the order of runs: a backup's id knows its second
    /// only. A run that left a destination out says nothing of it.
    pub async fn last_failure(
        &self,
        job: &JobName,
        destination: &str,
    ) -> Result<Option<Timestamp>> {
        let at: Option<i64> = sqlx::query_scalar(
            "SELECT max(coalesce(r.started_at, r.requested_at)) FROM runs r
             LEFT JOIN deliveries d ON d.run = r.id AND d.destination = ?1
             WHERE r.job = ?2 AND r.kind IN ('backup', 'incremental')
             AND (d.error IS NOT NULL OR (r.state IN ('failed', 'interrupted')
                 AND NOT EXISTS (SELECT 1 FROM deliveries o WHERE o.run = r.id)))
             AND r.id > coalesce((SELECT l.id FROM runs l
                 LEFT JOIN deliveries ld ON ld.run = l.id AND ld.destination = ?1
                 LEFT JOIN copies c ON c.job = l.job AND c.id = l.backup AND c.destination = ?1
                 WHERE l.job = ?2 AND l.kind IN ('backup', 'incremental')
                 AND ((ld.run IS NOT NULL AND ld.error IS NULL) OR c.id IS NOT NULL)
                 ORDER BY l.id DESC LIMIT 1), 0)",
        )
        .bind(destination)
        .bind(job.as_str())
        .fetch_one(&self.pool)
        .await
        .context("read the job's last failure")?;
        Ok(at.map(time))
    }

    /// Whether a run was asked for by the schedule since its time `at`.
    pub async fn had_its_run(&self, job: &JobName, kind: RunKind, at: Timestamp) -> Result<bool> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM runs WHERE job = ? AND kind = ? AND requested_at >= ?
             AND trigger IN (?, ?))",
        )
        .bind(job.as_str())
        .bind(kind.as_str())
        .bind(millis(at))
        .bind(Trigger::Schedule.as_str())
        .bind(Trigger::CatchUp.as_str())
        .fetch_one(&self.pool)
        .await
        .context("look for a scheduled run")
    }
}

/// Writes how a run has ended, together with whatever else is written.
pub(super) async fn end(
    tx: &mut sqlx::SqliteConnection,
    id: RunId,
    finish: &Finish,
    now: Timestamp,
) -> Result<()> {
    let doing = "record the run's end";
    sqlx::query(
        "UPDATE runs SET state = ?, finished_at = ?, error = ?, hint = ?, warnings = ? WHERE id = ?",
    )
    .bind(finish.state.as_str())
    .bind(millis(now))
    .bind(&finish.error)
    .bind(&finish.hint)
    .bind(serde_json::to_string(&finish.warnings).context(doing)?)
    .bind(id.0)
    .execute(&mut *tx)
    .await
    .context(doing)?;
    for (destination, error) in &finish.deliveries {
        sqlx::query("INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?)")
            .bind(id.0)
            .bind(destination)
            .bind(error)
            .execute(&mut *tx)
            .await
            .context(doing)?;
    }
    Ok(())
}

async fn insert(
    connection: &mut sqlx::SqliteConnection,
    request: &Request,
    state: RunState,
    now: Timestamp,
) -> sqlx::Result<RunId> {
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO runs (job, kind, state, trigger, label, attempt, requested_at, not_before)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(request.job.as_str())
    .bind(request.kind.as_str())
    .bind(state.as_str())
    .bind(request.trigger.as_str())
    .bind(&request.label)
    .bind(i64::from(request.attempt))
    .bind(millis(now))
    .bind(millis(request.not_before))
    .fetch_one(connection)
    .await?;
    Ok(RunId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scheduled_time_has_its_run_once_the_schedule_has_asked_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path()).await.unwrap();
        let job: JobName = "db".parse().unwrap();
        let at: Timestamp = "2025-11-24T02:00:00Z".parse().unwrap();
        let second = jiff::SignedDuration::from_secs(1);
        let had = async || catalog.had_its_run(&job, RunKind::Backup, at).await.unwrap();
        for (trigger, asked, expected) in [
            (Trigger::Schedule, at - second, false),
            (Trigger::Manual, at + second, false),
            (Trigger::CatchUp, at + second, true),
        ] {
            let run = Request::own(&job, RunKind::Backup, trigger);
            catalog.add_run(&run, asked).await.unwrap();
            assert_eq!(had().await, expected, "{trigger:?}");
        }
        let drill = catalog.had_its_run(&job, RunKind::Drill, at).await.unwrap();
        assert!(!drill, "another kind has times of its own");
    }
}
