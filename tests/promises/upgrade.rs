//! What an older respaldo left is opened by this one, and nothing of it is lost: the catalog of each
//! schema that there ever was, and backups of each format. What a newer one left is refused in one
//! sentence, and not touched.
//!
//! `tests/fixtures` is frozen: `RESPALDO_FREEZE=1 cargo test --test suite -- promises::upgrade
//! --test-threads=1` writes what is missing there (a new migration's catalog), and never what is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use rusqlite::types::Value as Cell;
use serde_json::Value;

use crate::support::postgres::Postgres;
use crate::support::program::{Output, Respaldo};
use crate::support::scene::{HEAD, LOCAL};
use crate::support::stored::Stored;
use crate::support::{temp_folder, tool};

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn is_freezing() -> bool {
    std::env::var_os("RESPALDO_FREEZE").is_some()
}

// ---- backups at rest ----------------------------------------------------------------------------

const JOBS: [&str; 4] = ["shop", "sealed", "notes", "media"];

/// What the frozen shop holds, and what a restore of it must hold again.
const SHOP: &str = "CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, price numeric(8, 2)); \
    INSERT INTO items SELECT n, 'Artículo ' || n, n * 1.5 FROM generate_series(1, 120) n; \
    CREATE INDEX items_by_name ON items (name); \
    CREATE VIEW dear AS SELECT * FROM items WHERE price > 100";
const SHOP_SUM: &str =
    "SELECT count(*), sum(price), min(name), (SELECT count(*) FROM dear) FROM items";
const SHOP_HOLDS: &str = "120|10890.00|Artículo 1|54";

const NOTES: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, said TEXT); \
    INSERT INTO notes VALUES (1, 'first'), (2, 'ñandú'), (3, NULL)";

/// The jobs whose backups are frozen; the database is on `server`.
fn jobs(server: &Postgres, recipient: &str) -> String {
    let source = format!(
        "source = {{ postgres = \"postgres://postgres@127.0.0.1:{}/shop\", password = {} }}",
        server.port,
        toml::Value::String(server.password.clone())
    );
    format!(
        "[jobs.shop]\n{source}\n[jobs.sealed]\n{source}\nencrypt = {{ age = [\"{recipient}\"] }}\n\
         [jobs.notes]\nsource = {{ sqlite = \"@DIR@/notes.db\" }}\n\
         [jobs.media]\nsource = {{ files = \"@DIR@/media\" }}\ncompression = \"gzip\"\n"
    )
}

