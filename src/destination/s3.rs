//! S3 and whatever speaks it: how to get in, what it says when it refuses.

mod upload;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt,
    PutMode, PutOptions, RetryConfig,
};

use super::{Destination, Key, Listing, MANIFEST, Stored, Upload, Uploads, confirm};
use crate::durable::Existing;
use crate::fault::{Context, Fault, Result};
use crate::retention::Doomed;
use crate::secret::Secret;
use upload::S3Upload;

/// Bounds one request with its body: a part at 30 kB/s still passes.
const REQUEST: Duration = Duration::from_secs(300);

#[derive(Debug, Clone)]
pub enum Sse {
    /// SSE-S3.
    Aes256,
    /// SSE-KMS, with the bucket's own key when none is named.
    Kms(Option<String>),
}

/// Where the bucket is and how to get in.
#[derive(Debug, Clone, Default)]
pub struct S3Options {
    pub bucket: String,
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key_id: Option<Secret>,
    pub secret_access_key: Option<Secret>,
    pub session_token: Option<Secret>,
    pub storage_class: Option<String>,
    pub sse: Option<Sse>,
    pub path_style: Option<bool>,
    /// Send a SHA-256 with each part, for the store to check.
    pub checksum: bool,
}

#[derive(Clone)]
pub struct S3 {
    name: String,
    store: Arc<AmazonS3>,
    bucket: String,
    prefix: String,
    attributes: Attributes,
    uploads: Option<Arc<dyn Uploads>>,
}

impl S3 {
    /// `uploads` remembers what would be left behind if this process died.
    pub fn new(
        name: impl Into<String>,
        options: &S3Options,
        uploads: Option<Arc<dyn Uploads>>,
    ) -> Result<Self> {
        let name = name.into();
        let client = ClientOptions::new()
            .with_allow_http(true)
            .with_timeout(REQUEST)
            .with_connect_timeout(Duration::from_secs(10))
            .with_pool_max_idle_per_host(4);
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 6,
            retry_timeout: Duration::from_secs(45),
        };
        let path_style = options.path_style.unwrap_or(options.endpoint.is_some());
        // `new`, not `from_env`: the environment has been read by the config, and only there.
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&options.bucket)
            .with_region(options.region.as_deref().unwrap_or("us-east-1"))
            .with_virtual_hosted_style_request(!path_style)
            .with_client_options(client)
            .with_retry(retry);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(key) = &options.access_key_id {
            builder = builder.with_access_key_id(key.expose());
        }
        if let Some(key) = &options.secret_access_key {
            builder = builder.with_secret_access_key(key.expose());
        }
        if let Some(token) = &options.session_token {
            builder = builder.with_token(token.expose());
        }
        if options.checksum {
            builder = builder.with_checksum_algorithm(Checksum::SHA256);
        }
        builder = match &options.sse {
            None => builder,
            Some(Sse::Aes256) => builder
                .with_config("aws_server_side_encryption".parse().map_err(|_| sse())?, "AES256"),
            Some(Sse::Kms(Some(key))) => builder.with_sse_kms_encryption(key),
            Some(Sse::Kms(None)) => builder
                .with_config("aws_server_side_encryption".parse().map_err(|_| sse())?, "aws:kms"),
        };
        let store = builder.build().map_err(|error| {
            Fault::usage(format!("destination '{name}' is not usable")).cause(error)
        })?;
        let mut attributes = Attributes::new();
        if let Some(class) = &options.storage_class {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        Ok(Self {
            name,
            store: Arc::new(store),
            bucket: options.bucket.clone(),
            prefix: options.prefix.clone(),
            attributes,
            uploads,
        })
    }

    fn path(&self, key: &Key) -> Result<Path> {
        let whole = [self.prefix.as_str(), key.as_str()];
        let whole: Vec<&str> = whole.into_iter().filter(|part| !part.is_empty()).collect();
        Path::parse(whole.join("/")).context(format!("make a key of {key}"))
    }

    fn fault(&self, doing: String, error: Error) -> Fault {
        let text = format!("{error:?}");
        let bucket = &self.bucket;
        let (transient, hint) = match &error {
            _ if text.contains("RequestTimeTooSkewed") => {
                (false, "the clocks here and at the store differ: set this one right".to_owned())
            }
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => (
                false,
                format!(
                    "the store refuses: check the access key and secret, and that they may list, read, write and delete in '{bucket}'"
                ),
            ),
            // A listing says it as a "generic" error.
            _ if text.contains("NoSuchBucket") => (
                false,
                format!(
                    "there is no bucket '{bucket}': create it, or check url, region and endpoint"
                ),
            ),
            Error::NotFound { .. } => (false, "is the prefix right?".to_owned()),
            Error::AlreadyExists { .. } | Error::Precondition { .. } => {
                (false, "something else wrote it: do two respaldos share this prefix?".to_owned())
            }
            _ if ["SignatureDoesNotMatch", "InvalidAccessKeyId", "403"]
                .iter()
                .any(|w| text.contains(w)) =>
            {
                (
                    false,
                    "the store refuses the access key: check it, its secret and the clock"
                        .to_owned(),
                )
            }
            _ => (
                true,
                format!(
                    "is the store up, and is its address right as seen from here? ({})",
                    self.place()
                ),
            ),
        };
        let doing = format!("{doing} on '{}'", self.name);
        let fault = if transient { Fault::transient(doing) } else { Fault::permanent(doing) };
        fault.cause(error).hint(hint)
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>> {
        match self.store.head(&self.path(key)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { source, .. })
                if !format!("{source:?}").contains("NoSuchBucket") =>
            {
                Ok(None)
            }
            Err(error) => Err(self.fault(format!("look at {key}"), error)),
        }
    }
}

