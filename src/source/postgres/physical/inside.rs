//! What a base backup says of itself, read while it passes: where recovery begins and from where on it
//! fits together. Knows tar's headers and PostgreSQL's two small files; must not hold the backup.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::fault::{Context, Fault, Result};
use crate::model::Lsn;

const BLOCK: usize = 512;
pub(super) const MOST_LABEL_BYTES: u64 = 64 << 10;
/// Some two hundred bytes for each file of the server.
const MOST_MANIFEST_BYTES: u64 = 4 << 30;

/// What was found on the way.
#[derive(Debug, Default)]
pub(super) struct Seen {
    label: Mutex<Vec<u8>>,
    /// PostgreSQL's own list of the files, as a file: it may be large.
    manifest: Mutex<Option<PathBuf>>,
    /// Why the server made no incremental one.
    refused: Mutex<Option<String>>,
}

/// What `backup_label` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    pub start_lsn: Lsn,
    pub timeline: u32,
    /// Of an incremental one: where that begins which it stands on.
    pub since: Option<Lsn>,
}

/// What `backup_manifest` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    /// Where the copied files fit together.
    pub stop_lsn: Lsn,
    /// How much a tar of the listed files takes at the most, without the log.
    pub tar_bytes: u64,
}

impl Seen {
    pub(super) fn label(&self) -> Result<Label> {
        let text = self.label.lock().unwrap_or_else(PoisonError::into_inner);
        parse_label(&String::from_utf8_lossy(&text))
            .ok_or_else(|| Fault::permanent("the base backup says nothing of where it begins"))
    }

    /// What `backup_manifest` says of a backup on `timeline`.
    pub(super) fn listed(&self, timeline: u32) -> Result<Listed> {
        let doing = "read the backup's own manifest";
        let path = self.manifest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let path = path.ok_or_else(|| Fault::permanent("the base backup has no manifest"))?;
        let file = io::BufReader::new(File::open(path).context(doing)?);
        let list: BackupManifest = serde_json::from_reader(file).context(doing)?;
        let ranges = list.wal_ranges.iter().filter(|range| range.timeline == timeline);
        let stop_lsn = ranges.map(|range| range.end).max();
        let stop_lsn = stop_lsn.ok_or_else(|| Fault::permanent(doing))?;
        Ok(Listed { stop_lsn, tar_bytes: list.tar_bytes })
    }

    pub(super) fn has_label(&self, label: Vec<u8>) {
        *self.label.lock().unwrap_or_else(PoisonError::into_inner) = label;
    }

    pub(super) fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn was_refused(&self, why: String) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    pub(super) fn has_manifest_at(&self, path: PathBuf) {
        *self.manifest.lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
    }
}

/// PostgreSQL's `backup_manifest`; the list of files is not kept.
#[derive(Debug, Deserialize)]
struct BackupManifest {
    #[serde(rename = "Files", deserialize_with = "tar_bytes")]
    tar_bytes: u64,
    #[serde(rename = "WAL-Ranges")]
    wal_ranges: Vec<WalRange>,
}

#[derive(Debug, Deserialize)]
struct WalRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

#[derive(Debug, Deserialize)]
struct ListedFile {
    #[serde(rename = "Size")]
    size: u64,
}

/// Of each file a header, its padded bytes, and as much again as a folder's header; folders are not listed.
fn tar_bytes<'de, D: Deserializer<'de>>(files: D) -> std::result::Result<u64, D::Error> {
    struct Sum;
    impl<'de> Visitor<'de> for Sum {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of files")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut files: A) -> std::result::Result<u64, A::Error> {
            let mut sum = 0_u64;
            while let Some(ListedFile { size }) = files.next_element()? {
                let padded = size.saturating_add(3 * BLOCK as u64);
                sum = sum.saturating_add(padded);
            }
            Ok(sum)
        }
    }
    files.deserialize_seq(Sum)
}

/// `START WAL LOCATION: 0/2000028 (file 000000010000000000000002)`, `START TIMELINE: 1` and, in an
/// incremental one, `INCREMENTAL FROM LSN: 0/1000028`.
fn parse_label(text: &str) -> Option<Label> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let start = value("START WAL LOCATION: ")?.split(' ').next()?;
    let timeline = value("START TIMELINE: ")?.trim();
    let since = match value("INCREMENTAL FROM LSN: ") {
        Some(lsn) => Some(lsn.trim().parse().ok()?),
        None => None,
    };
    Some(Label { start_lsn: start.parse().ok()?, timeline: timeline.parse().ok()?, since })
}

/// A tar that passes unchanged, while two of its members are noted.
pub(super) struct Watched<R> {
    inner: R,
    seen: std::sync::Arc<Seen>,
    /// Where a copy of `backup_manifest` is written.
    copy: PathBuf,
    header: Vec<u8>,
    /// Bytes of the present member that are still to come, and its padding.
    rest: u64,
    padding: u64,
    besides: Besides,
}

/// Where the present member's bytes go besides.
enum Besides {
    Nowhere,
    Label,
    Manifest(File),
}

