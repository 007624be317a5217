//! One database put in the place of another, in one transaction: whoever kills us at any instant leaves
//! the one or the other, whole and open. And what was cut off before that, found and removed.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::Postgres;
use super::tables::quote;
use super::target::literal;
use crate::fault::{Context, Fault, Result};
use crate::model::BackupId;

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
    sql.push_str(&format!("ALTER DATABASE {} RENAME TO {}; COMMIT", quote(new), quote(name)));
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
