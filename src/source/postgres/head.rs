//! The head of an archive of pg_dump's custom format: what it is, and its table of contents. Knows the format
//! (PostgreSQL's `pg_backup_archiver.c`); must not know what anybody wants of it.

use std::ops::Range;

/// A sign, and four bytes.
pub(super) const NUMBER_BYTES: usize = 5;
const OFFSET_BYTES: usize = 8;
/// A position in the file that the archive's maker went back to fill in.
const POSITION_SET: u8 = 2;

/// How much of an archive is its head.
pub(super) enum Head<'a> {
    /// It ends here.
    Is(usize, Vec<Entry<'a>>),
    GoesOn,
    Unknown,
}

/// One line of the table of contents.
#[derive(Debug, Clone)]
pub(super) struct Entry<'a> {
    /// `TABLE`, `TABLE DATA`, ...
    pub kind: &'a [u8],
    pub schema: &'a [u8],
    pub name: &'a [u8],
    /// Where its COPY statement stands in the head, with the number before it; None: it has none.
    pub copy: Option<Range<usize>>,
}

/// Looks at the beginning of an archive. One with positions, compression or of another version is `Unknown`.
pub(super) fn read(bytes: &[u8]) -> Head<'_> {
    let mut cursor = Cursor { whole: bytes, rest: bytes };
    match cursor.head() {
        Some(Some(entries)) => Head::Is(cursor.here(), entries),
        Some(None) => Head::Unknown,
        None => Head::GoesOn,
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
    fn head(&mut self) -> Option<Option<Vec<Entry<'a>>>> {
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
        let mut entries = Vec::new();
        for _ in 0..self.number()? {
            let (entry, position) = self.entry(minor)?;
            if position == POSITION_SET {
                return Some(None);
            }
            entries.push(entry);
        }
        Some(Some(entries))
    }

    /// A line, and whether its position in the file was filled in.
    fn entry(&mut self, minor: u8) -> Option<(Entry<'a>, u8)> {
        // Its number, whether it has data, and its place in the catalog.
        self.numbers(2)?;
        self.texts(2)?;
        let name = self.text()?.unwrap_or_default();
        let kind = self.text()?.unwrap_or_default();
        // Section; definition, and how to drop it.
        self.numbers(1)?;
        self.texts(2)?;
        let start = self.here();
        let has_copy = self.text()?.is_some_and(|copy| !copy.is_empty());
        let copy = has_copy.then(|| start..self.here());
        let schema = self.text()?.unwrap_or_default();
        // Tablespace, access method and kind.
        self.texts(if minor >= 14 { 2 } else { 1 })?;
        self.numbers(usize::from(minor >= 16))?;
        // Owner, OIDs, and what it depends on.
        self.texts(2)?;
        while self.text()?.is_some() {}
        let [position, ..] = *self.bytes(1 + OFFSET_BYTES)? else { return None };
        Some((Entry { kind, schema, name, copy }, position))
    }
}
