//! What is answered over HTTP, and to whom. Knows names, tokens and roles; must not listen.

use std::net::SocketAddr;

use super::{Desk, Tree};
use crate::config::file::{FileServer, FileToken};
use crate::config::settings::{Server, Token};
use crate::fault::Result;

/// A shorter one could be guessed.
const SHORTEST: usize = 20;
const LONGEST: usize = 200;

pub(super) fn resolve(desk: &mut Desk<'_>, written: FileServer) -> Result<Server> {
    let listen = listen(desk.tree, written.listen)?;
    let mut hosts = Vec::new();
    for host in written.hosts.unwrap_or_default() {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return Err(desk
                .wrong("server.hosts", &host, "it is not a host's name")
                .hint("write the name alone, without https:// and port: backups.example.com"));
        }
        hosts.push(host.to_ascii_lowercase());
    }
    let mut tokens = Vec::new();
    for (name, token) in written.tokens {
        tokens.push(self::token(desk, &name, token)?);
    }
    Ok(Server {
        listen,
        hosts,
        open_to_read: written.anonymous.as_deref() == Some("read"),
        secure_cookies: written.secure_cookies.unwrap_or(false),
        tokens,
    })
}

/// The address that the daemon listens on.
pub(in crate::config) fn listen(tree: &Tree, written: Option<String>) -> Result<SocketAddr> {
    let listen = written.unwrap_or("0.0.0.0:8080".into());
    listen.parse().map_err(|_| {
        super::wrong(tree, "server.listen", &listen, "it is not an address with a port")
            .hint("for example 0.0.0.0:8080, or 127.0.0.1:8080 for this machine only")
    })
}

fn token(desk: &mut Desk<'_>, name: &str, written: FileToken) -> Result<Token> {
    let at = |key: &str| format!("server.tokens.{name}.{key}");
    let name = desk.name("server.tokens", name)?;
    let Some(role) = written.role else {
        return Err(desk
            .refuse(&at("role"), "it is missing")
            .hint("write role = \"viewer\", \"operator\" or \"admin\""));
    };
    let Some(token) = desk.secret(&at("token"), written.token, written.token_file)? else {
        return Err(desk
            .refuse(&at("token"), "it is missing")
            .hint("add token_file = \"/run/secrets/NAME\", or token = \"${NAME}\""));
    };
    // What can stand in a header and in a cookie as it is.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    let length = token.expose().len();
    if !(SHORTEST..=LONGEST).contains(&length) || !token.expose().chars().all(plain) {
        return Err(desk
            .refuse(
                &at("token"),
                format!("it is not {SHORTEST} to {LONGEST} letters, digits and -._~+/="),
            )
            .hint("`openssl rand -hex 32` makes a good one"));
    }
    Ok(Token { name, role: role.parse()?, token })
}
