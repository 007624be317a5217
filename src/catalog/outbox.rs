//! Messages on their way: written before anything is sent, so that a restart or an outage loses none.
//! Knows rows; what waits is decided in `attention`.

mod folds;

use jiff::{SignedDuration, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{Catalog, Finish, millis, runs, time};
use crate::fault::{Context, Result};
use crate::model::{Event, RunId};
use folds::{end_folds, folded, insert};

/// A message to write for one route.
pub struct Post<'a> {
    pub route: &'a str,
    pub event: &'a Event,
    /// How long the same again is held back; `None`: each is sent, in its order.
    pub repeat: Option<SignedDuration>,
}

/// A fact that changes together with what is told, so that a restart neither repeats nor loses a word.
pub struct Note {
    pub name: String,
    /// What it must still be: else somebody else has told, and nothing is written. `None`: whatever.
    pub was: Option<String>,
    /// `None`: it is forgotten.
    pub is: Option<String>,
}

/// A message that this process has claimed.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: i64,
    pub route: String,
    pub event: Event,
    /// How often it was tried.
    pub attempts: u32,
    pub posted_at: Timestamp,
    /// It had to wait since too much was said.
    pub was_limited: bool,
    /// Until when it is this process's.
    until: i64,
}

impl Catalog {
    /// Writes messages, facts and how a run has ended, all or nothing; false where a note is not what
    /// it was.
    pub async fn post(
        &self,
        posts: &[Post<'_>],
        notes: &[Note],
        ended: Option<(RunId, &Finish)>,
        now: Timestamp,
    ) -> Result<bool> {
        if posts.is_empty() && notes.is_empty() && ended.is_none() {
            return Ok(true);
        }
        let doing = "keep a message";
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.context(doing)?;
        for note in notes {
            if !change(&mut tx, note).await.context(doing)? {
                return Ok(false);
            }
        }
        if let Some((run, finish)) = ended {
            runs::end(&mut tx, run, finish, now).await?;
        }
        for post in posts {
            let ended = (post.route, post.event);
            end_folds(&mut tx, ended, &post.event.ends).await.context(doing)?;
            let text = serde_json::to_string(post.event).context(doing)?;
            match post.repeat {
                None => insert(&mut tx, post, (&text, now), None).await.context(doing)?,
                Some(repeat) => folded(&mut tx, post, repeat, now).await?,
            }
        }
        tx.commit().await.context(doing)?;
        Ok(true)
    }

    /// The trouble of `event` is over, and nobody has to hear of that: what comes next is new.
    pub async fn forget_trouble(&self, route: &str, event: &Event) -> Result<()> {
        let mut connection = self.pool.acquire().await.context("forget trouble")?;
        let kinds = [event.kind];
        end_folds(&mut connection, (route, event), &kinds).await.context("forget trouble")
    }

    /// Messages to send now, oldest first. Each is claimed until `until`, so that the daemon and a
    /// command do not both send it. Where one is due, those of its route that are to be tried again
    /// come along: what happened first is told first.
    pub async fn claim_messages(&self, now: Timestamp, until: Timestamp) -> Result<Vec<Message>> {
        let doing = "read the messages";
        let rows = sqlx::query(
            "UPDATE outbox SET next_at = ?1, waits = iif(waits = 'limit', waits, NULL)
             WHERE sent_at IS NULL AND (next_at <= ?2 OR (waits = 'retry' AND route IN
                 (SELECT route FROM outbox WHERE sent_at IS NULL AND next_at <= ?2)))
             RETURNING id, route, event, attempts, posted_at, waits, next_at",
        )
        .bind(millis(until))
        .bind(millis(now))
        .fetch_all(&self.pool)
        .await
        .context(doing)?;
        let message = |row: &SqliteRow| -> Result<Message> {
            let event: String = row.try_get("event").context(doing)?;
            let waits: Option<String> = row.try_get("waits").context(doing)?;
            Ok(Message {
                id: row.try_get("id").context(doing)?,
                route: row.try_get("route").context(doing)?,
                event: serde_json::from_str(&event).context(doing)?,
                attempts: row.try_get::<u32, _>("attempts").context(doing)?,
                posted_at: time(row.try_get("posted_at").context(doing)?),
                was_limited: waits.is_some(),
                until: row.try_get("next_at").context(doing)?,
            })
        };
        let mut messages = rows.iter().map(message).collect::<Result<Vec<_>>>()?;
        messages.sort_by_key(|message| message.id);
        Ok(messages)
    }

    /// Claims it for longer; false where it is no longer this process's.
    pub async fn keep_claim(&self, message: &mut Message, until: Timestamp) -> Result<bool> {
        let kept = sqlx::query(
            "UPDATE outbox SET next_at = ? WHERE id = ? AND sent_at IS NULL AND next_at = ?",
        )
        .bind(millis(until))
        .bind(message.id)
        .bind(message.until)
        .execute(&self.pool)
        .await
        .context("claim a message")?;
        message.until = millis(until);
        Ok(kept.rows_affected() == 1)
    }

    /// It arrived, alone or within the message `part_of`.
    pub async fn message_sent(&self, id: i64, part_of: Option<i64>, now: Timestamp) -> Result<()> {
        sqlx::query(
            "UPDATE outbox SET sent_at = ?, error = NULL, waits = NULL, part_of = ? WHERE id = ?",
        )
        .bind(millis(now))
        .bind(part_of)
        .bind(id)
        .execute(&self.pool)
        .await
        .context("record a sent message")?;
        Ok(())
    }

    /// It was tried in vain.
    pub async fn message_failed(&self, id: i64, error: &str, next: Timestamp) -> Result<()> {
        sqlx::query(
            "UPDATE outbox SET attempts = attempts + 1, error = ?, next_at = ?, waits = 'retry'
             WHERE id = ?",
        )
        .bind(error)
        .bind(millis(next))
        .bind(id)
        .execute(&self.pool)
        .await
        .context("record an unsent message")?;
        Ok(())
    }

    /// It was not tried; `limited`: since enough was said.
    pub async fn message_waits(&self, id: i64, next: Timestamp, limited: bool) -> Result<()> {
        sqlx::query(
            "UPDATE outbox SET next_at = ?1, waits = iif(?2, 'limit', waits) WHERE id = ?3",
        )
        .bind(millis(next))
        .bind(limited)
        .bind(id)
        .execute(&self.pool)
        .await
        .context("let a message wait")?;
        Ok(())
    }

    pub async fn drop_message(&self, id: i64) -> Result<()> {
        sqlx::query("DELETE FROM outbox WHERE id = ?")
            .bind(id)
            .execute(&self.pool)
            .await
            .context("drop a message")?;
        Ok(())
    }

    /// Whether a later message about the same job was written for the same route.
    pub async fn is_superseded(&self, message: &Message) -> Result<bool> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM outbox WHERE route = ? AND job = ? AND id > ?)",
        )
        .bind(&message.route)
        .bind(job_of(&message.event))
        .bind(message.id)
        .fetch_one(&self.pool)
        .await
        .context("read the messages")
    }

    /// When messages went out through a route since `since`, oldest first.
    pub async fn sent_since(&self, route: &str, since: Timestamp) -> Result<Vec<Timestamp>> {
        let sent: Vec<i64> = sqlx::query_scalar(
            "SELECT sent_at FROM outbox WHERE route = ? AND sent_at > ? AND part_of IS NULL
             ORDER BY sent_at",
        )
        .bind(route)
        .bind(millis(since))
        .fetch_all(&self.pool)
        .await
        .context("read the messages")?;
        Ok(sent.into_iter().map(time).collect())
    }

    /// What arrived before `before` is remembered no longer.
    pub async fn forget_sent(&self, before: Timestamp) -> Result<()> {
        sqlx::query("DELETE FROM outbox WHERE sent_at < ?")
            .bind(millis(before))
            .execute(&self.pool)
            .await
            .context("forget messages")?;
        Ok(())
    }

    /// How many messages should have gone out and did not, for status.
    pub async fn unsent(&self) -> Result<i64> {
        sqlx::query_scalar(
            "SELECT count(*) FROM outbox WHERE sent_at IS NULL AND waits IS NOT 'fold'",
        )
        .fetch_one(&self.pool)
        .await
        .context("count the messages")
    }
}

fn job_of(event: &Event) -> &str {
    event.job.as_ref().map_or("", |job| job.as_str())
}

async fn change(tx: &mut SqliteConnection, note: &Note) -> sqlx::Result<bool> {
    if let Some(was) = &note.was {
        let there: Option<String> = sqlx::query_scalar("SELECT value FROM facts WHERE name = ?")
            .bind(&note.name)
            .fetch_optional(&mut *tx)
            .await?;
        if there.as_ref() != Some(was) {
            return Ok(false);
        }
    }
    let query = match &note.is {
        Some(is) => sqlx::query("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)")
            .bind(&note.name)
            .bind(is),
        None => sqlx::query("DELETE FROM facts WHERE name = ?").bind(&note.name),
    };
    query.execute(tx).await?;
    Ok(true)
}
