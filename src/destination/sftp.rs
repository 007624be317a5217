//! A folder on another machine, over SFTP: paths, listings, deletes. Writes go to a hidden name beside
//! the target, and get its name once they are durable. Knows files; must not know how to get in.

mod session;
mod transfer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use russh::keys::{PrivateKey, PublicKey};
use russh_sftp::client::error::Error;
use russh_sftp::protocol::{FileAttributes, StatusCode};
use tokio::sync::Mutex;

use super::wal::spent_key;
use super::{Destination, Key, Listing, MANIFEST, Removal, Stored, Upload, confirm};
use crate::durable::Existing;
use crate::fault::{Fault, Result};
use crate::retention::{Doomed, Erased};
use crate::secret::Secret;
use crate::space::Space;
use crate::wal::Spent;
use session::Session;
use transfer::SftpUpload;

/// A connection that nobody uses is closed after so long.
const IDLE: Duration = Duration::from_secs(30);
/// Folders in folders that a delete follows; a backup has two.
const DEEPEST: usize = 8;
/// Below this, a write that failed without a reason failed for want of room.
const NO_ROOM: u64 = 8 << 20;

/// Where the folder is and how to get in.
#[derive(Debug, Clone, Default)]
pub struct SftpOptions {
    pub host: String,
    pub port: u16,
    pub user: String,
    /// Without a slash at its end. Relative to the account's own folder unless it starts with one.
    pub path: String,
    /// As `ssh-ed25519 AAAA...`; any of them will do. None: no server is believed.
    pub host_keys: Vec<String>,
    /// One of the two.
    pub password: Option<Secret>,
    pub private_key: Option<Secret>,
    pub passphrase: Option<Secret>,
}

/// A host's public key in the form of `known_hosts` and `.pub` files, without the host's name.
pub fn host_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::from_openssh(text.trim())
        .map_err(|_| "it is no public key, such as ssh-ed25519 AAAA...".to_owned())
}

/// A private key in any form of OpenSSH or PEM.
pub fn private_key(text: &Secret, passphrase: Option<&Secret>) -> Result<PrivateKey, String> {
    use russh::keys::{Error, decode_secret_key};
    let wrong = |passphrase: bool| match passphrase {
        true => "it does not open with that passphrase".to_owned(),
        false => "it is no private key of OpenSSH or in PEM".to_owned(),
    };
    match decode_secret_key(text.expose(), passphrase.map(Secret::expose)) {
        Ok(key) if !key.is_encrypted() => Ok(key),
        Ok(_) | Err(Error::KeyIsEncrypted) if passphrase.is_none() => {
            Err("it is encrypted, and no passphrase is given".to_owned())
        }
        Ok(_) | Err(_) => Err(wrong(passphrase.is_some())),
    }
}

/// A destination over SFTP. One connection serves it while it is used.
#[derive(Clone)]
pub struct Sftp {
    name: String,
    options: Arc<SftpOptions>,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    session: Mutex<Option<Arc<Session>>>,
    used: AtomicBool,
}

impl Sftp {
    pub fn new(name: impl Into<String>, options: SftpOptions) -> Self {
        Self { name: name.into(), options: Arc::new(options), line: Arc::default() }
    }

    /// The live connection, or a new one.
    async fn session(&self) -> Result<Arc<Session>> {
        let mut slot = self.line.session.lock().await;
        self.line.used.store(true, Ordering::Relaxed);
        if let Some(session) = slot.as_ref().filter(|session| session.is_alive()) {
            return Ok(session.clone());
        }
        let opened = Session::open(&self.options).await;
        let session = Arc::new(opened.map_err(|fault| {
            let doing = format!("connect to '{}'", self.name);
            let hint = fault.next_step().unwrap_or_default().to_owned();
            Fault::new(fault.kind(), doing).cause(fault).hint(hint)
        })?);
        *slot = Some(session.clone());
        tokio::spawn(close_when_idle(Arc::downgrade(&self.line), Arc::downgrade(&session)));
        Ok(session)
    }

    fn path(&self, key: &Key) -> String {
        let root = &self.options.path;
        match (root.as_str(), key.as_str()) {
            ("", "") => ".".to_owned(),
            ("/", key) => format!("/{key}"),
            (root, "") => root.to_owned(),
            ("", key) => key.to_owned(),
            (root, key) => format!("{root}/{key}"),
        }
    }

