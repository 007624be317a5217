//! Which tables there are, and which archive holds whose rows. Knows pg_dump's ways to choose; must
//! not start one.

use std::collections::HashSet;

use globset::{Glob, GlobSet, GlobSetBuilder};
use sqlx::{PgConnection, Row};

use crate::fault::{Context, Fault, Result};
use crate::model::{Content, TableName};

/// Tables named by one pattern: one argument may not get too long, nor all of them together.
const NAMES_AT_ONCE: usize = 200;

/// What a job wants of a database.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Schemas that get an archive of their own, as patterns; one that starts with `!` excepts.
    pub schemas: Vec<String>,
    /// Tables that are left out, as patterns of `schema.table`.
    pub exclude_tables: Vec<String>,
    /// Tables whose rows are left out.
    pub exclude_rows: Vec<String>,
    /// From this size on, in bytes, a table gets an archive of its own; None: none does.
    pub streams_above: Option<u64>,
}

/// A table, a partition or a materialized view, as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub name: TableName,
    pub kind: Kind,
    /// In bytes, with what is toasted.
    pub size: u64,
    /// Whether we may read it, and so lock it.
    pub readable: bool,
    /// It belongs to an extension, which makes it anew.
    pub of_extension: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Has rows of its own; a leaf partition too.
    Plain,
    Partitioned,
    Materialized,
}

/// One archive to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archive {
    pub content: Content,
    /// Added to the database's name in the artifact's.
    pub suffix: Option<String>,
    pub arguments: Vec<String>,
    pub size: u64,
}

