//! A backup loaded into the live database itself, where no other may be made: everything is fetched and
//! checked first, and then takes the place of what is there in one transaction. Knows what pg_restore
//! writes as SQL; must not keep anything of what was there.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::Connection as _;

use super::loading::Loading;
use super::reapply::{in_block, reapplying};
use super::tables::{Selection, quoted};
use super::target::literal;
use super::{DumpFormat, Postgres, belongings};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, ArtifactFormat, Content, Erasure, SourceFacts};
use crate::source::child::{self, Pipes, Program};
use crate::source::{Exit, Finished, Intake, Session, Source, Target, Wanted};

/// Everything goes that is there, whatever depends on whatever, but for what belongs to extensions.
/// pg_restore would drop only what the backup has too, and stop at what depends on it.
const CLEAR: &str = r"
SET LOCAL client_min_messages = warning;
DO $respaldo$
DECLARE
    drops text[];
    one text;
BEGIN
    SELECT array_agg(sql) INTO drops FROM (
        SELECT format('DROP SCHEMA IF EXISTS %I CASCADE', nspname) AS sql FROM pg_namespace n
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')
          AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.deptype = 'e'
                          AND d.classid = 'pg_namespace'::regclass AND d.objid = n.oid)
        UNION ALL
        SELECT format('DROP %s IF EXISTS public.%I CASCADE', CASE relkind
                   WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
                   WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, relname)
        FROM pg_class c
        WHERE relnamespace = to_regnamespace('public') AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
          AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.deptype = 'e'
                          AND d.classid = 'pg_class'::regclass AND d.objid = c.oid)
        UNION ALL
        SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', oid::regprocedure) FROM pg_proc p
        WHERE pronamespace = to_regnamespace('public')
          AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.deptype = 'e'
                          AND d.classid = 'pg_proc'::regclass AND d.objid = p.oid)
        UNION ALL
        SELECT format('DROP TYPE IF EXISTS public.%I CASCADE', typname) FROM pg_type t
        WHERE typnamespace = to_regnamespace('public') AND typtype IN ('d', 'e', 'r')
          AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.deptype = 'e'
                          AND d.classid = 'pg_type'::regclass AND d.objid = t.oid)) AS everything;
    FOREACH one IN ARRAY coalesce(drops, '{}') LOOP
        EXECUTE one;
    END LOOP;
    PERFORM lo_unlink(oid) FROM pg_largeobject_metadata;
END
$respaldo$;
";
const WRITE: &str = "hand the backup to psql";
/// What pg_restore writes before each definition, and not before what it drops.
const DEFINITION: &[u8] = b"-- Name: ";

pub(super) struct InPlace {
    loading: Loading,
    archives: Vec<(Content, PathBuf)>,
    tables: usize,
    clients: i64,
    obstacles: Vec<String>,
    erasures: Vec<Erasure>,
    unchecked: bool,
    done: bool,
}

impl InPlace {
    pub(super) async fn new(
        source: &Postgres,
        wanted: &Wanted,
        session: &Session,
        (name, major): (String, u32),
    ) -> Result<Self> {
        let mut obstacles = Vec::new();
        let mut admin = source.connect_beside(&name).await?;
        let exists = belongings::of(&mut admin, &name).await?.is_some();
        let doing = "look at the database";
        let clients: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE datname = $1")
                .bind(&name)
                .fetch_one(&mut admin)
                .await
                .context(doing)?;
        admin.close().await.ok();
        let mut tables = 0;
        if exists {
            let mut inside = source.connect(&name).await?;
            tables = super::tables::list(&mut inside).await?.len();
            inside.close().await.ok();
        } else {
            obstacles.push(format!("there is no database '{name}': leave --in-place away"));
        }
        let whole = |artifact: &Artifact| {
            matches!(artifact.content, Content::Whole | Content::Main)
                && artifact.format == ArtifactFormat::PgCustom
        };
        if !wanted.artifacts.iter().any(whole) {
            obstacles.push(
                "in place goes only the whole of a database in pg_dump's custom format: restore it with --database NAME beside the present one".to_owned(),
            );
        }
        Ok(Self {
            loading: Loading::new(source, wanted, session, (name, major)),
            archives: Vec::new(),
            tables,
            clients,
            obstacles,
            erasures: wanted.erasures.clone(),
            unchecked: wanted.unchecked,
            done: false,
        })
    }

