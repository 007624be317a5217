//! One base backup: `pg_basebackup` as a stream, or as files where the server has tablespaces. Knows the
//! program's flags and words; must not know what is made of its output.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;

use super::Physical;
use super::inside::{Seen, Watched};
use super::receiver::explain;
use crate::fault::{Context, Fault, Result};
use crate::model::{ArtifactFormat, Content, Tablespace};
use crate::source::child::{self, Ended, Pipes, Program};
use crate::source::{Exit, Flow, Part, Session};

/// What the artifact of the data folder is called.
const STEM: &str = "base";
/// PostgreSQL's own list of the files.
const MANIFEST: &str = "backup_manifest";

/// A base backup that is about to be taken.
pub(super) struct Base {
    program: Program,
    pub seen: Arc<Seen>,
    /// A page of the server's own files does not have the checksum that it should have.
    pub damaged: Arc<AtomicBool>,
    session: Session,
}

impl Base {
    pub(super) fn new(physical: &Physical, client: PathBuf, session: &Session) -> Self {
        let program = physical
            .postgres
            .program(client, "replication")
            .args(["--format=tar", "--wal-method=fetch", "--checkpoint=fast", "--no-password"])
            .args(["--manifest-checksums=SHA256", "--label=respaldo"]);
        let (seen, damaged) = Default::default();
        Self { program, seen, damaged, session: session.clone() }
    }

    /// As one stream, which passes once and lies nowhere.
    pub(super) fn streamed(self) -> Part {
        let Self { program, seen, damaged, session } = self;
        Part::new(STEM, ArtifactFormat::Tar, move || {
            async move {
                let program = program.arg("--pgdata=-");
                let child = child::spawn(program, Pipes::Stdout, session.cancel.clone()).await?;
                let output = child.stdout.ok_or_else(|| Fault::permanent("it has no output"))?;
                let reader = Watched::new(output, seen, session.spool.join(MANIFEST));
                let exit = Exit::new(async move { went(child::ended(child.end).await?, &damaged) });
                Ok(Flow { reader: Box::new(reader), exit })
            }
            .boxed()
        })
    }

    /// Through the spool: standard output takes one tar only.
    pub(super) async fn spooled(self, tablespaces: &[Tablespace]) -> Result<Vec<Part>> {
        let Self { program, seen, damaged, session } = self;
        let folder = session.spool.join(STEM);
        let program = program.arg(format!("--pgdata={}", folder.display()));
        let child = child::spawn(program, Pipes::Stdout, session.cancel.clone()).await?;
        drop(child.stdout);
        went(child::ended(child.end).await?, &damaged)?;
        seen.has_manifest_at(folder.join(MANIFEST));
        let base = folder.join("base.tar");
        let watched = session.spool.join("label");
        let mut parts = vec![file(STEM.to_owned(), Content::Whole, base, {
            let seen = seen.clone();
            move |file| Box::new(Watched::new(file, seen, watched))
        })];
        for Tablespace { oid, .. } in tablespaces {
            let (stem, content) = (format!("tablespace.{oid}"), Content::Tablespace(*oid));
            let path = folder.join(format!("{oid}.tar"));
            parts.push(file(stem, content, path, |file| Box::new(file)));
        }
        let path = folder.join(MANIFEST);
        let listed = Part::new(MANIFEST, ArtifactFormat::Bytes, move || {
            std::future::ready(opened(&path, |file| Box::new(file))).boxed()
        });
        parts.push(listed.holding(Content::BackupManifest, 0).ending("json"));
        Ok(parts)
    }
}

type Wrap = dyn FnOnce(File) -> Box<dyn Read + Send> + Send;

/// A tar that lies in the spool, and goes when it was read.
fn file(
    stem: String,
    content: Content,
    path: PathBuf,
    wrap: impl FnOnce(File) -> Box<dyn Read + Send> + Send + 'static,
) -> Part {
    let size = path.metadata().map_or(0, |meta| meta.len());
    let open = move || {
        let flow = opened(&path, wrap);
        // It is open, and lives until it is read.
        fs::remove_file(&path).ok();
        std::future::ready(flow).boxed()
    };
    Part::new(stem, ArtifactFormat::Tar, open).holding(content, size)
}

fn opened(
    path: &Path,
    wrap: impl FnOnce(File) -> Box<dyn Read + Send> + Send + 'static,
) -> Result<Flow> {
    let file = File::open(path).context("open what pg_basebackup wrote")?;
    let wrap: Box<Wrap> = Box::new(wrap);
    let exit = Exit::new(std::future::ready(Ok(Vec::new())));
    Ok(Flow { reader: wrap(file), exit })
}

/// A wrong checksum of a page is said after all is sent, with exit status 1: what was sent is whole, and
/// as damaged as the server is.
fn went(ended: Ended, damaged: &AtomicBool) -> Result<Vec<String>> {
    let says = |words: &str| ended.stderr.iter().any(|line| line.contains(words));
    if ended.status.code() == Some(1) && says("checksum error occurred") {
        damaged.store(true, Ordering::Release);
        return Ok(ended.stderr);
    }
    ended.success().map_err(explain)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn ended(code: i32, line: &str) -> Ended {
        Ended {
            program: "pg_basebackup".into(),
            status: ExitStatus::from_raw(code << 8),
            stderr: vec![line.to_owned()],
        }
    }

    #[test]
    fn a_damaged_page_is_told_from_a_backup_that_broke() {
        let damaged = AtomicBool::default();
        let line = "pg_basebackup: error: checksum error occurred";
        assert!(went(ended(1, line), &damaged).is_ok());
        assert!(damaged.load(Ordering::Acquire));
        let damaged = AtomicBool::default();
        assert!(went(ended(1, "pg_basebackup: error: could not read"), &damaged).is_err());
        assert!(!damaged.load(Ordering::Acquire));
        let refused = "FATAL: no pg_hba.conf entry for replication connection from host";
        let hint = went(ended(1, refused), &damaged).unwrap_err();
        assert!(hint.next_step().unwrap().contains("host replication"));
    }
}