fn sse() -> Fault {
    Fault::usage("this build knows no server-side encryption")
}

#[async_trait]
impl Destination for S3 {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix)
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(Box::new(S3Upload::new(self.clone(), self.path(key)?, key.clone())))
    }

    async fn put(&self, key: &Key, bytes: Bytes, existing: Existing) -> Result<Stored> {
        let path = self.path(key)?;
        let sent = bytes.len() as u64;
        let options = |mode| PutOptions {
            mode,
            attributes: self.attributes.clone(),
            ..PutOptions::default()
        };
        let mode = match existing {
            Existing::Replace => PutMode::Overwrite,
            Existing::Refuse => PutMode::Create,
        };
        let mut put = self.store.put_opts(&path, bytes.clone().into(), options(mode)).await;
        if let Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) = put {
            // A store without conditional writes: look first.
            if self.head(key).await?.is_some() {
                return Err(Fault::permanent(format!("{key} exists on '{}'", self.name)));
            }
            put = self.store.put_opts(&path, bytes.into(), options(PutMode::Overwrite)).await;
        }
        put.map_err(|error| self.fault(format!("write {key}"), error))?;
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

    async fn delete(&self, doomed: &Doomed) -> Result<()> {
        let folder = Key::backup(doomed.job(), doomed.id());
        let doing = || format!("delete {folder}");
        let manifest = self.path(&folder.child(MANIFEST)?)?;
        match self.store.delete(&manifest).await {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(self.fault(doing(), error)),
        }
        let found: Vec<_> = self
            .store
            .list(Some(&self.path(&folder)?))
            .map_ok(|meta| meta.location)
            .try_collect()
            .await
            .map_err(|error| self.fault(doing(), error))?;
        for path in found {
            match self.store.delete(&path).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(self.fault(doing(), error)),
            }
        }
        Ok(())
    }

    async fn abort_upload(&self, key: &Key, upload: &str) -> Result<()> {
        match self.store.abort_multipart(&self.path(key)?, &upload.to_owned()).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.fault(format!("abort an upload of {key}"), error)),
        }
    }

    async fn check(&self) -> Result<()> {
        let key = Key::root().child("respaldo-probe")?;
        self.put(&key, Bytes::from_static(b"x"), Existing::Replace).await?;
        let gone = self.store.delete(&self.path(&key)?).await;
        gone.map_err(|error| self.fault("delete a probe".into(), error))
    }
}
