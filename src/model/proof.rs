//! What the manifest of an encrypted backup keeps to itself: table names, row counts, digests of
//! plain bytes, warnings, what belongs to a database. Knows what would give something away; must not know how
//! it is encrypted.

use serde::{Deserialize, Serialize};

use super::manifest::FORMAT;
use super::{BackupId, Belongings, Content, Fingerprint, JobName, Manifest, Sha256};
use crate::fault::{Context, Fault, Result};

/// A proof larger than this, decompressed, is not one.
pub const MAX_PROOF_BYTES: u64 = 64 << 20;

/// Everything that was taken out of one manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// As the manifest's.
    pub format: u32,
    /// Of which backup it is: that of another one is refused.
    pub job: JobName,
    pub id: BackupId,
    /// One for each artifact, in the manifest's order.
    pub artifacts: Vec<Inside>,
    /// One for each source, in the manifest's order.
    pub fingerprints: Vec<Option<Fingerprint>>,
    /// Likewise.
    #[serde(default)]
    pub roles: Vec<Vec<String>>,
    /// Likewise.
    #[serde(default)]
    pub belongings: Vec<Option<Belongings>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What is inside an artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inside {
    /// The artifact's name.
    pub name: String,
    #[serde(default)]
    pub content: Content,
    pub plain_sha256: Sha256,
}

impl Proof {
    /// Takes out of the manifest what must not be read by everybody.
    pub fn seal(manifest: &mut Manifest) -> Result<Self> {
        let artifacts = manifest.artifacts.iter_mut().map(|artifact| {
            let content = hidden(&artifact.content);
            let content = std::mem::replace(&mut artifact.content, content);
            let digest = artifact.plain_sha256.take();
            let plain_sha256 =
                digest.ok_or_else(|| Fault::permanent("an artifact has no digest"))?;
            Ok(Inside { name: artifact.name.clone(), content, plain_sha256 })
        });
        let artifacts = artifacts.collect::<Result<_>>()?;
        let fingerprints = manifest.sources.iter_mut().map(|facts| facts.fingerprint.take());
        let fingerprints = fingerprints.collect();
        let roles = manifest.sources.iter_mut().map(|facts| std::mem::take(&mut facts.roles));
        let roles = roles.collect();
        let belongings = manifest.sources.iter_mut().map(|facts| facts.belongings.take());
        Ok(Self {
            format: FORMAT,
            job: manifest.job.clone(),
            id: manifest.id,
            artifacts,
            fingerprints,
            roles,
            belongings: belongings.collect(),
            warnings: std::mem::take(&mut manifest.warnings),
        })
    }

    /// Reads what was decrypted.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).context("read proof.json")
    }

    /// Puts it back, when it is this manifest's and agrees with it.
    pub fn unseal(self, manifest: &mut Manifest) -> Result<()> {
        let fits = self.format == manifest.format
            && self.job == manifest.job
            && self.id == manifest.id
            && self.fingerprints.len() == manifest.sources.len();
        // What was erased it still names: nobody could open it then to take that out.
        let (kept, erased): (Vec<Inside>, Vec<Inside>) = self
            .artifacts
            .into_iter()
            .partition(|inside| manifest.artifacts.iter().any(|a| a.name == inside.name));
        let same = kept.len() == manifest.artifacts.len()
            && kept.iter().zip(&manifest.artifacts).all(|(inside, artifact)| {
                inside.name == artifact.name && hidden(&inside.content) == artifact.content
            });
        if !fits || !same {
            return Err(Fault::permanent("proof.json is not of this backup"));
        }
        for (inside, artifact) in kept.into_iter().zip(&mut manifest.artifacts) {
            artifact.content = inside.content;
            artifact.plain_sha256 = Some(inside.plain_sha256);
        }
        for (mut fingerprint, facts) in self.fingerprints.into_iter().zip(&mut manifest.sources) {
            let is_erased =
                |schema: &str| erased.iter().any(|e| e.content == Content::Schema(schema.into()));
            if let Some(print) = &mut fingerprint {
                print.tables.retain(|table| !is_erased(&table.name.schema));
                print.sequences.retain(|sequence| !is_erased(&sequence.name.schema));
            }
            facts.fingerprint = fingerprint;
        }
        for (roles, facts) in self.roles.into_iter().zip(&mut manifest.sources) {
            facts.roles = roles;
        }
        for (belongings, facts) in self.belongings.into_iter().zip(&mut manifest.sources) {
            facts.belongings = belongings;
        }
        manifest.warnings.extend(self.warnings);
        Ok(())
    }
}

