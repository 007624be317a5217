//! `manifest.json`, format 1: what a backup holds and how to read it back. Knows the shape and what
//! makes one acceptable; must not know where it lies or who signed it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BackupId, BackupKind, JobName, Sha256};
use crate::fault::{Context, Fault, Result};

/// The only format there is so far.
pub const FORMAT: u32 = 1;
/// A manifest larger than this is not one: bounds what a hostile store can make us read.
pub const MAX_MANIFEST_BYTES: u64 = 16 << 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version, [`FORMAT`].
    pub format: u32,
    pub job: JobName,
    pub id: BackupId,
    pub kind: BackupKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub source: SourceFacts,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub artifacts: Vec<Artifact>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The respaldo version that wrote it.
    pub respaldo: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    Postgres,
    Sqlite,
    Files,
}

impl Engine {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
            Self::Files => "files",
        }
    }
}

/// What was backed up. Never a credential.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceFacts {
    pub engine: Engine,
    /// Database name, file name or folders.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// The size before the dump, in bytes; an estimate for progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// PostgreSQL's system identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    /// glibc or ICU collation version: a change of it corrupts indexes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation_version: Option<String>,
    /// `name version` each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// The WAL position just before the dump's snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_lsn: Option<String>,
    /// The program that made the dump, with its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The oldest program that reads it, such as `pg_restore 15`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads_with: Option<String>,
}

impl SourceFacts {
    pub fn named(engine: Engine, name: impl Into<String>) -> Self {
        Self {
            engine,
            name: name.into(),
            server_version: None,
            size_bytes: None,
            system_id: None,
            encoding: None,
            collation: None,
            collation_version: None,
            extensions: Vec::new(),
            snapshot_lsn: None,
            tool: None,
            reads_with: None,
        }
    }
}

/// What is inside an artifact, once decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactFormat {
    /// `pg_dump -Fc -Z0`.
    PgCustom,
    /// `pg_dump -Fp`.
    PgPlain,
    SqliteFile,
    Tar,
}

impl ArtifactFormat {
    /// The file name's ending before compression.
    pub fn extension(self) -> &'static str {
        match self {
            Self::PgCustom => "dump",
            Self::PgPlain => "sql",
            Self::SqliteFile => "sqlite3",
            Self::Tar => "tar",
        }
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

/// One stored stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// File name with all endings, such as `grupogad.dump.zst`.
    pub name: String,
    pub format: ArtifactFormat,
    pub compression: Compression,
    pub plain_bytes: u64,
    pub plain_sha256: Sha256,
    pub stored_bytes: u64,
    /// Over the whole stored stream, all volumes joined.
    pub stored_sha256: Sha256,
    /// The files that hold it, in order; more than one above the volume size.
    pub volumes: Vec<Volume>,
}

impl Artifact {
    /// The name without the endings that say what it is.
    pub fn stem(&self) -> &str {
        let name = self.name.strip_suffix(self.compression.suffix()).unwrap_or(&self.name);
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

impl Manifest {
    /// Reads a manifest that may come from anywhere, and refuses what is not one of `job`'s `id`.
    pub fn parse(bytes: &[u8], job: &JobName, id: &BackupId) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(bytes).context("read manifest.json")?;
        if head.format != FORMAT {
            return Err(Fault::permanent(format!("manifest.json has format {}", head.format))
                .hint("a newer respaldo wrote it; use that version to read it"));
        }
        let manifest: Self = serde_json::from_slice(bytes).context("read manifest.json")?;
        if &manifest.job != job || &manifest.id != id {
            return Err(Fault::permanent(format!(
                "manifest.json says {} {}, but lies at {job} {id}",
                manifest.job, manifest.id
            )));
        }
        manifest.check_volumes()?;
        Ok(manifest)
    }

    fn check_volumes(&self) -> Result<()> {
        if self.artifacts.is_empty() {
            return Err(Fault::permanent("manifest.json lists no artifact"));
        }
        for artifact in &self.artifacts {
            check_file_name(&artifact.name)?;
            let volumes = &artifact.volumes;
            let named =
                |(i, volume): (usize, &Volume)| volume.name == volume_name(&artifact.name, i);
            let right = volumes.iter().enumerate().all(named);
            let total = volumes.iter().map(|v| v.bytes).fold(0_u64, u64::saturating_add);
            if !right || volumes.is_empty() || total != artifact.stored_bytes {
                return Err(Fault::permanent(format!(
                    "the volumes of {} in manifest.json do not add up",
                    artifact.name
                )));
            }
        }
        Ok(())
    }

    pub fn stored_bytes(&self) -> u64 {
        self.artifacts.iter().map(|a| a.stored_bytes).sum()
    }

    pub fn plain_bytes(&self) -> u64 {
        self.artifacts.iter().map(|a| a.plain_bytes).sum()
    }

    /// Every stored file of the backup's content, in order.
    pub fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.artifacts.iter().flat_map(|a| &a.volumes)
    }

