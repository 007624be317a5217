//! Where files wait until they are put in place, and where what they replaced is kept: beside them on
//! the same file system, under names of our own. Knows those names and who is alive; how one entry
//! takes the place of another is known in `swap`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::folder::modified;
use super::swap::{self, COMING, Chosen, FORMER, Journal};
use crate::durable;
use crate::fault::{Context, Fault, Result};
use crate::lock::Lock;
use crate::model::BackupId;
use crate::source::tagged::{BEFORE, NEW, free, tag_of};
use crate::source::{Kept, Leftovers};

const LOCK: &str = "lock";

/// Whether a name is one of ours. Such an entry is in no backup.
pub(super) fn is_ours(name: &OsStr) -> bool {
    [NEW, BEFORE].into_iter().any(|start| tag_of(name, start).is_some())
}

/// One folder that is to be replaced or made, and where its new content waits.
pub(super) struct Staging {
    pub folder: PathBuf,
    /// The folder is there: what is in it gives way.
    pub exists: bool,
    path: PathBuf,
    tag: String,
    lock: Option<Lock>,
    /// When the folder was changed last, before we did.
    was: SystemTime,
}

impl Staging {
    /// `others` are those of the same restore.
    pub(super) fn of(folder: &Path, tag: &str, others: &[&Self]) -> Result<Self> {
        let exists = folder.symlink_metadata().is_ok();
        let folder = match exists {
            // The folder itself may be a link; nothing in it is followed.
            true => folder.canonicalize().context(format!("find {}", folder.display()))?,
            false => folder.to_owned(),
        };
        let around = match folder.parent() {
            Some(parent) if !exists => parent,
            _ => &folder,
        };
        let taken: Vec<PathBuf> = others.iter().map(|other| other.path.clone()).collect();
        let path = free(around, NEW, tag, &taken);
        let was = match exists {
            true => modified(&folder).context(format!("look at {}", folder.display()))?,
            false => SystemTime::UNIX_EPOCH,
        };
        Ok(Self { folder, exists, path, tag: tag.to_owned(), lock: None, was })
    }

    /// What is loaded goes here.
    pub(super) fn tree(&self) -> PathBuf {
        self.path.join(COMING)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the place, and claims it for as long as this process lives.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.lock =
            Lock::try_take(&self.path.join(LOCK)).map_err(|error| refused(&self.path, error))?;
        if self.lock.is_none() {
            return Err(Fault::transient(format!(
                "{} is being restored already",
                self.folder.display()
            ))
            .hint("wait for the other restore to end"));
        }
        durable::create_folder(&self.tree()).map_err(|error| refused(&self.path, error))
    }

    /// All of it is there: what happens next is written down.
    pub(super) fn prepare(&self, chosen: Chosen<'_>, peers: &[PathBuf]) -> Result<()> {
        swap::prepare((&self.folder, self.was), &self.path, chosen, peers)
    }

    /// Puts it in place; what was there is not kept yet, and can be put back.
    pub(super) fn put(&self) -> Result<()> {
        swap::roll(&self.path, &self.journal()?)
    }

    /// Keeps what was there, if anything was.
    pub(super) fn keep(&self) -> Result<Option<Kept>> {
        keep(&self.path, &self.journal()?, &self.tag)
    }

    fn journal(&self) -> Result<Journal> {
        Journal::read(&self.path)?
            .ok_or_else(|| Fault::permanent("nothing is ready to be put in place"))
    }

    /// Takes back what was put in place, whole or half.
    pub(super) fn take_back(&self) {
        if let Err(fault) = Journal::read(&self.path).and_then(|journal| {
            journal.map_or(Ok(()), |journal| swap::unroll(&self.path, &journal))
        }) {
            tracing::warn!("{}: {}", self.path.display(), fault.chain());
        }
    }

    /// Removes what was loaded, unless it is half in place: then the next start goes on with it.
    pub(super) fn discard(&mut self) {
        if self.lock.is_none() {
            return;
        }
        match Journal::read(&self.path) {
            Ok(None) => {}
            _ => {
                tracing::warn!("{} stays: the next start goes on with it", self.path.display());
                return;
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!("could not remove {}: {error}", self.path.display());
        }
    }
}

fn refused(path: &Path, error: io::Error) -> Fault {
    Fault::usage(format!("create {}", path.display()))
        .cause(error)
        .hint("choose a folder that this user may write, or give it the right")
}

/// Gives what was there the name under which it is kept.
fn keep(staging: &Path, journal: &Journal, tag: &str) -> Result<Option<Kept>> {
    let folder = &journal.folder()?;
    let doing = || format!("keep what was in {}", folder.display());
    if !staging.join(FORMER).exists() {
        fs::remove_dir_all(staging).context(doing())?;
        return Ok(None);
    }
    match fs::remove_dir_all(staging.join(COMING)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).context(doing());
        }
        _ => {}
    }
    let mut former = fs::read_dir(staging.join(FORMER)).context(doing())?;
    if former.next().is_none() && journal.is_first() {
        fs::remove_dir_all(staging).context(doing())?;
        journal.set_time_of(folder)?;
        return Ok(None);
    }
    let kept = free(folder, BEFORE, tag, &[]);
    fs::rename(staging, &kept).context(doing())?;
    durable::sync_parent(&kept).context(doing())?;
    journal.set_time_of(folder)?;
    Ok(Some(kept_of(folder, &kept)))
}

