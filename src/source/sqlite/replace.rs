//! One database file in the place of another: the old one gets a second name, then the new one its
//! first, so that there is a whole one at every instant. Knows SQLite's locks and the files beside a
//! database; must not know what is in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::file_name;
use crate::durable::{self, Draft, Existing};
use crate::fault::{Context, Fault, Result};
use crate::source::Kept;
use crate::source::tagged::{NEW, free, tag_of};

/// What SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// How long others may finish what they are doing.
const PATIENCE: Duration = Duration::from_secs(5);

/// The first part of the name of what was replaced, `shop.db.before-`.
pub(super) fn before(path: &Path) -> String {
    format!("{}.before-", file_name(path))
}

pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// A database that is to be replaced, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Present {
    /// Nobody uses it.
    Idle,
    InUse,
    /// It is no whole database any more.
    Damaged,
}

/// Asks for the lock that only a database's sole user gets. Changes nothing.
pub(super) fn present(path: &Path) -> Result<Present> {
    match alone(path, false) {
        Ok(connection) => drop(connection),
        Err(error) => return verdict(path, error),
    }
    // Without a write-ahead log, whoever has it open and does nothing holds no lock.
    Ok(if is_open(path) { Present::InUse } else { Present::Idle })
}

fn verdict(path: &Path, error: rusqlite::Error) -> Result<Present> {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Ok(Present::InUse),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Ok(Present::Damaged),
        _ => Err(error).context(format!("open {}", path.display())),
    }
}

/// A connection that has the database for itself.
fn alone(path: &Path, checkpoint: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !checkpoint)?;
    // Kept until the end, and so refused while anybody else has a write-ahead log open.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.execute_batch("BEGIN EXCLUSIVE; ROLLBACK")?;
    if checkpoint {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    }
    Ok(connection)
}

/// Whether a process that can be seen from here has the file open.
fn is_open(path: &Path) -> bool {
    let Ok(meta) = fs::metadata(path) else { return false };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let folders = processes.filter(|entry| {
        let name = entry.file_name();
        let is_other = name != *std::process::id().to_string();
        is_other && name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
    });
    let mut open = folders.flat_map(|process| {
        fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten()
    });
    open.any(|fd| {
        fs::metadata(fd.path()).is_ok_and(|at| (at.dev(), at.ino()) == (meta.dev(), meta.ino()))
    })
}

/// Brings into the file what is beside it, and makes sure that nobody uses it.
fn settle(path: &Path) -> Result<Present> {
    let present = match alone(path, true) {
        Ok(connection) => {
            connection
                .close()
                .map_err(|(_, error)| error)
                .context(format!("close {}", path.display()))?;
            if is_open(path) { Present::InUse } else { Present::Idle }
        }
        Err(error) => verdict(path, error)?,
    };
    if present == Present::InUse {
        return Err(in_use(path));
    }
    Ok(present)
}

pub(super) fn in_use(path: &Path) -> Fault {
    Fault::transient(format!("{} is open in another program", path.display()))
        .hint("stop the application, and try again; nothing was changed")
}

/// Puts a whole and closed draft in the place of `path`. Says what the former one is called now.
pub(super) fn put(draft: Draft, path: &Path, tag: &str) -> Result<Kept> {
    let kept = keep(path, tag)?;
    if let Err(fault) = publish(draft, path, &kept) {
        // As it was: under its one name.
        fs::rename(&kept, path).ok();
        fs::remove_file(&kept).ok();
        return Err(fault);
    }
    Ok(named(path, &kept))
}

fn publish(draft: Draft, path: &Path, kept: &Path) -> Result<()> {
    let doing = || format!("replace {}", path.display());
    // Whoever may use the one may use the other.
    let meta = fs::metadata(kept).context(doing())?;
    match chown(draft.path(), Some(meta.uid()), Some(meta.gid())) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            return Err(error).context(doing());
        }
        _ => {}
    }
    fs::set_permissions(draft.path(), meta.permissions()).context(doing())?;
    draft.publish(Existing::Replace).context(doing())
}

