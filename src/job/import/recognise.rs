//! What a file is, by what it holds and not by what it is called. Pure: its first bytes in, an
//! engine, a format and a codec out, or why it can't be taken.

use crate::model::{ArtifactFormat, Compression, Engine};

/// So many of the first bytes are enough to tell.
pub(super) const HEAD_BYTES: usize = 8 << 10;
/// And so many of the last.
pub(super) const TAIL_BYTES: usize = 4 << 10;

/// What the first bytes as they are stored say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapping {
    Compressed(Compression),
    Encrypted,
}

pub(super) fn wrapping(name: &str, head: &[u8]) -> Wrapping {
    let ciphers: [&[u8]; 5] = [
        b"age-encryption.org/",
        b"-----BEGIN AGE ENCRYPTED FILE-----",
        b"-----BEGIN PGP MESSAGE-----",
        b"Salted__",
        b"-----BEGIN PKCS7-----",
    ];
    // A binary OpenPGP message has no magic of its own.
    let named = [".gpg", ".pgp", ".asc", ".age", ".enc"];
    let name = name.to_lowercase();
    match head {
        _ if ciphers.iter().any(|cipher| head.starts_with(cipher)) => Wrapping::Encrypted,
        [0x1f, 0x8b, ..] => Wrapping::Compressed(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Wrapping::Compressed(Compression::Zstd),
        _ if named.iter().any(|ending| name.ends_with(ending)) => Wrapping::Encrypted,
        _ => Wrapping::Compressed(Compression::None),
    }
}

/// What the first plain bytes say, or why that is nothing to import.
pub(super) fn content(head: &[u8]) -> Result<(Engine, ArtifactFormat), &'static str> {
    let says = |words: &[u8]| head.windows(words.len()).any(|window| window == words);
    if head.starts_with(b"PGDMP") {
        return Ok((Engine::Postgres, ArtifactFormat::PgCustom));
    }
    if head.starts_with(b"SQLite format 3\0") {
        return Ok((Engine::Sqlite, ArtifactFormat::SqliteFile));
    }
    if head.get(257..262) == Some(b"ustar") {
        if head.starts_with(b"toc.dat\0") {
            return Err("it is pg_dump's tar format, which respaldo does not keep");
        }
        return Ok((Engine::Files, ArtifactFormat::Tar));
    }
    if says(b"PostgreSQL database cluster dump") {
        return Err(
            "it is a dump of a whole server (pg_dumpall), and a backup here is of a database",
        );
    }
    // A restore goes beside the database that is there; such a dump would go right into it.
    let bound =
        "it says itself into which database it goes, so it can't be restored beside that one";
    let free = |is_bound, engine, format| if is_bound { Err(bound) } else { Ok((engine, format)) };
    if says(b"PostgreSQL database dump") {
        return free(says(b"\n\\connect "), Engine::Postgres, ArtifactFormat::PgPlain);
    }
    if says(b"MySQL dump") || says(b"MariaDB dump") {
        let is_bound = says(b"-- Current Database: ") || says(b"\nUSE `");
        return free(is_bound, Engine::Mysql, ArtifactFormat::Mysql);
    }
    Err("it is no dump, database or tar that respaldo knows")
}

/// Whether it is whole, by its last bytes, where those can tell.
pub(super) fn is_closed(format: ArtifactFormat, tail: &[u8]) -> bool {
    let tail = String::from_utf8_lossy(tail);
    match format {
        ArtifactFormat::PgPlain => tail.contains("-- PostgreSQL database dump complete"),
        ArtifactFormat::Mysql => {
            let last = tail.trim_end().lines().next_back();
            last.is_some_and(|line| line.starts_with("-- Dump completed"))
        }
        _ => true,
    }
}

/// The artifact's name: the file's own, with the endings that tell what it is.
pub(super) fn artifact_name(
    file: &str,
    format: ArtifactFormat,
    compression: Compression,
) -> (String, String) {
    let stem = stem(file);
    let ending = format!(".{}{}", format.extension(), compression.suffix());
    (format!("{stem}{ending}"), stem)
}

