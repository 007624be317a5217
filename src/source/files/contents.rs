//! What a tar stream says of each of its members, told while it is extracted, and compared afterwards
//! with what lies on the disk. Knows tar's records; must not write a file of somebody else's.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use crate::fault::{Context, Fault, Result};

/// Differences that are told one by one.
const TOLD: usize = 20;
/// Longer than this, the map of a sparse file is none.
const MOST_PIECES: u64 = 10_000_000;

/// A member, as the archive has it. Names are bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Member {
    path: Vec<u8>,
    mode: u32,
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
enum What {
    File {
        bytes: u64,
        sha256: [u8; 32],
    },
    Folder,
    /// To this target.
    Symlink(Vec<u8>),
    /// The same file as this one.
    Link(Vec<u8>),
    Other,
}

/// A block, of which everything is a multiple.
const BLOCK: usize = 512;
/// What stands before a member; more than this is no record of one.
const MOST_RECORDS: u64 = 1 << 20;

/// Reads a whole archive and writes a line for each member into `list`.
pub(super) fn note(mut archive: impl Read, list: &Path) -> Result<()> {
    let doing = "read the archive";
    let mut lines = BufWriter::new(File::create(list).context(doing)?);
    while let Some(member) = next(&mut archive).context(doing)? {
        serde_json::to_writer(&mut lines, &member).context(doing)?;
        lines.write_all(b"\n").context(doing)?;
    }
    // What stands behind the last member is read too: the other reader waits for its end.
    io::copy(&mut archive, &mut io::sink()).context(doing)?;
    lines.flush().context(doing)
}

/// Records that stand before a member and say what its header has no room for.
#[derive(Default)]
struct Records {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    bytes: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    sparse_bytes: Option<u64>,
}

impl Records {
    /// `LENGTH KEY=VALUE`, each ended by a newline; a value may hold newlines too.
    fn parse(mut text: &[u8]) -> io::Result<Self> {
        let mut records = Self::default();
        while !text.is_empty() {
            let blank = text.iter().position(|byte| *byte == b' ').ok_or_else(odd)?;
            let length = number(&text[..blank])?;
            let length = usize::try_from(length).map_err(|_| odd())?;
            let record = text.get(blank + 1..length).ok_or_else(odd)?;
            let record = record.strip_suffix(b"\n").ok_or_else(odd)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(odd)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => records.path = Some(value.to_vec()),
                b"linkpath" => records.link = Some(value.to_vec()),
                b"size" => records.bytes = Some(number(value)?),
                b"GNU.sparse.name" => records.sparse_name = Some(value.to_vec()),
                b"GNU.sparse.realsize" => records.sparse_bytes = Some(number(value)?),
                _ => {}
            }
            text = &text[length..];
        }
        Ok(records)
    }
}

fn number(text: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(odd)
}

/// The next member; `None` at the end of the archive.
fn next(archive: &mut impl Read) -> io::Result<Option<Member>> {
    let mut records = Records::default();
    loop {
        let mut header = Header::new_old();
        archive.read_exact(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let kind = header.entry_type();
        let bytes = records.bytes.map_or_else(|| header.entry_size(), Ok)?;
        let mut data = archive.take(bytes);
        let member = match kind {
            EntryType::XHeader => {
                let mut text = Vec::new();
                (&mut data).take(MOST_RECORDS).read_to_end(&mut text)?;
                records = Records::parse(&text)?;
                None
            }
            EntryType::XGlobalHeader => None,
            _ => Some(member(&header, std::mem::take(&mut records), &mut data)?),
        };
        io::copy(&mut data, &mut io::sink())?;
        let padding = bytes.next_multiple_of(BLOCK as u64) - bytes;
        io::copy(&mut archive.take(padding), &mut io::sink())?;
        if member.is_some() {
            return Ok(member);
        }
    }
}

fn member(header: &Header, records: Records, data: &mut impl Read) -> io::Result<Member> {
    let path = records.sparse_name.or(records.path);
    let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
    let link = || {
        let of_header = || header.link_name_bytes().map(std::borrow::Cow::into_owned);
        records.link.clone().or_else(of_header).unwrap_or_default()
    };
    let what = match header.entry_type() {
        EntryType::Directory => What::Folder,
        EntryType::Symlink => What::Symlink(link()),
        EntryType::Link => What::Link(link()),
        EntryType::Regular | EntryType::Continuous => {
            let (bytes, sha256) = match records.sparse_bytes {
                Some(bytes) => digest_sparse(data, bytes)?,
                None => digest(data)?,
            };
            What::File { bytes, sha256 }
        }
        _ => What::Other,
    };
    Ok(Member { path, mode: header.mode()? & 0o7777, what })
}

fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a record of the archive can't be read")
}

