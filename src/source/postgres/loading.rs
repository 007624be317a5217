//! Archives loaded into a database that was made for them. Knows in which order, with which program
//! and as whom; must not know what the database is for, nor put it in the place of another.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::blocks::Joined;
use super::frozen::Frozen;
use super::holdings::Ready;
use super::programs::{run_on, went};
use super::tables::quote;
use super::target::conninfo_of;
use super::{Postgres, arrival, client, locale, swap};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, ArtifactFormat, Content, SourceFacts, TableName};
use crate::source::child::{self, Pipes, Program};
use crate::source::{Exit, Intake, Piece, Session, Wanted};

/// Sessions that load one archive, where nobody says how many.
const MOST_JOBS: usize = 4;
/// What is left free where an archive is kept for its second reading.
const ROOM: u64 = 256 << 20;

/// Several sessions at once, of an archive in a file.
pub(super) fn parallel(jobs: usize) -> Option<String> {
    (jobs > 1).then(|| format!("--jobs={jobs}"))
}

#[derive(Clone)]
pub(super) struct Loading {
    pub server: Postgres,
    pub session: Session,
    /// The new database.
    pub database: String,
    pub facts: Option<SourceFacts>,
    /// Of the server that is loaded into.
    pub major: u32,
    pub no_owner: bool,
    /// All that is wanted of it.
    pub only: Option<Piece>,
    /// Partitions of the table that is wanted, and those that inherit from it, once they are looked for.
    pub found_heirs: Arc<OnceLock<Vec<TableName>>>,
    /// The role that rows are loaded as, where the archive is not trusted with more.
    pub rows_as: Option<String>,
    /// Rows are loaded frozen.
    pub freezes: bool,
    /// A plain SQL dump.
    pub is_script: bool,
    pub jobs: usize,
    /// Of so many: whoever loads holds one.
    pub sessions: Arc<Semaphore>,
    pub contents: Vec<Content>,
    /// The archive that is read a second time, for what comes after the rows.
    kept: Option<PathBuf>,
    pub ready: Ready,
}

impl Loading {
    pub(super) fn new(
        server: &Postgres,
        wanted: &Wanted,
        session: &Session,
        (database, major): (String, u32),
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = wanted.jobs.unwrap_or(cores.min(MOST_JOBS));
        Self {
            server: server.clone(),
            session: session.clone(),
            database,
            facts: wanted.facts.clone(),
            major,
            no_owner: wanted.no_owner,
            only: None,
            found_heirs: Arc::default(),
            rows_as: None,
            freezes: false,
            is_script: wanted.artifacts.iter().any(|a| a.format == ArtifactFormat::PgPlain),
            jobs,
            sessions: Arc::new(Semaphore::new(jobs.max(1))),
            contents: wanted.artifacts.iter().map(|artifact| artifact.content.clone()).collect(),
            kept: None,
            ready: Ready::default(),
        }
    }

    /// Claims the new database's name and makes it; the claim ends with the connection.
    pub(super) async fn begin_beside(
        &self,
        owner: Option<&str>,
        tablespace: Option<&str>,
    ) -> Result<PgConnection> {
        for line in self.server.drop_leftovers().await? {
            tracing::warn!("{line}");
        }
        let mut admin = self.server.connect("postgres").await?;
        if !swap::claim(&mut admin, &self.database).await? {
            return Err(Fault::transient(format!("'{}' is being restored already", self.database))
                .hint("wait for the other restore to end"));
        }
        self.create(&mut admin, owner, tablespace).await.map_err(|error| {
            Fault::permanent("create a database beside the present one").cause(error).hint(format!(
                "the user needs CREATEDB: ALTER ROLE {} CREATEDB; and the server the backup's locale",
                quote(&self.server.user)
            ))
        })?;
        self.make_room().await?;
        Ok(admin)
    }