    /// What a server's refusal means. Version 3 of the protocol has one word for most of them.
    async fn fault(&self, doing: String, error: Error) -> Fault {
        let code = status(&error);
        let full = match code {
            Some(StatusCode::Failure) => {
                self.room().await.map(|room| room.free).is_some_and(|free| free < NO_ROOM)
            }
            _ => false,
        };
        let (lasting, hint) = match code {
            Some(StatusCode::PermissionDenied) => {
                (true, format!("the account '{}' may not do that there", self.options.user))
            }
            Some(StatusCode::NoSuchFile) => (true, "is the folder there, and mounted?".to_owned()),
            Some(StatusCode::OpUnsupported) => {
                (true, "the server can't do it; is it an ordinary SFTP server?".to_owned())
            }
            Some(_) if full => {
                (false, "its disk is full: make room, or lower the retention in `keep`".to_owned())
            }
            Some(_) => (false, "the server's own log may say more".to_owned()),
            None => (false, "is the server up, and the network all right?".to_owned()),
        };
        let doing = format!("{doing} on '{}'", self.name);
        let fault = if lasting { Fault::permanent(doing) } else { Fault::transient(doing) };
        fault.cause(error).hint(hint)
    }

    async fn room(&self) -> Option<Space> {
        let session = self.session().await.ok()?;
        let stat = session.statvfs(self.path(&Key::root())).await?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size);
        // What is kept back for root counts as neither.
        let total = stat.blocks.saturating_sub(stat.blocks_free.saturating_sub(stat.blocks_avail));
        Space::of(bytes(stat.blocks_avail), bytes(total))
    }

    /// The folder of a key and those above it, made where they are missing.
    async fn make_folder_of(&self, session: &Session, key: &Key) -> Result<()> {
        let path = self.path(key);
        let Some((folder, _)) = path.rsplit_once('/').filter(|(folder, _)| !folder.is_empty())
        else {
            return Ok(());
        };
        match session.make_folders(folder).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fault(format!("create {folder}"), error).await),
        }
    }

    async fn begin(&self, key: &Key, existing: Existing) -> Result<SftpUpload> {
        let session = self.session().await?;
        let target = self.path(key);
        let (folder, name) = target.rsplit_once('/').unwrap_or((".", &target));
        let hidden = format!("{folder}/.{name}.{}.tmp", uuid::Uuid::new_v4().simple());
        let handle = match session.create(&hidden).await {
            Err(error) if status(&error) == Some(StatusCode::NoSuchFile) => {
                self.make_folder_of(&session, key).await?;
                session.create(&hidden).await
            }
            other => other,
        };
        match handle {
            Ok(handle) => Ok(SftpUpload::new(
                self.clone(),
                session,
                (key.clone(), existing),
                handle,
                hidden,
                target,
            )),
            Err(error) => Err(self.fault(format!("write {key}"), error).await),
        }
    }

    /// Deletes a file; one that is not there is fine.
    async fn remove(&self, key: &Key) -> Result<Removal> {
        let session = self.session().await?;
        match session.remove(&self.path(key)).await {
            Ok(()) => Ok(Removal::Gone),
            Err(error) => Err(self.fault(format!("delete {key}"), error).await),
        }
    }

    /// A folder with all that is in it; links are removed and not followed.
    fn remove_folder<'a>(
        &'a self,
        session: &'a Session,
        path: String,
        deeper: usize,
    ) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let entries = match session.entries(&path).await {
                Err(error) if status(&error) == Some(StatusCode::NoSuchFile) => return Ok(()),
                other => other?,
            };
            for (name, attributes) in entries {
                let inside = format!("{path}/{name}");
                if is_folder(&attributes) && deeper > 0 {
                    self.remove_folder(session, inside, deeper - 1).await?;
                } else {
                    session.remove(&inside).await?;
                }
            }
            session.raw().rmdir(path).await.map(drop)
        }
        .boxed()
    }
}

async fn close_when_idle(line: std::sync::Weak<Line>, session: std::sync::Weak<Session>) {
    loop {
        tokio::time::sleep(IDLE).await;
        let (Some(line), Some(session)) = (line.upgrade(), session.upgrade()) else { return };
        let mut slot = line.session.lock().await;
        if !slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, &session)) {
            return;
        }
        // One reference is the slot's, one is this.
        let idle = Arc::strong_count(&session) <= 2;
        if !line.used.swap(false, Ordering::Relaxed) && idle {
            *slot = None;
            return;
        }
    }
}

