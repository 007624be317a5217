//! Azure Blob Storage: how to get in, and its words. Blocks of an upload that was given up vanish by
//! themselves after a week, so none has to be remembered.

use std::sync::Arc;

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::bucket::{self, Bucket, Dialect, Place, unusable};
use super::lifecycle;
use crate::fault::Result;
use crate::secret::Secret;

/// Where the container is and how to get in.
#[derive(Debug, Clone, Default)]
pub struct AzureOptions {
    pub account: String,
    pub container: String,
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
    /// `http://` or `https://`, without credentials. None: the account's own at Azure.
    pub endpoint: Option<String>,
    /// One of the two, or neither for the machine's own identity.
    pub access_key: Option<Secret>,
    pub sas_token: Option<Secret>,
    /// The access tier: Hot, Cool, Cold or Archive.
    pub storage_class: Option<String>,
    pub append_only: bool,
}

static WORDS: Dialect = Dialect {
    scheme: "az",
    vessel: "container",
    missing: &["ContainerNotFound"],
    skewed: &["Request date header too old"],
    denied: &["AuthenticationFailed", "AuthorizationFailure", "AuthorizationPermissionMismatch"],
    retained: &["BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold"],
    archived: &["BlobArchived", "BlobBeingRehydrated"],
    frozen_classes: &["Archive"],
    login: "the account, its access key or SAS token",
    thaw: |container, key| {
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!(
            "it is in the archive tier: thaw it, and the other files of {folder}/, with `az storage \
             blob set-tier --container-name {container} --name {key} --tier Hot`, wait some hours, \
             and try again"
        )
    },
    lifecycle: lifecycle::azure,
    names_uploads: false,
};

impl Bucket {
    /// A container of Azure.
    pub fn azure(name: impl Into<String>, options: &AzureOptions) -> Result<Self> {
        let name = name.into();
        let mut builder = MicrosoftAzureBuilder::new()
            .with_account(&options.account)
            .with_container_name(&options.container)
            .with_client_options(bucket::client())
            .with_retry(bucket::retry());
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        if let Some(key) = &options.access_key {
            builder = builder.with_access_key(key.expose());
        }
        if let Some(token) = &options.sas_token {
            builder = builder.with_config(AzureConfigKey::SasKey, token.expose());
        }
        let store = Arc::new(builder.build().map_err(|error| unusable(&name, error))?);
        let place = Place {
            bucket: options.container.clone(),
            prefix: options.prefix.clone(),
            storage_class: options.storage_class.clone(),
            append_only: options.append_only,
        };
        Ok(Self::open(name, store, &WORDS, place, None))
    }
}
