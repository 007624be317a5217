//! Uploads that are open in a store: what a killed run leaves behind and the next start ends.

use async_trait::async_trait;
use sqlx::Row;

use super::Catalog;
use crate::destination::{Key, Uploads};
use crate::fault::{Context, Result};

#[derive(Debug, Clone)]
pub struct OpenUpload {
    pub destination: String,
    pub upload: String,
    pub key: Key,
}

impl Catalog {
    pub async fn open_uploads(&self) -> Result<Vec<OpenUpload>> {
        let doing = "read the open uploads";
        let rows = sqlx::query("SELECT destination, upload, key FROM uploads")
            .fetch_all(&self.pool)
            .await
            .context(doing)?;
        rows.iter()
            .map(|row| {
                Ok(OpenUpload {
                    destination: row.try_get("destination").context(doing)?,
                    upload: row.try_get("upload").context(doing)?,
                    key: Key::parse(row.try_get("key").context(doing)?)?,
                })
            })
            .collect()
    }

    pub async fn forget_upload(&self, destination: &str, upload: &str) -> Result<()> {
        sqlx::query("DELETE FROM uploads WHERE destination = ? AND upload = ?")
            .bind(destination)
            .bind(upload)
            .execute(&self.pool)
            .await
            .context("forget an upload")?;
        Ok(())
    }
}

#[async_trait]
impl Uploads for Catalog {
    async fn opened(&self, destination: &str, key: &Key, upload: &str) -> Result<()> {
        sqlx::query("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?)")
            .bind(destination)
            .bind(upload)
            .bind(key.as_str())
            .execute(&self.pool)
            .await
            .context("remember an upload")?;
        Ok(())
    }

    async fn closed(&self, destination: &str, upload: &str) {
        if let Err(fault) = self.forget_upload(destination, upload).await {
            // The next start will try to abort it, and find nothing.
            tracing::warn!("{}", fault.chain());
        }
    }
}
