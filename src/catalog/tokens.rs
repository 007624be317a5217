//! Tokens that people made: who they are for, what they may do, until when. Knows their digests; must
//! not know a token.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Catalog, millis, time};
use crate::fault::{Context, Fault, Result};
use crate::model::{JobName, Role};

/// A token as the catalog knows it.
#[derive(Debug, Clone, Serialize)]
pub struct Token {
    #[serde(skip)]
    pub id: i64,
    pub name: JobName,
    pub role: Role,
    /// SHA-256 of the token.
    #[serde(skip)]
    pub digest: Vec<u8>,
    pub created_at: Timestamp,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
    pub used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    /// Whether it opens anything at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}

impl Catalog {
    /// Remembers a new token by its SHA-256.
    pub async fn add_token(
        &self,
        name: &JobName,
        role: Role,
        digest: &[u8],
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<()> {
        let doing = "remember a token";
        let added = sqlx::query(
            "INSERT INTO tokens (name, role, digest, created_at, expires_at) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT DO NOTHING",
        )
        .bind(name.as_str())
        .bind(role.as_str())
        .bind(digest)
        .bind(millis(now))
        .bind(expires.map(millis))
        .execute(&self.pool)
        .await
        .context(doing)?;
        if added.rows_affected() == 1 {
            return Ok(());
        }
        Err(Fault::usage(format!("there is a token '{name}' already"))
            .hint(format!("choose another name, or `respaldo token revoke {name}` first")))
    }

    /// Every token that was made, revoked ones too, in order.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        self.tokens_where("ORDER BY id").await
    }

    /// Tokens that are not revoked; they may be over.
    pub async fn live_tokens(&self) -> Result<Vec<Token>> {
        self.tokens_where("WHERE revoked_at IS NULL ORDER BY id").await
    }

    async fn tokens_where(&self, clause: &'static str) -> Result<Vec<Token>> {
        let doing = "read the tokens";
        let sql = sqlx::AssertSqlSafe(format!("SELECT * FROM tokens {clause}"));
        let rows = sqlx::query(sql).fetch_all(&self.pool).await.context(doing)?;
        let text = |row: &SqliteRow, column: &str| -> Result<String> {
            row.try_get(column).context(doing)
        };
        let at = |row: &SqliteRow, column: &str| -> Result<Option<Timestamp>> {
            Ok(row.try_get::<Option<i64>, _>(column).context(doing)?.map(time))
        };
        let token = |row: &SqliteRow| -> Result<Token> {
            Ok(Token {
                id: row.try_get("id").context(doing)?,
                name: text(row, "name")?.parse()?,
                role: text(row, "role")?.parse()?,
                digest: row.try_get("digest").context(doing)?,
                created_at: time(row.try_get("created_at").context(doing)?),
                expires_at: at(row, "expires_at")?,
                used_at: at(row, "used_at")?,
                revoked_at: at(row, "revoked_at")?,
            })
        };
        rows.iter().map(token).collect()
    }

    pub async fn note_token_use(&self, id: i64, now: Timestamp) -> Result<()> {
        sqlx::query("UPDATE tokens SET used_at = ? WHERE id = ?")
            .bind(millis(now))
            .bind(id)
            .execute(&self.pool)
            .await
            .context("note a token's use")?;
        Ok(())
    }

    /// False when there is no such token, or it was revoked already.
    pub async fn revoke_token(&self, name: &JobName, now: Timestamp) -> Result<bool> {
        let done =
            sqlx::query("UPDATE tokens SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL")
                .bind(millis(now))
                .bind(name.as_str())
                .execute(&self.pool)
                .await
                .context("revoke a token")?;
        Ok(done.rows_affected() == 1)
    }
}
