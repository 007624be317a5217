//! OpenPGP through rPGP: which keys can be used, messages that gpg 2.2 reads, and what gpg wrote.
//! Knows the format; must not know where keys or messages lie.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use jiff::Timestamp;
use pgp::composed::{
    DecryptionOptions, Esk, Message, MessageBuilder, PublicOrSecret, SignedPublicKey,
    SignedSecretKey, TheRing,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::errors::Error;
use pgp::packet::{KeyFlags, PublicSubkey, Signature, SignatureType};
use pgp::types::{KeyDetails, Password, Seipdv1ReadMode, StringToKey, Tag};

use crate::fault::{Fault, Result};
use crate::secret::Secret;

/// A message is written in parts of so many bytes, since its length is not known beforehand.
const PART_BYTES: u32 = 256 << 10;
/// Parts between the compressing thread and the encrypting one.
const PARTS: usize = 2;
/// How long a guess at a passphrase takes: 65 MB are hashed for it, as gpg does at most.
const S2K_COUNT: u8 = 255;
/// What somebody else's message may ask for: 256 MiB of memory for one try.
const MOST_ARGON2_LOG_KIB: u8 = 18;
const MOST_PASSPHRASES: usize = 16;

/// To whom a message goes.
pub(super) enum To {
    Keys(Vec<PublicKey>),
    Passphrase(Secret),
}

/// A key that can be encrypted to.
pub(super) struct PublicKey {
    /// Of the whole key, in hexadecimal: what `gpg --list-keys` shows.
    pub fingerprint: String,
    /// When nothing can be encrypted to it any more; `None`: never.
    pub ends: Option<Timestamp>,
    part: Part,
}

/// The part of it that encrypts.
enum Part {
    Primary(Box<SignedPublicKey>),
    Sub(Box<PublicSubkey>),
}

/// The public keys in a file, armored or not.
pub(super) fn public_keys(file: &[u8], now: Timestamp) -> Result<Vec<PublicKey>> {
    let export = "export the public key with `gpg --armor --export YOU > key.asc`";
    if file.trim_ascii().is_empty() {
        return Err(Fault::usage("it is empty").hint(export));
    }
    let no_key = || Fault::usage("it is not an OpenPGP public key").hint(export);
    let (keys, _) = PublicOrSecret::from_reader_many(file).map_err(|_| no_key())?;
    let mut usable = Vec::new();
    for key in keys {
        match key.map_err(|_| no_key())? {
            PublicOrSecret::Public(key) => usable.push(public_key(key, now)?),
            PublicOrSecret::Secret(_) => {
                return Err(Fault::usage("it holds a secret key where a public one belongs").hint(
                    format!(
                        "{export}. Take the secret key off this machine: whoever reads it here can \
                         read every backup"
                    ),
                ));
            }
        }
    }
    if usable.is_empty() { Err(no_key()) } else { Ok(usable) }
}

/// Its newest part that can encrypt.
fn public_key(key: SignedPublicKey, now: Timestamp) -> Result<PublicKey> {
    let fingerprint = format!("{:X}", key.fingerprint());
    let refuse = |why: String| {
        Fault::usage(format!("the key {fingerprint} {why}"))
            .hint("prolong it or make another, and export its public part again")
    };
    let primary = &key.primary_key;
    if key.details.revocation_signatures.iter().any(|sign| sign.verify_key(primary).is_ok()) {
        return Err(refuse("was revoked".into()));
    }
    let users = key.details.users.iter().flat_map(|user| {
        let ours =
            |sign: &&Signature| sign.verify_certification(primary, Tag::UserId, &user.id).is_ok();
        user.signatures.iter().filter(|sign| sign.is_certification()).filter(ours)
    });
    let direct =
        key.details.direct_signatures.iter().filter(|sign| sign.verify_key(primary).is_ok());
    let Some(own) = users.chain(direct).max_by_key(|sign| sign.created()) else {
        return Err(refuse("is not signed by itself".into()));
    };
    let primary_end = end(primary.created_at().as_secs(), own);
    if let Some(end) = primary_end.filter(|end| *end <= now) {
        return Err(refuse(format!("expired on {}", day(end))));
    }
    let mut expired = None;
    // Of the parts that encrypt, the one that lasts the longest.
    let mut lasts: Option<Timestamp> = None;
    let mut best: Option<&PublicSubkey> = None;
    for subkey in &key.public_subkeys {
        let valid = |kind: SignatureType| {
            subkey.signatures.iter().filter(move |sign| {
                sign.typ() == Some(kind) && sign.verify_subkey_binding(primary, &subkey.key).is_ok()
            })
        };
        let Some(binding) = valid(SignatureType::SubkeyBinding).max_by_key(|sign| sign.created())
        else {
            continue;
        };
        let revoked = valid(SignatureType::SubkeyRevocation).next().is_some();
        if revoked || !encrypts(&binding.key_flags()) || !subkey.key.algorithm().can_encrypt() {
            continue;
        }
        let made = subkey.key.created_at().as_secs();
        if let Some(end) = end(made, binding).filter(|end| *end <= now) {
            expired = expired.max(Some(end));
        } else {
            lasts = lasts.max(Some(end(made, binding).unwrap_or(Timestamp::MAX)));
            if best.is_none_or(|best| best.created_at().as_secs() <= made) {
                best = Some(&subkey.key);
            }
        }
    }
    let part = match (best, expired) {
        (Some(subkey), _) => Part::Sub(Box::new(subkey.clone())),
        (None, Some(end)) => {
            return Err(refuse(format!("can't encrypt: the part for it expired on {}", day(end))));
        }
        (None, None) if encrypts(&own.key_flags()) && primary.algorithm().can_encrypt() => {
            Part::Primary(Box::new(key))
        }
        (None, None) => {
            return Err(refuse("can't encrypt: it has no part for it, only for signing".into()));
        }
    };
    let ends = primary_end.into_iter().chain(lasts).min().filter(|end| *end < Timestamp::MAX);
    Ok(PublicKey { fingerprint, ends, part })
}

/// The fingerprint of each key in the file that expires, and when; also of those that have.
pub fn key_ends(file: &[u8], now: Timestamp) -> Vec<(String, Timestamp)> {
    let keys = public_keys(file, now).or_else(|_| public_keys(file, Timestamp::UNIX_EPOCH));
    let keys = keys.unwrap_or_default().into_iter();
    keys.filter_map(|key| Some((key.fingerprint, key.ends?))).collect()
}

fn encrypts(flags: &KeyFlags) -> bool {
    flags.encrypt_comms() || flags.encrypt_storage()
}

/// When a key that was made at `made`, in seconds, expires.
fn end(made: u32, sign: &Signature) -> Option<Timestamp> {
    let lasts = sign.key_expiration_time().map(|lasts| lasts.as_secs()).filter(|s| *s > 0)?;
    Timestamp::from_second(i64::from(made) + i64::from(lasts)).ok()
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// A writer whose bytes another thread encrypts: rPGP wants to read, and blocks.
pub(super) struct Sealer<W> {
    part: Vec<u8>,
    parts: SyncSender<Option<Vec<u8>>>,
    thread: Option<JoinHandle<io::Result<W>>>,
}

impl<W: Write + Send + 'static> Sealer<W> {
    pub(super) fn start(to: Arc<To>, out: W) -> io::Result<Self> {
        let (parts, sent) = sync_channel(PARTS);
        let pipe = Pipe { parts: sent, part: io::Cursor::default(), ended: false };
        let thread = thread::Builder::new().name("openpgp".into());
        let thread = thread.spawn(move || seal(&to, pipe, out))?;
        let part = Vec::with_capacity(PART_BYTES as usize);
        Ok(Self { part, parts, thread: Some(thread) })
    }

    fn send(&mut self, part: Option<Vec<u8>>) -> io::Result<()> {
        match self.parts.send(part) {
            Ok(()) => Ok(()),
            // It gave up, and knows why.
            Err(_) => Err(self.join().err().unwrap_or_else(broken)),
        }
    }

    fn send_part(&mut self) -> io::Result<()> {
        let next = Vec::with_capacity(PART_BYTES as usize);
        let part = std::mem::replace(&mut self.part, next);
        self.send(Some(part))
    }

    fn join(&mut self) -> io::Result<W> {
        let thread = self.thread.take().ok_or_else(broken)?;
        thread.join().unwrap_or_else(|_| Err(broken()))
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.part.is_empty() {
            self.send_part()?;
        }
        self.send(None)?;
        self.join()
    }
}

impl<W: Write + Send + 'static> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PART_BYTES as usize - self.part.len());
        self.part.extend_from_slice(&bytes[..count]);
        if self.part.len() == PART_BYTES as usize {
            self.send_part()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reader's end of it. A writer that is dropped has not ended the stream.
struct Pipe {
    parts: Receiver<Option<Vec<u8>>>,
    part: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.part.read(buffer)?;
            if count > 0 || self.ended || buffer.is_empty() {
                return Ok(count);
            }
            match self.parts.recv() {
                Ok(Some(part)) => self.part = io::Cursor::new(part),
                Ok(None) => self.ended = true,
                Err(_) => return Err(io::Error::other("the stream was cut short")),
            }
        }
    }
}

