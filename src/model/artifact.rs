//! One stored stream of a backup: what is inside, how it is packed, and in which files. Knows the
//! shape and the spelling of names; must not know where it lies.

use serde::{Deserialize, Serialize};

use super::Sha256;

/// What is inside an artifact, once decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactFormat {
    /// `pg_dump -Fc -Z0`.
    PgCustom,
    /// `pg_dump -Fp`.
    PgPlain,
    /// SQL of MySQL or MariaDB.
    Mysql,
    SqliteFile,
    Tar,
    /// A tar that the source itself has compressed: of a base backup the server.
    TarZst,
    /// Whatever a program wrote.
    Bytes,
    /// For people to read; nothing is loaded from it.
    Json,
}

impl ArtifactFormat {
    /// The file name's ending before compression.
    pub fn extension(self) -> &'static str {
        match self {
            Self::PgCustom => "dump",
            Self::PgPlain | Self::Mysql => "sql",
            Self::SqliteFile => "sqlite3",
            Self::Tar => "tar",
            Self::TarZst => "tar.zst",
            Self::Bytes => "bin",
            Self::Json => "json",
        }
    }

    /// Whether there is nothing left to compress.
    pub fn is_compressed(self) -> bool {
        self == Self::TarZst
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    Zstd,
    Gzip,
    None,
}

impl Compression {
    /// The file name's last ending, with its dot.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
            Self::None => "",
        }
    }
}

/// How an artifact is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cipher {
    /// Opens with `age -d`.
    Age,
    /// Opens with `gpg -d`.
    Openpgp,
}

impl Cipher {
    /// The file name's last ending, with its dot.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Age => ".age",
            Self::Openpgp => ".gpg",
        }
    }
}

/// Who can read an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    pub cipher: Cipher,
    /// Public keys or their fingerprints; empty: whoever knows the passphrase.
    pub recipients: Vec<String>,
}

impl Encryption {
    /// For people: who can read it.
    pub fn reader(&self) -> String {
        let cipher = match self.cipher {
            Cipher::Age => "age",
            Cipher::Openpgp => "OpenPGP",
        };
        if self.recipients.is_empty() {
            format!("with a passphrase ({cipher})")
        } else {
            format!("to {}", self.recipients.join(", "))
        }
    }
}

/// Which part of its source an artifact holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// All of it.
    #[default]
    Whole,
    /// Every definition, and the rows that no other artifact of this source holds.
    Main,
    /// Everything in one schema; restores alone.
    Schema(String),
    /// The rows of one table; its definition is in the main artifact. Which one an encrypted backup
    /// does not say.
    Rows(Option<TableName>),
    /// Roles and tablespaces of the server.
    Globals,
    /// Settings of the server, for people to read.
    Settings,
    /// Accounts and their rights.
    Grants,
    /// The files of one tablespace, by its oid.
    Tablespace(u32),
    /// PostgreSQL's own list of the files of a base backup.
    BackupManifest,
}

impl Content {
    fn is_whole(&self) -> bool {
        *self == Self::Whole
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    pub schema: String,
    pub table: String,
}

/// One stored stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// File name with all endings, such as `grupogad.dump.zst`.
    pub name: String,
    /// Which of the manifest's sources it is of.
    #[serde(default, skip_serializing_if = "is_first")]
    pub source: usize,
    #[serde(default, skip_serializing_if = "Content::is_whole")]
    pub content: Content,
    pub format: ArtifactFormat,
    pub compression: Compression,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    pub plain_bytes: u64,
    /// How much it makes once unpacked, and no more than that; None: it is not compressed itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpacked_bytes: Option<u64>,
    /// None: the backup is encrypted, and this is in its proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_sha256: Option<Sha256>,
    pub stored_bytes: u64,
    /// Over the whole stored stream, all volumes joined.
    pub stored_sha256: Sha256,
    /// The files that hold it, in order; more than one above the volume size.
    pub volumes: Vec<Volume>,
}

fn is_first(source: &usize) -> bool {
    *source == 0
}

impl Artifact {
    /// The name without the endings that say what it is.
    pub fn stem(&self) -> &str {
        let cipher = self.encryption.as_ref().map_or("", |encryption| encryption.cipher.suffix());
        let name = self.name.strip_suffix(cipher).unwrap_or(&self.name);
        let name = name.strip_suffix(self.compression.suffix()).unwrap_or(name);
        let plain = name.strip_suffix(self.format.extension());
        plain.and_then(|stem| stem.strip_suffix('.')).unwrap_or(name)
    }
}

/// One file of an artifact: the first has the artifact's name, then `.001`, `.002` follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub bytes: u64,
    pub sha256: Sha256,
}

/// The name of an artifact's volume number `index`.
pub fn volume_name(artifact: &str, index: usize) -> String {
    if index == 0 { artifact.to_owned() } else { format!("{artifact}.{index:03}") }
}
