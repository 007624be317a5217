//! Folders held open: what is in them is named relative to them and no link is followed, so that
//! nobody who may write there leads us elsewhere. Knows names, inodes and attributes.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags, mkdirat, openat, statat};
use rustix::io::Errno;

use crate::fault::{Context, Result};

/// The folder that holds `path`, and its name there; no link is followed on the way.
pub(super) fn below(
    root: &OwnedFd,
    path: &Path,
    make: bool,
) -> io::Result<Option<(OwnedFd, PathBuf)>> {
    let mut folder = root.try_clone()?;
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    for part in path.parent().into_iter().flat_map(Path::components) {
        let Component::Normal(part) = part else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if make {
            match mkdirat(&folder, part, Mode::RWXU) {
                Err(Errno::EXIST) => {}
                done => done?,
            }
        }
        folder = match open_at(&folder, part) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
    }
    Ok(Some((folder, PathBuf::from(name))))
}

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

pub(super) fn open(path: &Path) -> Result<OwnedFd> {
    openat(rustix::fs::CWD, path, FOLDER, Mode::empty()).context(format!("open {}", path.display()))
}

pub(super) fn open_at(folder: &OwnedFd, name: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
    Ok(openat(folder, name.as_ref(), FOLDER, Mode::empty())?)
}

pub(super) fn inode(folder: &OwnedFd, name: impl AsRef<OsStr>) -> io::Result<Option<u64>> {
    match statat(folder, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat.st_ino)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

pub(super) fn names(folder: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder.as_fd())? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

pub(super) fn modified(path: &Path) -> io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

pub(super) fn set_time(path: &Path, modified: SystemTime) -> io::Result<()> {
    File::open(path)?.set_times(FileTimes::new().set_modified(modified))
}

/// Gives a folder the owner, mode and attributes of another.
pub(super) fn make_alike(like: &File, path: &Path) -> io::Result<()> {
    let meta = like.metadata()?;
    match chown(path, Some(meta.uid()), Some(meta.gid())) {
        // Only root may give away; then tar did not either.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::flistxattr(like, &mut names[..]).unwrap_or(0);
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(like, name, &mut value[..])?;
        // What tar could set there may be refused on another mount; no file is worse for it.
        rustix::fs::setxattr(path, name, &value[..length], XattrFlags::empty()).ok();
    }
    fs::set_permissions(path, meta.permissions())
}
