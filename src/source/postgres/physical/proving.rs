//! A server that is started for one drill on a recovered data folder: a socket in a private folder,
//! nothing archived, nothing replicated, nothing preloaded. Knows how it is kept apart and asked; must
//! not know where its files come from.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection};

use super::super::throwaway::make_place;
use super::super::{Postgres, client, major_of};
use super::{DataFolder, Physical, Space};
use crate::fault::{Context, Fault, FaultKind, Result};
use crate::model::{Artifact, Replayed, SourceFacts};
use crate::source::child::{self, Account, FOLDER, Program};
use crate::source::private::PrivateServer;
use crate::source::{Finished, Intake, Scratch, Session, Target, Wanted};

/// Part of the socket's name; nothing listens on the network.
const PORT: u16 = 5432;

/// Given as arguments, so that they count more than what the server had set for itself.
const SETTINGS: [&str; 27] = [
    "listen_addresses=",
    // Nobody gets in before it has recovered.
    "hot_standby=off",
    "archive_mode=off",
    "archive_cleanup_command=",
    "recovery_end_command=",
    "primary_conninfo=",
    "synchronous_standby_names=",
    "max_logical_replication_workers=0",
    "autovacuum=off",
    "shared_preload_libraries=",
    "session_preload_libraries=",
    "local_preload_libraries=",
    "ssl=off",
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=128MB",
    "huge_pages=off",
    "max_wal_size=1GB",
    "dynamic_shared_memory_type=mmap",
    "jit=off",
    "logging_collector=off",
    "log_destination=stderr",
    "log_min_messages=error",
    // What a statement holds is somebody's data.
    "log_min_error_statement=panic",
    "lc_messages=C",
    "external_pid_file=",
    "unix_socket_permissions=0700",
];

/// What only this machine lacks; the backup is none the worse for it.
const MISSING_HERE: [&str; 4] =
    ["could not load library", "could not access file", "No space left", "Cannot allocate memory"];

pub(super) struct PhysicalScratch {
    proving: Proving,
}

/// The folder, and the server once it runs.
struct Proving {
    server: PrivateServer,
    folder: DataFolder,
    facts: SourceFacts,
    bin: PathBuf,
    user: Option<Account>,
    /// Names that may be let in, until it is known who the superuser is.
    known: Vec<String>,
    /// The database that is asked.
    database: String,
    inside: Postgres,
}

impl PhysicalScratch {
    pub(super) async fn new(source: &Physical, wanted: &Wanted, session: &Session) -> Result<Self> {
        let Some(facts) = wanted.facts.clone() else {
            return Err(Fault::unprovable("the backup says nothing of its server"));
        };
        let bin_dir = source.postgres.bin_dir.as_deref();
        let bin = client::server_folder(major_of(&facts), bin_dir, session).await?;
        let (server, _, accounts) = make_place(session)?;
        let user = accounts.server_user;
        let spaces = facts.physical.iter().flat_map(|physical| &physical.tablespaces);
        let spaces: BTreeMap<u32, Space> = spaces
            .map(|space| {
                let name = format!("tablespace-{}", space.oid);
                let called = PathBuf::from(FOLDER).join(&name);
                (space.oid, Space { folder: server.folder.join(name), called })
            })
            .collect();
        let folder = DataFolder {
            path: server.folder.join("data"),
            spaces,
            owner: user.as_ref().map(|user| (user.user, user.group)),
            cancel: session.cancel.clone(),
        };
        let inside = Postgres {
            host: server.folder.display().to_string(),
            port: PORT,
            bin_dir: Some(bin.clone()),
            ..Postgres::nowhere("template1")
        };
        let known = vec![source.postgres.user.clone(), "postgres".to_owned()];
        let database = source.postgres.database.clone();
        let proving = Proving { server, folder, facts, bin, user, known, database, inside };
        Ok(Self { proving })
    }
}

impl Proving {
    async fn launch(&mut self) -> Result<()> {
        let rules = "local all all trust\n";
        let doing = "write the server's settings";
        let place = &self.server.folder;
        // Whoever comes to the socket may enter the folder: the server's own user, and root.
        for (name, text) in [("hba.conf", rules), ("ident.conf", ""), ("drill.conf", "")] {
            let path = place.join(name);
            fs::write(&path, text).context(doing)?;
            if let Some(user) = &self.user {
                std::os::unix::fs::chown(&path, Some(user.user), Some(user.group))
                    .context(doing)?;
            }
        }
        let mut program = Program::new(self.bin.join("postgres"))
            .inside(place, self.user.as_ref())
            .softly()
            .args(["-D".to_owned(), format!("{FOLDER}/data"), "-p".to_owned(), PORT.to_string()]);
        let own = [
            format!("config_file={FOLDER}/drill.conf"),
            format!("hba_file={FOLDER}/hba.conf"),
            format!("ident_file={FOLDER}/ident.conf"),
            format!("unix_socket_directories={FOLDER}"),
        ];
        let mut settings: Vec<String> =
            SETTINGS.map(str::to_owned).into_iter().chain(own).collect();
        if major_of(&self.facts) >= 17 {
            // One that fires at a login would run as us.
            settings.push("event_triggers=off".to_owned());
        }
        for setting in settings {
            program = program.args(["-c".to_owned(), setting]);
        }
        self.server.launch(program).await
    }