/// The format that is written now, made once and then kept for ever.
fn freeze_backups() {
    let kept = root("tests/fixtures/format-1");
    if kept.exists() || !is_freezing() {
        return;
    }
    fs::create_dir_all(&kept).unwrap();
    let identity = kept.join("identity.age");
    tool(Command::new("age-keygen").arg("-o").arg(&identity));
    let recipient = tool(Command::new("age-keygen").arg("-y").arg(&identity));
    let server = Postgres::fresh();
    server.psql("postgres", "CREATE DATABASE shop");
    server.psql("shop", SHOP);
    // Older than whatever looks at it, also on a machine whose clock is behind.
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", jobs(&server, recipient.trim())))
        .env("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
        .env("FAKETIME", "@2025-11-24 06:00:00")
        .env("DONT_FAKE_MONOTONIC", "1");
    Connection::open(respaldo.path("notes.db")).unwrap().execute_batch(NOTES).unwrap();
    respaldo.write("media/album/photo.txt", "a photo\n");
    respaldo.write("media/Ünï côdé.txt", "an odd name\n");
    for job in JOBS {
        respaldo.run(&["backup", job]).expect(0);
    }
    let id = Stored::newest(&respaldo.path("backups"), "shop").id();
    respaldo.run(&["pin", "shop", &id, "--note", "frozen"]).expect(0);
    respaldo.run(&["drill", "shop"]).expect(0);
    tool(Command::new("cp").arg("-r").arg(respaldo.path("backups")).arg(&kept));
}

/// A machine of today with a copy of the frozen backups as its destination, and no catalog.
fn today(server: &Postgres) -> Respaldo {
    freeze_backups();
    let kept = root("tests/fixtures/format-1");
    let identity = fs::read_to_string(kept.join("identity.age")).unwrap();
    let recipient = identity.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    let signature = Stored::newest(&kept.join("backups"), "shop").path("manifest.sig");
    let signature: Value = serde_json::from_slice(&fs::read(signature).unwrap()).unwrap();
    let key = signature["public_key"].as_str().unwrap();
    let respaldo = Respaldo::new(&format!(
        "trusted_keys = [\"{key}\"]\n{HEAD}{LOCAL}{}",
        jobs(server, recipient)
    ));
    tool(Command::new("cp").arg("-r").arg(kept.join("backups")).arg(respaldo.folder()));
    respaldo
}

fn only_id(respaldo: &Respaldo, job: &str) -> String {
    Stored::newest(&respaldo.path("backups"), job).id()
}

#[test]
fn a_backup_of_format_1_is_listed_verified_drilled_and_restored() {
    let server = Postgres::start();
    let respaldo = today(server);
    let identity = root("tests/fixtures/format-1/identity.age");
    let identity = identity.to_str().unwrap();

    let list = respaldo.run(&["list", "--json"]).expect(0).json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), JOBS.len());
    let of = |job: &str| list.iter().find(|backup| backup["job"] == job).unwrap();
    let shop = &of("shop")["destinations"][0];
    assert_eq!((&shop["pinned"], &shop["proven"]), (&true.into(), &true.into()), "{shop}");

    for job in ["shop", "notes", "media"] {
        respaldo.run(&["verify", job]).expect(0);
    }
    respaldo.run(&["verify", "sealed", "--identity", identity]).expect(0);
    let drilled = respaldo.run(&["drill", "sealed", "--identity", identity]).expect(0);
    assert!(!drilled.stderr.contains("WARN"), "{}", drilled.stderr);

    for (job, more) in [("shop", &[][..]), ("sealed", &["--identity", identity][..])] {
        let name = format!("upgraded_{job}_{}", std::process::id());
        let arguments = ["restore", job, "--database", &name, "--yes"];
        respaldo.run(&[&arguments[..], more].concat()).expect(0);
        assert_eq!(server.psql(&name, SHOP_SUM).trim(), SHOP_HOLDS, "{job}");
    }
    let to = respaldo.path("back.db");
    respaldo.run(&["restore", "notes", "--to", to.to_str().unwrap(), "--yes"]).expect(0);
    let notes = Connection::open(&to).unwrap();
    let said = notes.query_row("SELECT group_concat(coalesce(said, '-')) FROM notes", [], |row| {
        row.get::<_, String>(0)
    });
    assert_eq!(said.unwrap(), "first,ñandú,-");
    let to = respaldo.path("back");
    respaldo.run(&["restore", "media", "--to", to.to_str().unwrap(), "--yes"]).expect(0);
    let file = walkdir::WalkDir::new(&to).into_iter().map(Result::unwrap);
    let names: BTreeSet<String> = file
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.file_name().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["photo.txt", "Ünï côdé.txt"].map(str::to_owned).into());
}

#[test]
fn a_backup_of_format_1_opens_with_stock_tools() {
    let kept = root("tests/fixtures/format-1/backups");
    for job in JOBS {
        let folder = Stored::newest(&kept, job).folder;
        tool(
            Command::new("sha256sum")
                .args(["--check", "--strict", "SHA256SUMS"])
                .current_dir(folder),
        );
    }
}

#[test]
fn a_backup_of_a_newer_format_is_refused_and_left_alone() {
    let respaldo = today(Postgres::start());
    let newer = Stored::newest(&respaldo.path("backups"), "notes");
    let mut manifest = newer.manifest();
    manifest["format"] = 2.into();
    newer.write_manifest(&manifest);
    let before = everything(&newer.folder);
    let url = format!("file://{}", respaldo.path("backups").display());
    let to = respaldo.path("back.db");
    let id = newer.id();
    for arguments in [
        &[
            "restore",
            "notes",
            &id,
            "--from",
            &url,
            "--trust",
            "--yes",
            "--to",
            to.to_str().unwrap(),
        ][..],
        &["verify", "notes", &id, "--from", &url],
        &["drill", "notes", &id, "--from", &url, "--trust"],
    ] {
        let said = respaldo.run(arguments).expect(1);
        assert!(said.all().contains("has format 2"), "{arguments:?}: {}", said.all());
        assert!(said.all().contains("newer respaldo"), "{arguments:?}: {}", said.all());
    }
    assert!(!to.exists());
    // The other jobs are as they were, and what clears up after failed runs does not take it for one.
    respaldo.run(&["verify", "media"]).expect(0);
    Connection::open(respaldo.path("notes.db")).unwrap().execute_batch(NOTES).unwrap();
    respaldo.run(&["backup", "notes"]).expect(0);
    let pruned = respaldo.run(&["prune", "notes", "--yes", "--adopt"]);
    assert!(pruned.all().contains("format 2"), "{}", pruned.all());
    assert!(everything(&newer.folder) == before, "the newer backup was touched");
}

