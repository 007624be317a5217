//! Object stores as one: keys, listings, conditional puts, deletes, and what a refusal means. Knows
//! what S3, Azure and GCS share; must not know how to get into any of them.

mod upload;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt,
    PutMode, PutOptions, RetryConfig,
};
use tokio::sync::Semaphore;

use super::wal::spent_key;
use super::{
    Destination, Expiry, Key, Lifecycle, Listing, MANIFEST, Removal, Stored, Upload, Uploads,
    confirm, lock, taken,
};
use crate::durable::Existing;
use crate::fault::{Context, Fault, FaultKind, Result};
use crate::retention::{Doomed, Erased};
use crate::wal::Spent;
use upload::BucketUpload;

/// Bounds one request with its body: a part at 30 kB/s still passes.
const REQUEST: Duration = Duration::from_secs(300);

pub(super) trait Store: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Store for T {}

/// The words of one kind of store, and what a person is told when it says them.
pub(super) struct Dialect {
    pub scheme: &'static str,
    /// What holds the objects: a bucket, a container.
    pub vessel: &'static str,
    pub missing: &'static [&'static str],
    pub skewed: &'static [&'static str],
    pub denied: &'static [&'static str],
    pub retained: &'static [&'static str],
    pub archived: &'static [&'static str],
    /// Storage classes whose objects can't be read until they are thawed.
    pub frozen_classes: &'static [&'static str],
    /// What is to be checked when it lets nobody in.
    pub login: &'static str,
    /// How an object is thawed.
    pub thaw: fn(bucket: &str, key: &str) -> String,
    /// The rules by which it deletes on its own.
    pub lifecycle: fn(bucket: &str, prefix: &str, expiries: &[Expiry]) -> Lifecycle,
    /// Whether an upload has a name by which it can be ended later.
    pub names_uploads: bool,
}

/// What every object store asks for.
#[derive(Default)]
pub(super) struct Place {
    pub bucket: String,
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
    pub storage_class: Option<String>,
    /// Nothing is ever deleted, and nobody is told that it could not be.
    pub append_only: bool,
}

/// A destination in an object store.
#[derive(Clone)]
pub struct Bucket {
    name: String,
    store: Arc<dyn Store>,
    /// Signs the question whether an object is locked, where the store can be asked.
    locks: Option<Arc<dyn Signer>>,
    dialect: &'static Dialect,
    bucket: String,
    prefix: String,
    /// Of the artifacts.
    attributes: Attributes,
    /// Of the small files, which must be readable at any time.
    small: Attributes,
    append_only: bool,
    uploads: Option<Arc<dyn Uploads>>,
    /// To send a part of a file.
    turns: Arc<Semaphore>,
}

pub(super) fn client() -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(true)
        .with_timeout(REQUEST)
        .with_connect_timeout(Duration::from_secs(10))
        .with_pool_max_idle_per_host(4)
}

pub(super) fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 6,
        retry_timeout: Duration::from_secs(45),
    }
}

/// For a client that could not be made of what the config says.
pub(super) fn unusable(name: &str, error: Error) -> Fault {
    Fault::usage(format!("destination '{name}' is not usable"))
        .cause(error)
        .hint("check its keys in the config")
}

impl Bucket {
    /// `uploads` remembers what would be left behind if this process died.
    pub(super) fn open(
        name: String,
        store: Arc<dyn Store>,
        dialect: &'static Dialect,
        place: Place,
        uploads: Option<Arc<dyn Uploads>>,
    ) -> Self {
        let mut attributes = Attributes::new();
        let mut small = Attributes::new();
        if let Some(class) = place.storage_class {
            if !dialect.frozen_classes.contains(&class.as_str()) {
                small.insert(Attribute::StorageClass, class.clone().into());
            }
            attributes.insert(Attribute::StorageClass, class.into());
        }
        Self {
            name,
            store,
            locks: None,
            dialect,
            bucket: place.bucket,
            prefix: place.prefix,
            attributes,
            small,
            append_only: place.append_only,
            uploads,
            turns: Arc::new(Semaphore::new(upload::PARTS_UNDER_WAY)),
        }
    }

    /// As it is, but asks whether an object is locked before deleting it.
    pub(super) fn with_locks(self, signer: Arc<dyn Signer>) -> Self {
        Self { locks: Some(signer), ..self }
    }

    /// Keys are encoded by the client; `parse` refuses what `from` would silently change.
    fn path(&self, key: &Key) -> Result<Path> {
        let whole = [self.prefix.as_str(), key.as_str()];
        let whole: Vec<&str> = whole.into_iter().filter(|part| !part.is_empty()).collect();
        Path::parse(whole.join("/")).context(format!("make a key of {key}"))
    }

