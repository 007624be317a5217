//! Dumps that respaldo did not make are checked and restored by the flags of the scripts that made
//! them: planned, loaded beside, put in place and kept like everything else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::config::{HEAD, LOCAL, postgres};
use crate::support::postgres::{Database, Postgres};
use crate::support::program::{Output, Respaldo};
use crate::support::tool;

fn shell(folder: &Path, commands: &str) {
    tool(Command::new("bash").args(["-euo", "pipefail", "-c", commands]).current_dir(folder));
}

fn sqlite(path: &Path, sql: &str) -> String {
    tool(Command::new("sqlite3").arg(path).arg(sql)).trim_end().to_owned()
}

/// A database and a media folder that each have a job, and what the old script left of both.
struct Old {
    respaldo: Respaldo,
    database: Database,
    before: String,
    db: PathBuf,
}

impl Old {
    fn new() -> Self {
        let database = Postgres::start().database("patrimonio");
        database.psql(
            "CREATE TABLE t AS SELECT n, md5(n::text) m FROM generate_series(1, 3000) n; \
             ALTER TABLE t ADD PRIMARY KEY (n); CREATE VIEW few AS SELECT * FROM t WHERE n < 9",
        );
        let before = database.fingerprint();
        let respaldo = Respaldo::new(&format!(
            "{HEAD}{LOCAL}[jobs.db]\nretries = 0\n{}\
             [jobs.media]\nsource = {{ files = \"@DIR@/media\" }}\n\
             [jobs.shop]\nsource = {{ sqlite = \"@DIR@/shop.db\" }}\n",
            postgres(&database, "")
        ));
        let db = respaldo.path("backups/db");
        fs::create_dir_all(&db).unwrap();
        fs::create_dir_all(respaldo.path("backups/media")).unwrap();
        for (name, format) in [("plain.sql", "plain"), ("custom.dump", "custom")] {
            let mut pg_dump = database.client("pg_dump");
            tool(
                pg_dump
                    .arg(format!("--format={format}"))
                    .arg(format!("--file={}", db.join(name).display())),
            );
        }
        respaldo.write("media/a.jpg", "a");
        respaldo.write("media/albums/b.jpg", "b");
        shell(
            &db,
            "gzip -c plain.sql > patrimonio_20241112_030000.sql.gz
             sha256sum patrimonio_20241112_030000.sql.gz > patrimonio_20241112_030000.sql.gz.sha256
             zstd -q plain.sql -o summed.sql.zst; md5sum \"$PWD/summed.sql.zst\" > summed.sql.zst.md5
             gzip -c custom.dump > custom.dump.gz
             tar -czf ../media/media_20241112_030000.tar.gz -C ../../media .",
        );
        database.psql("DELETE FROM t WHERE n > 5; CREATE TABLE since (n int)");
        respaldo.write("media/a.jpg", "changed");
        respaldo.write("media/new.jpg", "since");
        Self { respaldo, database, before, db }
    }

    fn restore(&self, arguments: &[&str]) -> Output {
        self.respaldo.run(&[&["restore"], arguments].concat())
    }

    fn path(&self, name: &str) -> String {
        self.db.join(name).display().to_string()
    }

    fn verify(&self, name: &str) -> Output {
        self.restore(&["--file", &self.path(name), "--verify-only"])
    }

    fn media(&self, name: &str) -> String {
        fs::read_to_string(self.respaldo.path("media").join(name)).unwrap_or_default()
    }

    /// The databases that belong to the test, and what is in its own one.
    fn there(&self) -> (String, String) {
        let like = format!(
            "SELECT datname FROM pg_database WHERE datname ^@ '{}' ORDER BY 1",
            self.database.name
        );
        (Postgres::start().psql("postgres", &like), self.database.fingerprint())
    }
}

