//! Keys: making a pair, with a word on what it means to lose one; and reading those that a person
//! gives to open a backup.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::args::{Key, Unlock};
use super::{Exit, output};
use crate::fault::{Context, Fault, Result};
use crate::job;
use crate::pipeline::{Identities, generate};
use crate::secret::Secret;

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
    let files = job::Unlock {
        identities: unlock.identity.clone(),
        passphrase: unlock.passphrase_file.clone(),
    };
    files.read(("--identity", "--passphrase-file"))
}
