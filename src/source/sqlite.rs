//! SQLite: a consistent copy of a database that is being written to, by the online backup API.
//! Knows SQLite's files; must not know how a copy is stored.

mod fingerprint;
mod replace;
mod scratch;
mod target;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{
    Closing, Dump, Exit, Flow, Kept, Leftovers, Part, Print, Scratch, Session, Source, Target,
    Wanted, safe_name,
};
use crate::fault::{Context, Fault, Result};
use crate::model::{ArtifactFormat, Engine, SourceFacts};
use scratch::SqliteScratch;
use target::SqliteTarget;

/// How long a writer's lock is waited for.
const BUSY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Sqlite {
    pub path: PathBuf,
    /// What is taken of every table beside the copy; None: nothing.
    pub fingerprint: Print,
}

#[async_trait]
impl Source for Sqlite {
    fn engine(&self) -> Engine {
        Engine::Sqlite
    }

    fn name(&self) -> String {
        file_name(&self.path)
    }

    async fn inspect(&self, _session: &Session) -> Result<SourceFacts> {
        let path = self.path.clone();
        blocking(move || facts(&path, &open(&path)?)).await
    }

    async fn open(&self, session: &Session) -> Result<Dump> {
        let copy = session.spool.join("copy.sqlite3");
        let (path, target, level) =
            (self.path.clone(), copy.clone(), self.fingerprint.level(session));
        let (facts, fingerprint) = blocking(move || {
            let source = open(&path)?;
            let facts = facts(&path, &source)?;
            copy_database(&source, &target)?;
            integrity(&target)?;
            let print = level.map(|level| fingerprint::take(&open(&target)?, level)).transpose()?;
            Ok((facts, print))
        })
        .await?;
        let part = Part::new(stem(&self.path), ArtifactFormat::SqliteFile, move || {
            async move {
                let reader = File::open(&copy).context("read the copy")?;
                // The name is no longer needed: the space goes when the reader does.
                std::fs::remove_file(&copy).context("remove the copy")?;
                Ok(Flow { reader: Box::new(reader), exit: Exit::new(async { Ok(Vec::new()) }) })
            }
            .boxed()
        });
        let closing = Closing { fingerprint, ..Closing::default() };
        let closing = std::future::ready(Ok(closing));
        Ok(Dump::new(facts, vec![part]).closing_with(closing))
    }

    async fn target(&self, wanted: &Wanted, _session: &Session) -> Result<Box<dyn Target>> {
        let (path, wanted) = (self.path.clone(), wanted.clone());
        blocking(move || Ok(Box::new(SqliteTarget::new(&path, &wanted)?) as Box<dyn Target>)).await
    }

    async fn undo(&self, kept: &Kept, _session: &Session) -> Result<Kept> {
        let kept = kept.clone();
        blocking(move || replace::undo(&kept)).await
    }

    async fn forget(&self, kept: &Kept, _session: &Session) -> Result<()> {
        let kept = kept.clone();
        blocking(move || replace::forget(&kept)).await
    }

    async fn clear_leftovers(&self) -> Result<Leftovers> {
        let path = self.path.clone();
        blocking(move || replace::clear_leftovers(&path)).await.map(Leftovers::from)
    }

    async fn scratch(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Scratch>> {
        Ok(Box::new(SqliteScratch::new(wanted, session)?))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("work on a database")?
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn stem(path: &Path) -> String {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    safe_name(&name, "database")
}

/// Opens read-only. A database in WAL mode may need its `-shm` file made, which takes the right to
/// write beside it.
fn open(path: &Path) -> Result<Connection> {
    let doing = format!("open {}", path.display());
    let meta = std::fs::metadata(path).map_err(|error| {
        Fault::permanent(doing.clone()).cause(error).hint(
            "check `source.sqlite` in the config, and that the folder is mounted and readable here",
        )
    })?;
    if !meta.is_file() {
        return Err(Fault::permanent(format!("{} is not a file", path.display())));
    }
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let read_write = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut refused = None;
    for flags in [read_only, read_write] {
        let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
            connection.busy_timeout(BUSY)?;
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            Ok(connection)
        });
        match opened {
            Ok(connection) => return Ok(connection),
            Err(error) => refused = Some(error),
        }
    }
    let Some(error) = refused else { return Err(Fault::permanent(doing)) };
    let hint = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "this file is not an SQLite database",
        Some(ErrorCode::DatabaseBusy) => "a writer holds its lock; is a transaction left open?",
        _ => {
            "a database in WAL mode needs its folder writable for this user (for the -shm file), or a writer that has it open"
        }
    };
    Err(Fault::permanent(doing).cause(error).hint(hint))
}

fn facts(path: &Path, connection: &Connection) -> Result<SourceFacts> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, u32>(0));
    let pages = number("PRAGMA page_count").context("read the database's size")?;
    let page_size = number("PRAGMA page_size").context("read the database's size")?;
    let encoding: String = connection
        .query_row("PRAGMA encoding", [], |row| row.get(0))
        .context("read the database's encoding")?;
    Ok(SourceFacts {
        server_version: Some(rusqlite::version().to_owned()),
        size_bytes: Some(u64::from(pages) * u64::from(page_size)),
        encoding: Some(encoding),
        tool: Some(format!("SQLite {} online backup", rusqlite::version())),
        ..SourceFacts::named(Engine::Sqlite, file_name(path))
    })
}

fn copy_database(source: &Connection, target: &Path) -> Result<()> {
    let doing = "copy the database";
    let mut copy = Connection::open(target).context(doing)?;
    let backup = Backup::new(source, &mut copy).context(doing)?;
    let most = BUSY.as_millis() / 100;
    for _ in 0..most {
        // All pages in one step: between steps a writer would make the copy start over.
        match backup.step(-1).context(doing)? {
            StepResult::Done => return Ok(()),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    Err(Fault::transient("the database stayed locked for a minute")
        .hint("is a transaction left open by the application?"))
}

/// SQLite's own full check of a file.
pub fn integrity(path: &Path) -> Result<()> {
    let doing = "check the database's integrity";
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).context(doing)?;
    let checked = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
    let verdict: String = checked.or_else(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Ok(error.to_string()),
        _ => Err(error).context(doing),
    })?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(Fault::permanent(format!("the database is damaged: {verdict}"))
        .hint("see https://www.sqlite.org/recovery.html; the backups made before are untouched"))
}
