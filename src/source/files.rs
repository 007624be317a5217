//! Folders as tar streams. This room walks and decides what goes in; GNU tar writes it, for it knows
//! sparse files, hard links, long names, ACLs and attributes. Knows tar's words; must not know how
//! a stream is stored.

mod contents;
mod digest;
mod folder;
mod pick;
mod scratch;
mod staging;
mod swap;
mod target;
mod volumes;
mod walk;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::FutureExt;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use tokio_util::sync::CancellationToken;

use super::child::{self, Ended, Pipes, Program};
use super::{
    Closing, Dump, Exit, Flow, Kept, Leftovers, Neighbour, Part, Scratch, Session, Source, Target,
    Wanted, safe_name,
};
use crate::fault::{Context, Fault, Result};
use crate::model::{ArtifactFormat, BackupId, Engine, Sha256, SourceFacts};
use scratch::{Counts, FilesScratch};
use staging::is_ours;
use target::FilesTarget;
use walk::{size, walk};

/// Warnings kept word by word; more are counted.
const WARNINGS: usize = 100;

/// What to do with a file that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    Fail,
    Warn,
}

#[derive(Debug, Clone)]
pub struct Files {
    folders: Vec<PathBuf>,
    exclude: GlobSet,
    unreadable: Unreadable,
}

impl Files {
    /// `exclude` holds globs relative to each folder: `cache/**`, `*.tmp`.
    pub fn new(folders: Vec<PathBuf>, exclude: &[String], unreadable: Unreadable) -> Result<Self> {
        let mut set = GlobSetBuilder::new();
        for glob in exclude {
            let parsed = GlobBuilder::new(glob).literal_separator(true).build();
            set.add(parsed.map_err(|error| {
                Fault::usage(format!("'{glob}' in exclude is not a glob: {error}"))
                    .hint("examples: \"cache/**\", \"**/*.tmp\"")
            })?);
        }
        let exclude = set.build().map_err(|error| Fault::usage(format!("exclude: {error}")))?;
        Ok(Self { folders, exclude, unreadable })
    }
}

#[async_trait]
impl Source for Files {
    fn engine(&self) -> Engine {
        Engine::Files
    }

    fn name(&self) -> String {
        let names: Vec<_> = self.folders.iter().map(|f| f.display().to_string()).collect();
        names.join(", ")
    }

    async fn beside(&self) -> Result<Vec<(Neighbour, bool)>> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("list the mounts")?;
        let named = volumes::mounted(&mounts).into_iter().map(|point| {
            // One file system within another is taken with it.
            let is_taken = self
                .folders
                .iter()
                .any(|folder| point.starts_with(folder) || folder.starts_with(&point));
            (Neighbour::Volume(point), is_taken)
        });
        Ok(named.collect())
    }

    async fn state(&self, cancel: &CancellationToken) -> Result<Option<Sha256>> {
        let (files, cancel) = (self.clone(), cancel.clone());
        let looking = tokio::task::spawn_blocking(move || files.digest(&cancel));
        looking.await.context("look at the folders")?.map(Some)
    }

    async fn inspect(&self, session: &Session) -> Result<SourceFacts> {
        let (files, cancel) = (self.clone(), session.cancel.clone());
        let walk = tokio::task::spawn_blocking(move || {
            files.folders.iter().try_fold(0_u64, |sum, folder| {
                Ok::<_, Fault>(sum + size(folder, &files.exclude, &cancel)?)
            })
        });
        let bytes = walk.await.context("walk the folders")??;
        let version = child::output(Program::new("tar").arg("--version"), session.cancel.clone());
        let version = version.await.map_err(|fault| fault.hint("install the package tar"))?;
        Ok(SourceFacts {
            size_bytes: Some(bytes),
            tool: version.lines().next().map(str::to_owned),
            ..SourceFacts::named(Engine::Files, self.name())
        })
    }

    async fn open(&self, session: &Session) -> Result<Dump> {
        let facts = self.inspect(session).await?;
        let tally = Tally::default();
        let parts = self.folders.iter().zip(stems(&self.folders)).map(|(folder, stem)| {
            let (folder, files, tally) = (folder.clone(), self.clone(), tally.clone());
            let cancel = session.cancel.clone();
            Part::new(stem, ArtifactFormat::Tar, move || {
                async move { files.stream(folder, tally, cancel).await }.boxed()
            })
        });
        let dump = Dump::new(facts, parts.collect());
        Ok(dump.closing_with(async move {
            let counts = tally.0.lock().ok().and_then(|mut counts| counts.take());
            Ok(Closing { fingerprint: counts.map(Counts::print), ..Closing::default() })
        }))
    }

    async fn target(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Target>> {
        Ok(Box::new(FilesTarget::new(&self.folders, wanted, session)?))
    }

    async fn undo(&self, kept: &Kept, _session: &Session) -> Result<Kept> {
        let kept = kept.clone();
        tokio::task::spawn_blocking(move || staging::undo(&kept)).await.context("put files back")?
    }

    async fn forget(&self, kept: &Kept, _session: &Session) -> Result<()> {
        let kept = kept.clone();
        tokio::task::spawn_blocking(move || staging::forget(&kept)).await.context("remove files")?
    }

    async fn replaced(&self, backup: &BackupId) -> Result<Vec<Kept>> {
        let (folders, backup) = (self.folders.clone(), *backup);
        let looking = tokio::task::spawn_blocking(move || staging::replaced(&folders, &backup));
        looking.await.context("look for what a restore has replaced")
    }

    async fn clear_leftovers(&self) -> Result<Leftovers> {
        let folders = self.folders.clone();
        let clearing = tokio::task::spawn_blocking(move || staging::clear_leftovers(&folders));
        clearing.await.context("look for what a restore left behind")?
    }

    async fn scratch(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Scratch>> {
        Ok(Box::new(FilesScratch::new(wanted, session)?))
    }
}

/// What was counted of every folder; `None` from the first on that changed while it was read.
#[derive(Clone)]
struct Tally(Arc<Mutex<Option<Counts>>>);

impl Default for Tally {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(Counts::default()))))
    }
}

