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
