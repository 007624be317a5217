//! The engine's own reader as a check: takes a whole plain stream and says whether it is one. Knows
//! each artifact format's reader; must not know where the bytes come from.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::child::{self, Pipes, Program};
use super::postgres::client;
use super::unpacked::unpacked;
use super::{Exit, Intake, Session, mysql, sqlite};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, ArtifactFormat, SourceFacts};

/// Opens a reader for the artifact's format. Write the whole plain stream, drop the writer, then
/// wait for the exit: it fails unless the stream was whole.
pub async fn check(
    artifact: &Artifact,
    facts: &SourceFacts,
    bin_dirs: &[PathBuf],
    session: &Session,
) -> Result<Intake> {
    match artifact.format {
        ArtifactFormat::PgCustom => {
            let restore = client::that_reads(facts.reader_major(), bin_dirs)?;
            // The whole archive: a table of contents reads well from a truncated one.
            run(artifact, Program::new(restore).args(["--file=/dev/null"]), session).await
        }
        ArtifactFormat::Tar | ArtifactFormat::TarZst => {
            // `--to-stdout` reads every member's data; sparse members and all.
            let tar = Program::new("tar").args(["--extract", "--to-stdout", "--file=-"]);
            run(artifact, tar, session).await
        }
        ArtifactFormat::PgPlain => Ok(sql_text(ends_as_postgres)),
        ArtifactFormat::Mysql => Ok(sql_text(ends_as_mysql)),
        ArtifactFormat::SqliteFile => sqlite_file(session),
        ArtifactFormat::Json => Ok(json()),
        // Nobody here can read it: its digest says all there is to say.
        ArtifactFormat::Bytes => {
            let exit = Exit::new(async { Ok(Vec::new()) });
            Ok(Intake { writer: Box::new(io::sink()), exit })
        }
    }
}

async fn run(artifact: &Artifact, program: Program, session: &Session) -> Result<Intake> {
    let child = child::spawn(program, Pipes::Stdin, session.cancel.clone()).await?;
    let writer = child.stdin.ok_or_else(|| Fault::permanent("the reader has no input"))?;
    let exit = Exit::new(async move {
        let ended = child::ended(child.end).await?;
        // What a reader refuses it will refuse again; one that was killed refused nothing.
        match ended.status.code() {
            None | Some(0) => ended.success(),
            Some(_) => Err(Fault::permanent(ended.fault().chain())),
        }
    });
    Ok(Intake { writer: unpacked(artifact, writer)?, exit })
}

/// pg_dump and pg_dumpall end a plain dump with one of these lines, and only a whole one.
const TRAILERS: [&str; 2] =
    ["-- PostgreSQL database dump complete", "-- PostgreSQL database cluster dump complete"];

/// A server's settings are far smaller.
const MOST_JSON_BYTES: usize = 16 << 20;

fn ends_as_postgres(tail: &str) -> bool {
    TRAILERS.iter().any(|trailer| tail.contains(trailer))
}

/// The last line itself: what looks like it may stand in a routine's comments too.
fn ends_as_mysql(tail: &str) -> bool {
    tail.trim_end().lines().next_back().is_some_and(|line| line.starts_with(mysql::TRAILER))
}

/// SQL text, whose last bytes say whether it is whole.
fn sql_text(is_whole: fn(&str) -> bool) -> Intake {
    let tail = Arc::new(Mutex::new(Vec::new()));
    let writer = Tail(tail.clone(), 4096);
    let exit = Exit::new(async move {
        let tail = tail.lock().map_err(|_| Fault::permanent("the reader broke"))?;
        let tail = String::from_utf8_lossy(&tail);
        if is_whole(&tail) {
            Ok(Vec::new())
        } else {
            Err(Fault::permanent("the SQL dump has no closing line: it was cut short"))
        }
    });
    Intake { writer: Box::new(writer), exit }
}

fn json() -> Intake {
    let text = Arc::new(Mutex::new(Vec::new()));
    let writer = Tail(text.clone(), MOST_JSON_BYTES);
    let exit = Exit::new(async move {
        let text = text.lock().map_err(|_| Fault::permanent("the reader broke"))?;
        serde_json::from_slice::<serde::de::IgnoredAny>(&text).context("read it as JSON")?;
        Ok(Vec::new())
    });
    Intake { writer: Box::new(writer), exit }
}

/// Keeps the last so many bytes.
struct Tail(Arc<Mutex<Vec<u8>>>, usize);

impl Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut tail = self.0.lock().map_err(|_| io::ErrorKind::Other)?;
        tail.extend_from_slice(&bytes[bytes.len().saturating_sub(self.1)..]);
        let surplus = tail.len().saturating_sub(self.1);
        tail.drain(..surplus);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn sqlite_file(session: &Session) -> Result<Intake> {
    let path = session.spool.join("check.sqlite3");
    let file = File::create(&path).context("create a scratch file")?;
    let exit = Exit::new(async move {
        let checked = tokio::task::spawn_blocking(move || {
            let checked = sqlite::integrity(&path);
            std::fs::remove_file(&path).ok();
            checked
        });
        checked.await.context("check a database")??;
        Ok(Vec::new())
    });
    Ok(Intake { writer: Box::new(file), exit })
}
