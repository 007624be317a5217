//! What an archive's table of contents says of its entries: which make a table, hold its rows, and come after
//! them. Knows PostgreSQL's names for what it dumps; must not know how it is stored, nor when anything is loaded.

use std::collections::{HashMap, HashSet};

use super::head::{Contents, Entry, NUMBER_BYTES, Section};
use crate::model::TableName;

/// What can be made of one table's rows.
const OF_ONE_TABLE: [&[u8]; 3] = [b"CONSTRAINT", b"INDEX", b"STATISTICS"];
/// Code of the dump's own: nobody knows which tables it reads.
const CODE: [&[u8]; 3] = [b"FUNCTION", b"PROCEDURE", b"AGGREGATE"];
/// How its texts are to be read: every part of an archive needs that.
const SETTINGS: [&[u8]; 3] = [b"ENCODING", b"STDSTRINGS", b"SEARCHPATH"];

impl<'a> Contents<'a> {
    /// The tables that the archive makes, by schema and name: each with the number of its definition.
    pub(super) fn tables(&self) -> HashMap<(&'a [u8], &'a [u8]), i64> {
        let tables = self.entries.iter().filter(|entry| entry.kind == b"TABLE");
        tables.map(|entry| ((entry.schema, entry.name), entry.id)).collect()
    }

    /// The number of a table's definition.
    pub(super) fn table(&self, name: &TableName) -> Option<i64> {
        self.tables().get(&(name.schema.as_bytes(), name.table.as_bytes())).copied()
    }

    /// The statement that copies its rows in.
    pub(super) fn copy(&self, entry: &Entry<'_>) -> Option<&'a [u8]> {
        let at = entry.copy.clone()?;
        self.bytes.get(at.start + NUMBER_BYTES..at.end)
    }

    /// Definitions. Rights come later: they may take away what loading needs.
    pub(super) fn definitions(&self) -> Vec<i64> {
        let is_one = |entry: &&Entry<'_>| entry.section == Section::PreData && entry.kind != b"ACL";
        self.entries.iter().filter(is_one).map(|entry| entry.id).collect()
    }

    /// Definitions that call code of the dump, by themselves or by what they need: a table's checks and generated
    /// columns do, and so its rows may have to wait for those of others.
    pub(super) fn calling(&self) -> HashSet<i64> {
        let mut calling = HashSet::new();
        for entry in self.entries.iter().filter(|entry| entry.section == Section::PreData) {
            if CODE.contains(&entry.kind) || entry.needs.iter().any(|id| calling.contains(id)) {
                calling.insert(entry.id);
            }
        }
        calling
    }

    /// Definitions of the tables with these rows.
    pub(super) fn tables_of(&self, rows: &HashSet<i64>) -> HashSet<i64> {
        let tables = self.tables();
        let rows = self.entries.iter().filter(|entry| rows.contains(&entry.id));
        rows.filter_map(|entry| tables.get(&(entry.schema, entry.name)).copied()).collect()
    }

    /// Indexes, keys and statistics that need nothing but the rows of these tables.
    pub(super) fn made_of(&self, tables: &HashSet<i64>) -> Vec<i64> {
        let calling = self.calling();
        let waited_for = |entry: &&Entry<'_>| match entry.section {
            Section::PreData if calling.contains(&entry.id) => true,
            Section::PreData => entry.kind == b"TABLE" && !tables.contains(&entry.id),
            Section::Data | Section::PostData => true,
        };
        let mut missing: HashSet<i64> =
            self.entries.iter().filter(waited_for).map(|entry| entry.id).collect();
        let mut made = Vec::new();
        for entry in self.entries.iter().filter(|entry| OF_ONE_TABLE.contains(&entry.kind)) {
            let is_of_them = entry.needs.iter().any(|id| tables.contains(id));
            if is_of_them && !entry.needs.iter().any(|id| missing.contains(id)) {
                missing.remove(&entry.id);
                made.push(entry.id);
            }
        }
        made
    }

