//! A data folder made of a base backup, from which a stock server recovers by itself. Knows PostgreSQL's
//! files and settings; must not know where the backup or its log come from.
//!
//! All of the log lies in `pg_wal` before a server starts: there is nothing that it would have to ask
//! for, so nothing that could fail half-way. Until all is there the folder holds [`UNFINISHED`] and no
//! `PG_VERSION`, without which no server starts on it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;
use walkdir::WalkDir;

use super::settings;
use crate::durable::{self, Existing};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, Content, PhysicalFacts};
use crate::source::child::{self, Pipes, Program};
use crate::source::unpacked::unpacked;
use crate::source::{Exit, Intake};
use crate::wal::Moment;

/// Lies in a folder that is not complete: a second attempt may clear it.
pub const UNFINISHED: &str = "respaldo.unfinished";
/// What a server looks for first; it gets its name last.
pub(super) const VERSION: &str = "PG_VERSION";
pub(super) const HELD_BACK: &str = "respaldo.PG_VERSION";
pub(super) const TABLESPACES: &str = "pg_tblspc";

/// A folder that is being made.
#[derive(Debug, Clone)]
pub struct DataFolder {
    pub path: PathBuf,
    pub spaces: BTreeMap<u32, Space>,
    /// Whom it is given to, where it does not keep the owner that it had (as root) or get ours.
    pub owner: Option<(u32, u32)>,
    pub cancel: CancellationToken,
}

/// Where a tablespace goes.
#[derive(Debug, Clone)]
pub struct Space {
    pub folder: PathBuf,
    /// What the server calls that folder.
    pub called: PathBuf,
}

