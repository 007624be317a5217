//! One contract that every destination keeps: the folder, the S3 server inside the tests (which checks
//! signatures), and moto (which knows storage classes and missing buckets). Each named by itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;

use respaldo::destination::{
    Destination, Key, Local, S3, S3Options, Uploads, list_backups, read_manifest, read_small,
};
use respaldo::durable::Existing;
use respaldo::fault::{Fault, FaultKind, Result};
use respaldo::secret::Secret;

use crate::support::config::{HEAD, moto, s3};
use crate::support::free_port;
use crate::support::moto::Moto;
use crate::support::program::Respaldo;
use crate::support::s3::S3 as Server;
use crate::support::temp_folder;

const PART: usize = 8 << 20;

/// The uploads that would stay open if the process died.
#[derive(Default)]
struct Remembered(Mutex<BTreeSet<String>>);

#[async_trait]
impl Uploads for Remembered {
    async fn opened(&self, destination: &str, key: &Key, upload: &str) -> Result<()> {
        assert!(!destination.is_empty() && !key.as_str().is_empty());
        assert!(self.0.lock().unwrap().insert(upload.to_owned()), "opened twice");
        Ok(())
    }

    async fn closed(&self, _destination: &str, upload: &str) {
        assert!(self.0.lock().unwrap().remove(upload), "closed but not opened");
    }
}

