//! One contract that every destination keeps, each named by itself: the folder, the S3 server inside the
//! tests (which checks signatures), moto (storage classes, missing buckets), Azurite, what stands in for
//! GCS, and OpenSSH.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use respaldo::destination::{
    AzureOptions, Bucket, Destination, GcsOptions, Key, Local, Removal, S3Options, Sftp,
    SftpOptions, Uploads, list_backups, read_manifest, read_small,
};
use respaldo::durable::Existing;
use respaldo::fault::{Fault, FaultKind, Result};
use respaldo::retention::{Doomed, Uncommitted, Unlisted, unlisted};
use respaldo::secret::Secret;

use crate::support::azurite::Azurite;
use crate::support::disk::Disk;
use crate::support::gcs::Gcs;
use crate::support::moto::Moto;
use crate::support::s3::{Act, Rule, S3 as S3s};
use crate::support::sshd::Sshd;
use crate::support::{DEADLINE, free_port, temp_folder};

pub const PART: usize = 8 << 20;

/// The uploads that would stay open if the process died.
#[derive(Default)]
pub struct Remembered(Mutex<BTreeSet<String>>);

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
    pub fn open(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A destination of its own in a place, and the same without a right to be there.
pub struct Place {
    pub destination: Arc<dyn Destination>,
    /// With a password or key that is not the right one; and a word of the next step.
    refused: Vec<(Arc<dyn Destination>, &'static str)>,
    /// Where nobody listens.
    unreachable: Arc<dyn Destination>,
    /// Whether its server lets one of two through that come at the same moment; s3s-fs looks first
    /// and writes later.
    decides: bool,
    /// How many unfinished things it holds.
    hidden: Box<dyn Fn() -> usize + Send + Sync>,
    _held: Box<dyn Any + Send + Sync>,
}

/// What must not be in any error.
const WRONG: &str = "not-the-right-secret";

/// A prefix that no other test has.
fn prefix() -> String {
    format!("some/prefix-{}", uuid::Uuid::new_v4().simple())
}

pub fn s3s_options(server: &S3s) -> S3Options {
    S3Options {
        bucket: server.bucket.into(),
        prefix: prefix(),
        endpoint: Some(server.endpoint()),
        region: Some(server.region.into()),
        access_key_id: Some(Secret::new(server.access_key)),
        secret_access_key: Some(Secret::new(server.secret_key)),
        checksum: true,
        ..S3Options::default()
    }
}

pub fn moto_options(server: &Moto, bucket: &str) -> S3Options {
    S3Options {
        bucket: bucket.into(),
        prefix: prefix(),
        endpoint: Some(server.endpoint()),
        region: Some("us-east-1".into()),
        access_key_id: Some(Secret::new("test")),
        secret_access_key: Some(Secret::new("test")),
        storage_class: Some("STANDARD_IA".into()),
        checksum: true,
        ..S3Options::default()
    }
}

pub fn azure_options(server: &Azurite, container: &str) -> AzureOptions {
    AzureOptions {
        account: server.account.into(),
        container: container.into(),
        prefix: prefix(),
        endpoint: Some(server.endpoint()),
        access_key: Some(Secret::new(server.key.clone())),
        storage_class: Some("Cool".into()),
        ..AzureOptions::default()
    }
}

pub fn gcs_options(server: &Gcs) -> GcsOptions {
    GcsOptions {
        bucket: server.bucket.into(),
        prefix: prefix(),
        endpoint: Some(server.endpoint()),
        credentials: Some(Secret::new(server.credentials())),
        storage_class: Some("NEARLINE".into()),
        ..GcsOptions::default()
    }
}

pub fn sftp_options(server: &Sshd) -> SftpOptions {
    let login = std::fs::read_to_string(server.login()).unwrap();
    SftpOptions {
        host: "127.0.0.1".into(),
        port: server.port,
        user: server.user.into(),
        path: format!("{}/{}", server.home().display(), prefix()),
        host_keys: vec![server.host_key()],
        private_key: Some(Secret::new(login)),
        ..SftpOptions::default()
    }
}

fn nobody_there() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

fn local() -> Place {
    let folder = temp_folder("local");
    let root = folder.path().to_owned();
    let drafts = move || {
        let files = walkdir::WalkDir::new(&root).into_iter().map(std::result::Result::unwrap);
        files.filter(|e| e.file_name().to_string_lossy().ends_with(".tmp")).count()
    };
    // Mounts of volumes that were forgotten: an empty folder is there, this one is not.
    let gone = Local::new("offsite", "/proc/respaldo/gone");
    Place {
        destination: Arc::new(Local::new("offsite", folder.path().join("not there yet/ñ x"))),
        refused: vec![],
        unreachable: Arc::new(gone),
        decides: true,
        hidden: Box::new(drafts),
        _held: Box::new(folder),
    }
}

fn s3s() -> Place {
    let server = Arc::new(S3s::start());
    let remembered = Arc::new(Remembered::default());
    let options = s3s_options(&server);
    let s3 = |options: S3Options| -> Arc<dyn Destination> {
        Arc::new(Bucket::s3("offsite", &options, None).unwrap())
    };
    let secret = S3Options { secret_access_key: Some(Secret::new(WRONG)), ..options.clone() };
    let id = S3Options { access_key_id: Some(Secret::new("AKIAUNKNOWN")), ..options.clone() };
    let gone = S3Options { endpoint: Some(nobody_there()), ..options.clone() };
    let (held, uploads) = (server.clone(), remembered.clone());
    Place {
        destination: Arc::new(Bucket::s3("offsite", &options, Some(remembered)).unwrap()),
        refused: vec![(s3(secret), "key"), (s3(id), "key")],
        unreachable: s3(gone),
        decides: false,
        hidden: Box::new(move || server.incomplete_uploads().len() + uploads.open()),
        _held: Box::new(held),
    }
}

static MOTO: LazyLock<Moto> = LazyLock::new(|| {
    let moto = Moto::start();
    moto.make_bucket("cold");
    moto
});

fn moto() -> Place {
    let remembered = Arc::new(Remembered::default());
    let options = moto_options(&MOTO, "cold");
    let gone = S3Options { endpoint: Some(nobody_there()), ..options.clone() };
    let (uploads, prefix) = (remembered.clone(), options.prefix.clone());
    Place {
        destination: Arc::new(Bucket::s3("offsite", &options, Some(remembered)).unwrap()),
        // It checks none.
        refused: vec![],
        unreachable: Arc::new(Bucket::s3("offsite", &gone, None).unwrap()),
        decides: true,
        hidden: Box::new(move || {
            let open = MOTO.ask("GET", "/cold?uploads", "").body;
            open.matches(&format!("<Key>{prefix}")).count() + uploads.open()
        }),
        _held: Box::new(()),
    }
}

static AZURITE: LazyLock<Azurite> = LazyLock::new(|| {
    let azurite = Azurite::start();
    azurite.make_container("cold");
    azurite
});

fn azurite() -> Place {
    use base64::Engine;
    let options = azure_options(&AZURITE, "cold");
    let wrong = base64::prelude::BASE64_STANDARD.encode(WRONG);
    let wrong = AzureOptions { access_key: Some(Secret::new(wrong)), ..options.clone() };
    let gone = AzureOptions { endpoint: Some(nobody_there() + "/keeper"), ..options.clone() };
    Place {
        destination: Arc::new(Bucket::azure("offsite", &options).unwrap()),
        refused: vec![(Arc::new(Bucket::azure("offsite", &wrong).unwrap()), "access key")],
        unreachable: Arc::new(Bucket::azure("offsite", &gone).unwrap()),
        decides: true,
        // Blocks that no list names are seen by nobody, and vanish by themselves.
        hidden: Box::new(|| 0),
        _held: Box::new(()),
    }
}

fn gcs_shape() -> Place {
    let server = Arc::new(Gcs::start());
    let remembered = Arc::new(Remembered::default());
    let options = gcs_options(&server);
    let refusing = Gcs::start();
    refusing.refuse(403, "AccessDenied", "Access denied.");
    let wrong = GcsOptions { endpoint: Some(refusing.endpoint()), ..options.clone() };
    let gone = GcsOptions { endpoint: Some(nobody_there()), ..options.clone() };
    let (held, uploads) = (server.clone(), remembered.clone());
    Place {
        destination: Arc::new(Bucket::gcs("offsite", &options, Some(remembered)).unwrap()),
        refused: vec![(Arc::new(Bucket::gcs("offsite", &wrong, None).unwrap()), "key")],
        unreachable: Arc::new(Bucket::gcs("offsite", &gone, None).unwrap()),
        decides: true,
        hidden: Box::new(move || server.open_uploads() + uploads.open()),
        _held: Box::new((held, refusing)),
    }
}

static SSHD: LazyLock<Sshd> = LazyLock::new(Sshd::start);

fn sshd() -> Place {
    let options = sftp_options(&SSHD);
    let sftp =
        |options: SftpOptions| -> Arc<dyn Destination> { Arc::new(Sftp::new("offsite", options)) };
    let by_password = SftpOptions { private_key: None, ..options.clone() };
    let password = SftpOptions { password: Some(Secret::new(WRONG)), ..by_password };
    let user = SftpOptions { user: "nobody-here".into(), ..options.clone() };
    let gone = SftpOptions { port: free_port(), ..options.clone() };
    let root = std::path::PathBuf::from(&options.path);
    let drafts = move || {
        let files = walkdir::WalkDir::new(&root).into_iter().filter_map(std::result::Result::ok);
        files.filter(|e| e.file_name().to_string_lossy().ends_with(".tmp")).count()
    };
    Place {
        destination: sftp(options),
        refused: vec![(sftp(password), "password"), (sftp(user), "authorized_keys")],
        unreachable: sftp(gone),
        decides: true,
        hidden: Box::new(drafts),
        _held: Box::new(()),
    }
}

macro_rules! contract {
    ($($place:ident),+) => {
        $(mod $place {
            contract!(
                $place: small_files_are_whole_and_replaced_only_on_demand,
                one_of_two_writers_commits,
                an_upload_is_invisible_until_its_commit,
                an_interrupted_upload_leaves_nothing,
                a_folder_lists_what_lies_in_it,
                a_deleted_backup_is_gone_and_its_neighbour_is_not,
                odd_names,
                nothing_at_all,
                two_hundred_megabytes,
                wrong_credentials_are_permanent_and_say_what_to_check,
                where_nobody_listens_it_ends_and_says_so
            );
        })+
    };
    ($place:ident: $($promise:ident),+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            let place = tokio::task::spawn_blocking(super::$place).await.unwrap();
            super::$promise(&place).await;
        })+
    };
}

