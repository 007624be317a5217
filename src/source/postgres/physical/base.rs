//! One base backup: `pg_basebackup` as a stream, compressed by the server where it can, or as files where
//! the server has tablespaces. Knows the program's flags and words; must not know what is made of its
//! output.

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use tokio::task::JoinHandle;

use super::Physical;
use super::inside::{Seen, Watched};
use super::packed::{Packed, Start, start};
use super::receiver::explain;
use crate::fault::{Context, Fault, Result};
use crate::model::{ArtifactFormat, Content, Tablespace};
use crate::source::child::{self, Child, Ended, Pipes, Program};
use crate::source::{Exit, Flow, Part, Session, Since};

/// What the artifact of the data folder is called.
const STEM: &str = "base";
/// PostgreSQL's own list of the files.
const MANIFEST: &str = "backup_manifest";
/// Versions from this one on can tell what has changed since a backup.
pub const INCREMENTAL_FROM: u32 = 17;
/// By these words a server says that it can't tell what has changed since that backup.
const CAN_NOT_TELL: [&str; 4] = ["summar", "incremental", "manifest", "timeline"];
/// And by this one that it was built without what it should compress with.
const CAN_NOT_COMPRESS: &str = "compress";

/// Where that list lies once the backup was read, in the run's own folder.
pub fn manifest_in(spool: &Path) -> PathBuf {
    spool.join(MANIFEST)
}

/// A base backup that is about to be taken.
pub(super) struct Base {
    physical: Physical,
    client: PathBuf,
    pub seen: Arc<Seen>,
    /// A page of the server's own files does not have the checksum that it should have.
    pub damaged: Arc<AtomicBool>,
    session: Session,
}

impl Base {
    pub(super) fn new(physical: &Physical, client: PathBuf, session: &Session) -> Self {
        let (physical, session) = (physical.clone(), session.clone());
        let (seen, damaged) = Default::default();
        Self { physical, client, seen, damaged, session }
    }

    fn program(&self, to: &Path, since: Option<&Since>) -> Program {
        let program = self
            .physical
            .postgres
            .program(self.client.clone(), "replication")
            .with_large_buffers()
            .args(["--format=tar", "--wal-method=fetch", "--checkpoint=fast", "--no-password"])
            // Nobody reads the estimate, for which a server looks at all of its files first.
            .args(["--manifest-checksums=SHA256", "--label=respaldo", "--no-estimate-size"])
            .arg("--pgdata")
            .arg(to);
        match since {
            Some(since) => program.arg("--incremental").arg(&since.manifest),
            None => program,
        }
    }

    async fn spawn(&self, to: &Path, since: Option<&Since>) -> Result<Child> {
        child::spawn(self.program(to, since), Pipes::Stdout, self.session.cancel.clone()).await
    }

    /// As one stream, which passes once and lies nowhere.
    pub(super) fn streamed(self) -> Vec<Part> {
        let listed = self.physical.listed.then(|| listed(&self.session));
        let base = Part::new(STEM, ArtifactFormat::Tar, move || {
            async move {
                let (first, output, end) = self.begun().await?;
                let Self { seen, damaged, session, .. } = self;
                let reader = Cursor::new(first).chain(output);
                let reader = Watched::new(reader, seen, manifest_in(&session.spool));
                let exit = Exit::new(async move { went(child::ended(end).await?, &damaged) });
                Ok(Flow { reader: Box::new(reader), exit })
            }
            .boxed()
        });
        std::iter::once(base).chain(listed).collect()
    }

    /// As one stream that the server compresses, and PostgreSQL's list of the files beside it, which can't be put into
    /// such a one. None: this server can't, or this machine.
    pub(super) async fn packed(&self, level: i32) -> Result<Option<Vec<Part>>> {
        let folder = self.session.spool.join(STEM);
        let mut since = self.session.since.as_ref();
        let Packed { first, rest, label, end } = loop {
            // All of it is synced where it goes.
            let program = self.program(&folder, since).arg("--no-sync");
            let program = program.arg(format!("--compress=server-zstd:level={level}"));
            let why = match start(program, &folder, &self.session.cancel).await? {
                Start::Begun(packed) => break packed,
                Start::Missed(why) => why,
                Start::Over(ended) => {
                    let why = ended.fault().chain();
                    if !why.contains(CAN_NOT_COMPRESS) {
                        since.take().ok_or_else(|| explain(ended.fault()))?;
                        self.note_refusal(ended)?;
                        continue;
                    }
                    why
                }
            };
            tracing::info!("the server does not compress the base backup: {why}");
            return Ok(None);
        };
        self.seen.has_label(label);
        let (seen, damaged) = (self.seen.clone(), self.damaged.clone());
        let manifest = manifest_in(&self.session.spool);
        let base = Part::new(STEM, ArtifactFormat::TarZst, move || {
            let exit = Exit::new(async move {
                let said = went(child::ended(end).await?, &damaged)?;
                take_manifest(&folder, manifest, &seen)?;
                Ok(said)
            });
            let reader = Box::new(Cursor::new(first).chain(rest));
            std::future::ready(Ok(Flow { reader, exit })).boxed()
        });
        Ok(Some(vec![base, listed(&self.session)]))
    }

