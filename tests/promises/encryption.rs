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

use super::stock_tools::{commands, shell};
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

/// Where Debian keeps it.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

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
    opened_as(Compression::Zstd, stored, cipher, bytes, keys)
}

fn opened_as(
    compression: Compression,
    stored: &[u8],
    cipher: Cipher,
    bytes: usize,
    keys: &Identities,
) -> Result<Vec<u8>, String> {
    let expected = Expected {
        compression,
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

#[test]
fn respaldo_opens_what_stock_age_and_gpg_wrote() {
    let keys = Keys::make();
    let plain = noise(200_000);
    let file = keys.path("plain");
    fs::write(&file, &plain).unwrap();
    // gpg compresses it: opened as it is, and decompressed by what OpenPGP says.
    let text = "again and again ".repeat(20_000);
    fs::write(keys.path("text"), &text).unwrap();
    let out = keys.path("out");
    let written = |command: &mut Command| {
        drop(fs::remove_file(&out));
        tool(command);
        fs::read(&out).unwrap()
    };
    let raw = |stored: &[u8], cipher, bytes: usize, keys: &Identities| {
        opened_as(Compression::None, stored, cipher, bytes, keys)
    };
    let age = written(Command::new("age").args(["-r", &keys.age[0], "-o"]).args([&out, &file]));
    let identities = keys.identities(&["one"], None);
    assert_eq!(raw(&age, Cipher::Age, plain.len(), &identities).unwrap(), plain);
    for (name, file, plain) in
        [("rsa", &file, &plain[..]), ("modern", &keys.path("text"), text.as_bytes())]
    {
        let user = format!("{name}@example.com");
        let gpg = written(keys.gpg().args(["-e", "-r", &user, "-o"]).args([&out, file]));
        let identities = keys.identities(&[&format!("{name}.secret")], None);
        assert_eq!(raw(&gpg, Cipher::Openpgp, plain.len(), &identities).unwrap(), plain, "{name}");
        let mut command = keys.gpg();
        command.arg("--passphrase-file").arg(keys.path("passphrase"));
        let gpg = written(command.args(["-c", "-o"]).args([&out, file]));
        let identities = keys.identities(&[], Some(PASSPHRASE));
        assert_eq!(raw(&gpg, Cipher::Openpgp, plain.len(), &identities).unwrap(), plain);
    }
    // More comes out than was promised: a bomb is not followed to its end.
    let bomb = keys.path("bomb");
    fs::write(&bomb, vec![0; 50 << 20]).unwrap();
    let gpg = written(keys.gpg().args(["-e", "-r", "rsa@example.com", "-o"]).args([&out, &bomb]));
    let said = raw(&gpg, Cipher::Openpgp, 1000, &keys.identities(&["rsa.secret"], None));
    assert!(said.unwrap_err().contains("more than the manifest says"));
}

#[test]
fn a_key_locked_by_a_passphrase_opens_with_it() {
    let keys = Keys::make();
    let mut gpg = keys.gpg();
    gpg.args(["--passphrase", PASSPHRASE, "--quick-gen-key", "locked@example.com"]);
    tool(gpg.args(["future-default", "default", "never"]));
    let export = |what: &str, name: &str| {
        let mut gpg = keys.gpg();
        gpg.args(["--passphrase", PASSPHRASE, "--output"]).arg(keys.path(name));
        tool(gpg.args([what, "locked@example.com"]));
    };
    // Binary, this time.
    export("--export", "locked.asc");
    export("--export-secret-keys", "locked.secret");
    let now = "2026-11-21T00:00:00Z".parse().unwrap();
    let seal = Seal::openpgp(&[keys.public("locked")], now).unwrap();
    let stored = sealed(b"plain", &seal, u64::MAX).concat();
    let identities = keys.identities(&["locked.secret"], Some(PASSPHRASE));
    assert_eq!(opened(&stored, Cipher::Openpgp, 5, &identities).unwrap(), b"plain");
    let refused = |passphrase: Option<&str>| {
        let file = ("locked".to_owned(), fs::read(keys.path("locked.secret")).unwrap());
        Identities::new(&[file], passphrase.map(Secret::new)).unwrap_err().chain()
    };
    assert!(refused(None).contains("is locked by a passphrase"), "{}", refused(None));
    assert!(refused(Some("wrong")).contains("the passphrase does not open"));
}

/// Everything in a folder, as one would look through it with `strings`.
fn found_in(folder: &Path, word: &str) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file()).map(|entry| entry.into_path());
    let holds = |path: &PathBuf| {
        let content = fs::read(path).unwrap();
        content.windows(word.len()).any(|part| part == word.as_bytes())
    };
    files.filter(holds).collect()
}