impl Remembered {
    fn open(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn options(server: &Server) -> S3Options {
    S3Options {
        bucket: server.bucket.into(),
        prefix: "some/prefix".into(),
        endpoint: Some(server.endpoint()),
        region: Some(server.region.into()),
        access_key_id: Some(Secret::new(server.access_key)),
        secret_access_key: Some(Secret::new(server.secret_key)),
        checksum: true,
        ..S3Options::default()
    }
}

fn moto_options(server: &Moto, bucket: &str) -> S3Options {
    S3Options {
        bucket: bucket.into(),
        prefix: "some/prefix".into(),
        endpoint: Some(server.endpoint()),
        region: Some("us-east-1".into()),
        access_key_id: Some(Secret::new("test")),
        secret_access_key: Some(Secret::new("test")),
        storage_class: Some("STANDARD_IA".into()),
        checksum: true,
        ..S3Options::default()
    }
}

fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

/// Bytes that no codec or cache could make up.
fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

async fn read(destination: &dyn Destination, key: &Key) -> Vec<u8> {
    let pieces: Vec<Bytes> = destination.read(key).await.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

#[track_caller]
fn fault<T>(result: Result<T>) -> Fault {
    result.err().expect("it went well")
}

/// What every destination must do. `hidden` says how many unfinished things it holds.
async fn keeps_the_contract(destination: &dyn Destination, hidden: &(dyn Fn() -> usize + Sync)) {
    destination.check().await.unwrap();
    let root = destination.list(&Key::root()).await.unwrap();
    assert!(root.files.is_empty() && root.folders.is_empty(), "a check left {root:?}");

    // Small files: whole, replaced only where that was asked for.
    let small = key("job/20250101T000000Z/config.toml");
    assert_eq!(destination.size(&small).await.unwrap(), None);
    assert!(read_small(destination, &small, 9).await.unwrap().is_none());
    assert!(destination.read(&small).await.is_err());
    let stored = destination.put(&small, "first".into(), Existing::Refuse).await.unwrap();
    assert_eq!(stored.bytes(), 5);
    let refused = fault(destination.put(&small, "second".into(), Existing::Refuse).await);
    assert_eq!(refused.kind(), FaultKind::Permanent, "{}", refused.chain());
    assert_eq!(read(destination, &small).await, b"first");
    destination.put(&small, "third".into(), Existing::Replace).await.unwrap();
    assert_eq!(read(destination, &small).await, b"third");
    assert_eq!(read_small(destination, &small, 5).await.unwrap().unwrap(), "third");
    assert!(read_small(destination, &small, 4).await.is_err(), "larger than was allowed");
    let empty = key("job/20250101T000000Z/empty");
    destination.put(&empty, Bytes::new(), Existing::Refuse).await.unwrap();
    assert_eq!(destination.size(&empty).await.unwrap(), Some(0));

    // Uploads of every size around a part's, written in pieces that are none.
    for length in [0, 5, PART - 1, PART, PART + 1, 20_000_000] {
        let key = key(&format!("job/20250102T000000Z/{length}.dump"));
        let bytes = noise(length);
        let mut upload = destination.upload(&key).await.unwrap();
        for piece in bytes.chunks(3_000_001) {
            upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
            assert_eq!(destination.size(&key).await.unwrap(), None, "visible before its commit");
        }
        assert_eq!(upload.commit().await.unwrap().bytes(), length as u64);
        assert_eq!(destination.size(&key).await.unwrap(), Some(length as u64));
        assert!(read(destination, &key).await == bytes, "{length} bytes came back changed");
    }
    assert_eq!(hidden(), 0);

    // What is aborted was never there.
    for length in [0, 5, PART, 20_000_000] {
        let key = key(&format!("job/20250103T000000Z/{length}.dump"));
        let mut upload = destination.upload(&key).await.unwrap();
        upload.write(noise(length)).await.unwrap();
        upload.abort().await;
        assert_eq!(destination.size(&key).await.unwrap(), None);
    }
    assert_eq!(hidden(), 0, "an abort left something");

    // A folder lists what lies directly in it.
    let listing = destination.list(&key("job/20250102T000000Z")).await.unwrap();
    let mut sizes: Vec<u64> = listing.files.iter().map(|(_, size)| *size).collect();
    sizes.sort_unstable();
    let part = PART as u64;
    assert_eq!(sizes, [0, 5, part - 1, part, part + 1, 20_000_000]);
    assert!(listing.folders.is_empty());
    let listing = destination.list(&Key::root()).await.unwrap();
    assert_eq!((listing.folders, listing.files.len()), (vec!["job".to_owned()], 0));
    let job = "job".parse().unwrap();
    let ids: Vec<String> =
        list_backups(destination, &job).await.unwrap().iter().map(ToString::to_string).collect();
    assert!(ids.starts_with(&["20250101T000000Z".into(), "20250102T000000Z".into()]), "{ids:?}");
    let nothing = destination.list(&key("nothing/here")).await.unwrap();
    assert!(nothing.files.is_empty() && nothing.folders.is_empty());
    let id = "20250102T000000Z".parse().unwrap();
    assert!(read_manifest(destination, &job, &id).await.unwrap().is_none());

    // Names that a URL or a shell would take apart.
    for name in [
        "a b",
        "ñandú 🦙",
        "100%",
        "%41",
        "a+b",
        "q?x=1&y#z",
        "it's \"q\"",
        "*",
        "~",
        "a..b",
        "=",
        ":",
        "{}[]|^`<>",
    ] {
        let key = key("job/20250104T000000Z").child(name).unwrap();
        destination.put(&key, Bytes::from(name.to_owned()), Existing::Refuse).await.unwrap();
        assert_eq!(read(destination, &key).await, name.as_bytes());
        let mut upload = destination.upload(&key).await.unwrap();
        upload.write(noise(100)).await.unwrap();
        upload.commit().await.unwrap();
        assert_eq!(destination.size(&key).await.unwrap(), Some(100), "{name}");
        let listing = destination.list(&self::key("job/20250104T000000Z")).await.unwrap();
        assert!(listing.files.contains(&(name.to_owned(), 100)), "{name}: {listing:?}");
    }
    assert_eq!(hidden(), 0);
}

#[tokio::test]
async fn a_folder_keeps_the_contract() {
    let folder = temp_folder("local");
    let local = Local::new("local", folder.path().join("not there yet/ñ x"));
    let root = folder.path().to_owned();
    let drafts = move || {
        let files = walkdir::WalkDir::new(&root).into_iter().map(std::result::Result::unwrap);
        files.filter(|e| e.file_name().to_string_lossy().ends_with(".tmp")).count()
    };
    keeps_the_contract(&local, &drafts).await;
    assert!(local.free_bytes().await.unwrap() > 0);
    // Others may not look into it.
    for entry in walkdir::WalkDir::new(folder.path().join("not there yet")) {
        let mode = std::os::unix::fs::MetadataExt::mode(&entry.unwrap().metadata().unwrap());
        assert_eq!(mode & 0o077, 0);
    }
}

#[tokio::test]
async fn s3_keeps_the_contract() {
    let (server, remembered) = (Server::start(), Arc::new(Remembered::default()));
    let s3 = S3::new("offsite", &options(&server), Some(remembered.clone())).unwrap();
    let open = || server.incomplete_uploads().len() + remembered.open();
    keeps_the_contract(&s3, &open).await;
    assert!(server.objects().iter().all(|key| key.starts_with("some/prefix/job/")));
    // Parts of 8 MiB: of 20 MB there are three, twice (one upload was aborted).
    let parts = server.faults.count("PUT", "20000000.dump?partNumber=3");
    assert!((1..=2).contains(&parts), "{parts}");
    assert_eq!(server.faults.count("PUT", "20000000.dump?partNumber=4"), 0);
    assert_eq!(server.faults.count("PUT", &format!("/{}.dump?partNumber=2", PART)), 0);
}

#[tokio::test]
async fn moto_keeps_the_contract_and_every_object_has_its_storage_class() {
    let (server, remembered) = (Moto::start(), Arc::new(Remembered::default()));
    server.make_bucket("cold");
    let s3 = S3::new("cold", &moto_options(&server, "cold"), Some(remembered.clone())).unwrap();
    let open = || {
        let uploads = server.ask("GET", "/cold?uploads", "");
        uploads.body.matches("<UploadId>").count() + remembered.open()
    };
    keeps_the_contract(&s3, &open).await;
    let small = "some/prefix/job/20250101T000000Z/config.toml";
    for object in [small, "some/prefix/job/20250102T000000Z/20000000.dump"] {
        assert_eq!(server.storage_class("cold", object), "STANDARD_IA", "{object}");
    }
    // Each part but the last has 8 MiB.
    let object = "/cold/some/prefix/job/20250102T000000Z/20000000.dump";
    let head = server.ask("HEAD", &format!("{object}?partNumber=1"), "");
    assert_eq!(head.header("content-length"), Some(PART.to_string().as_str()), "{head:?}");
}

#[test]
fn every_object_of_a_backup_has_its_storage_class() {
    let server = Moto::start();
    server.make_bucket("cold");
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{}storage_class = \"GLACIER_IR\"\n[jobs.media]\nvolume_size = \"9MiB\"\n\
         compression = \"none\"\nsource = {{ files = \"@DIR@/media\" }}\n",
        moto("cold", &server, "cold", "a/b")
    ));
    respaldo.write("media/a", "a");
    std::fs::write(respaldo.path("media/noise"), noise(20_000_000)).unwrap();
    respaldo.run(&["backup", "media"]).expect(0);
    respaldo.run(&["verify", "media"]).expect(0);
    let listing = server.ask("GET", "/cold?list-type=2", "").body;
    let keys: Vec<&str> =
        listing.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap()).collect();
    for name in
        ["manifest.json", "owner.json", "media.tar", "media.tar.001", "SHA256SUMS", "RESTORE.md"]
    {
        assert!(keys.iter().any(|key| key.ends_with(&format!("/{name}"))), "{name}: {keys:?}");
    }
    for key in keys {
        assert_eq!(server.storage_class("cold", key), "GLACIER_IR", "{key}");
    }
}

