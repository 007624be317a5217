//! Free space as it was seen, for a forecast. Knows rows; must not know what is too little.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{Catalog, millis, time};
use crate::fault::{Context, Result};
use crate::space::{Sample, Space};

/// For so long every sample is kept; then one for each hour.
const EVERY: SignedDuration = SignedDuration::from_hours(24);
const KEPT: SignedDuration = SignedDuration::from_hours(60 * 24);

impl Catalog {
    /// Records what was seen at `now`, and forgets what is too old or too much.
    pub async fn add_space(&self, seen: &BTreeMap<String, Space>, now: Timestamp) -> Result<()> {
        let doing = "record the free space";
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.context(doing)?;
        for (destination, space) in seen {
            sqlx::query("INSERT OR REPLACE INTO space VALUES (?, ?, ?, ?)")
                .bind(destination)
                .bind(millis(now))
                .bind(number(space.free))
                .bind(number(space.total))
                .execute(&mut *tx)
                .await
                .context(doing)?;
        }
        // Of an hour the lowest stays: a forecast goes by it.
        sqlx::query(
            "DELETE FROM space WHERE at < ?1 OR (at < ?2 AND EXISTS (
                 SELECT 1 FROM space other WHERE other.destination = space.destination
                 AND other.at BETWEEN space.at - space.at % 3600000
                     AND space.at - space.at % 3600000 + 3599999
                 AND (other.free, other.at) < (space.free, space.at)))",
        )
        .bind(millis(now.checked_sub(KEPT).unwrap_or(now)))
        .bind(millis(now.checked_sub(EVERY).unwrap_or(now)))
        .execute(&mut *tx)
        .await
        .context(doing)?;
        tx.commit().await.context(doing)
    }

    /// What was seen of each destination since `from`, in order.
    pub async fn space_since(&self, from: Timestamp) -> Result<BTreeMap<String, Vec<Sample>>> {
        let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
            "SELECT destination, at, free, total FROM space WHERE at >= ? ORDER BY destination, at",
        )
        .bind(millis(from))
        .fetch_all(&self.pool)
        .await
        .context("read the free space")?;
        let mut samples: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
        for (destination, at, free, total) in rows {
            let (free, total) = (free.max(0).cast_unsigned(), total.max(0).cast_unsigned());
            let Some(space) = Space::of(free, total) else { continue };
            samples.entry(destination).or_default().push(Sample { at: time(at), space });
        }
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_an_older_catalog_get_their_size_from_the_manifest() {
        let catalog = rusqlite::Connection::open_in_memory().unwrap();
        catalog.execute_batch(include_str!("migrations/0001_start.sql")).unwrap();
        let manifest = r#"{"artifacts": [{"stored_bytes": 40}, {"stored_bytes": 2}]}"#;
        for (id, manifest) in [("one", manifest), ("none", r#"{"artifacts": []}"#)] {
            let backup = "INSERT INTO backups VALUES ('db', ?, 'full', 0, ?)";
            catalog.execute(backup, [id, manifest]).unwrap();
            let copy = "INSERT INTO copies VALUES ('db', ?, 'local', 0, 0)";
            catalog.execute(copy, [id]).unwrap();
        }
        catalog.execute_batch(include_str!("migrations/0007_space.sql")).unwrap();
        let size = |id: &str| -> i64 {
            let size = "SELECT stored_bytes FROM copies WHERE id = ?";
            catalog.query_row(size, [id], |row| row.get(0)).unwrap()
        };
        assert_eq!([size("one"), size("none")], [42, 0]);
    }

    #[tokio::test]
    async fn samples_are_thinned_to_the_lowest_of_an_hour_and_forgotten_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path()).await.unwrap();
        let start: Timestamp = "2025-11-24T00:00:00Z".parse().unwrap();
        let see = async |minutes: i64, free: u64| {
            let seen = BTreeMap::from([("disk".to_owned(), Space { free, total: 100 })]);
            catalog.add_space(&seen, start + SignedDuration::from_mins(minutes)).await.unwrap();
        };
        let frees = async || -> Vec<u64> {
            let all = catalog.space_since(Timestamp::UNIX_EPOCH).await.unwrap();
            all.into_values().flatten().map(|sample| sample.space.free).collect()
        };
        for (minutes, free) in [(0, 50), (10, 40), (20, 60), (60, 90), (70, 90)] {
            see(minutes, free).await;
        }
        assert_eq!(frees().await, [50, 40, 60, 90, 90]);
        see(26 * 60, 30).await;
        assert_eq!(frees().await, [40, 90, 30]);
        see(61 * 24 * 60 + 30, 20).await;
        assert_eq!(frees().await, [30, 20]);
    }
}