/// Ends what was cut off: finished where all of it was there and written down, else removed. Leaves
/// alone what a living process works on.
pub(super) fn clear_leftovers(folders: &[PathBuf]) -> Result<Leftovers> {
    let mut around: Vec<PathBuf> = Vec::new();
    for folder in folders {
        let there = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        around.extend(
            [there.parent().map(Path::to_owned), Some(there.clone())].into_iter().flatten(),
        );
    }
    around.sort();
    around.dedup();
    let mut left = Vec::new();
    for path in around.iter().flat_map(|folder| staged(folder)) {
        // Whoever takes the lock of one that is gone by then would make it anew.
        if path.join(LOCK).symlink_metadata().is_ok() {
            let lock = Lock::try_take(&path.join(LOCK)).context("look for a living restore")?;
            let Some(lock) = lock else { continue };
            left.push((path, Some(lock)));
        } else if folders.iter().any(|folder| path.starts_with(folder)) {
            left.push((path, None));
        }
    }
    let mut found = Leftovers::default();
    let (mut ready, mut half) = (Vec::new(), Vec::new());
    for (path, lock) in left {
        match Journal::read(&path)? {
            Some(journal) if journal.is_agreed()? => ready.push((path, journal, lock)),
            Some(_) => half.insert(0, (path, lock)),
            None => half.push((path, lock)),
        }
    }
    for (path, journal, _lock) in ready {
        let folder = journal.folder()?;
        // Of somebody else's folder nothing is known here.
        if !folders.iter().any(|known| is_same(known, &folder)) {
            continue;
        }
        let tag = path.file_name().and_then(|name| tag_of(name, NEW)).unwrap_or_default();
        swap::roll(&path, &journal)?;
        let kept = keep(&path, &journal, tag)?;
        let words = kept.map(|kept| format!("; what was there is kept in {}", kept.kept));
        found.said.push(format!(
            "finished a restore into {} that was cut off{}",
            folder.display(),
            words.unwrap_or_default()
        ));
        found.finished = true;
    }
    for (path, _lock) in half {
        // What was written down for several, but not for all, was begun for none.
        swap::remove_journal(&path)?;
        fs::remove_dir_all(&path).context(format!("remove {}", path.display()))?;
        let what = format!("removed {}, which a restore that was cut off left", path.display());
        found.said.push(what);
    }
    Ok(found)
}

fn is_same(known: &Path, folder: &Path) -> bool {
    known == folder || known.canonicalize().is_ok_and(|known| known == folder)
}

fn kept_of(folder: &Path, kept: &Path) -> Kept {
    Kept { current: folder.display().to_string(), kept: kept.display().to_string() }
}

/// What restores of a backup have replaced in these folders, by the names that they gave.
pub(super) fn replaced(folders: &[PathBuf], backup: &BackupId) -> Vec<Kept> {
    let tag = backup.to_string().to_lowercase();
    let folders = folders.iter().filter_map(|folder| folder.canonicalize().ok());
    let kept = folders.flat_map(|folder| {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| tag_of(&entry.file_name(), BEFORE) == Some(&tag));
        ours.map(|entry| kept_of(&folder, &entry.path())).collect::<Vec<_>>()
    });
    kept.collect()
}

/// Staging folders right in a folder.
fn staged(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        tag_of(&entry.file_name(), NEW).is_some()
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
    });
    ours.map(|entry| entry.path()).collect()
}

/// Puts what was kept back, and keeps what it replaces.
pub(super) fn undo(kept: &Kept) -> Result<Kept> {
    let (folder, before) = places(kept)?;
    let lock = Lock::try_take(&before.join(LOCK)).context("claim what was kept")?;
    if lock.is_none() {
        return Err(Fault::transient(format!("{} is in use", before.display())));
    }
    let tag = before.file_name().and_then(|name| tag_of(name, BEFORE)).unwrap_or_default();
    let staging = free(&folder, NEW, tag, &[]);
    swap::turn(&before, &folder, &staging)?;
    let journal = Journal::read(&staging)?
        .ok_or_else(|| Fault::permanent("nothing is ready to be put in place"))?;
    if let Err(fault) = swap::roll(&staging, &journal) {
        swap::unroll(&staging, &journal)?;
        return Err(fault.hint("the folder is as it was before the undo"));
    }
    keep(&staging, &journal, tag)?
        .ok_or_else(|| Fault::permanent(format!("{} was not kept", folder.display())))
}

/// Removes what was kept, for good.
pub(super) fn forget(kept: &Kept) -> Result<()> {
    let (_, before) = places(kept)?;
    match fs::remove_dir_all(&before) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(format!("remove {}", before.display()))
        }
        _ => Ok(()),
    }
}

/// The folder, and what is kept in it: only ever what has a name of our own right in that folder.
fn places(kept: &Kept) -> Result<(PathBuf, PathBuf)> {
    let (folder, before) = (PathBuf::from(&kept.current), PathBuf::from(&kept.kept));
    let named = before.file_name().is_some_and(|name| tag_of(name, BEFORE).is_some());
    if !named || before.parent() != Some(&folder) {
        return Err(Fault::usage(format!("{} is not what a restore kept", before.display())));
    }
    Ok((folder, before))
}