impl Tally {
    fn add(&self, counted: Option<Counts>) {
        let Ok(mut all) = self.0.lock() else { return };
        *all = match (all.take(), counted) {
            (Some(mut all), Some(counted)) => {
                all.join(counted);
                Some(all)
            }
            _ => None,
        };
    }
}

impl Files {
    async fn stream(
        &self,
        folder: PathBuf,
        tally: Tally,
        cancel: CancellationToken,
    ) -> Result<Flow> {
        let program = Program::new("tar")
            .args(["--create", "--file=-", "--format=posix", "--sparse", "--numeric-owner"])
            .args(["--xattrs", "--acls", "--pax-option=delete=atime,delete=ctime"])
            // Names are judged by their message below, not by one exit code for all of them.
            .args(["--ignore-failed-read", "--no-recursion"])
            .arg(format!("--directory={}", folder.display()))
            .args(["--null", "--verbatim-files-from", "--files-from=-"]);
        let child = child::spawn(program, Pipes::Both, cancel.clone()).await?;
        let (Some(stdin), Some(stdout)) = (child.stdin, child.stdout) else {
            return Err(Fault::permanent("tar has no pipes"));
        };
        let (exclude, unreadable) = (self.exclude.clone(), self.unreadable);
        let feeder = tokio::task::spawn_blocking(move || feed(&folder, &exclude, stdin, &cancel));
        let exit = Exit::new(async move {
            let fed = feeder.await.context("walk the folder")?;
            let ended = child::ended(child.end).await?;
            let mut found = judge(&ended)?;
            let mut walked = fed?;
            let is_steady =
                found.unreadable.is_empty() && found.notes.is_empty() && walked.is_steady;
            tally.add(is_steady.then(|| std::mem::take(&mut walked.counts)));
            // Of a folder that can't be opened, tar has spoken already.
            let told = |line: &str| {
                let name = line.split(": IO error").next().unwrap_or(line);
                found.unreadable.iter().any(|told| told.starts_with(&format!("{name}: ")))
            };
            let more: Vec<String> = walked.unreadable.into_iter().filter(|l| !told(l)).collect();
            found.unreadable.extend(more);
            found.notes.extend(walked.notes);
            found.verdict(unreadable)
        });
        Ok(Flow { reader: Box::new(stdout), exit })
    }
}

/// An artifact's name for each folder: its last part, numbered where two are alike.
fn stems(folders: &[PathBuf]) -> Vec<String> {
    let mut taken: Vec<String> = Vec::new();
    for folder in folders {
        let last = folder.file_name().unwrap_or("root".as_ref()).to_string_lossy();
        let base = safe_name(&last, "folder");
        let mut stem = base.clone();
        let mut number = 2;
        while taken.contains(&stem) {
            stem = format!("{base}-{number}");
            number += 1;
        }
        taken.push(stem);
    }
    taken
}

/// What was met on the way.
#[derive(Default)]
struct Found {
    unreadable: Vec<String>,
    notes: Vec<String>,
    counts: Counts,
    /// Whatever is there was counted.
    is_steady: bool,
}

