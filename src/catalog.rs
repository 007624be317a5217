//! The daemon's memory: runs, backups, messages to send. SQLite in WAL mode, shared by the daemon
//! and the command line. Knows rows; must not know how anything is done. What matters beyond this
//! machine lies in manifests and marks: this file may be lost and is then rebuilt from them.

mod audit;
mod backups;
mod checks;
mod drills;
mod figures;
mod history;
mod kept;
mod outbox;
mod runs;
mod space;
mod tokens;
mod uploads;
mod wal;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::ConnectOptions as _;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use uuid::Uuid;

use crate::durable;
use crate::fault::{Context, Fault, Result};
use crate::lock::Lock;

pub use audit::AuditQuery;
pub use backups::{Copy, Known};
pub use checks::{Check, Checks};
pub use drills::Drill;
pub use figures::{Ended, Kept, LastDrill, LastProof};
pub use history::{Gone, Removed};
pub use kept::Replaced;
pub use outbox::{Message, Note, Post};
pub use runs::{Finish, Request, Run, RunQuery};
pub use tokens::Token;
pub use uploads::OpenUpload;

#[derive(Clone)]
pub struct Catalog {
    pool: SqlitePool,
}

impl Catalog {
    /// Opens `catalog.sqlite3` in the data folder, making and migrating it as needed.
    pub async fn open(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join("catalog.sqlite3");
        durable::create_folder(data_dir).map_err(|error| {
            let (user, group) =
                (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            Fault::usage(format!("create data_dir {}", data_dir.display())).cause(error).hint(format!(
                "mkdir -p {0} && chown -R {user}:{group} {0}, or name another data_dir (RESPALDO__DATA_DIR)",
                data_dir.display()
            ))
        })?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A run's end must survive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(30))
            .disable_statement_logging();
        let doing = || format!("open the catalog {}", path.display());
        // Two that begin at once would both make the first table; and none can be turned to WAL mode while
        // another is open.
        let lock = data_dir.join("locks/catalog");
        let taking = tokio::task::spawn_blocking(move || Lock::take(&lock)).await;
        let _alone =
            taking.context(doing())?.map_err(|error| unusable(doing(), data_dir, error))?;
        let opened = SqlitePoolOptions::new().max_connections(4).connect_with(options).await;
        let pool = opened.map_err(|error| unusable(doing(), data_dir, error))?;
        let migrated = sqlx::migrate!("src/catalog/migrations").run(&pool).await;
        migrated.map_err(|error| match error {
            MigrateError::VersionMissing(_) => {
                Fault::usage(format!("{}: a newer respaldo has changed it", doing())).hint(format!(
                    "run that version; or move {} (with its -wal and -shm) away and run `respaldo catalog rebuild`",
                    path.display()
                ))
            }
            error => Fault::usage(doing())
                .cause(error)
                .hint("move the file away and run `respaldo catalog rebuild`"),
        })?;
        Ok(Self { pool })
    }

    /// This installation's own id; made once. It signs the job markers on destinations.
    pub async fn installation(&self) -> Result<Uuid> {
        let made = Uuid::new_v4().to_string();
        sqlx::query("INSERT INTO facts VALUES ('installation', ?) ON CONFLICT DO NOTHING")
            .bind(made)
            .execute(&self.pool)
            .await
            .context("name this installation")?;
        let value = self.fact("installation").await?.unwrap_or_default();
        value.parse().context("read this installation's name")
    }

    /// A small fact, by name.
    pub async fn fact(&self, name: &str) -> Result<Option<String>> {
        sqlx::query_scalar("SELECT value FROM facts WHERE name = ?")
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .context("read a fact")
    }

    pub async fn set_fact(&self, name: &str, value: &str) -> Result<()> {
        sqlx::query("INSERT OR REPLACE INTO facts VALUES (?, ?)")
            .bind(name)
            .bind(value)
            .execute(&self.pool)
            .await
            .context("record a fact")?;
        Ok(())
    }

    pub async fn clear_fact(&self, name: &str) -> Result<()> {
        sqlx::query("DELETE FROM facts WHERE name = ?")
            .bind(name)
            .execute(&self.pool)
            .await
            .context("forget a fact")?;
        Ok(())
    }

    /// Nothing was ever recorded: a new machine, or a catalog that was lost.
    pub async fn is_empty(&self) -> Result<bool> {
        let rows: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM backups)",
        )
        .fetch_one(&self.pool)
        .await
        .context("look into the catalog")?;
        Ok(rows == 0)
    }

    /// The policy under which a prune was last carried out here.
    pub async fn last_policy(&self, job: &str, destination: &str) -> Result<Option<String>> {
        sqlx::query_scalar("SELECT policy FROM policies WHERE job = ? AND destination = ?")
            .bind(job)
            .bind(destination)
            .fetch_optional(&self.pool)
            .await
            .context("read the last policy")
    }

    pub async fn set_policy(&self, job: &str, destination: &str, policy: &str) -> Result<()> {
        sqlx::query("INSERT OR REPLACE INTO policies VALUES (?, ?, ?)")
            .bind(job)
            .bind(destination)
            .bind(policy)
            .execute(&self.pool)
            .await
            .context("record the policy")?;
        Ok(())
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Says which right may be missing, and the command that gives it.
fn unusable(
    doing: String,
    data_dir: &Path,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Fault {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Fault::usage(doing).cause(error).hint(format!(
        "respaldo runs as uid {user}: chown -R {user}:{group} {0}; if the file is damaged, move it away and run `respaldo catalog rebuild`",
        data_dir.display()
    ))
}

fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

fn time(millis: i64) -> Timestamp {
    // `never` is a run's word for the end of the calendar.
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_daemon_and_commands_that_begin_at_once_make_one_catalog() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let opening = |_| {
            tokio::spawn({
                let path = path.clone();
                async move { Catalog::open(&path).await.map(drop) }
            })
        };
        let all: Vec<_> = (0..12).map(opening).collect();
        for opened in all {
            opened.await.unwrap().unwrap();
        }
    }
}