/// Gives the present database a second name, under which it is kept.
fn keep(path: &Path, tag: &str) -> Result<PathBuf> {
    let doing = || format!("keep {}", path.display());
    let present = settle(path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let kept = free(folder, &before(path), tag, &[]);
    for ending in BESIDE {
        let beside = with_ending(path, ending);
        if beside.symlink_metadata().is_err() {
            continue;
        }
        // The new one must not be taken for theirs. Only of a damaged one they may hold something.
        match present {
            Present::Damaged => fs::rename(&beside, with_ending(&kept, ending)).context(doing())?,
            _ => fs::remove_file(&beside).context(doing())?,
        }
    }
    if let Err(error) = fs::hard_link(path, &kept) {
        tracing::debug!("{}: {error}", path.display());
        // There are none on this file system: for an instant there is no database.
        fs::rename(path, &kept).context(doing())?;
    }
    durable::sync_parent(&kept).context(doing())?;
    Ok(kept)
}

fn named(path: &Path, kept: &Path) -> Kept {
    Kept { current: path.display().to_string(), kept: kept.display().to_string() }
}

/// Puts what was kept back, and keeps what it replaces.
pub(super) fn undo(kept: &Kept) -> Result<Kept> {
    let (path, former) = places(kept)?;
    let tag = former.file_name().and_then(|name| tag_of(name, &before(&path))).unwrap_or_default();
    if settle(&former)? == Present::Damaged {
        tracing::warn!("{} was damaged when it was replaced", former.display());
    }
    let doing = || format!("put {} back", former.display());
    let replaced = keep(&path, tag)?;
    for ending in BESIDE {
        let beside = with_ending(&former, ending);
        if beside.symlink_metadata().is_ok() {
            fs::rename(&beside, with_ending(&path, ending)).context(doing())?;
        }
    }
    fs::rename(&former, &path).context(doing())?;
    durable::sync_parent(&path).context(doing())?;
    Ok(named(&path, &replaced))
}

/// Removes what was kept, for good.
pub(super) fn forget(kept: &Kept) -> Result<()> {
    let (_, former) = places(kept)?;
    for path in BESIDE.map(|ending| with_ending(&former, ending)).iter().chain([&former]) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context(format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The database, and what is kept beside it: only ever what has a name of our own.
fn places(kept: &Kept) -> Result<(PathBuf, PathBuf)> {
    let (path, former) = (PathBuf::from(&kept.current), PathBuf::from(&kept.kept));
    let ours = former.file_name().and_then(|name| tag_of(name, &before(&path))).is_some();
    if !ours || former.parent() != path.parent() {
        return Err(Fault::usage(format!("{} is not what a restore kept", former.display())));
    }
    Ok((path, former))
}

/// Removes what a restore that was cut off has left. Whatever a living process writes is left alone.
pub(super) fn clear_leftovers(path: &Path) -> Result<Vec<String>> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let Some(folder) = path.parent() else { return Ok(Vec::new()) };
    let doing = || format!("look for what a restore left in {}", folder.display());
    let mut said = Vec::new();
    let mut former = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.context(doing())?;
        let (name, found) = (entry.file_name(), entry.path());
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        if tag_of(&name, NEW).is_some() {
            let alive = File::open(&found).context(doing())?.try_lock().is_err();
            if !alive {
                for beside in BESIDE.map(|ending| with_ending(&found, ending)) {
                    fs::remove_file(beside).ok();
                }
                fs::remove_file(&found).context(doing())?;
                said.push(format!(
                    "removed {}, which a restore that was cut off left",
                    found.display()
                ));
            }
        } else if tag_of(&name, &before(&path)).is_some() {
            former.push(found);
        }
    }
    let cut_off = !said.is_empty();
    former.sort();
    let inode = |path: &Path| fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    match (inode(&path), former.last()) {
        // Where nothing was cut off, somebody else took it away.
        (None, Some(last)) if cut_off => {
            fs::rename(last, &path).context(doing())?;
            said.push(format!("a restore was cut off: {} is back in its place", path.display()));
        }
        (present, _) => {
            for second in former.iter().filter(|second| inode(second) == present) {
                fs::remove_file(second).context(doing())?;
                said.push(format!("a restore was cut off: {} was not replaced", path.display()));
            }
        }
    }
    Ok(said)
}