/// The file behind a test's key, as an argument.
fn argument(keys: &Keys, name: &str) -> String {
    keys.path(name).to_str().unwrap().to_owned()
}

#[test]
fn an_encrypted_backup_from_end_to_end() {
    let keys = Keys::make();
    let (database, s3) = (Postgres::start().database("sealed"), S3::start());
    database.psql(
        "CREATE TABLE secret_customers AS SELECT n, repeat(md5(n::text), 20) m \
             FROM generate_series(1, 4711) n; \
         CREATE TABLE small (n int); INSERT INTO small VALUES (1); ANALYZE",
    );
    let source = postgres(&database, ", streams = 2, streams_above = \"1MiB\"");
    let source = source.trim().trim_start_matches("source = ");
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}{}[jobs.all]\nretries = 0\nencrypt = {{ age = [\"{}\", \"{}\"] }}\n\
         sources = [{source}, {{ sqlite = \"@DIR@/shop.db\" }}, {{ files = \"@DIR@/media\" }}]\n",
        self::s3("offsite", &s3, "backups"),
        keys.age[0],
        keys.age[1],
    ));
    let sql = "CREATE TABLE hidden_orders AS SELECT 1 AS n";
    tool(Command::new("sqlite3").arg(respaldo.path("shop.db")).arg(sql));
    respaldo.write("media/private letter.txt", "dear diary");
    respaldo.run(&["backup", "all"]).expect(0);

    // Whoever finds the files learns nothing but names of databases and sizes.
    let local = Stored::newest(&respaldo.path("backups"), "all");
    let places = [respaldo.path("backups"), s3.folder().to_owned()];
    for place in &places {
        for word in ["secret_customers", "4711", "hidden_orders", "private letter", "plain_sha256"]
        {
            assert_eq!(found_in(place, word), [] as [PathBuf; 0], "{word}");
        }
    }
    // And whoever breaks into this machine can't read them.
    for word in ["AGE-SECRET-KEY-", "PRIVATE KEY BLOCK"] {
        assert_eq!(found_in(respaldo.folder(), word), [] as [PathBuf; 0]);
    }
    let manifest = local.manifest();
    let main = format!("{}.dump.zst.age", database.name);
    let table = format!("{}.table.1.dump.zst.age", database.name);
    let artifacts = manifest["artifacts"].as_array().unwrap();
    let names: Vec<&str> = artifacts.iter().map(|a| a["name"].as_str().unwrap()).collect();
    assert!(names.contains(&table.as_str()), "{names:?}");
    assert!(names.iter().all(|name| name.ends_with(".zst.age")), "{names:?}");
    for artifact in artifacts {
        assert_eq!(artifact["encryption"]["cipher"], "age");
        assert_eq!(artifact["encryption"]["recipients"], serde_json::json!(keys.age[..2]));
    }
    assert_eq!(manifest["proof"]["name"], "proof.json.zst.age");
    assert!(!local.path("config.toml").exists() && local.path("config.toml.age").exists());
    tool(
        Command::new("sha256sum").args(["-c", "--strict", "SHA256SUMS"]).current_dir(&local.folder),
    );
    let sums = fs::read_to_string(local.path("SHA256SUMS")).unwrap();
    assert!(sums.contains("proof.json.zst.age"), "{sums}");

    // What needs no key works without one.
    for words in [&["list", "all"][..], &["show", "all", &local.id()], &["status"]] {
        respaldo.run(words).expect(0);
    }
    respaldo.run(&["prune", "all", "--dry-run"]).expect(0);

    // Verified from outside, and to the innermost.
    let (one, stranger) = (argument(&keys, "one"), argument(&keys, "stranger"));
    let verify = |more: &[&str], code| {
        let words = [&["verify", "all", "--json"], more].concat();
        respaldo.run(&words).expect(code)
    };
    let outside = verify(&[], 0);
    assert!(outside.stderr.contains("its inside was not checked; add --identity FILE"));
    assert!(outside.stderr.contains(&keys.age[0]), "{}", outside.stderr);
    for report in outside.json().as_array().unwrap() {
        assert_eq!((&report["ok"], &report["depth"]), (&Value::Bool(true), &"stored".into()));
    }
    let inside = verify(&["--identity", &one], 0).json();
    assert_eq!(inside.as_array().unwrap().len(), 2, "both destinations");
    for report in inside.as_array().unwrap() {
        assert_eq!(
            (&report["depth"], &report["warnings"]),
            (&"whole".into(), &serde_json::json!([]))
        );
    }
    let url = format!("file://{}", places[0].display());
    assert_eq!(verify(&["--from", &url, "--identity", &one], 0).json()[0]["depth"], "whole");
    let said = verify(&["--identity", &stranger], 2).stderr;
    assert!(said.contains("opens nothing") && said.contains(&keys.age[1]), "{said}");

    // Restored by whoever has a key, and by nobody else.
    let before = database.fingerprint();
    let restore = |more: &[&str], code| {
        let words = ["restore", "all", "--database", "sealed_again", "--artifact"];
        let words = [&words[..], &[&main, "--yes"], more].concat();
        respaldo.run(&words).expect(code)
    };
    for (words, why) in
        [(&[][..], "no identity is given"), (&["--identity", &stranger][..], "opens nothing")]
    {
        let said = restore(words, 2).stderr;
        for part in [why, &keys.age[0], "hint: add --identity FILE"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!Postgres::start().has_database("sealed_again"), "nothing was touched");
    }
    let restored = Postgres::start().existing("sealed_again");
    let artifacts = ["--artifact", &table];
    restore(&[&artifacts[..], &["--identity", &one, "--from", &url]].concat(), 0);
    assert_eq!(restored.fingerprint(), before);
    let media = respaldo.path("media-again");
    let to = media.to_str().unwrap();
    let words = ["restore", "all", "--artifact", "media.tar.zst.age", "--to", to, "--yes"];
    respaldo.run(&[&words[..], &["--identity", &one]].concat()).expect(0);
    assert_alike(&respaldo.path("media"), &media);

    // What is damaged is found from outside.
    for name in ["proof.json.zst.age", "shop.sqlite3.zst.age"] {
        Stored::flip(&local.path(name));
        let said = verify(&["--destination", "local"], 1);
        assert!(said.stderr.contains(name) && said.stderr.contains("damaged"), "{}", said.stderr);
        Stored::flip(&local.path(name));
    }
    verify(&[], 0);
}

