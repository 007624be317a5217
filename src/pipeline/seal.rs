//! Encryption on the way out: with age or OpenPGP, to public keys or with a passphrase. Knows how
//! public keys are written and what a stream wrapped for them looks like; must not know where a key
//! is kept, and never sees a private one.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use age::secrecy::SecretString;
use age::stream::StreamWriter;
use jiff::Timestamp;

use super::openpgp::{self, Sealer};
use crate::fault::{Context, Fault, Result};
use crate::model::{Cipher, Encryption};
use crate::secret::Secret;

/// scrypt's cost of a passphrase is 2^15: it takes 32 MiB for a tenth of a second, once for each
/// stream, and the same again for each guess. The next step would be all the memory that a daemon
/// may use. Passphrases should be long; a key pair needs none of this.
const SCRYPT_LOG_N: u8 = 15;

/// To whom a stream is encrypted.
#[derive(Clone)]
pub struct Seal {
    to: To,
    encryption: Encryption,
}

#[derive(Clone)]
enum To {
    Age(Vec<age::x25519::Recipient>),
    AgePassphrase(Secret),
    Openpgp(Arc<openpgp::To>),
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.encryption.fmt(f)
    }
}

impl Seal {
    /// To the holders of age keys, given by their public keys, `age1...` each.
    pub fn age(keys: &[String]) -> Result<Self> {
        if keys.is_empty() {
            return Err(Fault::usage("it names no key")
                .hint("`respaldo key generate` makes one; give its public key, age1..."));
        }
        let to = keys.iter().map(|key| age_key(key.trim())).collect::<Result<Vec<_>>>()?;
        let recipients = to.iter().map(ToString::to_string).collect();
        Ok(Self::new(To::Age(to), Cipher::Age, recipients))
    }

    /// To whoever knows the passphrase, with age.
    pub fn age_passphrase(passphrase: Secret) -> Self {
        Self::new(To::AgePassphrase(passphrase), Cipher::Age, Vec::new())
    }

    /// To the holders of OpenPGP keys: each of `files` is what one or several public keys were
    /// exported to, armored or not. `now` decides which have expired.
    pub fn openpgp(files: &[Vec<u8>], now: Timestamp) -> Result<Self> {
        let mut keys = Vec::new();
        for file in files {
            keys.extend(openpgp::public_keys(file, now)?);
        }
        if keys.is_empty() {
            return Err(Fault::usage("it names no key")
                .hint("name files of public keys, as `gpg --armor --export YOU` writes them"));
        }
        let recipients = keys.iter().map(|key| key.fingerprint.clone()).collect();
        let to = To::Openpgp(Arc::new(openpgp::To::Keys(keys)));
        Ok(Self::new(to, Cipher::Openpgp, recipients))
    }

    /// To whoever knows the passphrase, with OpenPGP.
    pub fn openpgp_passphrase(passphrase: Secret) -> Self {
        let to = To::Openpgp(Arc::new(openpgp::To::Passphrase(passphrase)));
        Self::new(to, Cipher::Openpgp, Vec::new())
    }

    fn new(to: To, cipher: Cipher, recipients: Vec<String>) -> Self {
        Self { to, encryption: Encryption { cipher, recipients } }
    }

    /// What a manifest says of it.
    pub fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// The file name's last ending, with its dot.
    pub fn suffix(&self) -> &'static str {
        self.encryption.cipher.suffix()
    }

    /// Encrypts a small whole.
    pub fn wrap(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let wrapped = Sealed::new(Some(self), Vec::new()).and_then(|mut sealed| {
            sealed.write_all(bytes)?;
            sealed.finish()
        });
        wrapped.context("encrypt")
    }

    /// As [`wrap`](Self::wrap), compressed with zstd before.
    pub fn pack(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.wrap(&zstd::encode_all(bytes, 0).context("compress")?)
    }
}

fn age_key(key: &str) -> Result<age::x25519::Recipient> {
    if key.to_ascii_uppercase().contains("AGE-SECRET-KEY-") {
        return Err(Fault::usage("a secret key is given where a public one belongs").hint(
            "give the public key, age1...; `age-keygen -y FILE` prints it. Take the secret key off \
             this machine: whoever reads it here can read every backup",
        ));
    }
    key.parse().map_err(|_| {
        let hint = "an age public key is age1 and 58 letters and digits; `respaldo key generate` \
                    makes one";
        // What begins otherwise may be anything, a passphrase too.
        let why = match key {
            "" => "an empty string is no age public key".to_owned(),
            _ if key.starts_with("ssh-") => "an SSH key is not taken".to_owned(),
            _ if key.starts_with("age1") => format!("{key:?} is not an age public key"),
            _ => "what is given is not an age public key".to_owned(),
        };
        Fault::usage(why).hint(hint)
    })
}

/// A writer that encrypts on the way to another, or lets through what is not to be encrypted. What is
/// written is whole only after [`finish`](Self::finish).
pub(super) enum Sealed<W: Write + Send + 'static> {
    Plain(W),
    Age(Box<StreamWriter<W>>),
    Openpgp(Sealer<W>),
}

impl<W: Write + Send + 'static> Sealed<W> {
    pub(super) fn new(seal: Option<&Seal>, out: W) -> io::Result<Self> {
        let Some(seal) = seal else { return Ok(Self::Plain(out)) };
        let encryptor = match &seal.to {
            To::Openpgp(to) => return Sealer::start(to.clone(), out).map(Self::Openpgp),
            To::Age(keys) => {
                age::Encryptor::with_recipients(keys.iter().map(|key| key as &dyn age::Recipient))
            }
            To::AgePassphrase(passphrase) => {
                let passphrase = SecretString::from(passphrase.expose().to_owned());
                let mut recipient = age::scrypt::Recipient::new(passphrase);
                recipient.set_work_factor(SCRYPT_LOG_N);
                age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
            }
        };
        let writer = encryptor.map_err(io::Error::other)?.wrap_output(out)?;
        Ok(Self::Age(Box::new(writer)))
    }

    /// Ends the encrypted stream and gives the inner writer back.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Age(writer) => writer.finish(),
            Self::Openpgp(sealer) => sealer.finish(),
        }
    }
}

impl<W: Write + Send + 'static> Write for Sealed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Age(writer) => writer.write(bytes),
            Self::Openpgp(sealer) => sealer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
