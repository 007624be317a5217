//! What is encrypted opens with stock `age` and `gpg`, and with respaldo, for whoever has the key, and
//! for nobody else; what lies on a destination names no table; and the machine that makes it holds
//! nothing that could open it.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use respaldo::model::{Cipher, Compression, Encryption};
use respaldo::pipeline::{
    Encoding, Expected, Identities, Meter, Piece, Seal, decode, encode, feed,
};
use respaldo::secret::Secret;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::config::{HEAD, LOCAL, postgres, s3};
use crate::support::postgres::Postgres;
use crate::support::program::Respaldo;
use crate::support::s3::S3;
use crate::support::stored::Stored;
use crate::support::tree::assert_alike;
use crate::support::{temp_folder, tool};

/// Everything that encrypts, and everything that opens it again, made by the stock tools.
struct Keys {
    folder: tempfile::TempDir,
    age: Vec<String>,
}

const PASSPHRASE: &str = "correct horse battery staple";

impl Keys {
    fn make() -> Self {
        let folder = temp_folder("keys");
        let mut keys = Self { folder, age: Vec::new() };
        for name in ["one", "two", "stranger"] {
            tool(Command::new("age-keygen").arg("-o").arg(keys.path(name)));
            keys.age.push(
                tool(Command::new("age-keygen").arg("-y").arg(keys.path(name))).trim().into(),
            );
        }
        fs::write(keys.path("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
        fs::write(keys.path("wrong"), "something else").unwrap();
        for (name, kind) in [("rsa", "default"), ("modern", "future-default")] {
            keys.gpg_key(name, kind, "never");
        }
        keys
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn gpg(&self) -> Command {
        let home = self.path("gnupg");
        fs::create_dir_all(&home).unwrap();
        fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback"])
            .args(["--passphrase", "", "--trust-model", "always"])
            .env("GNUPGHOME", home);
        gpg
    }

    /// Makes a key, and exports both parts to `NAME.asc` and `NAME.secret`.
    fn gpg_key(&self, name: &str, kind: &str, lasts: &str) {
        let user = format!("{name} <{name}@example.com>");
        tool(self.gpg().args(["--quick-gen-key", &user, kind, "default", lasts]));
        let address = format!("{name}@example.com");
        let export = |what: &str, file: &str| {
            tool(self.gpg().arg("--output").arg(self.path(file)).args([what, "--armor", &address]));
        };
        export("--export", &format!("{name}.asc"));
        export("--export-secret-keys", &format!("{name}.secret"));
    }

    fn public(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(&format!("{name}.asc"))).unwrap()
    }

    /// Each way to encrypt, by name.
    fn seals(&self) -> HashMap<&'static str, Seal> {
        let passphrase = || Secret::new(PASSPHRASE);
        let now = "2026-11-21T00:00:00Z".parse().unwrap();
        HashMap::from([
            ("age", Seal::age(&self.age[..2]).unwrap()),
            ("age passphrase", Seal::age_passphrase(passphrase())),
            ("openpgp", Seal::openpgp(&[self.public("rsa"), self.public("modern")], now).unwrap()),
            ("openpgp passphrase", Seal::openpgp_passphrase(passphrase())),
        ])
    }

    fn identities(&self, files: &[&str], passphrase: Option<&str>) -> Identities {
        let files: Vec<_> = files
            .iter()
            .map(|name| ((*name).to_owned(), fs::read(self.path(name)).unwrap()))
            .collect();
        Identities::new(&files, passphrase.map(Secret::new)).unwrap()
    }

    /// Decrypts with the stock tool.
    fn stock(&self, way: &str, stored: &[u8]) -> Result<Vec<u8>, String> {
        let file = self.path("stored");
        fs::write(&file, stored).unwrap();
        let output = match way {
            "age" => {
                Command::new("age").arg("-d").arg("-i").arg(self.path("two")).arg(file).output()
            }
            "age passphrase" => typed(&format!("age -d {}", file.display())),
            "openpgp" => self.gpg().arg("-d").arg(file).output(),
            _ => {
                let mut gpg = self.gpg();
                gpg.arg("--passphrase-file").arg(self.path("passphrase")).arg("-d").arg(file);
                gpg.output()
            }
        };
        let output = output.unwrap();
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // The agent that gpg started for this folder alone.
        let mut end = Command::new("gpgconf");
        end.args(["--kill", "all"]).env("GNUPGHOME", self.path("gnupg"));
        drop(end.output());
    }
}

/// `age` takes a passphrase from a terminal alone: this gives it one.
fn typed(command: &str) -> std::io::Result<std::process::Output> {
    let script = "import os, pty, sys\n\
        out, command = os.dup(1), sys.argv[1]\n\
        pid, fd = pty.fork()\n\
        if pid == 0:\n    \
            os.dup2(out, 1)\n    \
            os.execvp('sh', ['sh', '-c', command])\n\
        said = b''\n\
        while b'passphrase' not in said: said += os.read(fd, 1000)\n\
        os.write(fd, (sys.argv[2] + '\\n').encode())\n\
        try:\n    \
            while os.read(fd, 1000): pass\n\
        except OSError: pass\n\
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n";
    Command::new("/usr/bin/python3").args(["-c", script, command, PASSPHRASE]).output()
}

/// Runs a stream through the pipeline: its volumes.
fn sealed(plain: &[u8], seal: &Seal, volume_bytes: u64) -> Vec<Vec<u8>> {
    let (out, mut pieces) = tokio::sync::mpsc::channel(2);
    let encoding = Encoding {
        compression: Compression::Zstd,
        level: None,
        volume_bytes,
        seal: Some(seal.clone()),
    };
    let collect = std::thread::spawn(move || {
        let mut volumes = vec![Vec::new()];
        while let Some(piece) = pieces.blocking_recv() {
            match piece {
                Piece::Data(data) => volumes.last_mut().unwrap().extend_from_slice(&data),
                Piece::NextVolume => volumes.push(Vec::new()),
            }
        }
        volumes
    });
    let reader = Box::new(std::io::Cursor::new(plain.to_vec()));
    let (meter, cancel) = (Meter::default(), CancellationToken::new());
    let encoded = encode(reader, "a", &encoding, out, &meter, &cancel).unwrap();
    let volumes = collect.join().unwrap();
    let digest = |bytes: &[u8]| respaldo::pipeline::sha256(bytes);
    assert_eq!(encoded.plain_sha256, digest(plain));
    assert_eq!(encoded.stored_sha256, digest(&volumes.concat()), "digests are of what is stored");
    assert_eq!(encoded.volumes.len(), volumes.len());
    volumes
}

/// Opens a stored stream as a restore does.
fn opened(
    stored: &[u8],
    cipher: Cipher,
    bytes: usize,
    keys: &Identities,
) -> Result<Vec<u8>, String> {
    let expected = Expected {
        compression: Compression::Zstd,
        plain_bytes: bytes as u64,
        cipher: Some(cipher),
        identities: keys.clone(),
    };
    let chunks: Vec<_> =
        stored.chunks(70_000).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    let (drive, fed) = feed(futures::stream::iter(chunks));
    let driver = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(drive);
    });
    let mut plain = Vec::new();
    let decoded = decode(fed, &expected, &mut plain, &Meter::default());
    driver.join().unwrap();
    decoded.map(|_| plain).map_err(|fault| fault.chain())
}