#[test]
fn restore_md_is_right_for_what_is_encrypted() {
    let keys = Keys::make();
    let database = Postgres::start().database("sealed_md");
    let table = "CREATE TABLE t AS SELECT n, md5(n::text) AS m FROM generate_series(1, 20000) n";
    database.psql(table);
    for (way, volume) in [
        (format!("age = \"{}\"", keys.age[1]), "64GiB"),
        (format!("age = \"{}\"", keys.age[1]), "64KiB"),
        (format!("openpgp = \"{}\"", keys.path("modern.asc").display()), "64GiB"),
        (format!("openpgp = \"{}\"", keys.path("rsa.asc").display()), "64KiB"),
    ] {
        let respaldo = Respaldo::new(&format!(
            "{HEAD}{LOCAL}[jobs.db]\nencrypt = {{ {way} }}\nvolume_size = \"{volume}\"\n{}",
            postgres(&database, ", globals = false")
        ));
        respaldo.run(&["backup", "db"]).expect(0);
        let folder = Stored::newest(&respaldo.path("backups"), "db").folder;
        fs::copy(keys.path("two"), folder.join("key.txt")).unwrap();
        let home = keys.path("gnupg");
        let commands = commands(&folder);
        assert!(commands.contains(if way.starts_with("age") { "age -d" } else { "gpg -d" }));
        let text = fs::read_to_string(folder.join("RESTORE.md")).unwrap();
        assert!(text.contains(" --identity key.txt --from URL --trust --database "), "{text}");
        shell(&folder, &database, &format!("export GNUPGHOME={}\n{commands}", home.display()));
        let restored = Postgres::start().existing(&format!("{}_restored", database.name));
        assert_eq!(restored.fingerprint(), database.fingerprint(), "{way}");
    }
}

