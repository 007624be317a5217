//! What a restored database holds, beside what its backup says of the source: table by table, with
//! every difference named. Pure: facts in, findings out. Must not know how either side was asked.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Content, Fingerprint, SourceFacts, TableName, TablePrint};

/// One source, compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub tables: Vec<TableMatch>,
    /// Each difference, in a sentence; empty: all is as it was.
    pub failures: Vec<String>,
    /// What could not be compared, or differs as it may.
    pub notes: Vec<String>,
}

/// One table of the source, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableMatch {
    #[serde(flatten)]
    pub name: TableName,
    pub expected: Held,
    /// `None`: there is no such table.
    pub found: Option<Held>,
    pub ok: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub rows: u64,
    /// Where it was hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

impl From<&TablePrint> for Held {
    fn from(print: &TablePrint) -> Self {
        Self { rows: print.rows, hash: print.hash.clone() }
    }
}

impl Comparison {
    pub fn rows(&self) -> u64 {
        self.tables.iter().filter_map(|table| table.found.as_ref()).map(|held| held.rows).sum()
    }
}

/// What of a source's facts can be expected where only some of its artifacts were loaded.
pub fn expected_of(facts: &SourceFacts, loaded: &[Content]) -> SourceFacts {
    let is_whole = loaded.iter().any(|part| matches!(part, Content::Whole | Content::Main));
    let mut expected = facts.clone();
    if is_whole {
        return expected;
    }
    let is_loaded = |name: &TableName| {
        loaded.iter().any(|part| match part {
            Content::Schema(schema) => *schema == name.schema,
            Content::Rows(Some(table)) => table == name,
            _ => false,
        })
    };
    expected.extensions.clear();
    expected.roles.clear();
    if let Some(print) = &mut expected.fingerprint {
        print.tables.retain(|table| is_loaded(&table.name));
        print.sequences.retain(|sequence| is_loaded(&sequence.name));
        print.objects.clear();
    }
    expected
}

/// Compares what was backed up with what is there after a restore.
pub fn compare(expected: &SourceFacts, found: &SourceFacts) -> Comparison {
    let mut compared = Comparison::default();
    extensions(expected, found, &mut compared);
    locales(expected, found, &mut compared);
    let missing: Vec<&str> =
        expected.roles.iter().filter(|r| !found.roles.contains(r)).map(String::as_str).collect();
    if !missing.is_empty() {
        compared
            .failures
            .push(format!("nothing belongs to these roles any more: {}", missing.join(", ")));
    }
    match (&expected.fingerprint, &found.fingerprint) {
        (Some(expected), Some(found)) => prints(expected, found, &mut compared),
        (None, _) => compared
            .notes
            .push("the backup has no fingerprint: rows could not be compared".to_owned()),
        (_, None) => compared.failures.push("what was restored could not be counted".to_owned()),
    }
    compared
}

fn extensions(expected: &SourceFacts, found: &SourceFacts, compared: &mut Comparison) {
    fn by_name(facts: &SourceFacts) -> BTreeMap<&str, &str> {
        facts.extensions.iter().map(|text| text.split_once(' ').unwrap_or((text, ""))).collect()
    }
    let found = by_name(found);
    for (name, version) in by_name(expected) {
        match found.get(name) {
            None => compared.failures.push(format!("the extension '{name}' is missing")),
            Some(other) if *other != version => compared
                .notes
                .push(format!("the extension '{name}' is {other} here and was {version}")),
            Some(_) => {}
        }
    }
}

/// What sorts in another order, or is told to be the same by another rule, is not what it was.
fn locales(expected: &SourceFacts, found: &SourceFacts, compared: &mut Comparison) {
    let (Some(was), Some(is)) = (&expected.locale, &found.locale) else { return };
    let words = |value: Option<&str>| value.map_or("none".to_owned(), |value| format!("'{value}'"));
    let mut same = |what: &str, was: Option<&str>, is: Option<&str>, may_differ: bool| {
        if was != is {
            let said = format!("its {what} is {}, and was {}", words(is), words(was));
            let all = if may_differ { &mut compared.notes } else { &mut compared.failures };
            all.push(said);
        }
    };
    same("LC_COLLATE", expected.collation.as_deref(), found.collation.as_deref(), false);
    same("LC_CTYPE", Some(&was.ctype), Some(&is.ctype), false);
    same("locale provider", Some(&was.provider), Some(&is.provider), false);
    if was.provider != is.provider {
        return;
    }
    // Another major may write the same in other words.
    let other = expected.server_major() != found.server_major();
    same(&format!("{} locale", is.provider), was.name.as_deref(), is.name.as_deref(), other);
    same("ICU_RULES", was.rules.as_deref(), is.rules.as_deref(), other);
}