    /// Drops what [`Self::begin_beside`] has made.
    pub(super) async fn drop_beside(&self, mut admin: PgConnection) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote(&self.database));
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await {
            tracing::warn!("could not drop the database '{}': {error}", self.database);
        }
        admin.close().await.ok();
    }

    /// Makes the database, with the encoding and locale of the one that was backed up.
    pub(super) async fn create(
        &self,
        admin: &mut PgConnection,
        owner: Option<&str>,
        tablespace: Option<&str>,
    ) -> Result<(), sqlx::Error> {
        let mut sql = format!("CREATE DATABASE {} TEMPLATE template0", quote(&self.database));
        sql.extend(self.facts.iter().map(|facts| locale::words(facts, self.major)));
        if let Some(owner) = owner {
            sql.push_str(&format!(" OWNER {}", quote(owner)));
        }
        // Whoever names it needs a right to it, and may have it without.
        if let Some(tablespace) = tablespace.filter(|name| *name != "pg_default") {
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

    /// The major version that reads the archive and suits the server.
    fn reads_with(&self) -> u32 {
        let archive = self.facts.as_ref().and_then(SourceFacts::reader_major);
        self.major.max(archive.unwrap_or(self.major))
    }

    pub(super) fn pg_restore(&self) -> Result<Program> {
        // Nobody but us is there yet: the swap's own commit brings all of it to the disk.
        let hurry = "-c maintenance_work_mem=256MB -c synchronous_commit=off";
        Ok(self.restore_into(&self.database)?.env("PGOPTIONS", hurry))
    }

    /// An archive's reader that writes into a database of the server.
    pub(super) fn restore_into(&self, database: &str) -> Result<Program> {
        let bin_dir = self.server.bin_dir.as_deref();
        let client = client::for_server("pg_restore", self.reads_with(), bin_dir)?;
        let owner: &[&str] = if self.no_owner { &["--no-owner", "--no-acl"] } else { &[] };
        // Of a server that was started for it nothing can be expected that is outside of the database.
        let alone: &[&str] = match self.rows_as {
            Some(_) => &["--no-tablespaces", "--no-subscriptions", "--no-security-labels"],
            None => &[],
        };
        Ok(self
            .server
            .program(client.path, database)
            .arg("--no-password")
            .arg(format!("--dbname={}", conninfo_of(database)))
            .args(owner)
            .args(alone))
    }

    /// More sessions for one who has one, as many as nobody uses, and together with its own at most so many.
    fn more_sessions(&self, most: usize) -> Option<SemaphorePermit<'_>> {
        let free = self.sessions.available_permits().min(most.saturating_sub(1));
        self.sessions.try_acquire_many(u32::try_from(free).ok()?).ok()
    }

    /// Makes what needs a table's rows alone, by as many sessions as there are.
    pub(super) async fn make(&self, archive: &Path, entries: &[i64]) -> Result<Vec<String>> {
        let more = self.more_sessions(entries.len());
        let jobs = 1 + more.as_ref().map_or(0, SemaphorePermit::num_permits);
        self.load_entries(self.pg_restore()?, archive, entries, jobs).await
    }

    /// SQL from its input, the first error of which is the end.
    pub(super) fn psql(&self) -> Result<Program> {
        let bin_dir = self.server.bin_dir.as_deref();
        let client = client::for_server("psql", self.reads_with(), bin_dir)?;
        Ok(self
            .server
            .program(client.path, &self.database)
            .args(["--no-psqlrc", "--quiet", "--no-password", "--output=/dev/null"])
            .args(["--set=ON_ERROR_STOP=1", "--file=-"]))
    }

    /// An archive as SQL text, for another program to run.
    pub(super) fn written_out(&self) -> Result<Program> {
        let bin_dir = self.server.bin_dir.as_deref();
        let client = client::for_server("pg_restore", self.reads_with(), bin_dir)?;
        let owner: &[&str] = if self.no_owner { &["--no-owner", "--no-acl"] } else { &[] };
        Ok(Program::new(client.path).arg("--file=-").args(owner))
    }

    /// Of an archive in a file, by several sessions at once.
    pub(super) async fn section(&self, section: &str, archive: &Path) -> Result<Vec<String>> {
        let mut said = Vec::new();
        for only in self.chosen(section) {
            let program = self
                .pg_restore()?
                .arg(format!("--section={section}"))
                .args((!self.goes_on(section)).then_some("--exit-on-error"))
                .args(only)
                .args(parallel(self.jobs))
                .arg(archive);
            said.extend(run_on((program, self.goes_on(section)), &self.session).await?);
        }
        Ok(said)
    }

    /// What is chosen of a section, run by run: names of tables hold in every schema that is named.
    fn chosen(&self, section: &str) -> Vec<Vec<String>> {
        // Of a piece all definitions are made, for it may need any; then only its own rows and keys.
        let only = self.only.as_ref().filter(|_| section != "pre-data");
        let Some(piece) = only else { return vec![Vec::new()] };
        let mut of: BTreeMap<&str, Vec<String>> = BTreeMap::from([(piece.schema(), Vec::new())]);
        if let Piece::Table(table) = piece {
            for name in self.heirs().iter().chain([table]) {
                of.entry(&name.schema).or_default().push(format!("--table={}", name.table));
            }
        }
        let run = |(schema, tables)| [vec![format!("--schema={schema}")], tables].concat();
        of.into_iter().map(run).collect()
    }

    /// What refers to something that is not loaded can't be made; the rest is wanted.
    fn goes_on(&self, section: &str) -> bool {
        let alone = self.contents.iter().any(|part| matches!(part, Content::Schema(_)));
        self.only.is_some() && (section == "post-data" || section == "pre-data" && alone)
    }

    /// Takes one artifact in. The main archive, or the whole, comes first.
    pub(super) async fn load(&mut self, artifact: &Artifact) -> Result<Intake> {
        let is_main = match artifact.content {
            Content::Whole | Content::Main => true,
            Content::Schema(_) => self.only.is_some(),
            _ => false,
        };
        match artifact.format {
            ArtifactFormat::PgCustom if is_main && self.is_kept(artifact) => {
                self.load_and_keep(artifact).await
            }
            ArtifactFormat::PgCustom => self.load_stream(artifact).await,
            ArtifactFormat::PgPlain => self.feed(self.as_rows(self.psql()?), false).await,
            other => Err(Fault::permanent(format!("{other:?} can't be loaded into a database"))),
        }
    }

    /// Where it makes the tables itself, and as who may empty them again.
    fn frozen(&self, artifact: &Artifact) -> Frozen {
        match &artifact.content {
            _ if !self.freezes || self.rows_as.is_some() || self.only.is_some() => Frozen::Nobodys,
            // An extension's table never has an archive of its own.
            Content::Rows(Some(_)) => Frozen::All,
            _ => Frozen::OfItsTables,
        }
    }

    /// Whether an archive is kept in the spool: it must be where it is read in several passes, and saves
    /// time where several sessions can read it.
    fn is_kept(&self, artifact: &Artifact) -> bool {
        let free = rustix::fs::statvfs(&self.session.spool)
            .map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let fits = free > artifact.plain_bytes.saturating_add(ROOM);
        let must = self.is_parted() || self.rows_as.is_some() || self.only.is_some();
        must || self.jobs > 1 && fits
    }

    /// The tables are loaded by several sessions at once, which a stream would not allow. Where more is to come
    /// the archive stays, for [`Self::complete`].
    async fn load_and_keep(&mut self, artifact: &Artifact) -> Result<Intake> {
        let path = self.session.spool.join(format!("main-{}", artifact.stem()));
        let doing = "keep the archive for its second reading";
        let (loading, frozen) = (self.clone(), self.frozen(artifact));
        if self.rows_as.is_none() && self.only.is_none() && !self.is_parted() {
            // Nothing else comes, nor is anything held back: it is loaded while it comes.
            let (spool, arrival, batches) = arrival::begin(&path).context(doing)?;
            let loaded = tokio::spawn(async move {
                let loaded = loading.load_arriving(&path, &arrival, batches).await;
                fs::remove_file(&path).ok();
                loaded
            });
            let exit = Exit::new(async move { loaded.await.context("load what has come")? });
            return Ok(Intake { writer: Box::new(Joined::new(spool, frozen)), exit });
        }
        let kept = File::create(&path).context(doing)?;
        self.kept = Some(path.clone());
        let exit = Exit::new(async move { loading.load_rows(&path).await });
        Ok(Intake { writer: Box::new(Joined::new(kept, frozen)), exit })
    }

    /// The definitions and the rows of an archive in a file.
    async fn load_rows(&self, archive: &Path) -> Result<Vec<String>> {
        let Some(rows) = &self.rows_as else {
            let mut said = self.section("pre-data", archive).await?;
            self.find_heirs().await?;
            said.extend(self.section("data", archive).await?);
            return Ok(said);
        };
        let mut said = self.in_passes("pre-data", archive, rows).await?;
        self.let_in(rows).await?;
        said.extend(self.in_passes("data", archive, rows).await?);
        Ok(said)
    }

    async fn load_stream(&self, artifact: &Artifact) -> Result<Intake> {
        // Of a schema's own archive the main one has the definitions already.
        let (part, goes_on): (&[&str], bool) = match (&artifact.content, self.is_parted()) {
            (_, true) => (&["--exit-on-error", "--section=data"], false),
            // What refers to other schemas can't be made without them; the rest is wanted.
            (Content::Schema(_), false) => (&[], true),
            _ => (&["--exit-on-error"], false),
        };
        let mut intake = self.feed(self.as_rows(self.pg_restore()?.args(part)), goes_on).await?;
        intake.writer = Box::new(Joined::new(intake.writer, self.frozen(artifact)));
        if let (Content::Rows(Some(table)), Some(main)) = (&artifact.content, &self.kept) {
            let (loading, table, main) = (self.clone(), table.clone(), main.clone());
            let session = self.sessions.clone().acquire_owned().await;
            let session = session.context("wait for a session")?;
            intake.exit = intake.exit.then(async move {
                let said = loading.make_ready(&table, &main).await;
                drop(session);
                said
            });
        }
        Ok(intake)
    }

    /// A session of that role's own: a function of the dump could leave one that was only set.
    fn as_rows(&self, program: Program) -> Program {
        match &self.rows_as {
            Some(rows) => program.env("PGUSER", rows),
            None => program,
        }
    }

    async fn feed(&self, program: Program, goes_on: bool) -> Result<Intake> {
        let child = child::spawn(program, Pipes::Stdin, self.session.cancel.clone()).await?;
        let writer = child.stdin.ok_or_else(|| Fault::permanent("the program has no input"))?;
        let exit = Exit::new(async move { went(child::ended(child.end).await?, goes_on) });
        Ok(Intake { writer: Box::new(writer), exit })
    }

    /// Indexes, keys and triggers, now that every row is there.
    pub(super) async fn complete(&mut self) -> Result<()> {
        self.find_heirs().await?;
        if let Some(facts) = &self.facts {
            self.can_be_compared(facts)?;
        }
        if let Some(kept) = self.kept.take() {
            let said = match &self.rows_as {
                Some(rows) => self.in_passes("post-data", &kept, rows).await?,
                None if self.only.is_some() => self.section("post-data", &kept).await?,
                None => self.make_rest(&kept).await?,
            };
            said.iter().for_each(|line| tracing::warn!("{line}"));
            fs::remove_file(&kept).ok();
        }
        self.script_is_over().await
    }
}
