//! PostgreSQL logical dumps: `pg_dump` of the right version, told everything by its environment.
//! Knows servers, clients and their errors; must not know how a stream is stored.

mod arrival;
mod batches;
mod belongings;
mod blocks;
pub mod client;
mod connection;
mod contents;
mod elsewhere;
mod entries;
mod estate;
mod facts;
mod fingerprint;
mod frozen;
mod head;
mod heirs;
mod holdings;
mod in_place;
mod keys;
mod loading;
mod locale;
mod named;
mod passes;
pub mod physical;
mod piece;
mod programs;
mod reapply;
mod roles;
mod scratch;
mod script;
mod server;
mod snapshot;
mod swap;
mod tables;
mod target;
mod throwaway;

use std::path::PathBuf;

use async_trait::async_trait;
use futures::FutureExt;
use sqlx::Connection as _;

use super::child::{self, Child, Pipes, Program};
use super::{
    Closing, Dump, Exit, Flow, Kept, Leftovers, Neighbour, Part, Print, Scratch, Session, Source,
    Target, Wanted,
};
use crate::fault::{Context, Fault, Result};
use crate::model::{
    ArtifactFormat, BackupId, Engine, Fingerprint, FingerprintLevel, SourceFacts, TableName,
};
use crate::secret::Secret;
use in_place::InPlace;
pub use named::ProvingGround;
use piece::PieceTarget;
use scratch::PostgresScratch;
pub use server::PostgresServer;
use snapshot::Snapshot;
pub use tables::Selection;
use target::PostgresTarget;

/// A server, a database, and who we are there.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// Host name, address, or a socket's folder.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
    pub password: Option<Secret>,
    /// libpq's words: `disable`, `prefer`, `require`, `verify-ca`, `verify-full`.
    pub sslmode: Option<String>,
    pub sslrootcert: Option<PathBuf>,
    pub sslcert: Option<PathBuf>,
    pub sslkey: Option<PathBuf>,
    pub format: DumpFormat,
    pub selection: Selection,
    /// How many archives are read at once.
    pub streams: usize,
    pub fingerprint: Print,
    /// Roles, tablespaces and settings of the server too.
    pub globals: bool,
    /// With the roles' password hashes, where the user may read them.
    pub role_passwords: bool,
    /// Where the client programs are, when not in the usual places.
    pub bin_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpFormat {
    Custom,
    Plain,
}

/// How long a dump waits for a table that somebody has locked.
const LOCK_WAIT: &str = "--lock-wait-timeout=600000";
/// Archives begun at once: each has a connection, and from then on locks of its own. Those that wait
/// for their turn have not, and a change of a table's definition may come before them.
const MOST_BEGUN: usize = 16;

#[async_trait]
impl Source for Postgres {
    fn engine(&self) -> Engine {
        Engine::Postgres
    }

    fn name(&self) -> String {
        self.database.clone()
    }

    fn server(&self) -> Option<String> {
        Some(format!("{}:{}", self.host, self.port))
    }

    async fn beside(&self) -> Result<Vec<(Neighbour, bool)>> {
        let there = self.databases().await?;
        Ok(self.neighbours(there, |name| name == self.database))
    }

    async fn inspect(&self, session: &Session) -> Result<SourceFacts> {
        let mut connection = self.connect(&self.database).await?;
        let (major, mut facts) = self.facts(&mut connection).await?;
        facts.belongings = belongings::of(&mut connection, &self.database).await?;
        connection.close().await.ok();
        let client = client::for_server("pg_dump", major, self.bin_dir.as_deref())?;
        let version = client.version(session).await?;
        let reads_with = client::major_of_version(&version).unwrap_or(client.major);
        facts.tool = Some(version);
        facts.reads_with = Some(format!("pg_restore {reads_with}"));
        Ok(facts)
    }

    fn streams(&self) -> usize {
        self.streams
    }

