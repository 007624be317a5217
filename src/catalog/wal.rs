//! How far the write-ahead log is stored, and where it has holes. Knows rows; must not know how a log is
//! kept.

use sqlx::Row;

use super::{Catalog, millis, time};
use crate::fault::{Context, Result};
use crate::model::{JobName, WalGap, WalProgress};

impl Catalog {
    /// What the log's keeper last saw; `None`: there never was one.
    pub async fn wal_progress(&self, job: &JobName) -> Result<Option<WalProgress>> {
        let text: Option<String> = sqlx::query_scalar("SELECT progress FROM wal WHERE job = ?")
            .bind(job.as_str())
            .fetch_optional(&self.pool)
            .await
            .context("read how far the log is")?;
        text.map(|text| serde_json::from_str(&text).context("read how far the log is")).transpose()
    }

    pub async fn set_wal_progress(&self, job: &JobName, progress: &WalProgress) -> Result<()> {
        let text = serde_json::to_string(progress).context("write how far the log is")?;
        sqlx::query("INSERT OR REPLACE INTO wal VALUES (?, ?)")
            .bind(job.as_str())
            .bind(text)
            .execute(&self.pool)
            .await
            .context("write how far the log is")?;
        Ok(())
    }

    /// Remembers a hole; one that is known stays as it is.
    pub async fn add_wal_gap(&self, job: &JobName, gap: &WalGap) -> Result<()> {
        sqlx::query("INSERT OR IGNORE INTO wal_gaps VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(job.as_str())
            .bind(&gap.system_id)
            .bind(gap.timeline)
            .bind(gap.from.to_string())
            .bind(gap.to.to_string())
            .bind(millis(gap.at))
            .bind(&gap.reason)
            .execute(&self.pool)
            .await
            .context("record a gap in the log")?;
        Ok(())
    }

    /// The holes of a job's log, the newest first.
    pub async fn wal_gaps(&self, job: &JobName) -> Result<Vec<WalGap>> {
        let doing = "read the gaps in the log";
        let rows = sqlx::query("SELECT * FROM wal_gaps WHERE job = ? ORDER BY at DESC")
            .bind(job.as_str())
            .fetch_all(&self.pool)
            .await
            .context(doing)?;
        let gap = |row: &sqlx::sqlite::SqliteRow| -> Result<WalGap> {
            let text = |name: &str| row.try_get::<String, _>(name).context(doing);
            Ok(WalGap {
                system_id: text("system_id")?,
                timeline: row.try_get("timeline").context(doing)?,
                from: text("from_lsn")?.parse()?,
                to: text("to_lsn")?.parse()?,
                at: time(row.try_get("at").context(doing)?),
                reason: text("reason")?,
            })
        };
        rows.iter().map(gap).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Lsn;

    #[tokio::test]
    async fn a_gap_is_remembered_once() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path()).await.unwrap();
        let job: JobName = "db".parse().unwrap();
        let gap = WalGap {
            system_id: "7".into(),
            timeline: 1,
            from: Lsn(0x100_0000),
            to: Lsn(0x300_0000),
            at: "2025-11-24T00:00:00Z".parse().unwrap(),
            reason: "removed".into(),
        };
        catalog.add_wal_gap(&job, &gap).await.unwrap();
        catalog.add_wal_gap(&job, &WalGap { to: Lsn(0x400_0000), ..gap.clone() }).await.unwrap();
        assert_eq!(catalog.wal_gaps(&job).await.unwrap(), [gap]);
    }
}
