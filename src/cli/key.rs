//! Keys: making a pair, with a word on what it means to lose one; and reading those that a person
//! gives to open a backup.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::args::{Key, Unlock};
use super::{Exit, output};
use crate::fault::{Context, Fault, Result};
use crate::pipeline::{Identities, generate};
use crate::secret::Secret;

/// A key file that is larger is none.
const MOST_BYTES: u64 = 1 << 20;

pub(super) fn key(wanted: &Key) -> Result<Exit> {
    let Key::Generate { output } = wanted;
    let (private, public) = generate();
    match output {
        Some(path) => write(path, &private)?,
        None => output::data(private.expose())?,
    }
    let file = output.as_ref().map_or("FILE".to_owned(), |path| path.display().to_string());
    output::say(&format!(
        "public key: {public}\n\
         \n\
         In the config of each job that is to be encrypted:\n\
         \n    encrypt = {{ age = [\"{public}\"] }}\n\
         \n\
         The private key is the only way back to those backups. Nobody can make another: if it is\n\
         lost, so is every backup that was encrypted to it.\n\
         - Keep it in two places that do not burn together: a password manager, a printed copy.\n\
         - Take it off this server: who breaks in here could read every backup with it, and when\n  \
         this machine is lost it must not go with it. A backup needs only the public key.\n\
         - Try it, from where you keep it, once the first backup is there and then every few months:\n\
         \n    respaldo verify JOB --identity {file}\n"
    ));
    Ok(Exit::Done)
}

fn write(path: &Path, private: &Secret) -> Result<()> {
    let shown = path.display();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Fault::usage(format!("{shown} exists: a key is never overwritten"))
                .hint("name another file; what is encrypted to that key needs it"));
        }
        other => other.context(format!("write {shown}"))?,
    };
    file.write_all(private.expose().as_bytes()).context(format!("write {shown}"))?;
    file.sync_all().context(format!("write {shown}"))
}

/// The private keys and the passphrase that a person names.
pub(super) fn identities(unlock: &Unlock) -> Result<Identities> {
    let mut files = Vec::new();
    for path in &unlock.identity {
        let name = format!("--identity {}", path.display());
        let file = read(&name, path)?;
        files.push((name, file));
    }
    let passphrase = match &unlock.passphrase_file {
        None => None,
        Some(path) => {
            let name = format!("--passphrase-file {}", path.display());
            let text = String::from_utf8(read(&name, path)?)
                .map_err(|_| Fault::usage(format!("{name}: it is not text")))?;
            // The line's end is an editor's.
            let text = text.trim_end_matches(['\r', '\n']);
            if text.is_empty() {
                return Err(Fault::usage(format!("{name}: it is empty"))
                    .hint("write the passphrase into it, on one line"));
            }
            Some(Secret::new(text))
        }
    };
    Identities::new(&files, passphrase)
}

fn read(name: &str, path: &Path) -> Result<Vec<u8>> {
    let unreadable = |error: std::io::Error| {
        Fault::usage(format!("{name} can't be read: {error}"))
            .hint("is the path right, and may this user read it?")
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}