/// Tries what a destination can do; each must fail, and say the same. To ask for a size is not among
/// them: S3 answers it without a word, and so the same for a bucket that is missing.
async fn all_fail(destination: &dyn Destination) -> Vec<Fault> {
    let key = key("job/20250101T000000Z/x");
    let mut faults = vec![
        fault(destination.check().await),
        fault(destination.put(&key, "x".into(), Existing::Replace).await),
        fault(destination.put(&key, "x".into(), Existing::Refuse).await),
        fault(destination.list(&Key::root()).await),
        fault(destination.read(&key).await.map(|_| ())),
    ];
    let mut upload = destination.upload(&key).await.unwrap();
    let written = upload.write(noise(PART + 5)).await;
    let committed = match written {
        Ok(()) => upload.commit().await.map(|_| ()),
        Err(fault) => Err(fault),
    };
    faults.push(fault(committed));
    faults
}

#[tokio::test]
async fn wrong_credentials_are_permanent_and_say_what_to_check() {
    let server = Server::start();
    let hidden = "not-the-right-secret";
    let wrong = S3Options { secret_access_key: Some(Secret::new(hidden)), ..options(&server) };
    let unknown = S3Options { access_key_id: Some(Secret::new("AKIAUNKNOWN")), ..options(&server) };
    for options in [wrong, unknown] {
        let s3 = S3::new("offsite", &options, None).unwrap();
        for fault in all_fail(&s3).await {
            let words = format!("{} {:?}", fault.chain(), fault.next_step());
            assert_eq!(fault.kind(), FaultKind::Permanent, "{words}");
            assert!(fault.next_step().unwrap().contains("key"), "{words}");
            assert!(words.contains("offsite") && !words.contains(hidden), "{words}");
        }
    }
    assert!(server.objects().is_empty());
}

