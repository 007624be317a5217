//! Tar streams loaded into folders: into a new one, or in the place of what is there; extracted aside,
//! and put in place by renames. Knows folders and tar's words; must not know where a stream comes from.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::fs::{Access, StatVfsMountFlags, statvfs};
use tokio_util::sync::CancellationToken;

use super::pick::Pick;
use super::staging::{self, Staging, is_ours};
use super::{stems, volumes};
use crate::durable;
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, SourceFacts};
use crate::source::child::{self, Pipes, Program};
use crate::source::{Exit, Finished, Intake, Session, Target, Wanted};

pub(super) struct FilesTarget {
    /// One, or where each artifact goes, by its stem.
    places: Vec<(String, Staging)>,
    /// A backup of several folders gets one folder each in the one that was named.
    parted: bool,
    /// The folder was named, and is new or empty.
    named: bool,
    pick: Option<Pick>,
    obstacles: Vec<String>,
    /// The folders that were filled, one for each archive.
    made: Vec<PathBuf>,
    cancel: CancellationToken,
}

impl FilesTarget {
    /// `folders` are those of the job, if there is one.
    pub(super) fn new(folders: &[PathBuf], wanted: &Wanted, session: &Session) -> Result<Self> {
        let mut places: Vec<(String, Staging)> = Vec::new();
        let named = wanted.path.is_some();
        match &wanted.path {
            Some(path) => {
                let path = std::path::absolute(path).context(format!("find {}", path.display()))?;
                if path.symlink_metadata().is_ok() {
                    check_empty(&path)?;
                }
                places.push((String::new(), Staging::of(&path, &wanted.tag, &[])?));
            }
            None => {
                for (stem, folder) in homes(folders, wanted)? {
                    let others: Vec<&Staging> = places.iter().map(|(_, place)| place).collect();
                    let place = Staging::of(&folder, &wanted.tag, &others)?;
                    places.push((stem, place));
                }
            }
        }
        let mut target = Self {
            parted: named && wanted.artifacts.len() > 1,
            places,
            named,
            pick: Pick::new(&wanted.paths)?,
            obstacles: Vec::new(),
            made: Vec::new(),
            cancel: session.cancel.clone(),
        };
        target.look(&wanted.artifacts)?;
        Ok(target)
    }

    /// What stands in the way.
    fn look(&mut self, artifacts: &[Artifact]) -> Result<()> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let bytes: u64 = artifacts.iter().map(|artifact| artifact.plain_bytes).sum();
        for (_, place) in &self.places {
            let folder = place.folder.display();
            let there = place.folder.ancestors().find(|path| path.exists());
            let there = there.unwrap_or(Path::new("/"));
            let disk = statvfs(there).context(format!("look at {}", there.display()))?;
            if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
                self.obstacles.push(format!(
                    "{folder} is mounted read-only here: mount it so that it can be written (without `:ro`), or restore with --to"
                ));
            } else if rustix::fs::access(there, Access::WRITE_OK).is_err() {
                self.obstacles.push(format!("this user may not write in {}", there.display()));
            }
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            // How much of it is wanted is not known before it is read.
            if self.pick.is_none() && free < bytes {
                self.obstacles.push(format!(
                    "{folder} has {} MB free, and what is loaded beside it takes {} MB",
                    free / 1_000_000,
                    bytes / 1_000_000
                ));
            }
            if place.exists && !self.named && self.pick.is_none() {
                let mounted = volumes::below(&mounts, &place.folder);
                self.obstacles.extend(mounted.iter().map(|point| {
                    format!(
                        "{} is mounted in {folder} and can't be replaced with it: restore with --to, or some of it with --path",
                        point.display()
                    )
                }));
            }
        }
        Ok(())
    }

    /// Where everything is until it is put in its place; of several folders the first.
    pub(super) fn staged(&self) -> PathBuf {
        self.places.first().map(|(_, place)| place.tree()).unwrap_or_default()
    }

    /// The folders that were filled, one for each archive.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        self.made.clone()
    }

    pub(super) fn folder_of(&self, artifact: &Artifact) -> Result<PathBuf> {
        let stem = artifact.stem();
        let place = match self.places.as_slice() {
            [(_, only)] => only,
            several => several
                .iter()
                .find(|(known, _)| known == stem)
                .map(|(_, place)| place)
                .ok_or_else(|| Fault::permanent(format!("{stem} has no place")))?,
        };
        let tree = place.tree();
        Ok(if self.parted { tree.join(stem) } else { tree })
    }

    fn put(&mut self) -> Result<Finished> {
        let paths: Vec<PathBuf> = self.places.iter().map(|(_, p)| p.path().to_owned()).collect();
        let pick = self.pick.clone();
        let is_named = |path: &Path| pick.as_ref().is_some_and(|pick| pick.is_named(path));
        for (n, (_, place)) in self.places.iter().enumerate() {
            let chosen: Option<&dyn Fn(&Path) -> bool> =
                if pick.is_some() && !self.named { Some(&is_named) } else { None };
            let peers: Vec<PathBuf> =
                paths.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, p)| p.clone()).collect();
            place.prepare(chosen, &peers)?;
        }
        self.places.iter().try_for_each(|(_, place)| place.put())?;
        let mut finished = Finished::default();
        for (_, place) in &self.places {
            finished.said.push(format!("{} is in place", place.folder.display()));
            if let Some(kept) = place.keep()? {
                finished.said.push(format!("what was there is kept in {}", kept.kept));
                finished.kept.push(kept);
            }
        }
        Ok(finished)
    }
}

