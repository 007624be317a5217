//! The moment of a dump: a brief global lock, inside which the dump's transaction and one of our own
//! begin, so that both see the same rows and ours can count them. Without the right to it, the
//! counts are approximate.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row};
use tokio::sync::oneshot;

use super::connection::number;
use super::{Mysql, quote};
use crate::fault::{Context, Result};
use crate::model::{Fingerprint, FingerprintLevel, TableName, TablePrint};

/// How long the lock is waited for: every writer of the server waits behind it meanwhile.
const LOCK_SECONDS: u32 = 3;
/// How long it is held at most, until the dump has begun.
const HELD: Duration = Duration::from_secs(10);

/// The rows of these tables, in one transaction, in a database that nobody writes to.
pub(super) async fn rows_of(source: &Mysql, tables: Vec<String>) -> Result<Fingerprint> {
    let counter = Moment::counter(source).await?;
    let moment = Moment { database: source.database.clone(), counter, lock: None, note: None };
    let begun = oneshot::channel().1;
    moment.count(begun, tables).await.map(|counted| counted.fingerprint)
}

/// The rows of every table that has some of its own.
#[derive(Debug)]
pub(super) struct Counted {
    pub fingerprint: Fingerprint,
    /// Why it is approximate, for people.
    pub note: Option<String>,
}

/// A moment that was begun: the lock, where it was given, and the transaction that will count.
pub(super) struct Moment {
    database: String,
    counter: MySqlConnection,
    lock: Option<MySqlConnection>,
    note: Option<String>,
}

impl Moment {
    /// Takes the lock if the server gives it, and begins a transaction that sees what is there now.
    /// The dump must begin next.
    pub(super) async fn begin(source: &Mysql) -> Result<Self> {
        let mut lock = source.connect(Some(&source.database)).await?;
        let locking =
            format!("SET SESSION lock_wait_timeout = {LOCK_SECONDS}; FLUSH TABLES WITH READ LOCK");
        let locked = sqlx::raw_sql(AssertSqlSafe(locking)).execute(&mut lock).await;
        let note = match &locked {
            Ok(_) => None,
            Err(error) => Some(match number(error) {
                Some(1044 | 1045 | 1142 | 1227) => {
                    "row counts are approximate: the user has no RELOAD right".to_owned()
                }
                Some(1205) => {
                    "row counts are approximate: the server was too busy for a brief lock"
                        .to_owned()
                }
                _ => format!("row counts are approximate: {error}"),
            }),
        };
        let counter = Self::counter(source).await?;
        let lock = locked.is_ok().then_some(lock);
        Ok(Self { database: source.database.clone(), counter, lock, note })
    }

    /// A session in a transaction that sees what is there now.
    async fn counter(source: &Mysql) -> Result<MySqlConnection> {
        let mut counter = source.connect(Some(&source.database)).await?;
        sqlx::raw_sql(
            "SET SESSION lock_wait_timeout = 600; SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT",
        )
        .execute(&mut counter)
        .await
        .transient("begin a transaction")?;
        Ok(counter)
    }

    /// Gives the lock back once the dump has `begun`, or can't wait for longer, and counts.
    pub(super) async fn count(
        mut self,
        begun: oneshot::Receiver<()>,
        tables: Vec<String>,
    ) -> Result<Counted> {
        if let Some(lock) = self.lock.take() {
            let began = matches!(tokio::time::timeout(HELD, begun).await, Ok(Ok(())));
            // The lock ends with its session, however that ends.
            lock.close().await.ok();
            if !began {
                self.note = Some(format!(
                    "row counts are approximate: the dump did not begin within {} s",
                    HELD.as_secs()
                ));
            }
        }
        let mut counted = Vec::new();
        for table in tables {
            let rows = self.rows(&table).await.transient(format!("count the rows of '{table}'"))?;
            let name = TableName { schema: self.database.clone(), table };
            counted.push(TablePrint { name, rows, hash: None });
        }
        self.counter.close().await.ok();
        let fingerprint = Fingerprint {
            level: FingerprintLevel::Counts,
            approximate: self.note.is_some(),
            tables: counted,
            sequences: Vec::new(),
            objects: BTreeMap::new(),
        };
        Ok(Counted { fingerprint, note: self.note })
    }

    /// Rolled back to a savepoint, so that no table stays locked against DDL after its turn.
    async fn rows(&mut self, table: &str) -> Result<u64, sqlx::Error> {
        let run = async |connection: &mut MySqlConnection, sql: &'static str| {
            sqlx::raw_sql(sql).execute(connection).await.map(drop)
        };
        run(&mut self.counter, "SAVEPOINT counted").await?;
        let sql = format!("SELECT COUNT(*) FROM {}.{}", quote(&self.database), quote(table));
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut self.counter).await?;
        run(&mut self.counter, "ROLLBACK TO SAVEPOINT counted").await?;
        let rows: i64 = row.try_get_unchecked(0)?;
        Ok(u64::try_from(rows).unwrap_or(0))
    }
}