fn prints(expected: &Fingerprint, found: &Fingerprint, compared: &mut Comparison) {
    let there: BTreeMap<&TableName, &TablePrint> =
        found.tables.iter().map(|table| (&table.name, table)).collect();
    for table in &expected.tables {
        let print = there.get(&table.name).copied();
        let said =
            print.map_or_else(|| Some("is missing".to_owned()), |print| differs(table, print));
        let ok = said.is_none() || expected.approximate && print.is_some();
        if let Some(said) = said {
            let said = format!("table {}.{} {said}", table.name.schema, table.name.table);
            // Counted at another moment than the dump's.
            if ok { &mut compared.notes } else { &mut compared.failures }.push(said);
        }
        let (expected, found) = (Held::from(table), print.map(Held::from));
        compared.tables.push(TableMatch { name: table.name.clone(), expected, found, ok });
    }
    let last: BTreeMap<&TableName, i64> =
        found.sequences.iter().map(|sequence| (&sequence.name, sequence.last)).collect();
    for sequence in &expected.sequences {
        let name = format!("{}.{}", sequence.name.schema, sequence.name.table);
        // They are not part of a snapshot: one that went on before its dump is ahead.
        match last.get(&sequence.name) {
            None => compared.failures.push(format!("the sequence {name} is missing or unused")),
            Some(last) if *last < sequence.last => compared
                .failures
                .push(format!("the sequence {name} is at {last} and was at {}", sequence.last)),
            Some(_) => {}
        }
    }
    if expected.objects.is_empty() {
        return;
    }
    let kinds: BTreeSet<&String> = expected.objects.keys().chain(found.objects.keys()).collect();
    for kind in kinds {
        let number = |print: &Fingerprint| print.objects.get(kind).copied().unwrap_or(0);
        let (was, is) = (number(expected), number(found));
        if was != is {
            compared.failures.push(format!("{is} {kind}, and there were {was}"));
        }
    }
}