/// AES-256 in the older integrity-protected packet, for gpg 2.2 knows no newer one; not compressed
/// again.
fn seal<W: Write>(to: &To, pipe: Pipe, mut out: W) -> io::Result<W> {
    let mut rng = rand::thread_rng();
    let message = MessageBuilder::from_reader("", pipe);
    let mut message = message.seipd_v1(&mut rng, SymmetricKeyAlgorithm::AES256);
    let mut prepare = || {
        message.partial_chunk_size(PART_BYTES)?;
        match to {
            To::Keys(keys) => {
                for key in keys {
                    match &key.part {
                        Part::Primary(key) => message.encrypt_to_key(&mut rng, &**key)?,
                        Part::Sub(key) => message.encrypt_to_key(&mut rng, &**key)?,
                    };
                }
            }
            To::Passphrase(passphrase) => {
                let s2k = StringToKey::new_iterated(&mut rng, HashAlgorithm::Sha256, S2K_COUNT);
                message.encrypt_with_password(s2k, &Password::from(passphrase.expose()))?;
            }
        }
        Ok(())
    };
    prepare().map_err(plain_error)?;
    message.to_writer(rng, &mut out).map_err(plain_error)?;
    Ok(out)
}

/// What a reader or writer said is passed on as it was.
fn plain_error(error: Error) -> io::Error {
    match error {
        Error::IO { source, .. } => source,
        other => io::Error::other(other.to_string()),
    }
}