/// Where each artifact belongs: in the job's own folders where they are those of the backup, or those of the
/// same names on another machine; else where its manifest says that it came from.
fn homes(folders: &[PathBuf], wanted: &Wanted) -> Result<Vec<(String, PathBuf)>> {
    let name = wanted.facts.as_ref().map_or("", |facts: &SourceFacts| facts.name.as_str());
    let joined: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    let said = said(name);
    let known: Vec<PathBuf> = match joined.join(", ") == name || are_namesakes(folders, &said) {
        true => folders.to_vec(),
        false => said,
    };
    let all: Vec<(String, PathBuf)> = stems(&known).into_iter().zip(known).collect();
    let unknown = || {
        Fault::usage(format!("the backup is of '{name}', and where that is here is not known"))
            .hint("name a new folder with --to")
    };
    match (all.as_slice(), wanted.artifacts.as_slice()) {
        ([(_, only)], [_]) => Ok(vec![(String::new(), only.clone())]),
        (_, artifacts) => artifacts
            .iter()
            .map(|artifact| {
                let home = all.iter().find(|(stem, _)| stem == artifact.stem());
                home.cloned().ok_or_else(unknown)
            })
            .collect(),
    }
}

/// The same last names, wherever the folders lie, and none of them twice.
fn are_namesakes(some: &[PathBuf], others: &[PathBuf]) -> bool {
    let names = |folders: &[PathBuf]| -> BTreeSet<_> {
        folders.iter().map(|folder| folder.file_name().map(ToOwned::to_owned)).collect()
    };
    let same = names(some) == names(others);
    same && some.len() == others.len() && some.len() == names(some).len()
}

/// The folders in a manifest's words; a name may hold a comma.
fn said(name: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for part in name.split(", ") {
        match folders.last_mut() {
            Some(last) if !part.starts_with('/') => {
                *last = PathBuf::from(format!("{}, {part}", last.display()));
            }
            _ => folders.push(PathBuf::from(part)),
        }
    }
    folders.retain(|folder| folder.is_absolute());
    folders
}

fn check_empty(path: &Path) -> Result<()> {
    let doing = || format!("read {}", path.display());
    for entry in fs::read_dir(path).context(doing())? {
        // What a restore that was killed has left is in nobody's way.
        if !is_ours(&entry.context(doing())?.file_name()) {
            return Err(Fault::usage(format!("{} is not empty", path.display()))
                .hint("name a folder that is new or empty, and move what you need from there"));
        }
    }
    Ok(())
}

