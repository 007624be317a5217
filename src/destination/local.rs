//! A local folder, or whatever is mounted there.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::task::JoinHandle;

use super::wal::spent_key;
use super::{Destination, Key, Listing, MANIFEST, Removal, Stored, Upload, confirm};
use crate::durable::{self, Draft, Existing};
use crate::fault::{Context, Fault, FaultKind, Result};
use crate::retention::{Doomed, Erased};
use crate::space::Space;
use crate::wal::Spent;

const READ_BYTES: usize = 1 << 20;
/// What lies in memory before the disk is asked to take it. All of it at the end would be waited for, and so
/// would everybody else's writes, a database's too.
const FLUSH_BYTES: u64 = 32 << 20;

#[derive(Debug, Clone)]
pub struct Local {
    name: String,
    root: PathBuf,
}

impl Local {
    pub fn new(name: impl Into<String>, root: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), root: root.into() }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn fault(&self, doing: &str, path: &Path, error: io::Error) -> Fault {
        explain(doing, path, &self.root, error)
    }

    /// Runs what blocks on a thread that may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this)).await.context("work on a folder")?
    }

    /// Deletes a file; one that is not there is fine.
    async fn remove(&self, key: &Key) -> Result<Removal> {
        let path = self.path(key);
        self.blocking(move |this| {
            let gone = fs::remove_file(&path).and_then(|()| durable::sync_parent(&path));
            match gone {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(this.fault("delete", &path, error))
                }
                _ => Ok(Removal::Gone),
            }
        })
        .await
    }

    fn draft(&self, key: &Key) -> Result<Draft> {
        let path = self.path(key);
        if let Some(parent) = path.parent() {
            durable::create_folder(parent).map_err(|e| self.fault("create", parent, e))?;
        }
        Draft::create_alone(&path).map_err(|e| self.fault("create", &path, e))
    }
}

#[async_trait]
impl Destination for Local {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> String {
        format!("file://{}", self.root.display())
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn upload(&self, key: &Key, existing: Existing) -> Result<Box<dyn Upload>> {
        let key = key.clone();
        self.blocking(move |this| {
            let draft = this.draft(&key)?;
            let (local, draft) = (this.clone(), Some(draft));
            let (sent, flushed, flushing) = (0, 0, None);
            Ok(Box::new(LocalUpload { local, draft, key, existing, sent, flushed, flushing })
                as Box<dyn Upload>)
        })
        .await
    }

    async fn put(&self, key: &Key, bytes: Bytes, existing: Existing) -> Result<Stored> {
        let key = key.clone();
        self.blocking(move |this| {
            let path = this.path(&key);
            let mut draft = this.draft(&key)?;
            draft.file().write_all(&bytes).map_err(|e| this.fault("write", &path, e))?;
            draft.publish(existing).map_err(|e| this.fault("write", &path, e))?;
            Ok(Stored { bytes: bytes.len() as u64 })
        })
        .await
    }

    async fn read(&self, key: &Key) -> Result<BoxStream<'static, Result<Bytes>>> {
        let path = self.path(key);
        let root = self.root.clone();
        let file = self
            .blocking({
                let path = path.clone();
                move |this| File::open(&path).map_err(|e| this.fault("read", &path, e))
            })
            .await?;
        let pieces = stream::unfold(Some(file), move |file| {
            let (path, root) = (path.clone(), root.clone());
            async move {
                let mut file = file?;
                let read = tokio::task::spawn_blocking(move || {
                    let mut piece = vec![0; READ_BYTES];
                    let count = file.read(&mut piece)?;
                    piece.truncate(count);
                    Ok::<_, io::Error>((piece, file))
                });
                match read.await {
                    Ok(Ok((piece, _))) if piece.is_empty() => None,
                    Ok(Ok((piece, file))) => Some((Ok(Bytes::from(piece)), Some(file))),
                    Ok(Err(error)) => Some((Err(explain("read", &path, &root, error)), None)),
                    Err(error) => Some((Err(error).context("read a file"), None)),
                }
            }
        });
        Ok(pieces.boxed())
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>> {
        let path = self.path(key);
        self.blocking(move |this| match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(this.fault("read", &path, error)),
        })
        .await
    }

    async fn list(&self, folder: &Key) -> Result<Listing> {
        let path = self.path(folder);
        self.blocking(move |this| {
            let mut listing = Listing::default();
            let entries = match fs::read_dir(&path) {
                // The folder of a destination is there, or something is wrong with the mount.
                Err(error) if error.kind() == ErrorKind::NotFound && this.root.is_dir() => {
                    return Ok(listing);
                }
                other => other.map_err(|e| this.fault("list", &path, e))?,
            };
            for entry in entries {
                let entry = entry.map_err(|e| this.fault("list", &path, e))?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                // Drafts are not files yet; links are none of ours.
                let Ok(meta) = entry.metadata() else { continue };
                if name.starts_with('.') {
                    continue;
                } else if meta.is_dir() {
                    listing.folders.push(name);
                } else if meta.is_file() {
                    listing.files.push((name, meta.len()));
                }
            }
            Ok(listing)
        })
        .await
    }

