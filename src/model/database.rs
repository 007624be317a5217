//! What a PostgreSQL database is beside its contents: the locale that it was made with, and what belongs
//! to it. Knows the shape, and which of it nobody may read; must not know any SQL.

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

/// What is in no dump of a database: owner, rights, settings, connection limit, comment, tablespace.
/// Names and values, and never SQL: a manifest may come from anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belongings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// `None`: that of every database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<i32>,
    /// `None`: the rights that every new database has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<Vec<Right>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
}

/// One privilege on the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Right {
    /// `None`: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// `CONNECT`, `CREATE` or `TEMPORARY`.
    pub privilege: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grantable: bool,
}

/// What a session in the database begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// `None`: whoever connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    pub name: String,
    /// `None`: it may be a secret, and was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// In the name of a setting whose value may be a secret.
const SECRET: [&str; 8] =
    ["conninfo", "credential", "jwt", "key", "passphrase", "passw", "secret", "token"];

impl Belongings {
    /// Leaves out what may be a secret, for a place that is not encrypted. Applications keep keys in settings
    /// of their own.
    pub fn withhold_secrets(&mut self) {
        for setting in &mut self.settings {
            let name = setting.name.to_lowercase();
            let is_url = |value: &String| value.contains("://") && value.contains('@');
            if SECRET.iter().any(|word| name.contains(word)) || setting.value.iter().any(is_url) {
                setting.value = None;
            }
        }
    }

    /// Every role that it names, each once.
    pub fn roles(&self) -> Vec<String> {
        let rights = self.rights.iter().flatten().filter_map(|right| right.role.as_ref());
        let settings = self.settings.iter().filter_map(|setting| setting.role.as_ref());
        let mut names: Vec<String> =
            self.owner.iter().chain(rights).chain(settings).cloned().collect();
        names.sort();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_left_out() {
        let setting = |name: &str, value: &str| Setting {
            role: None,
            name: name.into(),
            value: Some(value.into()),
        };
        let settings = vec![
            setting("search_path", "app, public"),
            setting("app.tenant", "7"),
            setting("app.JWT_Secret", "x"),
            setting("app.mail", "smtps://me:pw@host"),
        ];
        let mut belongings = Belongings { settings, ..Belongings::default() };
        belongings.withhold_secrets();
        let left: Vec<bool> = belongings.settings.iter().map(|one| one.value.is_some()).collect();
        assert_eq!(left, [true, true, false, false]);
    }
}
