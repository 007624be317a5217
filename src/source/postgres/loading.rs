//! Archives loaded into a database that was made for them. Knows in which order, with which program
//! and as whom; must not know what the database is for, nor put it in the place of another.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::tables::quote;
use super::target::{conninfo_of, literal};
use super::{Postgres, client, fingerprint, tables};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, ArtifactFormat, Content, SourceFacts, TableName};
use crate::source::child::{self, Pipes, Program};
use crate::source::{Exit, Intake, Session, Wanted};

/// pg_restore's last words when it came to the end in spite of errors.
const WENT_ON: &str = "errors ignored on restore";
/// Sessions that load one archive, where nobody says how many.
const MOST_JOBS: usize = 4;
/// What is left free where an archive is kept for its second reading.
const ROOM: u64 = 256 << 20;

pub(super) struct Loading {
    pub server: Postgres,
    pub session: Session,
    /// The new database.
    pub database: String,
    pub facts: Option<SourceFacts>,
    /// Of the server that is loaded into.
    pub major: u32,
    pub no_owner: bool,
    /// The role that rows are loaded as, where the archive is not trusted with more.
    pub rows_as: Option<String>,
    jobs: usize,
    contents: Vec<Content>,
    /// The archive that is read a second time, for what comes after the rows.
    kept: Option<PathBuf>,
}

