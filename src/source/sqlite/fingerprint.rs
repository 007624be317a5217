//! What the tables of a database file held: rows counted, and their content hashed where that is
//! wanted. Knows SQLite's values; must not know what is compared with what.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use sha2::{Digest, Sha256};

use crate::fault::{Context, Result};
use crate::model::{Fingerprint, FingerprintLevel, TableName, TablePrint};

/// Reads every table of a copy that nobody writes to.
pub(super) fn take(connection: &Connection, level: FingerprintLevel) -> Result<Fingerprint> {
    let doing = "list the tables";
    // The rows of a virtual table are in others, or in no file of this database at all.
    let mut names = connection
        .prepare(
            "SELECT name FROM sqlite_schema
             WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name",
        )
        .context(doing)?;
    let names: Vec<String> =
        names.query_map([], |row| row.get(0)).and_then(Iterator::collect).context(doing)?;
    let tables = names.into_iter().map(|name| table(connection, name, level));
    Ok(Fingerprint {
        level,
        approximate: false,
        tables: tables.collect::<Result<_>>()?,
        sequences: Vec::new(),
        objects: objects(connection)?,
    })
}

fn table(connection: &Connection, name: String, level: FingerprintLevel) -> Result<TablePrint> {
    let doing = format!("count {name}");
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    let (rows, hash) = match level {
        FingerprintLevel::Counts => {
            let sql = format!("SELECT count(*) FROM {quoted}");
            let rows: i64 = connection.query_row(&sql, [], |row| row.get(0)).context(doing)?;
            (rows.unsigned_abs(), None)
        }
        FingerprintLevel::Content => {
            let (rows, sum) = content(connection, &quoted).context(doing)?;
            (rows, Some(format!("{sum:032x}")))
        }
    };
    Ok(TablePrint { name: TableName { schema: "main".into(), table: name }, rows, hash })
}

/// The number of rows, and the sum over them of 64 bits of each one's digest: it does not depend on
/// their order, and sees one that is there twice.
fn content(connection: &Connection, table: &str) -> rusqlite::Result<(u64, u128)> {
    let mut statement = connection.prepare(&format!("SELECT * FROM {table}"))?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let (mut count, mut sum) = (0, 0_u128);
    while let Some(row) = rows.next()? {
        let mut digest = Sha256::new();
        for column in 0..columns {
            // Each value with its type and length, so that none can pass for another.
            let (kind, bytes): (u8, &[u8]) = match row.get_ref(column)? {
                ValueRef::Null => (0, &[]),
                ValueRef::Integer(number) => (1, &number.to_be_bytes()),
                ValueRef::Real(number) => (2, &number.to_be_bytes()),
                ValueRef::Text(text) => (3, text),
                ValueRef::Blob(blob) => (4, blob),
            };
            digest.update([kind]);
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        }
        let digest = digest.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        sum = sum.wrapping_add(u128::from(u64::from_be_bytes(first)));
        count += 1;
    }
    Ok((count, sum))
}

fn objects(connection: &Connection) -> Result<BTreeMap<String, u64>> {
    let doing = "count the objects";
    let mut kinds = connection
        .prepare("SELECT type || 's', count(*) FROM sqlite_schema GROUP BY type")
        .context(doing)?;
    kinds
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))
        .and_then(Iterator::collect)
        .context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(sql: &str) -> Fingerprint {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        take(&connection, FingerprintLevel::Content).unwrap()
    }

    #[test]
    fn the_order_of_rows_does_not_matter_and_everything_else_does() {
        let rows =
            |values: &str| print(&format!("CREATE TABLE t (a, b); INSERT INTO t VALUES {values}"));
        let first = rows("(1, 'x'), (NULL, x'00'), (1.5, '')");
        assert_eq!(first.tables[0].rows, 3);
        assert_eq!(first, rows("(1.5, ''), (1, 'x'), (NULL, x'00')"));
        for other in [
            "(1, 'x'), (NULL, x'00'), (1.5, ''), (1.5, '')",
            "('1', 'x'), (NULL, x'00'), (1.5, '')",
            "(1, 'x'), (NULL, x'00'), (1.5, NULL)",
            "('x', 1), (NULL, x'00'), (1.5, '')",
        ] {
            assert_ne!(first.tables[0].hash, rows(other).tables[0].hash, "{other}");
        }
    }

    #[test]
    fn odd_names_are_counted_and_virtual_tables_are_not() {
        let print = print(
            "CREATE TABLE \"we\"\"ird \" (a INTEGER PRIMARY KEY) WITHOUT ROWID;
             CREATE VIRTUAL TABLE words USING fts5 (x); INSERT INTO words VALUES ('a b');",
        );
        let names: Vec<&str> = print.tables.iter().map(|t| t.name.table.as_str()).collect();
        assert!(names.contains(&"we\"ird ") && names.contains(&"words_content"), "{names:?}");
        assert!(!names.contains(&"words"));
    }
}