/// The file's name without the endings of dumps and codecs, short and safe.
fn stem(file: &str) -> String {
    let endings = [
        ".gz", ".zst", ".tgz", ".sql", ".dump", ".backup", ".tar", ".sqlite3", ".sqlite", ".db",
        ".pgdump", ".psql",
    ];
    let mut stem = file;
    while let Some(rest) = endings.iter().find_map(|ending| {
        let at = stem.len().checked_sub(ending.len())?;
        stem.get(at..).filter(|tail| tail.eq_ignore_ascii_case(ending)).map(|_| &stem[..at])
    }) {
        stem = rest;
    }
    let safe = |c: char| if c.is_control() || "/\\".contains(c) { '_' } else { c };
    let stem: String = stem.trim_start_matches('.').chars().map(safe).take(40).collect();
    if stem.is_empty() { "dump".to_owned() } else { stem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_it_counts_and_not_its_name() {
        let gzip = Wrapping::Compressed(Compression::Gzip);
        assert_eq!(wrapping("x.sql", b"\x1f\x8b\x08"), gzip);
        assert_eq!(wrapping("x.sql.gz", b"-- "), Wrapping::Compressed(Compression::None));
        for (name, head) in [
            ("x.sql", &b"age-encryption.org/v1\n"[..]),
            ("x.sql.gz", b"-----BEGIN PGP MESSAGE-----"),
            ("x.sql.GPG", b"\x8c\x0d\x04"),
            ("x.enc", b"Salted__12345678"),
        ] {
            assert_eq!(wrapping(name, head), Wrapping::Encrypted, "{name}");
        }
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(content(&tar), Ok((Engine::Files, ArtifactFormat::Tar)));
        tar[..8].copy_from_slice(b"toc.dat\0");
        assert!(content(&tar).is_err());
        let mysql = Ok((Engine::Mysql, ArtifactFormat::Mysql));
        assert_eq!(content(b"-- MySQL dump 10.13\n--\n-- Host: db  Database: shop\n"), mysql);
        assert!(content(b"-- MySQL dump 10.13\n--\n-- Current Database: `shop`\n").is_err());
        assert!(content(b"-- PostgreSQL database dump\n\\connect x\n").is_err());
        for head in [&b""[..], b"PK\x03\x04", b"hello", b"-- PostgreSQL database cluster dump"] {
            assert!(content(head).is_err());
        }
    }

    #[test]
    fn only_a_closing_line_ends_a_dump() {
        let mysql = |tail: &str| is_closed(ArtifactFormat::Mysql, tail.as_bytes());
        assert!(mysql("...;\n-- Dump completed on 2025-11-24  2:00:00\n"));
        assert!(!mysql("-- Dump completed by hand\nINSERT INTO"));
        let postgres = |tail: &str| is_closed(ArtifactFormat::PgPlain, tail.as_bytes());
        assert!(postgres("--\n-- PostgreSQL database dump complete\n--\n\n"));
        assert!(!postgres("COPY t FROM stdin;\n1\n"));
    }

    #[test]
    fn an_artifact_is_called_as_its_file_was() {
        let name = |file, format, compression| artifact_name(file, format, compression).0;
        let (plain, tar) = (ArtifactFormat::PgPlain, ArtifactFormat::Tar);
        assert_eq!(name("db_1.sql.gz", plain, Compression::Gzip), "db_1.sql.gz");
        assert_eq!(name("db_1.sql.gz", plain, Compression::None), "db_1.sql");
        assert_eq!(name("m.tgz", tar, Compression::Gzip), "m.tar.gz");
        assert_eq!(name("x.backup", ArtifactFormat::PgCustom, Compression::None), "x.dump");
        assert_eq!(name(".sql", plain, Compression::None), "dump.sql");
        let (long, stem) = artifact_name(&"é".repeat(300), tar, Compression::None);
        assert!(long.len() < 200 && stem.chars().count() == 40);
    }
}
