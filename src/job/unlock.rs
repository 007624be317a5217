//! What opens encrypted backups, read from the files that are named for it. Knows how a key file may
//! look; must not know whose it is.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::fault::{Fault, Result};
use crate::pipeline::Identities;
use crate::secret::Secret;

/// A key file that is larger is none.
const MOST_BYTES: u64 = 1 << 20;

/// The files of private keys and of a passphrase.
#[derive(Debug, Clone, Default)]
pub struct Unlock {
    pub identities: Vec<PathBuf>,
    pub passphrase: Option<PathBuf>,
}

impl Unlock {
    /// Reads them. `words` are what a person calls the one and the other.
    pub fn read(&self, words: (&str, &str)) -> Result<Identities> {
        let mut files = Vec::new();
        for path in &self.identities {
            let name = format!("{} {}", words.0, path.display());
            let file = read(&name, path)?;
            files.push((name, file));
        }
        let passphrase = match &self.passphrase {
            None => None,
            Some(path) => {
                let name = format!("{} {}", words.1, path.display());
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
