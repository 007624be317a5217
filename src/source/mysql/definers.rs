//! In whose name the routines, views and triggers of a dump run. A server that was started for it knows
//! nobody: each is made as it is met, with no right but on the one database. Must not make anybody
//! on a server that is in use.

use std::collections::BTreeSet;
use std::io::{self, Write};

use sqlx::{AssertSqlSafe, Connection as _};
use tokio::runtime::Handle;

use super::{Mysql, quote};
use crate::fault::{Context, Result};

const WORD: &[u8] = b"DEFINER=`";
/// A name and a host, quoted, with what may be doubled in them.
const LONGEST: usize = 700;
/// Rows may hold the word as well.
const MOST: usize = 500;

/// A dump on its way to the client; whom it names is there before the client can ask for them.
pub(super) struct Definers {
    writer: Box<dyn Write + Send>,
    server: Mysql,
    runtime: Handle,
    seen: BTreeSet<(String, String)>,
    /// The end of what went before: a name may be cut in two.
    tail: Vec<u8>,
}

impl Definers {
    pub(super) fn new(writer: Box<dyn Write + Send>, server: &Mysql) -> Self {
        let (runtime, server) = (Handle::current(), server.clone());
        Self { writer, server, runtime, seen: BTreeSet::new(), tail: Vec::new() }
    }

    fn meet(&mut self, bytes: &[u8]) -> Result<()> {
        self.tail.extend_from_slice(bytes);
        let text = std::mem::take(&mut self.tail);
        for definer in named(&text) {
            if self.seen.len() < MOST && self.seen.insert(definer.clone()) {
                self.runtime.block_on(make(&self.server, &definer))?;
            }
        }
        self.tail = text[text.len().saturating_sub(LONGEST)..].to_vec();
        Ok(())
    }
}

impl Write for Definers {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.meet(bytes).map_err(io::Error::other)?;
        self.writer.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Every ``DEFINER=`name`@`host` `` that is whole.
fn named(text: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(WORD.len()).position(|window| window == WORD) {
        rest = &rest[at + WORD.len()..];
        let Some((name, after)) = quoted(rest) else { continue };
        let Some((host, _)) = after.strip_prefix(b"@`").and_then(quoted) else { continue };
        found.push((name, host));
    }
    found
}

/// What stands before the closing quote, and what after it. A doubled one is one of the name's.
fn quoted(text: &[u8]) -> Option<(String, &[u8])> {
    let mut name = Vec::new();
    let mut at = 0;
    loop {
        match (text.get(at)?, text.get(at + 1)) {
            (b'`', Some(b'`')) => at += 1,
            (b'`', _) => break,
            _ => {}
        }
        name.push(text[at]);
        at += 1;
    }
    Some((String::from_utf8(name).ok()?, &text[at + 1..]))
}

async fn make(server: &Mysql, (name, host): &(String, String)) -> Result<()> {
    let doing = format!("make '{name}'@'{host}', in whose name the dump defines something");
    let user = format!("{}@{}", quote(name), quote(host));
    let mut connection = server.connect(None).await?;
    let database = super::scratch::pattern(&server.database);
    for sql in [
        format!("CREATE USER IF NOT EXISTS {user} ACCOUNT LOCK"),
        format!("GRANT ALL ON {database}.* TO {user}"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.context(doing.clone())?;
    }
    connection.close().await.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_named_is_found() {
        let text = b"/*!50013 DEFINER=`root`@`localhost` SQL SECURITY DEFINER */ x DEFINER=`a``b`@`%` DEFINER=`cut`@`h";
        let found = named(text);
        let pair = |name: &str, host: &str| (name.to_owned(), host.to_owned());
        assert_eq!(found, [pair("root", "localhost"), pair("a`b", "%")]);
    }
}
