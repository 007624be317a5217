//! A connection to an SFTP server: the host's key compared with the pinned ones, the account's login,
//! and the requests that the rest is made of. Knows SSH; must not know what is stored.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::Preferred;
use russh::client::{self, AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh_sftp::client::error::Error;
use russh_sftp::client::{Config, RawSftpSession};
use russh_sftp::extensions::{self, HardlinkExtension, Statvfs};
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode};
use tokio::net::TcpStream;

use super::{SftpOptions, host_key, private_key, status};
use crate::fault::{Context, Fault, Result};

const CONNECT: Duration = Duration::from_secs(10);
/// For each step of the way in.
const ANSWER: Duration = Duration::from_secs(20);
/// For one request; an fsync of a large file takes long.
const REQUEST_SECONDS: u64 = 300;
/// A line that is dead is given up after three of these.
const KEEPALIVE: Duration = Duration::from_secs(15);
const POSIX_RENAME: &str = "posix-rename@openssh.com";
/// Only its owner reads what is kept.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

pub(super) struct Session {
    ssh: Handle<Doorman>,
    raw: RawSftpSession,
    offers: HashMap<String, String>,
}

/// Lets in only whom the config names, and remembers who came.
struct Doorman {
    pinned: Vec<PublicKey>,
    seen: Arc<OnceLock<PublicKey>>,
}

impl client::Handler for Doorman {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        server: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        // Certificates are not asked for.
        let PublicKeyOrCertificate::PublicKey { key, .. } = server else { return Ok(false) };
        let known = self.pinned.iter().any(|pinned| pinned.key_data() == key.key_data());
        // Who was seen first counts, also after keys were exchanged anew.
        self.seen.get_or_init(|| key.clone());
        Ok(known)
    }
}

