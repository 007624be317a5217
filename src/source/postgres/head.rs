//! The head of an archive of pg_dump's custom format: what it is, and its table of contents. Knows the format
//! (PostgreSQL's `pg_backup_archiver.c`); must not know what anybody wants of it.

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
    pub count_at: usize,
}

/// When something is made. What has none of its own, as rights and comments, counts to that of what stands before it.
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
pub(super) mod tests {
    use super::*;

    pub fn number(n: i64) -> Vec<u8> {
        let bytes = u32::try_from(n.abs()).unwrap().to_le_bytes();
        [&[u8::from(n < 0)], &bytes[..]].concat()
    }

    pub fn text(text: &str) -> Vec<u8> {
        [number(i64::try_from(text.len()).unwrap()), text.as_bytes().to_vec()].concat()
    }

    /// As pg_dump 15 writes it: of each entry its kind and name, its section, and what it needs.
    pub fn head(entries: &[(&str, &str, i64, &[i64])]) -> Vec<u8> {
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

    #[test]
    fn a_head_in_a_file_is_read_to_its_end() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let many = vec![("ACL", "TABLE orders", 1, &[2][..]); 5000];
        let head = head(&many);
        assert!(head.len() as u64 > 2 * FIRST_BYTES);
        std::fs::write(place.path(), [&head[..], b"rows"].concat()).unwrap();
        assert!(in_file(place.path()).unwrap().unwrap() == head);
        std::fs::write(place.path(), &head[..head.len() - 1]).unwrap();
        assert!(in_file(place.path()).unwrap().is_none());
    }
}
