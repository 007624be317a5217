//! One database put in the place of another, in one transaction: whoever kills us at any instant leaves
//! the one or the other, whole and open. And what was cut off before that, found and removed.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::tables::quote;
use super::target::{free_name, literal};
use super::{Postgres, belongings};
use crate::fault::{Context, Fault, Result};
use crate::model::BackupId;
use crate::source::Kept;

/// Between the database's name and the backup's id, in the name of one that is being loaded.
pub(super) const NEW: &str = "__new_";
/// And in that of one that was replaced.
pub(super) const BEFORE: &str = "__before_";
/// How often clients are sent away until the rename has happened.
const AGAIN: Duration = Duration::from_millis(100);
/// The rename itself waits for 5 s until nobody is left (`CountOtherDBBackends`).
const TRIES: u32 = 3;

/// `name` becomes `away`, and `new` becomes `name`, which gets `comment`. `name` may not exist.
///
/// A rename takes the lock that every new client needs first, and waits for those that are there: so
/// they are sent away meanwhile, by another session, and nobody comes in between.
pub(super) async fn swap(
    server: &Postgres,
    admin: &mut PgConnection,
    (name, new, away): (&str, &str, &str),
    comment: Option<&str>,
    exists: bool,
) -> Result<()> {
    let doing = format!("put '{new}' in the place of '{name}'");
    let comment = comment.map_or("NULL".to_owned(), literal);
    let mut sql = format!("BEGIN; COMMENT ON DATABASE {} IS {comment};", quote(new));
    if exists {
        sql.push_str(&format!("ALTER DATABASE {} RENAME TO {};", quote(name), quote(away)));
    }
    // Not the COMMIT, which a server that waits for a lock would come to even when we are dead.
    sql.push_str(&format!("ALTER DATABASE {} RENAME TO {}", quote(new), quote(name)));
    let mut other = server.connect_beside(name).await?;
    for left in (0..TRIES).rev() {
        let renamed = {
            let mut renaming =
                Box::pin(sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *admin));
            loop {
                tokio::select! {
                    renamed = &mut renaming => break renamed,
                    () = tokio::time::sleep(AGAIN) => send_away(&mut other, &[name, new]).await,
                }
            }
        };
        let renamed = match renamed {
            Ok(_) => sqlx::raw_sql("COMMIT").execute(&mut *admin).await,
            Err(error) => Err(error),
        };
        let Err(error) = renamed else {
            other.close().await.ok();
            return Ok(());
        };
        sqlx::raw_sql("ROLLBACK").execute(&mut *admin).await.ok();
        let in_use = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        if left == 0 || in_use.as_deref() != Some("55006") {
            return Err(Fault::permanent(doing).cause(error).hint(
                "nothing was changed; does this user own the database, and may it end others' sessions (pg_signal_backend)?",
            ));
        }
    }
    Ok(())
}

async fn send_away(admin: &mut PgConnection, databases: &[&str]) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = ANY($1) AND pid <> pg_backend_pid()";
    let gone = sqlx::query(sql).bind(databases).execute(admin).await;
    if let Err(error) = gone {
        tracing::debug!("some clients could not be sent away: {error}");
    }
}

/// Held, in the database `postgres`, by whoever loads a database of that name: it goes with its session.
pub(super) async fn claim(admin: &mut PgConnection, new: &str) -> Result<bool> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock(1920168804, hashtext($1))")
        .bind(new)
        .fetch_one(admin)
        .await
        .context("claim the new database's name")
}

impl Postgres {
    /// A connection that is not to a database that will be renamed.
    pub(super) async fn connect_beside(&self, name: &str) -> Result<PgConnection> {
        let other = if name == "postgres" { "template1" } else { "postgres" };
        self.connect(other).await
    }

    /// Drops what restores that were cut off have left, and says so.
    pub(super) async fn drop_leftovers(&self) -> Result<Vec<String>> {
        let doing = "look for what a restore left behind";
        let mut admin = self.connect("postgres").await?;
        let there: Vec<String> = sqlx::query_scalar(
            "SELECT datname::text FROM pg_database WHERE pg_has_role(datdba, 'MEMBER')",
        )
        .fetch_all(&mut admin)
        .await
        .context(doing)?;
        let mut said = Vec::new();
        for new in there.iter().filter(|name| backup_of(name, NEW).is_some()) {
            if !claim(&mut admin, new).await? {
                continue;
            }
            let sql = format!("DROP DATABASE {}", quote(new));
            match sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await {
                Ok(_) => {
                    said.push(format!("dropped '{new}', which a restore that was cut off left"))
                }
                Err(error) => said.push(format!("could not drop '{new}': {error}")),
            }
        }
        admin.close().await.ok();
        Ok(said)
    }
}

