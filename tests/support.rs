//! Real servers and the real program, for tests: each listens on a free loopback port, keeps its
//! files in a temporary folder, is stopped when dropped (and when the test process dies), and
//! panics with what is missing instead of skipping. Knows nothing of what is being proved.
#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods)]

pub mod azurite;
pub mod config;
pub mod disk;
pub mod distance;
pub mod gcs;
pub mod gpg;
pub mod guard;
pub mod hook;
pub mod http;
pub mod inbox;
pub mod mariadb;
pub mod moto;
pub mod postgres;
pub mod process;
pub mod program;
pub mod prometheus;
pub mod recovered;
pub mod s3;
pub mod scene;
pub mod serve;
pub mod shop;
pub mod slack;
pub mod smtp;
pub mod sshd;
pub mod stored;
pub mod tree;
pub mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// How long anything may take before a test fails. Generous: nothing waits for it that goes well.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// What scripts/test-servers.sh has made, or a panic that says so.
pub fn testbed(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".testbed").join(name);
    assert!(path.exists(), "{} is missing: run scripts/test-servers.sh", path.display());
    path
}

/// Waits until a server's state is as wanted, which it tells nobody of; panics at the deadline.
#[track_caller]
pub fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A loopback port that is free, and stays so until it is listened to, or again after a server was stopped:
/// no other test gets it, and the kernel gives none of these to a client or to whoever asks for any.
pub fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    /// The last one is below what the kernel gives away (`net.ipv4.ip_local_port_range`).
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two processes begin at different places.
    let start = u64::from(std::process::id()) * 499;
    let mut ports = std::iter::repeat_with(|| {
        let number = start + u64::from(NEXT.fetch_add(1, Ordering::Relaxed));
        FIRST + u16::try_from(number % u64::from(COUNT)).unwrap()
    });
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// By its whole path: of a program that is looked for, the standard library makes the child by copying this whole
/// process, some thousand times in a run.
pub const SETPRIV: &str = "/usr/bin/setpriv";

/// A temporary folder that other users may look into, but not write.
pub fn temp_folder(what: &str) -> tempfile::TempDir {
    temp_folder_in(&std::env::temp_dir(), what)
}

/// The same in another place.
pub fn temp_folder_in(place: &std::path::Path, what: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let prefix = format!("respaldo-{what}-");
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(place).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// Copies a program that is then run. Another process does it: while this one had the copy open
/// for writing, a child of any other test could inherit that, and running it would be refused
/// (`ETXTBSY`, "Text file busy").
pub fn copy_program(from: &Path, to: &Path) {
    tool(std::process::Command::new("install").args(["-m", "0755", "--"]).args([from, to]));
}

/// Runs a tool to its end; panics with its words when it is missing or fails.
pub fn tool(command: &mut std::process::Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|error| {
        panic!("{name} could not be started ({error}): run scripts/test-servers.sh")
    });
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed ({}): {out}{err}", output.status);
    out.into_owned()
}