fn status(error: &Error) -> Option<StatusCode> {
    match error {
        Error::Status(status) => Some(status.status_code),
        _ => None,
    }
}

fn is_folder(attributes: &FileAttributes) -> bool {
    attributes.file_type().is_dir()
}

#[async_trait]
impl Destination for Sftp {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> String {
        let SftpOptions { host, port, user, path, .. } = &*self.options;
        let slash = if path.starts_with('/') { "" } else { "/~/" };
        format!("sftp://{user}@{host}:{port}{slash}{path}")
    }

    async fn upload(&self, key: &Key, existing: Existing) -> Result<Box<dyn Upload>> {
        Ok(Box::new(self.begin(key, existing).await?))
    }

    async fn put(&self, key: &Key, bytes: Bytes, existing: Existing) -> Result<Stored> {
        let mut upload = self.begin(key, existing).await?;
        match upload.write(bytes).await {
            Ok(()) => upload.publish().await,
            Err(fault) => {
                upload.discard().await;
                Err(fault)
            }
        }
    }

    async fn read(&self, key: &Key) -> Result<BoxStream<'static, Result<Bytes>>> {
        let session = self.session().await?;
        let (this, key) = (self.clone(), key.clone());
        match transfer::read(session, self.path(&key)).await {
            Ok(pieces) => Ok(pieces
                .or_else(move |error| {
                    let (this, doing) = (this.clone(), format!("read {key}"));
                    async move { Err(this.fault(doing, error).await) }
                })
                .boxed()),
            Err(error) => Err(self.fault(format!("read {key}"), error).await),
        }
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>> {
        let session = self.session().await?;
        match session.raw().lstat(self.path(key)).await {
            Ok(found) if found.attrs.file_type().is_file() => Ok(found.attrs.size),
            Ok(_) => Ok(None),
            Err(error) if status(&error) == Some(StatusCode::NoSuchFile) => Ok(None),
            Err(error) => Err(self.fault(format!("look at {key}"), error).await),
        }
    }

    async fn list(&self, folder: &Key) -> Result<Listing> {
        let session = self.session().await?;
        let mut listing = Listing::default();
        let entries = match session.entries(&self.path(folder)).await {
            Ok(entries) => entries,
            Err(error) if status(&error) == Some(StatusCode::NoSuchFile) => {
                // The folder of the destination is there, or something is wrong with it.
                return match session.raw().stat(self.path(&Key::root())).await {
                    Ok(_) => Ok(listing),
                    Err(_) => Err(self.fault(format!("list {}", self.place()), error).await),
                };
            }
            Err(error) => return Err(self.fault(format!("list {folder}"), error).await),
        };
        for (name, attributes) in entries {
            // What is being written has a hidden name; links are none of ours.
            if name.starts_with('.') || name.contains('/') {
                continue;
            } else if is_folder(&attributes) {
                listing.folders.push(name);
            } else if attributes.file_type().is_file() {
                listing.files.push((name, attributes.size.unwrap_or(0)));
            }
        }
        Ok(listing)
    }

    async fn delete(&self, doomed: &Doomed) -> Result<Removal> {
        let session = self.session().await?;
        let folder = Key::backup(doomed.job(), doomed.id());
        let manifest = self.path(&folder.child(MANIFEST)?);
        let gone = match session.remove(&manifest).await {
            Ok(()) => self.remove_folder(&session, self.path(&folder), DEEPEST).await,
            Err(error) => Err(error),
        };
        match gone {
            Ok(()) => Ok(Removal::Gone),
            Err(error) => Err(self.fault(format!("delete {folder}"), error).await),
        }
    }

    async fn erase(&self, erased: &Erased) -> Result<Removal> {
        self.remove(&Key::backup(erased.job(), erased.id()).child(erased.file())?).await
    }

    async fn discard(&self, spent: &Spent) -> Result<Removal> {
        self.remove(&spent_key(spent)?).await
    }

    async fn check(&self) -> Result<()> {
        let key = Key::root().child("respaldo-probe")?;
        let mut upload = self.begin(&key, Existing::Replace).await?;
        let written = upload.write(Bytes::from_static(b"x")).await;
        let settled = async {
            written?;
            while upload.settle().await? {}
            confirm(&key, 1, upload.held().await?).map(drop)
        }
        .await;
        upload.discard().await;
        settled
    }

    async fn space(&self) -> Option<Space> {
        self.room().await
    }
}