impl<R: Read> Watched<R> {
    pub(super) fn new(inner: R, seen: std::sync::Arc<Seen>, copy: PathBuf) -> Self {
        let header = Vec::with_capacity(BLOCK);
        Self { inner, seen, copy, header, rest: 0, padding: 0, besides: Besides::Nowhere }
    }

    fn note(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let count = bytes.len().min(usize::try_from(self.rest).unwrap_or(usize::MAX));
                self.keep(&bytes[..count])?;
                self.rest -= count as u64;
                bytes = &bytes[count..];
                if self.rest == 0 {
                    self.besides = Besides::Nowhere;
                }
            } else if self.padding > 0 {
                let count = bytes.len().min(usize::try_from(self.padding).unwrap_or(usize::MAX));
                self.padding -= count as u64;
                bytes = &bytes[count..];
            } else {
                let count = bytes.len().min(BLOCK - self.header.len());
                self.header.extend_from_slice(&bytes[..count]);
                bytes = &bytes[count..];
                if self.header.len() == BLOCK {
                    self.begin()?;
                    self.header.clear();
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        // Zeros are the archive's end.
        if self.header.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let size = size_in(&self.header)?;
        // Links and folders have no data, whatever they say.
        let is_file = matches!(self.header[156], 0 | b'0');
        self.rest = if is_file { size } else { 0 };
        self.padding = self.rest.next_multiple_of(BLOCK as u64) - self.rest;
        let name = self.header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        self.besides = match name {
            b"backup_label" if size <= MOST_LABEL_BYTES => Besides::Label,
            b"backup_manifest" if size <= MOST_MANIFEST_BYTES => {
                let file = File::create(&self.copy)?;
                self.seen.has_manifest_at(self.copy.clone());
                Besides::Manifest(file)
            }
            _ => Besides::Nowhere,
        };
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.besides {
            Besides::Nowhere => Ok(()),
            Besides::Manifest(file) => file.write_all(bytes),
            Besides::Label => {
                let mut label = self.seen.label.lock().unwrap_or_else(PoisonError::into_inner);
                label.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

/// In octal digits, or in binary where those do not suffice.
fn size_in(header: &[u8]) -> io::Result<u64> {
    let field = &header[124..136];
    if field[0] & 0x80 != 0 {
        return Ok(field[4..].iter().fold(0, |size, byte| size << 8 | u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).ok().map(|text| text.trim_matches([' ', '\0']));
    let size = text.and_then(|text| u64::from_str_radix(text, 8).ok());
    size.ok_or_else(|| io::Error::other("pg_basebackup wrote no tar"))
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.note(&buffer[..count])?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nSTART TIMELINE: 3\n";
    const MANIFEST: &str = r#"{ "PostgreSQL-Backup-Manifest-Version": 1, "Files": [],
        "WAL-Ranges": [{ "Timeline": 3, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }],
        "Manifest-Checksum": "x" }"#;

    /// Reads so many bytes at a time at most.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = self.1.min(buffer.len());
            self.0.read(&mut buffer[..most])
        }
    }

    #[test]
    fn what_it_needs_is_read_while_it_passes_whatever_the_pieces() {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, data) in [
            ("backup_label", LABEL.as_bytes()),
            ("base/1/backup_label", b"START WAL LOCATION: 9/9\n"),
            ("empty", b""),
            ("global/pg_control", &[7; 8192]),
            ("backup_manifest", MANIFEST.as_bytes()),
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_size(data.len() as u64);
            header.set_mode(0o600);
            tar.append_data(&mut header, name, data).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        for piece in [1, 100, 512, 700, 1 << 20] {
            let folder = tempfile::tempdir().unwrap();
            let seen = Arc::new(Seen::default());
            let copy = folder.path().join("backup_manifest");
            let mut passed = Vec::new();
            Watched::new(Slow(&tar, piece), seen.clone(), copy).read_to_end(&mut passed).unwrap();
            assert_eq!(passed, tar);
            let label = Label { start_lsn: Lsn(0x200_0028), timeline: 3, since: None };
            assert_eq!(seen.label().unwrap(), label);
            assert_eq!(seen.listed(3).unwrap().stop_lsn, Lsn(0x200_0100));
            assert!(seen.listed(1).is_err());
        }
    }

    #[test]
    fn an_incremental_one_says_where_its_changes_begin() {
        let of = |more: &str| parse_label(&format!("{LABEL}{more}")).map(|label| label.since);
        assert_eq!(of(""), Some(None));
        assert_eq!(of("INCREMENTAL FROM LSN: 0/1000028\n"), Some(Some(Lsn(0x100_0028))));
        assert_eq!(of("INCREMENTAL FROM LSN: nowhere\n"), None);
    }

    #[test]
    fn what_is_no_tar_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let noise = [b'x'; 1024];
        let seen = Arc::new(Seen::default());
        let mut watched = Watched::new(&noise[..], seen, folder.path().join("m"));
        assert!(io::copy(&mut watched, &mut io::sink()).is_err());
    }

    #[test]
    fn a_size_of_more_than_eight_gigabytes_is_read() {
        let mut header = tar::Header::new_gnu();
        header.set_size(9 << 30);
        assert_eq!(size_in(header.as_bytes()).unwrap(), 9 << 30);
    }
}
