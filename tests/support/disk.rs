//! A small file system that can be filled. Needs root.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::guard::Guard;
use super::{temp_folder, tool};

/// A mounted tmpfs, unmounted when dropped.
pub struct Disk {
    folder: PathBuf,
    _guard: Guard,
}

impl Disk {
    pub fn new(mib: u32) -> Self {
        let folder = temp_folder("disk").keep();
        let guard = Guard::at_end(&folder, &["umount".as_ref(), "-l".as_ref(), folder.as_ref()]);
        let size = format!("size={mib}M,mode=0755");
        tool(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "respaldo"]).arg(&folder));
        Self { folder, _guard: guard }
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }

    pub fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.folder).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Writes the file `ballast` until only `leave` bytes are free; removing it makes room again.
    pub fn fill(&self, leave: u64) -> PathBuf {
        let ballast = self.folder.join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        let mut left = self.free_bytes().saturating_sub(leave);
        let block = vec![0_u8; 64 << 10];
        while left > 0 {
            let take = left.min(block.len() as u64);
            file.write_all(&block[..usize::try_from(take).unwrap()]).unwrap();
            left -= take;
        }
        ballast
    }
}
