//! What was erased, erased again in a database that was just loaded and that nobody uses yet. Knows
//! statements; must not know where the ledger lies.

use sqlx::{AssertSqlSafe, PgConnection};
use tokio_util::sync::CancellationToken;

use super::tables::quote;
use crate::fault::{Fault, Result};
use crate::model::{Erasure, Subject};

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
        let sql = match &erasure.subject {
            Subject::Schema(schema) => format!("DROP SCHEMA IF EXISTS {} CASCADE", quote(schema)),
            Subject::Sql(sql) => sql.clone(),
        };
        // One after the other: each sees what the one before left.
        let running = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection);
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
