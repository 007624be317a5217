//! A base backup that its server compresses comes back like any other; where the server can't, or nothing can be
//! put in its way, one is made all the same.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::wal::{server, write};
use crate::support::config::{HEAD, LOCAL, text};
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::stored::Stored;

const ROWS: &str = "SELECT count(*), sum(hashtextextended(t::text, 0)) FROM t";

fn job(server: &Postgres, source: &str) -> Respaldo {
    let database: Database = server.existing("postgres");
    let (url, password) = (text(&database.url()), text(database.password()));
    // Others may not drop it when this is gone.
    std::mem::forget(database);
    Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\nretries = 0\nsource = {{ postgres = {url}, password = {password}, kind = \"physical\"{source} }}\n"
    ))
}

/// The base backup; the log lies beside it.
fn base(respaldo: &Respaldo) -> Stored {
    let all = Stored::all(&respaldo.path("backups"), "db");
    all.into_iter().find(|stored| stored.path("manifest.json").exists()).unwrap()
}

fn comes_back(respaldo: &Respaldo, server: &Postgres) {
    let rows = server.psql("postgres", ROWS);
    respaldo.run(&["verify", "db"]).expect(0);
    let recovered = server.on_another(|folder| {
        let folder = folder.to_str().unwrap();
        respaldo.run(&["restore", "db", "--latest", "--data-dir", folder, "--yes"]).expect(0);
    });
    assert_eq!(recovered.psql("postgres", ROWS), rows);
}

#[test]
fn what_the_server_has_compressed_comes_back_and_is_no_larger_than_was_said() {
    let server = server();
    write(&server, 2000);
    let respaldo = job(&server, "");
    respaldo.run(&["backup", "db"]).expect(0);
    let stored = base(&respaldo);
    let mut manifest = stored.manifest();
    let base = &manifest["artifacts"][0];
    assert_eq!(base["name"], "base.tar.zst");
    assert_eq!((&base["format"], &base["compression"]), (&"tar_zst".into(), &"none".into()));
    let file = fs::File::open(stored.path("base.tar.zst")).unwrap();
    let makes =
        std::io::copy(&mut zstd::Decoder::new(file).unwrap(), &mut std::io::sink()).unwrap();
    let said = base["unpacked_bytes"].as_u64().unwrap();
    assert!((makes..makes + (32 << 20)).contains(&said), "{makes} {said}");
    comes_back(&respaldo, &server);

    manifest["artifacts"][0]["unpacked_bytes"] = (makes / 2).into();
    stored.write_manifest(&manifest);
    let folder = respaldo.path("bomb");
    let words = ["restore", "db", "--latest", "--trust", "--yes", "--data-dir"];
    let words = [&words[..], &[folder.to_str().unwrap()]].concat();
    respaldo.run(&words).expect(1);
    assert!(!folder.join("PG_VERSION").exists());
    let size = |entry: walkdir::DirEntry| entry.metadata().unwrap().len();
    let made: u64 = walkdir::WalkDir::new(&folder).into_iter().map(|e| size(e.unwrap())).sum();
    assert!(made < makes * 3 / 4, "{made} of {makes}");
}

/// The server's own programs, but for one.
fn programs(respaldo: &Respaldo, real: &Path, pg_basebackup: &str) -> PathBuf {
    let folder = respaldo.path("bin");
    fs::create_dir_all(&folder).unwrap();
    for entry in fs::read_dir(real).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "pg_basebackup" {
            symlink(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
    let real = real.join("pg_basebackup");
    let script = format!("#!/bin/sh\n{pg_basebackup}\nexec {} \"$@\"\n", real.display());
    let path = folder.join("pg_basebackup");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn where_it_can_not_be_compressed_by_the_server_it_is_here() {
    let server = server();
    write(&server, 500);
    let real = server.existing("postgres");
    let bin = real.bin();
    std::mem::forget(real);
    let built_without = "case \"$*\" in *--compress=*) echo 'pg_basebackup: error: could not initiate base backup: \
         ERROR:  zstd compression is not supported by this build' >&2; exit 1;; esac";
    // The file is there before anybody can put a pipe in its place.
    let faster = "case \"$*\" in *--compress=*) while [ \"$1\" != --pgdata ]; do shift; done; mkdir \"$2.new\"; \
         : > \"$2.new/base.tar.zst\"; mv \"$2.new\" \"$2\"; exec sleep 1000;; esac";
    for script in [None, Some(built_without), Some(faster)] {
        let respaldo = match script {
            None => job(&server, ", server_compression = false"),
            Some(script) => {
                let place = job(&server, "");
                let bin = programs(&place, &bin, script);
                let source = format!(", bin_dir = {}", text(bin.to_str().unwrap()));
                let respaldo = job(&server, &source);
                std::mem::forget(place);
                respaldo
            }
        };
        respaldo.run(&["backup", "db"]).expect(0);
        let stored = base(&respaldo);
        let base = &stored.manifest()["artifacts"][0];
        assert_eq!(base["name"], "base.tar.zst", "{script:?}");
        assert_eq!((&base["format"], &base["compression"]), (&"tar".into(), &"zstd".into()));
        comes_back(&respaldo, &server);
        respaldo.run(&["wal", "detach", "db"]).expect(0);
    }
}
