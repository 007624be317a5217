//! The newest of what there is, for those who look: bounded, however long the history. Knows rows;
//! must not know who looks.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::drills::drill;
use super::{Catalog, Copy, Drill, Known};
use crate::fault::{Context, Result};
use crate::model::{BackupId, BackupKind, JobName, RunId};

impl Catalog {
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

    /// The newest backups of a job, newest first.
    pub async fn newest_backups(&self, job: &JobName, most: u32) -> Result<Vec<Known>> {
        let rows = sqlx::query(
            "SELECT b.id, b.manifest, c.destination, c.pinned, c.proven
             FROM (SELECT * FROM backups WHERE job = ?1 ORDER BY started DESC, id DESC LIMIT ?2) b
             JOIN copies c ON c.job = b.job AND c.id = b.id
             ORDER BY b.started DESC, b.id DESC, c.destination",
        )
        .bind(job.as_str())
        .bind(most)
        .fetch_all(&self.pool)
        .await;
        grouped(&rows.context("read the backups")?)
    }

    /// One backup, where there is one.
    pub async fn backup(&self, job: &JobName, id: &BackupId) -> Result<Option<Known>> {
        let rows = sqlx::query(
            "SELECT b.id, b.manifest, c.destination, c.pinned, c.proven
             FROM backups b JOIN copies c USING (job, id)
             WHERE b.job = ? AND b.id = ? ORDER BY c.destination",
        )
        .bind(job.as_str())
        .bind(id.to_string())
        .fetch_all(&self.pool)
        .await;
        Ok(grouped(&rows.context("read a backup")?)?.pop())
    }

    /// Of which kind each backup of a job is.
    pub async fn kinds(&self, job: &JobName) -> Result<BTreeMap<BackupId, BackupKind>> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT id, kind FROM backups WHERE job = ?")
                .bind(job.as_str())
                .fetch_all(&self.pool)
                .await
                .context("read the backups")?;
        let safety = BackupKind::Safety.as_str();
        let kind = |word: &str| if word == safety { BackupKind::Safety } else { BackupKind::Full };
        rows.into_iter().map(|(id, word)| Ok((id.parse()?, kind(&word)))).collect()
    }
}

/// Rows of one backup follow one another.
fn grouped(rows: &[SqliteRow]) -> Result<Vec<Known>> {
    let doing = "read the backups";
    let mut known: Vec<Known> = Vec::new();
    let mut last: Option<String> = None;
    for row in rows {
        let id: String = row.try_get("id").context(doing)?;
        let copy = Copy::from_row(row).context(doing)?;
        match known.last_mut().filter(|_| last.as_ref() == Some(&id)) {
            Some(same) => same.copies.push(copy),
            None => {
                let text: String = row.try_get("manifest").context(doing)?;
                let manifest = serde_json::from_str(&text).context(doing)?;
                known.push(Known { manifest, copies: vec![copy] });
            }
        }
        last = Some(id);
    }
    Ok(known)
}
