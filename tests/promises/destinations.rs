//! What is special about each kind of destination, beside the contract that all of them keep: parts and
//! storage classes, host keys, what is said of a wrong place, and a backup there and back.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;

use respaldo::destination::{Bucket, Destination, Key, Local, Sftp, SftpOptions};
use respaldo::durable::Existing;
use respaldo::fault::FaultKind;
use respaldo::secret::Secret;

use super::places::{
    PART, Remembered, all_fail, azure_options, fault, gcs_options, key, moto_options, noise, read,
    s3s_options, sftp_options, upload, words,
};
use crate::support::azurite::Azurite;
use crate::support::config::{HEAD, encode, moto, s3, text};
use crate::support::distance::Distance;
use crate::support::gcs::Gcs;
use crate::support::moto::Moto;
use crate::support::program::{Output, Respaldo};
use crate::support::s3::S3 as Server;
use crate::support::sshd::Sshd;
use crate::support::{DEADLINE, temp_folder, tool};

#[tokio::test]
async fn what_is_kept_in_a_folder_is_for_its_owner_alone() {
    let folder = temp_folder("local");
    let local = Local::new("local", folder.path().join("not there yet"));
    upload(&local, &key("job/20250101T000000Z/x"), &noise(5)).await;
    assert!(local.space().await.unwrap().free > 0);
    assert_for_its_owner_alone(&folder.path().join("not there yet"));
}

fn assert_for_its_owner_alone(folder: &Path) {
    for entry in walkdir::WalkDir::new(folder) {
        let mode = std::os::unix::fs::MetadataExt::mode(&entry.unwrap().metadata().unwrap());
        assert_eq!(mode & 0o077, 0);
    }
}

#[tokio::test]
async fn parts_have_8_mib_and_all_objects_lie_below_the_prefix() {
    let server = Server::start();
    let options = s3s_options(&server);
    let s3 = Bucket::s3("offsite", &options, Some(Arc::new(Remembered::default()))).unwrap();
    for length in [PART, 20_000_000] {
        upload(&s3, &key(&format!("job/20250102T000000Z/{length}.dump")), &noise(length)).await;
    }
    let below = format!("{}/job/", options.prefix);
    assert!(server.objects().iter().all(|key| key.starts_with(&below)));
    assert_eq!(server.faults.count("PUT", "20000000.dump?partNumber=3"), 1);
    assert_eq!(server.faults.count("PUT", "20000000.dump?partNumber=4"), 0);
    assert_eq!(server.faults.count("PUT", &format!("/{PART}.dump?partNumber=2")), 0);
}

/// Small and large, put and uploaded.
async fn some_objects(destination: &dyn Destination) -> [&'static str; 3] {
    let [put, small, large] = ["job/20250101T000000Z/put", "job/x/small", "job/x/large"];
    destination.put(&key(put), "x".into(), Existing::Refuse).await.unwrap();
    upload(destination, &key(small), &noise(5)).await;
    upload(destination, &key(large), &noise(20_000_000)).await;
    [put, small, large]
}

#[tokio::test]
async fn every_object_has_its_storage_class() {
    let server = Moto::start();
    server.make_bucket("cold");
    let options = moto_options(&server, "cold");
    let s3 = Bucket::s3("cold", &options, None).unwrap();
    for object in some_objects(&s3).await {
        let class = server.storage_class("cold", &format!("{}/{object}", options.prefix));
        assert_eq!(class, "STANDARD_IA", "{object}");
    }
    // Each part but the last has 8 MiB.
    let object = format!("/cold/{}/job/x/large", options.prefix);
    let head = server.ask("HEAD", &format!("{object}?partNumber=1"), "");
    assert_eq!(head.header("content-length"), Some(PART.to_string().as_str()), "{head:?}");

    let server = tokio::task::spawn_blocking(Azurite::start).await.unwrap();
    server.make_container("cold");
    let options = azure_options(&server, "cold");
    let azure = Bucket::azure("cold", &options).unwrap();
    for object in some_objects(&azure).await {
        let head = server.head("cold", &format!("{}/{object}", options.prefix));
        assert_eq!(head.header("x-ms-access-tier"), Some("Cool"), "{object}");
    }

    let server = Gcs::start();
    let options = gcs_options(&server);
    let gcs = Bucket::gcs("cold", &options, None).unwrap();
    for object in some_objects(&gcs).await {
        assert_eq!(server.class(&format!("{}/{object}", options.prefix)), "NEARLINE", "{object}");
    }
}