#[test]
fn a_schema_may_have_readers_of_its_own() {
    let keys = Keys::make();
    let database = Postgres::start().database("tenants");
    database.psql(
        "CREATE SCHEMA tenant_a; CREATE TABLE tenant_a.t AS SELECT generate_series(1, 100) n; \
         CREATE SCHEMA tenant_b; CREATE TABLE tenant_b.t AS SELECT generate_series(1, 200) n",
    );
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\n{}[jobs.db.encrypt]\nage = \"{}\"\n\
         schemas = {{ tenant_a = {{ age = [\"{}\"] }} }}\n",
        postgres(&database, ", schemas = \"each\""),
        keys.age[0],
        keys.age[1]
    ));
    respaldo.run(&["backup", "db"]).expect(0);
    let manifest = Stored::newest(&respaldo.path("backups"), "db").manifest();
    let artifacts = manifest["artifacts"].as_array().unwrap();
    let tenant = artifacts.iter().find(|a| a["content"]["schema"] == "tenant_a").unwrap();
    assert_eq!(tenant["encryption"]["recipients"], serde_json::json!([keys.age[1]]));
    let others = artifacts.iter().filter(|a| *a != tenant);
    for other in others {
        assert_eq!(other["encryption"]["recipients"], serde_json::json!([keys.age[0]]));
    }
    let name = tenant["name"].as_str().unwrap();
    let (one, two) = (argument(&keys, "one"), argument(&keys, "two"));
    let verify = |more: &[&str]| {
        respaldo.run(&[&["verify", "db", "--json"], more].concat()).expect(0).json()[0].clone()
    };
    let report = verify(&["--identity", &one]);
    assert_eq!(report["depth"], "part");
    assert!(report["warnings"][0].as_str().unwrap().contains(name), "{report}");
    assert_eq!(verify(&["--identity", &one, "--identity", &two])["depth"], "whole");
    let report = verify(&["--identity", &two]);
    assert_eq!(report["depth"], "part");
    // The tenant's own key is enough for the tenant's own rows, and for no others.
    let restore = |artifact: &str, code| {
        let words = ["restore", "db", "--artifact", artifact, "--database", "tenant_alone"];
        respaldo.run(&[&words[..], &["--yes", "--identity", &two]].concat()).expect(code)
    };
    let other = artifacts.iter().find(|a| a["content"]["schema"] == "tenant_b").unwrap();
    let said = restore(other["name"].as_str().unwrap(), 2).stderr;
    assert!(said.contains(&keys.age[0]) && said.contains("does not open it"), "{said}");
    restore(name, 0);
    let alone = Postgres::start().existing("tenant_alone");
    assert_eq!(alone.psql("SELECT count(*) FROM tenant_a.t"), "100");
}