/// As the manifest of an encrypted backup says it.
fn hidden(content: &Content) -> Content {
    match content {
        Content::Rows(_) => Content::Rows(None),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Artifact, ArtifactFormat, BackupKind, Compression, Engine, FingerprintLevel, SourceFacts,
        TableName, TablePrint, Volume,
    };
    use super::*;

    fn manifest() -> Manifest {
        let started: jiff::Timestamp = "2025-11-24T02:00:00Z".parse().unwrap();
        let digest = Sha256([7; 32]);
        let table = TableName { schema: "auth".into(), table: "secret_users".into() };
        let artifact = |name: &str, content| Artifact {
            name: name.into(),
            source: 0,
            content,
            format: ArtifactFormat::PgCustom,
            compression: Compression::Zstd,
            encryption: None,
            plain_bytes: 10,
            unpacked_bytes: None,
            plain_sha256: Some(digest),
            stored_bytes: 5,
            stored_sha256: digest,
            volumes: vec![Volume { name: name.into(), bytes: 5, sha256: digest }],
        };
        let mut facts = SourceFacts::named(Engine::Postgres, "shop");
        facts.roles = vec!["secret_tenant".into()];
        facts.belongings = Some(Belongings {
            owner: Some("secret_owner".into()),
            comment: Some("secret words".into()),
            ..Belongings::default()
        });
        facts.fingerprint = Some(Fingerprint {
            level: FingerprintLevel::Counts,
            approximate: false,
            tables: vec![TablePrint { name: table.clone(), rows: 4711, hash: None }],
            sequences: vec![],
            objects: [("secret_kind".to_owned(), 3)].into(),
        });
        Manifest {
            format: FORMAT,
            job: "db".parse().unwrap(),
            id: BackupId::at(started),
            kind: BackupKind::Full,
            label: None,
            sources: vec![facts],
            started_at: started,
            finished_at: started,
            artifacts: vec![
                artifact("shop.dump.zst.age", Content::Main),
                artifact("shop.table.1.dump.zst.age", Content::Rows(Some(table))),
            ],
            proof: None,
            suspect: false,
            warnings: vec!["secret_users has no primary key".into()],
            respaldo: "0".into(),
        }
    }

    #[test]
    fn what_is_sealed_says_nothing_and_comes_back_whole() {
        let whole = manifest();
        let mut sealed = whole.clone();
        let proof = Proof::seal(&mut sealed).unwrap();
        let text = serde_json::to_string(&sealed).unwrap();
        for secret in ["secret", "4711", "auth", "plain_sha256"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        let proof = Proof::parse(&serde_json::to_vec(&proof).unwrap()).unwrap();
        let mut opened = Manifest::parse(text.as_bytes(), &whole.job, &whole.id).unwrap();
        proof.unseal(&mut opened).unwrap();
        assert_eq!(opened, whole);
    }

    #[test]
    fn a_proof_of_something_else_is_refused() {
        type Change = fn(&mut Proof);
        let changes: [Change; 7] = [
            |proof| proof.format = 2,
            |proof| proof.job = "other".parse().unwrap(),
            |proof| proof.id = proof.id.bump(),
            |proof| proof.artifacts.truncate(1),
            |proof| proof.artifacts[0].name = "other".into(),
            |proof| proof.artifacts[0].content = Content::Globals,
            |proof| proof.fingerprints.clear(),
        ];
        for change in changes {
            let mut sealed = manifest();
            let mut proof = Proof::seal(&mut sealed).unwrap();
            let before = sealed.clone();
            change(&mut proof);
            let said = proof.unseal(&mut sealed).unwrap_err().chain();
            assert!(said.contains("not of this backup"), "{said}");
            assert_eq!(sealed, before, "nothing was put in");
        }
    }
}