/// What must be readable at any time stays out of a tier where nothing is.
#[tokio::test]
async fn small_files_do_not_go_into_an_archive_tier() {
    let server = Moto::start();
    server.make_bucket("cold");
    let mut options = moto_options(&server, "cold");
    options.storage_class = Some("DEEP_ARCHIVE".into());
    let s3 = Bucket::s3("cold", &options, None).unwrap();
    let [put, small, large] = some_objects(&s3).await;
    let class =
        |object: &str| server.storage_class("cold", &format!("{}/{object}", options.prefix));
    assert_eq!(
        [put, small, large].map(class),
        ["STANDARD", "DEEP_ARCHIVE", "DEEP_ARCHIVE"].map(str::to_owned)
    );
}

#[tokio::test]
async fn a_missing_container_is_permanent_and_named() {
    let server = tokio::task::spawn_blocking(Azurite::start).await.unwrap();
    let azure = Bucket::azure("offsite", &azure_options(&server, "not-there")).unwrap();
    for fault in all_fail(&azure).await {
        assert_eq!(fault.kind(), FaultKind::Permanent, "{}", words(&fault));
        assert!(words(&fault).contains("no container 'not-there'"), "{}", words(&fault));
    }
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
    let keys = server.keys("cold");
    for name in
        ["manifest.json", "owner.json", "media.tar", "media.tar.001", "SHA256SUMS", "RESTORE.md"]
    {
        assert!(keys.iter().any(|key| key.ends_with(&format!("/{name}"))), "{name}: {keys:?}");
    }
    for key in keys {
        assert_eq!(server.storage_class("cold", &key), "GLACIER_IR", "{key}");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_permanent_and_named() {
    let server = Moto::start();
    let s3 = Bucket::s3("offsite", &moto_options(&server, "not-there"), None).unwrap();
    for fault in all_fail(&s3).await {
        let words = words(&fault);
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

/// A host is known by its key, whichever of its keys that is.
#[tokio::test]
async fn an_sftp_server_that_is_not_the_pinned_one_is_refused_and_shown() {
    let server = tokio::task::spawn_blocking(Sshd::start).await.unwrap();
    let other = tokio::task::spawn_blocking(Sshd::start).await.unwrap();
    let with = |host_keys: Vec<String>| {
        Sftp::new("offsite", SftpOptions { host_keys, ..sftp_options(&server) })
    };
    for pinned in [
        vec![server.host_key()],
        vec![server.rsa_host_key()],
        // While the machine gets a new one.
        vec![other.host_key(), server.host_key()],
    ] {
        with(pinned).check().await.unwrap();
    }
    let print = server.fingerprint();
    let [kind, encoded] = [0, 1].map(|n| server.host_key().split(' ').nth(n).unwrap().to_owned());
    let shown = format!("{kind} {encoded} ({print})");
    let cases =
        [(vec![], "no host key is pinned"), (vec![other.host_key()], "not the pinned host")];
    for (pinned, what) in cases {
        for fault in all_fail(&with(pinned.clone())).await {
            let words = words(&fault);
            assert_eq!(fault.kind(), FaultKind::Permanent, "{words}");
            assert!(words.contains(what) && words.contains(&shown), "{words}");
            assert!(words.contains("ssh-keygen -lf") && words.contains("host_key"), "{words}");
        }
    }
}

#[tokio::test]
async fn sftp_logs_in_by_password_and_by_encrypted_rsa_key() {
    let server = tokio::task::spawn_blocking(Sshd::start).await.unwrap();
    let options = sftp_options(&server);
    let password = Some(Secret::new(server.password));
    let by_password =
        SftpOptions { password, private_key: None, path: "below/home".into(), ..options.clone() };
    let locked = std::fs::read_to_string(server.locked_login()).unwrap();
    let by_key = SftpOptions {
        private_key: Some(Secret::new(locked)),
        passphrase: Some(Secret::new("the passphrase")),
        path: String::new(),
        ..options
    };
    let key = key("job/20250101T000000Z/x");
    for (options, folder) in [(by_password, "below/home"), (by_key, ".")] {
        let sftp = Sftp::new("offsite", options);
        sftp.check().await.unwrap();
        upload(&sftp, &key, &noise(100_000)).await;
        assert!(read(&sftp, &key).await == noise(100_000));
        let file = server.home().join(folder).join(key.as_str());
        assert!(std::fs::read(&file).unwrap() == noise(100_000), "{}", file.display());
        assert_for_its_owner_alone(file.parent().unwrap());
        let listing = sftp.list(&Key::root()).await.unwrap();
        assert!(listing.folders.contains(&"job".to_owned()), "{listing:?}");
    }
}

/// Where the folder may not be written, and where it is a file.
#[tokio::test]
async fn an_sftp_folder_that_may_not_be_used_is_said() {
    let server = tokio::task::spawn_blocking(Sshd::start).await.unwrap();
    let at = |path: &str| {
        Sftp::new("offsite", SftpOptions { path: path.into(), ..sftp_options(&server) })
    };
    let denied = fault(at("/root/backups").check().await);
    assert_eq!(denied.kind(), FaultKind::Permanent, "{}", words(&denied));
    assert!(words(&denied).contains("the account 'keeper' may not"), "{}", words(&denied));
    assert!(at("/etc/hostname").check().await.is_err());
    let gone = fault(at("/no/such").list(&Key::root()).await);
    assert!(words(&gone).contains("is the folder there"), "{}", words(&gone));
}

/// One that takes the connection and says nothing is given up.
#[tokio::test]
async fn an_sftp_server_that_says_nothing_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = SftpOptions {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
        user: "keeper".into(),
        path: "/x".into(),
        password: Some(Secret::new("x")),
        ..SftpOptions::default()
    };
    let fault = fault(Sftp::new("offsite", options).check().await);
    assert_eq!(fault.kind(), FaultKind::Transient, "{}", words(&fault));
    assert!(words(&fault).contains("no SSH greeting in 20 s"), "{}", words(&fault));
}

/// A megabyte goes before the first answer is needed, and of what comes as much is asked for at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_distant_sftp_server_is_not_waited_for_at_every_step() {
    let server = tokio::task::spawn_blocking(Sshd::start).await.unwrap();
    let line = Distance::to(server.port);
    let sftp = Sftp::new("far", SftpOptions { port: line.port, ..sftp_options(&server) });
    let bytes = noise(20_000_000);
    let file = key("job/20250101T000000Z/x");
    let moved = async {
        let mut upload = sftp.upload(&file, Existing::Replace).await.unwrap();
        line.hold_until(1 << 20);
        for piece in bytes.chunks(1 << 20) {
            upload.write(bytes.slice_ref(piece)).await.unwrap();
        }
        upload.commit().await.unwrap();
        let mut pieces = sftp.read(&file).await.unwrap();
        // Some 50 requests of 60 bytes and more.
        line.hold_until(3000);
        let first = pieces.try_next().await.unwrap().unwrap();
        let rest: Vec<Bytes> = pieces.try_collect().await.unwrap();
        [&[first], &rest[..]].concat().concat()
    };
    let back = tokio::time::timeout(DEADLINE, moved).await.expect("it waits for answers");
    assert!(back == bytes);
}

/// What `kill -9` leaves on a server goes at the next start.
#[test]
fn an_upload_that_was_killed_is_cleared_from_an_sftp_server() {
    let server = Sshd::start();
    let respaldo = Respaldo::new(&format!(
        "{HEAD}[destinations.offsite]\nurl = \"sftp://{}@127.0.0.1:{}/~/backups/\"\nhost_key = {}\n\
         private_key_file = \"{}\"\nbandwidth = \"100kB/s\"\n[jobs.media]\nretries = 0\n\
         compression = \"none\"\nsource = {{ files = \"@DIR@/media\" }}\n",
        server.user,
        server.port,
        text(&server.host_key()),
        server.login().display()
    ));
    respaldo.write("media/a", "a");
    std::fs::write(respaldo.path("media/noise"), noise(20_000_000)).unwrap();
    let hidden = |folder: std::path::PathBuf| {
        let files = walkdir::WalkDir::new(folder).into_iter().filter_map(std::result::Result::ok);
        files
            .filter(|file| file.file_type().is_file())
            .map(|file| file.path().to_owned())
            .collect::<Vec<_>>()
    };
    // 200 s at that bandwidth: it is in its midst.
    let running = respaldo.start(&["backup", "media"]);
    let deadline = std::time::Instant::now() + DEADLINE;
    while hidden(server.home()).is_empty() {
        assert!(std::time::Instant::now() < deadline, "nothing is written");
        std::thread::yield_now();
    }
    running.signal(rustix::process::Signal::KILL);
    drop(running);
    let left = hidden(server.home());
    assert!(left.len() == 1 && left[0].to_str().unwrap().ends_with(".tmp"), "{left:?}");
    let status = respaldo.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["runs"][0]["state"], "interrupted", "{status}");
    assert_eq!(hidden(server.home()), [] as [std::path::PathBuf; 0]);
}

/// A media folder with a large file, backed up to `destination`, listed and verified there, restored
/// from there by the config and by the URL alone.
fn there_and_back(destination: &str, url: &str, environment: &[(&str, String)]) -> Output {
    let config = format!(
        "{HEAD}{destination}[jobs.media]\nretries = 0\ncompression = \"none\"\n\
         source = {{ files = \"@DIR@/media\" }}\n"
    );
    let respaldo = Respaldo::new(&config);
    respaldo.write("media/ñandú/a.txt", "hello");
    std::fs::write(respaldo.path("media/noise"), noise(20_000_000)).unwrap();
    let checked = respaldo.run(&["config", "check"]).expect(0);
    assert!(checked.stdout.contains("offsite ok: "), "{}", checked.stdout);
    let made = respaldo.run(&["backup", "media", "--json"]).expect(0);
    respaldo.run(&["verify", "media"]).expect(0);
    let shown = respaldo.run(&["config", "show"]).expect(0);
    assert!(!shown.all().contains("must not be shown"), "{}", shown.all());
    let to = respaldo.path("back");
    let to = to.to_str().unwrap();
    respaldo.run(&["restore", "media", "--to", to, "--yes"]).expect(0);
    assert_same(&respaldo.path("media"), Path::new(to));

    // On another machine, where nothing is but the URL and what lets one in.
    let bare = environment
        .iter()
        .fold(Respaldo::without_config(), |bare, (name, value)| bare.env(name, value.clone()));
    let listed = bare.run(&["list", "--from", url, "--json"]).expect(0);
    assert_eq!(listed.json().as_array().unwrap().len(), 1, "{}", listed.stdout);
    let to = bare.path("back");
    let to = to.to_str().unwrap();
    bare.run(&["restore", "media", "--from", url, "--to", to, "--yes", "--trust"]).expect(0);
    assert_same(&respaldo.path("media"), Path::new(to));
    // A second backup, and the first is pruned.
    respaldo.write_config(&format!("{config}keep = {{ offsite = {{ last = 1 }} }}\n"));
    respaldo.run(&["backup", "media"]).expect(0);
    let listed = respaldo.run(&["list", "media", "--json"]).expect(0);
    assert_eq!(listed.json().as_array().unwrap().len(), 1, "{}", listed.stdout);
    made
}

/// The restored folder lies in `to` under its own name.
fn assert_same(from: &Path, to: &Path) {
    let inside = to.join(from.file_name().unwrap());
    let to = if inside.exists() { inside } else { to.to_owned() };
    tool(Command::new("diff").arg("-r").arg(from).arg(to));
}

#[test]
fn a_backup_to_azure_and_back() {
    let server = Azurite::start();
    server.make_container("backups");
    let (endpoint, url) = (server.endpoint(), "az://backups/some/prefix/");
    // The endpoint is part of an emulator's address, and no variable names it.
    let destination = format!(
        "[destinations.offsite]\nurl = \"{url}\"\nendpoint = \"{endpoint}\"\n\
         account = \"{}\"\naccess_key = \"{}\"\n",
        server.account, server.key
    );
    let environment = [
        ("AZURE_STORAGE_ACCOUNT_NAME", server.account.to_owned()),
        ("AZURE_STORAGE_ACCOUNT_KEY", server.key.clone()),
        ("AZURE_STORAGE_BLOB_ENDPOINT", endpoint),
    ];
    there_and_back(&destination, url, &environment);
}

/// Against what stands in for it: the real service was never asked.
#[test]
fn a_backup_to_gcs_and_back() {
    let server = Gcs::start();
    let folder = temp_folder("gcs");
    let file = folder.path().join("key.json");
    let mut key: serde_json::Value = serde_json::from_str(&server.credentials()).unwrap();
    key["gcs_base_url"] = server.endpoint().into();
    std::fs::write(&file, key.to_string()).unwrap();
    let file = file.display().to_string();
    let url = "gs://backups/some/prefix/";
    let destination =
        format!("[destinations.offsite]\nurl = \"{url}\"\ncredentials_file = \"{file}\"\n");
    there_and_back(&destination, url, &[("GOOGLE_APPLICATION_CREDENTIALS", file)]);
    assert_eq!(server.open_uploads(), 0);
}

#[test]
fn a_backup_over_sftp_and_back() {
    let server = Sshd::start();
    let url = format!(
        "sftp://{}@127.0.0.1:{}{}/{}/",
        server.user,
        server.port,
        server.home().display(),
        encode("bäck ups")
    );
    let destination = format!(
        "[destinations.offsite]\nurl = \"{url}\"\nhost_key = {}\nprivate_key_file = \"{}\"\n",
        text(&server.host_key()),
        server.login().display()
    );
    let environment = [
        ("SFTP_HOST_KEY", server.host_key()),
        ("SFTP_PRIVATE_KEY_FILE", server.login().display().to_string()),
    ];
    there_and_back(&destination, &url, &environment);
    // It opens there with stock tools.
    let folder = server.home().join("bäck ups/media");
    let backup = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let backup = backup.filter(|path| path.is_dir()).max().unwrap();
    tool(Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(&backup));
    tool(Command::new("tar").args(["-tf", "media.tar"]).current_dir(&backup));
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