impl Found {
    fn verdict(self, unreadable: Unreadable) -> Result<Vec<String>> {
        if let (Some(first), Unreadable::Fail) = (self.unreadable.first(), unreadable) {
            let more = match self.unreadable.len() {
                1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            return Err(Fault::permanent(format!("a file can't be read: {first}{more}")).hint(
                "give this user the right to read it, exclude it, or set unreadable = \"warn\" on the job's source",
            ));
        }
        let count = self.unreadable.len() + self.notes.len();
        let mut warnings: Vec<String> =
            self.unreadable.into_iter().chain(self.notes).take(WARNINGS).collect();
        if count > WARNINGS {
            warnings.push(format!("and {} more", count - WARNINGS));
        }
        Ok(warnings)
    }
}

/// Sorts tar's messages. One that is not known fails the run: silence is not success.
fn judge(ended: &Ended) -> Result<Found> {
    let mut found = Found::default();
    for line in &ended.stderr {
        let said = line.strip_prefix("tar: ").unwrap_or(line).to_owned();
        let is = |endings: &[&str]| endings.iter().any(|ending| said.ends_with(ending));
        if is(&["Exiting with failure status due to previous errors"]) {
            continue;
        } else if is(&["Permission denied", "Input/output error", "Operation not permitted"]) {
            found.unreadable.push(said);
        } else if is(&[
            "No such file or directory",
            "File removed before we read it",
            "file changed as we read it",
            "socket ignored",
        ]) || said.contains(": File shrank by ")
        {
            found.notes.push(said);
        } else {
            return Err(ended.fault().cause(Fault::permanent(said)));
        }
    }
    let explained = !found.unreadable.is_empty() || !found.notes.is_empty();
    match ended.status.code() {
        Some(0) => Ok(found),
        Some(1 | 2) if explained => Ok(found),
        _ => Err(ended.fault()),
    }
}

/// Hands tar the names, each ended by NUL.
fn feed(
    folder: &Path,
    exclude: &GlobSet,
    stdin: File,
    cancel: &CancellationToken,
) -> Result<Found> {
    let mut found = Found { is_steady: true, ..Found::default() };
    let mut names = BufWriter::with_capacity(64 << 10, stdin);
    walk(folder, exclude, cancel, |relative, entry| {
        match entry {
            Err(error) => {
                found.is_steady = false;
                let gone =
                    error.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound);
                let list = if gone { &mut found.notes } else { &mut found.unreadable };
                list.push(format!("./{}: {error}", relative.display()));
            }
            Ok(entry) if entry.file_type().is_socket() => {
                found.notes.push(format!("./{}: a socket, left out", relative.display()));
            }
            Ok(entry) => {
                found.counts.note(entry.file_type());
                let write = names
                    .write_all(b"./")
                    .and_then(|()| names.write_all(relative.as_os_str().as_bytes()))
                    .and_then(|()| names.write_all(b"\0"));
                write.transient("hand tar a name")?;
            }
        }
        Ok(())
    })?;
    names.flush().transient("hand tar a name")?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn ended(code: i32, lines: &[&str]) -> Ended {
        Ended {
            program: "tar".into(),
            status: ExitStatus::from_raw(code << 8),
            stderr: lines.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    #[test]
    fn tars_messages_are_told_apart() {
        let changed = judge(&ended(1, &["tar: ./a: file changed as we read it"])).unwrap();
        assert_eq!(changed.verdict(Unreadable::Fail).unwrap().len(), 1);

        let denied = ["tar: ./a: Warning: Cannot open: Permission denied"];
        assert!(judge(&ended(0, &denied)).unwrap().verdict(Unreadable::Fail).is_err());
        assert!(judge(&ended(0, &denied)).unwrap().verdict(Unreadable::Warn).is_ok());

        let hostile = ["tar: ./x: No such file or directory: Cannot open: Permission denied"];
        assert!(judge(&ended(0, &hostile)).unwrap().verdict(Unreadable::Fail).is_err());

        assert!(judge(&ended(0, &["tar: something new"])).is_err());
        assert!(judge(&ended(2, &[])).is_err());
        assert!(judge(&ended(0, &[])).is_ok());
    }

    #[test]
    fn artifacts_of_like_named_folders_are_numbered() {
        let folders = ["/a/media", "/b/media", "/", "/c/.git"].map(PathBuf::from);
        assert_eq!(stems(&folders), ["media", "media-2", "root", "git"]);
    }
}
