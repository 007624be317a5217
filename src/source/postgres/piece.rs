//! A part of a backup put into a live database, in a schema of its own: loaded into a database that was
//! made for it, moved there in one transaction, and rows of it copied back where that is wanted.
//! Nothing that is there is changed, but for rows that are missing.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::heirs::disinherit;
use super::loading::Loading;
use super::programs::run_into;
use super::swap::{self, NEW};
use super::tables::{quote, quoted};
use super::target::free_name;
use super::{Postgres, client, locale};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, SourceFacts, TableName};
use crate::source::{Finished, Intake, Piece, Session, Target, Wanted};

pub(super) struct PieceTarget {
    loading: Loading,
    /// The live database.
    name: String,
    piece: Piece,
    /// The schema that it goes into.
    into: String,
    rows: Option<String>,
    obstacles: Vec<String>,
    claimed: Option<PgConnection>,
}

impl PieceTarget {
    pub(super) async fn new(
        source: &Postgres,
        wanted: &Wanted,
        piece: Piece,
        session: &Session,
        (name, major): (String, u32),
    ) -> Result<Self> {
        let mut inside = source.connect(&name).await?;
        let into =
            wanted.into.clone().unwrap_or_else(|| format!("{}__{}", piece.schema(), wanted.tag));
        let has = async |inside: &mut PgConnection, schema: &str| -> Result<bool> {
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)")
                .bind(schema)
                .fetch_one(inside)
                .await
                .context("look at the schemas")
        };
        let mut obstacles = Vec::new();
        if has(&mut inside, &into).await? {
            obstacles
                .push(format!("'{name}' has a schema '{into}' already: name another with --into"));
        }
        if wanted.rows.is_some() && !has(&mut inside, piece.schema()).await? {
            obstacles.push(format!(
                "'{name}' has no schema '{}' to copy rows to: leave --where away",
                piece.schema()
            ));
        }
        let may_create: bool = sqlx::query_scalar(
            "SELECT (rolcreatedb OR rolsuper) AND has_database_privilege(current_database(), 'CREATE')
             FROM pg_roles WHERE rolname = current_user",
        )
        .fetch_one(&mut inside)
        .await
        .context("look at the own role")?;
        if !may_create {
            obstacles.push(format!(
                "'{}' needs the right to make a database and a schema: ALTER ROLE ... CREATEDB; GRANT CREATE ON DATABASE ...",
                source.user
            ));
        }
        let taken = swap::names(&mut inside).await?;
        let beside = free_name(&name, &format!("{NEW}{}", wanted.tag), &taken);
        let mut loading = Loading::new(source, wanted, session, (beside, major));
        if let Some(facts) = &mut loading.facts {
            locale::fill(facts, &mut inside, &name).await?;
        }
        inside.close().await.ok();
        loading.only = Some(piece.clone());
        let rows = wanted.rows.clone();
        Ok(Self { loading, name, piece, into, rows, obstacles, claimed: None })
    }

    /// In the database beside, all of the piece gets into a schema that the live one does not have, and
    /// has no part in anything outside of it. Returns the words that would give it that again.
    async fn rename(&self) -> Result<Vec<String>> {
        let mut inside = self.loading.server.connect(&self.loading.database).await?;
        if self.into != self.piece.schema() {
            let sql = self.renaming();
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut inside).await.map_err(|error| {
                Fault::permanent(format!("find {} in the backup", self.piece))
                    .cause(error)
                    .hint("`respaldo show JOB ID --json` lists its tables")
            })?;
        }
        let again = disinherit(&mut inside, &self.into).await?;
        inside.close().await.ok();
        Ok(again)
    }

    fn renaming(&self) -> String {
        let into = quote(&self.into);
        match &self.piece {
            Piece::Schema(schema) => format!("ALTER SCHEMA {} RENAME TO {into}", quote(schema)),
            Piece::Table(table) => {
                let all = self.loading.heirs().iter().chain([table]);
                let moved =
                    all.map(|one| format!("; ALTER TABLE {} SET SCHEMA {into}", quoted(one)));
                format!("CREATE SCHEMA {into}{}", moved.collect::<String>())
            }
        }
    }

    /// One program reads it there, another one writes it here; a stream that ends early is no archive.
    async fn move_over(&self) -> Result<()> {
        let (loading, server) = (&self.loading, &self.loading.server);
        let client = client::for_server("pg_dump", loading.major, server.bin_dir.as_deref())?;
        let reader = server
            .program(client.path, &loading.database)
            .args(["--no-password", "--format=custom", "--compress=0"])
            .arg(format!("--schema={}", quote(&self.into)));
        let writer =
            loading.restore_into(&self.name)?.args(["--single-transaction", "--exit-on-error"]);
        run_into(reader, writer, &loading.session).await
    }

    /// Rows that are missing where they were, by the condition; those that are there stay as they are.
    async fn copy_back(&self, condition: &str) -> Result<Vec<String>> {
        let mut inside = self.loading.server.connect(&self.name).await?;
        let mut said = Vec::new();
        let mut fitting = 0;
        let doing = "copy rows back";
        sqlx::raw_sql("BEGIN; SET CONSTRAINTS ALL DEFERRED")
            .execute(&mut inside)
            .await
            .context(doing)?;
        for (table, is_partitioned) in self.tables(&mut inside).await? {
            let from = TableName { schema: self.into.clone(), table: table.clone() };
            let to = self.origin(table);
            // What heirs hold is copied back to them; a partitioned table has nothing of its own.
            let only = if is_partitioned { "" } else { "ONLY " };
            let rows = format!("FROM {only}{} AS t WHERE ({condition}\n)", quoted(&from));
            let sql = format!("SAVEPOINT one; SELECT 1 {rows} LIMIT 0");
            let fits = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut inside).await;
            if let Err(error) = fits {
                sqlx::raw_sql("ROLLBACK TO one").execute(&mut inside).await.context(doing)?;
                said.push(format!("{} has no such rows: {error}", quoted(&to)));
                continue;
            }
            if !has_key(&mut inside, &to).await? {
                let (to, from) = (quoted(&to), quoted(&from));
                said.push(format!(
                    "{to} has no key by which a row could be told to be missing: copy by hand from {from}"
                ));
                continue;
            }
            fitting += 1;
            let columns = self.columns(&mut inside, &to).await?.join(", ");
            let sql = format!(
                "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} {rows} ON CONFLICT DO NOTHING",
                quoted(&to)
            );
            let inserted = sqlx::query(AssertSqlSafe(sql)).execute(&mut inside).await;
            let inserted = inserted.context(format!("copy rows back to {}", quoted(&to)))?;
            said.push(format!("{} rows came back to {}", inserted.rows_affected(), quoted(&to)));
        }
        if fitting == 0 {
            return Err(Fault::usage(format!(
                "no rows of {} can be copied back: {}",
                self.piece,
                said.join("; ")
            ))
            .hint(format!("'{}' holds it; copy from there by hand", self.into)));
        }
        sqlx::raw_sql("COMMIT").execute(&mut inside).await.context(doing)?;
        inside.close().await.ok();
        Ok(said)
    }

    /// Where a table that came was in the backup: an heir may have been in another schema.
    fn origin(&self, table: String) -> TableName {
        let heir = self.loading.heirs().iter().find(|heir| heir.table == table);
        heir.cloned().unwrap_or(TableName { schema: self.piece.schema().to_owned(), table })
    }

    /// Those that came, and whether they are partitioned, each after the ones that it refers to. Rows of
    /// a partition are those of its parent.
    async fn tables(&self, inside: &mut PgConnection) -> Result<Vec<(String, bool)>> {
        let doing = "list the tables";
        let there: BTreeMap<String, bool> = sqlx::query_as(
            "SELECT relname::text, relkind = 'p' FROM pg_class
             WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p') AND NOT relispartition
             ORDER BY 1",
        )
        .bind(quote(&self.into))
        .fetch_all(&mut *inside)
        .await
        .context(doing)?
        .into_iter()
        .collect();
        let keys: Vec<(String, String)> = sqlx::query_as(
            "SELECT f.relname::text, t.relname::text FROM pg_constraint k
                  JOIN pg_class f ON f.oid = k.conrelid JOIN pg_class t ON t.oid = k.confrelid
             WHERE k.contype = 'f' AND f.oid <> t.oid
               AND f.relnamespace = to_regnamespace($1) AND t.relnamespace = f.relnamespace",
        )
        .bind(quote(self.piece.schema()))
        .fetch_all(inside)
        .await
        .context(doing)?;
        let ordered = in_order(there.keys().cloned().collect(), &keys).into_iter();
        Ok(ordered.map(|table| (table.clone(), there.get(&table) == Some(&true))).collect())
    }

    /// Columns that both have and that can be written.
    async fn columns(&self, inside: &mut PgConnection, to: &TableName) -> Result<Vec<String>> {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT a.attname::text FROM pg_attribute a JOIN pg_attribute b USING (attname)
             WHERE a.attrelid = to_regclass($1) AND b.attrelid = to_regclass($2)
               AND a.attnum > 0 AND b.attnum > 0 AND NOT a.attisdropped AND NOT b.attisdropped
               AND a.attgenerated = '' ORDER BY a.attnum",
        )
        .bind(quoted(to))
        .bind(quoted(&TableName { schema: self.into.clone(), table: to.table.clone() }))
        .fetch_all(inside)
        .await
        .context("list the columns")?;
        if names.is_empty() {
            return Err(Fault::permanent(format!("there is no table {} any more", quoted(to)))
                .hint("make it first, or leave --where away"));
        }
        Ok(names.iter().map(|name| quote(name)).collect())
    }
}