#[test]
fn dumps_of_every_kind_are_verified_and_restored_in_the_databases_place() {
    let old = Old::new();
    let changed = old.there();
    for (n, (name, said)) in [
        ("patrimonio_20241112_030000.sql.gz", ".sha256 says"),
        ("summed.sql.zst", ".md5 says"),
        ("custom.dump", "lies beside it"),
        ("custom.dump.gz", "lies beside it"),
        ("plain.sql", "lies beside it"),
    ]
    .into_iter()
    .enumerate()
    {
        let whole = old.verify(name).expect(0);
        assert!(whole.stderr.contains(": whole,"), "{}", whole.stderr);
        let plan = old.restore(&["--file", &old.path(name), "--dry-run"]).expect(0);
        assert!(plan.stderr.contains("it is kept as"), "{}", plan.stderr);
        if n == 0 {
            assert_eq!(old.there(), changed, "a plan or a check changed something");
            let asked = old.restore(&["--db", &old.path(name)]).expect(2);
            assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
        }
        assert!(whole.stderr.contains(said), "{name}: {}", whole.stderr);
        let done = old.restore(&["--db", &old.path(name), "--yes"]).expect(0);
        assert!(done.stderr.contains("the former one is kept as"), "{}", done.stderr);
        assert_eq!(old.database.fingerprint(), old.before, "{name}");
        old.database.psql("DELETE FROM t WHERE n > 5; CREATE TABLE since (n int)");
    }
    let names = old.there().0;
    assert_eq!(names.lines().count(), 6, "each former one is kept: {names}");
    for name in names.lines().filter(|name| *name != old.database.name) {
        Postgres::start().psql("postgres", &format!("DROP DATABASE \"{name}\""));
    }
}

#[test]
fn the_scripts_own_words_restore_databases_and_media_by_their_bare_names() {
    let old = Old::new();
    let (db, media) = ("patrimonio_20241112_030000.sql.gz", "media_20241112_030000.tar.gz");
    let listed = old.restore(&["--list"]).expect(0);
    for part in [db, media, "custom.dump", "no backups yet"] {
        assert!(listed.all().contains(part), "{part}: {}", listed.all());
    }
    assert!(!listed.stdout.contains(".sha256"), "{}", listed.stdout);
    old.respaldo.run(&["backup", "media"]).expect(0);
    let listed = old.restore(&["--list", "--json"]).expect(0).json();
    assert_eq!(listed["backups"][0]["job"], "media");
    assert_eq!(listed["files"].as_array().unwrap().len(), 6);
    assert!(listed["files"][0]["bytes"].as_u64().unwrap() > 0);

    let both = old.restore(&["--db", db, "--media", media, "--yes"]).expect(0);
    assert!(both.stderr.contains("kept"), "{}", both.stderr);
    assert_eq!(old.database.fingerprint(), old.before);
    assert_eq!([old.media("a.jpg"), old.media("albums/b.jpg")], ["a", "b"]);
    assert_eq!(old.media("new.jpg"), "");
    // What was there is beside it.
    let kept = fs::read_dir(old.respaldo.path("media")).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<PathBuf> = kept.filter(|p| p.to_string_lossy().contains("before")).collect();
    assert_eq!(fs::read_to_string(kept[0].join("old/new.jpg")).unwrap(), "since");

    // One alone, and into a new folder.
    let new = old.respaldo.path("new").display().to_string();
    old.restore(&["--media", media, "--to", &new, "--yes"]).expect(0);
    assert_eq!(fs::read_to_string(Path::new(&new).join("a.jpg")).unwrap(), "a");
    // Where one of both can't be, neither is.
    old.database.psql("DELETE FROM t");
    let (before, a) = (old.there(), old.media("a.jpg"));
    shell(&old.db, "head -c 100 ../media/media_20241112_030000.tar.gz > cut.tar.gz");
    old.restore(&["--db", db, "--media", &old.path("cut.tar.gz"), "--yes"]).expect(1);
    assert_eq!((old.there(), old.media("a.jpg")), (before, a));
    Postgres::start().psql("postgres", &drop_kept(&old));
}

fn drop_kept(old: &Old) -> String {
    let names = old.there().0;
    let kept = names.lines().filter(|name| *name != old.database.name);
    kept.map(|name| format!("DROP DATABASE \"{name}\"")).collect::<Vec<_>>().join(";")
}

