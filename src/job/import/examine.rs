//! The files of a folder, each looked at: what it is, whether it is whole, when it was made. Reads
//! every byte once; changes nothing.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use md5::Digest;

use super::recognise::{self, HEAD_BYTES, TAIL_BYTES, Wrapping};
use super::stamp;
use crate::destination::{Destination, Key, Local};
use crate::fault::{Context, Fault, Result};
use crate::model::{ArtifactFormat, Compression, Engine, Sha256};
use crate::pipeline::{Decoded, Expected, Identities, Meter, decode, feed};

/// A longer one is no list of digests.
const MAX_SUMS_BYTES: u64 = 1 << 20;
const SUMS: [&str; 4] = [".sha256", ".sha256sum", ".md5", ".md5sum"];

/// A file that can be imported.
#[derive(Debug)]
pub(in crate::job) struct Dump {
    pub path: PathBuf,
    pub made_at: Timestamp,
    pub engine: Engine,
    pub format: ArtifactFormat,
    pub compression: Compression,
    pub plain_bytes: u64,
    pub plain_sha256: Sha256,
    pub stored_bytes: u64,
    pub stored_sha256: Sha256,
    /// The lists of digests beside it.
    pub sums: Vec<PathBuf>,
}

/// Why a file is not imported.
#[derive(Debug)]
pub(in crate::job) enum Not {
    /// It is nothing that is imported at all.
    Left(String),
    /// It should have been, but is not as it should be.
    Refused(String),
}

/// A file of the folder, by its name.
#[derive(Debug)]
pub(super) struct Examined {
    pub name: String,
    pub dump: std::result::Result<Dump, Not>,
}

/// Looks at one file, and at the digests beside it.
pub(in crate::job) async fn examine_one(
    path: &Path,
    now: Timestamp,
    zone: &TimeZone,
    meter: &Meter,
) -> Result<std::result::Result<Dump, Not>> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        Fault::usage(format!("{} can't be taken: its name is no text", path.display()))
            .hint("give it another name")
    })?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let lists = SUMS.iter().map(|ending| format!("{name}{ending}"));
    let lists: Vec<String> = lists.filter(|list| folder.join(list).is_file()).collect();
    look(folder, name, &lists, now, zone, meter).await
}