fn digest(from: &mut impl Read) -> io::Result<(u64, [u8; 32])> {
    let mut hash = Hash::default();
    let bytes = io::copy(from, &mut hash)?;
    Ok((bytes, hash.0.finalize().into()))
}

/// The map stands before the data: how many pieces, and of each where it is and how long.
fn digest_sparse(from: &mut impl Read, size: u64) -> io::Result<(u64, [u8; 32])> {
    let mut from = BufReader::with_capacity(512, from);
    let mut read = 0;
    let mut next = |from: &mut BufReader<_>| {
        let mut line = Vec::new();
        read += Read::take(&mut *from, 32).read_until(b'\n', &mut line)?;
        number(line.trim_ascii_end())
    };
    let count = next(&mut from)?;
    if count > MOST_PIECES {
        return Err(odd());
    }
    let mut pieces = Vec::new();
    for _ in 0..count {
        pieces.push((next(&mut from)?, next(&mut from)?));
    }
    let padding = read.next_multiple_of(BLOCK) - read;
    io::copy(&mut (&mut from).take(padding as u64), &mut io::sink())?;
    let mut hash = Hash::default();
    let mut at = 0;
    for (offset, length) in pieces.into_iter().chain([(size, 0)]) {
        let hole = offset.checked_sub(at).filter(|_| offset <= size).ok_or_else(odd)?;
        io::copy(&mut io::repeat(0).take(hole), &mut hash)?;
        if io::copy(&mut (&mut from).take(length), &mut hash)? != length {
            return Err(odd());
        }
        at = offset.checked_add(length).ok_or_else(odd)?;
    }
    Ok((size, hash.0.finalize().into()))
}

#[derive(Default)]
struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compares each member that was noted with what lies below `folder`.
pub(super) fn compare(list: &Path, folder: &Path) -> Result<()> {
    let doing = "compare the files";
    let (mut wrong, mut told, mut all) = (0, Vec::new(), 0_u64);
    for line in BufReader::new(File::open(list).context(doing)?).split(b'\n') {
        let member: Member = serde_json::from_slice(&line.context(doing)?).context(doing)?;
        all += 1;
        let name = String::from_utf8_lossy(&member.path).into_owned();
        let said = match is_as_noted(&member, folder) {
            Ok(None) => continue,
            Ok(Some(said)) => said.to_owned(),
            Err(error) => error.to_string(),
        };
        wrong += 1;
        if told.len() < TOLD {
            told.push(format!("{name}: {said}"));
        }
    }
    if wrong == 0 {
        tracing::info!("{all} entries are as in the archive");
        return Ok(());
    }
    let what = format!("{wrong} of {all} entries are not as in the archive: {}", told.join("; "));
    Err(Fault::permanent(what))
}

/// How a member differs; `None`: it does not.
fn is_as_noted(member: &Member, folder: &Path) -> io::Result<Option<&'static str>> {
    let path = below(folder, &member.path)?;
    let meta = fs::symlink_metadata(&path)?;
    let kind = meta.file_type();
    let (right, said) = match &member.what {
        What::Folder => (kind.is_dir(), "it is no folder"),
        What::Symlink(to) => {
            let same = kind.is_symlink() && fs::read_link(&path)?.as_os_str().as_bytes() == to;
            return Ok((!same).then_some("its link goes somewhere else"));
        }
        What::Link(to) => {
            let other = fs::symlink_metadata(below(folder, to)?)?;
            let same = (meta.dev(), meta.ino()) == (other.dev(), other.ino());
            return Ok((!same).then_some("it is not the same file as the one it is a link to"));
        }
        What::File { bytes, .. } if meta.len() != *bytes => (false, "it has another size"),
        What::File { sha256, .. } => {
            let same = kind.is_file() && digest(&mut File::open(&path)?)?.1 == *sha256;
            (same, "its content is another one")
        }
        What::Other => (!kind.is_file() && !kind.is_dir(), "it is of another kind"),
    };
    if !right {
        return Ok(Some(said));
    }
    let mode = meta.permissions().mode() & 0o7777;
    Ok((mode != member.mode).then_some("it has another mode"))
}