#[test]
fn what_is_damaged_or_something_else_is_refused_and_nothing_is_touched() {
    let old = Old::new();
    shell(
        &old.db,
        "head -c 9000 patrimonio_20241112_030000.sql.gz > cut.sql.gz
         head -c 3000 plain.sql > short.sql
         cp patrimonio_20241112_030000.sql.gz wrong.sql.gz
         echo \"$(printf 0%.0s {1..64})  wrong.sql.gz\" > wrong.sql.gz.sha256
         cp summed.sql.zst bad.sql.zst; echo \"$(printf 0%.0s {1..32})\" > bad.sql.zst.md5
         size=$(stat -c %s custom.dump); head -c $((size / 2)) custom.dump > half.dump
         echo notes > notes.txt; echo '-- PostgreSQL database cluster dump' > server.sql
         printf 'age-encryption.org/v1\\n-> X25519 x' > secret.sql.age",
    );
    let before = old.there();
    for (name, part) in [
        ("cut.sql.gz", "cut.sql.gz"),
        ("short.sql", "no closing line"),
        ("wrong.sql.gz", "it is damaged"),
        ("bad.sql.zst", "it is damaged"),
        ("half.dump", "pg_restore"),
        ("notes.txt", "no dump, database or tar"),
        ("server.sql", "whole server"),
        ("secret.sql.age", "encrypted"),
    ] {
        let refused = old.verify(name).expect(1);
        assert!(refused.stderr.contains(part), "{name}: {}", refused.stderr);
        let restored = old.restore(&["--file", &old.path(name), "--yes"]).expect(1);
        assert!(name == "half.dump" || restored.stderr.contains("hint: "), "{}", restored.stderr);
        assert_eq!(old.there(), before, "{name}");
    }
    let media = old.respaldo.path("backups/media/media_20241112_030000.tar.gz");
    let media = media.to_str().unwrap();
    let plain = old.path("plain.sql");
    for (arguments, part) in [
        (&["--file", "/nowhere.sql"][..], "restore --list"),
        (&["--db", media, "--yes"], "--media"),
        (&["--media", &plain, "--yes"], "--db"),
        (&["media", "--file", &plain, "--yes"], "no job backs up postgres"),
        (&["--db", &plain, "--media", media, "--to", "/x"], "both a database and files"),
        (&["--db", &plain, "--path", "x"], "a part of a database"),
        (&["--verify-only"], "--file"),
        (&["--file", &plain, "--from", "file:///x"], "cannot be used with"),
        (&[], "JOB"),
    ] {
        let refused = old.restore(arguments).expect(2);
        assert!(refused.stderr.contains(part), "{arguments:?}: {}", refused.stderr);
    }
    assert_eq!(old.there(), before);
}

#[test]
fn a_database_file_and_a_machine_without_config_are_served_too() {
    let old = Old::new();
    let (live, copy) = (old.respaldo.path("shop.db"), old.respaldo.path("copy.db"));
    sqlite(&copy, "CREATE TABLE t AS SELECT 1 n");
    sqlite(&live, "CREATE TABLE t AS SELECT 2 n");
    shell(old.respaldo.folder(), "gzip -k copy.db");
    let file = old.respaldo.path("copy.db.gz").display().to_string();
    old.restore(&["--file", &file, "--verify-only"]).expect(0);
    old.restore(&["--file", &file, "--yes"]).expect(0);
    assert_eq!(sqlite(&live, "SELECT n FROM t"), "1");

    let bare = Respaldo::without_config();
    let to = bare.path("new.db").display().to_string();
    bare.run(&["restore", "--file", &file, "--verify-only"]).expect(0);
    bare.run(&["restore", "--file", &file, "--to", &to, "--yes"]).expect(0);
    assert_eq!(sqlite(Path::new(&to), "SELECT n FROM t"), "1");

    // As in the seed: the environment is all there is.
    let seed = Respaldo::without_config()
        .env("DB_HOST", "127.0.0.1")
        .env("DB_PORT", old.database.port().to_string())
        .env("DB_USER", "postgres")
        .env("DB_NAME", &*old.database.name)
        .env("DB_PASSWORD", old.database.password())
        .env("RESPALDO__DATA_DIR", "@DIR@/data")
        .env("BACKUP_DIR", old.respaldo.path("backups").to_str().unwrap());
    seed.run(&["restore", "--db", "patrimonio_20241112_030000.sql.gz", "--yes"]).expect(0);
    assert_eq!(old.database.fingerprint(), old.before);
    Postgres::start().psql("postgres", &drop_kept(&old));
}
