//! What a table that comes in an archive of its own gets as soon as its rows are there, while others are still
//! on their way: its indexes and keys, the planner's facts, and the count that it is compared by. Knows what the
//! main archive says of them; must not know how rows are loaded.

use std::collections::HashSet;
use std::path::Path;

use super::head::{self, Contents, Section};
use super::loading::Loading;
use crate::fault::{Context, Result};
use crate::model::{Content, TableName};

/// What is made of a table's rows alone.
fn made_of(contents: &Contents<'_>, table: &TableName) -> Vec<i64> {
    contents.table(table).map_or_else(Vec::new, |id| contents.made_of(&[id].into()))
}

const READ: &str = "read the head of the archive";

impl Loading {
    /// Tables that need not wait for the rows of all others. Of a piece, and of an archive that is not trusted
    /// with a superuser's rights, everything has its own order.
    fn early(&self) -> Vec<&TableName> {
        if self.only.is_some() || self.rows_as.is_some() {
            return Vec::new();
        }
        let rows = self.contents.iter().filter_map(|content| match content {
            Content::Rows(table) => table.as_ref(),
            _ => None,
        });
        rows.collect()
    }

    /// Brings a table to its end, all rows of which are there.
    pub(super) async fn make_ready(
        &self,
        table: &TableName,
        archive: &Path,
    ) -> Result<Vec<String>> {
        if !self.early().contains(&table) {
            return Ok(Vec::new());
        }
        let head = head::in_file(archive).context(READ)?;
        let Some(contents) = head.as_deref().and_then(head::contents) else {
            self.look_at(table, false).await?;
            return Ok(Vec::new());
        };
        let made = made_of(&contents, table);
        let said = self.make(archive, &made).await?;
        let is_complete = contents.table(table).is_some_and(|id| contents.is_complete(id, &made));
        self.look_at(table, is_complete).await?;
        Ok(said)
    }

    /// Makes what comes after the rows, but for what is there already.
    pub(super) async fn make_rest(&self, archive: &Path) -> Result<Vec<String>> {
        let head = head::in_file(archive).context(READ)?;
        let Some(contents) = head.as_deref().and_then(head::contents) else {
            return self.section("post-data", archive).await;
        };
        let made = self.early().into_iter().flat_map(|table| made_of(&contents, table));
        let made: HashSet<i64> = made.collect();
        let rest = contents.entries.iter().filter(|entry| entry.section == Section::PostData);
        let rest: Vec<i64> = rest.map(|entry| entry.id).filter(|id| !made.contains(id)).collect();
        self.load_entries(self.pg_restore()?, archive, &rest, self.jobs).await
    }
}
