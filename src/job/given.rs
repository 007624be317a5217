//! A dump on disk that respaldo did not make, described as if it were a backup: so that it is read,
//! checked and restored as one. Knows files that are given; what a file is, the import tells.

use std::path::{Path, PathBuf};

use super::import::examine::{Dump, Not, examine_one};
use super::reading::read_artifact;
use super::{Found, Site};
use crate::destination::{Key, Local};
use crate::fault::{Context, Fault, FaultKind, Result};
use crate::model::manifest::FORMAT;
use crate::model::{
    Artifact, BackupId, BackupKind, Content, Engine, JobName, Manifest, SourceFacts, VERSION,
    Volume,
};
use crate::pipeline::{Identities, Meter};
use crate::signature::Verdict;
use crate::source::{Session, reader};

/// A file that was read whole and is what it should be.
pub struct Given {
    path: PathBuf,
    dump: Dump,
}

/// Reads the whole file: decompressed, compared with the digests beside it, its end looked for.
pub async fn given(site: &Site, path: &Path, meter: &Meter) -> Result<Given> {
    let path = path.canonicalize().map_err(|error| {
        Fault::usage(format!("read {}", path.display()))
            .cause(error)
            .hint("`respaldo restore --list` shows the dumps that lie beside the backups")
    })?;
    if !path.is_file() {
        return Err(Fault::usage(format!("{} is not a file", path.display()))
            .hint("of respaldo's own backups name the job and the id"));
    }
    let zone = jiff::tz::TimeZone::UTC;
    let dump = match examine_one(&path, site.clock.now(), &zone, meter).await {
        Ok(Ok(dump)) => dump,
        Ok(Err(Not::Left(why) | Not::Refused(why))) => {
            return Err(Fault::permanent(format!("{}: {why}", path.display()))
                .hint("nothing was touched; another dump may be whole"));
        }
        Err(fault) if fault.kind() == FaultKind::Permanent && fault.next_step().is_none() => {
            return Err(
                fault.hint("it is damaged, and nothing was touched; another dump may be whole")
            );
        }
        Err(fault) => return Err(fault),
    };
    Ok(Given { path, dump })
}

impl Given {
    pub fn engine(&self) -> Engine {
        self.dump.engine
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The digests beside it, which it was compared with.
    pub fn sums(&self) -> &[PathBuf] {
        &self.dump.sums
    }

    pub fn plain_bytes(&self) -> u64 {
        self.dump.plain_bytes
    }

    /// As a backup of a job, of the source of that name. Nobody signed it.
    pub fn found(&self, job: JobName, source: &str) -> Result<Found> {
        let dump = &self.dump;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let id = BackupId::at(dump.made_at);
        let volume =
            Volume { name: name.clone(), bytes: dump.stored_bytes, sha256: dump.stored_sha256 };
        let manifest = Manifest {
            format: FORMAT,
            job,
            id,
            kind: BackupKind::Full,
            label: None,
            sources: vec![SourceFacts::named(dump.engine, source)],
            started_at: dump.made_at,
            finished_at: dump.made_at,
            artifacts: vec![Artifact {
                name,
                source: 0,
                content: Content::Whole,
                format: dump.format,
                compression: dump.compression,
                encryption: None,
                plain_bytes: dump.plain_bytes,
                unpacked_bytes: None,
                plain_sha256: Some(dump.plain_sha256),
                stored_bytes: dump.stored_bytes,
                stored_sha256: dump.stored_sha256,
                volumes: vec![volume],
            }],
            proof: None,
            warnings: Vec::new(),
            suspect: false,
            respaldo: VERSION.to_owned(),
        };
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let destination = std::sync::Arc::new(Local::new(self.path.display().to_string(), folder));
        Ok(Found { manifest, signature: Verdict::Missing, destination, folder: Key::root() })
    }
}

/// Has the engine's own reader read all of it.
pub async fn check_given(
    site: &Site,
    given: &Given,
    session: &Session,
    meter: &Meter,
) -> Result<()> {
    let found = given.found("given".parse()?, "given")?;
    let artifact = &found.manifest.artifacts[0];
    let facts = found.manifest.source_of(artifact);
    let intake = reader::check(artifact, facts, &site.bin_dirs, session).await?;
    let (from, folder) = (&found.destination, found.folder());
    read_artifact(from, &folder, artifact, &Identities::default(), intake, meter)
        .await
        .map(|_| ())
        .context(given.path.display().to_string())
}