/// Looks at every file that lies directly in the folder; in the order of their names.
pub(super) async fn examine(
    folder: &Path,
    now: Timestamp,
    zone: &TimeZone,
    meter: &Meter,
) -> Result<Vec<Examined>> {
    let names = names(folder)?;
    let mut examined = Vec::new();
    for name in &names {
        if SUMS.iter().any(|ending| is_beside(name, ending, &names)) {
            continue;
        }
        let dump = match look(folder, name, &names, now, zone, meter).await {
            Ok(dump) => dump,
            Err(fault) => Err(Not::Refused(fault.chain())),
        };
        examined.push(Examined { name: name.clone(), dump });
    }
    Ok(examined)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let doing = format!("read {}", folder.display());
    let entries = fs::read_dir(folder).map_err(|error| {
        Fault::usage(doing.clone()).cause(error).hint("name the folder of the old backups")
    })?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.context(doing.clone())?;
        let is_file = entry.file_type().context(doing.clone())?.is_file();
        let name = entry.file_name().to_string_lossy().into_owned();
        // Links such as `latest` name what is there under its own name; hidden files are drafts.
        if is_file && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether it holds the digest of another file in the folder.
fn is_beside(name: &str, ending: &str, names: &[String]) -> bool {
    name.strip_suffix(ending).is_some_and(|of| names.iter().any(|other| other == of))
}

async fn look(
    folder: &Path,
    name: &str,
    names: &[String],
    now: Timestamp,
    zone: &TimeZone,
    meter: &Meter,
) -> Result<std::result::Result<Dump, Not>> {
    let path = folder.join(name);
    let doing = format!("read {}", path.display());
    let mut head = Vec::new();
    let file = File::open(&path).context(doing.clone())?;
    let written = file.metadata().and_then(|meta| meta.modified()).context(doing.clone())?;
    let written = Timestamp::try_from(written).context(doing.clone())?;
    file.take(HEAD_BYTES as u64).read_to_end(&mut head).context(doing)?;
    let compression = match recognise::wrapping(name, &head) {
        Wrapping::Compressed(compression) => compression,
        Wrapping::Encrypted => {
            let what = "it is encrypted, and what is in it can't be told: decrypt it first";
            return Ok(Err(Not::Refused(what.into())));
        }
    };
    if compression == Compression::None
        && let Err(why) = recognise::content(&head)
    {
        return Ok(Err(Not::Left(why.into())));
    }
    let (decoded, ends) = read_whole(folder, name, compression, meter).await?;
    let (engine, format) = match recognise::content(&ends.head) {
        Ok(what) => what,
        Err(why) => return Ok(Err(Not::Left(why.into()))),
    };
    if !recognise::is_closed(format, &ends.tail) {
        let why = "it has no closing line: the dump was cut short";
        return Ok(Err(Not::Refused(why.into())));
    }
    let sums = SUMS.iter().map(|ending| format!("{name}{ending}"));
    let sums = sums.filter(|list| names.contains(list)).map(|list| folder.join(list));
    let sums: Vec<PathBuf> = sums.collect();
    for list in &sums {
        if let Err(why) = check(list, &path, name, &decoded)? {
            return Ok(Err(Not::Refused(why)));
        }
    }
    Ok(Ok(Dump {
        path,
        made_at: stamp::made_at(name, written, now, zone),
        engine,
        format,
        compression,
        plain_bytes: decoded.plain_bytes,
        plain_sha256: decoded.plain_sha256,
        stored_bytes: decoded.stored_bytes,
        stored_sha256: decoded.stored_sha256,
        sums,
    }))
}

/// Digests the file as it is and as it is inside; one that is cut short is an error.
async fn read_whole(
    folder: &Path,
    name: &str,
    compression: Compression,
    meter: &Meter,
) -> Result<(Decoded, Ends)> {
    let pieces = Local::new("import", folder).read(&Key::root().child(name)?).await?;
    let (drive, fed) = feed(pieces);
    let expected = Expected {
        compression,
        plain_bytes: u64::MAX,
        cipher: None,
        identities: Identities::default(),
    };
    let meter = meter.clone();
    let decoding = tokio::task::spawn_blocking(move || {
        let mut ends = Ends::default();
        decode(fed, &expected, &mut ends, &meter).map(|decoded| (decoded, ends))
    });
    let (decoded, ()) = tokio::join!(decoding, drive);
    decoded.context("decode")?.context(format!("read {name}"))
}

/// Keeps the first and the last bytes, and lets the others go.
#[derive(Default)]
struct Ends {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Write for Ends {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..room.min(bytes.len())]);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compares the file with the digest beside it.
fn check(
    list: &Path,
    path: &Path,
    name: &str,
    decoded: &Decoded,
) -> Result<std::result::Result<(), String>> {
    let doing = format!("read {}", list.display());
    if fs::metadata(list).context(doing.clone())?.len() > MAX_SUMS_BYTES {
        return Ok(Err(format!("{} is too long for a list of digests", list.display())));
    }
    let text = String::from_utf8_lossy(&fs::read(list).context(doing)?).into_owned();
    let is_md5 = list.extension().is_some_and(|ending| ending.to_string_lossy().starts_with("md5"));
    let digits = if is_md5 { 32 } else { 64 };
    let Some(said) = digest_of(&text, name, digits) else {
        return Ok(Err(format!("{} holds no digest of it", list.display())));
    };
    let is = if is_md5 { md5_of(path)? } else { decoded.stored_sha256.to_string() };
    if is == said {
        return Ok(Ok(()));
    }
    Ok(Err(format!("it is damaged: {} says {said}, but it is {is}", list.display())))
}

/// The digest of `name` in the output of `sha256sum` or its like; of the only line, whatever it names.
fn digest_of(text: &str, name: &str, digits: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let named = lines.iter().find(|line| line.trim_end_matches(')').contains(name));
    let line = match (named, lines.as_slice()) {
        (Some(line), _) => line,
        (None, [line]) => line,
        _ => return None,
    };
    let is_digest =
        |word: &&str| word.len() == digits && word.chars().all(|c| c.is_ascii_hexdigit());
    let mut words = line.split(|c: char| c.is_whitespace() || "*=\\()".contains(c));
    words.find(is_digest).map(str::to_lowercase)
}

fn md5_of(path: &Path) -> Result<String> {
    let doing = format!("read {}", path.display());
    let mut file = File::open(path).context(doing.clone())?;
    let mut digest = md5::Md5::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).context(doing.clone())? {
            0 => return Ok(hex::encode(digest.finalize())),
            count => digest.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_found_in_what_scripts_write() {
        let md5 = "d41d8cd98f00b204e9800998ecf8427e";
        for text in [
            md5.to_owned(),
            format!("{md5}  /var/backups/db.sql.gz\n"),
            format!("{md5} *db.sql.gz\n"),
            format!("MD5 (db.sql.gz) = {}\n", md5.to_uppercase()),
            format!("{}  other\n{md5}  ./db.sql.gz\n", "0".repeat(32)),
        ] {
            assert_eq!(digest_of(&text, "db.sql.gz", 32).as_deref(), Some(md5), "{text}");
        }
        for text in ["", "no digest", &format!("{md5}  a\n{md5}  b\n"), &md5[1..]] {
            assert_eq!(digest_of(text, "db.sql.gz", 32), None, "{text}");
        }
    }
}
