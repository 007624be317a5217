//! Decryption on the way back, with private keys that a person gave for this once. What is read may
//! be hostile: heads of streams and the work of passphrases are bounded.

use std::fmt;
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use age::DecryptError;
use age::secrecy::{ExposeSecret, SecretString};

use super::openpgp::{self, OpenError, SecretKey};
use crate::fault::{Context, Fault, Result};
use crate::model::{Cipher, Encryption};
use crate::secret::Secret;

/// Everything before the encrypted content. Recipients take 150 to 600 bytes each.
const HEAD_BYTES: u64 = 128 << 10;
const BUFFER_BYTES: usize = 32 << 10;
/// What stock `age -p` asks for: 256 MiB. More is refused.
const MOST_SCRYPT_LOG_N: u8 = 18;

/// What opens encrypted backups: private keys, a passphrase, or nothing.
#[derive(Clone, Default)]
pub struct Identities(Arc<Held>);

#[derive(Default)]
struct Held {
    age: Vec<age::x25519::Identity>,
    openpgp: Vec<SecretKey>,
    passphrase: Option<Secret>,
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "no identity" } else { "***" })
    }
}

impl Identities {
    /// `files` are what key files hold, each with its name for errors: age identities or OpenPGP
    /// secret keys. The passphrase opens what was encrypted with one, and a locked OpenPGP key.
    pub fn new(files: &[(String, Vec<u8>)], passphrase: Option<Secret>) -> Result<Self> {
        let mut held = Held { passphrase, ..Held::default() };
        for (name, file) in files {
            held.add(file).map_err(|fault| {
                let hint = fault.next_step().unwrap_or(KEY_FILES).to_owned();
                Fault::usage(format!("{name}: {}", fault.chain())).hint(hint)
            })?;
        }
        Ok(Self(Arc::new(held)))
    }

    pub fn is_empty(&self) -> bool {
        self.0.age.is_empty() && self.0.openpgp.is_empty() && self.0.passphrase.is_none()
    }

    /// Whether they should open it, by what is said of it. Whether a passphrase is the right one only
    /// opening tells.
    pub fn fit(&self, encryption: &Encryption) -> bool {
        let Held { age, openpgp, passphrase } = &*self.0;
        let Encryption { cipher, recipients } = encryption;
        match cipher {
            _ if recipients.is_empty() => passphrase.is_some(),
            Cipher::Age => age.iter().any(|key| recipients.contains(&key.to_public().to_string())),
            Cipher::Openpgp => openpgp.iter().any(|key| recipients.contains(&key.fingerprint())),
        }
    }