impl DataFolder {
    /// Refuses a folder that somebody uses, and a tablespace without a place; changes nothing.
    pub fn check(&self, facts: &PhysicalFacts) -> Result<()> {
        for space in &facts.tablespaces {
            if !self.spaces.contains_key(&space.oid) {
                let (oid, location) = (space.oid, &space.location);
                return Err(Fault::usage(format!(
                    "the tablespace {oid} lay in {location}, and where it is to be is not said"
                ))
                .hint(format!("--tablespace {oid}=DIR, a new or empty folder")));
            }
        }
        let known = |oid: &u32| facts.tablespaces.iter().any(|space| space.oid == *oid);
        if let Some(oid) = self.spaces.keys().find(|oid| !known(oid)) {
            return Err(Fault::usage(format!("the backup has no tablespace {oid}")));
        }
        self.folders().try_for_each(|folder| {
            let entries = match fs::read_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                entries => entries.context(format!("look at {}", folder.display()))?,
            };
            // Whoever is killed while the marker is written leaves a draft of it.
            let is_draft = |entry: &io::Result<fs::DirEntry>| {
                let name = entry.as_ref().map(fs::DirEntry::file_name).unwrap_or_default();
                name.to_string_lossy()
                    .strip_prefix('.')
                    .is_some_and(|name| name.starts_with(UNFINISHED))
            };
            let is_empty = entries.into_iter().all(|entry| is_draft(&entry));
            match is_empty || folder.join(UNFINISHED).exists() {
                true => Ok(()),
                false => Err(Fault::usage(format!("{} is not empty", folder.display()))
                    .hint("name a folder that is new or empty: nothing is ever overwritten")),
            }
        })
    }

    fn folders(&self) -> impl Iterator<Item = &Path> {
        let spaces = self.spaces.values().map(|space| space.folder.as_path());
        std::iter::once(self.path.as_path()).chain(spaces)
    }

    /// How many bytes are free where it will be.
    pub fn free_bytes(&self) -> Option<u64> {
        let there = self.path.ancestors().find(|folder| folder.is_dir())?;
        let disk = rustix::fs::statvfs(there).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Makes the folders, and clears what an attempt that did not come to its end has left there.
    pub fn begin(&self) -> Result<()> {
        for folder in self.folders() {
            let doing = format!("prepare {}", folder.display());
            durable::create_folder(folder).context(doing.clone())?;
            let marker = folder.join(UNFINISHED);
            let text = "respaldo is filling this folder, or was stopped while it did: no server can use it yet.\n";
            durable::write(&marker, text.as_bytes(), Existing::Replace).context(doing.clone())?;
            for entry in fs::read_dir(folder).context(doing.clone())? {
                let entry = entry.context(doing.clone())?;
                let path = entry.path();
                let is_folder = entry.file_type().context(doing.clone())?.is_dir();
                match is_folder {
                    _ if path == marker => Ok(()),
                    true => fs::remove_dir_all(path),
                    false => fs::remove_file(path),
                }
                .context(doing.clone())?;
            }
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).context(doing)?;
        }
        Ok(())
    }

    /// Takes one artifact of the base backup in.
    pub async fn load(&self, artifact: &Artifact) -> Result<Intake> {
        let space = match artifact.content {
            Content::Tablespace(oid) => self.spaces.get(&oid).map(|space| space.folder.as_path()),
            _ => None,
        };
        unpack(artifact, &self.path, space, HELD_BACK, &self.cancel).await
    }

    /// All of the base backup is there: refuses what no server would have sent, and leads tablespaces to
    /// where they are now.
    pub fn settle(&self) -> Result<()> {
        let is_whole = self.path.join(HELD_BACK).is_file() && self.path.join("pg_wal").is_dir();
        if !is_whole {
            return Err(Fault::permanent("the base backup holds no server's data folder"));
        }
        self.folders().try_for_each(|folder| look_through(folder, &self.path))?;
        if self.spaces.is_empty() {
            return Ok(());
        }
        // The server makes the links by this list.
        let escaped = |path: &Path| path.display().to_string().replace('\\', "\\\\");
        let lines = self.spaces.iter().map(|(oid, to)| format!("{oid} {}\n", escaped(&to.called)));
        self.write("tablespace_map", &lines.collect::<String>())
    }

    /// A new file in `pg_wal`.
    pub fn create_wal(&self, name: &str) -> Result<File> {
        create(&self.wal_file(name))
    }

    pub fn wal_file(&self, name: &str) -> PathBuf {
        self.path.join("pg_wal").join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        durable::write(&self.path.join(name), text.as_bytes(), Existing::Replace)
            .context(format!("write {name}"))
    }

    /// All of the log is there: writes the settings, and makes it a folder that a server starts on.
    /// `timeline` is the one that is followed, where it is not the base backup's. Says what a person
    /// should know.
    pub fn finish(
        &self,
        facts: &PhysicalFacts,
        moment: &Moment,
        timeline: Option<u32>,
    ) -> Result<Vec<String>> {
        let mut said = Vec::new();
        for name in ["postgresql.conf", "postgresql.auto.conf"] {
            let path = self.path.join(name);
            if path.is_file() {
                let text = fs::read(&path).context(format!("read {name}"))?;
                self.write(name, &settings::without_recovery(&String::from_utf8_lossy(&text)))?;
            }
        }
        if !self.path.join("postgresql.conf").exists() {
            self.write("postgresql.conf", settings::CONF)?;
            said.push(
                "the server kept its settings outside of its data folder: postgresql.conf has none but what recovery needs"
                    .to_owned(),
            );
        }
        for (name, text) in [("pg_hba.conf", settings::HBA), ("pg_ident.conf", settings::IDENT)] {
            if !self.path.join(name).exists() {
                self.write(name, text)?;
                said.push(format!("{name} was kept elsewhere too: the new one lets nobody in but this machine's own users"));
            }
        }
        let auto = self.path.join("postgresql.auto.conf");
        let mut text = match fs::read_to_string(&auto) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.context("read postgresql.auto.conf")?,
        };
        text.push_str(&settings::recovery(facts, moment, timeline)?);
        self.write("postgresql.auto.conf", &text)?;
        self.write("recovery.signal", "")?;
        self.give_away()?;
        self.sync()?;
        let doing = "complete the data folder";
        let version = self.path.join(VERSION);
        fs::rename(self.path.join(HELD_BACK), &version).context(doing)?;
        durable::sync_parent(&version).context(doing)?;
        for folder in self.folders() {
            fs::remove_file(folder.join(UNFINISHED)).context(doing)?;
            File::open(folder).and_then(|folder| folder.sync_all()).context(doing)?;
        }
        Ok(said)
    }

    /// As root: what we wrote belongs to whom the rest belongs to, or all of it to whom was named.
    fn give_away(&self) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let meta =
            self.path.join(HELD_BACK).symlink_metadata().context("look at the data folder")?;
        let (user, group) = self.owner.unwrap_or((meta.uid(), meta.gid()));
        for folder in self.folders() {
            for entry in WalkDir::new(folder) {
                let entry = entry.context("give the data folder away")?;
                lchown(entry.path(), Some(user), Some(group))
                    .context("give the data folder away")?;
            }
        }
        Ok(())
    }

    /// Whom its files belong to now.
    pub fn belongs_to(&self) -> Option<(u32, u32)> {
        let meta = self.path.join(VERSION).symlink_metadata().ok()?;
        Some((meta.uid(), meta.gid()))
    }

    fn sync(&self) -> Result<()> {
        for folder in self.folders() {
            let open = File::open(folder).context("sync the data folder")?;
            rustix::fs::syncfs(open).context("sync the data folder")?;
        }
        Ok(())
    }
}

