//! A tar stream loaded into a folder that is new or empty: extracted aside, then moved into place.
//! Knows folders; must not know where the stream comes from.

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::fs::XattrFlags;
use tokio_util::sync::CancellationToken;

use crate::durable;
use crate::fault::{Context, Fault, Result};
use crate::model::Artifact;
use crate::source::child::{self, Pipes, Program};
use crate::source::{Exit, Finished, Intake, Session, Target, Wanted};

pub(super) struct FilesTarget {
    path: PathBuf,
    staging: PathBuf,
    /// Entries move up into a folder that exists: a mount point can't be renamed.
    exists: bool,
    /// A backup of several folders gets one folder each.
    several: bool,
    cancel: CancellationToken,
}

impl FilesTarget {
    pub(super) fn new(wanted: &Wanted, session: &Session) -> Result<Self> {
        let path = wanted.path.clone().ok_or_else(|| {
            Fault::usage("a restore of files needs --to PATH")
                .hint("name a folder that is new or empty")
        })?;
        let path = std::path::absolute(&path).context(format!("find {}", path.display()))?;
        let hidden = format!(".respaldo-{}", wanted.tag);
        let exists = path.symlink_metadata().is_ok();
        if exists {
            let doing = || format!("read {}", path.display());
            for entry in fs::read_dir(&path).context(doing())? {
                // What a restore that was killed has left is in nobody's way.
                if entry.context(doing())?.file_name() == hidden.as_str() {
                    continue;
                }
                return Err(Fault::usage(format!("{} is not empty", path.display())).hint(
                    "name a folder that is new or empty, and move what you need from there",
                ));
            }
        }
        let staging = match path.parent() {
            Some(parent) if !exists => parent.join(hidden),
            _ => path.join(hidden),
        };
        let several = wanted.artifacts.len() > 1;
        Ok(Self { path, staging, exists, several, cancel: session.cancel.clone() })
    }

    fn move_into_place(&self) -> Result<()> {
        let doing = || format!("move files into {}", self.path.display());
        if !self.exists {
            fs::rename(&self.staging, &self.path).context(doing())?;
            return durable::sync_parent(&self.path).context(doing());
        }
        let like = File::open(&self.staging).context(doing())?;
        let meta = like.metadata().context(doing())?;
        for entry in fs::read_dir(&self.staging).context(doing())? {
            let entry = entry.context(doing())?;
            fs::rename(entry.path(), self.path.join(entry.file_name())).context(doing())?;
        }
        fs::remove_dir(&self.staging).context(doing())?;
        make_alike(&like, &meta, &self.path).context(doing())?;
        durable::sync_parent(&self.path.join("x")).context(doing())
    }

    fn folder_of(&self, artifact: &Artifact) -> PathBuf {
        if !self.several {
            return self.staging.clone();
        }
        self.staging.join(artifact.stem())
    }
}

#[async_trait]
impl Target for FilesTarget {
    fn plan(&self) -> Vec<String> {
        let what = if self.exists { "empty" } else { "new" };
        vec![format!("into the {what} folder {}", self.path.display())]
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    async fn begin(&mut self) -> Result<()> {
        if self.staging.symlink_metadata().is_ok() {
            fs::remove_dir_all(&self.staging).context("remove what a restore has left")?;
        }
        create(&self.staging)
    }

    async fn load(&mut self, artifact: &Artifact) -> Result<Intake> {
        let folder = self.folder_of(artifact);
        if self.several {
            // Into the folder of another archive it would be written through the links there.
            if folder.symlink_metadata().is_ok() {
                let what =
                    format!("two archives of this backup are for one folder: {}", artifact.name);
                return Err(Fault::permanent(what).hint("respaldo makes no such backup: who did?"));
            }
            create(&folder)?;
        }
        // GNU tar refuses `..`, strips a leading `/`, and puts links in place last, so that no
        // member is written through one; the folder is fresh, so none is there from before.
        let program = Program::new("tar")
            .args(["--extract", "--file=-", "--preserve-permissions", "--numeric-owner"])
            .args(["--xattrs", "--acls", "--delay-directory-restore"])
            .arg(format!("--directory={}", folder.display()));
        let child = child::spawn(program, Pipes::Stdin, self.cancel.clone()).await?;
        let writer = child.stdin.ok_or_else(|| Fault::permanent("tar has no input"))?;
        let exit = Exit::new(async move { child::ended(child.end).await?.success() });
        Ok(Intake { writer: Box::new(writer), exit })
    }

    async fn finish(&mut self) -> Result<Finished> {
        self.move_into_place()?;
        Ok(vec![format!("{} is in place", self.path.display())].into())
    }

    async fn discard(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.staging) {
            tracing::warn!("could not remove {}: {error}", self.staging.display());
        }
    }
}

/// Gives a folder the owner, mode, attributes and times of another; `meta` is from when it was made.
fn make_alike(like: &File, meta: &fs::Metadata, path: &Path) -> io::Result<()> {
    match chown(path, Some(meta.uid()), Some(meta.gid())) {
        // Only root may give away; then tar did not either.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::flistxattr(like, &mut names[..]).unwrap_or(0);
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(like, name, &mut value[..])?;
        // What tar could set there may be refused on another mount; no file is worse for it.
        rustix::fs::setxattr(path, name, &value[..length], XattrFlags::empty()).ok();
    }
    fs::set_permissions(path, meta.permissions())?;
    let times = FileTimes::new().set_accessed(meta.accessed()?).set_modified(meta.modified()?);
    File::open(path)?.set_times(times)
}

fn create(folder: &Path) -> Result<()> {
    durable::create_folder(folder).map_err(|error| {
        Fault::usage(format!("create {}", folder.display()))
            .cause(error)
            .hint("choose a folder that this user may write, or give it the right")
    })
}
