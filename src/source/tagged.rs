//! Names of what a restore has not put in place yet and of what it keeps: they end with the backup's
//! id, so that nobody else's are taken for ours. Knows names; must not know what has them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::model::BackupId;

/// What waits to be put in place: `.respaldo-new-20251124t020000z`.
pub(super) const NEW: &str = ".respaldo-new-";
/// What was replaced.
pub(super) const BEFORE: &str = ".respaldo-before-";

/// The tag of a name that begins with `start`, without a number behind it.
pub(super) fn tag_of<'a>(name: &'a OsStr, start: &str) -> Option<&'a str> {
    let tag = name.to_str()?.strip_prefix(start)?.split('_').next()?;
    tag.to_uppercase().parse::<BackupId>().is_ok().then_some(tag)
}

/// The first name that is free in a folder, and not among `taken`.
pub(super) fn free(folder: &Path, start: &str, tag: &str, taken: &[PathBuf]) -> PathBuf {
    let mut path = folder.join(format!("{start}{tag}"));
    let mut number = 2;
    while path.symlink_metadata().is_ok() || taken.contains(&path) {
        path = folder.join(format!("{start}{tag}_{number}"));
        number += 1;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_own_are_ours() {
        let tag = |name: &'static str, start| tag_of(OsStr::new(name), start);
        assert_eq!(tag(".respaldo-new-20251124t020000z", NEW), Some("20251124t020000z"));
        assert_eq!(
            tag(".respaldo-before-20251124t020000z-2_3", BEFORE),
            Some("20251124t020000z-2")
        );
        assert_eq!(tag("a.before-20251124t020000z", "a.before-"), Some("20251124t020000z"));
        for other in [".respaldo-new-", ".respaldo-new-mine", "respaldo-new-20251124t020000z"] {
            assert_eq!(tag(other, NEW), None, "{other}");
        }
    }
}
