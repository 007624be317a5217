//! The URL of a MySQL or MariaDB server. Knows its keys; must not connect to one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Desk;
use crate::config::file::FileSource;
use crate::config::settings::Mysql;
use crate::config::{address, did_you_mean};
use crate::fault::{Fault, Result};

const SSL_MODES: [&str; 5] = ["disabled", "preferred", "required", "verify_ca", "verify_identity"];
const KNOWN: [&str; 5] = ["ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "socket"];

pub(super) fn resolve(
    desk: &mut Desk<'_>,
    key: &str,
    url: &str,
    written: FileSource,
) -> Result<Mysql> {
    let url_key = format!("{key}.mysql");
    let wrong = |desk: &Desk<'_>, why: String| -> Fault {
        desk.wrong_url(&url_key, url, why)
            .hint("for example mysql://user@host:3306/database, with the password in password_file")
    };
    let address = address::parse(url).map_err(|why| wrong(desk, why))?;
    if !["mysql", "mariadb"].contains(&address.scheme.as_str()) {
        return Err(wrong(desk, "it does not start with mysql:// or mariadb://".into()));
    }
    let mut given: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &address.query {
        // Both spellings are in use, among them `sslmode` of those who come from PostgreSQL.
        let plain = name.replace('_', "-");
        let Some(name) = KNOWN.iter().find(|known| **known == plain) else {
            let meant = did_you_mean(&plain, KNOWN);
            return Err(wrong(desk, format!("after the ? {name} is not known{meant}")));
        };
        given.insert(name, value.clone());
    }
    let ssl_mode = given.remove("ssl-mode").map(|mode| mode.to_ascii_lowercase().replace('-', "_"));
    if let Some(mode) = ssl_mode.as_ref().filter(|mode| !SSL_MODES.contains(&mode.as_str())) {
        let meant = did_you_mean(mode, SSL_MODES);
        return Err(desk
            .wrong_url(&url_key, url, format!("there is no ssl-mode {mode}{meant}"))
            .hint(format!("it is one of {}", SSL_MODES.join(", "))));
    }
    if address.path.is_empty() || address.path.contains('/') {
        return Err(wrong(desk, "it names no database after the host".into()));
    }
    let host = match given.remove("socket") {
        Some(socket) if !socket.starts_with('/') => {
            return Err(wrong(desk, format!("the socket {socket} does not start at the root")));
        }
        Some(socket) => socket,
        None => address.host,
    };
    if host.is_empty() {
        return Err(wrong(desk, "it names no host".into()));
    }
    let mut path = |name| given.remove(name).map(PathBuf::from);
    let (ssl_ca, ssl_cert, ssl_key) = (path("ssl-ca"), path("ssl-cert"), path("ssl-key"));
    if ssl_cert.is_some() != ssl_key.is_some() {
        return Err(wrong(desk, "ssl-cert and ssl-key go together".into()));
    }
    let password = desk.secret_or_in_url(
        &format!("{key}.password"),
        &url_key,
        address.password,
        written.password,
        written.password_file,
    )?;
    Ok(Mysql {
        host,
        port: address.port.unwrap_or(3306),
        user: address.user.unwrap_or("root".into()),
        database: address.path,
        password,
        ssl_mode,
        ssl_ca,
        ssl_cert,
        ssl_key,
        bin_dir: written.bin_dir,
    })
}