/// The tables of the connection's database, but for the system's own and temporary ones.
pub(super) async fn list(connection: &mut PgConnection) -> Result<Vec<Table>> {
    let doing = "list the tables";
    let rows = sqlx::query(
        "SELECT n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
                greatest(c.relpages, 0)::bigint * current_setting('block_size')::bigint AS heap,
                coalesce((SELECT greatest(t.relpages, 0)::bigint * current_setting('block_size')::bigint
                          FROM pg_class t WHERE t.oid = c.reltoastrelid), 0) AS toasted,
                has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable,
                EXISTS (SELECT 1 FROM pg_depend d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
                    AS of_extension
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
           AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
         ORDER BY 1, 2",
    )
    .fetch_all(connection)
    .await
    .transient(doing)?;
    rows.iter()
        .map(|row| {
            let bytes = |column: &str| -> Result<u64> {
                Ok(u64::try_from(row.try_get::<i64, _>(column).context(doing)?).unwrap_or(0))
            };
            Ok(Table {
                name: TableName {
                    schema: row.try_get("schema").context(doing)?,
                    table: row.try_get("name").context(doing)?,
                },
                kind: match row.try_get::<&str, _>("kind").context(doing)? {
                    "p" => Kind::Partitioned,
                    "m" => Kind::Materialized,
                    _ => Kind::Plain,
                },
                size: bytes("heap")?.saturating_add(bytes("toasted")?),
                readable: row
                    .try_get::<Option<bool>, _>("readable")
                    .context(doing)?
                    .unwrap_or(false),
                of_extension: row.try_get("of_extension").context(doing)?,
            })
        })
        .collect()
}

/// What is left out and what is parted, decided from a list of tables.
#[derive(Debug)]
pub(super) struct Choice {
    pub archives: Vec<Archive>,
    /// Those whose rows some archive holds.
    pub with_rows: Vec<TableName>,
    /// Those that are dumped at all, to be locked.
    pub dumped: Vec<Table>,
    /// Every one that there was.
    pub seen: HashSet<TableName>,
    pub warnings: Vec<String>,
}

impl Selection {
    fn is_own_archive(&self, schema: &str, patterns: &(GlobSet, GlobSet)) -> bool {
        !self.schemas.is_empty() && patterns.0.is_match(schema) && !patterns.1.is_match(schema)
    }

    /// Decides which archives are made of these tables and schemas.
    pub(super) fn choose(&self, tables: Vec<Table>, schemas: &[String]) -> Result<Choice> {
        let (excepted, meant): (Vec<&str>, Vec<&str>) =
            self.schemas.iter().map(String::as_str).partition(|pattern| pattern.starts_with('!'));
        let excepted: Vec<&str> = excepted.iter().map(|pattern| &pattern[1..]).collect();
        let patterns = (globs(&meant)?, globs(&excepted)?);
        let without = globs(&self.exclude_tables)?;
        let without_rows = globs(&self.exclude_rows)?;
        let mut warnings = Vec::new();
        for (pattern, key) in self
            .exclude_tables
            .iter()
            .map(|pattern| (pattern, "exclude_tables"))
            .chain(self.exclude_rows.iter().map(|pattern| (pattern, "exclude_rows")))
        {
            let one = globs(&[pattern])?;
            if !tables.iter().any(|table| one.is_match(dotted(&table.name))) {
                warnings.push(format!("{key}: '{pattern}' matches no table"));
            }
        }
        for pattern in &meant {
            let one = globs(&[pattern])?;
            if !schemas.iter().any(|schema| one.is_match(schema)) {
                warnings.push(format!("schemas: '{pattern}' matches no schema"));
            }
        }

        let seen = tables.iter().map(|table| table.name.clone()).collect();
        let (left_out, dumped): (Vec<Table>, Vec<Table>) =
            tables.into_iter().partition(|table| without.is_match(dotted(&table.name)));
        let own: Vec<&String> =
            schemas.iter().filter(|schema| self.is_own_archive(schema, &patterns)).collect();
        let mut common: Vec<String> = left_out
            .iter()
            .map(|table| format!("--exclude-table={}", quoted(&table.name)))
            .collect();
        let mut with_rows = Vec::new();
        let mut apart = Vec::new();
        let mut rest = 0;
        for table in dumped.iter().filter(|table| table.kind == Kind::Plain) {
            if without_rows.is_match(dotted(&table.name)) {
                common.push(format!("--exclude-table-data={}", quoted(&table.name)));
                continue;
            }
            if !table.of_extension {
                with_rows.push(table.name.clone());
            }
            if own.contains(&&table.name.schema) {
                continue;
            }
            let is_large = self.streams_above.is_some_and(|least| table.size >= least);
            if is_large && !table.of_extension {
                apart.push(table);
            } else {
                rest += table.size;
            }
        }

        let mut main = common.clone();
        let patterns = own.iter().flat_map(|schema| patterns_of_rows(schema, &dumped));
        main.extend(patterns.map(|pattern| format!("--exclude-table-data={pattern}")));
        main.extend(apart.iter().map(|t| format!("--exclude-table-data={}", quoted(&t.name))));
        let parted = !own.is_empty() || !apart.is_empty();
        let content = if parted { Content::Main } else { Content::Whole };
        let mut archives = vec![Archive { content, suffix: None, arguments: main, size: rest }];
        for schema in own {
            let size = dumped.iter().filter(|t| t.name.schema == *schema).map(|t| t.size).sum();
            let mut arguments = vec![format!("--schema={}", quote(schema))];
            arguments.extend(common.iter().cloned());
            archives.push(Archive {
                content: Content::Schema(schema.clone()),
                suffix: Some(format!("schema.{schema}")),
                arguments,
                size,
            });
        }
        archives.extend(apart.into_iter().map(|table| Archive {
            content: Content::Rows(Some(table.name.clone())),
            suffix: Some(format!("table.{}", dotted(&table.name))),
            arguments: vec!["--data-only".into(), format!("--table={}", quoted(&table.name))],
            size: table.size,
        }));
        Ok(Choice { archives, with_rows, dumped, seen, warnings })
    }
}

impl Choice {
    /// Whether no table is left out.
    pub(super) fn is_all(&self) -> bool {
        self.dumped.len() == self.seen.len()
    }
}

/// Patterns of pg_dump's for all rows of a schema. They match none of its materialized views, which are
/// filled by the main archive, when every row of every schema is there.
fn patterns_of_rows(schema: &str, tables: &[Table]) -> Vec<String> {
    let in_schema =
        |kind| tables.iter().filter(move |table| table.name.schema == schema && table.kind == kind);
    if in_schema(Kind::Materialized).next().is_none() {
        return vec![format!("{}.*", quote(schema))];
    }
    // Outside of quotes a pattern is a regular expression. Sequences are then in both archives, which
    // does no harm: none is behind the snapshot.
    let names: Vec<String> = in_schema(Kind::Plain).map(|table| quote(&table.name.table)).collect();
    let some = names.chunks(NAMES_AT_ONCE);
    some.map(|names| format!("{}.({})", quote(schema), names.join("|"))).collect()
}

fn globs(patterns: &[impl AsRef<str>]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let pattern = pattern.as_ref();
        let glob = Glob::new(pattern).map_err(|error| {
            Fault::usage(format!("'{pattern}' is not a pattern: {}", error.kind()))
        })?;
        set.add(glob);
    }
    set.build().context("read the patterns of tables")
}