contract!(local, s3s, moto, azurite, gcs_shape, sshd);

pub fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

/// Bytes that no codec or cache could make up.
pub fn noise(length: usize) -> Bytes {
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

pub async fn read(destination: &dyn Destination, key: &Key) -> Vec<u8> {
    let pieces: Vec<Bytes> = destination.read(key).await.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

pub async fn upload(destination: &dyn Destination, key: &Key, bytes: &Bytes) {
    let mut upload = destination.upload(key, Existing::Replace).await.unwrap();
    for start in (0..bytes.len()).step_by(3_000_001) {
        upload.write(bytes.slice(start..bytes.len().min(start + 3_000_001))).await.unwrap();
        assert_eq!(destination.size(key).await.unwrap(), None, "visible before its commit");
    }
    assert_eq!(upload.commit().await.unwrap().bytes(), bytes.len() as u64);
}

#[track_caller]
pub fn fault<T>(result: Result<T>) -> Fault {
    result.err().expect("it went well")
}

pub fn words(fault: &Fault) -> String {
    format!("{} / {}", fault.chain(), fault.next_step().unwrap_or("NO NEXT STEP"))
}

/// Permission to delete a backup, as for what a run left behind.
pub fn doomed(job: &str, id: &str) -> Doomed {
    let folder = Uncommitted {
        id: id.parse().unwrap(),
        run_is_over: true,
        deadline: SignedDuration::from_hours(1),
        was_committed: false,
        removing: false,
        pinned: false,
    };
    match unlisted(&job.parse().unwrap(), folder, Timestamp::now()) {
        Unlisted::Leftover(doomed) => doomed,
        other => panic!("{other:?}"),
    }
}

async fn small_files_are_whole_and_replaced_only_on_demand(place: &Place) {
    let destination = place.destination.as_ref();
    destination.check().await.unwrap();
    let root = destination.list(&Key::root()).await.unwrap();
    assert!(root.files.is_empty() && root.folders.is_empty(), "a check left {root:?}");
    let small = key("job/20250101T000000Z/config.toml");
    assert_eq!(destination.size(&small).await.unwrap(), None);
    assert!(read_small(destination, &small, 9).await.unwrap().is_none());
    assert!(destination.read(&small).await.is_err());
    let stored = destination.put(&small, "first".into(), Existing::Refuse).await.unwrap();
    assert_eq!(stored.bytes(), 5);
    let refused = fault(destination.put(&small, "second".into(), Existing::Refuse).await);
    assert_eq!(refused.kind(), FaultKind::Taken, "{}", words(&refused));
    assert!(words(&refused).contains("do two respaldos share"), "{}", words(&refused));
    assert_eq!(read(destination, &small).await, b"first");
    destination.put(&small, "third".into(), Existing::Replace).await.unwrap();
    assert_eq!(read(destination, &small).await, b"third");
    assert_eq!(read_small(destination, &small, 5).await.unwrap().unwrap(), "third");
    assert!(read_small(destination, &small, 4).await.is_err(), "larger than was allowed");
    assert_eq!((place.hidden)(), 0);
}

/// At the same moment, where the server can do that: of eight, one manifest is there, whole, and seven are told.
async fn one_of_two_writers_commits(place: &Place) {
    let manifest = key("job/20250101T000000Z/manifest.json");
    let writers = (0..8).map(|number: u8| {
        let bytes = Bytes::from(vec![b'0' + number; 1000]);
        place.destination.put(&manifest, bytes, Existing::Refuse)
    });
    let at_once = if place.decides { 8 } else { 1 };
    let answers = stream::iter(writers).buffered(at_once).collect::<Vec<_>>().await;
    let there = read(place.destination.as_ref(), &manifest).await;
    assert!(there.len() == 1000 && there.iter().all(|byte| *byte == there[0]));
    let won: Vec<usize> = (0..8).filter(|number| answers[*number].is_ok()).collect();
    assert_eq!(won, [usize::from(there[0] - b'0')], "{answers:?}");
    assert_eq!((place.hidden)(), 0);
}

/// Of every size around a part's, written in pieces that are none.
async fn an_upload_is_invisible_until_its_commit(place: &Place) {
    let destination = place.destination.as_ref();
    for length in [5, PART - 1, PART, PART + 1, 20_000_000] {
        let key = key(&format!("job/20250102T000000Z/{length}.dump"));
        let bytes = noise(length);
        upload(destination, &key, &bytes).await;
        assert_eq!(destination.size(&key).await.unwrap(), Some(length as u64));
        assert!(read(destination, &key).await == bytes, "{length} bytes came back changed");
    }
    assert_eq!((place.hidden)(), 0);
    // Once more under the same name: the newer one is there.
    let again = key("job/20250102T000000Z/5.dump");
    let mut upload = destination.upload(&again, Existing::Replace).await.unwrap();
    upload.write(noise(7)).await.unwrap();
    assert_eq!(destination.size(&again).await.unwrap(), Some(5));
    upload.commit().await.unwrap();
    assert!(read(destination, &again).await == noise(7));
}

async fn an_interrupted_upload_leaves_nothing(place: &Place) {
    let destination = place.destination.as_ref();
    for length in [0, 5, PART, 20_000_000] {
        let key = key(&format!("job/20250103T000000Z/{length}.dump"));
        let mut upload = destination.upload(&key, Existing::Replace).await.unwrap();
        upload.write(noise(length)).await.unwrap();
        upload.abort().await;
        assert_eq!(destination.size(&key).await.unwrap(), None);
        assert!(destination.read(&key).await.is_err());
    }
    assert_eq!((place.hidden)(), 0, "an abort left something");
    let listing = destination.list(&key("job/20250103T000000Z")).await.unwrap();
    assert!(listing.files.is_empty() && listing.folders.is_empty(), "{listing:?}");
    // One whose process died goes with its backup's folder, or by the name that was remembered.
    let dead = key("job/20250103T000000Z/dead.dump");
    let mut upload = destination.upload(&dead, Existing::Replace).await.unwrap();
    upload.write(noise(PART + 5)).await.unwrap();
    drop(upload);
    assert_eq!(destination.size(&dead).await.unwrap(), None);
    destination.delete(&doomed("job", "20250103T000000Z")).await.unwrap();
    let listing = destination.list(&key("job")).await.unwrap();
    assert!(listing.folders.is_empty(), "{listing:?}");
}

async fn a_folder_lists_what_lies_in_it(place: &Place) {
    let destination = place.destination.as_ref();
    for (name, length) in [("20250102T000000Z/a", 1), ("20250102T000000Z/marks/pin", 2)] {
        let bytes = noise(length);
        destination.put(&key(&format!("job/{name}")), bytes, Existing::Replace).await.unwrap();
    }
    for number in 0..30 {
        let folder = format!("job/202501{:02}T000000Z/x", number + 1);
        destination.put(&key(&folder), "x".into(), Existing::Replace).await.unwrap();
    }
    let listing = destination.list(&key("job/20250102T000000Z")).await.unwrap();
    assert_eq!(listing.folders, ["marks"]);
    let files: BTreeSet<(String, u64)> = listing.files.into_iter().collect();
    assert_eq!(files, BTreeSet::from([("a".to_owned(), 1), ("x".to_owned(), 1)]));
    let listing = destination.list(&Key::root()).await.unwrap();
    assert_eq!((listing.folders, listing.files.len()), (vec!["job".to_owned()], 0));
    let job = "job".parse().unwrap();
    let ids: Vec<String> =
        list_backups(destination, &job).await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!((ids.len(), ids[0].as_str()), (30, "20250101T000000Z"));
    let nothing = destination.list(&key("nothing/here")).await.unwrap();
    assert!(nothing.files.is_empty() && nothing.folders.is_empty());
    let id = "20250102T000000Z".parse().unwrap();
    assert!(read_manifest(destination, &job, &id).await.unwrap().is_none());
}

async fn a_deleted_backup_is_gone_and_its_neighbour_is_not(place: &Place) {
    let destination = place.destination.as_ref();
    for folder in ["job/20250101T000000Z", "job/20250101T000000Z-2", "job2/20250101T000000Z"] {
        for name in ["manifest.json", "a.dump", "marks/pin"] {
            let key = key(&format!("{folder}/{name}"));
            destination.put(&key, "x".into(), Existing::Replace).await.unwrap();
        }
    }
    for _ in 0..2 {
        // The second time there is nothing left to delete, and that is fine.
        let removal = destination.delete(&doomed("job", "20250101T000000Z")).await.unwrap();
        assert_eq!(removal, Removal::Gone);
        let left = destination.list(&key("job")).await.unwrap();
        assert_eq!(left.folders, ["20250101T000000Z-2"]);
        let left = destination.list(&key("job/20250101T000000Z-2")).await.unwrap();
        assert_eq!((left.files.len(), left.folders.len()), (2, 1));
        assert_eq!(destination.list(&key("job2")).await.unwrap().folders.len(), 1);
    }
}

/// Names that a URL or a shell would take apart.
async fn odd_names(place: &Place) {
    let destination = place.destination.as_ref();
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
        "-rf",
    ] {
        let key = key("job/20250104T000000Z").child(name).unwrap();
        destination.put(&key, Bytes::from(name.to_owned()), Existing::Refuse).await.unwrap();
        assert_eq!(read(destination, &key).await, name.as_bytes());
        let mut upload = destination.upload(&key, Existing::Replace).await.unwrap();
        upload.write(noise(100)).await.unwrap();
        upload.commit().await.unwrap();
        assert_eq!(destination.size(&key).await.unwrap(), Some(100), "{name}");
        let listing = destination.list(&self::key("job/20250104T000000Z")).await.unwrap();
        assert!(listing.files.contains(&(name.to_owned(), 100)), "{name}: {listing:?}");
    }
    destination.delete(&doomed("job", "20250104T000000Z")).await.unwrap();
    assert!(destination.list(&key("job")).await.unwrap().folders.is_empty());
    assert_eq!((place.hidden)(), 0);
}

async fn nothing_at_all(place: &Place) {
    let destination = place.destination.as_ref();
    let (put, uploaded) = (key("job/20250105T000000Z/put"), key("job/20250105T000000Z/uploaded"));
    destination.put(&put, Bytes::new(), Existing::Refuse).await.unwrap();
    let upload = destination.upload(&uploaded, Existing::Replace).await.unwrap();
    assert_eq!(upload.commit().await.unwrap().bytes(), 0);
    for key in [put, uploaded] {
        assert_eq!(destination.size(&key).await.unwrap(), Some(0), "{key}");
        assert!(read(destination, &key).await.is_empty());
    }
    assert_eq!((place.hidden)(), 0);
}

async fn two_hundred_megabytes(place: &Place) {
    let destination = place.destination.as_ref();
    let key = key("job/20250106T000000Z/large.dump");
    let bytes = noise(200_000_000);
    upload(destination, &key, &bytes).await;
    assert_eq!(destination.size(&key).await.unwrap(), Some(200_000_000));
    let mut pieces = destination.read(&key).await.unwrap();
    let mut at = 0;
    while let Some(piece) = pieces.try_next().await.unwrap() {
        assert!(bytes[at..at + piece.len()] == piece, "changed near {at}");
        at += piece.len();
    }
    assert_eq!((at, (place.hidden)()), (200_000_000, 0));
}

/// Tries what a destination can do; each must fail. To ask for a size is not among them: S3 answers it
/// without a word, and so the same for a bucket that is missing.
pub async fn all_fail(destination: &dyn Destination) -> Vec<Fault> {
    let key = key("job/20250101T000000Z/x");
    let uploaded = async {
        let mut upload = destination.upload(&key, Existing::Replace).await?;
        upload.write(noise(PART + 5)).await?;
        upload.commit().await
    };
    vec![
        fault(destination.check().await),
        fault(destination.put(&key, "x".into(), Existing::Replace).await),
        fault(destination.put(&key, "x".into(), Existing::Refuse).await),
        fault(destination.list(&Key::root()).await),
        fault(destination.read(&key).await.map(|_| ())),
        fault(uploaded.await),
    ]
}

async fn wrong_credentials_are_permanent_and_say_what_to_check(place: &Place) {
    for (destination, word) in &place.refused {
        for fault in all_fail(destination.as_ref()).await {
            let words = words(&fault);
            assert_eq!(fault.kind(), FaultKind::Permanent, "{words}");
            assert!(fault.next_step().unwrap().contains(word), "{words}");
            assert!(words.contains("offsite") && !words.contains(WRONG), "{words}");
        }
    }
}

async fn where_nobody_listens_it_ends_and_says_so(place: &Place) {
    let root = Key::root();
    let listed = place.unreachable.list(&root);
    let fault = fault(tokio::time::timeout(DEADLINE, listed).await.expect("no end in sight"));
    let words = words(&fault);
    assert_eq!(fault.kind(), FaultKind::Transient, "{words}");
    let step = fault.next_step().unwrap();
    assert!(
        ["is the store up", "is the server up", "mounted"].iter().any(|w| step.contains(w)),
        "{words}"
    );
}

/// What is written until there is no room, and what is said then.
async fn fills_up(destination: &dyn Destination) -> String {
    let kept = key("job/20250101T000000Z/kept");
    destination.put(&kept, "kept".into(), Existing::Refuse).await.unwrap();
    let key = key("job/20250102T000000Z/large.dump");
    let written = async {
        let mut upload = destination.upload(&key, Existing::Replace).await?;
        for _ in 0..24 {
            if let Err(fault) = upload.write(noise(1 << 20)).await {
                upload.abort().await;
                return Err(fault);
            }
        }
        upload.commit().await
    };
    let fault = fault(written.await);
    assert_eq!(fault.kind(), FaultKind::Transient, "{}", words(&fault));
    assert_eq!(destination.size(&key).await.unwrap(), None);
    assert_eq!(read(destination, &kept).await, b"kept");
    words(&fault)
}

#[tokio::test]
async fn local_full() {
    let disk = Disk::new(16);
    let said = fills_up(&Local::new("offsite", disk.path())).await;
    assert!(said.contains("the disk is full"), "{said}");
    assert_eq!(walkdir::WalkDir::new(disk.path()).into_iter().count(), 5, "a draft stays");
}

#[tokio::test]
async fn sshd_full() {
    let disk = Disk::new(16);
    let server = Sshd::serving(Some(disk.path()));
    let path = disk.path().join("x").display().to_string();
    let sftp = Sftp::new("offsite", SftpOptions { path, ..sftp_options(&server) });
    let said = fills_up(&sftp).await;
    assert!(said.contains("its disk is full"), "{said}");
    let free = sftp.space().await.unwrap().free;
    assert!((1 << 20..16 << 20).contains(&free), "{free}");
}

#[tokio::test]
async fn s3s_full() {
    let server = S3s::start();
    let s3 = Bucket::s3("offsite", &s3s_options(&server), None).unwrap();
    server.faults.set(Rule::on("PUT", "large.dump"), Act::Status(507));
    let said = fills_up(&s3).await;
    assert!(said.contains("the store is full"), "{said}");
    assert!(server.incomplete_uploads().is_empty());
}