impl Loading {
    pub(super) fn new(
        server: &Postgres,
        wanted: &Wanted,
        session: &Session,
        (database, major): (String, u32),
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            server: server.clone(),
            session: session.clone(),
            database,
            facts: wanted.facts.clone(),
            major,
            no_owner: wanted.no_owner,
            rows_as: None,
            jobs: wanted.jobs.unwrap_or(cores.min(MOST_JOBS)),
            contents: wanted.artifacts.iter().map(|artifact| artifact.content.clone()).collect(),
            kept: None,
        }
    }

    /// Makes the database, with the encoding and locale of the one that was backed up.
    pub(super) async fn create(
        &self,
        admin: &mut PgConnection,
        owner: Option<&str>,
        tablespace: Option<&str>,
    ) -> Result<(), sqlx::Error> {
        let mut sql = format!("CREATE DATABASE {} TEMPLATE template0", quote(&self.database));
        if let Some(facts) = &self.facts {
            if let Some(encoding) = &facts.encoding {
                sql.push_str(&format!(" ENCODING {}", literal(encoding)));
            }
            if let Some(collation) = &facts.collation {
                let collation = literal(collation);
                sql.push_str(&format!(" LC_COLLATE {collation} LC_CTYPE {collation}"));
            }
        }
        if let Some(owner) = owner {
            sql.push_str(&format!(" OWNER {}", quote(owner)));
        }
        if let Some(tablespace) = tablespace {
            sql.push_str(&format!(" TABLESPACE {}", quote(tablespace)));
        }
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(admin).await.map(drop)
    }

    /// Every new database has a schema `public`, and pg_dump names it when it is asked for it alone.
    pub(super) async fn make_room(&self) -> Result<()> {
        if self.contents == [Content::Schema("public".into())] {
            let mut inside = self.server.connect(&self.database).await?;
            let sql = "DROP SCHEMA public";
            sqlx::raw_sql(sql).execute(&mut inside).await.context("make room for the schema")?;
            inside.close().await.ok();
        }
        Ok(())
    }

    /// Whether several archives together make the database: the main one's definitions, every row
    /// there is, and then the main one's indexes and keys.
    fn is_parted(&self) -> bool {
        self.contents.len() > 1 && self.contents.contains(&Content::Main)
    }

    /// Whether all of the database is loaded, and not only a part of it.
    pub(super) fn is_whole(&self) -> bool {
        self.contents.iter().any(|part| matches!(part, Content::Whole | Content::Main))
    }

    /// What of it is loaded.
    pub(super) fn contents(&self) -> &[Content] {
        &self.contents
    }

    /// The major version that reads the archive and suits the server.
    fn reads_with(&self) -> u32 {
        let written_by = self.facts.as_ref().and_then(|facts| facts.reads_with.as_deref());
        let archive = written_by.and_then(|text| text.rsplit(' ').next()?.parse().ok());
        self.major.max(archive.unwrap_or(self.major))
    }

    fn pg_restore(&self) -> Result<Program> {
        let bin_dir = self.server.bin_dir.as_deref();
        let client = client::for_server("pg_restore", self.reads_with(), bin_dir)?;
        let owner: &[&str] = if self.no_owner { &["--no-owner", "--no-acl"] } else { &[] };
        Ok(self
            .server
            .program(client.path, &self.database)
            .arg("--no-password")
            .arg(format!("--dbname={}", conninfo_of(&self.database)))
            .args(owner))
    }

    /// Of an archive in a file, by several sessions at once.
    fn section(&self, section: &str, archive: &PathBuf) -> Result<Program> {
        let role = self.rows_as.as_ref().filter(|_| section == "data");
        Ok(self
            .pg_restore()?
            .args(["--exit-on-error".to_owned(), format!("--section={section}")])
            .args(role.map(|role| format!("--role={role}")))
            .args((self.jobs > 1).then(|| format!("--jobs={}", self.jobs)))
            .arg(archive))
    }

    /// Takes one artifact in. The main archive, or the whole, comes first.
    pub(super) async fn load(&mut self, artifact: &Artifact) -> Result<Intake> {
        let is_main = matches!(artifact.content, Content::Whole | Content::Main);
        match artifact.format {
            ArtifactFormat::PgCustom if is_main && self.is_kept(artifact) => {
                self.load_and_keep(artifact).await
            }
            ArtifactFormat::PgCustom => self.load_stream(artifact).await,
            ArtifactFormat::PgPlain => {
                let bin_dir = self.server.bin_dir.as_deref();
                let client = client::for_server("psql", self.reads_with(), bin_dir)?;
                let program = self
                    .server
                    .program(client.path, &self.database)
                    .args(["--no-psqlrc", "--quiet", "--no-password", "--output=/dev/null"])
                    .args(["--set=ON_ERROR_STOP=1", "--file=-"]);
                self.feed(program, false).await
            }
            other => Err(Fault::permanent(format!("{other:?} can't be loaded into a database"))),
        }
    }

    /// Whether an archive is kept in the spool for what comes after the rows: it must be where its rows
    /// are in others or loaded as somebody else, and saves time where several sessions make the indexes.
    fn is_kept(&self, artifact: &Artifact) -> bool {
        let free = rustix::fs::statvfs(&self.session.spool)
            .map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let fits = free > artifact.plain_bytes.saturating_add(ROOM);
        self.is_parted() || self.rows_as.is_some() || self.jobs > 1 && fits
    }

    /// Its definitions and rows are loaded as they arrive; the archive stays for [`Self::complete`].
    async fn load_and_keep(&mut self, artifact: &Artifact) -> Result<Intake> {
        let path = self.session.spool.join(format!("main-{}", artifact.stem()));
        let kept = File::create(&path).context("keep the archive for its second reading")?;
        self.kept = Some(path.clone());
        if self.rows_as.is_some() {
            let definitions = self.section("pre-data", &path)?;
            let rows = self.section("data", &path)?;
            let session = self.session.clone();
            let exit = Exit::new(async move {
                let mut said = run(definitions, &session).await?;
                said.extend(run(rows, &session).await?);
                Ok(said)
            });
            return Ok(Intake { writer: Box::new(kept), exit });
        }
        let program =
            self.pg_restore()?.args(["--exit-on-error", "--section=pre-data", "--section=data"]);
        let Intake { writer, exit } = self.feed(program, false).await?;
        Ok(Intake { writer: Box::new(Both { kept, writer }), exit })
    }

    async fn load_stream(&self, artifact: &Artifact) -> Result<Intake> {
        // Of a schema's own archive the main one has the definitions already.
        let (part, goes_on): (&[&str], bool) = match (&artifact.content, self.is_parted()) {
            (_, true) => (&["--exit-on-error", "--section=data"], false),
            // What refers to other schemas can't be made without them; the rest is wanted.
            (Content::Schema(_), false) => (&[], true),
            _ => (&["--exit-on-error"], false),
        };
        let role = self.rows_as.as_ref().filter(|_| self.is_parted());
        let role = role.map(|role| format!("--role={role}"));
        self.feed(self.pg_restore()?.args(part).args(role), goes_on).await
    }

    async fn feed(&self, program: Program, goes_on: bool) -> Result<Intake> {
        let child = child::spawn(program, Pipes::Stdin, self.session.cancel.clone()).await?;
        let writer = child.stdin.ok_or_else(|| Fault::permanent("the program has no input"))?;
        let exit = Exit::new(async move {
            let ended = child::ended(child.end).await?;
            let went_on = goes_on && ended.stderr.iter().any(|line| line.contains(WENT_ON));
            match ended.status.success() || went_on {
                true => Ok(ended.stderr),
                false => Err(explain(ended.fault())),
            }
        });
        Ok(Intake { writer: Box::new(writer), exit })
    }

    /// Indexes, keys and triggers, now that every row is there.
    pub(super) async fn complete(&mut self) -> Result<()> {
        if let Some(kept) = self.kept.take() {
            run(self.section("post-data", &kept)?, &self.session).await?;
            std::fs::remove_file(&kept).ok();
        }
        Ok(())
    }

    /// What the database holds, by the questions that were asked of the one that was backed up.
    pub(super) async fn holds(&self, expected: &SourceFacts) -> Result<SourceFacts> {
        let mut connection = self.server.connect(&self.database).await?;
        let (_, mut facts) = self.server.facts(&mut connection).await?;
        if let Some(print) = &expected.fingerprint {
            let there = tables::list(&mut connection).await?;
            let is_there = |name: &TableName| there.iter().any(|table| table.name == *name);
            let wanted = print.tables.iter().map(|table| &table.name);
            let wanted: Vec<_> = wanted.filter(|name| is_there(name)).cloned().collect();
            fingerprint::begin(&mut connection, None).await?;
            let taken = fingerprint::take(&mut connection, &wanted, print.level);
            facts.fingerprint = Some(tokio::select! {
                taken = taken => taken?,
                () = self.session.cancel.cancelled() => {
                    return Err(Fault::cancelled("the restore was stopped"));
                }
            });
        }
        connection.close().await.ok();
        Ok(facts)
    }
}

/// What is loaded and kept at once.
struct Both {
    kept: File,
    writer: Box<dyn Write + Send>,
}

impl Write for Both {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.kept.write_all(bytes)?;
        self.writer.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

async fn run(program: Program, session: &Session) -> Result<Vec<String>> {
    let child = child::spawn(program, Pipes::Stdout, session.cancel.clone()).await?;
    drop(child.stdout);
    let ended = child::ended(child.end).await?;
    if ended.status.success() { Ok(ended.stderr) } else { Err(explain(ended.fault())) }
}

fn explain(fault: Fault) -> Fault {
    let text = fault.chain();
    if text.contains("role \"") && text.contains("does not exist") {
        return fault
            .hint("create the missing role first (--create-roles), or restore with --no-owner");
    }
    if text.contains("extension") {
        return fault.hint("install the extension on this server first");
    }
    fault
}
