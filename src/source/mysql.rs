//! MySQL and MariaDB: a dump by the server's own kind of client, the users that have rights on the
//! database, and each table's rows counted at the dump's own moment. Knows servers, clients and
//! their errors; must not know how a stream is stored.

mod accounts;
mod client;
mod connection;
mod definers;
mod facts;
mod replace;
mod scratch;
mod snapshot;
mod stream;
mod target;

use std::path::PathBuf;

use async_trait::async_trait;
use futures::FutureExt;
use sqlx::Connection as _;
use tokio::sync::oneshot;

use super::child::{self, Pipes, Program};
use super::{
    Closing, Dump, Exit, Flow, Leftovers, Part, Scratch, Session, Source, Target, Wanted, safe_name,
};
use crate::fault::{Fault, Result};
use crate::model::{ArtifactFormat, Content, Engine, SourceFacts};
use crate::secret::Secret;
use client::{Client, Family};
use facts::Contents;
use scratch::MysqlScratch;
use snapshot::{Counted, Moment};
use stream::Watched;
use target::MysqlTarget;

/// What a whole dump and a whole list of accounts end with.
pub(in crate::source) const TRAILER: &str = "-- Dump completed";

/// A server, a database, and who we are there.
#[derive(Debug, Clone)]
pub struct Mysql {
    /// Host name or address; a socket's file when it starts with `/`.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
    pub password: Option<Secret>,
    /// MySQL's words: `disabled`, `preferred`, `required`, `verify_ca`, `verify_identity`.
    pub ssl_mode: Option<String>,
    pub ssl_ca: Option<PathBuf>,
    pub ssl_cert: Option<PathBuf>,
    pub ssl_key: Option<PathBuf>,
    /// Where the client programs are, when not in the usual places.
    pub bin_dir: Option<PathBuf>,
    /// Put password hashes into the list of accounts: only where the backup is encrypted.
    pub hashes: bool,
}

#[async_trait]
impl Source for Mysql {
    fn engine(&self) -> Engine {
        Engine::Mysql
    }

    fn name(&self) -> String {
        self.database.clone()
    }

    fn server(&self) -> Option<String> {
        Some(self.place())
    }

    async fn inspect(&self, session: &Session) -> Result<SourceFacts> {
        Ok(self.look(session).await?.facts)
    }

    async fn open(&self, session: &Session) -> Result<Dump> {
        let seen = self.look(session).await?;
        let mut connection = self.connect(Some(&self.database)).await?;
        let (accounts, untold) = self.accounts(&mut connection, seen.family).await;
        connection.close().await.ok();
        let program = self.dump_program(&seen, None, session)?;
        let mut warnings = seen.contents.warnings(&seen.client);
        warnings.extend(seen.client.mismatch(seen.family));
        warnings.extend(untold);

        let stem = safe_name(&self.database, "database");
        let mut parts = Vec::new();
        let (source, session) = (self.clone(), session.clone());
        let tables = seen.contents.tables;
        let (counts, counted) = oneshot::channel();
        parts.push(Part::new(stem, ArtifactFormat::Mysql, move || {
            async move { source.stream(program, tables, counts, &session).await }.boxed()
        }));
        if let Some(text) = accounts {
            let grants = Part::text("grants", ArtifactFormat::Mysql, text);
            parts.push(grants.holding(Content::Grants, 0));
        }
        let dump = Dump { warnings, ..Dump::new(seen.facts, parts) };
        Ok(dump.closing_with(async move {
            // The dump is whole without them.
            Ok(match counted.await {
                Ok(Ok(counted)) => {
                    let warnings = counted.note.into_iter().collect();
                    Closing {
                        fingerprint: Some(counted.fingerprint),
                        warnings,
                        ..Closing::default()
                    }
                }
                Ok(Err(fault)) => Closing {
                    fingerprint: None,
                    warnings: vec![format!("no row counts: {}", fault.chain())],
                    ..Closing::default()
                },
                Err(_) => Closing::default(),
            })
        }))
    }

