//! The locale of a database: read from a server, and written into the statement that makes another one
//! like it. Knows which version calls it what; must not know what the database is for.

use sqlx::PgConnection;

use super::target::literal;
use crate::fault::{Context, Result};
use crate::model::{Locale, SourceFacts};

/// `datcollate`, `datctype`, provider, the provider's locale and rules.
type Row = (String, String, String, Option<String>, Option<String>);

/// `LC_COLLATE` and the rest; `None`: there is no such database.
pub(super) async fn of(
    connection: &mut PgConnection,
    database: &str,
) -> Result<Option<(String, Locale)>> {
    // As JSON, a column that this version does not have is none.
    let row: Option<Row> = sqlx::query_as(
        "SELECT d.datcollate::text, d.datctype::text, coalesce(j ->> 'datlocprovider', 'c'),
                coalesce(j ->> 'datlocale', j ->> 'daticulocale'), j ->> 'daticurules'
         FROM pg_database d CROSS JOIN LATERAL to_jsonb(d) AS j WHERE d.datname = $1",
    )
    .bind(database)
    .fetch_optional(connection)
    .await
    .transient("look at the database's locale")?;
    Ok(row.map(|(collation, ctype, provider, name, rules)| {
        let provider = match provider.as_str() {
            "c" => "libc",
            "i" => "icu",
            "b" => "builtin",
            other => other,
        };
        (collation, Locale { ctype, provider: provider.to_owned(), name, rules })
    }))
}

/// Takes what an older respaldo has not written down from the present database, where that is of the
/// same `LC_COLLATE`. Says whether it did.
pub(super) async fn fill(
    facts: &mut SourceFacts,
    connection: &mut PgConnection,
    present: &str,
) -> Result<bool> {
    if facts.locale.is_some() {
        return Ok(false);
    }
    let there = of(connection, present).await?;
    let same = there.filter(|(collation, _)| facts.collation.as_ref() == Some(collation));
    facts.locale = same.map(|(_, locale)| locale);
    Ok(facts.locale.is_some())
}

/// Encoding and locale, as `CREATE DATABASE` of a server of this major is told them.
pub(super) fn words(facts: &SourceFacts, major: u32) -> String {
    let mut words = String::new();
    let mut add = |word: &str, value: Option<&str>| {
        let value = value.map(literal);
        words.extend(value.map(|value| format!(" {word} {value}")));
    };
    let collation = facts.collation.as_deref();
    add("ENCODING", facts.encoding.as_deref());
    add("LC_COLLATE", collation);
    let Some(locale) = &facts.locale else {
        add("LC_CTYPE", collation);
        return words;
    };
    add("LC_CTYPE", Some(&locale.ctype));
    // Before 15 there was no other one, and no word for it.
    if major >= 15 || locale.provider != "libc" {
        add("LOCALE_PROVIDER", Some(&locale.provider));
    }
    match locale.provider.as_str() {
        "icu" => {
            add("ICU_LOCALE", locale.name.as_deref());
            add("ICU_RULES", locale.rules.as_deref());
        }
        "builtin" => add("BUILTIN_LOCALE", locale.name.as_deref()),
        _ => {}
    }
    words
}

/// Which of them a server does not have, by what it said when it was told all of them.
pub(super) fn lacking<'a>(facts: &'a SourceFacts, said: &str) -> &'a str {
    let locale = facts.locale.as_ref();
    let own = locale.and_then(|locale| locale.name.as_deref());
    let ctype = locale.map(|locale| locale.ctype.as_str());
    let collation = facts.collation.as_deref();
    let named = |name: &&str| said.contains(&format!("\"{name}\""));
    let mut known = [collation, ctype, own].into_iter().flatten();
    known.find(named).or(collation).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Engine;

    fn facts(provider: &str, name: Option<&str>) -> SourceFacts {
        SourceFacts {
            encoding: Some("UTF8".into()),
            collation: Some("C".into()),
            locale: Some(Locale {
                ctype: "C.UTF-8".into(),
                provider: provider.into(),
                name: name.map(str::to_owned),
                rules: None,
            }),
            ..SourceFacts::named(Engine::Postgres, "shop")
        }
    }

    #[test]
    fn each_server_is_told_what_it_knows_and_nothing_breaks_out() {
        let start = " ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'";
        assert_eq!(words(&facts("libc", None), 14), start);
        assert_eq!(words(&facts("libc", None), 15), format!("{start} LOCALE_PROVIDER 'libc'"));
        let icu = words(&facts("icu", Some("e's")), 15);
        assert_eq!(icu, format!("{start} LOCALE_PROVIDER 'icu' ICU_LOCALE 'e''s'"));
        let builtin = words(&facts("builtin", Some("C")), 17);
        assert_eq!(builtin, format!("{start} LOCALE_PROVIDER 'builtin' BUILTIN_LOCALE 'C'"));
        let older = SourceFacts { locale: None, ..facts("libc", None) };
        assert_eq!(words(&older, 15), " ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'");
    }

    #[test]
    fn what_a_server_lacks_is_named() {
        let facts = facts("icu", Some("xx"));
        assert_eq!(lacking(&facts, "invalid LC_CTYPE locale name: \"C.UTF-8\""), "C.UTF-8");
        assert_eq!(lacking(&facts, "ICU locale \"xx\" has unknown language"), "xx");
        assert_eq!(lacking(&facts, "no such locale"), "C");
    }
}