#[test]
fn a_passphrase_is_enough_where_there_is_no_config() {
    let keys = Keys::make();
    let respaldo = Respaldo::without_config()
        .env("MEDIA_DIR", "@DIR@/media")
        .env("BACKUP_DIR", "@DIR@/backups")
        .env("RESPALDO__DATA_DIR", "@DIR@/data")
        .env("GPG_PASSPHRASE_FILE", argument(&keys, "passphrase"));
    respaldo.write("media/letter.txt", "dear diary");
    respaldo.run(&["backup", "--all"]).expect(0);
    let stored = Stored::newest(&respaldo.path("backups"), "media");
    assert_eq!(found_in(respaldo.folder(), PASSPHRASE), [] as [PathBuf; 0]);
    let opened = keys.stock("openpgp passphrase", &fs::read(stored.artifact(0)).unwrap());
    assert!(unzstd(&opened.unwrap()).windows(10).any(|part| part == b"dear diary"));
    let (right, wrong) = (argument(&keys, "passphrase"), argument(&keys, "wrong"));
    let said = respaldo.run(&["verify", "media"]).expect(0).stderr;
    assert!(
        said.contains("with a passphrase") && said.contains("--passphrase-file FILE"),
        "{said}"
    );
    let verify = ["verify", "media", "--json", "--passphrase-file"];
    let report = respaldo.run(&[&verify[..], &[&right]].concat()).expect(0).json();
    assert_eq!(report[0]["depth"], "whole");
    let to = respaldo.path("again");
    let restore = ["restore", "media", "--yes", "--to", to.to_str().unwrap(), "--passphrase-file"];
    for words in [&verify[..], &restore] {
        let said = respaldo.run(&[words, &[&wrong]].concat()).expect(2).stderr;
        assert!(said.contains("opens nothing") && said.contains("with a passphrase"), "{said}");
    }
    assert!(!to.exists());
    respaldo.run(&[&restore[..], &[&right]].concat()).expect(0);
    assert_alike(&respaldo.path("media"), &to);
}

#[test]
fn keys_that_can_not_be_used_are_refused_at_once() {
    let keys = Keys::make();
    keys.gpg_key("gone", "future-default", "1d");
    tool(keys.gpg().args(["--quick-gen-key", "signs@example.com", "ed25519", "sign", "never"]));
    let signs = keys.path("signs.asc");
    tool(
        keys.gpg()
            .args(["--armor", "--output"])
            .arg(&signs)
            .args(["--export", "signs@example.com"]),
    );
    fs::write(keys.path("empty.asc"), "").unwrap();
    fs::write(keys.path("noise.asc"), noise(500)).unwrap();
    let secret = fs::read_to_string(keys.path("one")).unwrap();
    let secret = secret.lines().last().unwrap();
    let file = |name: &str| format!("openpgp = [\"{}\"]", keys.path(name).display());
    let age = &keys.age[0];
    let late = "@2027-06-01 00:00:00";
    for (encrypt, parts) in [
        (format!("age = [\"{secret}\"]"), ["encrypt.age", "secret key", "age-keygen -y"]),
        (format!("age = [\"{}\"]", &age[..30]), ["encrypt.age", &age[..30], "key generate"]),
        ("age = [\"hunter2\"]".into(), ["encrypt.age", "not an age public key", "key generate"]),
        ("age = []".into(), ["encrypt.age", "names no key", "key generate"]),
        (String::new(), ["jobs.db.encrypt", "names no key", "age_passphrase"]),
        (format!("age = \"{age}\", {}", file("rsa.asc")), ["encrypt", "age and openpgp", "one of"]),
        (file("nowhere.asc"), ["encrypt.openpgp", "nowhere.asc", "can't be read"]),
        (file("empty.asc"), ["encrypt.openpgp", "empty.asc", "it is empty"]),
        (file("noise.asc"), ["encrypt.openpgp", "noise.asc", "not an OpenPGP public key"]),
        (file("rsa.secret"), ["encrypt.openpgp", "rsa.secret", "secret key"]),
        (file("signs.asc"), ["encrypt.openpgp", "signs.asc", "can't encrypt"]),
        (file("gone.asc"), ["encrypt.openpgp", "gone.asc", "expired on"]),
        ("age_passphrase = \"\"".into(), ["encrypt.age_passphrase", "it is empty", "hint"]),
        (
            format!("age = \"{age}\", schemas = {{ a = {{ age = [] }} }}"),
            ["encrypt.schemas.a.age", "names no key", "key generate"],
        ),
        (
            "schemas = { a = { age = [] } }".into(),
            ["jobs.db.encrypt", "names no key", "age_passphrase"],
        ),
    ] {
        let respaldo = Respaldo::new(&format!(
            "{HEAD}{LOCAL}[jobs.db]\nsource = {{ sqlite = \"/x\" }}\nencrypt = {{ {encrypt} }}\n"
        ));
        let output = match encrypt.contains("gone.asc") {
            true => respaldo.env("FAKETIME", late).env("LD_PRELOAD", FAKETIME).run(&["status"]),
            false => respaldo.run(&["status"]),
        };
        let said = output.expect(2).stderr;
        for part in parts {
            assert!(said.contains(part), "{encrypt}\nmissing {part}: {said}");
        }
        assert!(!said.contains("hunter2") && !said.contains(secret), "{said}");
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
    }
}

