//! Who is alive: a lock on a file, held by the kernel for as long as its process lives. Never a pid,
//! for two containers do not share them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::durable;

/// Held until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File);

impl Lock {
    /// Takes the lock if nobody has it.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        Self::hold(path, File::try_lock)
    }

    /// Waits for the lock, on this thread.
    pub fn take(path: &Path) -> io::Result<Self> {
        let wait = |file: &File| file.lock().map_err(TryLockError::Error);
        Self::hold(path, wait)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Shares the lock with others who do; `None` while somebody has it alone.
    pub fn try_share(path: &Path) -> io::Result<Option<Self>> {
        Self::hold(path, File::try_lock_shared)
    }

    fn hold(path: &Path, lock: fn(&File) -> Result<(), TryLockError>) -> io::Result<Option<Self>> {
        if let Some(parent) = path.parent() {
            durable::create_folder(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        match lock(&file) {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks/a");
        let held = Lock::try_take(&path).unwrap();
        assert!(held.is_some());
        assert!(Lock::try_take(&path).unwrap().is_none());
        drop(held);
        let shared = [Lock::try_share(&path).unwrap(), Lock::try_share(&path).unwrap()];
        assert!(shared.iter().all(Option::is_some));
        assert!(Lock::try_take(&path).unwrap().is_none(), "taken from those who share it");
        drop(shared);
        assert!(Lock::try_take(&path).unwrap().is_some());
    }
}