    /// The program's output, with what of it was read already, and its end.
    ///
    /// A server says before the first byte whether it can tell what has changed: where it can't, a
    /// full backup is begun in the place of the incremental one.
    async fn begun(&self) -> Result<(Vec<u8>, File, JoinHandle<Result<Ended>>)> {
        let (to, none) = (Path::new("-"), || Fault::permanent("it has no output"));
        if let Some(since) = &self.session.since {
            let child = self.spawn(to, Some(since)).await?;
            let (first, output) = first_bytes(child.stdout.ok_or_else(none)?).await?;
            if !first.is_empty() {
                return Ok((first, output, child.end));
            }
            self.note_refusal(child::ended(child.end).await?)?;
        }
        let child = self.spawn(to, None).await?;
        Ok((Vec::new(), child.stdout.ok_or_else(none)?, child.end))
    }

    /// That it ended without a byte is no fault where a full backup is what helps.
    fn note_refusal(&self, ended: Ended) -> Result<()> {
        let fault = ended.fault();
        let why = fault.chain();
        if !CAN_NOT_TELL.iter().any(|words| why.contains(words)) {
            return Err(explain(fault));
        }
        tracing::info!("a full backup is made in the place of an incremental one: {why}");
        self.seen.was_refused(why);
        Ok(())
    }

    /// Through the spool: standard output takes one tar only.
    pub(super) async fn spooled(self, tablespaces: &[Tablespace]) -> Result<Vec<Part>> {
        let folder = self.session.spool.join(STEM);
        let mut ended = self.written(&folder, self.session.since.as_ref()).await?;
        if self.session.since.is_some() && !is_whole(&ended) {
            self.note_refusal(ended)?;
            // What it began goes with the program that began it, or stands in the way.
            fs::remove_dir_all(&folder).ok();
            ended = self.written(&folder, None).await?;
        }
        let Self { seen, damaged, session, .. } = self;
        went(ended, &damaged)?;
        take_manifest(&folder, manifest_in(&session.spool), &seen)?;
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
        parts.push(listed(&session));
        Ok(parts)
    }

    async fn written(&self, folder: &Path, since: Option<&Since>) -> Result<Ended> {
        let child = self.spawn(folder, since).await?;
        drop(child.stdout);
        child::ended(child.end).await
    }
}

/// Out of the folder that the program has filled. Of a damaged server's backup it has not got its name.
fn take_manifest(folder: &Path, to: PathBuf, seen: &Seen) -> Result<()> {
    let named = fs::rename(folder.join(MANIFEST), &to);
    let found = named.or_else(|_| fs::rename(folder.join(format!("{MANIFEST}.tmp")), &to));
    found.context("find the backup's own manifest")?;
    seen.has_manifest_at(to);
    Ok(())
}

/// Blocks until there is something, or the end.
async fn first_bytes(mut output: File) -> Result<(Vec<u8>, File)> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut first = vec![0; 64 << 10];
        let count = output.read(&mut first)?;
        first.truncate(count);
        Ok::<_, std::io::Error>((first, output))
    });
    reading.await.context("read")?.context("read what pg_basebackup writes")
}

/// PostgreSQL's list, which lies in the spool once the data folder was read.
fn listed(session: &Session) -> Part {
    let path = manifest_in(&session.spool);
    let part = Part::new(MANIFEST, ArtifactFormat::Bytes, move || {
        std::future::ready(opened(&path, |file| Box::new(file))).boxed()
    });
    part.holding(Content::BackupManifest, 0).ending("json")
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
fn is_damaged(ended: &Ended) -> bool {
    let says = |words: &str| ended.stderr.iter().any(|line| line.contains(words));
    ended.status.code() == Some(1) && says("checksum error occurred")
}

fn is_whole(ended: &Ended) -> bool {
    ended.status.success() || is_damaged(ended)
}

fn went(ended: Ended, damaged: &AtomicBool) -> Result<Vec<String>> {
    if is_damaged(&ended) {
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
