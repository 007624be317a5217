//! A backup opens without respaldo: with `sha256sum`, `zstd`, `gunzip`, `tar`, `pg_restore`, `psql`,
//! `sqlite3` and `openssl`, and by the very commands that its RESTORE.md names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::config::{HEAD, LOCAL, postgres};
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::stored::Stored;
use crate::support::tool;

/// Runs shell commands in a folder, with the test server as the place where PostgreSQL is.
#[track_caller]
pub fn shell(folder: &Path, database: &Database, commands: &str) -> String {
    let output = Command::new("bash")
        .args(["-e", "-u", "-o", "pipefail", "-c", commands])
        .current_dir(folder)
        .env_clear()
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", database.bin().display()))
        .env("LC_ALL", "C.UTF-8")
        .envs([("PGHOST", "127.0.0.1"), ("PGUSER", "postgres")])
        .env("PGPORT", database.port().to_string())
        .env("PGPASSWORD", database.password())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{commands}\n{out}{err}");
    out.into_owned()
}

/// A database, an SQLite file and a folder, all with names that a shell must not meet unquoted.
fn odd(database: &Database, more: &str, job: &str) -> Respaldo {
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\n{job}{}\
         [jobs.shop]\n{job}source = {{ sqlite = \"@DIR@/it's $HOME.db\" }}\n\
         [jobs.media]\n{job}source = {{ files = [\"@DIR@/fo'to s, 2024\", \"@DIR@/b/-x\"] }}\n",
        postgres(database, more)
    ));
    let sql = "CREATE TABLE t AS SELECT n, md5(n::text) AS m FROM generate_series(1, 20000) n";
    database.psql(sql);
    let shop = respaldo.path("it's $HOME.db");
    tool(Command::new("sqlite3").arg(shop).arg(
        "CREATE TABLE t AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c \
         WHERE n < 5000) SELECT n, hex(randomblob(20)) AS m FROM c",
    ));
    respaldo.write("fo'to s, 2024/a b/$(touch x).jpg", "picture");
    respaldo.write("b/-x/y", "other");
    let noise: Vec<u8> =
        (0_u32..60_000).flat_map(|n| respaldo::pipeline::sha256(&n.to_le_bytes()).0).collect();
    fs::write(respaldo.path("fo'to s, 2024/noise"), noise).unwrap();
    respaldo.run(&["backup", "--all"]).expect(0);
    respaldo
}

fn stored(respaldo: &Respaldo, job: &str) -> Stored {
    Stored::newest(&respaldo.path("backups"), job)
}

/// A copy of a backup's folder, as somebody fetched it.
pub fn fetched(respaldo: &Respaldo, job: &str) -> PathBuf {
    let folder = respaldo.path(&format!("fetched-{job}"));
    tool(Command::new("cp").arg("-r").arg(stored(respaldo, job).folder).arg(&folder));
    folder
}

/// The contents of the ```sh blocks of RESTORE.md, in order.
pub fn commands(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join("RESTORE.md")).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let commands: String = blocks.collect();
    assert!(commands.contains("sha256sum -c SHA256SUMS"), "{text}");
    commands
}

/// Does what RESTORE.md says for each job, and compares.
fn restore_md_is_right(name: &str, more: &str, job: &str) {
    let server = Postgres::start();
    let database = server.database(name);
    let respaldo = odd(&database, more, job);

    let folder = fetched(&respaldo, "db");
    let made = shell(&folder, &database, &commands(&folder));
    let name = commands(&folder)
        .split_once("createdb")
        .unwrap()
        .1
        .split_once("--dbname=")
        .unwrap()
        .1
        .lines()
        .next()
        .unwrap()
        .to_owned();
    let restored = server.existing(name.trim_matches('\''));
    assert!(server.has_database(&restored.name), "{made}");
    assert_eq!(restored.fingerprint(), database.fingerprint());

    let folder = fetched(&respaldo, "shop");
    assert!(shell(&folder, &database, &commands(&folder)).ends_with("ok\n"));
    let dump = |path: PathBuf| tool(Command::new("sqlite3").arg(path).arg(".dump"));
    let restored = folder.join("restored-it's $HOME.db");
    assert_eq!(dump(restored), dump(respaldo.path("it's $HOME.db")));

    let folder = fetched(&respaldo, "media");
    shell(&folder, &database, &commands(&folder));
    for (source, restored) in [("fo'to s, 2024", "restored-fo'to s, 2024"), ("b/-x", "restored--x")]
    {
        let (source, restored) = (respaldo.path(source), folder.join(restored));
        tool(Command::new("diff").arg("-r").arg(source).arg(restored));
    }
}

