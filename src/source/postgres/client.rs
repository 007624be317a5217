//! Which installed client program fits which server. Knows where distributions put them.

use std::fs;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::fault::{Fault, Result};
use crate::source::Session;
use crate::source::child::{self, Program};

/// Folders with one sub-folder for each major version.
const VERSIONED: [(&str, &str); 3] = [
    ("/usr/lib/postgresql", "bin"), // Debian
    ("/usr/libexec", ""),           // Alpine: postgresql15/
    ("/usr", "bin"),                // Red Hat: pgsql-15/
];

/// An installed program and its major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub major: u32,
    pub path: PathBuf,
}

impl Client {
    /// Its own words, such as `pg_dump (PostgreSQL) 15.18`.
    pub async fn version(&self, session: &Session) -> Result<String> {
        let program = Program::new(&self.path).arg("--version");
        let text = child::output(program, session.cancel.clone()).await?;
        Ok(text.trim().to_owned())
    }
}

/// The program of the server's own major, else the nearest newer one: an older client refuses a
/// newer server, and a newer archive can't be read by an older `pg_restore`.
pub fn for_server(program: &str, server: u32, bin_dir: Option<&Path>) -> Result<Client> {
    let found = installed(program, bin_dir);
    choose(&found, server).cloned().ok_or_else(|| {
        let have: Vec<String> = found.iter().map(|client| client.major.to_string()).collect();
        let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
        Fault::permanent(format!(
            "no {program} for a PostgreSQL {server} server (installed: {have})"
        ))
        .hint(format!(
            "install postgresql-client-{server} or newer, or set `bin_dir` on the source"
        ))
    })
}

/// The `pg_restore` that reads an archive, without a server: of `major` or newer, in the folders that
/// are named or in the usual ones; the newest when the archive says nothing of itself.
pub fn that_reads(major: Option<u32>, bin_dirs: &[PathBuf]) -> Result<PathBuf> {
    let program = "pg_restore";
    let named = bin_dirs.iter().flat_map(|folder| installed(program, Some(folder)));
    let mut found: Vec<Client> = named.chain(installed(program, None)).collect();
    found.sort_by_key(|client| client.major);
    let fitting = match major {
        Some(major) => choose(&found, major),
        None => found.last(),
    };
    if let Some(client) = fitting {
        return Ok(client.path.clone());
    }
    if let (Some(path), None) = (child::find(program), found.last()) {
        return Ok(path);
    }
    let wanted = major.map_or(String::new(), |major| format!(" {major} or newer"));
    Err(Fault::permanent(format!(
        "{program}{wanted} is not installed, so its archive can't be read"
    ))
    .hint("install the package postgresql-client of that version"))
}

/// The folder with the programs of a server of exactly this major version: what it loads is to say
/// what the server that was backed up would.
pub(super) async fn server_folder(
    major: u32,
    bin_dir: Option<&Path>,
    session: &Session,
) -> Result<PathBuf> {
    let named = bin_dir.map(|folder| installed("postgres", Some(folder))).unwrap_or_default();
    let usual = installed("postgres", None);
    for client in named.into_iter().chain(usual) {
        let Some(folder) = client.path.parent() else { continue };
        let is_right = || async { major_of_version(&client.version(session).await.ok()?) };
        if folder.join("initdb").is_file() && is_right().await == Some(major) {
            return Ok(folder.to_owned());
        }
    }
    Err(Fault::unprovable(format!("no PostgreSQL {major} server is installed here to load it into"))
        .hint(format!(
            "install postgresql-{major}, or set `bin_dir` on the source to where its programs are, or run `respaldo drill JOB --from URL` on a host that has it"
        )))
}

/// An installed program of exactly this major version, in the folders that are named or in the usual
/// ones: one that reads a server's files takes no other's.
pub(super) async fn exactly(
    program: &str,
    major: u32,
    bin_dirs: &[PathBuf],
    cancel: &CancellationToken,
) -> Option<PathBuf> {
    let named = bin_dirs.iter().flat_map(|folder| installed(program, Some(folder)));
    for client in named.chain(installed(program, None)) {
        let asking = Program::new(&client.path).arg("--version");
        let said = child::output(asking, cancel.clone()).await;
        if said.is_ok_and(|said| major_of_version(&said) == Some(major)) {
            return Some(client.path);
        }
    }
    None
}

fn choose(found: &[Client], server: u32) -> Option<&Client> {
    found.iter().filter(|client| client.major >= server).min_by_key(|client| client.major)
}

/// Every installed version of a program, oldest first.
fn installed(program: &str, bin_dir: Option<&Path>) -> Vec<Client> {
    let mut found = Vec::new();
    if let Some(folder) = bin_dir {
        // A folder that was named stands alone: what it holds is what is meant.
        let path = folder.join(program);
        let major = major_in(folder).unwrap_or(u32::MAX);
        return if path.is_file() { vec![Client { major, path }] } else { found };
    }
    for (root, below) in VERSIONED {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let digits = name.trim_start_matches("postgresql").trim_start_matches("pgsql-");
            let path = entry.path().join(below).join(program);
            if let (Ok(major), true) = (digits.parse(), path.is_file()) {
                found.push(Client { major, path });
            }
        }
    }
    found.sort_by_key(|client| client.major);
    found
}

/// A folder that is called like a version: `17` of `/opt/pg/17/bin`.
fn major_in(folder: &Path) -> Option<u32> {
    folder.iter().rev().find_map(|name| name.to_str()?.parse().ok())
}

/// `15` of `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
pub fn major_of_version(text: &str) -> Option<u32> {
    text.split_once(") ")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_major_or_the_nearest_newer() {
        let found = [13, 15, 17].map(|major| Client { major, path: PathBuf::new() });
        let chosen = |server| choose(&found, server).map(|client| client.major);
        assert_eq!(chosen(15), Some(15));
        assert_eq!(chosen(14), Some(15));
        assert_eq!(chosen(16), Some(17));
        assert_eq!(chosen(18), None);
    }

    #[test]
    fn only_a_folder_that_is_called_like_a_version_is_one() {
        assert_eq!(major_in(Path::new("/opt/pg/17/bin")), Some(17));
        assert_eq!(major_in(Path::new("/tmp/.tmp3x/bin")), None);
        let version = "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)";
        assert_eq!(major_of_version(version), Some(15));
    }

    #[test]
    fn a_client_that_is_missing_is_named_with_the_next_step() {
        let fault = for_server("pg_dump", 99, Some(Path::new("/nowhere"))).unwrap_err();
        assert!(fault.to_string().contains("no pg_dump for a PostgreSQL 99 server"));
        assert!(fault.next_step().unwrap().contains("postgresql-client-99"));
    }
}