    /// The text of `SHA256SUMS`, for `sha256sum -c`.
    pub fn sha256sums(&self) -> String {
        self.volumes().map(|v| format!("{}  {}\n", v.sha256, v.name)).collect()
    }
}

/// Refuses what would leave the backup's folder or hide in it.
fn check_file_name(name: &str) -> Result<()> {
    let bad = name.is_empty()
        || name.len() > 200
        || name.starts_with('.')
        || name.contains(['/', '\\', '\0'])
        || name.chars().any(char::is_control);
    if bad {
        return Err(Fault::permanent(format!("{name:?} in manifest.json is not a file name")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let digest = Sha256([7; 32]);
        let started: Timestamp = "2025-11-24T02:00:00Z".parse().unwrap();
        Manifest {
            format: FORMAT,
            job: "db".parse().unwrap(),
            id: BackupId::at(started),
            kind: BackupKind::Full,
            label: None,
            source: SourceFacts::named(Engine::Postgres, "shop"),
            started_at: started,
            finished_at: started,
            artifacts: vec![Artifact {
                name: "shop.dump.zst".into(),
                format: ArtifactFormat::PgCustom,
                compression: Compression::Zstd,
                plain_bytes: 10,
                plain_sha256: digest,
                stored_bytes: 5,
                stored_sha256: digest,
                volumes: vec![Volume { name: "shop.dump.zst".into(), bytes: 5, sha256: digest }],
            }],
            warnings: vec![],
            respaldo: "0".into(),
        }
    }

    fn reread(manifest: &Manifest) -> Result<Manifest> {
        let good = sample();
        Manifest::parse(&serde_json::to_vec(manifest).unwrap(), &good.job, &good.id)
    }

    #[test]
    fn a_manifest_reads_back_as_written() {
        assert_eq!(reread(&sample()).unwrap(), sample());
    }

    #[test]
    fn hostile_manifests_are_refused() {
        type Spoil = fn(&mut Manifest);
        let spoils: [(&str, Spoil); 6] = [
            ("escape", |m| m.artifacts[0].name = "../../etc/passwd".into()),
            ("hidden", |m| m.artifacts[0].name = ".ssh".into()),
            ("volume elsewhere", |m| m.artifacts[0].volumes[0].name = "../x".into()),
            ("sizes", |m| m.artifacts[0].stored_bytes = 6),
            ("other job", |m| m.job = "other".parse().unwrap()),
            ("empty", |m| m.artifacts.clear()),
        ];
        for (what, spoil) in spoils {
            let mut manifest = sample();
            spoil(&mut manifest);
            assert!(reread(&manifest).is_err(), "{what} was taken");
        }
        let mut newer = sample();
        newer.format = 2;
        assert!(reread(&newer).unwrap_err().next_step().unwrap().contains("newer respaldo"));
    }
}
