//! A tar stream of which only some members go on: those that a person named, what is below them, and
//! the folders on the way there. Knows tar's headers; what a member becomes is tar's own affair.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::fault::{Fault, Result};

const BLOCK: usize = 512;
/// More than this before one member is no header of a file.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// What is wanted, by globs relative to the folder; a folder means all that is in it.
#[derive(Debug, Clone)]
pub(super) struct Pick {
    globs: GlobSet,
    matched: Arc<AtomicU64>,
    /// Why no more of the stream goes on.
    refused: Arc<OnceLock<String>>,
}

impl Pick {
    /// `None` where all is wanted.
    pub(super) fn new(globs: &[String]) -> Result<Option<Self>> {
        if globs.is_empty() {
            return Ok(None);
        }
        let wrong = |glob: &str, why: String| {
            Fault::usage(format!("--path {glob:?} is not possible: {why}"))
                .hint("a path or glob in the folder that was backed up: albums/2024, '**/*.jpg'")
        };
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            let inside = glob.strip_prefix("./").unwrap_or(glob).trim_end_matches('/');
            if inside.is_empty() || inside.starts_with('/') || inside.split('/').any(|p| p == "..")
            {
                return Err(wrong(glob, "it does not lie in the folder".into()));
            }
            let parsed = GlobBuilder::new(inside).literal_separator(true).build();
            set.add(parsed.map_err(|error| wrong(glob, error.to_string()))?);
        }
        let globs = set.build().map_err(|error| wrong("", error.to_string()))?;
        Ok(Some(Self { globs, matched: Arc::default(), refused: Arc::default() }))
    }

    pub(super) fn is_named(&self, path: &Path) -> bool {
        self.globs.is_match(path)
    }

    /// How many members went on because they were wanted.
    pub(super) fn matched(&self) -> u64 {
        self.matched.load(Ordering::Relaxed)
    }

    /// What is wrong with the stream itself, or with the choice: tar sees only that it ends.
    pub(super) fn check(&self) -> Result<()> {
        match self.refused.get() {
            None => Ok(()),
            Some(why) => Err(Fault::permanent(why.clone())
                .hint("nothing was put in place; without --path all of it is restored")),
        }
    }

    pub(super) fn sieve(&self, inner: Box<dyn Write + Send>) -> Sieve {
        Sieve {
            pick: self.clone(),
            inner,
            block: Vec::with_capacity(BLOCK),
            state: State::Header,
            headers: Vec::new(),
            long: Long::default(),
            above: Vec::new(),
            zeros: 0,
        }
    }

    fn wants(&self, path: &Path) -> bool {
        path.ancestors().any(|part| !part.as_os_str().is_empty() && self.globs.is_match(part))
    }
}

/// What extended headers say of the member that follows.
#[derive(Debug, Default)]
struct Long {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    /// An extended header of that kind: so many bytes of it, and so many with its padding.
    Extended {
        kind: u8,
        size: usize,
        left: u64,
    },
    /// An old sparse file's further blocks, of whose data so much follows.
    Sparse {
        goes_on: bool,
        data: u64,
    },
    /// A member's data.
    Data {
        goes_on: bool,
        left: u64,
    },
}

/// Lets through what is wanted.
pub(super) struct Sieve {
    pick: Pick,
    inner: Box<dyn Write + Send>,
    block: Vec<u8>,
    state: State,
    /// Blocks of the member that is being looked at.
    headers: Vec<u8>,
    long: Long,
    /// Folders on the way to the present member that have not gone on yet.
    above: Vec<(PathBuf, Vec<u8>)>,
    /// Empty blocks in a row.
    zeros: u64,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn padded(size: u64) -> io::Result<u64> {
    size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| invalid("a member is too large"))
}

/// A header's number: octal, or binary where its first bit says so.
fn number(field: &[u8]) -> io::Result<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len() - 8);
        if high[0] != 0x80 || high[1..].iter().any(|byte| *byte != 0) {
            return Err(invalid("a header has no such number"));
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(low);
        return Ok(u64::from_be_bytes(bytes));
    }
    let text = until_nul(field);
    let text = std::str::from_utf8(text).map_err(|_| invalid("a header has no number"))?.trim();
    match text {
        "" => Ok(0),
        text => u64::from_str_radix(text, 8).map_err(|_| invalid("a header has no number")),
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

/// A member's name as a path in the folder.
fn inside(name: &[u8]) -> PathBuf {
    let parts = Path::new(OsStr::from_bytes(name)).components();
    parts.filter(|part| *part != std::path::Component::CurDir).collect()
}

impl Long {
    /// The records of a pax header: `30 path=...\n`.
    fn read_pax(&mut self, mut text: &[u8]) -> io::Result<()> {
        while !text.is_empty() && text[0] != 0 {
            let bad = || invalid("an extended header is not one");
            let space = text.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length =
                std::str::from_utf8(&text[..space]).ok().and_then(|t| t.parse::<usize>().ok());
            let length = length.filter(|n| *n > space + 1 && *n <= text.len()).ok_or_else(bad)?;
            let record = &text[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" if self.path.is_none() => self.path = Some(value.to_vec()),
                b"GNU.sparse.name" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let text = std::str::from_utf8(value).map_err(|_| bad())?;
                    self.size = Some(text.parse().map_err(|_| bad())?);
                }
                _ => {}
            }
            text = &text[length..];
        }
        Ok(())
    }
}