/// Puts a replaced database back in its place; the one that had taken it is kept in turn.
pub(super) async fn undo(server: &Postgres, kept: &Kept) -> Result<Kept> {
    let mut admin = server.connect_beside(&kept.current).await?;
    let Some(old) = belongings::of(&mut admin, &kept.kept).await? else {
        return Err(Fault::usage(format!("there is no database '{}' any more", kept.kept))
            .hint("`respaldo list` shows the backups that can be restored"));
    };
    let exists = belongings::of(&mut admin, &kept.current).await?.is_some();
    let taken = names(&mut admin).await?;
    let ending = kept.kept.rsplit_once(BEFORE).map_or("", |(_, tag)| tag);
    let away = free_name(&kept.current, &format!("{BEFORE}{ending}"), &taken);
    let swapped = (kept.current.as_str(), kept.kept.as_str(), away.as_str());
    swap(server, &mut admin, swapped, old.comment.as_deref(), exists).await?;
    admin.close().await.ok();
    Ok(Kept { current: kept.current.clone(), kept: away })
}

/// Drops a replaced database. Only one that a restore has named is ever dropped.
pub(super) async fn forget(server: &Postgres, kept: &Kept) -> Result<()> {
    if backup_of(&kept.kept, BEFORE).is_none() {
        return Err(Fault::permanent(format!(
            "'{}' is not a name that a restore gives",
            kept.kept
        )));
    }
    let mut admin = server.connect_beside(&kept.kept).await?;
    let sql = format!("DROP DATABASE IF EXISTS {}", quote(&kept.kept));
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.map_err(|error| {
        Fault::transient(format!("drop '{}'", kept.kept))
            .cause(error)
            .hint("somebody is connected to it, or this user does not own it; it is tried again")
    })?;
    admin.close().await.ok();
    Ok(())
}

/// What restores of a backup have replaced, by the names that they gave.
pub(super) async fn replaced(server: &Postgres, backup: &BackupId) -> Result<Vec<Kept>> {
    let mut admin = server.connect("postgres").await?;
    let there = names(&mut admin).await?;
    admin.close().await.ok();
    if let Some(new) = there.iter().find(|name| backup_of(name, NEW) == Some(*backup)) {
        return Err(Fault::transient(format!(
            "a session that was cut off is still busy with '{new}'"
        ))
        .hint("it ends by itself; the next start looks again"));
    }
    let of_backup = there.iter().filter(|name| backup_of(name, BEFORE) == Some(*backup));
    let kept = of_backup.filter_map(|name| {
        let (current, _) = name.rsplit_once(BEFORE)?;
        let current = there.iter().find(|other| other.as_str() == current)?.clone();
        Some(Kept { current, kept: name.clone() })
    });
    Ok(kept.collect())
}

pub(super) async fn names(admin: &mut PgConnection) -> Result<Vec<String>> {
    sqlx::query_scalar("SELECT datname::text FROM pg_database")
        .fetch_all(admin)
        .await
        .context("list the databases")
}

/// The backup in whose name a database is called: `shop__new_20251124t020000z`.
pub(super) fn backup_of(name: &str, between: &str) -> Option<BackupId> {
    let (_, tag) = name.rsplit_once(between)?;
    let id = tag.split('_').next()?.to_uppercase();
    id.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_own_are_ours() {
        assert!(backup_of("shop__new_20251124t020000z", NEW).is_some());
        assert!(backup_of("shop__new_20251124t020000z-2_3", NEW).is_some());
        assert!(backup_of("__new_20251124t020000z", NEW).is_some());
        for foreign in ["shop", "shop__new_", "shop__new_one", "shop__before_20251124t020000z"] {
            assert!(backup_of(foreign, NEW).is_none(), "{foreign}");
        }
    }
}