#[async_trait]
impl Target for FilesTarget {
    fn plan(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (_, place) in &self.places {
            let folder = place.folder.display();
            lines.push(match (place.exists, self.named, &self.pick) {
                (false, ..) => format!("into the new folder {folder}"),
                (true, true, _) => format!("into the empty folder {folder}"),
                (true, false, None) => format!(
                    "into {folder}: all that is in it now is replaced, entry by entry, and kept beside it"
                ),
                (true, false, Some(_)) => format!(
                    "into {folder}: what was chosen replaces what is there now, which is kept; the rest stays"
                ),
            });
        }
        lines
    }

    fn name(&self) -> String {
        let names = self.places.iter().map(|(_, place)| place.folder.display().to_string());
        names.collect::<Vec<_>>().join(" ")
    }

    fn obstacles(&self) -> Vec<String> {
        self.obstacles.clone()
    }

    async fn begin(&mut self) -> Result<()> {
        let folders: Vec<PathBuf> = self.places.iter().map(|(_, p)| p.folder.clone()).collect();
        let left = staging::clear_leftovers(&folders)?;
        left.said.iter().for_each(|line| tracing::warn!("{line}"));
        self.places.iter_mut().try_for_each(|(_, place)| place.begin())
    }

    async fn load(&mut self, artifact: &Artifact) -> Result<Intake> {
        let folder = self.folder_of(artifact)?;
        if self.parted {
            // Into the folder of another archive it would be written through the links there.
            if folder.symlink_metadata().is_ok() {
                let what =
                    format!("two archives of this backup are for one folder: {}", artifact.name);
                return Err(Fault::permanent(what).hint("respaldo makes no such backup: who did?"));
            }
            durable::create_folder(&folder).context(format!("create {}", folder.display()))?;
        }
        self.made.push(folder.clone());
        // GNU tar refuses `..`, strips a leading `/`, and puts links in place last, so that no
        // member is written through one; the folder is fresh, so none is there from before.
        let program = Program::new("tar")
            .args(["--extract", "--file=-", "--preserve-permissions", "--numeric-owner"])
            .args(["--xattrs", "--acls", "--delay-directory-restore"])
            .arg(format!("--directory={}", folder.display()));
        let child = child::spawn(program, Pipes::Stdin, self.cancel.clone()).await?;
        let stdin = child.stdin.ok_or_else(|| Fault::permanent("tar has no input"))?;
        let pick = self.pick.clone();
        let exit = Exit::new(async move {
            let ended = child::ended(child.end).await?;
            pick.map_or(Ok(()), |pick| pick.check())?;
            ended.success()
        });
        let writer = match &self.pick {
            Some(pick) => Box::new(pick.sieve(Box::new(stdin))),
            None => Box::new(stdin) as Box<dyn std::io::Write + Send>,
        };
        Ok(Intake { writer, exit })
    }

    async fn complete(&mut self) -> Result<()> {
        match &self.pick {
            Some(pick) if pick.matched() == 0 => Err(Fault::usage(
                "nothing in the backup is called as --path says",
            )
            .hint("paths are relative to the folder that was backed up: albums/2024, '**/*.jpg'")),
            _ => Ok(()),
        }
    }

    async fn finish(&mut self) -> Result<Finished> {
        let put = self.put();
        if put.is_err() {
            self.places.iter().rev().for_each(|(_, place)| place.take_back());
        }
        put
    }

    async fn discard(&mut self) {
        self.places.iter_mut().for_each(|(_, place)| place.discard());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_namesakes_where_each_name_means_one() {
        let folders = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let are = |some: &[&str], others: &[&str]| are_namesakes(&folders(some), &folders(others));
        assert!(are(&["/media"], &["/srv/app/media"]));
        assert!(are(&["/media", "/etc/app"], &["/srv/app", "/srv/media"]));
        assert!(!are(&["/media"], &["/srv/files"]));
        assert!(!are(&["/media", "/etc/app"], &["/srv/media"]));
        // Which one is which can't be told.
        assert!(!are(&["/a/media", "/b/media"], &["/c/media", "/d/media"]));
    }
}