/// Whether a row that is there can be told from one that is missing: by columns that are unique and
/// never null. Without them every row would come a second time.
async fn has_key(inside: &mut PgConnection, table: &TableName) -> Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_index i
             WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indimmediate
               AND i.indpred IS NULL AND NOT EXISTS (
                 SELECT FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k
                      LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k
                 WHERE k = 0 OR NOT a.attnotnull))",
    )
    .bind(quoted(table))
    .fetch_one(inside)
    .await
    .context("look at the table's keys")
}

/// Tables in an order in which each comes after those that it refers to; in a circle, as they are.
fn in_order(mut left: Vec<String>, keys: &[(String, String)]) -> Vec<String> {
    let mut waits: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in keys {
        waits.entry(from).or_default().push(to);
    }
    let mut ordered = Vec::new();
    while !left.is_empty() {
        let is_free = |table: &String| {
            waits
                .get(table.as_str())
                .is_none_or(|to| !to.iter().any(|to| left.iter().any(|l| l == to)))
        };
        let (free, rest): (Vec<String>, Vec<String>) = left.iter().cloned().partition(is_free);
        if free.is_empty() {
            ordered.extend(rest);
            return ordered;
        }
        ordered.extend(free);
        left = rest;
    }
    ordered
}

#[async_trait]
impl Target for PieceTarget {
    fn plan(&self) -> Vec<String> {
        let server = &self.loading.server;
        let mut lines = vec![format!(
            "{} into database '{}' on {}:{}, as the schema '{}'; what is there stays as it is",
            self.piece, self.name, server.host, server.port, self.into
        )];
        if let Some(condition) = &self.rows {
            lines.push(format!(
                "then rows where {condition} come back to '{}', where they are missing",
                self.piece.schema()
            ));
        }
        lines
    }

