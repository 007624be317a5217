//! OpenSSH's server with accounts of its own: it runs where `/etc/passwd` and `/etc/shadow` are others,
//! so that nothing of the machine is changed. Needs root.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::guard::Guard;
use super::{free_port, temp_folder, tool};

pub struct Sshd {
    pub port: u16,
    pub user: &'static str,
    pub password: &'static str,
    folder: tempfile::TempDir,
    _guard: Guard,
}

/// Binds the account files over the machine's own, for this process and its children only.
const RUN: &str = r#"set -e
mkdir -p /run/sshd
for name in passwd shadow group; do mount --bind "$1/$name" "/etc/$name"; done
exec /usr/sbin/sshd -D -e -f "$1/sshd_config""#;

/// Nobody's numbers.
const UID: u32 = 65534;

impl Sshd {
    pub fn start() -> Self {
        Self::serving(None)
    }

    /// One whose account can write in `home` only, such as a small disk.
    pub fn serving(home: Option<&Path>) -> Self {
        assert!(
            Path::new("/usr/sbin/sshd").exists(),
            "openssh-server is missing: run scripts/test-servers.sh"
        );
        let folder = temp_folder("sshd");
        let at = |name: &str| folder.path().join(name);
        let home = home.map_or_else(|| at("home"), Path::to_owned);
        std::fs::create_dir_all(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(UID), Some(UID)).unwrap();
        let (user, password) = ("keeper", "sftp-password-that-must-not-be-shown");
        let hash = tool(Command::new("openssl").args(["passwd", "-6", password]));
        let shell = "/bin/sh";
        let home = home.to_str().unwrap();
        let accounts = format!(
            "root:x:0:0:root:/root:{shell}\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n\
             {user}:x:{UID}:{UID}::{home}:{shell}\n"
        );
        std::fs::write(at("passwd"), accounts).unwrap();
        std::fs::write(at("group"), format!("root:x:0:\n{user}:x:{UID}:\n")).unwrap();
        let shadow =
            format!("root:*:19000:0:99999:7:::\n{user}:{}:19000:0:99999:7:::\n", hash.trim());
        std::fs::write(at("shadow"), shadow).unwrap();
        for (kind, name) in [("ed25519", "host_ed25519"), ("rsa", "host_rsa"), ("ed25519", "login")]
        {
            keygen(&at(name), kind, "");
        }
        keygen(&at("locked"), "rsa", "the passphrase");
        let mut known = std::fs::read_to_string(at("login.pub")).unwrap();
        known += &std::fs::read_to_string(at("locked.pub")).unwrap();
        std::fs::write(at("authorized_keys"), known).unwrap();
        let port = free_port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {0}/host_ed25519\nHostKey {0}/host_rsa\n\
             PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication yes\nPrintMotd no\n\
             AuthorizedKeysFile {0}/authorized_keys\nSubsystem sftp internal-sftp\n\
             MaxStartups 100\nMaxAuthTries 10\n",
            folder.path().display()
        );
        std::fs::write(at("sshd_config"), config).unwrap();
        let command = ["unshare", "--mount", "sh", "-c", RUN, "sshd"].map(OsStr::new);
        let guard = Guard::run(&[&command[..], &[folder.path().as_os_str()]].concat());
        guard.wait_for_line("Server listening on 127.0.0.1");
        Self { port, user, password, folder, _guard: guard }
    }

    /// Where the account's files lie.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    /// `ssh-ed25519 AAAA...`, as it is pinned.
    pub fn host_key(&self) -> String {
        self.read("host_ed25519.pub").trim().to_owned()
    }

    pub fn rsa_host_key(&self) -> String {
        self.read("host_rsa.pub").trim().to_owned()
    }

    /// `SHA256:...` of the ed25519 host key, as OpenSSH's own tool prints it.
    pub fn fingerprint(&self) -> String {
        let said = tool(
            Command::new("ssh-keygen").arg("-lf").arg(self.folder.path().join("host_ed25519.pub")),
        );
        said.split(' ').nth(1).unwrap().to_owned()
    }

    /// The path of a private key that the account may use.
    pub fn login(&self) -> PathBuf {
        self.folder.path().join("login")
    }

    /// One that is encrypted with `the passphrase`.
    pub fn locked_login(&self) -> PathBuf {
        self.folder.path().join("locked")
    }
}

fn keygen(file: &Path, kind: &str, passphrase: &str) {
    let mut keygen = Command::new("ssh-keygen");
    // For RSA, which takes seconds to make in its usual length.
    keygen.args(["-q", "-t", kind, "-b", "2048", "-N", passphrase, "-C", "a test's", "-f"]);
    tool(keygen.arg(file));
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
}
