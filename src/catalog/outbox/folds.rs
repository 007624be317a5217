//! A message written in the place of one that says the same and waits. Knows rows; what stands for
//! several is decided in `attention`.

use jiff::{SignedDuration, Timestamp};
use sqlx::{Row, SqliteConnection};

use super::{Post, job_of};
use crate::attention::{Before, Folded, fold};
use crate::catalog::{millis, time};
use crate::fault::{Context, Result};
use crate::model::{Again, Event, EventKind};

/// What a row needs of one that it takes the place of.
pub(super) struct Waiting {
    again: Again,
    due: Timestamp,
    posted_at: Timestamp,
    attempts: u32,
    waits: Option<String>,
}

/// What was held back of trouble that is over is not told any more.
pub(super) async fn end_folds(
    tx: &mut SqliteConnection,
    (route, event): (&str, &Event),
    kinds: &[EventKind],
) -> sqlx::Result<()> {
    for kind in kinds {
        for delete in [
            "DELETE FROM folds WHERE route = ? AND job = ? AND kind = ? AND (about = ?4 OR ?4 = '')",
            "DELETE FROM outbox WHERE route = ? AND job = ? AND kind = ? AND (about = ?4 OR ?4 = '')
             AND waits = 'fold'",
        ] {
            let query = sqlx::query(delete).bind(route).bind(job_of(event));
            query.bind(kind.as_str()).bind(&event.about).execute(&mut *tx).await?;
        }
    }
    Ok(())
}

/// Writes a message in the place of one that says the same and waits.
pub(super) async fn folded(
    tx: &mut SqliteConnection,
    post: &Post<'_>,
    repeat: SignedDuration,
    now: Timestamp,
) -> Result<()> {
    let doing = "keep a message";
    let waiting = take_waiting(tx, post).await?;
    let goes_on = post.event.kind.goes_on();
    let before = match goes_on {
        true => before(tx, post).await.context(doing)?,
        false => None,
    };
    let waits = waiting.as_ref().map(|waiting| (waiting.again, waiting.due));
    let decided = fold(before, waits, repeat, now);
    let event = Event { again: decided.again(), ..post.event.clone() };
    let text = serde_json::to_string(&event).context(doing)?;
    let waiting = waiting.unwrap_or(Waiting {
        again: Again { times: 1, since: now },
        due: decided.due,
        // It can be sent from then on: that is when the time begins after which it is given up.
        posted_at: decided.due,
        attempts: 0,
        waits: decided.is_held.then(|| "fold".to_owned()),
    });
    insert(tx, post, (&text, now), Some(waiting)).await.context(doing)?;
    if goes_on {
        remember(tx, post, &decided).await.context(doing)?;
    }
    Ok(())
}

async fn before(tx: &mut SqliteConnection, post: &Post<'_>) -> sqlx::Result<Option<Before>> {
    let row: Option<(u32, i64, i64)> = sqlx::query_as(
        "SELECT count, first_at, told_at FROM folds
         WHERE route = ? AND job = ? AND kind = ? AND about = ?",
    )
    .bind(post.route)
    .bind(job_of(post.event))
    .bind(post.event.kind.as_str())
    .bind(&post.event.about)
    .fetch_optional(tx)
    .await?;
    let before = |(count, first, told)| Before { count, first: time(first), told: time(told) };
    Ok(row.map(before))
}

async fn remember(tx: &mut SqliteConnection, post: &Post<'_>, to: &Folded) -> sqlx::Result<()> {
    sqlx::query("INSERT OR REPLACE INTO folds VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(post.route)
        .bind(job_of(post.event))
        .bind(post.event.kind.as_str())
        .bind(&post.event.about)
        .bind(to.now.count)
        .bind(millis(to.now.first))
        .bind(millis(to.now.told))
        .execute(tx)
        .await?;
    Ok(())
}

async fn take_waiting(tx: &mut SqliteConnection, post: &Post<'_>) -> Result<Option<Waiting>> {
    let doing = "read the messages";
    let row = sqlx::query(
        "DELETE FROM outbox
         WHERE route = ? AND job = ? AND kind = ? AND about = ? AND sent_at IS NULL
         RETURNING event, next_at, posted_at, attempts, waits",
    )
    .bind(post.route)
    .bind(job_of(post.event))
    .bind(post.event.kind.as_str())
    .bind(&post.event.about)
    .fetch_optional(tx)
    .await
    .context(doing)?;
    let Some(row) = row else { return Ok(None) };
    let event: String = row.try_get("event").context(doing)?;
    let event: Event = serde_json::from_str(&event).context(doing)?;
    Ok(Some(Waiting {
        again: event.again.unwrap_or(Again { times: 1, since: event.at }),
        due: time(row.try_get("next_at").context(doing)?),
        posted_at: time(row.try_get("posted_at").context(doing)?),
        attempts: row.try_get("attempts").context(doing)?,
        waits: row.try_get("waits").context(doing)?,
    }))
}

pub(super) async fn insert(
    tx: &mut SqliteConnection,
    post: &Post<'_>,
    (event, now): (&str, Timestamp),
    place: Option<Waiting>,
) -> sqlx::Result<()> {
    let (due, posted_at, attempts, waits) = match place {
        Some(place) => (place.due, place.posted_at, place.attempts, place.waits),
        None => (now, now, 0, None),
    };
    sqlx::query(
        "INSERT INTO outbox (route, event, next_at, job, kind, about, posted_at, attempts, waits)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(post.route)
    .bind(event)
    .bind(millis(due))
    .bind(job_of(post.event))
    .bind(post.event.kind.as_str())
    .bind(&post.event.about)
    .bind(millis(posted_at))
    .bind(attempts)
    .bind(waits)
    .execute(tx)
    .await?;
    Ok(())
}
