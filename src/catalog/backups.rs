//! What backups there are and where: a copy of what manifests and marks say.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::{Catalog, millis, time};
use crate::fault::{Context, Result};
use crate::model::{BackupId, BackupKind, JobName, Manifest, Mark};

/// One backup on one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    pub destination: String,
    pub pinned: bool,
    pub proven: bool,
}

impl Copy {
    pub fn new(destination: &str, marks: &[Mark]) -> Self {
        Self {
            destination: destination.to_owned(),
            pinned: marks.contains(&Mark::Pin),
            proven: marks.contains(&Mark::Proof),
        }
    }
}

impl FromRow<'_, SqliteRow> for Copy {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            destination: row.try_get("destination")?,
            pinned: row.try_get("pinned")?,
            proven: row.try_get("proven")?,
        })
    }
}

/// A committed backup and where it is.
#[derive(Debug, Clone)]
pub struct Known {
    pub manifest: Manifest,
    pub copies: Vec<Copy>,
}

impl Catalog {
    /// Records a committed backup on one destination.
    pub async fn add_copy(
        &self,
        manifest: &Manifest,
        destination: &str,
        marks: &[Mark],
    ) -> Result<()> {
        let doing = "record a backup";
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.context(doing)?;
        let (job, id) = (manifest.job.as_str(), manifest.id.to_string());
        let known: Option<String> =
            sqlx::query_scalar("SELECT manifest FROM backups WHERE job = ? AND id = ?")
                .bind(job)
                .bind(&id)
                .fetch_optional(&mut *tx)
                .await
                .context(doing)?;
        // What was erased on one destination is not believed again because of another.
        let known = known.and_then(|text| serde_json::from_str::<Manifest>(&text).ok());
        let manifest =
            known.as_ref().filter(|known| known.is_rest_of(manifest)).unwrap_or(manifest);
        sqlx::query(
            "INSERT INTO backups VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (job, id) DO UPDATE SET manifest = excluded.manifest, kind = excluded.kind",
        )
        .bind(job)
        .bind(&id)
        .bind(manifest.kind.as_str())
        .bind(millis(manifest.id.started()))
        .bind(serde_json::to_string(manifest).context(doing)?)
        .execute(&mut *tx)
        .await
        .context(doing)?;
        let copy = Copy::new(destination, marks);
        sqlx::query("INSERT OR REPLACE INTO copies VALUES (?, ?, ?, ?, ?, ?)")
            .bind(job)
            .bind(&id)
            .bind(destination)
            .bind(copy.pinned)
            .bind(copy.proven)
            .bind(i64::try_from(manifest.stored_bytes()).unwrap_or(i64::MAX))
            .execute(&mut *tx)
            .await
            .context(doing)?;
        tx.commit().await.context(doing)
    }

    /// The backup is no longer on this destination.
    pub async fn remove_copy(&self, job: &JobName, id: &BackupId, destination: &str) -> Result<()> {
        let doing = "forget a backup";
        let id = id.to_string();
        sqlx::query("DELETE FROM copies WHERE job = ? AND id = ? AND destination = ?")
            .bind(job.as_str())
            .bind(&id)
            .bind(destination)
            .execute(&self.pool)
            .await
            .context(doing)?;
        sqlx::query(
            "DELETE FROM backups WHERE job = ?1 AND id = ?2
             AND NOT EXISTS (SELECT 1 FROM copies WHERE job = ?1 AND id = ?2)",
        )
        .bind(job.as_str())
        .bind(&id)
        .execute(&self.pool)
        .await
        .context(doing)?;
        Ok(())
    }

    /// What the catalog believes to be on a destination.
    pub async fn copies_on(
        &self,
        job: &JobName,
        destination: &str,
    ) -> Result<BTreeMap<BackupId, Copy>> {
        let rows: Vec<(String, bool, bool)> = sqlx::query_as(
            "SELECT id, pinned, proven FROM copies WHERE job = ? AND destination = ?",
        )
        .bind(job.as_str())
        .bind(destination)
        .fetch_all(&self.pool)
        .await
        .context("read the backups")?;
        let copies = rows.into_iter().map(|(id, pinned, proven)| {
            Ok((id.parse()?, Copy { destination: destination.to_owned(), pinned, proven }))
        });
        copies.collect()
    }