    /// Waits until it has recovered and opened, however long that takes.
    async fn recovered(&mut self) -> Result<PgConnection> {
        loop {
            for name in self.known.clone() {
                self.inside.user = name;
                match self.inside.connect("template1").await {
                    Ok(connection) => return Ok(connection),
                    // Nobody of that name; whether there is another is tried next.
                    Err(fault) if fault.chain().contains("does not exist") => {
                        self.known.retain(|known| *known != self.inside.user);
                        if self.known.is_empty() {
                            return Err(Fault::unprovable("the server's superuser is not known")
                                .hint("hold the drill where the job's config is, which says as whom it connects"));
                        }
                    }
                    Err(_) => break,
                }
            }
            if let Some(ended) = self.server.ended().await? {
                let fault = ended.fault();
                let said = fault.chain();
                let kind = match MISSING_HERE.iter().any(|words| said.contains(words)) {
                    true => FaultKind::Unprovable,
                    false => FaultKind::Permanent,
                };
                return Err(
                    Fault::new(kind, "a server does not start on what was recovered").cause(fault)
                );
            }
            if self.server.stop.is_cancelled() {
                return Err(Fault::cancelled("the drill was stopped"));
            }
            PrivateServer::rest().await;
        }
    }

    /// The system's own tables and their indexes, in every database, where the program is there.
    async fn check_catalogs(&self) -> Result<()> {
        let path = self.bin.join("pg_amcheck");
        if !path.is_file() {
            tracing::info!("pg_amcheck is not installed here: the system's tables are not checked");
            return Ok(());
        }
        let program = self.inside.program(path, "template1").args([
            "--all",
            "--install-missing",
            "--schema=pg_catalog",
            "--no-password",
        ]);
        match child::output(program, self.server.stop.clone()).await {
            Ok(_) => Ok(()),
            Err(fault) if fault.kind() == FaultKind::Cancelled => Err(fault),
            Err(fault) if fault.chain().contains("is not available") => {
                tracing::info!("the extension amcheck is not installed here");
                Ok(())
            }
            Err(fault) => Err(Fault::permanent("what was recovered is damaged").cause(fault)),
        }
    }
}

async fn value(connection: &mut PgConnection, sql: &'static str) -> Result<Option<String>> {
    sqlx::query_scalar(sql).fetch_one(connection).await.context("ask the recovered server")
}

#[async_trait]
impl Target for Proving {
    fn plan(&self) -> Vec<String> {
        vec![format!("onto a throwaway server of PostgreSQL {}", major_of(&self.facts))]
    }

    fn name(&self) -> String {
        self.folder.path.display().to_string()
    }

    async fn begin(&mut self) -> Result<()> {
        self.folder.begin()
    }

    async fn load(&mut self, artifact: &Artifact) -> Result<Intake> {
        self.folder.load(artifact).await
    }

    fn data_folder(&self) -> Option<DataFolder> {
        Some(self.folder.clone())
    }

    async fn complete(&mut self) -> Result<()> {
        self.launch().await?;
        let mut connection = self.recovered().await?;
        let superuser =
            value(&mut connection, "SELECT rolname::text FROM pg_roles WHERE oid = 10").await?;
        let named = sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE datname = $1");
        let named = named.bind(&self.database).fetch_optional(&mut connection).await;
        let database: Option<String> = named.context("ask the recovered server")?;
        connection.close().await.ok();
        self.inside.user =
            superuser.ok_or_else(|| Fault::permanent("the server has no superuser"))?;
        self.database = database.unwrap_or_else(|| "template1".to_owned());
        self.check_catalogs().await
    }

    async fn finish(&mut self) -> Result<Finished> {
        Ok(Finished::default())
    }

    async fn discard(&mut self) {}
}

#[async_trait]
impl Scratch for PhysicalScratch {
    fn target(&mut self) -> &mut dyn Target {
        &mut self.proving
    }

    async fn check(&mut self, sql: &str) -> Result<bool> {
        let Proving { inside, database, server, folder, .. } = &self.proving;
        let (spool, cancel) = (folder.path.clone(), server.stop.clone());
        let session = Session { spool, cancel, drilled: false, since: None };
        inside.is_true(database, sql, &session).await
    }

    async fn replayed(&mut self) -> Result<Option<Replayed>> {
        let mut connection = self.proving.inside.connect("template1").await?;
        let lsn = value(&mut connection, "SELECT pg_last_wal_replay_lsn()::text").await?;
        let ended =
            "SELECT (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint::text";
        let ended = value(&mut connection, ended).await?;
        connection.close().await.ok();
        let Some(lsn) = lsn else { return Ok(None) };
        let ended = ended.and_then(|micros| micros.parse().ok());
        let last_ended = ended.and_then(|micros| Timestamp::from_microsecond(micros).ok());
        Ok(Some(Replayed { lsn: lsn.parse()?, last_ended }))
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let Proving { inside, database, .. } = &self.proving;
        vec![
            ("PGHOST", inside.host.clone()),
            ("PGPORT", inside.port.to_string()),
            ("PGUSER", inside.user.clone()),
            ("PGDATABASE", database.clone()),
            ("PGSSLMODE", "disable".to_owned()),
        ]
    }

    async fn remove(self: Box<Self>) -> Result<()> {
        self.proving.server.end().await
    }
}
