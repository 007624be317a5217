//! Whether a job's newest backup is kept as the rule 3-2-1 asks: three copies, the original among
//! them, on two kinds of media, one of them off-site. Pure: where the copies lie in, a verdict out.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::model::BackupId;

/// What keeps a copy; two of one kind may be lost together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    Folder,
    ObjectStore,
    Sftp,
}

impl Medium {
    /// By a destination's URL.
    pub fn of(place: &str) -> Self {
        match place.split("://").next() {
            Some("file") => Self::Folder,
            Some("sftp") => Self::Sftp,
            _ => Self::ObjectStore,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::ObjectStore => "object store",
            Self::Sftp => "sftp",
        }
    }
}

/// A committed copy.
#[derive(Debug, Clone)]
pub struct Held {
    pub destination: String,
    pub medium: Medium,
    pub off_site: bool,
}

/// How a job's newest full backup is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copies {
    pub met: bool,
    /// Of which backup; without one there is only the original.
    pub backup: Option<BackupId>,
    /// The original is one of them.
    pub copies: usize,
    pub media: Vec<Medium>,
    /// The destinations that are elsewhere.
    pub off_site: Vec<String>,
    /// What is missing, as a sentence; `None` when it is met.
    pub missing: Option<String>,
}

/// Judges the copies of `backup`, the newest.
pub fn judge(backup: Option<BackupId>, held: &[Held]) -> Copies {
    let media: BTreeSet<Medium> = held.iter().map(|held| held.medium).collect();
    let media: Vec<Medium> = media.into_iter().collect();
    let off_site: Vec<String> =
        held.iter().filter(|held| held.off_site).map(|held| held.destination.clone()).collect();
    let copies = held.len() + 1;
    let mut missing = Vec::new();
    if copies < 3 {
        let backups = if held.is_empty() { "no backup" } else { "one backup" };
        missing.push(format!("{copies} of 3 copies (the original and {backups})"));
    }
    if media.len() < 2 {
        missing.push(format!("{} of 2 kinds of media", media.len()));
    }
    if off_site.is_empty() {
        missing.push("none of them off-site".to_owned());
    }
    let met = missing.is_empty();
    let missing = (!met).then(|| format!("3-2-1 is not met: {}", missing.join(", ")));
    Copies { met, backup, copies, media, off_site, missing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(places: &[(&str, bool)]) -> Copies {
        let one = |(place, off_site): &(&str, bool)| Held {
            destination: (*place).to_owned(),
            medium: Medium::of(place),
            off_site: *off_site,
        };
        judge(None, &places.iter().map(one).collect::<Vec<_>>())
    }

    #[test]
    fn a_folder_and_a_store_elsewhere_are_enough() {
        let copies = held(&[("file:///backups", false), ("s3://bucket/x", true)]);
        assert!(copies.met);
        assert_eq!((copies.copies, copies.media.len(), copies.off_site.len()), (3, 2, 1));
        assert_eq!(copies.missing, None);
    }

    #[test]
    fn what_is_missing_is_said() {
        for (places, said) in [
            (&[][..], "1 of 3 copies (the original and no backup), 0 of 2 kinds"),
            (&[("file:///a", false)], "2 of 3 copies (the original and one backup), 1 of"),
            (&[("file:///a", false), ("file:///b", true)], "not met: 1 of 2 kinds of media"),
            (&[("file:///a", false), ("sftp://b/x", false)], "not met: none of them off-site"),
            (&[("s3://a", true), ("az://b", true)], "not met: 1 of 2 kinds of media"),
        ] {
            let missing = held(places).missing.unwrap();
            assert!(missing.contains(said), "{missing}");
        }
    }
}
