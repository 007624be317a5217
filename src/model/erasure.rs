//! What was erased and must not come back: a job's ledger, and the tombstone beside a manifest. Knows
//! their shape; must not know where they lie or who signed them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Artifact, BackupId, Engine, JobName, Manifest, SourceFacts, Volume};
use crate::fault::{Context, Fault, Result};

/// The only format there is so far.
const FORMAT: u32 = 1;
/// A ledger larger than this is not one: bounds what a hostile store can make us read.
pub const MAX_LEDGER_BYTES: u64 = 4 << 20;

/// Somebody or something that was erased, and is erased again after every restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    pub id: Uuid,
    pub at: Timestamp,
    /// The machine on which it was asked for.
    pub host: String,
    /// Of a job with several databases, the one that is meant; None: each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    #[serde(flatten)]
    pub subject: Subject,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What is erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A schema of PostgreSQL, as it was when that was asked for: a later one of its name is not
    /// meant.
    Schema(String),
    /// Whatever these statements remove.
    Sql(String),
}

impl Erasure {
    /// Whether it is done again where this database of that backup is restored.
    pub fn concerns(&self, backup: &BackupId, facts: &SourceFacts) -> bool {
        let here = self.database.as_ref().is_none_or(|database| *database == facts.name);
        here && match (&self.subject, facts.engine) {
            (Subject::Schema(_), engine) => engine == Engine::Postgres && self.precedes(backup),
            (Subject::Sql(_), engine) => {
                matches!(engine, Engine::Postgres | Engine::Mysql | Engine::Sqlite)
            }
        }
    }

    /// Whether a schema that should be gone is still in there.
    pub fn is_open_in(&self, manifest: &Manifest) -> bool {
        let Subject::Schema(schema) = &self.subject else { return false };
        self.precedes(&manifest.id)
            && !manifest.of_schema(schema, self.database.as_deref()).is_empty()
    }

    /// The backup was begun before.
    pub fn precedes(&self, backup: &BackupId) -> bool {
        backup.started() <= self.at
    }

    /// For people: what, and where.
    pub fn words(&self) -> String {
        let what = match &self.subject {
            Subject::Schema(schema) => format!("schema '{schema}'"),
            Subject::Sql(sql) => sql.clone(),
        };
        match &self.database {
            Some(database) => format!("{what} (in '{database}')"),
            None => what,
        }
    }
}

/// All that was erased from a job's backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub format: u32,
    pub job: JobName,
    /// By time.
    pub erasures: Vec<Erasure>,
    /// Schemas whose archives are gone from this destination. Its own: never merged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried_out: Vec<Uuid>,
}

impl Ledger {
    pub fn new(job: &JobName) -> Self {
        Self { format: FORMAT, job: job.clone(), erasures: Vec::new(), carried_out: Vec::new() }
    }

    /// Reads a ledger that may come from anywhere, and refuses what is not one of `job`.
    pub fn parse(bytes: &[u8], job: &JobName) -> Result<Self> {
        let ledger: Self = serde_json::from_slice(bytes).context("read erasures.json")?;
        if ledger.format != FORMAT {
            return Err(Fault::permanent(format!("erasures.json has format {}", ledger.format))
                .hint("a newer respaldo wrote it; use that version"));
        }
        if ledger.job != *job {
            let what = format!("erasures.json is of job '{}', but lies at '{job}'", ledger.job);
            return Err(Fault::permanent(what));
        }
        Ok(ledger)
    }

    /// What either knows. The same thing erased twice counts as erased the later time.
    pub fn merge(&mut self, others: &[Erasure]) {
        for other in others {
            let same =
                |own: &&mut Erasure| own.subject == other.subject && own.database == other.database;
            match self.erasures.iter_mut().find(same) {
                Some(own) if (own.at, own.id) < (other.at, other.id) => *own = other.clone(),
                Some(_) => {}
                None => self.erasures.push(other.clone()),
            }
        }
        self.erasures.sort_by_key(|erasure| (erasure.at, erasure.id));
    }