fn broken() -> io::Error {
    io::Error::other("the encrypting thread broke")
}

/// A private key, unlocked where it was locked.
pub(super) struct SecretKey {
    key: SignedSecretKey,
    passphrase: Password,
}

impl SecretKey {
    /// Of the whole key, as [`PublicKey::fingerprint`].
    pub(super) fn fingerprint(&self) -> String {
        format!("{:X}", self.key.fingerprint())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.fingerprint())
    }
}

/// The private keys in a file, armored or not. A passphrase is tried on each that is locked.
pub(super) fn secret_keys(file: &[u8], passphrase: Option<&Secret>) -> Result<Vec<SecretKey>> {
    let no_key = || Fault::usage("it is not an OpenPGP secret key");
    let (keys, _) = PublicOrSecret::from_reader_many(file).map_err(|_| no_key())?;
    let mut opened = Vec::new();
    for key in keys {
        let PublicOrSecret::Secret(key) = key.map_err(|_| no_key())? else {
            return Err(Fault::usage("it holds a public key: only the secret one opens a backup")
                .hint("`gpg --armor --export-secret-keys YOU` writes it"));
        };
        let key =
            SecretKey { key, passphrase: Password::from(passphrase.map_or("", |p| p.expose())) };
        if !unlocks(&key) {
            let fingerprint = key.fingerprint();
            return Err(match passphrase {
                None => Fault::usage(format!("the key {fingerprint} is locked by a passphrase"))
                    .hint("put it into a file and add --passphrase-file FILE"),
                Some(_) => Fault::usage(format!("the passphrase does not open {fingerprint}"))
                    .hint("give the passphrase of that very key"),
            });
        }
        opened.push(key);
    }
    if opened.is_empty() { Err(no_key()) } else { Ok(opened) }
}

