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

/// The contents of the blocks of one kind.
fn blocks(folder: &Path, kind: &str) -> String {
    let text = fs::read_to_string(folder.join("RESTORE.md")).unwrap();
    let start = format!("```{kind}\n");
    text.split(start.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// A shell that finds the built respaldo, and its config only where one is given.
fn respaldos(database: &Database, config: Option<&Path>, line: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_respaldo")).parent().unwrap().display().to_string();
    let config = config.map(|path| format!("export RESPALDO_CONFIG='{}'\n", path.display()));
    let before = format!("export PATH={program}:$PATH\n{}", config.unwrap_or_default());
    shell(Path::new("/"), database, &format!("{before}{line} 2>&1"))
}

#[test]
fn the_lines_of_respaldo_in_restore_md_do_what_they_say() {
    let server = Postgres::start();
    let database = server.database("we'ird $db=\"x\"");
    let respaldo = odd(&database, "", "");
    let config = respaldo.path("respaldo.toml");
    for job in ["db", "shop", "media"] {
        let lines = blocks(&stored(&respaldo, job).folder, "text");
        let lines: Vec<&str> = lines.lines().map(|line| line.split(" #").next().unwrap()).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].trim_end().ends_with("--dry-run"), "{lines:?}");
        let to = respaldo.path(&format!("new-{job}"));
        let there = |line: &str| line.replace("/new/path", &format!("'{}'", to.display()));
        let said = respaldos(&database, Some(&config), &there(lines[0]));
        assert!(said.contains("restore") && said.contains("signature: good"), "{said}");
        let url = format!("'file://{}'", respaldo.path("backups").display());
        let line = there(lines[2]).replace("URL", &url);
        let said = respaldos(&database, None, &format!("{line} --yes"));
        assert!(said.contains("restored in"), "{said}");
        match job {
            "db" => {
                let name = line.split("--database ").nth(1).unwrap().trim_matches('\'');
                assert_eq!(server.existing(name).fingerprint(), database.fingerprint());
            }
            "shop" => assert_eq!(
                tool(Command::new("sqlite3").arg(&to).arg("SELECT count(*) FROM t")),
                "5000\n"
            ),
            _ => assert!(walkdir::WalkDir::new(&to).into_iter().count() > 4),
        }
    }
    // Into the place of the one that was backed up.
    let lines = blocks(&stored(&respaldo, "db").folder, "text");
    let line = lines.lines().nth(1).unwrap().split(" #").next().unwrap();
    let before = database.fingerprint();
    database.psql("DROP TABLE t");
    let said = respaldos(&database, Some(&config), &format!("{line} --yes"));
    assert_eq!(database.fingerprint(), before, "{said}");
}

#[test]
fn what_restore_md_says_to_do_afterwards_puts_the_database_in_its_place() {
    let server = Postgres::start();
    let database = server.database("we'ird $db=\"x\"");
    let respaldo = odd(&database, "", "");
    let folder = fetched(&respaldo, "db");
    let before = database.fingerprint();
    shell(&folder, &database, &commands(&folder));
    database.psql("DROP TABLE t");
    fs::write(folder.join("swap.sql"), blocks(&folder, "sql")).unwrap();
    shell(&folder, &database, "psql -X -v ON_ERROR_STOP=1 --dbname=postgres --file=swap.sql");
    assert_eq!(database.fingerprint(), before);
    assert_eq!(database.psql("SELECT reltuples FROM pg_class WHERE relname = 't'"), "20000");
    assert!(server.has_database(&format!("{}_before", database.name)));
    let text = fs::read_to_string(folder.join("RESTORE.md")).unwrap();
    assert!(text.contains("Roles come back without their passwords"), "{text}");
}

#[test]
fn restore_md_names_the_roles_that_it_does_not_bring() {
    let database = Postgres::start().database("roles");
    let role = format!("own er {}", database.name);
    database.psql(&format!(
        "CREATE ROLE \"{role}\"; CREATE TABLE mine (); ALTER TABLE mine OWNER TO \"{role}\""
    ));
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\n{}",
        postgres(&database, ", globals = false")
    ));
    respaldo.run(&["backup", "db"]).expect(0);
    let folder = fetched(&respaldo, "db");
    let text = fs::read_to_string(folder.join("RESTORE.md")).unwrap();
    assert!(
        text.contains(&format!(
            "These roles must be there, or `pg_restore` gets `--no-owner --no-acl`: `{role}`"
        )),
        "{text}"
    );
    assert!(!text.contains("without their passwords"), "{text}");
}

#[test]
fn restore_md_is_right_for_every_database_of_a_server() {
    let server = Postgres::seventeen();
    let (one, other) = (server.database("each_one"), server.database("each_other"));
    for database in [&one, &other] {
        let sql = format!("CREATE TABLE t AS SELECT '{}' AS name", database.name);
        database.psql(&sql);
    }
    let bin = serde_json::to_string(&one.bin()).unwrap();
    let databases = format!("databases = [\"{}\", \"{}\"]", one.name, other.name);
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\n{}",
        postgres(&one, &format!(", bin_dir = {bin}, {databases}"))
    ));
    respaldo.run(&["backup", "db"]).expect(0);
    let folder = fetched(&respaldo, "db");
    shell(&folder, &one, &commands(&folder));
    for database in [&one, &other] {
        let restored = server.existing(&format!("{}_restored", database.name));
        assert_eq!(restored.fingerprint(), database.fingerprint());
    }
}
