//! A server that is received beside, and an archive of it put together by hand, byte by byte as the
//! layout says: what a recovery reads must not depend on what wrote it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use respaldo::model::{
    Artifact, ArtifactFormat, BackupId, BackupKind, Compression, Content, Engine, Manifest,
    PhysicalFacts, Segment, SegmentSize, SourceFacts, Tablespace, Volume, WalFile,
};
use respaldo::pipeline::{Seal, sha256};

use super::postgres::{Database, Postgres};
use super::{SETPRIV, eventually, temp_folder, tool};

pub const SIZE: SegmentSize = SegmentSize::USUAL;
const JOB: &str = "db";

/// A primary, what is received of its log, and the archive that is made of that.
pub struct Primary {
    pub server: Postgres,
    pub database: Database,
    received: tempfile::TempDir,
    receiver: Child,
    /// Of the archive: `<root>/db/...`.
    pub root: PathBuf,
    system_id: String,
    /// What the archive is encrypted to.
    pub seal: Option<Seal>,
}

impl Primary {
    /// Receives from `server` on; the archive is below `root`.
    pub fn of(server: Postgres, root: PathBuf) -> Self {
        let database = server.existing("postgres");
        let system_id = database.psql("SELECT system_identifier FROM pg_control_system()");
        let received = temp_folder("received");
        // The receiver has no slot, and may be slower than a checkpoint.
        database.psql("ALTER SYSTEM SET wal_keep_size = '1GB'; SELECT pg_reload_conf()");
        let client = database.client("pg_receivewal");
        let envs = client.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let receiver = Command::new(SETPRIV)
            .args(["--pdeathsig", "KILL", "--"])
            .arg(client.get_program())
            .env_clear()
            .envs(envs)
            .args(["--synchronous", "--no-loop", "--no-password", "--status-interval=1"])
            .arg("--directory")
            .arg(received.path())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let listens = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        eventually("a receiver", || database.psql(listens) != "0");
        Self { server, database, received, receiver, root, system_id, seal: None }
    }

    /// Waits until all that is written now has been received, and gives the position.
    pub fn caught_up(&self) -> String {
        let lsn = self.database.psql("SELECT pg_current_wal_flush_lsn()");
        let sql = format!("SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= '{lsn}'");
        eventually("the log", || self.database.psql(&sql) != "0");
        lsn
    }

    fn folder(&self) -> PathBuf {
        self.root.join(JOB).join("wal").join(&self.system_id)
    }

    /// Compressed, encrypted where the archive is, and the ending that says so.
    fn pack(&self, bytes: &[u8]) -> (Vec<u8>, String) {
        match &self.seal {
            Some(seal) => (seal.pack(bytes).unwrap(), format!(".zst{}", seal.suffix())),
            None => (zstd::encode_all(bytes, 1).unwrap(), ".zst".to_owned()),
        }
    }