fn noise(bytes: usize) -> Vec<u8> {
    let blocks = (0_u32..).map(|n| respaldo::pipeline::sha256(&n.to_le_bytes()).0);
    blocks.flatten().take(bytes).collect()
}

fn unzstd(bytes: &[u8]) -> Vec<u8> {
    let mut zstd = Command::new("zstd")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = zstd.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = zstd.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    output.stdout
}

const SIZES: [usize; 4] = [0, 1, 65_536, 3 << 20];

#[test]
fn age_and_gpg_open_what_is_written() {
    let keys = Keys::make();
    for (way, seal) in keys.seals() {
        for bytes in SIZES {
            let plain = noise(bytes);
            for volume in [u64::MAX, 1 << 20] {
                let volumes = sealed(&plain, &seal, volume);
                assert_eq!(volumes.len() > 1, bytes > 2 << 20 && volume == 1 << 20);
                let stock = keys
                    .stock(way, &volumes.concat())
                    .unwrap_or_else(|said| panic!("{way}: {said}"));
                assert_eq!(unzstd(&stock), plain, "{way}, {bytes} bytes");
            }
        }
    }
}

#[test]
fn respaldo_opens_it_with_the_right_key_and_no_other() {
    let keys = Keys::make();
    let right = |way: &str| match way {
        "age" => vec![keys.identities(&["one"], None), keys.identities(&["stranger", "two"], None)],
        "openpgp" => vec![
            keys.identities(&["rsa.secret"], None),
            keys.identities(&["one", "modern.secret"], None),
        ],
        _ => vec![keys.identities(&[], Some(PASSPHRASE))],
    };
    keys.gpg_key("stranger", "future-default", "never");
    let wrong = [
        Identities::default(),
        keys.identities(&["stranger", "stranger.secret"], None),
        keys.identities(&["stranger"], Some("wrong")),
    ];
    for (way, seal) in keys.seals() {
        let Encryption { cipher, .. } = *seal.encryption();
        for bytes in SIZES {
            let plain = noise(bytes);
            let stored = sealed(&plain, &seal, u64::MAX).concat();
            for keys in right(way) {
                assert!(keys.fit(seal.encryption()), "{way}");
                assert_eq!(opened(&stored, cipher, bytes, &keys).unwrap(), plain, "{way}");
            }
            for keys in &wrong {
                let said = opened(&stored, cipher, bytes, keys).unwrap_err();
                assert!(said.contains("does not open it"), "{way}: {said}");
            }
            // One bit, anywhere: in the head, in the middle, at the very end.
            for at in [20, stored.len() / 2, stored.len() - 1] {
                let mut spoiled = stored.clone();
                spoiled[at] ^= 1;
                assert!(opened(&spoiled, cipher, bytes, &right(way)[0]).is_err(), "{way} {at}");
            }
            for cut in [1, stored.len() / 3] {
                let short = &stored[..stored.len() - cut];
                assert!(opened(short, cipher, bytes, &right(way)[0]).is_err(), "{way} -{cut}");
            }
        }
    }
}