impl Session {
    pub(super) async fn open(options: &SftpOptions) -> Result<Self> {
        let SftpOptions { host, port, .. } = options;
        let unreachable = |what: String| {
            Fault::transient(what)
                .hint(format!("is the server up, and is {host}:{port} right as seen from here?"))
        };
        let connecting = TcpStream::connect((host.as_str(), *port));
        let stream = match tokio::time::timeout(CONNECT, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(format!("reach {host}:{port}")).cause(error)),
            Err(_) => {
                let what = format!("{host}:{port} did not answer in {} s", CONNECT.as_secs());
                return Err(unreachable(what));
            }
        };
        // Without it, small packets wait for each other.
        stream.set_nodelay(true).transient("set up the connection")?;
        let ssh = greet(options, stream).await?;
        let mut ssh = log_in(options, ssh).await?;
        let no_sftp = "does the server offer SFTP to this account (`Subsystem sftp`)?";
        let (raw, offers) = match tokio::time::timeout(ANSWER, subsystem(&mut ssh)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(fault)) => return Err(fault.hint(no_sftp)),
            Err(_) => {
                return Err(Fault::transient("the server did not begin SFTP").hint(no_sftp));
            }
        };
        Ok(Self { ssh, raw, offers })
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.ssh.is_closed()
    }

    pub(super) fn raw(&self) -> &RawSftpSession {
        &self.raw
    }

    fn offers(&self, extension: &str) -> bool {
        self.offers.contains_key(extension)
    }

    /// Creates a file that must not exist yet, and gives its handle.
    pub(super) async fn create(&self, path: &str) -> Result<String, Error> {
        let flags = OpenFlags::CREATE | OpenFlags::EXCLUDE | OpenFlags::WRITE;
        self.raw.open(path, flags, mode(FILE_MODE)).await.map(|opened| opened.handle)
    }

    /// Makes what was written durable, where the server can.
    pub(super) async fn sync(&self, handle: &str) -> Result<(), Error> {
        if self.offers(extensions::FSYNC) {
            self.raw.fsync(handle).await?;
        }
        Ok(())
    }

    /// Gives a file its name, in place of one that has it.
    pub(super) async fn replace(&self, from: &str, to: &str) -> Result<(), Error> {
        if !self.offers(POSIX_RENAME) {
            self.remove(to).await?;
            return self.raw.rename(from, to).await.map(drop);
        }
        let names = HardlinkExtension { oldpath: from.to_owned(), newpath: to.to_owned() };
        match self.raw.extended(POSIX_RENAME, names.try_into()?).await? {
            Packet::Status(done) if done.status_code == StatusCode::Ok => Ok(()),
            Packet::Status(refused) => Err(Error::Status(refused)),
            _ => Err(Error::UnexpectedPacket),
        }
    }

    /// Gives a file its name unless another has it: `false`. A link refuses for certain; a rename
    /// does by the protocol, but servers differ, so it is asked for first.
    pub(super) async fn claim(&self, from: &str, to: &str) -> Result<bool, Error> {
        if self.offers(extensions::HARDLINK) {
            match self.raw.hardlink(from, to).await {
                Ok(_) => {
                    self.remove(from).await?;
                    return Ok(true);
                }
                // A file system without links says no more than a name that is taken.
                Err(error) if status(&error).is_none() => return Err(error),
                Err(_) => {}
            }
        }
        match self.raw.lstat(to).await {
            Ok(_) => return Ok(false),
            Err(error) if status(&error) == Some(StatusCode::NoSuchFile) => {}
            Err(error) => return Err(error),
        }
        self.raw.rename(from, to).await.map(|_| true)
    }

    /// Removes a file; one that is not there is fine.
    pub(super) async fn remove(&self, path: &str) -> Result<(), Error> {
        match self.raw.remove(path).await {
            Err(error) if status(&error) != Some(StatusCode::NoSuchFile) => Err(error),
            _ => Ok(()),
        }
    }

    /// A folder and those above it.
    pub(super) async fn make_folders(&self, path: &str) -> Result<(), Error> {
        let mut missing = Vec::new();
        let mut folder = path;
        // Upwards to the first that is there: those above it may not be ours to look at.
        while !folder.is_empty() && self.raw.stat(folder).await.is_err() {
            missing.push(folder);
            folder = folder.rsplit_once('/').map_or("", |(above, _)| above);
        }
        for folder in missing.into_iter().rev() {
            if let Err(error) = self.raw.mkdir(folder, mode(FOLDER_MODE)).await {
                // Somebody else may have been faster.
                self.raw.stat(folder).await.map_err(|_| error)?;
            }
        }
        Ok(())
    }

    /// What lies in a folder, with kinds and sizes.
    pub(super) async fn entries(&self, path: &str) -> Result<Vec<(String, FileAttributes)>, Error> {
        let handle = self.raw.opendir(path).await?.handle;
        let mut entries = Vec::new();
        let read = loop {
            match self.raw.readdir(handle.as_str()).await {
                Ok(some) => entries.extend(some.files.into_iter().map(|f| (f.filename, f.attrs))),
                Err(error) if status(&error) == Some(StatusCode::Eof) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let closed = self.raw.close(handle).await;
        read?;
        closed?;
        entries.retain(|(name, _)| name != "." && name != "..");
        Ok(entries)
    }

    pub(super) async fn statvfs(&self, path: String) -> Option<Statvfs> {
        if !self.offers(extensions::STATVFS) {
            return None;
        }
        self.raw.statvfs(path).await.ok()
    }
}

fn mode(permissions: u32) -> FileAttributes {
    FileAttributes { permissions: Some(permissions), ..FileAttributes::empty() }
}

/// Exchanges keys with whom the config names.
async fn greet(options: &SftpOptions, stream: TcpStream) -> Result<Handle<Doorman>> {
    let pinned = options.host_keys.iter().map(|text| host_key(text));
    let pinned: Vec<PublicKey> = pinned
        .collect::<Result<_, _>>()
        .map_err(|why| Fault::usage(format!("a pinned host key: {why}")))?;
    let seen = Arc::new(OnceLock::new());
    // The kinds that are pinned first: a server has several keys, and shows the one asked for.
    let mut kinds = Preferred::DEFAULT.key.to_vec();
    // An RSA key signs with several digests, and each counts as a kind of its own.
    let is_pinned = |kind: &Algorithm| {
        let is_rsa = |kind: &Algorithm| matches!(kind, Algorithm::Rsa { .. });
        let same = |own: Algorithm| own == *kind || is_rsa(&own) && is_rsa(kind);
        pinned.iter().any(|key| same(key.algorithm()))
    };
    kinds.sort_by_key(|kind| !is_pinned(kind));
    let config = client::Config {
        preferred: Preferred { key: kinds.into(), ..Preferred::DEFAULT },
        keepalive_interval: Some(KEEPALIVE),
        nodelay: true,
        ..client::Config::default()
    };
    let doorman = Doorman { pinned, seen: seen.clone() };
    let known = options.host_keys.len();
    let greeting = client::connect_stream(Arc::new(config), stream, doorman);
    match tokio::time::timeout(ANSWER, greeting).await {
        Ok(Ok(ssh)) => Ok(ssh),
        Ok(Err(russh::Error::UnknownKey)) => Err(stranger(options, seen.get(), known)),
        Ok(Err(error)) => Err(Fault::transient("begin SSH")
            .cause(error)
            .hint(format!("is there an SSH server at {}:{}?", options.host, options.port))),
        Err(_) => Err(Fault::transient(format!("no SSH greeting in {} s", ANSWER.as_secs()))
            .hint(format!("is there an SSH server at {}:{}?", options.host, options.port))),
    }
}

fn stranger(options: &SftpOptions, seen: Option<&PublicKey>, known: usize) -> Fault {
    let SftpOptions { host, port, .. } = options;
    let shown = seen.map_or("a certificate".to_owned(), |key| {
        let mut key = key.clone();
        key.set_comment("");
        let print = key.fingerprint(HashAlg::Sha256);
        format!("{} ({print})", key.to_openssh().unwrap_or_default())
    });
    let file = seen.map_or("ssh_host_*_key.pub", |key| match key.algorithm().as_str() {
        "ssh-ed25519" => "ssh_host_ed25519_key.pub",
        _ => "ssh_host_*_key.pub",
    });
    let compare = format!("compare with `ssh-keygen -lf /etc/ssh/{file}` on that machine");
    if known == 0 {
        return Fault::permanent(format!("no host key is pinned; {host}:{port} shows {shown}"))
            .hint(format!("{compare}; if it is the same, write it into host_key"));
    }
    Fault::permanent(format!("{host}:{port} is not the pinned host: it shows {shown}")).hint(format!(
        "somebody may stand between, or the machine is new: {compare}, and only then change host_key"
    ))
}

async fn log_in(options: &SftpOptions, mut ssh: Handle<Doorman>) -> Result<Handle<Doorman>> {
    let asked = tokio::time::timeout(ANSWER, authenticate(options, &mut ssh)).await;
    match asked {
        Ok(Ok(true)) => Ok(ssh),
        Ok(Ok(false)) => {
            let (what, hint) = match options.private_key {
                Some(_) => ("private key", "is its public half in authorized_keys there?"),
                None => ("password", "check it, and that the server takes passwords at all"),
            };
            Err(Fault::permanent(format!(
                "{} refuses '{}' with this {what}",
                options.host, options.user
            ))
            .hint(format!("{hint} The server's own log says why")))
        }
        Ok(Err(fault)) => Err(fault),
        Err(_) => {
            Err(Fault::transient(format!("no answer to the login in {} s", ANSWER.as_secs()))
                .hint("the server's own log may say why"))
        }
    }
}

async fn authenticate(options: &SftpOptions, ssh: &mut Handle<Doorman>) -> Result<bool> {
    let user = options.user.as_str();
    let doing = "log in";
    if let Some(text) = &options.private_key {
        let key = private_key(text, options.passphrase.as_ref())
            .map_err(|why| Fault::usage(format!("the private key can't be used: {why}")))?;
        // An RSA key signs with the best digest that the server names; others have their own.
        let digest = match key.algorithm().is_rsa() {
            true => ssh.best_supported_rsa_hash().await.transient(doing)?.flatten(),
            false => None,
        };
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), digest);
        let answer = ssh.authenticate_publickey(user, key).await.transient(doing)?;
        return Ok(answer.success());
    }
    let Some(password) = &options.password else { return Ok(false) };
    let answer = ssh.authenticate_password(user, password.expose()).await.transient(doing)?;
    let AuthResult::Failure { remaining_methods, .. } = answer else { return Ok(true) };
    if !remaining_methods.contains(&russh::MethodKind::KeyboardInteractive) {
        return Ok(false);
    }
    // Many servers take passwords only by asking for them.
    let mut answer =
        ssh.authenticate_keyboard_interactive_start(user, None).await.transient(doing)?;
    for _ in 0..4 {
        let prompts = match answer {
            KeyboardInteractiveAuthResponse::Success => return Ok(true),
            KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => prompts,
        };
        let answers = prompts.iter().map(|_| password.expose().to_owned()).collect();
        answer = ssh.authenticate_keyboard_interactive_respond(answers).await.transient(doing)?;
    }
    Ok(false)
}

async fn subsystem(ssh: &mut Handle<Doorman>) -> Result<(RawSftpSession, HashMap<String, String>)> {
    let doing = "begin SFTP";
    let channel = ssh.channel_open_session().await.transient(doing)?;
    channel.request_subsystem(true, "sftp").await.transient(doing)?;
    let config = Config { request_timeout_secs: REQUEST_SECONDS, ..Config::default() };
    let raw = RawSftpSession::new_with_config(channel.into_stream(), config);
    let version = raw.init().await.transient(doing)?;
    Ok((raw, version.extensions))
}
