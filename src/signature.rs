//! Ed25519 signatures over manifests. The key is made at the first start and stays in the data
//! folder. Knows keys and bytes; must not know whom a command trusts beyond the keys it is given.

use std::io::{self, Write};
use std::path::Path;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::durable::{Draft, Existing};
use crate::fault::{Context, Fault, Result};

/// A signature file is a line of JSON, or several while what they sign is being replaced; nothing
/// longer is read.
pub const MAX_SIGNATURE_BYTES: u64 = 4096;

/// `manifest.sig`: keys and signature in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    pub algorithm: String,
    pub public_key: String,
    pub signature: String,
}

/// Whether a signature holds, and whether its key is one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Holds, by a trusted key.
    Trusted,
    /// Holds, but nobody here knows the key.
    UnknownKey(String),
    Missing,
    /// The manifest is not the one that was signed.
    Broken,
}

pub struct Signer {
    pair: Ed25519KeyPair,
}

impl Signer {
    /// Reads the key, or makes it (mode 0600) where there is none.
    pub fn load_or_create(path: &Path) -> Result<Self> {
        let doing = format!("read the signing key {}", path.display());
        let pkcs8 = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new());
                let made = made.context("make a signing key")?;
                match write_alone(path, made.as_ref()) {
                    Ok(()) => made.as_ref().to_vec(),
                    // Another process was faster.
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                        std::fs::read(path).context(doing.clone())?
                    }
                    Err(error) => return Err(error).context("write the signing key"),
                }
            }
            Err(error) => return Err(error).context(doing),
        };
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|error| {
            Fault::permanent(doing)
                .cause(error)
                .hint("move the file away to have a new one made; old backups then need --trust")
        })?;
        Ok(Self { pair })
    }

    pub fn public_key(&self) -> String {
        STANDARD.encode(self.pair.public_key().as_ref())
    }

    pub fn sign(&self, bytes: &[u8]) -> Signature {
        Signature {
            algorithm: "ed25519".into(),
            public_key: self.public_key(),
            signature: STANDARD.encode(self.pair.sign(bytes).as_ref()),
        }
    }
}

/// Another process may be making one too.
fn write_alone(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = Draft::create_alone(path)?;
    draft.file().write_all(bytes)?;
    draft.publish(Existing::Refuse)
}

/// Checks `bytes` against the text of a signature file: one signature that holds is enough.
pub fn verify(bytes: &[u8], signature: Option<&[u8]>, trusted: &[String]) -> Verdict {
    let Some(text) = signature else { return Verdict::Missing };
    let mut verdict = Verdict::Broken;
    for line in lines(text) {
        match check(bytes, line, trusted) {
            Verdict::Trusted => return Verdict::Trusted,
            Verdict::UnknownKey(key) => verdict = Verdict::UnknownKey(key),
            Verdict::Missing | Verdict::Broken => {}
        }
    }
    verdict
}

/// The lines of a signature file that hold for `bytes`.
pub fn holding(bytes: &[u8], text: &[u8]) -> Vec<u8> {
    let holds = |line: &&[u8]| check(bytes, line, &[]) != Verdict::Broken;
    lines(text).filter(holds).flat_map(|line| [line, b"\n"].concat()).collect()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn check(bytes: &[u8], line: &[u8], trusted: &[String]) -> Verdict {
    let Ok(signature) = serde_json::from_slice::<Signature>(line) else { return Verdict::Broken };
    let (Ok(key), Ok(value)) =
        (STANDARD.decode(&signature.public_key), STANDARD.decode(&signature.signature))
    else {
        return Verdict::Broken;
    };
    let holds = signature.algorithm == "ed25519"
        && UnparsedPublicKey::new(&ED25519, key).verify(bytes, &value).is_ok();
    match holds {
        false => Verdict::Broken,
        true if trusted.contains(&signature.public_key) => Verdict::Trusted,
        true => Verdict::UnknownKey(signature.public_key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_tells_ours_theirs_and_broken_apart() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::load_or_create(&folder.path().join("key")).unwrap();
        let again = Signer::load_or_create(&folder.path().join("key")).unwrap();
        assert_eq!(signer.public_key(), again.public_key());
        let text = serde_json::to_vec(&signer.sign(b"manifest")).unwrap();
        let ours = [signer.public_key()];
        assert_eq!(verify(b"manifest", Some(&text), &ours), Verdict::Trusted);
        assert_eq!(verify(b"manifest", Some(&text), &[]), Verdict::UnknownKey(ours[0].clone()));
        assert_eq!(verify(b"manifesT", Some(&text), &ours), Verdict::Broken);
        assert_eq!(verify(b"manifest", Some(b"{}"), &ours), Verdict::Broken);
        assert_eq!(verify(b"manifest", None, &ours), Verdict::Missing);

        // A daemon and commands that begin at once have one key.
        let path = folder.path().join("new");
        let made: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn({
                    let path = path.clone();
                    move || Signer::load_or_create(&path).unwrap().public_key()
                })
            })
            .collect();
        let keys: Vec<String> = made.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");

        // While one manifest takes the place of another, either is signed.
        let next = serde_json::to_vec(&signer.sign(b"next")).unwrap();
        let both = [text.as_slice(), b"\n", next.as_slice(), b"\n"].concat();
        assert_eq!(verify(b"manifest", Some(&both), &ours), Verdict::Trusted);
        assert_eq!(verify(b"next", Some(&both), &ours), Verdict::Trusted);
        assert_eq!(verify(b"other", Some(&both), &ours), Verdict::Broken);
        assert_eq!(holding(b"next", &both), [next.as_slice(), b"\n"].concat());
    }
}
