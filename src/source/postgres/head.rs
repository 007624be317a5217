//! The head of an archive of pg_dump's custom format: what it is, and its table of contents. Knows the format
//! (PostgreSQL's `pg_backup_archiver.c`); must not know what anybody wants of it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::Path;

/// A sign, and four bytes.
pub(super) const NUMBER_BYTES: usize = 5;
const OFFSET_BYTES: usize = 8;
/// One that is larger is not looked at.
pub(super) const MOST_BYTES: usize = 64 << 20;
const FIRST_BYTES: u64 = 64 << 10;
/// A position in the file that the archive's maker went back to fill in.
const POSITION_SET: u8 = 2;

/// How much of an archive is its head.
pub(super) enum Head<'a> {
    Is(Contents<'a>),
    GoesOn,
    Unknown,
}

/// The table of contents.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    pub entries: Vec<Entry<'a>>,
    /// All of the head; behind it begins what is stored.
    pub bytes: &'a [u8],
    /// Where the number of entries stands.
    count_at: usize,
}

/// When something is made. What belongs to a thing, as its rights and comment do, is made with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Section {
    #[default]
    PreData,
    Data,
    PostData,
}

/// One line of the table of contents.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry<'a> {
    /// Its number, from 1.
    pub id: i64,
    pub section: Section,
    /// Numbers of those that must be there before it.
    pub needs: Vec<i64>,
    /// All of it.
    pub bytes: &'a [u8],
    /// `TABLE`, `TABLE DATA`, ...
    pub kind: &'a [u8],
    pub schema: &'a [u8],
    pub name: &'a [u8],
    /// Where its COPY statement stands in the head, with the number before it; None: it has none.
    pub copy: Option<Range<usize>>,
}

/// The head of an archive in a file; None: it is `Unknown`, or not all of it is there.
pub(super) fn in_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let (mut bytes, mut wanted) = (Vec::new(), FIRST_BYTES);
    loop {
        let more = (&mut file).take(wanted).read_to_end(&mut bytes)?;
        match read(&bytes) {
            Head::Is(contents) => {
                let end = contents.bytes.len();
                bytes.truncate(end);
                return Ok(Some(bytes));
            }
            Head::GoesOn if more > 0 && bytes.len() < MOST_BYTES => wanted = bytes.len() as u64,
            Head::GoesOn | Head::Unknown => return Ok(None),
        }
    }
}

/// Looks at the beginning of an archive. One with positions, compression or of another version is `Unknown`.
pub(super) fn read(bytes: &[u8]) -> Head<'_> {
    let mut cursor = Cursor { whole: bytes, rest: bytes };
    match cursor.head() {
        Some(Some(contents)) => Head::Is(contents),
        Some(None) => Head::Unknown,
        None => Head::GoesOn,
    }
}

/// What can be made of one table's rows.
const OF_ONE_TABLE: [&[u8]; 3] = [b"CONSTRAINT", b"INDEX", b"STATISTICS"];
/// How its texts are to be read: every part of an archive needs that.
const SETTINGS: [&[u8]; 3] = [b"ENCODING", b"STDSTRINGS", b"SEARCHPATH"];

impl<'a> Contents<'a> {
    /// The tables that the archive makes, by schema and name: each with the number of its definition.
    pub(super) fn tables(&self) -> HashMap<(&'a [u8], &'a [u8]), i64> {
        let tables = self.entries.iter().filter(|entry| entry.kind == b"TABLE");
        tables.map(|entry| ((entry.schema, entry.name), entry.id)).collect()
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

    /// Definitions of the tables with these rows.
    pub(super) fn tables_of(&self, rows: &HashSet<i64>) -> HashSet<i64> {
        let tables = self.tables();
        let rows = self.entries.iter().filter(|entry| rows.contains(&entry.id));
        rows.filter_map(|entry| tables.get(&(entry.schema, entry.name)).copied()).collect()
    }

    /// Indexes, keys and statistics that need nothing but definitions and the rows of these tables.
    pub(super) fn made_of(&self, tables: &HashSet<i64>) -> Vec<i64> {
        // Of other tables, and what comes after definitions, the entry would have to wait for.
        let waited_for = |entry: &&Entry<'_>| match entry.section {
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

/// Of a head that was read before.
pub(super) fn contents(bytes: &[u8]) -> Option<Contents<'_>> {
    match read(bytes) {
        Head::Is(contents) => Some(contents),
        Head::GoesOn | Head::Unknown => None,
    }
}

/// Each gives `None` where more is needed.
struct Cursor<'a> {
    whole: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn here(&self) -> usize {
        self.whole.len() - self.rest.len()
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<i64> {
        let [sign, number @ ..] = *self.bytes(NUMBER_BYTES)?.first_chunk::<NUMBER_BYTES>()?;
        let number = i64::from(u32::from_le_bytes(number));
        Some(if sign == 0 { number } else { -number })
    }

    fn numbers(&mut self, count: usize) -> Option<()> {
        self.bytes(count * NUMBER_BYTES).map(drop)
    }

    /// Not each is there.
    fn text(&mut self) -> Option<Option<&'a [u8]>> {
        match usize::try_from(self.number()?) {
            Ok(length) => self.bytes(length).map(Some),
            Err(_) => Some(None),
        }
    }

    fn texts(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.text().map(drop))
    }