    pub fn put(&self, file: &WalFile, bytes: &[u8]) -> PathBuf {
        let folder = match file.folder(SIZE) {
            Some(part) => self.folder().join(part),
            None => self.folder(),
        };
        fs::create_dir_all(&folder).unwrap();
        let (bytes, ending) = match file {
            WalFile::History { .. } => (bytes.to_vec(), String::new()),
            _ => self.pack(bytes),
        };
        let path = folder.join(format!("{}{ending}", file.stem(SIZE)));
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Stores what was received: whole segments, histories, and of the last one pieces that overlap.
    /// Gives the files of whole segments, by their number.
    pub fn ship(&self) -> BTreeMap<u64, PathBuf> {
        let end = lsn(&self.caught_up());
        let mut whole = BTreeMap::new();
        for entry in fs::read_dir(self.received.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let bytes = fs::read(&path).unwrap();
            if let Some(segment) = Segment::parse(name, SIZE) {
                let stored = self.put(&WalFile::whole(segment, sha256(&bytes)), &bytes);
                whole.insert(segment.number, stored);
            } else if let Some(WalFile::History { timeline }) = WalFile::parse(name, SIZE) {
                self.put(&WalFile::History { timeline }, &bytes);
            } else if let Some(segment) =
                name.strip_suffix(".partial").and_then(|name| Segment::parse(name, SIZE))
            {
                let to = end.saturating_sub(segment.start(SIZE).0).min(SIZE.bytes());
                let steps = [(0, to / 3), (to / 4, to / 2), (to / 2, to)];
                for (from, to) in steps.into_iter().filter(|(from, to)| from < to) {
                    let file = WalFile::Piece { segment, from, to };
                    self.put(&file, &bytes[from as usize..to as usize]);
                }
            }
        }
        whole
    }

    /// Takes a base backup into the archive, as its manifest's `id`; unsigned.
    pub fn base(&self, id: &str) -> PhysicalFacts {
        let folder = temp_folder("base");
        let spaces = self.database.psql(
            "SELECT oid || '=' || pg_tablespace_location(oid) FROM pg_tablespace
             WHERE pg_tablespace_location(oid) <> ''",
        );
        let mut program = self.database.client("pg_basebackup");
        program.args(["--format=tar", "--wal-method=fetch", "--checkpoint=fast", "--no-password"]);
        program.args(["--manifest-checksums=SHA256", "--label=respaldo", "--pgdata"]);
        let mut plain: Vec<(String, Content, Vec<u8>)> = Vec::new();
        if spaces.is_empty() {
            let output = program.arg("-").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            plain.push(("base.tar".into(), Content::Whole, output.stdout));
        } else {
            tool(program.arg(folder.path().join("base")));
            for entry in fs::read_dir(folder.path().join("base")).unwrap() {
                let path = entry.unwrap().path();
                let bytes = fs::read(&path).unwrap();
                match path.file_stem().unwrap().to_str().unwrap() {
                    "base" => plain.insert(0, ("base.tar".into(), Content::Whole, bytes)),
                    "backup_manifest" => {
                        plain.push(("backup_manifest.json".into(), Content::BackupManifest, bytes));
                    }
                    oid => {
                        let content = Content::Tablespace(oid.parse().unwrap());
                        plain.push((format!("tablespace.{oid}.tar"), content, bytes));
                    }
                }
            }
        }
        let tar = folder.path().join("base.tar");
        fs::write(&tar, &plain[0].2).unwrap();
        let member = |name: &str| tool(Command::new("tar").arg("-xOf").arg(&tar).arg(name));
        let listed = plain.iter().find(|part| part.1 == Content::BackupManifest);
        let ranges = match listed {
            Some((.., bytes)) => serde_json::from_slice(bytes),
            None => serde_json::from_str(&member("backup_manifest")),
        };
        let ranges: serde_json::Value = ranges.unwrap();
        let label = member("backup_label");
        let started =
            label.split("START WAL LOCATION: ").nth(1).unwrap().split(' ').next().unwrap();
        let facts = PhysicalFacts {
            timeline: ranges["WAL-Ranges"][0]["Timeline"].as_u64().unwrap() as u32,
            start_lsn: started.parse().unwrap(),
            stop_lsn: ranges["WAL-Ranges"][0]["End-LSN"].as_str().unwrap().parse().unwrap(),
            segment_bytes: SIZE,
            since: None,
            checksums: None,
            tablespaces: spaces
                .lines()
                .map(|line| line.split_once('=').unwrap())
                .map(|(oid, at)| Tablespace { oid: oid.parse().unwrap(), location: at.into() })
                .collect(),
            settings: vec![("max_connections".into(), self.database.psql("SHOW max_connections"))],
        };
        self.store(id, &facts, plain);
        facts
    }

    fn store(&self, id: &str, facts: &PhysicalFacts, parts: Vec<(String, Content, Vec<u8>)>) {
        let id: BackupId = id.parse().unwrap();
        let folder = self.root.join(JOB).join(id.to_string());
        fs::create_dir_all(&folder).unwrap();
        let artifacts = parts.into_iter().map(|(name, content, plain)| {
            let (stored, ending) = self.pack(&plain);
            let name = format!("{name}{ending}");
            fs::write(folder.join(&name), &stored).unwrap();
            let (bytes, digest) = (stored.len() as u64, sha256(&stored));
            Artifact {
                volumes: vec![Volume { name: name.clone(), bytes, sha256: digest }],
                format: match name.contains(".tar") {
                    true => ArtifactFormat::Tar,
                    false => ArtifactFormat::Bytes,
                },
                name,
                source: 0,
                content,
                compression: Compression::Zstd,
                encryption: self.seal.as_ref().map(|seal| seal.encryption().clone()),
                plain_bytes: plain.len() as u64,
                unpacked_bytes: None,
                plain_sha256: Some(sha256(&plain)),
                stored_bytes: bytes,
                stored_sha256: digest,
            }
        });
        let now = self
            .database
            .psql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
        let manifest = Manifest {
            format: 1,
            job: JOB.parse().unwrap(),
            id,
            kind: BackupKind::Full,
            label: None,
            sources: vec![SourceFacts {
                server_version: Some(self.database.psql("SHOW server_version")),
                system_id: Some(self.system_id.clone()),
                physical: Some(facts.clone()),
                ..SourceFacts::named(Engine::Physical, "127.0.0.1:5432")
            }],
            started_at: now.parse().unwrap(),
            finished_at: now.parse().unwrap(),
            artifacts: artifacts.collect(),
            proof: None,
            warnings: vec![],
            suspect: false,
            respaldo: "0".into(),
        };
        fs::write(folder.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    }

    /// Where the archive is, for `--from`.
    pub fn url(&self) -> String {
        format!("file://{}", self.root.display())
    }

    /// All files of the log, below the archive's root.
    pub fn stored(&self) -> Vec<PathBuf> {
        let files = walkdir::WalkDir::new(self.folder()).sort_by_file_name().into_iter();
        let files = files.map(|entry| entry.unwrap().into_path());
        files.filter(|path| path.is_file()).collect()
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        drop(self.receiver.kill());
        drop(self.receiver.wait());
    }
}

/// Bytes since the log's beginning.
pub fn lsn(text: &str) -> u64 {
    text.parse::<respaldo::model::Lsn>().unwrap().0
}

/// What a folder holds, one level deep.
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}