impl Sieve {
    /// One whole block of headers.
    fn take(&mut self, block: &[u8]) -> io::Result<()> {
        self.headers.extend_from_slice(block);
        match self.state {
            State::Header => self.header(block),
            State::Extended { kind, size, left } => {
                let left = left - BLOCK as u64;
                if left > 0 {
                    self.state = State::Extended { kind, size, left };
                    return Ok(());
                }
                let blocks = size.next_multiple_of(BLOCK);
                let text = self.headers[self.headers.len() - blocks..][..size].to_vec();
                match kind {
                    b'L' => self.long.path = Some(until_nul(&text).to_vec()),
                    b'K' => self.long.link = Some(until_nul(&text).to_vec()),
                    _ => self.long.read_pax(&text)?,
                }
                self.state = State::Header;
                Ok(())
            }
            State::Sparse { goes_on, data } => {
                if self.headers.len() as u64 > MAX_HEADER_BYTES {
                    return Err(invalid("a sparse file has too many holes"));
                }
                if block[504] != 0 {
                    return Ok(());
                }
                self.begin(goes_on, data)
            }
            State::Data { .. } => Err(invalid("a block has no place")),
        }
    }

    fn header(&mut self, block: &[u8]) -> io::Result<()> {
        // The end, which tar wants to see.
        if block.iter().all(|byte| *byte == 0) {
            self.headers.clear();
            self.zeros += 1;
            // After two it may be gone.
            return if self.zeros <= 2 { self.inner.write_all(block) } else { Ok(()) };
        }
        if self.zeros >= 2 {
            self.headers.clear();
            return Ok(());
        }
        self.zeros = 0;
        let size = number(&block[124..136])?;
        match block[156] {
            kind @ (b'x' | b'X' | b'L' | b'K') => {
                if size > MAX_HEADER_BYTES || self.headers.len() as u64 > MAX_HEADER_BYTES {
                    return Err(invalid("an extended header is too long"));
                }
                let left = padded(size)?;
                if left > 0 {
                    let size = usize::try_from(size).map_err(io::Error::other)?;
                    self.state = State::Extended { kind, size, left };
                }
                Ok(())
            }
            // It speaks of all that follow.
            b'g' => {
                self.long = Long::default();
                self.begin(true, padded(size)?)
            }
            kind => self.member(block, kind, size),
        }
    }

    fn member(&mut self, block: &[u8], kind: u8, size: u64) -> io::Result<()> {
        let long = std::mem::take(&mut self.long);
        let name = long.path.unwrap_or_else(|| {
            let (name, prefix) = (until_nul(&block[..100]), until_nul(&block[345..500]));
            // Only POSIX has a prefix; GNU keeps times there.
            match prefix.is_empty() || &block[257..263] != b"ustar\0" {
                true => name.to_vec(),
                false => [prefix, b"/", name].concat(),
            }
        });
        let path = inside(&name);
        // As tar has it: a second name of a file has no data, whatever its size says.
        let data = if kind == b'1' { 0 } else { padded(long.size.unwrap_or(size))? };
        let wanted = self.pick.wants(&path);
        while self.above.last().is_some_and(|(above, _)| !path.starts_with(above)) {
            self.above.pop();
        }
        if wanted {
            self.pick.matched.fetch_add(1, Ordering::Relaxed);
            let first = inside(&long.link.unwrap_or_else(|| until_nul(&block[157..257]).to_vec()));
            if kind == b'1' && !self.pick.wants(&first) {
                let (path, first) = (path.display(), first.display());
                return Err(invalid(format!(
                    "{path} is one file with {first}: name both with --path"
                )));
            }
            for (_, headers) in self.above.drain(..) {
                self.inner.write_all(&headers)?;
            }
        } else if kind == b'5' && data == 0 {
            let held: usize = self.above.iter().map(|(_, headers)| headers.len()).sum();
            if held as u64 > 16 * MAX_HEADER_BYTES {
                return Err(invalid("its folders are too deep"));
            }
            self.above.push((path, self.headers.clone()));
        }
        if kind == b'S' && block[482] != 0 {
            self.state = State::Sparse { goes_on: wanted, data };
            return Ok(());
        }
        self.begin(wanted, data)
    }

    /// The member's headers are whole; so many bytes of data follow.
    fn begin(&mut self, goes_on: bool, left: u64) -> io::Result<()> {
        if goes_on {
            self.inner.write_all(&self.headers)?;
        }
        self.headers.clear();
        self.state = if left > 0 { State::Data { goes_on, left } } else { State::Header };
        Ok(())
    }
}

impl Sieve {
    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if let State::Data { goes_on, left } = self.state {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                if goes_on {
                    self.inner.write_all(&rest[..count])?;
                }
                rest = &rest[count..];
                let left = left - count as u64;
                self.state = if left > 0 { State::Data { goes_on, left } } else { State::Header };
                continue;
            }
            let count = (BLOCK - self.block.len()).min(rest.len());
            self.block.extend_from_slice(&rest[..count]);
            rest = &rest[count..];
            if self.block.len() == BLOCK {
                let block = std::mem::take(&mut self.block);
                self.take(&block)?;
                self.block = block;
                self.block.clear();
            }
        }
        Ok(())
    }
}

impl Write for Sieve {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let passed = self.pass(bytes);
        if let Err(error) = &passed
            && error.kind() == io::ErrorKind::InvalidData
        {
            self.pick.refused.get_or_init(|| error.to_string());
        }
        passed.map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