    /// Whether the catalog believes that a backup is on a destination.
    pub async fn is_known(&self, job: &JobName, id: &BackupId, destination: &str) -> Result<bool> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM copies WHERE job = ? AND id = ? AND destination = ?",
        )
        .bind(job.as_str())
        .bind(id.to_string())
        .bind(destination)
        .fetch_one(&self.pool)
        .await
        .context("look for a backup")?;
        Ok(count > 0)
    }

    /// Every known backup, newest first; of one job or of all.
    pub async fn backups(&self, job: Option<&JobName>) -> Result<Vec<Known>> {
        let rows = sqlx::query(
            "SELECT b.job, b.id, b.manifest, c.destination, c.pinned, c.proven
             FROM backups b JOIN copies c USING (job, id)
             WHERE ?1 IS NULL OR b.job = ?1
             ORDER BY b.started DESC, b.id DESC, b.job, c.destination",
        )
        .bind(job.map(JobName::as_str))
        .fetch_all(&self.pool)
        .await;
        grouped(&rows.context("read the backups")?)
    }

    /// The newest backups of a job, newest first.
    pub async fn newest_backups(&self, job: &JobName, most: u32) -> Result<Vec<Known>> {
        let rows = sqlx::query(
            "SELECT b.job, b.id, b.manifest, c.destination, c.pinned, c.proven
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
            "SELECT b.job, b.id, b.manifest, c.destination, c.pinned, c.proven
             FROM backups b JOIN copies c USING (job, id)
             WHERE b.job = ? AND b.id = ? ORDER BY c.destination",
        )
        .bind(job.as_str())
        .bind(id.to_string())
        .fetch_all(&self.pool)
        .await;
        Ok(grouped(&rows.context("read a backup")?)?.pop())
    }

    /// A job's newest full backup, and where it is: what its sizes are measured by.
    pub async fn newest_full(&self, job: &JobName) -> Result<Option<Known>> {
        self.newest_of(job, BackupKind::Full).await
    }

    /// A job's newest backup that counts, and where it is.
    pub async fn newest(&self, job: &JobName) -> Result<Option<Known>> {
        self.newest_of(job, BackupKind::Incremental).await
    }

    /// The newest one that is full, or of the other kind.
    async fn newest_of(&self, job: &JobName, or: BackupKind) -> Result<Option<Known>> {
        let rows = sqlx::query(
            "SELECT b.job, b.id, b.manifest, c.destination, c.pinned, c.proven
             FROM (SELECT * FROM backups b WHERE job = ? AND kind IN ('full', ?)
                 AND EXISTS (SELECT 1 FROM copies c WHERE c.job = b.job AND c.id = b.id)
                 ORDER BY started DESC, id DESC LIMIT 1) b
             JOIN copies c ON c.job = b.job AND c.id = b.id ORDER BY c.destination",
        )
        .bind(job.as_str())
        .bind(or.as_str())
        .fetch_all(&self.pool)
        .await;
        Ok(grouped(&rows.context("read the newest backup")?)?.pop())
    }

    /// Of which kind each backup of a job is, and on which one it stands.
    pub async fn kinds(
        &self,
        job: &JobName,
    ) -> Result<BTreeMap<BackupId, (BackupKind, Option<BackupId>)>> {
        // Of the others nobody need look into the manifest.
        let rows: Vec<(String, String, Option<String>)> = sqlx::query_as(
            "SELECT id, kind, CASE WHEN kind IN ('incremental', 'suspect') THEN
                 (SELECT max(json_extract(source.value, '$.physical.since'))
                  FROM json_each(manifest, '$.sources') source) END
             FROM backups WHERE job = ?",
        )
        .bind(job.as_str())
        .fetch_all(&self.pool)
        .await
        .context("read the backups")?;
        let others = [BackupKind::Incremental, BackupKind::Safety, BackupKind::Suspect];
        let kind = |word: &str| {
            others.into_iter().find(|kind| kind.as_str() == word).unwrap_or(BackupKind::Full)
        };
        let row = |(id, word, since): (String, String, Option<String>)| {
            let since = since.map(|since| since.parse()).transpose()?;
            Ok((id.parse()?, (kind(&word), since)))
        };
        rows.into_iter().map(row).collect()
    }

    /// Start of the newest backup that counts, on a destination.
    pub async fn last_success(
        &self,
        job: &JobName,
        destination: &str,
    ) -> Result<Option<Timestamp>> {
        let at: Option<i64> = sqlx::query_scalar(
            "SELECT b.started FROM backups b JOIN copies c USING (job, id)
             WHERE b.job = ? AND c.destination = ?
             AND b.kind IN ('full', 'incremental')
             ORDER BY b.started DESC LIMIT 1",
        )
        .bind(job.as_str())
        .bind(destination)
        .fetch_optional(&self.pool)
        .await
        .context("read the job's last success")?;
        Ok(at.map(time))
    }
}

/// Rows of one backup follow one another.
fn grouped(rows: &[SqliteRow]) -> Result<Vec<Known>> {
    let doing = "read the backups";
    let mut all: Vec<Known> = Vec::new();
    let mut last: Option<(String, String)> = None;
    for row in rows {
        let key = (row.try_get("job").context(doing)?, row.try_get("id").context(doing)?);
        let copy = Copy::from_row(row).context(doing)?;
        match all.last_mut().filter(|_| last.as_ref() == Some(&key)) {
            Some(same) => same.copies.push(copy),
            None => {
                let text: String = row.try_get("manifest").context(doing)?;
                let manifest = serde_json::from_str(&text).context(doing)?;
                all.push(Known { manifest, copies: vec![copy] });
            }
        }
        last = Some(key);
    }
    Ok(all)
}
