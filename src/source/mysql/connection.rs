//! Connecting: the same facts told to sqlx and, by a private options file, to the client programs;
//! errors with their next step. No `my.cnf` and no variable of the environment has a say.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlRow, MySqlSslMode};
use sqlx::{ConnectOptions, MySqlConnection, Row};

use super::Mysql;
use super::client::Family;
use crate::fault::{Context, Fault, Result};
use crate::source::Session;

const CONNECT: Duration = Duration::from_secs(30);

impl Mysql {
    pub(super) async fn connect(&self, database: Option<&str>) -> Result<MySqlConnection> {
        let doing =
            format!("connect to {}@{}/{}", self.user, self.place(), database.unwrap_or_default());
        let connecting = self.options(database)?;
        match tokio::time::timeout(CONNECT, connecting.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.explain(doing, error)),
            Err(_) => Err(Fault::transient(format!("{doing}: no answer in 30 s"))
                .hint("is a firewall in between? is the server overloaded?")),
        }
    }

    fn options(&self, database: Option<&str>) -> Result<MySqlConnectOptions> {
        let mut options = MySqlConnectOptions::new()
            .port(self.port)
            .username(&self.user)
            .ssl_mode(self.ssl_mode()?)
            .statement_cache_capacity(0)
            .disable_statement_logging();
        options = match self.host.starts_with('/') {
            true => options.socket(&self.host),
            false => options.host(&self.host),
        };
        if let Some(database) = database {
            options = options.database(database);
        }
        if let Some(password) = &self.password {
            options = options.password(password.expose());
        }
        if let Some(path) = &self.ssl_ca {
            options = options.ssl_ca(path);
        }
        if let (Some(cert), Some(key)) = (&self.ssl_cert, &self.ssl_key) {
            options = options.ssl_client_cert(cert).ssl_client_key(key);
        }
        Ok(options)
    }

    fn ssl_mode(&self) -> Result<MySqlSslMode> {
        let word = self.ssl_mode.as_deref().unwrap_or("preferred");
        word.parse().map_err(|_| {
            Fault::usage(format!("'{word}' is not an ssl-mode"))
                .hint("disabled, preferred, required, verify_ca or verify_identity")
        })
    }

    pub(super) fn explain(&self, doing: String, error: sqlx::Error) -> Fault {
        let user = &self.user;
        let (transient, hint) = match (number(&error), &error) {
            (Some(1045 | 1698), _) => (
                false,
                format!(
                    "the server refused '{user}' or its password: check password_file, and the host that the account is for"
                ),
            ),
            (Some(1044), _) => {
                (false, format!("GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON ... TO '{user}'"))
            }
            (Some(1049), _) => {
                (false, "no such database on this server: check the name".to_owned())
            }
            (Some(1130), _) => (
                false,
                format!("the server lets nobody in from here: make an account '{user}'@'%'"),
            ),
            (Some(1040 | 1203), _) => {
                (true, "the server has no connection left: raise max_connections".to_owned())
            }
            (Some(3159), _) => (false, "the server wants TLS: ?ssl-mode=required".to_owned()),
            (Some(_), _) => (false, "the server's own log may say more".to_owned()),
            (None, sqlx::Error::Io(_)) => (
                true,
                format!("is the server up, and is {} right as seen from here?", self.place()),
            ),
            (None, sqlx::Error::Tls(_)) => (false, "check ssl-mode and ssl-ca".to_owned()),
            _ => (true, "check host, port and user".to_owned()),
        };
        let fault = if transient { Fault::transient(doing) } else { Fault::permanent(doing) };
        fault.cause(error).hint(hint)
    }

    /// A file for `--defaults-file`, readable for this user alone and gone with the run: an argument
    /// is visible to all, and a variable would be deprecated.
    pub(super) fn defaults_file(
        &self,
        client: Family,
        tls: bool,
        session: &Session,
    ) -> Result<PathBuf> {
        let mut lines = vec!["[client]".to_owned(), option("user", &self.user)];
        if let Some(password) = &self.password {
            lines.push(option("password", password.expose()));
        }
        if self.host.starts_with('/') {
            lines.extend(["protocol=socket".into(), option("socket", &self.host)]);
        } else {
            // Of `localhost` a client would else make a socket of its own choice.
            let port = format!("port={}", self.port);
            lines.extend(["protocol=tcp".into(), option("host", &self.host), port]);
        }
        lines.extend(self.tls_lines(client, tls)?);
        let path = session.spool.join(format!("client-{}.cnf", uuid::Uuid::new_v4().simple()));
        let doing = "write the client's options";
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .context(doing)?;
        file.write_all((lines.join("\n") + "\n").as_bytes()).context(doing)?;
        Ok(path)
    }

    /// What MySQL calls an ssl-mode is several options in MariaDB. With `preferred` the client goes
    /// the way that our own connection went.
    fn tls_lines(&self, client: Family, tls: bool) -> Result<Vec<String>> {
        let verify =
            matches!(self.ssl_mode()?, MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity);
        let mut lines = match (client, tls) {
            (Family::Mysql, true) => {
                let mode = self.ssl_mode.as_deref().filter(|_| verify).unwrap_or("required");
                vec![format!("ssl-mode={}", mode.to_ascii_uppercase())]
            }
            (Family::Mysql, false) => vec!["ssl-mode=DISABLED".into()],
            // MariaDB checks the name as well or nothing: the stricter one then.
            (Family::Mariadb, true) if verify => {
                vec!["ssl".into(), "ssl-verify-server-cert".into()]
            }
            (Family::Mariadb, true) => vec!["ssl".into(), "skip-ssl-verify-server-cert".into()],
            (Family::Mariadb, false) => vec!["skip-ssl".into()],
        };
        let files =
            [("ssl-ca", &self.ssl_ca), ("ssl-cert", &self.ssl_cert), ("ssl-key", &self.ssl_key)];
        for (name, path) in
            files.iter().filter_map(|(n, p)| Some((n, p.as_deref()?))).filter(|_| tls)
        {
            lines.push(option(name, &path_text(path)?));
        }
        Ok(lines)
    }
}

fn path_text(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Fault::usage(format!("{} is not UTF-8", path.display())))
}

/// `name="value"` with the escapes of an options file.
fn option(name: &str, value: &str) -> String {
    let mut line = format!("{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => line.push_str("\\\\"),
            '"' => line.push_str("\\\""),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            other => line.push(other),
        }
    }
    line.push('"');
    line
}

/// The server's error number.
pub(super) fn number(error: &sqlx::Error) -> Option<u16> {
    error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>().map(|error| error.number())
}

/// A column as text, whatever the server calls its type: MySQL 8 has names of tables as bytes.
pub(super) fn text(row: &MySqlRow, column: usize) -> Option<String> {
    let bytes: Option<Vec<u8>> = row.try_get_unchecked(column).ok()?;
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) async fn is_encrypted(connection: &mut MySqlConnection) -> Result<bool> {
    let row =
        sqlx::raw_sql("SHOW SESSION STATUS LIKE 'Ssl_cipher'").fetch_optional(connection).await;
    let row = row.transient("ask whether the connection is encrypted")?;
    Ok(row.and_then(|row| text(&row, 1)).is_some_and(|cipher| !cipher.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_an_options_file_are_escaped() {
        assert_eq!(option("password", "a\\b\"c#d\n"), r##"password="a\\b\"c#d\n""##);
    }
}
