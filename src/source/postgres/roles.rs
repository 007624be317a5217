//! Roles that a backup names: which of them a server lacks, and how they are made. Must not know what
//! they are needed for.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::Postgres;
use super::tables::quote;
use crate::fault::{Context, Fault, Result};

/// Those of them that are not there.
pub(super) async fn missing(admin: &mut PgConnection, named: &[String]) -> Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT one FROM unnest($1) one WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = one)",
    )
    .bind(named)
    .fetch_all(admin)
    .await
    .context("look for roles")
}

/// Makes them, without a login.
pub(super) async fn make(server: &Postgres, roles: &[String]) -> Result<()> {
    if roles.is_empty() {
        return Ok(());
    }
    let mut admin = server.connect("postgres").await?;
    for role in roles {
        let sql = format!("CREATE ROLE {} NOLOGIN", quote(role));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.map_err(|error| {
            Fault::permanent(format!("create the role '{role}'"))
                .cause(error)
                .hint("the user needs CREATEROLE; or restore with --no-owner")
        })?;
    }
    admin.close().await.ok();
    Ok(())
}
