//! What was erased, erased again in a database that was just loaded and that nobody uses yet. Knows
//! statements; must not know where the ledger lies.

use sqlx::{AssertSqlSafe, PgConnection};
use tokio_util::sync::CancellationToken;

use super::tables::quote;
use super::target::literal;
use crate::fault::{Fault, Result};
use crate::model::{Erasure, Subject};

/// The same as SQL for psql, for a transaction that goes on: as text of the server's, no word of which is
/// a command of psql's.
pub(super) fn reapplying(erasures: &[Erasure]) -> String {
    // As whoever asked for it had it, and not as pg_restore left it.
    let again = |erasure| format!("EXECUTE {};", literal(&sql_of(erasure)));
    let statements =
        erasures.iter().map(|erasure| format!("RESET ALL;\n{}", in_block(&again(erasure))));
    statements.collect()
}

/// Statements as a block of the server's own language.
pub(super) fn in_block(statements: &str) -> String {
    let tag = format!("$respaldo_{}$", uuid::Uuid::new_v4().simple());
    format!("DO {tag} BEGIN {statements} END {tag};\n")
}

fn sql_of(erasure: &Erasure) -> String {
    match &erasure.subject {
        Subject::Schema(schema) => format!("DROP SCHEMA IF EXISTS {} CASCADE", quote(schema)),
        Subject::Sql(sql) => sql.clone(),
    }
}

/// There is no such table, no such schema.
const ABSENT: [&str; 2] = ["42P01", "3F000"];

/// Runs each; the first that fails is the end. `parts_only`: what an erasure is about may not have
/// been loaded, and then there is nothing to erase. Returns how many were done.
pub(super) async fn reapply(
    connection: &mut PgConnection,
    erasures: &[Erasure],
    parts_only: bool,
    cancel: &CancellationToken,
) -> Result<usize> {
    let mut done = 0;
    for erasure in erasures {
        // One after the other: each sees what the one before left.
        let running = sqlx::raw_sql(AssertSqlSafe(sql_of(erasure))).execute(&mut *connection);
        let ran = tokio::select! {
            ran = running => ran,
            () = cancel.cancelled() => return Err(Fault::cancelled("the restore was stopped")),
        };
        match ran {
            Ok(_) => done += 1,
            Err(error) if parts_only && is_absent(&error) => {
                tracing::info!("not loaded, so nothing to erase in it: {}", erasure.words());
            }
            Err(error) => {
                let what = format!("erase again: {}", erasure.words());
                return Err(Fault::permanent(what).cause(error).hint(
                    "`respaldo erase JOB --list` shows what was erased; this backup does not suit that statement, so nothing was put in place",
                ));
            }
        }
    }
    Ok(done)
}

fn is_absent(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ABSENT.contains(&code.as_ref()))
}
