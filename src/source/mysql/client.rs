//! Which installed client fits which server: MariaDB's own for MariaDB, MySQL's own for MySQL, the
//! other one rather than none. Knows their names and how they tell who they are.

use std::path::{Path, PathBuf};

use crate::fault::{Fault, Result};
use crate::source::Session;
use crate::source::child::{self, Program};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Mariadb,
    Mysql,
}

impl Family {
    /// Of a server's or a client's version text.
    pub(super) fn of(version: &str) -> Self {
        if version.to_ascii_lowercase().contains("mariadb") { Self::Mariadb } else { Self::Mysql }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mariadb => "MariaDB",
            Self::Mysql => "MySQL",
        }
    }
}

/// An installed program, and what it says it is.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub path: PathBuf,
    pub family: Family,
    /// Its own words, such as `mariadb-dump  Ver 10.19 Distrib 10.11.6-MariaDB, for ...`.
    pub version: String,
}

impl Client {
    /// A word on a client that is not of the server's kind.
    pub(super) fn mismatch(&self, server: Family) -> Option<String> {
        (self.family != server).then(|| {
            format!(
                "a {} server was dumped by {}'s client: install {}'s own",
                server.name(),
                self.family.name(),
                server.name()
            )
        })
    }

    /// Whether it knows `--dump-history` (MariaDB 10.11).
    pub(super) fn dumps_history(&self) -> bool {
        self.family == Family::Mariadb && release(&self.version) >= (10, 11)
    }
}

/// The program that dumps a server of this family.
pub(super) async fn dump(
    server: Family,
    bin_dir: Option<&Path>,
    session: &Session,
) -> Result<Client> {
    choose(["mariadb-dump", "mysqldump"], server, bin_dir, session).await
}

/// The program that runs SQL on a server of this family.
pub(super) async fn shell(
    server: Family,
    bin_dir: Option<&Path>,
    session: &Session,
) -> Result<Client> {
    choose(["mariadb", "mysql"], server, bin_dir, session).await
}

/// `names` are MariaDB's and MySQL's; MariaDB installs its own under both.
async fn choose(
    mut names: [&str; 2],
    server: Family,
    bin_dir: Option<&Path>,
    session: &Session,
) -> Result<Client> {
    if server == Family::Mysql {
        names.reverse();
    }
    let mut other = None;
    for name in names {
        let Some(path) = find(name, bin_dir) else { continue };
        let asked = Program::new(&path).arg("--version");
        let version = child::output(asked, session.cancel.clone()).await?.trim().to_owned();
        let client = Client { path, family: Family::of(&version), version };
        if client.family == server {
            return Ok(client);
        }
        other.get_or_insert(client);
    }
    other.ok_or_else(|| {
        let [first, second] = names;
        Fault::permanent(format!("neither {first} nor {second} is installed")).hint(
            "install the package mariadb-client (or mysql-client), or set `bin_dir` on the source",
        )
    })
}

fn find(name: &str, bin_dir: Option<&Path>) -> Option<PathBuf> {
    match bin_dir {
        // A folder that was named stands alone: what it holds is what is meant.
        Some(folder) => Some(folder.join(name)).filter(|path| path.is_file()),
        None => child::find(name),
    }
}

/// The release in a version text: `(10, 11)` of `Ver 10.19 Distrib 10.11.6-MariaDB`.
pub(super) fn release(version: &str) -> (u32, u32) {
    let text = version.split("Distrib ").last().unwrap_or(version);
    let text = text.split("from ").last().unwrap_or(text);
    let start = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
    let mut numbers = text[start..].split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_text_tells_family_and_release() {
        let cases = [
            (
                "mariadb-dump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)",
                Family::Mariadb,
                (10, 11),
            ),
            (
                "mariadb-dump from 11.8.3-MariaDB, client 10.19 for debian-linux-gnu",
                Family::Mariadb,
                (11, 8),
            ),
            (
                "mysqldump  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)",
                Family::Mysql,
                (8, 0),
            ),
            ("10.11.6-MariaDB-log", Family::Mariadb, (10, 11)),
            ("8.4.0", Family::Mysql, (8, 4)),
        ];
        for (text, family, numbers) in cases {
            assert_eq!((Family::of(text), release(text)), (family, numbers), "{text}");
        }
    }
}