/// Every file below a folder, with its bytes.
fn everything(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    files.map(|entry| (entry.path().to_owned(), fs::read(entry.path()).unwrap())).collect()
}

// ---- catalogs -----------------------------------------------------------------------------------

/// The numbers of the migrations that this respaldo has.
fn versions() -> Vec<u32> {
    let names = fs::read_dir(root("src/catalog/migrations")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut versions: Vec<u32> = names.map(|name| name[..4].parse().unwrap()).collect();
    versions.sort_unstable();
    versions
}

fn migration(version: u32) -> String {
    let mut all = fs::read_dir(root("src/catalog/migrations")).unwrap().map(|entry| entry.unwrap());
    let start = format!("{version:04}_");
    let found = all.find(|entry| entry.file_name().to_str().unwrap().starts_with(&start));
    fs::read_to_string(found.unwrap().path()).unwrap()
}

/// The catalog as a respaldo with the first `version` migrations left it, as SQL.
fn frozen(version: u32) -> PathBuf {
    root(&format!("tests/fixtures/catalog/{version:04}.sql"))
}

/// Writes the catalogs that are missing: each migration in its turn, with rows in its tables before the
/// next one comes (`rows-NNNN.sql`), and the notes that the migrator itself keeps.
fn freeze_catalogs() {
    if !is_freezing() {
        return;
    }
    let server = Postgres::start();
    let respaldo = today(server);
    respaldo.run(&["status"]).expect(0);
    let known = respaldo.path("data/catalog.sqlite3");
    let manifest = Stored::newest(&respaldo.path("backups"), "shop").path("manifest.json");
    for version in versions().into_iter().filter(|version| !frozen(*version).exists()) {
        let folder = temp_folder("catalog");
        let path = folder.path().join("catalog.sqlite3");
        let catalog = Connection::open(&path).unwrap();
        catalog.execute("ATTACH ? AS known", [known.to_str().unwrap()]).unwrap();
        let table: String = catalog
            .query_row(
                "SELECT sql FROM known.sqlite_schema WHERE name = '_sqlx_migrations'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        catalog.execute_batch(&table).unwrap();
        catalog
            .execute(
                "INSERT INTO main._sqlx_migrations \
                 SELECT version, description, '2025-11-24 00:00:00', success, checksum, 0 \
                 FROM known._sqlx_migrations WHERE version <= ?",
                [version],
            )
            .unwrap();
        catalog.execute_batch("DETACH known").unwrap();
        for step in 1..=version {
            catalog.execute_batch(&migration(step)).unwrap();
            let rows = root(&format!("tests/fixtures/catalog/rows-{step:04}.sql"));
            let id = only_id(&respaldo, "shop");
            let text = fs::read_to_string(&manifest).unwrap().replace('\'', "''");
            let rows = fs::read_to_string(rows).unwrap();
            let rows = rows.replace("@ID@", &id).replace("@MANIFEST@", &text);
            catalog.execute_batch(&rows).unwrap();
        }
        drop(catalog);
        let dump = tool(Command::new("sqlite3").arg(&path).arg(".dump"));
        fs::write(frozen(version), dump).unwrap();
    }
}

/// Puts a frozen catalog where the machine has its own.
fn place(respaldo: &Respaldo, sql: &str) -> PathBuf {
    fs::create_dir_all(respaldo.path("data")).unwrap();
    let path = respaldo.path("data/catalog.sqlite3");
    let catalog = Connection::open(&path).unwrap();
    catalog.pragma_update(None, "journal_mode", "wal").unwrap();
    catalog.execute_batch(sql).unwrap();
    path
}

/// Every table with its rows, each as `column=value`.
fn rows(path: &Path) -> Vec<(String, Vec<Vec<String>>)> {
    let catalog = Connection::open(path).unwrap();
    let mut tables = catalog
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '%sql%' ORDER BY 1")
        .unwrap();
    let names = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let names: Vec<String> = names.map(Result::unwrap).collect();
    let of = |name: &String| {
        let mut all = catalog.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns: Vec<String> = all.column_names().into_iter().map(str::to_owned).collect();
        let rows = all.query_map([], |row| {
            let cell = |(at, column): (usize, &String)| {
                row.get::<_, Cell>(at).map(|cell| format!("{column}={cell:?}"))
            };
            columns.iter().enumerate().map(cell).collect::<Result<Vec<_>, _>>()
        });
        rows.unwrap().map(Result::unwrap).collect()
    };
    names.iter().map(|name| (name.clone(), of(name))).collect()
}

#[test]
fn the_catalog_of_every_earlier_respaldo_is_opened_and_nothing_is_lost() {
    freeze_catalogs();
    let server = Postgres::start();
    for version in versions() {
        let path = frozen(version);
        let sql = fs::read_to_string(&path).unwrap_or_else(|_| {
            panic!("{} is missing: the first lines of this file say how to make it", path.display())
        });
        let respaldo = today(server);
        let catalog = place(&respaldo, &sql);
        let before = rows(&catalog);
        assert!(
            before.iter().all(|(_, rows)| !rows.is_empty()),
            "{version}: an empty table {before:?}"
        );

        let list = respaldo.run(&["list", "shop", "--json"]).expect(0).json();
        let place = &list[0]["destinations"][0];
        assert_eq!(
            (&place["name"], &place["state"]),
            (&"local".into(), &"stored".into()),
            "{version}"
        );
        let status = respaldo.run(&["status", "--json"]).expect(0).json();
        let runs = status["runs"].as_array().unwrap();
        assert!(runs.iter().any(|run| run["error"] == "the disk was full"), "{version}: {runs:?}");
        if version >= 6 {
            let audit = respaldo.run(&["audit", "--json"]).expect(0).json();
            assert!(audit.to_string().contains("a frozen deed"), "{version}: {audit}");
            let tokens = respaldo.run(&["token", "list", "--json"]).expect(0).json();
            assert_eq!(tokens[0]["name"], "ci", "{version}");
        }

        let after = rows(&catalog);
        for (table, old) in before {
            let (_, new) = after.iter().find(|(name, _)| *name == table).unwrap();
            for row in old {
                let kept = new.iter().any(|one| row.iter().all(|cell| one.contains(cell)));
                assert!(kept, "{version}: {table} has lost {row:?}, and has {new:?}");
            }
        }
        respaldo.run(&["verify", "shop"]).expect(0);
    }
}

#[test]
fn a_newer_respaldos_catalog_is_refused_and_not_touched() {
    freeze_catalogs();
    let newest = *versions().last().unwrap();
    let sql = fs::read_to_string(frozen(newest)).unwrap();
    let respaldo = today(Postgres::start());
    let catalog = place(
        &respaldo,
        &format!(
            "{sql}; INSERT INTO _sqlx_migrations \
             VALUES (9001, 'of tomorrow', '2027-01-01 00:00:00', 1, x'00', 0); \
             ALTER TABLE runs ADD COLUMN of_tomorrow TEXT"
        ),
    );
    let before = fs::read(&catalog).unwrap();
    let refused = |said: Output| {
        let said = said.expect(2);
        let errors = said.stderr.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "{}", said.stderr);
        assert!(said.stderr.contains("newer respaldo"), "{}", said.stderr);
        assert!(said.stderr.contains("hint: "), "{}", said.stderr);
        assert!(said.stdout.is_empty(), "{}", said.stdout);
    };
    for arguments in [&["list"][..], &["backup", "media"], &["status"], &["prune", "--yes"]] {
        refused(respaldo.run(arguments));
    }
    let daemon = respaldo.daemon();
    daemon.wait_for_log("newer respaldo");
    assert_eq!(daemon.end(), 2);
    let backups = Stored::ids(&respaldo.path("backups"), "media");
    assert_eq!(backups.len(), 1, "nothing was backed up");
    assert!(fs::read(&catalog).unwrap() == before, "the catalog was touched");
}