    async fn target(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Target>> {
        Ok(Box::new(MysqlTarget::new(self, wanted, session).await?))
    }

    async fn clear_leftovers(&self) -> Result<Leftovers> {
        replace::clear_leftovers(self, false).await
    }

    async fn scratch(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Scratch>> {
        Ok(Box::new(MysqlScratch::start(self, wanted, session).await?))
    }
}

impl Mysql {
    /// A database that is on no server: how a backup of that name is loaded elsewhere.
    pub fn nowhere(database: &str) -> Self {
        Self {
            host: "/nowhere".to_owned(),
            port: 3306,
            user: "nobody".to_owned(),
            database: database.to_owned(),
            password: None,
            ssl_mode: Some("disabled".to_owned()),
            ssl_ca: None,
            ssl_cert: None,
            ssl_key: None,
            bin_dir: None,
            hashes: false,
        }
    }
}

/// What was found before a dump.
struct Seen {
    facts: SourceFacts,
    family: Family,
    client: Client,
    contents: Contents,
    /// Our own connection is encrypted: so shall the client's be.
    tls: bool,
}

impl Mysql {
    async fn look(&self, session: &Session) -> Result<Seen> {
        let mut connection = self.connect(Some(&self.database)).await?;
        let (family, mut facts) = self.facts(&mut connection).await?;
        self.check_rights(&mut connection).await?;
        let mut contents = self.contents(&mut connection).await?;
        contents.unsure = self.unseen_routines(&mut connection, family).await?;
        let tls = connection::is_encrypted(&mut connection).await?;
        connection.close().await.ok();
        let client = client::dump(family, self.bin_dir.as_deref(), session).await?;
        facts.tool = Some(client.version.clone());
        Ok(Seen { facts, family, client, contents, tls })
    }

    /// `without` is a table that is left out.
    fn dump_program(
        &self,
        seen: &Seen,
        without: Option<&str>,
        session: &Session,
    ) -> Result<Program> {
        let family = seen.client.family;
        let options = self.defaults_file(family, seen.tls, session)?;
        let mut program = Program::new(&seen.client.path)
            // First, or it is refused; no other file is read then.
            .arg(format!("--defaults-file={}", options.display()))
            .args(["--single-transaction", "--quick", "--routines", "--triggers", "--events"])
            .args(["--hex-blob", "--default-character-set=utf8mb4", "--max-allowed-packet=1G"])
            // Two dumps of the same rows are the same bytes; tablespaces need the PROCESS right.
            .args(["--skip-dump-date", "--no-tablespaces"]);
        if family == Family::Mysql {
            // Else a restore needs SUPER, and a server of another kind refuses to be dumped.
            program = program.args(["--set-gtid-purged=OFF", "--loose-column-statistics=0"]);
        }
        if !seen.contents.versioned.is_empty() && seen.client.dumps_history() {
            program = program.arg("--dump-history");
        }
        let without = without.map(|table| format!("--ignore-table={}.{table}", self.database));
        Ok(program.args(without).arg("--").arg(&self.database))
    }

    async fn stream(
        &self,
        program: Program,
        tables: Vec<String>,
        counts: oneshot::Sender<Result<Counted>>,
        session: &Session,
    ) -> Result<Flow> {
        let moment = Moment::begin(self).await?;
        let child = child::spawn(program, Pipes::Stdout, session.cancel.clone()).await?;
        let stdout = child.stdout.ok_or_else(|| Fault::permanent("the dump has no output"))?;
        let (reader, begun) = Watched::new(stdout);
        let (counting, cancel) = (moment.count(begun, tables), session.cancel.clone());
        tokio::spawn(async move {
            let counted = tokio::select! {
                counted = counting => counted,
                () = cancel.cancelled() => Err(Fault::cancelled("the run was stopped")),
            };
            // Nobody may be waiting for them any more.
            counts.send(counted).ok();
        });
        let exit = Exit::new(async move {
            let ended = child::ended(child.end).await?;
            if ended.status.success() { Ok(ended.stderr) } else { Err(explain(ended.fault())) }
        });
        Ok(Flow { reader: Box::new(reader), exit })
    }

    /// `host:port`, or the socket's file.
    fn place(&self) -> String {
        if self.host.starts_with('/') {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Adds the next step to what the client said.
fn explain(fault: Fault) -> Fault {
    let text = fault.chain();
    let hint = if text.contains("Table definition has changed") {
        "a table was altered or emptied while it was dumped: the next try takes it as it is then"
    } else if text.contains("SUPER") || text.contains("SET USER") {
        "views and routines belong to other users: do this as an administrator of the server"
    } else if text.contains("Access denied") || text.contains("command denied") {
        "the user lacks a right: GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON database.* TO ..."
    } else if text.contains("max_allowed_packet") {
        "raise max_allowed_packet on the server: a row is larger than it allows"
    } else if text.contains("Unknown collation") || text.contains("Unknown character set") {
        "this server is older, or of the other kind: restore into one like that of the backup"
    } else {
        return fault;
    };
    fault.hint(hint)
}

/// An SQL identifier.
fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