#[test]
fn restore_md_is_right_for_a_custom_dump_and_zstd() {
    restore_md_is_right("we'ird $db=\"x\"", "", "");
}

#[test]
fn restore_md_is_right_for_a_plain_dump_and_gzip() {
    let job = "compression = \"gzip\"\n";
    restore_md_is_right("we'ird $db=\"x\"", ", format = \"plain\"", job);
}

#[test]
fn restore_md_is_right_for_volumes() {
    restore_md_is_right("volumes", "", "volume_size = \"64KiB\"\n");
}

#[test]
fn restore_md_is_right_for_volumes_without_compression() {
    let job = "compression = \"none\"\nvolume_size = \"256KiB\"\n";
    restore_md_is_right("plain", ", format = \"plain\"", job);
}

#[test]
fn one_line_of_shell_restores_each() {
    let server = Postgres::start();
    let database = server.database("stock");
    let respaldo = odd(&database, "", "");
    for job in ["db", "shop", "media"] {
        let folder = fetched(&respaldo, job);
        shell(&folder, &database, "sha256sum --strict -c SHA256SUMS");
        Stored::flip(&stored(&respaldo, job).artifact(0));
        let spoiled = Command::new("sha256sum")
            .args(["-c", "--status", "SHA256SUMS"])
            .current_dir(stored(&respaldo, job).folder)
            .status();
        assert!(!spoiled.unwrap().success());
    }
    let other = server.database("stock_other");
    let line = format!("zstd -dc *.dump.zst | pg_restore -e -d {}", other.name);
    shell(&respaldo.path("fetched-db"), &database, &line);
    assert_eq!(other.fingerprint(), database.fingerprint());
    let media = respaldo.path("fetched-media");
    let line = "zstd -dc -- fo*.tar.zst | tar -x ./a\\ b && cat a\\ b/*";
    assert_eq!(shell(&media, &database, line), "picture");
    let shop = respaldo.path("fetched-shop");
    let line = "zstd -dc *.sqlite3.zst > a.db && sqlite3 a.db 'SELECT count(*) FROM t'";
    assert_eq!(shell(&shop, &database, line), "5000\n");
}

#[test]
fn gzip_and_volumes_open_with_gunzip_and_cat() {
    let server = Postgres::start();
    let database = server.database("stock");
    let job = "compression = \"gzip\"\nvolume_size = \"64KiB\"\n";
    let respaldo = odd(&database, ", format = \"plain\"", job);
    let folder = fetched(&respaldo, "db");
    let volumes = stored(&respaldo, "db").manifest()["artifacts"][0]["volumes"].clone();
    assert!(volumes.as_array().unwrap().len() > 3, "{volumes}");
    shell(&folder, &database, "sha256sum --strict -c SHA256SUMS");
    let other = server.database("stock_other");
    let line =
        format!("cat stock*.sql.gz* | gunzip | psql -Xq -v ON_ERROR_STOP=1 {} >&2", other.name);
    shell(&folder, &database, &line);
    assert_eq!(other.fingerprint(), database.fingerprint());
}

#[test]
fn the_signature_holds_for_openssl() {
    let database = Postgres::start().database("signed");
    let respaldo = odd(&database, "", "");
    let folder = fetched(&respaldo, "db");
    let text = fs::read(folder.join("manifest.sig")).unwrap();
    let signature: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(signature["algorithm"], "ed25519");
    let bytes = |key: &str| STANDARD.decode(signature[key].as_str().unwrap()).unwrap();
    // A raw key is wrapped into SubjectPublicKeyInfo.
    let der =
        [&hex::decode("302a300506032b6570032100").unwrap(), &bytes("public_key")[..]].concat();
    fs::write(folder.join("key.der"), der).unwrap();
    fs::write(folder.join("sig.bin"), bytes("signature")).unwrap();
    let verify = "openssl pkeyutl -verify -rawin -pubin -keyform DER -inkey key.der \
                  -sigfile sig.bin -in manifest.json";
    let said = shell(&folder, &database, verify);
    assert!(said.contains("Signature Verified Successfully"), "{said}");
    Stored::flip(&folder.join("manifest.json"));
    let said = shell(&folder, &database, &format!("{verify} 2>&1 || true"));
    assert!(said.contains("Failure"), "{said}");
}
