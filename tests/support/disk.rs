//! A small file system that can be filled. Needs root.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::guard::Guard;
use super::{temp_folder, tool};

/// A mounted file system, unmounted when dropped, or when the test process ends.
pub struct Disk {
    folder: PathBuf,
    _guard: Guard,
}

impl Disk {
    /// In memory.
    pub fn new(mib: u32) -> Self {
        let folder = temp_folder("disk").keep();
        let guard = Guard::at_end(&folder, &["umount".as_ref(), "-l".as_ref(), folder.as_ref()]);
        let size = format!("size={mib}M,mode=0755");
        tool(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "respaldo"]).arg(&folder));
        Self { folder, _guard: guard }
    }

    /// ext4 in a file, as on a small disk; nothing is kept for root.
    pub fn on_a_loop_device(mib: u32) -> Self {
        let outer = temp_folder("loop").keep();
        let (image, folder) = (outer.join("image"), outer.join("disk"));
        // The device goes with the mount.
        let guard = Guard::at_end(&outer, &["umount".as_ref(), "-l".as_ref(), folder.as_ref()]);
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(u64::from(mib) << 20).unwrap();
        std::fs::create_dir(&folder).unwrap();
        tool(Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-m", "0", "-F"]).arg(&image));
        tool(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&folder));
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