/// Unpacks an artifact of a base backup into `folder`, or into `space` where it is a tablespace's;
/// `PG_VERSION` becomes `version`.
pub(super) async fn unpack(
    artifact: &Artifact,
    folder: &Path,
    space: Option<&Path>,
    version: &str,
    cancel: &CancellationToken,
) -> Result<Intake> {
    let into = match &artifact.content {
        Content::Whole => folder,
        Content::Tablespace(oid) => {
            space.ok_or_else(|| Fault::permanent(format!("the tablespace {oid} has no place")))?
        }
        Content::BackupManifest => {
            return create(&folder.join("backup_manifest")).map(Intake::file);
        }
        _ => {
            let what = format!("{} is no part of a base backup", artifact.name);
            return Err(Fault::permanent(what));
        }
    };
    // GNU tar refuses `..`, strips a leading `/`, and puts links in place last.
    let program = Program::new("tar")
        .args(["--extract", "--file=-", "--preserve-permissions", "--numeric-owner"])
        .arg("--delay-directory-restore")
        .arg(format!("--transform=s,^{VERSION}$,{version},"))
        .arg(format!("--directory={}", into.display()));
    let child = child::spawn(program, Pipes::Stdin, cancel.clone()).await?;
    let stdin = child.stdin.ok_or_else(|| Fault::permanent("tar has no input"))?;
    let exit = Exit::new(async move { child::ended(child.end).await?.success() });
    Ok(Intake { writer: unpacked(artifact, stdin)?, exit })
}

/// Refuses what no server would have sent to a data folder or one of its tablespaces.
pub(super) fn look_through(folder: &Path, data: &Path) -> Result<()> {
    let links = data.join(TABLESPACES);
    for entry in WalkDir::new(folder) {
        let entry = entry.context("look through the base backup")?;
        let kind = entry.file_type();
        let strange = !kind.is_file() && !kind.is_dir();
        if strange && entry.path().parent() == Some(&links) && kind.is_symlink() {
            // It leads to where the tablespace lay, and may lie still.
            fs::remove_file(entry.path()).context("remove a link to a tablespace")?;
        } else if strange {
            let what = entry.path().display();
            return Err(Fault::permanent(format!(
                "the base backup holds {what}, which is no file"
            ))
            .hint("PostgreSQL sends no such thing: who made this backup?"));
        }
    }
    Ok(())
}

fn create(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let made = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    made.context(format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lsn, SegmentSize};

    fn facts() -> PhysicalFacts {
        PhysicalFacts {
            timeline: 1,
            start_lsn: Lsn(1),
            stop_lsn: Lsn(2),
            segment_bytes: SegmentSize::USUAL,
            since: None,
            checksums: None,
            tablespaces: vec![],
            settings: vec![],
        }
    }

    /// As after the base backup of a server of Debian, which keeps its settings in /etc.
    fn begun(place: &Path) -> DataFolder {
        let (spaces, cancel) = Default::default();
        let folder = DataFolder { path: place.join("data"), spaces, owner: None, cancel };
        folder.check(&facts()).unwrap();
        folder.begin().unwrap();
        fs::create_dir(folder.path.join("pg_wal")).unwrap();
        fs::write(folder.path.join(HELD_BACK), "15\n").unwrap();
        fs::write(folder.path.join("postgresql.auto.conf"), "recovery_target_name = 'old'\n")
            .unwrap();
        folder.settle().unwrap();
        folder
    }

    #[test]
    fn settings_that_lay_elsewhere_are_written_and_told_of() {
        let place = tempfile::tempdir().unwrap();
        let folder = begun(place.path());
        let said = folder.finish(&facts(), &Moment::Latest, None).unwrap().join("\n");
        assert!(said.contains("postgresql.conf") && said.contains("pg_hba.conf"), "{said}");
        let read = |name: &str| fs::read_to_string(folder.path.join(name)).unwrap();
        assert!(read("pg_hba.conf").contains("local all all peer"));
        assert!(read("postgresql.conf").contains("Written by respaldo"));
        let auto = read("postgresql.auto.conf");
        assert!(auto.starts_with("# recovery_target_name = 'old'\n"), "{auto}");
        assert!(auto.contains("\nrestore_command = 'false'\n"), "{auto}");
        assert_eq!(read(VERSION), "15\n");
        assert!(
            !folder.path.join(UNFINISHED).exists() && folder.path.join("recovery.signal").exists()
        );
        assert!(folder.check(&facts()).is_err(), "what is complete is nobody's to overwrite");
    }

    #[test]
    fn what_is_half_made_is_begun_anew_and_what_is_not_ours_is_left() {
        let place = tempfile::tempdir().unwrap();
        let folder = begun(place.path());
        folder.check(&facts()).unwrap();
        folder.begin().unwrap();
        let left: Vec<_> =
            fs::read_dir(&folder.path).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [UNFINISHED]);
        fs::rename(folder.path.join(UNFINISHED), folder.path.join("mine")).unwrap();
        assert!(folder.check(&facts()).is_err());
    }
}
