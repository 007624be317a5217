//! One moment of a database, held still for every archive of a backup and for its fingerprint: the
//! tables are locked against changes of their definition first, and only then is the snapshot taken,
//! for a TRUNCATE or a rewritten column in between would leave it without rows. Knows sessions and
//! locks; must not know what is read in them.

use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::tables::{Choice, Kind, Selection, Table, list, quoted};
use super::{Postgres, fingerprint};
use crate::fault::{Context, Fault, Result};
use crate::model::SequencePrint;

/// How often the session that holds the moment is looked after.
const PULSE: Duration = Duration::from_secs(1);
/// How long a table that somebody else has locked is waited for; pg_dump waits as long.
const LOCK_WAIT: &str = "600s";
/// Tables locked by one statement.
const LOCKED_AT_ONCE: usize = 200;
/// How often the list of tables may change while they are being locked.
const TRIES: u32 = 5;

/// A snapshot that others may take part in for as long as this is held.
pub(super) struct Snapshot {
    pub id: String,
    pub choice: Choice,
    /// As they were before anything was read of it: no snapshot holds them still.
    pub sequences: Vec<SequencePrint>,
    holder: Holder,
}

struct Holder {
    release: oneshot::Sender<()>,
    held: tokio::task::JoinHandle<Result<()>>,
}

impl Snapshot {
    /// Locks every table that `selection` leaves in, and takes the snapshot. `dumps` is the
    /// application name of the programs that will read from it.
    pub(super) async fn take(
        server: &Postgres,
        selection: &Selection,
        dumps: &str,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let mut lister = server.connect(&server.database).await?;
        let mut tries = 0;
        loop {
            tries += 1;
            let choice = choose(selection, &mut lister).await?;
            let mut holder = server.connect(&server.database).await?;
            let taken = take_in(&mut holder, &choice).await;
            match taken {
                Ok(Some(id)) => {
                    let sequences = fingerprint::sequences(&mut lister).await?;
                    lister.close().await.ok();
                    let (release, released) = oneshot::channel();
                    let hold = hold(holder, dumps.to_owned(), released, cancel.clone());
                    let held = tokio::spawn(hold);
                    return Ok(Self { id, choice, sequences, holder: Holder { release, held } });
                }
                Ok(None) if tries < TRIES => {
                    tracing::info!("the tables changed: listing them anew")
                }
                Ok(None) => {
                    return Err(Fault::transient(
                        "the tables kept changing while they were locked",
                    )
                    .hint("is a migration running? the run is tried again"));
                }
                Err(fault) => return Err(explain(fault)),
            }
            holder.close().await.ok();
        }
    }

    /// Lets go of the moment. An error means that it was lost before, and so that the streams may not
    /// belong together.
    pub(super) fn release(self) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            // It may have ended by itself, and then says why.
            self.holder.release.send(()).ok();
            self.holder.held.await.context("hold the snapshot")?
        })
    }
}

async fn choose(selection: &Selection, connection: &mut PgConnection) -> Result<Choice> {
    let tables = list(connection).await?;
    let schemas: Vec<String> = sqlx::query_scalar(
        "SELECT nspname::text FROM pg_namespace n
         WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
           AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass
                           AND d.objid = n.oid AND d.deptype = 'e')
         ORDER BY 1",
    )
    .fetch_all(connection)
    .await
    .transient("list the schemas")?;
    selection.choose(tables, &schemas)
}