    /// Whether the planner can be told all about a table that has these: no index comes later, and no heir's rows.
    pub(super) fn is_complete(&self, table: i64, made: &[i64]) -> bool {
        let comes_later = |entry: &Entry<'_>| {
            OF_ONE_TABLE.contains(&entry.kind) && !made.contains(&entry.id)
                || entry.kind == b"TABLE" && entry.id != table
        };
        !self.entries.iter().any(|entry| entry.needs.contains(&table) && comes_later(entry))
    }

    /// The head of an archive that has only these of its entries.
    pub(super) fn only(&self, ids: &HashSet<i64>) -> Vec<u8> {
        let is_in = |entry: &&Entry<'_>| ids.contains(&entry.id) || SETTINGS.contains(&entry.kind);
        let entries: Vec<_> = self.entries.iter().filter(is_in).collect();
        let mut head = self.bytes[..self.count_at].to_vec();
        head.push(0);
        // There are not more of them than its own number says.
        head.extend(u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
        head.extend(entries.iter().flat_map(|entry| entry.bytes));
        head
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::contents;
    use super::super::head::tests::head;
    use super::*;

    const SHOP: [(&str, &str, i64, &[i64]); 20] = [
        ("ENCODING", "ENCODING", 2, &[]),
        ("TABLE", "orders", 2, &[]),
        ("COMMENT", "TABLE orders", 1, &[2]),
        ("ACL", "TABLE orders", 1, &[2]),
        ("TABLE", "people", 2, &[]),
        ("FUNCTION", "f", 2, &[]),
        ("TABLE DATA", "orders", 3, &[2]),
        ("TABLE DATA", "people", 3, &[5]),
        ("SEQUENCE SET", "s", 3, &[]),
        ("CONSTRAINT", "orders orders_pkey", 4, &[2]),
        ("COMMENT", "CONSTRAINT orders_pkey", 1, &[10]),
        ("INDEX", "orders_f", 4, &[6, 2]),
        ("CONSTRAINT", "people people_pkey", 4, &[5]),
        ("STATISTICS", "both", 4, &[2, 10]),
        ("INDEX", "odd", 4, &[2, 5]),
        ("FK CONSTRAINT", "orders orders_fkey", 4, &[2, 13]),
        ("INDEX", "late", 4, &[2, 16]),
        ("DOMAIN", "d", 2, &[6]),
        ("TABLE", "checked", 2, &[18]),
        ("TABLE", "heir", 2, &[5]),
    ];

    #[test]
    fn what_needs_one_table_is_made_with_it() {
        let head = head(&SHOP);
        let contents = contents(&head).unwrap();
        let orders = contents.tables_of(&[7].into());
        assert_eq!(orders, [2].into());
        assert_eq!(contents.made_of(&orders), [10, 14]);
        let both = contents.tables_of(&[7, 8].into());
        assert_eq!(contents.made_of(&both), [10, 13, 14, 15]);
        assert_eq!(contents.made_of(&HashSet::new()), [0; 0]);
        assert!(!contents.is_complete(2, &[10, 14]), "an index comes later");
        let people = contents.tables_of(&[8].into());
        assert_eq!(contents.made_of(&people), [13]);
        assert!(!contents.is_complete(5, &[13]), "a table needs it, and so does an index");
        assert!(contents.is_complete(20, &[]));
    }

    #[test]
    fn what_calls_code_of_the_dump_waits_for_all_rows() {
        let head = head(&SHOP);
        // The function, a domain with it, a table of that domain.
        assert_eq!(contents(&head).unwrap().calling(), [6, 18, 19].into());
    }

    #[test]
    fn rights_come_after_the_rows_and_what_belongs_to_a_thing_with_it() {
        let head = head(&SHOP);
        let contents = contents(&head).unwrap();
        assert_eq!(contents.definitions(), [1, 2, 3, 5, 6, 18, 19, 20]);
        assert_eq!(contents.entries[10].section, Section::PostData);
    }

    #[test]
    fn a_part_of_a_head_is_one() {
        let head = head(&SHOP);
        let part = contents(&head).unwrap().only(&[7, 10].into());
        let part = contents(&part).unwrap();
        let ids: Vec<_> = part.entries.iter().map(|entry| (entry.id, entry.kind)).collect();
        let kinds = [&b"ENCODING"[..], b"TABLE DATA", b"CONSTRAINT"];
        assert_eq!(ids, [(1, kinds[0]), (7, kinds[1]), (10, kinds[2])]);
        assert_eq!(part.entries[2].needs, [2]);
    }
}