    async fn open(&self, session: &Session) -> Result<Dump> {
        let facts = self.inspect(session).await?;
        let major = major_of(&facts);
        let client = client::for_server("pg_dump", major, self.bin_dir.as_deref())?;
        let (format, flags): (_, &[&str]) = match self.format {
            // pg_dump's own compression is off: ours is faster, and done in the same pass.
            DumpFormat::Custom => (ArtifactFormat::PgCustom, &["--format=custom", "--compress=0"]),
            DumpFormat::Plain => (ArtifactFormat::PgPlain, &["--format=plain"]),
        };
        let dumps = format!("respaldo {}", uuid::Uuid::new_v4().simple());
        let snapshot = Snapshot::take(self, &self.selection, &dumps, &session.cancel).await?;
        let mut parts = Vec::new();
        for archive in &snapshot.choice.archives {
            let program = self
                .program(client.path.clone(), &self.database)
                .env("PGAPPNAME", &dumps)
                .with_large_buffers()
                .args(flags)
                .args(["--no-password", LOCK_WAIT])
                .arg(format!("--snapshot={}", snapshot.id))
                .args(&archive.arguments);
            let stem = match &archive.suffix {
                None => safe_stem(&self.database),
                // A schema or table names its artifact alone, unless there are several databases.
                Some(suffix) if self.globals => safe_stem(suffix),
                Some(suffix) => safe_stem(&format!("{}.{suffix}", self.database)),
            };
            let begun = match parts.len() < MOST_BEGUN {
                true => Begun::Now(begin(program, session).await?),
                false => Begun::Later(program),
            };
            let part = dump_part(stem, format, begun, session.clone());
            parts.push(part.holding(archive.content.clone(), archive.size));
        }
        let mut warnings = snapshot.choice.warnings.clone();
        let print = self.print(&snapshot, session);
        let closing = async move {
            let (fingerprint, said) = print.await.context("take the fingerprint")?;
            snapshot.release().await?;
            Ok(Closing { fingerprint, warnings: said.into_iter().collect(), ..Closing::default() })
        };
        if self.globals {
            let (globals, said) = self.server_parts(major, session).await?;
            parts.extend(globals);
            warnings.extend(said);
        }
        Ok(Dump { warnings, ..Dump::new(facts, parts).closing_with(closing) })
    }

    async fn undo(&self, kept: &Kept, _session: &Session) -> Result<Kept> {
        swap::undo(self, kept).await
    }

    async fn forget(&self, kept: &Kept, _session: &Session) -> Result<()> {
        swap::forget(self, kept).await
    }

    async fn replaced(&self, backup: &BackupId) -> Result<Vec<Kept>> {
        swap::replaced(self, backup).await
    }

    async fn clear_leftovers(&self) -> Result<Leftovers> {
        self.drop_leftovers().await.map(Leftovers::from)
    }