    fn fault(&self, doing: String, error: Error) -> Fault {
        let text = format!("{error:?}");
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let Dialect { vessel, login, .. } = self.dialect;
        let bucket = &self.bucket;
        let (kind, hint) = if says(self.dialect.skewed) {
            let hint = "the clocks here and at the store differ: set this one right".to_owned();
            (FaultKind::Permanent, hint)
        } else if says(self.dialect.archived) {
            let key = match &error {
                Error::PermissionDenied { path, .. }
                | Error::AlreadyExists { path, .. }
                | Error::NotFound { path, .. } => path.as_str(),
                _ => "KEY",
            };
            (FaultKind::Archived, (self.dialect.thaw)(bucket, key))
        } else if says(self.dialect.missing) {
            // A listing says it as a "generic" error, so it is told by its code.
            let hint = format!(
                "there is no {vessel} '{bucket}': create it, or check the url and the endpoint"
            );
            (FaultKind::Permanent, hint)
        } else if says(&["Content-MD5"]) {
            let hint = "a bucket with an object lock wants checksums: remove `checksum = false`";
            (FaultKind::Permanent, hint.to_owned())
        } else if says(self.dialect.retained) {
            let hint = "the store keeps it by a lock or a retention policy of its own".to_owned();
            (FaultKind::Permanent, hint)
        } else if matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
            || says(self.dialect.denied)
            || says(&["status: 401", "status: 403"])
        {
            let rights = match self.append_only {
                true => "list, read and write",
                false => "list, read, write and delete",
            };
            let hint = format!(
                "the store refuses: check {login}, the clock, and that they may {rights} in '{bucket}'"
            );
            (FaultKind::Permanent, hint)
        } else if says(&["StorageFull", "QuotaExceeded", "status: 507"]) {
            let hint = "the store is full: make room, or lower the retention in `keep`".to_owned();
            (FaultKind::Transient, hint)
        } else {
            match error {
                Error::NotFound { .. } => (FaultKind::Permanent, "is the prefix right?".to_owned()),
                Error::AlreadyExists { .. } | Error::Precondition { .. } => (
                    FaultKind::Taken,
                    "something else wrote it: do two respaldos share this prefix?".to_owned(),
                ),
                _ => (
                    FaultKind::Transient,
                    format!(
                        "is the store up, and is its address right as seen from here? ({})",
                        self.place()
                    ),
                ),
            }
        };
        Fault::new(kind, format!("{doing} on '{}'", self.name)).cause(error).hint(hint)
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>> {
        match self.store.head(&self.path(key)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { source, .. })
                if !self.dialect.missing.iter().any(|w| format!("{source:?}").contains(w)) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.fault(format!("look at {key}"), error)),
        }
    }

    /// Puts an object in one piece.
    async fn put_whole(
        &self,
        key: &Key,
        bytes: Bytes,
        existing: Existing,
        attributes: &Attributes,
    ) -> Result<()> {
        let path = self.path(key)?;
        let options =
            |mode| PutOptions { mode, attributes: attributes.clone(), ..PutOptions::default() };
        let mode = match existing {
            Existing::Replace => PutMode::Overwrite,
            Existing::Refuse => PutMode::Create,
        };
        let mut put = self.store.put_opts(&path, bytes.clone().into(), options(mode)).await;
        if let Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) = put {
            // A store without conditional writes: look first.
            self.is_free(key).await?;
            put = self.store.put_opts(&path, bytes.into(), options(PutMode::Overwrite)).await;
        }
        put.map(drop).map_err(|error| self.fault(format!("write {key}"), error))
    }

    /// A fault where somebody has written it.
    async fn is_free(&self, key: &Key) -> Result<()> {
        match self.head(key).await? {
            None => Ok(()),
            Some(_) => Err(taken(key, self, "prefix")),
        }
    }

    /// Deletes one object; one that is not there is fine.
    async fn remove(&self, path: &Path) -> Result<Removal, Error> {
        if let Some(signer) = &self.locks
            && let Some(until) = lock::held(signer.as_ref(), path).await
        {
            return Ok(Removal::Retained { until });
        }
        match self.store.delete(path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(Removal::Gone),
            Err(error) => {
                let text = format!("{error:?}");
                match self.dialect.retained.iter().any(|word| text.contains(word)) {
                    true => Ok(Removal::Retained { until: lock::date_in(&text) }),
                    false => Err(error),
                }
            }
        }
    }
}

