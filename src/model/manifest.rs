//! `manifest.json`, format 1: what a backup holds and how to read it back. Knows the shape and what
//! makes one acceptable; must not know where it lies or who signed it.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::artifact::{Artifact, Cipher, Content, Volume, volume_name};
use super::{BackupId, BackupKind, Belongings, Fingerprint, JobName, Locale, PhysicalFacts};
use crate::fault::{Context, Fault, Result};

/// The only format there is so far.
pub const FORMAT: u32 = 1;
/// A manifest larger than this is not one: bounds what a hostile store can make us read.
pub const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// Files of every backup, but for an ending where one is encrypted.
pub const SMALL_FILES: [&str; 5] =
    ["manifest.json", "manifest.sig", "SHA256SUMS", "RESTORE.md", "config.toml"];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version, [`FORMAT`].
    pub format: u32,
    pub job: JobName,
    pub id: BackupId,
    pub kind: BackupKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What was backed up, in the order in which it was read; one for each database or set of
    /// folders.
    #[serde(alias = "source", deserialize_with = "one_or_several")]
    pub sources: Vec<SourceFacts>,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub artifacts: Vec<Artifact>,
    /// Of an encrypted backup: the file that holds what its manifest must not say, itself encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Volume>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// It is much smaller than those before it, and so no measure for those after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
    /// The respaldo version that wrote it.
    pub respaldo: String,
}

/// A manifest of before there could be several has one `source`.
fn one_or_several<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<SourceFacts>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Sources {
        One(Box<SourceFacts>),
        Several(Vec<SourceFacts>),
    }
    Ok(match Sources::deserialize(input)? {
        Sources::One(facts) => vec![*facts],
        Sources::Several(facts) => facts,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    Postgres,
    /// The files of a whole PostgreSQL server, for recovery to any moment after.
    Physical,
    /// MariaDB too; the server's version says which.
    Mysql,
    Sqlite,
    Files,
    Command,
}

impl Engine {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Physical => "physical",
            Self::Mysql => "mysql",
            Self::Sqlite => "sqlite",
            Self::Files => "files",
            Self::Command => "command",
        }
    }
}