    fn name(&self) -> String {
        self.into.clone()
    }

    fn obstacles(&self) -> Vec<String> {
        self.obstacles.clone()
    }

    async fn begin(&mut self) -> Result<()> {
        self.claimed = Some(self.loading.begin_beside(None, None).await?);
        Ok(())
    }

    fn at_once(&self) -> usize {
        self.loading.jobs
    }

    async fn needs(&mut self, artifact: &Artifact) -> Result<bool> {
        self.loading.needs(artifact).await
    }

    async fn load(&mut self, artifact: &Artifact) -> Result<Intake> {
        self.loading.load(artifact).await
    }

    async fn complete(&mut self) -> Result<()> {
        self.loading.complete().await
    }

    fn expects(&self, facts: &SourceFacts) -> SourceFacts {
        self.loading.expects(facts)
    }

    async fn holds(&mut self, expected: &SourceFacts) -> Result<Option<SourceFacts>> {
        self.loading.holds(expected).await.map(Some)
    }

    async fn finish(&mut self) -> Result<Finished> {
        let again = self.rename().await?;
        self.move_over().await?;
        let mut said =
            vec![format!("{} is in '{}' as the schema '{}'", self.piece, self.name, self.into)];
        said.extend(
            again.iter().map(|sql| format!("a part of nothing that is there; to be one: {sql}")),
        );
        if let Some(condition) = &self.rows {
            said.extend(self.copy_back(condition).await?);
        }
        said.push(format!("DROP SCHEMA {} CASCADE removes it again", quote(&self.into)));
        self.discard().await;
        Ok(said.into())
    }

    async fn discard(&mut self) {
        if let Some(admin) = self.claimed.take() {
            self.loading.drop_beside(admin).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_after_those_that_it_refers_to() {
        let tables = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let key = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let keys = [key("a", "b"), key("b", "d"), key("c", "elsewhere")];
        assert_eq!(in_order(tables.clone(), &keys), ["c", "d", "b", "a"]);
        let circle = [key("a", "b"), key("b", "a")];
        assert_eq!(in_order(tables, &circle), ["c", "d", "a", "b"]);
    }
}
