//! Files that are whole or not there: a temporary name, fsync, rename, fsync of the folder. Knows
//! file systems; must not know what the bytes mean.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Whether a file that is already there may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Replace,
    Refuse,
}

/// A file under a temporary name (`.name.tmp`, mode 0600) that appears whole by
/// [`publish`](Self::publish), or not at all: dropped unpublished, it is removed.
pub struct Draft {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    published: bool,
}

impl Draft {
    /// Starts `target`; a leftover draft of the same name is overwritten.
    pub fn create(target: &Path) -> io::Result<Self> {
        Self::create_as(target, "")
    }

    /// As [`create`](Self::create), where another process may be writing the same target: each has a
    /// draft of its own.
    pub fn create_alone(target: &Path) -> io::Result<Self> {
        Self::create_as(target, &format!(".{}", uuid::Uuid::new_v4().simple()))
    }

    fn create_as(target: &Path, mark: &str) -> io::Result<Self> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(mark);
        hidden.push(".tmp");
        let temporary = target.with_file_name(hidden);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        Ok(Self { file, temporary, target: target.to_owned(), published: false })
    }

    /// As [`create`](Self::create), under a temporary name that its maker chose and nobody has.
    pub fn create_at(temporary: &Path, target: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(temporary)?;
        Ok(Self {
            file,
            temporary: temporary.to_owned(),
            target: target.to_owned(),
            published: false,
        })
    }

    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// The temporary name.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// A second handle on the same bytes, for whoever reads the file as it grows.
    pub fn reader(&self) -> io::Result<File> {
        File::open(&self.temporary)
    }

    /// Makes the file durable and gives it its name.
    pub fn publish(mut self, existing: Existing) -> io::Result<()> {
        self.file.sync_all()?;
        match existing {
            Existing::Replace => {
                let none = RenameFlags::empty();
                renameat_with(CWD, &self.temporary, CWD, &self.target, none)?;
            }
            Existing::Refuse => self.publish_new()?,
        }
        self.published = true;
        sync_parent(&self.target)
    }

    /// Refuses a target that is there.
    fn publish_new(&self) -> io::Result<()> {
        const NO_LINKS: [Errno; 3] = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS];
        match renameat_with(CWD, &self.temporary, CWD, &self.target, RenameFlags::NOREPLACE) {
            // NFS and some FUSE file systems know no flags: a hard link refuses just as well.
            Err(Errno::INVAL | Errno::NOSYS) => {}
            renamed => return Ok(renamed?),
        }
        match fs::hard_link(&self.temporary, &self.target) {
            Ok(()) => fs::remove_file(&self.temporary),
            // Some know no links either, as what rclone mounts: there is nothing left but to look first.
            Err(error) if Errno::from_io_error(&error).is_some_and(|e| NO_LINKS.contains(&e)) => {
                if self.target.symlink_metadata().is_ok() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                fs::rename(&self.temporary, &self.target)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // Nothing more can be done about it here; the next start cleans what is left.
            fs::remove_file(&self.temporary).ok();
        }
    }
}

/// Writes a whole small file durably.
pub fn write(target: &Path, bytes: &[u8], existing: Existing) -> io::Result<()> {
    let mut draft = Draft::create(target)?;
    draft.file().write_all(bytes)?;
    draft.publish(existing)
}

/// Makes the entries of the folder that holds `path` durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Makes a folder and its parents, private to the owner (mode 0700), durably.
pub fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_folder(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        let mut draft = Draft::create(&target).unwrap();
        draft.file().write_all(b"half").unwrap();
        drop(draft);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        write(&target, b"whole", Existing::Refuse).unwrap();
        let refused = write(&target, b"other", Existing::Refuse).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        write(&target, b"other", Existing::Replace).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"other");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
