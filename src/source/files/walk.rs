//! A walk through a folder, past what is excluded and what restores have left there. Knows no links: none
//! is followed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use globset::GlobSet;
use tokio_util::sync::CancellationToken;
use walkdir::WalkDir;

use super::staging::is_ours;
use crate::fault::{Context, Fault, Result};

/// Walks a folder without following links; calls back with each path that is not excluded.
pub(super) fn walk(
    folder: &Path,
    exclude: &GlobSet,
    cancel: &CancellationToken,
    mut each: impl FnMut(&Path, std::result::Result<walkdir::DirEntry, walkdir::Error>) -> Result<()>,
) -> Result<()> {
    let meta = folder.metadata().map_err(|error| {
        Fault::permanent(format!("read {}", folder.display())).cause(error).hint(
            "check `source.files` in the config, and that the folder is mounted and readable here",
        )
    })?;
    if !meta.is_dir() {
        return Err(Fault::permanent(format!("{} is not a folder", folder.display())));
    }
    // The folder itself may be a link; nothing below it is followed.
    let root = folder.canonicalize().context(format!("read {}", folder.display()))?;
    let mut walker = WalkDir::new(&root).follow_links(false).into_iter();
    while let Some(entry) = walker.next() {
        if cancel.is_cancelled() {
            return Err(Fault::cancelled("the walk was stopped"));
        }
        let path = match &entry {
            Ok(entry) => entry.path(),
            Err(error) => error.path().unwrap_or(&root),
        };
        let relative = path.strip_prefix(&root).unwrap_or(path).to_owned();
        // What a restore keeps, or has not put in place yet.
        let ours = relative.file_name().is_some_and(is_ours);
        if exclude.is_match(&relative) || ours {
            if entry.as_ref().is_ok_and(|entry| entry.file_type().is_dir()) {
                walker.skip_current_dir();
            }
            continue;
        }
        each(&relative, entry)?;
    }
    Ok(())
}

/// Bytes on disk: what tar will read of a sparse file.
pub(super) fn size(folder: &Path, exclude: &GlobSet, cancel: &CancellationToken) -> Result<u64> {
    let mut sum = 0;
    walk(folder, exclude, cancel, |_, entry| {
        let file = entry.ok().filter(|entry| entry.file_type().is_file());
        if let Some(meta) = file.and_then(|entry| entry.metadata().ok()) {
            sum += meta.len().min(meta.blocks() * 512);
        }
        Ok(())
    })?;
    Ok(sum)
}