/// A member's place. One that would lie elsewhere was not extracted there either.
fn below(folder: &Path, name: &[u8]) -> io::Result<PathBuf> {
    let name = PathBuf::from(std::ffi::OsString::from_vec(name.to_vec()));
    let outside =
        name.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir));
    if outside {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it would lie outside of the folder",
        ));
    }
    Ok(folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_any_name() {
        let records = Records::parse(b"15 path=a\nb c\n\n12 size=1234\n");
        assert!(records.is_err(), "the length is not right");
        let records = Records::parse(b"14 path=a\nb c\n14 size=12345\n").unwrap();
        assert_eq!(records.path.unwrap(), b"a\nb c");
        assert_eq!(records.bytes, Some(12345));
        for hostile in [&b"99999999999999999999 a=b\n"[..], b"5 a=b", b"x", b"3 a=b\n", b"0 a=b\n"]
        {
            assert!(Records::parse(hostile).is_err(), "{hostile:?}");
        }
    }

    #[test]
    fn holes_are_hashed_as_what_they_are() {
        let mut stored = b"2\n3\n2\n8\n1\n".to_vec();
        stored.resize(BLOCK, 0);
        stored.extend(b"abc");
        let (bytes, sha256) = digest_sparse(&mut &stored[..], 10).unwrap();
        let plain = digest(&mut &b"\0\0\0ab\0\0\0c\0"[..]).unwrap();
        assert_eq!((bytes, sha256), plain);
        assert!(digest_sparse(&mut &stored[..], 4).is_err(), "it would be longer than it is");
    }

    #[test]
    fn each_way_to_differ_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (root, list) = (folder.path().join("root"), folder.path().join("list"));
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file\nof odd name"), "content").unwrap();
        fs::hard_link(root.join("file\nof odd name"), root.join("same")).unwrap();
        std::os::unix::fs::symlink("same", root.join("link")).unwrap();
        fs::create_dir(root.join("folder")).unwrap();
        let made = std::process::Command::new("tar")
            .args(["--create", "--file=-", "--format=posix", "-C"])
            .args([&root, Path::new(".")])
            .output();
        note(&made.unwrap().stdout[..], &list).unwrap();
        compare(&list, &root).unwrap();

        type Change = fn(&Path) -> io::Result<()>;
        let changes: [(Change, &str); 6] = [
            (|root| fs::write(root.join("same"), "CONTENT"), "another one"),
            (|root| fs::write(root.join("same"), "longer content"), "another size"),
            (
                |root| {
                    fs::write(root.join("same"), "content")?;
                    fs::set_permissions(root.join("same"), PermissionsExt::from_mode(0o600))
                },
                "another mode",
            ),
            (|root| fs::remove_dir(root.join("folder")), "No such file"),
            (|root| fs::rename(root.join("same"), root.join("link")), "somewhere else"),
            (|root| fs::write(root.join("same"), "content"), "not the same file"),
        ];
        for (change, said) in changes {
            change(&root).unwrap();
            let fault = compare(&list, &root).unwrap_err().chain();
            assert!(fault.contains(said), "{said}: {fault}");
        }
    }

    #[test]
    fn what_would_lie_outside_is_not_looked_at() {
        for name in [&b"../x"[..], b"/etc/passwd", b"a/../../x"] {
            assert!(below(Path::new("/scratch"), name).is_err(), "{name:?}");
        }
        assert_eq!(below(Path::new("/scratch"), b"./a/b").unwrap(), Path::new("/scratch/./a/b"));
    }
}
