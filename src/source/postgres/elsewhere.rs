//! What is to be known of a server that may be another one than the backup's: whether it is older, sorts by
//! another version of a collation, or lacks extensions. Must not know what is made of it.

use sqlx::PgConnection;

use super::locale;
use crate::fault::{Context, Result};
use crate::model::{Locale, SourceFacts};

/// Extensions of the backup that the server can't make.
pub(super) async fn missing_extensions(
    admin: &mut PgConnection,
    facts: &SourceFacts,
) -> Result<Vec<String>> {
    let names = facts.extensions.iter().map(|text| text.split(' ').next().unwrap_or(text));
    let names: Vec<String> = names.map(str::to_owned).collect();
    sqlx::query_scalar(
        "SELECT one FROM unnest($1) one
         WHERE NOT EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = one)",
    )
    .bind(&names)
    .fetch_all(admin)
    .await
    .context("look for extensions")
}

/// For the plan: where text may sort in another way, or a definition not be known.
pub(super) async fn notes(
    admin: &mut PgConnection,
    facts: &SourceFacts,
    major: u32,
) -> Vec<String> {
    let mut notes = Vec::new();
    let was = super::major_of(facts);
    if was > major {
        notes.push(format!(
            "the backup is of PostgreSQL {was}, this is {major}: what the older one does not know fails"
        ));
    }
    let Some(collation) = &facts.collation_version else { return notes };
    let asked: Option<(Option<String>, String)> = sqlx::query_as(
        "SELECT pg_database_collation_actual_version(oid), datname::text
         FROM pg_database WHERE datname = current_database()",
    )
    .fetch_one(&mut *admin)
    .await
    .ok();
    let Some((here, beside)) = asked else { return notes };
    let provider = |locale: &Locale| locale.provider.clone();
    let beside = locale::of(admin, &beside).await.ok().flatten();
    let beside = beside.map(|(_, locale)| provider(&locale));
    // Another provider's version says nothing.
    let comparable = facts.locale.as_ref().is_none_or(|was| Some(provider(was)) == beside);
    if comparable && here.as_ref().is_some_and(|here| here != collation) {
        notes.push(format!(
                "its collation had version {collation} and here has {}: indexes are built anew, but text may sort in another order",
                here.unwrap_or_default()
            ));
    }
    notes
}