    /// Its entries, if all of it is as it is known here.
    fn head(&mut self) -> Option<Option<Contents<'a>>> {
        let magic = self.bytes(5)?;
        let [major, minor, _, number, offset, format] = *self.bytes(6)?.first_chunk()?;
        let is_known = magic == b"PGDMP" && major == 1 && (12..=16).contains(&minor);
        let sizes = (usize::from(number) + 1, usize::from(offset));
        // 1: custom.
        if !is_known || sizes != (NUMBER_BYTES, OFFSET_BYTES) || format != 1 {
            return Some(None);
        }
        let is_compressed = match minor {
            ..15 => self.number()? != 0,
            15.. => self.bytes(1)? != [0],
        };
        if is_compressed {
            return Some(None);
        }
        // When it was made; of which database, by which versions.
        self.numbers(7)?;
        self.texts(3)?;
        let count_at = self.here();
        let mut entries: Vec<Entry<'_>> = Vec::new();
        for _ in 0..self.number()? {
            let section = entries.last().map_or(Section::PreData, |entry| entry.section);
            let (entry, position) = self.entry(minor, section)?;
            if position == POSITION_SET {
                return Some(None);
            }
            entries.push(entry);
        }
        Some(Some(Contents { entries, bytes: &self.whole[..self.here()], count_at }))
    }

    /// A line, and whether its position in the file was filled in. Where it has no section of its own, it
    /// is of that of the line before it.
    fn entry(&mut self, minor: u8, section: Section) -> Option<(Entry<'a>, u8)> {
        let begin = self.here();
        let id = self.number()?;
        // Whether it has data, and its place in the catalog.
        self.numbers(1)?;
        self.texts(2)?;
        let name = self.text()?.unwrap_or_default();
        let kind = self.text()?.unwrap_or_default();
        let section = match self.number()? {
            2 => Section::PreData,
            3 => Section::Data,
            4 => Section::PostData,
            _ => section,
        };
        // Definition, and how to drop it.
        self.texts(2)?;
        let start = self.here();
        let has_copy = self.text()?.is_some_and(|copy| !copy.is_empty());
        let copy = has_copy.then(|| start..self.here());
        let schema = self.text()?.unwrap_or_default();
        // Tablespace, access method and kind.
        self.texts(if minor >= 14 { 2 } else { 1 })?;
        self.numbers(usize::from(minor >= 16))?;
        // Owner, and OIDs.
        self.texts(2)?;
        let mut needs = Vec::new();
        while let Some(needed) = self.text()? {
            needs.extend(str::from_utf8(needed).ok().and_then(|id| id.parse::<i64>().ok()));
        }
        let [position, ..] = *self.bytes(1 + OFFSET_BYTES)? else { return None };
        let bytes = &self.whole[begin..self.here()];
        Some((Entry { id, section, needs, bytes, kind, schema, name, copy }, position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: i64) -> Vec<u8> {
        let bytes = u32::try_from(n.abs()).unwrap().to_le_bytes();
        [&[u8::from(n < 0)], &bytes[..]].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        [number(i64::try_from(text.len()).unwrap()), text.as_bytes().to_vec()].concat()
    }

    /// As pg_dump 15 writes it: of each entry its kind and name, its section, and what it needs.
    fn head(entries: &[(&str, &str, i64, &[i64])]) -> Vec<u8> {
        let mut head = b"PGDMP\x01\x0e\0\x04\x08\x01".to_vec();
        head.extend((0..8).flat_map(number));
        head[11..16].copy_from_slice(&number(0));
        head.extend(["shop", "15.1", "15.1"].into_iter().flat_map(text));
        head.extend(number(i64::try_from(entries.len()).unwrap()));
        for (id, (kind, name, section, needs)) in (1..).zip(entries) {
            head.extend(
                [number(id), number(0), text("0"), text("0"), text(name), text(kind)].concat(),
            );
            head.extend([number(*section), text(""), text(""), text("")].concat());
            head.extend(["public", "", "heap", "shop", "false"].into_iter().flat_map(text));
            head.extend(needs.iter().flat_map(|id| text(&id.to_string())));
            head.extend([number(-1), vec![1], vec![0; 8]].concat());
        }
        head
    }

    const SHOP: [(&str, &str, i64, &[i64]); 17] = [
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
    ];

    #[test]
    fn what_needs_one_table_is_made_with_it() {
        let head = head(&SHOP);
        let contents = contents(&head).unwrap();
        let orders = contents.tables_of(&[7].into());
        assert_eq!(orders, [2].into());
        assert_eq!(contents.made_of(&orders), [10, 12, 14]);
        let both = contents.tables_of(&[7, 8].into());
        assert_eq!(contents.made_of(&both), [10, 12, 13, 14, 15]);
        assert_eq!(contents.made_of(&HashSet::new()), [0; 0]);
    }

    #[test]
    fn rights_come_after_the_rows_and_what_belongs_to_a_thing_with_it() {
        let head = head(&SHOP);
        let contents = contents(&head).unwrap();
        assert_eq!(contents.definitions(), [1, 2, 3, 5, 6]);
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

    #[test]
    fn a_head_in_a_file_is_read_to_its_end() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let many = vec![SHOP[3]; 5000];
        let head = head(&many);
        assert!(head.len() as u64 > 2 * FIRST_BYTES);
        std::fs::write(place.path(), [&head[..], b"rows"].concat()).unwrap();
        assert!(in_file(place.path()).unwrap().unwrap() == head);
        std::fs::write(place.path(), &head[..head.len() - 1]).unwrap();
        assert!(in_file(place.path()).unwrap().is_none());
    }
}
