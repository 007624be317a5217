//! Rows that are loaded as if they had lain there for long: frozen, and their pages all visible. Nobody marks them
//! again later, neither the index that is built next nor the first who reads them, and no vacuum has to come
//! by. Knows how a table's rows are copied in; must not know where an archive comes from.
//!
//! PostgreSQL allows that in a table which the same transaction has emptied, as this does: of a table that holds
//! something already it would be the end. So it is done for tables alone that the restore itself makes.

use std::collections::HashSet;

use super::head::{Contents, Entry};

/// Whose rows are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frozen {
    Nobodys,
    /// Those of tables that the archive defines: not of an extension's, which has rows of its own.
    OfItsTables,
    /// Those of every table: the archive holds nothing but rows, of one that was just made.
    All,
}

/// The head of an archive, that freezes.
pub(super) fn head(contents: &Contents<'_>, whose: Frozen) -> Vec<u8> {
    let (bytes, made) = (contents.bytes, contents.tables());
    let is_frozen = |entry: &&Entry<'_>| match whose {
        Frozen::Nobodys => false,
        Frozen::OfItsTables => made.contains_key(&(entry.schema, entry.name)),
        Frozen::All => true,
    };
    let mut frozen = Vec::with_capacity(bytes.len());
    let mut done = 0;
    for entry in contents.entries.iter().filter(is_frozen) {
        let Some(at) = entry.copy.clone() else { continue };
        let Some(statement) = statement(contents, entry) else { continue };
        let Ok(length) = u32::try_from(statement.len()) else { continue };
        frozen.extend(&bytes[done..at.start]);
        frozen.push(0);
        frozen.extend(length.to_le_bytes());
        frozen.extend(statement);
        done = at.end;
    }
    frozen.extend(&bytes[done..]);
    frozen
}

/// Numbers of the entries that are rows of a table which the archive makes, and of that one alone, and that may
/// be loaded before any other's.
pub(super) fn own_rows(contents: &Contents<'_>) -> HashSet<i64> {
    let (made, calling) = (contents.tables(), contents.calling());
    let is_own = |entry: &&Entry<'_>| {
        let table = made.get(&(entry.schema, entry.name));
        table.is_some_and(|id| !calling.contains(id)) && statement(contents, entry).is_some()
    };
    contents.entries.iter().filter(is_own).map(|entry| entry.id).collect()
}

/// What copies the rows of an entry, with what freezes them.
fn statement(contents: &Contents<'_>, entry: &Entry<'_>) -> Option<Vec<u8>> {
    (entry.kind == b"TABLE DATA").then(|| freezing(contents.copy(entry)?, entry))?
}

/// `COPY shop.items (id, name) FROM stdin;` with what freezes, both in one transaction. None: it copies into another
/// table than that whose rows they are, as pg_dump may for a partition, or in another way.
fn freezing(copy: &[u8], entry: &Entry<'_>) -> Option<Vec<u8>> {
    let copied = copy.strip_prefix(b"COPY ")?.strip_suffix(b" FROM stdin;\n")?;
    let (schema, rest) = identifier(copied)?;
    let (table, columns) = identifier(rest.strip_prefix(b".")?)?;
    if schema != entry.schema || table != entry.name || !matches!(columns, [] | [b' ', b'(', ..]) {
        return None;
    }
    let named = &copied[..copied.len() - columns.len()];
    Some(
        [b"TRUNCATE TABLE ONLY ", named, b"; COPY ", copied, b" FROM stdin WITH (FREEZE);\n"]
            .concat(),
    )
}

/// What an identifier names, and what comes behind it.
fn identifier(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        let is_of_it = |byte: &u8| byte.is_ascii_alphanumeric() || b"_$".contains(byte);
        let length = text.iter().take_while(|byte| is_of_it(byte)).count();
        let (name, rest) = text.split_at(length);
        return (length > 0).then(|| (name.to_vec(), rest));
    };
    let mut name = Vec::new();
    loop {
        let end = rest.iter().position(|byte| *byte == b'"')?;
        name.extend(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(b"\"") {
            // A doubled one is one of the name's own.
            Some(more) => {
                name.push(b'"');
                rest = more;
            }
            None => return Some((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frozen(copy: &str, schema: &str, name: &str) -> Option<String> {
        let (schema, name) = (schema.as_bytes(), name.as_bytes());
        let entry = Entry { schema, name, ..Entry::default() };
        freezing(copy.as_bytes(), &entry).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn a_table_is_emptied_and_filled_in_one_transaction() {
        assert_eq!(
            frozen("COPY public.t (a, b) FROM stdin;\n", "public", "t").unwrap(),
            "TRUNCATE TABLE ONLY public.t; COPY public.t (a, b) FROM stdin WITH (FREEZE);\n"
        );
        let odd = "COPY \"a.b\".\"T \"\" FROM stdin;\" (x) FROM stdin;\n";
        assert_eq!(
            frozen(odd, "a.b", "T \" FROM stdin;").unwrap(),
            "TRUNCATE TABLE ONLY \"a.b\".\"T \"\" FROM stdin;\"; COPY \"a.b\".\"T \"\" FROM stdin;\" (x) FROM stdin WITH (FREEZE);\n"
        );
        assert!(frozen("COPY public.t FROM stdin;\n", "public", "t").is_some());
    }

    #[test]
    fn what_goes_into_another_table_or_another_way_is_left_alone() {
        for copy in [
            "COPY public.parent (a) FROM stdin;\n",
            "-- load via partition root \nCOPY public.t (a) FROM stdin;\n",
            "COPY public.t (a) FROM stdin; DROP TABLE x;\n",
            "COPY public.t; DROP TABLE x; COPY public.t FROM stdin;\n",
            "COPY other.t (a) FROM stdin;\n",
            "COPY t (a) FROM stdin;\n",
            "COPY public.t (a) FROM stdin",
            "COPY public.\"t (a) FROM stdin;\n",
        ] {
            assert_eq!(frozen(copy, "public", "t"), None, "{copy}");
        }
    }
}
