//! A server that respaldo starts for one drill from the installed programs, and that nobody else can
//! reach: a socket in a private folder, no network, no rights outside of it. Knows how to make, start
//! and end it; must not know what is loaded into it.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use futures::FutureExt;
use sqlx::{AssertSqlSafe, Connection as _};

use super::{Postgres, client};
use crate::fault::{Context, Fault, Result};
use crate::source::Session;
use crate::source::child::{Account, FOLDER, Program};
use crate::source::private::PrivateServer;

/// PostgreSQL refuses to run as root; its packages make this user.
const SERVER_USER: &str = "postgres";
/// Part of the socket's name; nothing listens on the network.
const PORT: u16 = 5432;

/// What it holds need not survive anything, and nothing but loading happens in it.
const SETTINGS: [&str; 24] = [
    "listen_addresses=",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "archive_mode=off",
    "autovacuum=off",
    "max_logical_replication_workers=0",
    "max_wal_size=1GB",
    "checkpoint_timeout=1h",
    "maintenance_work_mem=128MB",
    "max_connections=40",
    "max_locks_per_transaction=1024",
    "jit=off",
    "ssl=off",
    // In the folder that goes away, and not in the machine's shared memory, which may be small.
    "dynamic_shared_memory_type=mmap",
    // Large objects belong to roles that rows are not loaded as.
    "lo_compat_privileges=on",
    "shared_preload_libraries=",
    "timezone=UTC",
    "lc_messages=C",
    "log_min_messages=error",
    // What a statement holds is somebody's data.
    "log_min_error_statement=panic",
    "max_prepared_transactions=0",
];

/// A running server. Dropped, it is ended; its folder goes with the run's spool.
pub(super) struct Throwaway {
    server: PrivateServer,
    superuser: String,
    bin: PathBuf,
    pub major: u32,
}

/// Who we are, and whom a server runs as, where that is somebody else.
pub(super) struct Accounts {
    own: Account,
    pub server_user: Option<Account>,
}

/// A place for a server: a folder that only it may enter, and what tells it from others.
pub(super) fn make_place(session: &Session) -> Result<(PrivateServer, String, Accounts)> {
    let own = Account::own().ok_or_else(|| {
        let number = rustix::process::geteuid().as_raw();
        Fault::unprovable(format!("the user {number} has no name here, and PostgreSQL wants one"))
            .hint(format!(
                "add a line to /etc/passwd in the image: respaldo:x:{number}:{number}::/:/bin/false"
            ))
    })?;
    let server_user = match rustix::process::geteuid().is_root() {
        false => None,
        true => Some(Account::named(SERVER_USER).ok_or_else(|| {
            Fault::unprovable("PostgreSQL refuses to run as root, and there is no user 'postgres'")
                .hint("install postgresql from packages, add the user, or run respaldo as another user than root")
        })?),
    };
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let folder = session.spool.join(format!("pg-{}", &unique[..8]));
    let socket = folder.join(format!(".s.PGSQL.{PORT}"));
    let server = PrivateServer::new(folder, &socket, session)?;
    let doing = "make a folder for the server";
    fs::DirBuilder::new().mode(0o700).create(&server.folder).context(doing)?;
    if let Some(Account { user, group, .. }) = &server_user {
        chown(&server.folder, Some(*user), Some(*group)).context(doing)?;
    }
    Ok((server, unique, Accounts { own, server_user }))
}

impl Throwaway {
    /// One of this major version; `bin_dir` is where its programs may be.
    pub(super) async fn start(
        major: u32,
        bin_dir: Option<&Path>,
        session: &Session,
    ) -> Result<Self> {
        let bin = client::server_folder(major, bin_dir, session).await?;
        let (server, unique, Accounts { own, server_user }) = make_place(session)?;
        let mut server = Self {
            server,
            // No dump names it, so that no role of a dump is a superuser here.
            superuser: format!("respaldo_{unique}"),
            bin,
            major,
        };
        server.make(&own, server_user.as_ref()).await?;
        server.launch(server_user.as_ref()).await?;
        Ok(server)
    }

    fn program(&self, name: &str, user: Option<&Account>) -> Program {
        Program::new(self.bin.join(name)).inside(&self.server.folder, user)
    }

    /// By its own path nobody but root may come to the folder: the server is handed it.
    async fn make(&self, own: &Account, user: Option<&Account>) -> Result<()> {
        let program = self
            .program("initdb", user)
            .arg(format!("--pgdata={FOLDER}/data"))
            .arg(format!("--username={}", self.superuser))
            .args(["--encoding=UTF8", "--locale=C", "--auth=reject"])
            .args(["--no-sync", "--no-instructions"]);
        self.server.make(program).await?;
        // Whoever comes as the superuser must be us; the role that loads rows may come, and nobody else.
        let quote = |name: &str| format!("\"{}\"", name.replace('"', ""));
        let superuser = &self.superuser;
        let rules = format!(
            "local all {superuser} peer map=respaldo\nlocal all {} trust\nlocal all all reject\n",
            self.rows_role()
        );
        let data = self.server.folder.join("data");
        let map = format!("respaldo {} {superuser}\n", quote(&own.name));
        fs::write(data.join("pg_hba.conf"), rules).context("write pg_hba.conf")?;
        fs::write(data.join("pg_ident.conf"), map).context("write pg_ident.conf")
    }

    async fn launch(&mut self, user: Option<&Account>) -> Result<()> {
        let mut settings = SETTINGS.map(str::to_owned).to_vec();
        settings.push(format!("unix_socket_directories={FOLDER}"));
        settings.extend((self.major >= 14).then(|| "client_connection_check_interval=1s".into()));
        let mut program = self.program("postgres", user).softly();
        program = program.args(["-D".to_owned(), format!("{FOLDER}/data")]);
        program = program.args(["-p".to_owned(), PORT.to_string()]);
        for setting in settings {
            program = program.args(["-c".to_owned(), setting]);
        }
        self.server.launch(program).await?;
        let inside = self.inside("postgres");
        let mut connection = self.server.answer(|| inside.connect("postgres").boxed()).await?;
        if self.major >= 17 {
            // One of the dump's that fires at a login would run as us.
            let sql = format!("ALTER ROLE {} SET event_triggers = off", self.superuser);
            let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await;
            done.context("keep event triggers from the superuser")?;
        }
        connection.close().await.ok();
        Ok(())
    }

    /// A database of this server and of no other.
    pub(super) fn inside(&self, database: &str) -> Postgres {
        Postgres {
            host: self.server.folder.display().to_string(),
            port: PORT,
            user: self.superuser.clone(),
            ..Postgres::nowhere(database)
        }
    }

    /// Who loads rows.
    pub(super) fn rows_role(&self) -> String {
        self.superuser.replacen("respaldo_", "respaldo_rows_", 1)
    }

    /// Ends it and removes its folder.
    pub(super) async fn end(self) -> Result<()> {
        self.server.end().await
    }
}
