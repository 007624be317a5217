//! Volumes that are mounted here. Knows the kernel's list of mounts; must not know what is in them.

use std::path::{Path, PathBuf};

/// Of the kernel's own making, or of the container's.
const NOT_DATA: [&str; 6] = ["/proc", "/sys", "/dev", "/run", "/etc", "/tmp"];
/// File systems that keep nothing.
const NOT_KEPT: [&str; 9] =
    ["proc", "sysfs", "tmpfs", "devtmpfs", "devpts", "mqueue", "cgroup2", "overlay", "squashfs"];

/// What is mounted below a folder, by the same text: it can't be renamed.
pub(super) fn below(mountinfo: &str, folder: &Path) -> Vec<PathBuf> {
    let point = |line: &str| Some(PathBuf::from(line.split(' ').nth(4)?.replace("\\040", " ")));
    let points = mountinfo.lines().filter_map(point);
    points.filter(|point| point != folder && point.starts_with(folder)).collect()
}

/// Mount points out of the text of `/proc/self/mountinfo` (see proc(5)).
pub(super) fn mounted(mountinfo: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next()?;
        // Spaces are written as octal numbers.
        let point = before.split(' ').nth(4)?.replace("\\040", " ");
        let point = PathBuf::from(point);
        let is_data = point != Path::new("/")
            && !NOT_DATA.iter().any(|folder| point.starts_with(folder))
            && !NOT_KEPT.contains(&kind);
        is_data.then_some(point)
    };
    mountinfo.lines().filter_map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_keeps_data_is_a_volume() {
        let text = "\
            22 1 0:21 / / rw - overlay overlay rw\n\
            23 22 0:22 / /proc rw - proc proc rw\n\
            24 22 8:1 /var/lib/docker/volumes/m/_data /media rw,relatime - ext4 /dev/sda1 rw\n\
            25 22 8:1 /x /srv/up\\040loads rw - ext4 /dev/sda1 rw\n\
            26 22 8:1 /hosts /etc/hosts rw - ext4 /dev/sda1 rw\n\
            27 22 0:5 / /cache rw - tmpfs tmpfs rw\nnonsense\n";
        assert_eq!(mounted(text), [PathBuf::from("/media"), PathBuf::from("/srv/up loads")]);
    }
}