fn dotted(name: &TableName) -> String {
    format!("{}.{}", name.schema, name.table)
}

/// One part of a pattern of pg_dump's, or an SQL identifier: within quotes nothing is special.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn quoted(name: &TableName) -> String {
    format!("{}.{}", quote(&name.schema), quote(&name.table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(schema: &str, name: &str, size: u64) -> Table {
        Table {
            name: TableName { schema: schema.into(), table: name.into() },
            kind: Kind::Plain,
            size,
            readable: true,
            of_extension: false,
        }
    }

    fn shop() -> (Vec<Table>, Vec<String>) {
        let tables = vec![
            table("auth", "users", 10),
            table("public", "events", 1000),
            table("public", "tmp_1", 5),
            table("sales", "we\"ird", 20),
        ];
        (tables, ["auth", "empty", "public", "sales"].map(str::to_owned).to_vec())
    }

    fn chosen(selection: &Selection) -> Choice {
        let (tables, schemas) = shop();
        selection.choose(tables, &schemas).unwrap()
    }

    #[test]
    fn without_a_word_one_archive_holds_it_all() {
        let choice = chosen(&Selection::default());
        assert_eq!(choice.archives.len(), 1);
        assert_eq!(choice.archives[0].content, Content::Whole);
        assert!(choice.archives[0].arguments.is_empty());
        assert_eq!(choice.with_rows.len(), 4);
    }

    #[test]
    fn the_main_archive_leaves_out_exactly_the_rows_that_others_hold() {
        let selection = Selection {
            schemas: vec!["*".into(), "!public".into()],
            streams_above: Some(100),
            ..Selection::default()
        };
        let choice = chosen(&selection);
        let contents: Vec<&Content> = choice.archives.iter().map(|a| &a.content).collect();
        let events = TableName { schema: "public".into(), table: "events".into() };
        assert_eq!(
            contents,
            [
                &Content::Main,
                &Content::Schema("auth".into()),
                &Content::Schema("empty".into()),
                &Content::Schema("sales".into()),
                &Content::Rows(Some(events)),
            ]
        );
        let main = &choice.archives[0].arguments;
        for left_out in ["\"auth\".*", "\"empty\".*", "\"sales\".*", "\"public\".\"events\""] {
            assert!(main.contains(&format!("--exclude-table-data={left_out}")), "{main:?}");
        }
        assert_eq!(main.len(), 4);
    }

    #[test]
    fn the_main_archive_fills_the_materialized_views_of_every_schema() {
        let (mut tables, schemas) = shop();
        let view = Table { kind: Kind::Materialized, ..table("sales", "totals", 10) };
        tables.extend([table("sales", "orders", 1), view]);
        let selection =
            Selection { schemas: vec!["auth".into(), "sales".into()], ..Selection::default() };
        let main = &selection.choose(tables, &schemas).unwrap().archives[0].arguments;
        let expected = ["\"auth\".*", r#""sales".("we""ird"|"orders")"#];
        assert_eq!(*main, expected.map(|pattern| format!("--exclude-table-data={pattern}")));
    }

    #[test]
    fn what_is_excluded_is_in_no_archive_and_what_matches_nothing_is_said() {
        let selection = Selection {
            schemas: vec!["sales".into(), "nope_*".into()],
            exclude_tables: vec!["public.tmp_*".into()],
            exclude_rows: vec!["sales.*".into(), "x.y".into()],
            ..Selection::default()
        };
        let choice = chosen(&selection);
        for archive in &choice.archives {
            let arguments = &archive.arguments;
            assert!(arguments.contains(&"--exclude-table=\"public\".\"tmp_1\"".into()));
            assert!(arguments.contains(&"--exclude-table-data=\"sales\".\"we\"\"ird\"".into()));
        }
        assert_eq!(choice.with_rows.len(), 2);
        assert_eq!(choice.warnings.len(), 2, "{:?}", choice.warnings);
    }
}
