//! What restores have replaced: where it is, and since when. Without this memory nothing is lost, only
//! nobody removes it.

use jiff::Timestamp;
use sqlx::Row;

use super::{Catalog, millis, time};
use crate::fault::{Context, Result};
use crate::model::{BackupId, Engine, JobName, SourceFacts};

/// Something that a restore replaced.
#[derive(Debug, Clone)]
pub struct Replaced {
    pub id: i64,
    pub job: JobName,
    pub engine: Engine,
    /// The source's name, as in the manifest.
    pub source: String,
    /// What took its place.
    pub current: String,
    /// What it is called now.
    pub kept: String,
    /// The backup that was restored.
    pub backup: BackupId,
    pub at: Timestamp,
}

impl Catalog {
    /// Remembers that `kept` is what `current` was; false: that is known already.
    pub async fn remember_kept(
        &self,
        (job, backup): (&JobName, &BackupId),
        facts: &SourceFacts,
        (current, kept): (&str, &str),
        now: Timestamp,
    ) -> Result<bool> {
        let done = sqlx::query(
            "INSERT INTO kept (job, engine, source, current, kept, backup, at)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
             WHERE NOT EXISTS (SELECT 1 FROM kept WHERE job = ?1 AND kept = ?5)",
        )
        .bind(job.as_str())
        .bind(facts.engine.as_str())
        .bind(&facts.name)
        .bind(current)
        .bind(kept)
        .bind(backup.to_string())
        .bind(millis(now))
        .execute(&self.pool)
        .await
        .context("remember what was replaced")?;
        Ok(done.rows_affected() == 1)
    }

    /// What a job's restores have replaced, the newest first.
    pub async fn kept(&self, job: &JobName) -> Result<Vec<Replaced>> {
        let doing = "read what was replaced";
        let rows = sqlx::query("SELECT * FROM kept WHERE job = ? ORDER BY at DESC, id DESC")
            .bind(job.as_str())
            .fetch_all(&self.pool)
            .await
            .context(doing)?;
        rows.iter()
            .map(|row| {
                let text = |column: &str| row.try_get::<String, _>(column).context(doing);
                Ok(Replaced {
                    id: row.try_get("id").context(doing)?,
                    job: text("job")?.parse()?,
                    engine: text("engine")?.parse()?,
                    source: text("source")?,
                    current: text("current")?,
                    kept: text("kept")?,
                    backup: text("backup")?.parse()?,
                    at: time(row.try_get("at").context(doing)?),
                })
            })
            .collect()
    }

    /// It is in its place again, or gone.
    pub async fn forget_kept(&self, id: i64) -> Result<()> {
        sqlx::query("DELETE FROM kept WHERE id = ?")
            .bind(id)
            .execute(&self.pool)
            .await
            .context("forget what was replaced")?;
        Ok(())
    }
}
