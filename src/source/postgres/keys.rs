//! The keys of a table that comes in an archive of its own: made as soon as its rows are there, while others
//! are still on their way. Knows pg_restore's list of an archive; must not know how rows are loaded.

use std::fs;
use std::path::Path;

use super::loading::Loading;
use super::programs::run;
use crate::fault::{Context, Result};
use crate::model::{Content, TableName};
use crate::source::child::{self, Program};

const SECTION: &str = "--section=post-data";

/// An entry of a list without its numbers: what it is, of which schema, and its name.
pub(super) fn entry(line: &str) -> &str {
    // Number; two more of the source's catalog; what it is.
    line.splitn(4, ' ').nth(3).unwrap_or_default()
}

/// The table whose primary or unique key an entry is, of these: `CONSTRAINT schema table key owner`. Where a
/// name has a blank in it two may fit; the first of them is taken each time.
fn of_table(line: &str, tables: &[TableName]) -> Option<usize> {
    let key = entry(line).strip_prefix("CONSTRAINT ")?;
    tables.iter().position(|table| {
        let rest = key.strip_prefix(&table.schema).and_then(|rest| rest.strip_prefix(' '));
        rest.and_then(|rest| rest.strip_prefix(&table.table))
            .is_some_and(|rest| rest.starts_with(' '))
    })
}

impl Loading {
    /// Tables whose keys need not wait for the rows of all others. Of a piece, and of an archive that is not
    /// trusted with a superuser's rights, everything has its own order.
    fn early(&self) -> Vec<TableName> {
        if self.only.is_some() || self.rows_as.is_some() {
            return Vec::new();
        }
        let rows = self.contents.iter().filter_map(|content| match content {
            Content::Rows(table) => table.clone(),
            _ => None,
        });
        rows.collect()
    }

    /// Makes the keys of a table, all rows of which are there.
    pub(super) async fn make_keys(&self, table: &TableName, archive: &Path) -> Result<Vec<String>> {
        let tables = self.early();
        let Some(number) = tables.iter().position(|early| early == table) else {
            return Ok(Vec::new());
        };
        let of_this = |line: &str| of_table(line, &tables) == Some(number);
        self.listed(archive, &format!("keys-{number}"), of_this).await
    }

    /// Makes what comes after the rows, but for the keys that are there already.
    pub(super) async fn make_rest(&self, archive: &Path) -> Result<Vec<String>> {
        let tables = self.early();
        self.listed(archive, "rest", |line| of_table(line, &tables).is_none()).await
    }

    /// Those entries behind the rows that `is_meant` names.
    async fn listed(
        &self,
        archive: &Path,
        name: &str,
        is_meant: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>> {
        let list = self.behind_rows()?.arg("--list").arg(archive);
        let list = child::whole_output(list, self.session.cancel.clone()).await?;
        let lines: Vec<&str> = entries(&list).filter(|line| is_meant(line)).collect();
        if lines.is_empty() {
            return Ok(Vec::new());
        }
        let chosen = archive.with_extension(name);
        fs::write(&chosen, lines.join("\n") + "\n").context("write what is made")?;
        let program = self
            .behind_rows()?
            .arg("--exit-on-error")
            .arg(format!("--use-list={}", chosen.display()))
            .args(self.parallel());
        let said = run(program.arg(archive), &self.session).await?;
        fs::remove_file(&chosen).ok();
        Ok(said)
    }

    fn behind_rows(&self) -> Result<Program> {
        Ok(self.pg_restore()?.arg(SECTION))
    }
}

/// The lines of a list that are no comments.
pub(super) fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_made_once() {
        let list = ";\n; Archive created\n\
            1; 2606 10 CONSTRAINT public orders orders_pkey shop\n\
            2; 2606 11 CONSTRAINT public orders of 2025 orders of 2025_pkey shop\n\
            3; 2606 12 CONSTRAINT public customers customers_pkey shop\n\
            4; 2606 13 FK CONSTRAINT public orders orders_customer_fkey shop\n\
            5; 1259 14 INDEX public orders_at shop\n\
            6; 2606 15 CONSTRAINT other orders orders_pkey shop\n";
        let name = |table: &str| TableName { schema: "public".into(), table: table.into() };
        let tables = [name("orders of 2025"), name("orders"), name("order")];
        let of: Vec<_> = entries(list).map(|line| of_table(line, &tables)).collect();
        assert_eq!(of, [Some(1), Some(0), None, None, None, None]);
    }
}