    /// Schemas whose archives may still lie here.
    pub fn open(&self) -> Vec<Erasure> {
        let open = |erasure: &&Erasure| {
            matches!(erasure.subject, Subject::Schema(_)) && !self.carried_out.contains(&erasure.id)
        };
        self.erasures.iter().filter(open).cloned().collect()
    }
}

/// `marks/tombstone.json`: what was taken out of a backup. Written before it goes, so that whoever
/// finds the work half done knows which files are meant; what the manifest still lists is not gone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tombstone {
    pub erased: Vec<Taken>,
}

/// One schema taken out of a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    pub schema: String,
    pub at: Timestamp,
    pub host: String,
    /// As they were in the manifest, with their digests.
    pub artifacts: Vec<Artifact>,
}

impl Tombstone {
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).context("read a tombstone")
    }

    /// What it does not know yet is added.
    pub fn add(&mut self, schema: &str, erasure: &Erasure, artifacts: &[Artifact]) {
        let known = |artifact: &&Artifact| {
            self.erased.iter().flat_map(|taken| &taken.artifacts).any(|other| {
                other.name == artifact.name && other.stored_sha256 == artifact.stored_sha256
            })
        };
        let artifacts: Vec<Artifact> =
            artifacts.iter().filter(|artifact| !known(artifact)).cloned().collect();
        if !artifacts.is_empty() {
            let (schema, host) = (schema.to_owned(), erasure.host.clone());
            self.erased.push(Taken { schema, at: erasure.at, host, artifacts });
        }
    }

    pub fn names(&self, schema: &str) -> bool {
        self.erased.iter().any(|taken| taken.schema == schema)
    }

    pub fn volumes(&self) -> impl Iterator<Item = &Volume> {
        let artifacts = self.erased.iter().flat_map(|taken| &taken.artifacts);
        artifacts.flat_map(|artifact| &artifact.volumes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erasure(at: &str, subject: Subject) -> Erasure {
        let (id, at) = (Uuid::new_v4(), at.parse().unwrap());
        Erasure { id, at, host: "h".into(), database: None, subject, note: None }
    }

    #[test]
    fn two_ledgers_are_one() {
        let job: JobName = "db".parse().unwrap();
        let schema = || Subject::Schema("a".into());
        let early = erasure("2025-11-24T02:00:00Z", schema());
        let late = erasure("2025-11-25T02:00:00Z", schema());
        let sql = erasure("2025-11-24T12:00:00Z", Subject::Sql("DELETE".into()));
        let (mut one, mut other) = (Ledger::new(&job), Ledger::new(&job));
        one.merge(&[early.clone(), sql.clone()]);
        one.carried_out = vec![early.id];
        assert_eq!(one.open(), []);
        other.merge(std::slice::from_ref(&late));
        other.merge(&one.erasures);
        one.merge(&other.erasures);
        assert_eq!(one.erasures, [sql, late.clone()]);
        assert_eq!(one.erasures, other.erasures);
        // Asked for again, it is to be done again.
        assert_eq!(one.open(), std::slice::from_ref(&late));
        let bytes = serde_json::to_vec(&one).unwrap();
        assert_eq!(Ledger::parse(&bytes, &job).unwrap(), one);
        assert!(Ledger::parse(&bytes, &"other".parse().unwrap()).is_err());

        let facts = SourceFacts::named(Engine::Postgres, "shop");
        let day = |day: &str| BackupId::at(day.parse().unwrap());
        let (before, after) = (day("2025-11-25T00:00:00Z"), day("2025-11-26T00:00:00Z"));
        assert!(late.concerns(&before, &facts));
        assert!(!late.concerns(&after, &facts), "a new schema of that name is somebody else's");
        assert!(one.erasures[0].concerns(&after, &facts));
        assert!(!late.concerns(&before, &SourceFacts::named(Engine::Files, "shop")));
    }
}