    /// The content of an encrypted stream. A wrong key is a fault of usage, and so is none at all.
    pub(super) fn open<'a, R: Read + Send + 'a>(
        &self,
        cipher: Cipher,
        input: R,
    ) -> Result<Box<dyn Read + 'a>> {
        let left = Arc::new(AtomicU64::new(HEAD_BYTES));
        let head = Head { input, left: left.clone() };
        let input = BufReader::with_capacity(BUFFER_BYTES, head);
        let opened = match cipher {
            Cipher::Age => self.open_age(input)?,
            Cipher::Openpgp => {
                let Held { openpgp, passphrase, .. } = &*self.0;
                let opened = openpgp::open(input, openpgp, passphrase.as_ref());
                opened.map_err(|error| match error {
                    OpenError::WrongKey => wrong_key(),
                    OpenError::Refused(why) => {
                        Fault::permanent(format!("it is not what OpenPGP makes: {why}"))
                    }
                })?
            }
        };
        left.store(u64::MAX, Ordering::Relaxed);
        Ok(opened)
    }

    fn open_age<'a, R: Read + Send + 'a>(
        &self,
        input: BufReader<Head<R>>,
    ) -> Result<Box<dyn Read + 'a>> {
        let decryptor = age::Decryptor::new_buffered(input)
            .map_err(|error| Fault::permanent("it is not encrypted with age").cause(error))?;
        let Held { age, passphrase, .. } = &*self.0;
        let opened = match (decryptor.is_scrypt(), passphrase) {
            (false, _) => decryptor.decrypt(age.iter().map(|key| key as &dyn age::Identity)),
            (true, None) => return Err(wrong_key()),
            (true, Some(passphrase)) => {
                let passphrase = SecretString::from(passphrase.expose().to_owned());
                let mut identity = age::scrypt::Identity::new(passphrase);
                identity.set_max_work_factor(MOST_SCRYPT_LOG_N);
                decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
            }
        };
        match opened {
            Ok(reader) => Ok(Box::new(reader)),
            Err(DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed) => Err(wrong_key()),
            Err(error) => Err(Fault::permanent("it does not open").cause(error)),
        }
    }

    /// Decrypts and decompresses what [`Seal::pack`](super::Seal::pack) made of at most `limit` bytes.
    pub fn unpack(&self, cipher: Cipher, bytes: &[u8], limit: u64) -> Result<Vec<u8>> {
        let opened = self.open(cipher, bytes)?;
        let plain = zstd::Decoder::new(opened).context("decompress")?;
        let mut unpacked = Vec::new();
        plain.take(limit + 1).read_to_end(&mut unpacked).context("decrypt and decompress")?;
        if unpacked.len() as u64 > limit {
            return Err(Fault::permanent(format!("it holds more than {limit} bytes")));
        }
        Ok(unpacked)
    }
}

const KEY_FILES: &str =
    "give the file that `respaldo key generate` or age-keygen wrote, or an OpenPGP secret key";

fn wrong_key() -> Fault {
    Fault::usage("the identity or passphrase that was given does not open it")
}

impl Held {
    fn add(&mut self, file: &[u8]) -> Result<()> {
        let Ok(text) = std::str::from_utf8(file) else {
            // Not armored: a key of age is always text.
            return self.add_openpgp(file);
        };
        if text.contains("-----BEGIN PGP") {
            return self.add_openpgp(file);
        }
        if text.contains("-----BEGIN AGE ENCRYPTED FILE") || text.starts_with("age-encryption.org/")
        {
            return Err(Fault::usage("it is itself encrypted")
                .hint("open it first: `age -d -o key.txt FILE`"));
        }
        let mut found = false;
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with("age1") {
                return Err(Fault::usage(
                    "it holds a public key: only the secret one opens a backup",
                ));
            }
            // What stands there is not repeated: it may be half of a key.
            let key = line.parse().map_err(|_| Fault::usage("it is not an age identity"))?;
            self.age.push(key);
            found = true;
        }
        if found { Ok(()) } else { Err(Fault::usage("it holds no key")) }
    }

    fn add_openpgp(&mut self, file: &[u8]) -> Result<()> {
        self.openpgp.extend(openpgp::secret_keys(file, self.passphrase.as_ref())?);
        Ok(())
    }
}

/// A new key pair of age: the identity file's text, and the public key.
pub fn generate() -> (Secret, String) {
    let key = age::x25519::Identity::generate();
    let public = key.to_public().to_string();
    let text = format!(
        "# The private key of encrypted backups, made by respaldo.\n# public key: {public}\n{}\n",
        key.to_string().expose_secret()
    );
    (Secret::new(text), public)
}

/// Lets no more than so many bytes be read before content comes out: a head has no length of its
/// own, and is kept in memory.
struct Head<R> {
    input: R,
    left: Arc<AtomicU64>,
}

impl<R: Read> Read for Head<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::other("its head is too long"));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.input.read(&mut buffer[..most])?;
        if left != u64::MAX {
            self.left.store(left - count as u64, Ordering::Relaxed);
        }
        Ok(count)
    }
}

/// rPGP wants every reader to speak of itself.
impl<R> fmt::Debug for Head<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reader")
    }
}
