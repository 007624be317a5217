//! A folder as a list of lines that says everything of every entry: two trees are alike when their
//! lists are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};

/// One line for each entry, the root too (as `.`): kind, mode, owner, time, content, links to it,
/// attributes and ACLs. Sockets are left out, for no archive holds them.
pub fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    // The first name of each file that has several.
    let mut names: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        let entry = entry.unwrap();
        let (path, meta) = (entry.path(), entry.path().symlink_metadata().unwrap());
        let kind = meta.file_type();
        if kind.is_socket() {
            continue;
        }
        let name = path.strip_prefix(root).unwrap().to_owned();
        let first = names.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone());
        let what = if kind.is_dir() {
            "folder".to_owned()
        } else if kind.is_symlink() {
            format!(
                "link to {}",
                fs::read_link(path).unwrap().as_os_str().as_bytes().escape_ascii()
            )
        } else if kind.is_file() {
            let digest = respaldo::pipeline::sha256(&fs::read(path).unwrap());
            format!("file {} {digest} {} names, {:?}", meta.len(), meta.nlink(), first)
        } else {
            format!("other {:o} {}", meta.mode(), meta.rdev())
        };
        lines.push(format!(
            "{} {what} mode {:o} owner {}:{} time {}.{:09} {}",
            name.as_os_str().as_bytes().escape_ascii(),
            meta.mode() & 0o7777,
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            attributes(path).join(" ")
        ));
    }
    lines
}

/// `name=value` in hexadecimal, ACLs among them.
fn attributes(path: &Path) -> Vec<String> {
    let mut buffer = vec![0_u8; 64 << 10];
    let Ok(length) = llistxattr(path, &mut buffer[..]) else { return Vec::new() };
    let names = buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut found: Vec<String> = names
        .map(|name| {
            let mut value = vec![0_u8; 64 << 10];
            let length = lgetxattr(path, name, &mut value[..]).unwrap();
            format!("{}={}", name.escape_ascii(), hex::encode(&value[..length]))
        })
        .collect();
    found.sort();
    found
}

/// Panics with the lines that differ.
#[track_caller]
pub fn assert_alike(one: &Path, other: &Path) {
    let (one, other) = (listing(one), listing(other));
    let missing: Vec<&String> = one.iter().filter(|line| !other.contains(line)).collect();
    let added: Vec<&String> = other.iter().filter(|line| !one.contains(line)).collect();
    assert!(missing.is_empty() && added.is_empty(), "missing: {missing:#?}\nadded: {added:#?}");
}

/// Two names in the order in which a folder lists them, as tar meets them; each file system has its own.
pub fn as_listed<'a>(folder: &Path, [one, other]: [&'a str; 2]) -> [&'a str; 2] {
    let mut names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let first = names.find(|name| name == one || name == other).unwrap();
    if first == one { [one, other] } else { [other, one] }
}
