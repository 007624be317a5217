//! Google Cloud Storage by its XML API: how to get in, and its words.

use std::sync::Arc;

use object_store::gcp::GoogleCloudStorageBuilder;

use super::bucket::{self, Bucket, Dialect, Place, unusable};
use super::{Uploads, lifecycle};
use crate::fault::Result;
use crate::secret::Secret;

/// Where the bucket is and how to get in.
#[derive(Debug, Clone, Default)]
pub struct GcsOptions {
    pub bucket: String,
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
    /// `http://` or `https://`, without credentials. None: Google's own.
    pub endpoint: Option<String>,
    /// A service account's key as JSON. None: the machine's own account.
    pub credentials: Option<Secret>,
    pub storage_class: Option<String>,
    pub append_only: bool,
}

static WORDS: Dialect = Dialect {
    scheme: "gs",
    vessel: "bucket",
    missing: &["NoSuchBucket"],
    skewed: &["RequestTimeTooSkewed", "Check your iat and exp"],
    denied: &["invalid_grant", "invalid_client", "AccessDenied"],
    retained: &["retention policy", "RetentionPolicyNotMet", "ObjectUnderActiveHold"],
    // Its coldest class is read like any other.
    archived: &[],
    frozen_classes: &[],
    login: "the service account's key",
    thaw: |_, _| String::new(),
    lifecycle: lifecycle::gcs,
    names_uploads: true,
};

impl Bucket {
    /// A bucket of GCS. `uploads` remembers what would be left behind if this process died.
    pub fn gcs(
        name: impl Into<String>,
        options: &GcsOptions,
        uploads: Option<Arc<dyn Uploads>>,
    ) -> Result<Self> {
        let name = name.into();
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(&options.bucket)
            .with_client_options(bucket::client())
            .with_retry(bucket::retry());
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_base_url(endpoint);
        }
        if let Some(key) = &options.credentials {
            builder = builder.with_service_account_key(key.expose());
        }
        let store = Arc::new(builder.build().map_err(|error| unusable(&name, error))?);
        let place = Place {
            bucket: options.bucket.clone(),
            prefix: options.prefix.clone(),
            storage_class: options.storage_class.clone(),
            append_only: options.append_only,
        };
        Ok(Self::open(name, store, &WORDS, place, uploads))
    }
}