/// How a table is not what it was.
fn differs(expected: &TablePrint, found: &TablePrint) -> Option<String> {
    if expected.rows != found.rows {
        return Some(format!("has {} rows, and had {}", found.rows, expected.rows));
    }
    match (&expected.hash, &found.hash) {
        (Some(was), Some(is)) if was != is => {
            Some(format!("has its {} rows, but not what was in them", found.rows))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Engine, FingerprintLevel, Locale, SequencePrint};

    fn name(table: &str) -> TableName {
        TableName { schema: "public".into(), table: table.into() }
    }

    fn shop() -> SourceFacts {
        let table = |table: &str, rows, hash: &str| TablePrint {
            name: name(table),
            rows,
            hash: Some(hash.to_owned()),
        };
        SourceFacts {
            server_version: Some("15.18".into()),
            collation: Some("C".into()),
            locale: Some(Locale {
                ctype: "C.UTF-8".into(),
                provider: "icu".into(),
                name: Some("es".into()),
                rules: None,
            }),
            extensions: vec!["pg_trgm 1.6".into()],
            roles: vec!["shop".into()],
            fingerprint: Some(Fingerprint {
                level: FingerprintLevel::Content,
                approximate: false,
                tables: vec![table("orders", 3, "aa"), table("users", 5, "bb")],
                sequences: vec![SequencePrint { name: name("orders_id_seq"), last: 3 }],
                objects: [("functions".to_owned(), 2), ("tables".to_owned(), 2)].into(),
            }),
            ..SourceFacts::named(Engine::Postgres, "shop")
        }
    }

    fn locale(facts: &mut SourceFacts) -> &mut Locale {
        facts.locale.as_mut().unwrap()
    }

    fn failures(change: impl FnOnce(&mut SourceFacts, &mut Fingerprint)) -> Vec<String> {
        let mut found = shop();
        let mut print = found.fingerprint.take().unwrap();
        change(&mut found, &mut print);
        found.fingerprint = Some(print);
        compare(&shop(), &found).failures
    }

    #[test]
    fn what_is_as_it_was_has_no_failure() {
        let compared = compare(&shop(), &shop());
        assert_eq!(compared.failures, [""; 0]);
        assert_eq!((compared.tables.len(), compared.rows()), (2, 8));
        assert!(compared.tables.iter().all(|table| table.ok));
        assert_eq!(failures(|_, print| print.sequences[0].last = 9), [""; 0], "ahead is fine");
    }

    #[test]
    fn each_difference_is_named() {
        type Change = fn(&mut SourceFacts, &mut Fingerprint);
        let changes: [(Change, &str); 13] = [
            (|_, p| p.tables[0].rows = 2, "table public.orders has 2 rows, and had 3"),
            (|_, p| p.tables[1].hash = Some("cc".into()), "not what was in them"),
            (|_, p| drop(p.tables.remove(0)), "table public.orders is missing"),
            (|_, p| p.sequences[0].last = 2, "public.orders_id_seq is at 2 and was at 3"),
            (|_, p| p.sequences.clear(), "public.orders_id_seq is missing"),
            (
                |_, p| *p.objects.entry("functions".into()).or_default() = 1,
                "1 functions, and there were 2",
            ),
            (|facts, _| facts.extensions.clear(), "the extension 'pg_trgm' is missing"),
            (|facts, _| facts.roles.clear(), "any more: shop"),
            (|facts, _| facts.collation = None, "its LC_COLLATE is none, and was 'C'"),
            (|facts, _| locale(facts).ctype = "C".into(), "its LC_CTYPE is 'C', and was 'C.UTF-8'"),
            (
                |facts, _| locale(facts).provider = "libc".into(),
                "provider is 'libc', and was 'icu'",
            ),
            (|facts, _| locale(facts).name = None, "its icu locale is none, and was 'es'"),
            (
                |facts, _| locale(facts).rules = Some("&a<z".into()),
                "ICU_RULES is '&a<z', and was none",
            ),
        ];
        for (change, said) in changes {
            let failures = failures(change);
            assert!(failures.len() == 1 && failures[0].contains(said), "{said}: {failures:?}");
        }
    }

    #[test]
    fn another_major_may_name_a_locale_in_other_words() {
        let renamed = failures(|facts, _| {
            facts.server_version = Some("17.5 (Debian)".into());
            locale(facts).name = Some("es-ES".into());
        });
        assert_eq!(renamed, [""; 0]);
    }

    #[test]
    fn what_can_not_be_compared_is_said() {
        let blank = SourceFacts { fingerprint: None, ..shop() };
        assert_eq!(compare(&shop(), &blank).failures.len(), 1);
        let compared = compare(&blank, &shop());
        assert_eq!((compared.failures.len(), compared.notes.len()), (0, 1));
    }

    #[test]
    fn counts_of_another_moment_are_notes() {
        let mut expected = shop();
        expected.fingerprint.as_mut().unwrap().approximate = true;
        let mut found = shop();
        found.fingerprint.as_mut().unwrap().tables[0].rows = 4;
        let compared = compare(&expected, &found);
        assert_eq!((compared.failures.len(), compared.notes.len()), (0, 1));
        found.fingerprint.as_mut().unwrap().tables.remove(0);
        assert_eq!(compare(&expected, &found).failures.len(), 1, "a missing table is one");
    }

    #[test]
    fn of_a_part_only_the_part_is_expected() {
        let table = Content::Rows(Some(name("users")));
        let expected = expected_of(&shop(), &[table]);
        let print = expected.fingerprint.unwrap();
        assert_eq!(print.tables.len(), 1);
        assert!(print.sequences.is_empty() && print.objects.is_empty());
        assert!(expected.extensions.is_empty() && expected.roles.is_empty());
        assert_eq!(expected_of(&shop(), &[Content::Main]), shop());
    }
}