#[tokio::test]
async fn a_missing_bucket_is_permanent_and_named() {
    let server = Moto::start();
    let s3 = S3::new("offsite", &moto_options(&server, "not-there"), None).unwrap();
    for fault in all_fail(&s3).await {
        let words = format!("{} {:?}", fault.chain(), fault.next_step());
        assert_eq!(fault.kind(), FaultKind::Permanent, "{words}");
        assert!(fault.next_step().unwrap().contains("no bucket 'not-there'"), "{words}");
    }
}

#[test]
fn a_clock_that_is_wrong_is_named() {
    let server = Server::start();
    let jobs = "[jobs.media]\nretries = 0\nsource = { files = \"@DIR@/media\" }\n";
    let respaldo = Respaldo::new(&format!("{HEAD}{}{jobs}", s3("offsite", &server, "x")))
        .env("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
        .env("FAKETIME", "-1d")
        .env("DONT_FAKE_MONOTONIC", "1");
    respaldo.write("media/a", "a");
    let failed = respaldo.run(&["backup", "media"]).expect(1);
    assert!(failed.stderr.contains("hint: the clocks here and at the store differ"), "{failed:?}");
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_transient() {
    let gone = S3Options {
        endpoint: Some(format!("http://127.0.0.1:{}", free_port())),
        ..options(&Server::start())
    };
    let s3 = S3::new("offsite", &gone, None).unwrap();
    let fault = fault(s3.size(&key("job/x")).await);
    assert_eq!(fault.kind(), FaultKind::Transient, "{}", fault.chain());
    assert!(fault.next_step().unwrap().contains("is the store up"), "{:?}", fault.next_step());
}

#[tokio::test]
async fn a_folder_that_may_not_be_used_says_which_right_is_missing() {
    let folder = temp_folder("local");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let local = Local::new("local", &file);
    assert!(local.check().await.is_err());
    // Mounts of volumes that were forgotten: an empty folder is there, this one is not.
    let gone = Local::new("local", folder.path().join("gone"));
    let fault = fault(gone.list(&Key::root()).await);
    assert!(fault.next_step().unwrap().contains("mounted"), "{:?}", fault.next_step());
    let proc = Local::new("local", "/proc/respaldo");
    assert!(proc.check().await.is_err());
}