    async fn delete(&self, doomed: &Doomed) -> Result<Removal> {
        let folder = self.path(&Key::backup(doomed.job(), doomed.id()));
        self.blocking(move |this| {
            let manifest = folder.join(MANIFEST);
            match fs::remove_file(&manifest) {
                Ok(()) => {
                    durable::sync_parent(&manifest)
                        .map_err(|e| this.fault("delete", &manifest, e))?;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(this.fault("delete", &manifest, error)),
            }
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(this.fault("delete", &folder, error))
                }
                _ => Ok(Removal::Gone),
            }
        })
        .await
    }

    async fn erase(&self, erased: &Erased) -> Result<Removal> {
        self.remove(&Key::backup(erased.job(), erased.id()).child(erased.file())?).await
    }

    async fn discard(&self, spent: &Spent) -> Result<Removal> {
        self.remove(&spent_key(spent)?).await
    }

    async fn check(&self) -> Result<()> {
        self.blocking(|this| {
            durable::create_folder(&this.root).map_err(|e| this.fault("create", &this.root, e))?;
            let probe = this.root.join(".respaldo-probe");
            let mut draft =
                Draft::create(&probe).map_err(|e| this.fault("write to", &this.root, e))?;
            draft.file().write_all(b"x").map_err(|e| this.fault("write to", &this.root, e))
        })
        .await
    }

    async fn space(&self) -> Option<Space> {
        let stat = |this: &Self| rustix::fs::statvfs(&this.root).context("ask for free space");
        let stat = self.blocking(stat).await.ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        // What is kept back for root counts as neither.
        let total = stat.f_blocks.saturating_sub(stat.f_bfree.saturating_sub(stat.f_bavail));
        Space::of(bytes(stat.f_bavail), bytes(total))
    }
}

struct LocalUpload {
    local: Local,
    /// `None` after a write that was given up half-way.
    draft: Option<Draft>,
    key: Key,
    existing: Existing,
    sent: u64,
    /// How much of it the disk was asked to take, and the last time that it was. What went wrong then is
    /// said once only: it must not be lost.
    flushed: u64,
    flushing: Option<JoinHandle<io::Result<()>>>,
}

impl LocalUpload {
    /// Begins to bring to the disk what is there, beside what is written next.
    async fn flush(&mut self) -> Result<()> {
        if self.flushing.as_ref().is_some_and(|flushing| !flushing.is_finished()) {
            return Ok(());
        }
        self.end_flush().await?;
        let Some(draft) = &mut self.draft else { return Ok(()) };
        let file = draft.file().try_clone();
        let file = file.map_err(|e| self.local.fault("write", &self.local.path(&self.key), e))?;
        self.flushing = Some(tokio::task::spawn_blocking(move || file.sync_data()));
        self.flushed = self.sent;
        Ok(())
    }

    async fn end_flush(&mut self) -> Result<()> {
        let Some(flushing) = self.flushing.take() else { return Ok(()) };
        let flushed = flushing.await.context("write a file")?;
        flushed.map_err(|e| self.local.fault("write", &self.local.path(&self.key), e))
    }
}

#[async_trait]
impl Upload for LocalUpload {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        let path = self.local.path(&self.key);
        let mut draft =
            self.draft.take().ok_or_else(|| Fault::transient("the file was given up"))?;
        let (draft, written) = tokio::task::spawn_blocking(move || {
            let written = draft.file().write_all(&data).map(|()| data.len());
            (draft, written)
        })
        .await
        .context("write a file")?;
        self.draft = Some(draft);
        self.sent += written.map_err(|e| self.local.fault("write", &path, e))? as u64;
        if self.sent - self.flushed >= FLUSH_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<Stored> {
        self.end_flush().await?;
        let draft = self.draft.take().ok_or_else(|| Fault::transient("the file was given up"))?;
        let (key, existing, sent) = (self.key.clone(), self.existing, self.sent);
        self.local
            .blocking(move |this| {
                let path = this.path(&key);
                draft.publish(existing).map_err(|e| this.fault("write", &path, e))?;
                let held = fs::metadata(&path).map_err(|e| this.fault("read", &path, e))?.len();
                confirm(&key, sent, Some(held))
            })
            .await
    }

    async fn abort(self: Box<Self>) {}

    fn reader(&self) -> Option<File> {
        self.draft.as_ref()?.reader().ok()
    }
}

/// Says which right is missing, and the command that gives it.
fn explain(doing: &str, path: &Path, root: &Path, error: io::Error) -> Fault {
    let hint = match error.kind() {
        ErrorKind::PermissionDenied => {
            let (user, group) =
                (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            let owner = fs::metadata(root).map(|m| m.uid()).ok();
            let owner = owner.map_or(String::new(), |uid| format!(" (it belongs to uid {uid})"));
            format!(
                "respaldo runs as uid {user}{owner}: chown -R {user}:{group} {}",
                root.display()
            )
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full: make room, or lower the retention in `keep`".to_owned()
        }
        ErrorKind::ReadOnlyFilesystem => "it is mounted read-only: mount it writable".to_owned(),
        ErrorKind::NotFound => "is the volume mounted?".to_owned(),
        ErrorKind::AlreadyExists => {
            "something else wrote it: do two respaldos share this folder?".to_owned()
        }
        _ => "is the disk or the mount all right? `dmesg` may say more".to_owned(),
    };
    let doing = format!("{doing} {}", path.display());
    let kind = match error.kind() {
        ErrorKind::AlreadyExists => FaultKind::Taken,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => FaultKind::Permanent,
        _ => FaultKind::Transient,
    };
    Fault::new(kind, doing).cause(error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_disk_refused_beside_a_write_fails_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::new("a", folder.path());
        let key = Key::parse("job/id/x").unwrap();
        let draft = Some(local.draft(&key).unwrap());
        let flushing = Some(tokio::task::spawn_blocking(|| Err(io::Error::other("worn out"))));
        let (sent, flushed) = (0, 0);
        let existing = Existing::Refuse;
        let mut upload = LocalUpload { local, draft, key, existing, sent, flushed, flushing };
        upload.write(Bytes::from_static(b"the rest")).await.unwrap();
        let fault = Box::new(upload).commit().await.unwrap_err();
        assert!(fault.chain().contains("worn out"), "{}", fault.chain());
        assert_eq!(fs::read_dir(folder.path().join("job/id")).unwrap().count(), 0);
    }
}