/// Whether at least one of its parts does: the others may be kept elsewhere.
fn unlocks(key: &SecretKey) -> bool {
    let SecretKey { key, passphrase } = key;
    let whole = || matches!(key.primary_key.unlock(passphrase, |_, _| Ok(())), Ok(Ok(())));
    key.secret_subkeys
        .iter()
        .any(|part| matches!(part.key.unlock(passphrase, |_, _| Ok(())), Ok(Ok(()))))
        || whole()
}

/// The content of a message. It is handed out before its integrity is known, which is at its end: so
/// nothing of it may be believed until the reader has come to the end without an error.
pub(super) fn open<'a, R>(
    input: R,
    keys: &[SecretKey],
    passphrase: Option<&Secret>,
) -> Result<Box<dyn Read + 'a>, OpenError>
where
    R: BufRead + fmt::Debug + Send + 'a,
{
    let refused = |error: Error| OpenError::Refused(error.to_string());
    let message = Message::from_bytes(input).map_err(refused)?;
    let Message::Encrypted { esk, .. } = &message else {
        return Err(OpenError::Refused("it is not encrypted".into()));
    };
    if passphrase.is_some() {
        affordable(esk)?;
    }
    let passphrase = passphrase.map(|passphrase| Password::from(passphrase.expose()));
    let ring = TheRing {
        secret_keys: keys.iter().map(|key| &key.key).collect(),
        key_passwords: keys.iter().map(|key| &key.passphrase).collect(),
        message_password: passphrase.iter().collect(),
        decrypt_options: DecryptionOptions::new()
            .enable_gnupg_aead()
            .set_seipdv1_read_mode(Seipdv1ReadMode::Streaming),
        ..Default::default()
    };
    let (mut message, _) = message.decrypt_the_ring(ring, true).map_err(|_| OpenError::WrongKey)?;
    // gpg compresses what it does not take for compressed.
    if message.is_compressed() {
        message = message.decompress().map_err(refused)?;
    }
    Ok(Box::new(message))
}

/// Each passphrase that a message claims to open with is tried, at a price that the message names.
fn affordable(esk: &[Esk]) -> Result<(), OpenError> {
    let tries: Vec<_> = esk
        .iter()
        .filter_map(|esk| match esk {
            Esk::SymKeyEncryptedSessionKey(key) => Some(key.s2k()),
            Esk::PublicKeyEncryptedSessionKey(_) => None,
        })
        .collect();
    let dear = |s2k: &Option<&StringToKey>| match s2k {
        Some(StringToKey::Argon2 { t, m_enc, .. }) => *m_enc > MOST_ARGON2_LOG_KIB || *t > 8,
        _ => false,
    };
    if tries.len() > MOST_PASSPHRASES || tries.iter().any(dear) {
        return Err(OpenError::Refused("its passphrase asks for too much work".into()));
    }
    Ok(())
}

/// Why a message did not open.
#[derive(Debug)]
pub(super) enum OpenError {
    WrongKey,
    Refused(String),
}