    /// The SQL of everything, in an order that ends well: first all that is there is dropped, whatever
    /// depends on whatever; and keys come after every row.
    fn steps(&self) -> Result<Vec<(Program, Part)>> {
        let is_main = |content: &Content| matches!(content, Content::Whole | Content::Main);
        let (_, main) = self
            .archives
            .iter()
            .find(|(content, _)| is_main(content))
            .ok_or_else(|| Fault::permanent("the main archive is missing"))?;
        let step = |words: &[&str], archive: &PathBuf, part| -> Result<(Program, Part)> {
            Ok((self.loading.written_out()?.args(words).arg(archive), part))
        };
        let mut steps = vec![
            step(
                &["--clean", "--if-exists", "--section=pre-data", "--section=post-data"],
                main,
                Part::Drops,
            )?,
            step(&["--section=pre-data"], main, Part::All)?,
        ];
        for (_, archive) in &self.archives {
            steps.push(step(&["--section=data"], archive, Part::Rows)?);
        }
        steps.push(step(&["--section=post-data"], main, Part::All)?);
        Ok(steps)
    }

    /// SQL that fails where a table does not have the rows that it had: before anybody else sees them, and
    /// while there still is a way back.
    fn checks(&self) -> String {
        let facts = self.loading.facts.as_ref().filter(|_| !self.unchecked);
        let print = facts.and_then(|facts| self.loading.expects(facts).fingerprint);
        let tables = print.map(|print| print.tables).unwrap_or_default();
        let checks = tables.iter().map(|table| {
            let (name, rows) = (quoted(&table.name), table.rows);
            let what = literal(&format!("table {name} has other rows than it had: not {rows}"));
            in_block(&format!(
                "IF (SELECT count(*) FROM ONLY {name}) <> {rows} THEN RAISE EXCEPTION '%', {what}; END IF;"
            ))
        });
        checks.collect()
    }
}

/// What is taken of pg_restore's output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    /// Up to the first definition.
    Drops,
    /// Without transactions of its own, which large objects have.
    Rows,
}

#[async_trait]
impl Target for InPlace {
    fn plan(&self) -> Vec<String> {
        let server = &self.loading.server;
        vec![
            format!(
                "into the live database '{}' on {}:{} (PostgreSQL {}), in one transaction",
                self.loading.database, server.host, server.port, self.loading.major
            ),
            format!(
                "there now: {} tables and {} clients; all of it is dropped, and made anew from the backup",
                self.tables, self.clients
            ),
            "a safety backup of the present state is made first".to_owned(),
        ]
    }

    fn name(&self) -> String {
        self.loading.database.clone()
    }

    fn obstacles(&self) -> Vec<String> {
        self.obstacles.clone()
    }

    fn overwrites(&self) -> Option<Arc<dyn Source>> {
        let server = self.loading.server.clone();
        // What a backup of the job leaves out is dropped too. A schema that only others may read goes on
        // being encrypted to them.
        let all = Selection {
            exclude_tables: Vec::new(),
            exclude_rows: Vec::new(),
            ..server.selection.clone()
        };
        Some(Arc::new(Postgres {
            database: self.loading.database.clone(),
            format: DumpFormat::Custom,
            selection: all,
            ..server
        }))
    }

    async fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    async fn load(&mut self, artifact: &Artifact) -> Result<Intake> {
        let name = format!("in-place-{}-{}", self.archives.len(), artifact.stem());
        let path = self.loading.session.spool.join(name);
        let writer = File::create(&path).context("keep the archive until all are here")?;
        self.archives.push((artifact.content.clone(), path));
        Ok(Intake { writer: Box::new(writer), exit: Exit::new(async { Ok(Vec::new()) }) })
    }

    fn expects(&self, facts: &SourceFacts) -> SourceFacts {
        // The database stays the one that it is.
        SourceFacts { locale: None, ..self.loading.expects(facts) }
    }

    async fn holds(&mut self, expected: &SourceFacts) -> Result<Option<SourceFacts>> {
        match self.done {
            true => self.loading.holds(expected).await.map(Some),
            false => Ok(None),
        }
    }

