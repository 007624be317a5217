//! What a PostgreSQL database is beside its contents: the locale that it was made with. Knows the
//! shape; must not know any SQL.

use serde::{Deserialize, Serialize};

/// By what text is sorted and its case is told, beside `LC_COLLATE`: as `CREATE DATABASE` is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locale {
    /// `LC_CTYPE`.
    pub ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub provider: String,
    /// The provider's own: `ICU_LOCALE` or `BUILTIN_LOCALE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `ICU_RULES`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
}