#[test]
fn a_key_pair_is_made_and_explained() {
    let respaldo = Respaldo::new("");
    let file = respaldo.path("backup.key");
    let path = file.to_str().unwrap();
    let output = respaldo.run(&["key", "generate", "--output", path]).expect(0);
    assert_eq!(output.stdout, "");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let public = tool(Command::new("age-keygen").arg("-y").arg(&file)).trim().to_owned();
    let line = format!("encrypt = {{ age = [\"{public}\"] }}");
    for part in [&line, "Nobody can make another", "Take it off this server", "--identity"] {
        assert!(output.stderr.contains(part), "{}", output.stderr);
    }
    let secret = fs::read_to_string(&file).unwrap();
    assert!(!output.stderr.contains("AGE-SECRET-KEY-"));
    let said = respaldo.run(&["key", "generate", "--output", path]).expect(2).stderr;
    assert!(said.contains("never overwritten") && said.contains("hint: "), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), secret);
    let other = respaldo.run(&["key", "generate"]).expect(0).stdout;
    assert!(other.contains("AGE-SECRET-KEY-1") && other != secret);
    // What is given as a key and is none.
    fs::write(respaldo.path("public"), &public).unwrap();
    for (name, why) in [("public", "it holds a public key"), ("nowhere", "can't be read")] {
        let name = respaldo.path(name);
        let words = ["verify", "db", "--from", "/nowhere", "--identity", name.to_str().unwrap()];
        let respaldo = Respaldo::without_config();
        let said = respaldo.run(&words).expect(2).stderr;
        assert!(said.contains(why) && said.contains("hint: "), "{said}");
    }
}

#[test]
fn memory_stays_flat() {
    let keys = Keys::make();
    let rsa = keys.path("rsa.asc");
    for way in [format!("age = \"{}\"", keys.age[0]), format!("openpgp = \"{}\"", rsa.display())] {
        let respaldo = Respaldo::new(&format!(
            "{HEAD}{LOCAL}[jobs.media]\nsource = {{ files = \"@DIR@/media\" }}\n\
             schedule = \"@yearly\"\ncompression = \"none\"\nencrypt = {{ {way} }}\nretries = 0\n"
        ));
        respaldo.write("media/small", "");
        let noise = respaldo.path("media/noise");
        tool(
            Command::new("sh")
                .arg("-c")
                .arg(format!("head -c 300M /dev/urandom > {}", noise.display())),
        );
        let daemon = respaldo.daemon();
        daemon.wait_for_log("is committed");
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < 100 << 10, "{way}: {} MiB", peak >> 10);
        assert_eq!(daemon.terminate(), 0);
    }
}