    async fn target(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Target>> {
        let backed_up = wanted.facts.as_ref().map(|facts| facts.name.clone());
        let name = wanted.database.clone().or(backed_up).unwrap_or(self.database.clone());
        let (major, exists) = self.look_for(&name).await?;
        let to = (name, major);
        Ok(match &wanted.piece {
            _ if wanted.in_place => Box::new(InPlace::new(self, wanted, session, to).await?),
            // What is there stays, and gets a schema more.
            Some(piece) if exists => {
                Box::new(PieceTarget::new(self, wanted, piece.clone(), session, to).await?)
            }
            _ => Box::new(PostgresTarget::new(self, wanted, session, to).await?),
        })
    }

    async fn scratch(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Scratch>> {
        Ok(Box::new(PostgresScratch::start(self, wanted, session).await?))
    }
}

/// A program that is running, or will be when its turn comes.
enum Begun {
    Now(Child),
    Later(Program),
}

async fn begin(program: Program, session: &Session) -> Result<Child> {
    child::spawn(program, Pipes::Stdout, session.cancel.clone()).await
}

fn dump_part(
    stem: impl Into<String>,
    format: ArtifactFormat,
    begun: Begun,
    session: Session,
) -> Part {
    Part::new(stem, format, move || {
        async move {
            let child = match begun {
                Begun::Now(child) => child,
                Begun::Later(program) => begin(program, &session).await?,
            };
            let reader = child.stdout.ok_or_else(|| Fault::permanent("pg_dump has no output"))?;
            let exit = Exit::new(async move {
                let ended = child::ended(child.end).await?;
                if ended.status.success() { Ok(ended.stderr) } else { Err(explain(ended.fault())) }
            });
            Ok(Flow { reader: Box::new(reader), exit })
        }
        .boxed()
    })
}

impl Postgres {
    /// A database that is on no server: how a backup of that name is loaded elsewhere.
    pub fn nowhere(database: &str) -> Self {
        Self {
            host: "/nowhere".to_owned(),
            port: 5432,
            user: "nobody".to_owned(),
            database: database.to_owned(),
            password: None,
            sslmode: Some("disable".to_owned()),
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
            format: DumpFormat::Custom,
            selection: Selection::default(),
            streams: 1,
            fingerprint: Print::Off,
            globals: false,
            role_passwords: false,
            bin_dir: None,
        }
    }
}

/// A fingerprint, and what kept it from being taken.
type Printed = (Option<Fingerprint>, Option<String>);

impl Postgres {
    /// Takes the fingerprint beside the dump, in the same snapshot. Without one a backup is less
    /// provable, and not less of a backup.
    fn print(&self, snapshot: &Snapshot, session: &Session) -> tokio::task::JoinHandle<Printed> {
        let (server, id) = (self.clone(), snapshot.id.clone());
        let tables = snapshot.choice.with_rows.clone();
        let sequences = snapshot.sequences.clone();
        let all = snapshot.choice.is_all();
        let level = self.fingerprint.level(session);
        let cancel = session.cancel.clone();
        tokio::spawn(async move {
            let Some(level) = level else { return (None, None) };
            let taken = tokio::select! {
                taken = server.take_print(&id, &tables, level) => taken,
                () = cancel.cancelled() => return (None, None),
            };
            match taken {
                // What is left out takes objects and sequences of its own with it.
                Ok(print) if !all => {
                    let (sequences, objects) = Default::default();
                    (Some(Fingerprint { sequences, objects, ..print }), None)
                }
                Ok(print) => (Some(Fingerprint { sequences, ..print }), None),
                Err(fault) => (None, Some(format!("there is no fingerprint: {}", fault.chain()))),
            }
        })
    }

    async fn take_print(
        &self,
        snapshot: &str,
        tables: &[TableName],
        level: FingerprintLevel,
    ) -> Result<Fingerprint> {
        let mut connection = self.connect(&self.database).await?;
        fingerprint::begin(&mut connection, Some(snapshot)).await?;
        let print = fingerprint::take(&mut connection, tables, level).await;
        connection.close().await.ok();
        print
    }

    /// The server's major version, and whether it has a database of that name.
    async fn look_for(&self, name: &str) -> Result<(u32, bool)> {
        let mut admin = self.connect_beside(name).await?;
        let (number, exists): (i32, bool) = sqlx::query_as(
            "SELECT current_setting('server_version_num')::int,
                    EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)",
        )
        .bind(name)
        .fetch_one(&mut admin)
        .await
        .transient("look at the server")?;
        admin.close().await.ok();
        Ok((u32::try_from(number / 10_000).unwrap_or(0), exists))
    }
}

/// `15` of `15.18 (Debian 15.18-0+deb12u1)`.
fn major_of(facts: &SourceFacts) -> u32 {
    facts.server_major().unwrap_or(0)
}

/// A database's name as part of a file name.
fn safe_stem(database: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let stem: String = database.chars().map(safe).take(60).collect();
    stem.trim_start_matches('.').to_owned()
}

/// Adds the next step to what pg_dump said.
fn explain(fault: Fault) -> Fault {
    let text = fault.chain();
    let hint = if text.contains("canceling statement due to lock timeout") {
        "a table stayed locked for 10 minutes: look in pg_locks for who holds it (a migration?)"
    } else if text.contains("permission denied for") {
        "give the user the right to read everything: GRANT pg_read_all_data TO ...;"
    } else if text.contains("canceling statement due to conflict with recovery") {
        "the standby cancelled the dump: raise max_standby_streaming_delay, or dump from the primary"
    } else if text.contains("server version mismatch") {
        "install the PostgreSQL client of the server's version"
    } else if text.contains("No space left") {
        "the server's disk is full"
    } else {
        return fault;
    };
    fault.hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_of_odd_databases_are_safe() {
        assert_eq!(safe_stem("grupogad"), "grupogad");
        assert_eq!(safe_stem("../a b/\"ñ\""), "_a_b__ñ_");
    }
}
