//! Messages on their way: written before anything is sent, so that a restart or an outage loses none.

use jiff::Timestamp;
use sqlx::Row;

use super::{Catalog, millis};
use crate::fault::{Context, Result};
use crate::model::Event;

/// A message for one route.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: i64,
    pub route: String,
    pub event: Event,
    /// How often it was tried.
    pub attempts: u32,
}

impl Catalog {
    pub async fn post(&self, route: &str, event: &Event, now: Timestamp) -> Result<()> {
        let doing = "keep a message";
        sqlx::query("INSERT INTO outbox (route, event, next_at) VALUES (?, ?, ?)")
            .bind(route)
            .bind(serde_json::to_string(event).context(doing)?)
            .bind(millis(now))
            .execute(&self.pool)
            .await
            .context(doing)?;
        Ok(())
    }

    /// Messages to send now, oldest first. Each is claimed until `until`, so that the daemon and a
    /// command do not both send it.
    pub async fn claim_messages(&self, now: Timestamp, until: Timestamp) -> Result<Vec<Message>> {
        let doing = "read the messages";
        let rows = sqlx::query(
            "UPDATE outbox SET next_at = ? WHERE sent_at IS NULL AND next_at <= ?
             RETURNING id, route, event, attempts",
        )
        .bind(millis(until))
        .bind(millis(now))
        .fetch_all(&self.pool)
        .await
        .context(doing)?;
        let mut messages = Vec::new();
        for row in rows {
            let event: String = row.try_get("event").context(doing)?;
            messages.push(Message {
                id: row.try_get("id").context(doing)?,
                route: row.try_get("route").context(doing)?,
                event: serde_json::from_str(&event).context(doing)?,
                attempts: row.try_get::<u32, _>("attempts").context(doing)?,
            });
        }
        messages.sort_by_key(|message| message.id);
        Ok(messages)
    }

    pub async fn message_sent(&self, id: i64, now: Timestamp) -> Result<()> {
        sqlx::query("UPDATE outbox SET sent_at = ?, error = NULL WHERE id = ?")
            .bind(millis(now))
            .bind(id)
            .execute(&self.pool)
            .await
            .context("record a sent message")?;
        Ok(())
    }

    pub async fn message_failed(&self, id: i64, error: &str, next: Timestamp) -> Result<()> {
        sqlx::query(
            "UPDATE outbox SET attempts = attempts + 1, error = ?, next_at = ? WHERE id = ?",
        )
        .bind(error)
        .bind(millis(next))
        .bind(id)
        .execute(&self.pool)
        .await
        .context("record an unsent message")?;
        Ok(())
    }

    /// How many messages wait, for status.
    pub async fn unsent(&self) -> Result<i64> {
        sqlx::query_scalar("SELECT count(*) FROM outbox WHERE sent_at IS NULL")
            .fetch_one(&self.pool)
            .await
            .context("count the messages")
    }
}