impl std::str::FromStr for Engine {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Postgres, Self::Physical, Self::Mysql, Self::Sqlite, Self::Files, Self::Command]
            .into_iter()
            .find(|engine| engine.as_str() == text)
            .ok_or_else(|| Fault::permanent(format!("unknown engine '{text}'")))
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
    /// Of a PostgreSQL database its `LC_COLLATE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    /// The rest of a PostgreSQL database's locale; older versions did not write it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<Locale>,
    /// glibc or ICU collation version: a change of it corrupts indexes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation_version: Option<String>,
    /// `name version` each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// Roles that own something in it or have a right on it. Of an encrypted backup they are in the
    /// proof instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// What belongs to a PostgreSQL database itself. Of an encrypted backup it is in the proof instead; of
    /// another one it lacks what may be a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub belongings: Option<Belongings>,
    /// Of a base backup: what of the log it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical: Option<PhysicalFacts>,
    /// The WAL position just before the dump's snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_lsn: Option<String>,
    /// The program that made the dump, with its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The oldest program that reads it, such as `pg_restore 15`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads_with: Option<String>,
    /// What was in it at the snapshot. Of an encrypted backup it is in the proof instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
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
            locale: None,
            collation_version: None,
            extensions: Vec::new(),
            roles: Vec::new(),
            belongings: None,
            physical: None,
            snapshot_lsn: None,
            tool: None,
            reads_with: None,
            fingerprint: None,
        }
    }

    /// `17` of `17.2 (Debian ...)`.
    pub fn server_major(&self) -> Option<u32> {
        let version = self.server_version.as_ref()?;
        version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// `17` of what reads it: `PostgreSQL 17`.
    pub fn reader_major(&self) -> Option<u32> {
        self.reads_with.as_ref()?.rsplit(' ').next()?.parse().ok()
    }
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
        if let Some(proof) = &self.proof {
            check_file_name(&proof.name)?;
        }
        for artifact in &self.artifacts {
            check_file_name(&artifact.name)?;
            if artifact.source >= self.sources.len() {
                return Err(Fault::permanent(format!(
                    "{} in manifest.json is of no source",
                    artifact.name
                )));
            }
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

    /// How much there is of it once all is unpacked.
    pub fn plain_bytes(&self) -> u64 {
        self.artifacts.iter().map(|a| a.unpacked_bytes.unwrap_or(a.plain_bytes)).sum()
    }

    /// How much passes when all of it is read.
    pub fn read_bytes(&self) -> u64 {
        self.artifacts.iter().map(|a| a.plain_bytes).sum()
    }

    /// Every stored file of the backup's content, in order.
    pub fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.artifacts.iter().flat_map(|a| &a.volumes)
    }

    /// The text of `SHA256SUMS`, for `sha256sum -c`.
    pub fn sha256sums(&self) -> String {
        let files = self.volumes().chain(&self.proof);
        files.map(|v| format!("{}  {}\n", v.sha256, v.name)).collect()
    }

    /// Whether any of it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.proof.is_some() || self.artifacts.iter().any(|a| a.encryption.is_some())
    }

    /// How the proof is encrypted, by its name's ending.
    pub fn proof_cipher(&self) -> Option<Cipher> {
        let name = &self.proof.as_ref()?.name;
        [Cipher::Age, Cipher::Openpgp].into_iter().find(|cipher| name.ends_with(cipher.suffix()))
    }

    /// For people: who can read it, each once.
    pub fn readers(&self) -> Vec<String> {
        let mut readers: Vec<String> = Vec::new();
        for encryption in self.artifacts.iter().filter_map(|a| a.encryption.as_ref()) {
            let reader = encryption.reader();
            if !readers.contains(&reader) {
                readers.push(reader);
            }
        }
        readers
    }

    /// The archives that hold this schema's rows and no other's; of one database, or of each.
    pub fn of_schema(&self, schema: &str, database: Option<&str>) -> Vec<Artifact> {
        let meant = |artifact: &&Artifact| {
            let named = match &artifact.content {
                Content::Schema(name) => name == schema,
                Content::Rows(Some(table)) => table.schema == schema,
                _ => false,
            };
            named && database.is_none_or(|name| name == self.source_of(artifact).name)
        };
        self.artifacts.iter().filter(meant).cloned().collect()
    }

    /// As it is once those archives are gone, and with them what it said of their tables.
    pub fn without_schema(&self, schema: &str, database: Option<&str>) -> Self {
        let gone = self.of_schema(schema, database);
        let mut rest = self.clone();
        rest.artifacts.retain(|artifact| !gone.contains(artifact));
        for (n, facts) in rest.sources.iter_mut().enumerate() {
            if let Some(print) = &mut facts.fingerprint
                && gone.iter().any(|artifact| artifact.source == n)
            {
                print.tables.retain(|table| table.name.schema != schema);
                print.sequences.retain(|sequence| sequence.name.schema != schema);
            }
        }
        rest
    }

    /// Whether it is the other one, from which something was erased.
    pub fn is_rest_of(&self, other: &Self) -> bool {
        let held = |artifact: &Artifact| other.artifacts.contains(artifact);
        self.artifacts.len() < other.artifacts.len() && self.artifacts.iter().all(held)
    }

    /// The backup that it holds only the changes since.
    pub fn stands_on(&self) -> Option<BackupId> {
        self.sources.iter().find_map(|source| source.physical.as_ref()?.since)
    }

    /// The source that an artifact is of.
    pub fn source_of(&self, artifact: &Artifact) -> &SourceFacts {
        &self.sources[artifact.source]
    }

    /// What was backed up, for people: `postgres shop, files /media`.
    pub fn subject(&self) -> String {
        let named = |facts: &SourceFacts| format!("{} {}", facts.engine.as_str(), facts.name);
        self.sources.iter().map(named).collect::<Vec<_>>().join(", ")
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
    use super::super::{ArtifactFormat, Compression, Content, Sha256};
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
            sources: vec![SourceFacts::named(Engine::Postgres, "shop")],
            started_at: started,
            finished_at: started,
            artifacts: vec![Artifact {
                name: "shop.dump.zst".into(),
                source: 0,
                content: Content::Whole,
                encryption: None,
                format: ArtifactFormat::PgCustom,
                compression: Compression::Zstd,
                plain_bytes: 10,
                unpacked_bytes: None,
                plain_sha256: Some(digest),
                stored_bytes: 5,
                stored_sha256: digest,
                volumes: vec![Volume { name: "shop.dump.zst".into(), bytes: 5, sha256: digest }],
            }],
            proof: None,
            warnings: vec![],
            suspect: false,
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
    fn a_manifest_of_before_there_could_be_several_sources_is_read() {
        let mut json = serde_json::to_value(sample()).unwrap();
        json["source"] = json["sources"][0].take();
        json.as_object_mut().unwrap().remove("sources");
        let good = sample();
        let read = Manifest::parse(json.to_string().as_bytes(), &good.job, &good.id).unwrap();
        assert_eq!(read, good);
    }

    #[test]
    fn hostile_manifests_are_refused() {
        type Spoil = fn(&mut Manifest);
        let spoils: [(&str, Spoil); 7] = [
            ("of no source", |m| m.artifacts[0].source = 1),
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
