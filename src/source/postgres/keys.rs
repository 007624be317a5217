//! What a table that comes in an archive of its own gets as soon as its rows are there, while others are still
//! on their way: its keys, the planner's facts, and the count that it is compared by. Knows a table's keys in
//! the list of the main archive; must not know how rows are loaded.

use std::path::Path;

use super::entries::{entries, entry};
use super::loading::Loading;
use crate::fault::Result;
use crate::model::{Content, TableName};

const SECTION: &str = "post-data";

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

    /// Brings a table to its end, all rows of which are there.
    pub(super) async fn make_ready(
        &self,
        table: &TableName,
        archive: &Path,
    ) -> Result<Vec<String>> {
        let tables = self.early();
        let Some(number) = tables.iter().position(|early| early == table) else {
            return Ok(Vec::new());
        };
        let of_this = |line: &str| of_table(line, &tables) == Some(number);
        let said = self.make(archive, of_this).await?;
        self.look_at(table).await?;
        Ok(said)
    }

    /// Makes what comes after the rows, but for the keys that are there already.
    pub(super) async fn make_rest(&self, archive: &Path) -> Result<Vec<String>> {
        let tables = self.early();
        self.make(archive, |line| of_table(line, &tables).is_none()).await
    }

    /// Those entries behind the rows that `is_meant` names.
    async fn make(&self, archive: &Path, is_meant: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let list = self.list(SECTION, archive).await?;
        let lines: Vec<&str> = entries(&list).filter(|line| is_meant(line)).collect();
        self.load_entries(SECTION, archive, &lines, |program| program).await
    }
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