#[async_trait]
impl Destination for Bucket {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> String {
        format!("{}://{}/{}", self.dialect.scheme, self.bucket, self.prefix)
    }

    fn is_frozen(&self) -> bool {
        let class = self.attributes.get(&Attribute::StorageClass);
        class.is_some_and(|class| self.dialect.frozen_classes.contains(&class.as_ref()))
    }

    async fn upload(&self, key: &Key, existing: Existing) -> Result<Box<dyn Upload>> {
        let path = self.path(key)?;
        Ok(Box::new(BucketUpload::new(self.clone(), path, key.clone(), existing)))
    }

    async fn put(&self, key: &Key, bytes: Bytes, existing: Existing) -> Result<Stored> {
        let sent = bytes.len() as u64;
        self.put_whole(key, bytes, existing, &self.small).await?;
        confirm(key, sent, self.head(key).await?)
    }

    async fn read(&self, key: &Key) -> Result<BoxStream<'static, Result<Bytes>>> {
        let got = self.store.get(&self.path(key)?).await;
        let got = got.map_err(|error| self.fault(format!("read {key}"), error))?;
        let (this, key) = (self.clone(), key.clone());
        Ok(got.into_stream().map_err(move |error| this.fault(format!("read {key}"), error)).boxed())
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>> {
        self.head(key).await
    }

    async fn list(&self, folder: &Key) -> Result<Listing> {
        let path = self.path(folder)?;
        let found = self.store.list_with_delimiter(Some(&path)).await;
        let found = found.map_err(|error| self.fault(format!("list {folder}"), error))?;
        let name = |path: &Path| path.filename().map(str::to_owned);
        Ok(Listing {
            folders: found.common_prefixes.iter().filter_map(name).collect(),
            files: found
                .objects
                .iter()
                .filter_map(|meta| Some((name(&meta.location)?, meta.size)))
                .collect(),
        })
    }

    async fn delete(&self, doomed: &Doomed) -> Result<Removal> {
        let folder = Key::backup(doomed.job(), doomed.id());
        let fault = |error| self.fault(format!("delete {folder}"), error);
        let manifest = self.path(&folder.child(MANIFEST)?)?;
        if let Removal::Retained { until } = self.remove(&manifest).await.map_err(fault)? {
            return Ok(Removal::Retained { until });
        }
        let found: Vec<_> = self
            .store
            .list(Some(&self.path(&folder)?))
            .map_ok(|meta| meta.location)
            .try_collect()
            .await
            .map_err(fault)?;
        let mut removal = Removal::Gone;
        for path in found {
            if let Removal::Retained { until } = self.remove(&path).await.map_err(fault)? {
                removal = Removal::Retained { until };
            }
        }
        Ok(removal)
    }

    async fn erase(&self, erased: &Erased) -> Result<Removal> {
        let key = Key::backup(erased.job(), erased.id()).child(erased.file())?;
        let gone = self.remove(&self.path(&key)?).await;
        gone.map_err(|error| self.fault(format!("delete {key}"), error))
    }

    async fn discard(&self, spent: &Spent) -> Result<Removal> {
        let key = spent_key(spent)?;
        let gone = self.remove(&self.path(&key)?).await;
        gone.map_err(|error| self.fault(format!("delete {key}"), error))
    }

    async fn abort_upload(&self, key: &Key, upload: &str) -> Result<()> {
        match self.store.abort_multipart(&self.path(key)?, &upload.to_owned()).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            // Its credentials need no right to; the bucket's own rule ends such uploads.
            Err(_) if self.append_only => Ok(()),
            Err(error) => Err(self.fault(format!("abort an upload of {key}"), error)),
        }
    }

    fn lifecycle(&self, expiries: &[Expiry]) -> Option<Lifecycle> {
        Some((self.dialect.lifecycle)(&self.bucket, &self.prefix, expiries))
    }

    async fn check(&self) -> Result<()> {
        let key = Key::root().child("respaldo-probe")?;
        if self.append_only {
            // Create-only: it stays, and to replace it may be a right that is not given.
            let bytes = Bytes::from_static(b"x");
            let put = self.put_whole(&key, bytes, Existing::Refuse, &self.small).await;
            return match put {
                Err(fault) if fault.kind() != FaultKind::Taken => Err(fault),
                _ => Ok(()),
            };
        }
        self.put(&key, Bytes::from_static(b"x"), Existing::Replace).await?;
        let gone = self.remove(&self.path(&key)?).await;
        gone.map(drop).map_err(|error| self.fault("delete a probe".into(), error))
    }
}