/// `None`: a table came or went in the meantime.
async fn take_in(connection: &mut PgConnection, choice: &Choice) -> Result<Option<String>> {
    let run = async |connection: &mut PgConnection, sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(|_| ())
    };
    // Only those that this version knows; the session must outlive the slowest stream.
    let settings = format!(
        "SELECT set_config(name, CASE name WHEN 'lock_timeout' THEN '{LOCK_WAIT}' ELSE '0' END, false)
         FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout',
             'idle_in_transaction_session_timeout', 'idle_session_timeout')"
    );
    run(connection, settings).await.transient("set the session's timeouts")?;
    run(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".into())
        .await
        .transient("begin")?;
    // A LOCK takes no snapshot; the first query does. What we may not read pg_dump will complain of.
    let lockable: Vec<&Table> =
        choice.dumped.iter().filter(|t| t.readable && t.kind != Kind::Materialized).collect();
    for some in lockable.chunks(LOCKED_AT_ONCE) {
        let names: Vec<String> =
            some.iter().map(|table| format!("ONLY {}", quoted(&table.name))).collect();
        let locked =
            run(connection, format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "))).await;
        match locked {
            Ok(()) => {}
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error).transient("lock the tables"),
        }
    }
    let id: String = sqlx::query_scalar("SELECT pg_export_snapshot()")
        .fetch_one(&mut *connection)
        .await
        .transient("export a snapshot")?;
    let new = list(connection).await?;
    // A partitioned table has no rows; a materialized view's are chosen for, as a table's.
    let is_new =
        |table: &Table| table.kind != Kind::Partitioned && !choice.seen.contains(&table.name);
    Ok(if new.iter().any(is_new) { None } else { Some(id) })
}

/// Whether a table or its schema was dropped.
fn is_gone(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("42P01" | "3F000"))
}

fn explain(fault: Fault) -> Fault {
    let text = fault.chain();
    if text.contains("out of shared memory") {
        return fault.hint("raise max_locks_per_transaction on the server: it has many tables");
    }
    if text.contains("lock timeout") {
        return fault.hint(
            "a table stayed locked for 10 minutes: look in pg_locks for who holds it (a migration?)",
        );
    }
    fault
}

/// Keeps the session alive, and watches for what it can't survive: a change of a table's definition
/// that waits for our lock while a dump waits behind it, for ever.
async fn hold(
    mut connection: PgConnection,
    dumps: String,
    mut released: oneshot::Receiver<()>,
    cancel: CancellationToken,
) -> Result<()> {
    let mut pulse = tokio::time::interval(PULSE);
    let mut stuck = 0;
    let lost = loop {
        tokio::select! {
            _ = &mut released => {
                connection.close().await.ok();
                return Ok(());
            }
            () = cancel.cancelled() => {
                connection.close().await.ok();
                return Err(Fault::cancelled("the run was stopped"));
            }
            _ = pulse.tick() => {}
        }
        match waits_behind_us(&mut connection, &dumps).await {
            Ok(None) => stuck = 0,
            // A moment may pass between two looks at the locks: twice is no accident.
            Ok(Some(_)) if stuck == 0 => stuck = 1,
            Ok(Some(statement)) => {
                break Fault::transient(format!(
                    "a table's definition is about to be changed while it is backed up: {statement}"
                ))
                .hint("the run lets it pass, and is tried again");
            }
            Err(fault) => {
                break Fault::transient("the session that holds the snapshot was lost")
                    .cause(fault);
            }
        }
    };
    // Nothing that is still to be read would fit to what was.
    cancel.cancel();
    connection.close().await.ok();
    Err(lost)
}

async fn waits_behind_us(connection: &mut PgConnection, dumps: &str) -> Result<Option<String>> {
    // Activity is remembered within a transaction, which would show us the past.
    sqlx::query("SELECT pg_stat_clear_snapshot()")
        .execute(&mut *connection)
        .await
        .transient("look after the snapshot")?;
    sqlx::query_scalar(
        "SELECT left(coalesce(ahead.query, '?'), 200)
         FROM pg_stat_activity dump, unnest(pg_blocking_pids(dump.pid)) AS waiting (pid)
         LEFT JOIN pg_stat_activity ahead ON ahead.pid = waiting.pid
         WHERE dump.application_name = $1 AND dump.wait_event_type = 'Lock'
           AND pg_backend_pid() = ANY (pg_blocking_pids(waiting.pid))
         LIMIT 1",
    )
    .bind(dumps)
    .fetch_optional(connection)
    .await
    .transient("look after the snapshot")
}