    async fn finish(&mut self) -> Result<Finished> {
        let session = &self.loading.session;
        let psql = self.loading.psql()?;
        let psql = child::spawn(psql, Pipes::Stdin, session.cancel.clone()).await?;
        let mut into = psql.stdin.ok_or_else(|| Fault::permanent("psql has no input"))?;
        let mut fed = Ok(());
        // Not psql's own single transaction, which the end of its input commits: that comes when we are
        // killed, too.
        into.write_all(b"BEGIN; SET LOCAL lock_timeout = '5min';\n").context(WRITE)?;
        into.write_all(CLEAR.as_bytes()).context(WRITE)?;
        for (program, part) in self.steps()? {
            let step = child::spawn(program, Pipes::Stdout, session.cancel.clone()).await?;
            let from = step.stdout.ok_or_else(|| Fault::permanent("pg_restore has no output"))?;
            let mut writer = into.try_clone().context(WRITE)?;
            let copied = tokio::task::spawn_blocking(move || copy(from, &mut writer, part)).await;
            let copied = copied.context(WRITE)?;
            let ended = child::ended(step.end).await?;
            // Its output was not read to the end where only the drops are wanted.
            let whole = ended.status.success() || part == Part::Drops;
            fed = match copied {
                Ok(()) if whole => Ok(()),
                Ok(()) => Err(ended.fault()),
                Err(error) => Err(error).context(WRITE),
            };
            if fed.is_err() {
                break;
            }
        }
        if fed.is_ok() {
            let last = format!("\n{}{}COMMIT;\n", self.checks(), reapplying(&self.erasures));
            fed = into.write_all(last.as_bytes()).context(WRITE);
        }
        drop(into);
        let ended = child::ended(psql.end).await?;
        if !ended.status.success() {
            return Err(ended.fault().hint(
                "the transaction was rolled back: the database is as it was; are clients still using it?",
            ));
        }
        // Without its last word psql has rolled back, and is content.
        fed?;
        self.done = true;
        let mut said = vec![format!("'{}' holds what the backup holds", self.loading.database)];
        if !self.erasures.is_empty() {
            said.push(format!("{} erasures were reapplied", self.erasures.len()));
        }
        // It is in place, whatever becomes of this.
        if let Err(fault) = self.loading.analyze().await {
            said.push(format!("run ANALYZE in '{}': {}", self.loading.database, fault.chain()));
        }
        Ok(said.into())
    }

    async fn discard(&mut self) {}
}

/// Copies SQL, line by line where some of it is left out.
fn copy(from: File, to: &mut File, part: Part) -> io::Result<()> {
    let mut from = BufReader::with_capacity(256 << 10, from);
    if part == Part::All {
        return io::copy(&mut from, to).map(drop);
    }
    let mut to = io::BufWriter::with_capacity(256 << 10, to);
    let (mut line, mut in_rows) = (Vec::new(), false);
    // Newer ones forbid psql's own commands, until a word that ends their output.
    let mut restricted = None;
    while from.read_until(b'\n', &mut line)? > 0 {
        if part == Part::Drops && line.starts_with(DEFINITION) {
            // The line before began its comment; this one ends it.
            to.write_all(b"\n")?;
            if let Some(word) = restricted {
                writeln!(to, "\\unrestrict {word}")?;
            }
            break;
        }
        if let Some(word) = line.strip_prefix(b"\\restrict ") {
            restricted = Some(String::from_utf8_lossy(word.trim_ascii()).into_owned());
        }
        let text = line.trim_ascii_end();
        let is_word = !in_rows && (text == b"BEGIN;" || text == b"COMMIT;");
        match in_rows {
            true => in_rows = text != b"\\.",
            false => in_rows = text.starts_with(b"COPY ") && text.ends_with(b" FROM stdin;"),
        }
        if part != Part::Rows || !is_word {
            to.write_all(&line)?;
        }
        line.clear();
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn copied(text: &str, part: Part) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("from");
        std::fs::write(&path, text).unwrap();
        let mut to = File::create(folder.path().join("to")).unwrap();
        copy(File::open(&path).unwrap(), &mut to, part).unwrap();
        let mut out = String::new();
        File::open(folder.path().join("to")).unwrap().read_to_string(&mut out).unwrap();
        out
    }

    #[test]
    fn rows_lose_transactions_and_nothing_else() {
        let text =
            "BEGIN;\nCOPY public.t (x) FROM stdin;\nBEGIN;\nCOMMIT;\n\\.\nSELECT 1;\nCOMMIT;\n";
        let kept = "COPY public.t (x) FROM stdin;\nBEGIN;\nCOMMIT;\n\\.\nSELECT 1;\n";
        assert_eq!(copied(text, Part::Rows), kept);
        assert_eq!(copied(text, Part::All), text);
    }

    #[test]
    fn drops_end_where_definitions_begin() {
        let text = "SET x = 1;\nDROP TABLE a;\n--\n-- Name: a; Type: TABLE\nCREATE TABLE a();\n";
        assert_eq!(copied(text, Part::Drops), "SET x = 1;\nDROP TABLE a;\n--\n\n");
        let restricted = format!("\\restrict word\n{text}");
        assert!(copied(&restricted, Part::Drops).ends_with("--\n\n\\unrestrict word\n"));
    }
}
