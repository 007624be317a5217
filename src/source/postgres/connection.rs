//! Connecting: the same facts told to sqlx and, by environment, to libpq's programs; errors with
//! their next step. No ambient `PG*` variable has a say.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgSslMode};
use sqlx::{ConnectOptions, PgConnection};

use super::Postgres;
use crate::fault::{Fault, Result};
use crate::source::child::Program;

const CONNECT: Duration = Duration::from_secs(30);

impl Postgres {
    pub(super) async fn connect(&self, database: &str) -> Result<PgConnection> {
        let place = format!("{}@{}:{}/{database}", self.user, self.host, self.port);
        let doing = format!("connect to {place}");
        let connecting = self.options(database)?;
        match tokio::time::timeout(CONNECT, connecting.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.explain(doing, error)),
            Err(_) => Err(Fault::transient(format!("{doing}: no answer in 30 s"))
                .hint("is a firewall in between? is the server overloaded?")),
        }
    }

    fn options(&self, database: &str) -> Result<PgConnectOptions> {
        let mut options = PgConnectOptions::new_without_pgpass()
            .port(self.port)
            .username(&self.user)
            .database(database)
            .application_name("respaldo")
            .ssl_mode(self.ssl_mode()?)
            .options([("statement_timeout", "0"), ("lock_timeout", "0")])
            // A count of a large table takes its time, and a statement may hold a secret.
            .disable_statement_logging();
        options = match self.host.starts_with('/') {
            true => options.socket(&self.host),
            false => options.host(&self.host),
        };
        if let Some(password) = &self.password {
            options = options.password(password.expose());
        }
        if let Some(path) = &self.sslrootcert {
            options = options.ssl_root_cert(path);
        }
        if let (Some(cert), Some(key)) = (&self.sslcert, &self.sslkey) {
            options = options.ssl_client_cert(cert).ssl_client_key(key);
        }
        Ok(options)
    }

    fn ssl_mode(&self) -> Result<PgSslMode> {
        let word = self.sslmode.as_deref().unwrap_or("prefer");
        word.parse().map_err(|_| {
            Fault::usage(format!("'{word}' is not an sslmode"))
                .hint("disable, allow, prefer, require, verify-ca or verify-full")
        })
    }

    fn explain(&self, doing: String, error: sqlx::Error) -> Fault {
        let code = error
            .as_database_error()
            .and_then(|e| e.try_downcast_ref::<PgDatabaseError>())
            .map(|e| e.code().to_owned());
        let user = &self.user;
        let (transient, hint) = match code.as_deref() {
            Some("28P01") => (
                false,
                format!(
                    "the server refused the password of '{user}': check password_file or DB_PASSWORD"
                ),
            ),
            Some("28000") => (
                false,
                format!(
                    "the server does not let '{user}' in from here: check the role and pg_hba.conf"
                ),
            ),
            Some("3D000") => (false, "no such database on this server: check the name".to_owned()),
            Some("42501") => (false, format!("GRANT CONNECT ON DATABASE ... TO \"{user}\";")),
            Some("08P01") => (
                false,
                "is this a connection pooler? dump from the server itself, not through it"
                    .to_owned(),
            ),
            Some("53300") => {
                (true, "the server has no connection left: raise max_connections".to_owned())
            }
            Some("57P03") => (true, "the server is starting up or shutting down".to_owned()),
            Some(_) => (false, "the server's own log may say more".to_owned()),
            None => match &error {
                sqlx::Error::Io(_) => (
                    true,
                    format!(
                        "is the server up, and is {}:{} right as seen from here?",
                        self.host, self.port
                    ),
                ),
                sqlx::Error::Tls(_) => (false, "check sslmode and sslrootcert".to_owned()),
                _ => (true, "check host, port and user".to_owned()),
            },
        };
        let fault = if transient { Fault::transient(doing) } else { Fault::permanent(doing) };
        fault.cause(error).hint(hint)
    }

    /// A client program that will connect to `database`. Everything goes by its environment: an
    /// argument is visible to all, and a database's name there could be read as a connection string.
    pub(super) fn program(&self, path: PathBuf, database: &str) -> Program {
        let mut program = Program::new(path)
            .env("PGHOST", &self.host)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", &self.user)
            .env("PGDATABASE", database)
            .env("PGAPPNAME", "respaldo")
            .env("PGCONNECT_TIMEOUT", "30")
            .env("PGSSLMODE", self.sslmode.as_deref().unwrap_or("prefer"))
            // One that can't be there: libpq complains of one that is no plain file.
            .env("PGPASSFILE", "/dev/null/none")
            .env("PGSERVICEFILE", "/dev/null");
        if let Some(password) = &self.password {
            program = program.env("PGPASSWORD", password.expose());
        }
        for (name, value) in [
            ("PGSSLROOTCERT", &self.sslrootcert),
            ("PGSSLCERT", &self.sslcert),
            ("PGSSLKEY", &self.sslkey),
        ] {
            if let Some(value) = value {
                program = program.env(name, value);
            }
        }
        program
    }
}
