//! S3 and whatever speaks it: how to get in, and its words.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, Checksum};

use super::bucket::{self, Bucket, Dialect, Place};
use super::{Uploads, bucket::unusable, lifecycle};
use crate::fault::{Fault, Result};
use crate::secret::Secret;

/// Encryption at rest, done by the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sse {
    /// SSE-S3.
    Aes256,
    /// SSE-KMS, with the bucket's own key when none is named.
    Kms(Option<String>),
}

/// Where the bucket is and how to get in. What is None is left to the client's own default.
#[derive(Debug, Clone, Default)]
pub struct S3Options {
    pub bucket: String,
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
    /// `http://` or `https://`, without credentials.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// Both keys or neither; neither means the machine's own role.
    pub access_key_id: Option<Secret>,
    pub secret_access_key: Option<Secret>,
    pub session_token: Option<Secret>,
    pub storage_class: Option<String>,
    pub sse: Option<Sse>,
    /// None: path style where there is an endpoint, else virtual-hosted.
    pub path_style: Option<bool>,
    /// Send a SHA-256 with each part, for the store to check.
    pub checksum: bool,
    pub append_only: bool,
}

/// Their objects take hours to thaw, and can't be read before.
pub const FROZEN: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

static WORDS: Dialect = Dialect {
    scheme: "s3",
    vessel: "bucket",
    missing: &["NoSuchBucket"],
    skewed: &["RequestTimeTooSkewed"],
    denied: &["SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied"],
    retained: &["object lock", "Object Lock", "ObjectLocked", "WORM"],
    archived: &["InvalidObjectState"],
    frozen_classes: &FROZEN,
    login: "the access key and secret",
    thaw: |bucket, key| {
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!(
            "it is in an archive tier: thaw it, and the other files of {folder}/, with `aws s3api \
             restore-object --bucket {bucket} --key {key} --restore-request \
             'Days=7,GlacierJobParameters={{Tier=Standard}}'`, wait some hours, and try again"
        )
    },
    lifecycle: lifecycle::s3,
    names_uploads: true,
};

impl Bucket {
    /// A bucket of S3. `uploads` remembers what would be left behind if this process died.
    pub fn s3(
        name: impl Into<String>,
        options: &S3Options,
        uploads: Option<Arc<dyn Uploads>>,
    ) -> Result<Self> {
        let name = name.into();
        let path_style = options.path_style.unwrap_or(options.endpoint.is_some());
        // `new`, not `from_env`: the environment has been read by the config, and only there.
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&options.bucket)
            .with_region(options.region.as_deref().unwrap_or("us-east-1"))
            .with_virtual_hosted_style_request(!path_style)
            .with_client_options(bucket::client())
            .with_retry(bucket::retry());
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
        let store = Arc::new(builder.build().map_err(|error| unusable(&name, error))?);
        let place = Place {
            bucket: options.bucket.clone(),
            prefix: options.prefix.clone(),
            storage_class: options.storage_class.clone(),
            append_only: options.append_only,
        };
        Ok(Self::open(name, store.clone(), &WORDS, place, uploads).with_locks(store))
    }
}

fn sse() -> Fault {
    Fault::usage("this build knows no server-side encryption")
}
