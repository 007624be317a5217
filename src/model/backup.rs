//! Names of things at rest: jobs, backups, digests, marks. Knows their spelling and nothing else.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize, de};

use super::RunKind;
use crate::fault::Fault;

/// A job's name: lower-case letters, digits, `-` and `_`, at most 63, starting with a letter or
/// digit. It is a folder name and an object key, so nothing else is allowed in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct JobName(String);

impl JobName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobName {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good = text.starts_with(plain)
            && text.len() <= 63
            && text.chars().all(|c| plain(c) || c == '-' || c == '_');
        if !good {
            return Err(Fault::usage(format!("'{text}' is not a job name")).hint(
                "use lower-case letters, digits, '-' and '_', at most 63, starting with a letter or digit",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A backup's id: its start in UTC, `20251124T020000Z`, with `-2` and so on after a collision.
/// Ordered by time, then by suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId {
    second: Timestamp,
    suffix: u16,
}

const ID_FORMAT: &str = "%Y%m%dT%H%M%SZ";

impl BackupId {
    /// The id of a backup that starts at `start`; the part below a second is dropped.
    pub fn at(start: Timestamp) -> Self {
        let second = Timestamp::from_second(start.as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { second, suffix: 1 }
    }

    /// The next id in the same second.
    pub fn bump(self) -> Self {
        Self { suffix: self.suffix.saturating_add(1), ..self }
    }

    /// When the backup was started, to the second.
    pub fn started(&self) -> Timestamp {
        self.second
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.second.strftime(ID_FORMAT))?;
        if self.suffix > 1 {
            write!(f, "-{}", self.suffix)?;
        }
        Ok(())
    }
}

impl FromStr for BackupId {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let wrong = || {
            Fault::usage(format!("'{text}' is not a backup id"))
                .hint("ids look like 20251124T020000Z; `respaldo list` shows them")
        };
        let (stamp, suffix) = match text.split_once('-') {
            Some((stamp, suffix)) => (stamp, suffix.parse().map_err(|_| wrong())?),
            None => (text, 1),
        };
        let civil = DateTime::strptime(ID_FORMAT, stamp).map_err(|_| wrong())?;
        let second = TimeZone::UTC.to_timestamp(civil).map_err(|_| wrong())?;
        let id = Self { second, suffix };
        // One spelling only: what is a key must not have two names.
        if id.to_string() == text { Ok(id) } else { Err(wrong()) }
    }
}

/// What made a backup. Only those that [count](Self::counts) are the latest, for health and for
/// retention's floors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupKind {
    Full,
    /// Only the changes since another one, without which it is worth nothing.
    Incremental,
    /// Made before a restore overwrites something.
    Safety,
    /// Made of a server whose own files are damaged.
    Suspect,
}

impl BackupKind {
    /// Whether it is a backup like any other: the newest of them is what a restore would take.
    pub fn counts(self) -> bool {
        matches!(self, Self::Full | Self::Incremental)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
            Self::Safety => "safety",
            Self::Suspect => "suspect",
        }
    }
}

impl From<RunKind> for BackupKind {
    /// What a run is to make.
    fn from(run: RunKind) -> Self {
        match run {
            RunKind::Incremental => Self::Incremental,
            _ => Self::Full,
        }
    }
}

/// A small object beside a manifest: `marks/<name>.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    Pin,
    Proof,
    Tombstone,
}

impl Mark {
    pub fn file(self) -> &'static str {
        match self {
            Self::Pin => "pin.json",
            Self::Proof => "proof.json",
            Self::Tombstone => "tombstone.json",
        }
    }

    pub fn from_file(name: &str) -> Option<Self> {
        [Self::Pin, Self::Proof, Self::Tombstone].into_iter().find(|mark| mark.file() == name)
    }
}

/// A SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| Fault::permanent(format!("'{text}' is not a SHA-256 digest")))?;
        Ok(Self(bytes))
    }
}

macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: de::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                String::deserialize(input)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(JobName, BackupId, Sha256);

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for BackupId {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling_and_sort_by_time() {
        let id: BackupId = "20251124T020000Z".parse().unwrap();
        assert_eq!(id.to_string(), "20251124T020000Z");
        assert_eq!(id.bump().to_string(), "20251124T020000Z-2");
        assert!(id < id.bump());
        assert!(id.bump() < "20251124T020001Z".parse().unwrap());
        for wrong in
            ["", "latest", "20251124T020000Z-1", "20251124T020000Z-02", "20251324T020000Z", "../x"]
        {
            assert!(wrong.parse::<BackupId>().is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn job_names_are_safe_folder_names() {
        assert!("db-1_x".parse::<JobName>().is_ok());
        for wrong in ["", ".", "..", "a/b", "A", "-x", "ñ", &"x".repeat(64)] {
            assert!(wrong.parse::<JobName>().is_err(), "{wrong} was taken");
        }
    }
}
