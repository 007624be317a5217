//! The tables that a table's rows lie in too: its partitions, and those that inherit from it. Knows the
//! catalog; must not know how they are loaded.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::loading::Loading;
use super::tables::{quote, quoted};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, Content, SourceFacts, TableName};
use crate::source::Piece;

impl Loading {
    /// Looks, once, for those of the table that is wanted alone, now that all definitions are there.
    pub(super) async fn find_heirs(&self) -> Result<()> {
        let Some(Piece::Table(table)) = &self.only else { return Ok(()) };
        if self.found_heirs.get().is_some() {
            return Ok(());
        }
        let mut inside = self.server.connect(&self.database).await?;
        let names: Vec<(String, String)> = sqlx::query_as(
            "WITH RECURSIVE heir AS (
                SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass($1)
                UNION
                SELECT i.inhrelid FROM heir h JOIN pg_inherits i ON i.inhparent = h.inhrelid)
             SELECT n.nspname::text, c.relname::text FROM heir
                 JOIN pg_class c ON c.oid = inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p') ORDER BY 1, 2",
        )
        .bind(quoted(table))
        .fetch_all(&mut inside)
        .await
        .context("look for partitions and heirs")?;
        inside.close().await.ok();
        let names = names.into_iter().map(|(schema, table)| TableName { schema, table }).collect();
        self.found_heirs.set(names).ok();
        Ok(())
    }

    pub(super) fn heirs(&self) -> &[TableName] {
        self.found_heirs.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a table is of what is wanted.
    pub(super) fn is_wanted(&self, table: &TableName) -> bool {
        let Some(piece) = &self.only else { return true };
        piece.holds(table) || self.heirs().contains(table)
    }

    /// Whether an archive of rows alone has some that are wanted. It is asked when the definitions are there.
    pub(super) async fn needs(&self, artifact: &Artifact) -> Result<bool> {
        let Content::Rows(Some(table)) = &artifact.content else { return Ok(true) };
        self.find_heirs().await?;
        Ok(self.is_wanted(table))
    }

    /// A table of which nothing was counted may have come back without its rows, and nobody would know.
    pub(super) fn can_be_compared(&self, facts: &SourceFacts) -> Result<()> {
        let (Some(piece @ Piece::Table(_)), Some(print)) = (&self.only, &facts.fingerprint) else {
            return Ok(());
        };
        match print.tables.iter().any(|table| self.is_wanted(&table.name)) {
            true => Ok(()),
            false => Err(Fault::permanent(format!("the backup has no rows of {piece}")).hint(
                "`respaldo show JOB ID --json` lists its tables; a view, or a table whose rows were left out, comes with --schema",
            )),
        }
    }
}

/// Parts the relations of a schema from what they inherit from outside of it: where they are moved to
/// there may be something of that name, which would then have their rows too. Returns the words that undo it.
pub(super) async fn disinherit(inside: &mut PgConnection, schema: &str) -> Result<Vec<String>> {
    let doing = "part it from what it inherits from";
    let parents: Vec<(String, String, String, Option<String>)> = sqlx::query_as(
        "SELECT c.relname::text, n.nspname::text, p.relname::text, pg_get_expr(c.relpartbound, c.oid)
         FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid JOIN pg_class p ON p.oid = inhparent
             JOIN pg_namespace n ON n.oid = p.relnamespace
         WHERE c.relnamespace = to_regnamespace($1) AND p.relnamespace <> c.relnamespace
           AND c.relkind IN ('r', 'p', 'f')
         ORDER BY 1, 2, 3",
    )
    .bind(quote(schema))
    .fetch_all(&mut *inside)
    .await
    .context(doing)?;
    let mut again = Vec::new();
    for (table, parent_schema, parent, bound) in parents {
        let child = quoted(&TableName { schema: schema.to_owned(), table });
        let parent = quoted(&TableName { schema: parent_schema, table: parent });
        let (sql, words) = match bound {
            Some(bound) => (
                format!("ALTER TABLE {parent} DETACH PARTITION {child}"),
                format!("ALTER TABLE {parent} ATTACH PARTITION {child} {bound}"),
            ),
            None => (
                format!("ALTER TABLE {child} NO INHERIT {parent}"),
                format!("ALTER TABLE {child} INHERIT {parent}"),
            ),
        };
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *inside).await.context(doing)?;
        again.push(words);
    }
    Ok(again)
}
