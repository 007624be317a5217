//! What a loaded database holds, by the questions that were asked of the one that was backed up; and the
//! planner's facts, which come of reading it too. Knows which tables were looked at early; must not know how
//! they were loaded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::try_join_all;
use sqlx::{AssertSqlSafe, Connection as _};

use super::loading::Loading;
use super::tables::quoted;
use super::{fingerprint, tables};
use crate::comparison::expected_of;
use crate::fault::{Context, Fault, Result};
use crate::model::{FingerprintLevel, SourceFacts, TableName, TablePrint};

/// Without a word about the system's own tables, which only a superuser analyzes.
const QUIET: &str = "SET client_min_messages = error";

/// Tables that were counted where the backup was, and analyzed where they were complete, as soon as their rows were
/// there: what comes after that adds none and takes none.
#[derive(Debug, Clone, Default)]
pub(super) struct Ready(Arc<Mutex<BTreeMap<TableName, Seen>>>);

#[derive(Debug, Clone)]
struct Seen {
    print: Option<TablePrint>,
    is_analyzed: bool,
}

impl Ready {
    fn all(&self) -> BTreeMap<TableName, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, table: &TableName, seen: Seen) {
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ready.insert(table.clone(), seen);
    }
}

impl Loading {
    /// What of the backup's facts is loaded.
    pub(super) fn expects(&self, facts: &SourceFacts) -> SourceFacts {
        let mut expected = expected_of(facts, &self.contents);
        if self.no_owner {
            expected.roles.clear();
        }
        if self.only.is_none() {
            return expected;
        }
        expected.extensions.clear();
        expected.roles.clear();
        if let Some(print) = &mut expected.fingerprint {
            print.tables.retain(|table| self.is_wanted(&table.name));
            print.sequences.clear();
            print.objects.clear();
        }
        expected
    }

    /// Counts a table, the rows of which are there; and analyzes it if it has all else.
    pub(super) async fn look_at(&self, table: &TableName, is_complete: bool) -> Result<()> {
        let print = self.facts.as_ref().and_then(|facts| facts.fingerprint.as_ref());
        let print = print.filter(|print| print.tables.iter().any(|known| known.name == *table));
        let counted = async {
            match print {
                Some(print) => self.count(vec![table.clone()], print.level).await,
                None => Ok(Vec::new()),
            }
        };
        let analyzed = async {
            match is_complete {
                true => self.run_analyze(&quoted(table)).await,
                false => Ok(()),
            }
        };
        let (counted, analyzed) = tokio::join!(counted, analyzed);
        analyzed?;
        self.ready.add(table, Seen { print: counted?.pop(), is_analyzed: is_complete });
        Ok(())
    }

    /// Gives the planner its facts about every table that was not complete early.
    pub(super) async fn analyze(&self) -> Result<()> {
        let analyzed = self.ready.all().into_iter().filter(|(_, seen)| seen.is_analyzed);
        let (schemas, names): (Vec<_>, Vec<_>) =
            analyzed.map(|(name, _)| (name.schema, name.table)).unzip();
        if names.is_empty() {
            return self.run_analyze("").await;
        }
        let mut inside = self.server.connect(&self.database).await?;
        let others: Option<String> = sqlx::query_scalar(
            "SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
               AND (n.nspname::text, c.relname::text) NOT IN (SELECT * FROM unnest($1, $2))",
        )
        .bind(&schemas)
        .bind(&names)
        .fetch_one(&mut inside)
        .await
        .context("list what is analyzed")?;
        inside.close().await.ok();
        self.run_analyze(&others.unwrap_or_default()).await
    }

    async fn run_analyze(&self, tables: &str) -> Result<()> {
        let mut inside = self.server.connect(&self.database).await?;
        let sql = format!("{QUIET}; ANALYZE {tables}");
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut inside).await;
        inside.close().await.ok();
        done.map(drop).context("analyze the new database")
    }

    /// What the database holds, by the questions that were asked of the one that was backed up.
    pub(super) async fn holds(&self, expected: &SourceFacts) -> Result<SourceFacts> {
        let mut connection = self.server.connect(&self.database).await?;
        let (_, mut facts) = self.server.facts(&mut connection).await?;
        if let Some(print) = &expected.fingerprint {
            let there = tables::list(&mut connection).await?;
            let is_there = |name: &TableName| there.iter().any(|table| table.name == *name);
            let early = self.ready.all().into_values().filter_map(|seen| seen.print);
            let early: Vec<TablePrint> = early.collect();
            let is_early = |name: &TableName| early.iter().any(|print| print.name == *name);
            let wanted = print.tables.iter().map(|table| &table.name);
            let wanted: Vec<_> =
                wanted.filter(|name| is_there(name) && !is_early(name)).cloned().collect();
            let mut tables = self.count(wanted, print.level).await?;
            tables.extend(early.into_iter().filter(|print| is_there(&print.name)));
            fingerprint::begin(&mut connection, None).await?;
            let mut held = fingerprint::with_rest(&mut connection, tables, print.level).await?;
            if !print.objects.contains_key(fingerprint::POPULATED) {
                held.objects.remove(fingerprint::POPULATED);
            }
            facts.fingerprint = Some(held);
        }
        connection.close().await.ok();
        Ok(facts)
    }

    /// Counts tables, or hashes them, by several sessions at once.
    async fn count(
        &self,
        tables: Vec<TableName>,
        level: FingerprintLevel,
    ) -> Result<Vec<TablePrint>> {
        let sessions = self.jobs.max(1).min(tables.len());
        let waiting = Mutex::new(tables.into_iter());
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
        let counting = (0..sessions).map(|_| async {
            let mut connection = self.server.connect(&self.database).await?;
            fingerprint::begin(&mut connection, None).await?;
            let mut prints = Vec::new();
            while let Some(table) = next() {
                prints.push(fingerprint::table(&mut connection, &table, level).await?);
            }
            connection.close().await.ok();
            Ok(prints)
        });
        tokio::select! {
            counted = try_join_all(counting) => Ok(counted?.concat()),
            () = self.session.cancel.cancelled() => Err(Fault::cancelled("the restore was stopped")),
        }
    }
}
