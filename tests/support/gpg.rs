//! A person with an OpenPGP key, made and used by stock gpg.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{temp_folder, tool};

pub struct Gpg {
    home: tempfile::TempDir,
    address: &'static str,
}

impl Gpg {
    pub fn of(address: &'static str) -> Self {
        let home = temp_folder("gpg");
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let gpg = Self { home, address };
        tool(gpg.command().args([
            "--quick-gen-key",
            address,
            "future-default",
            "default",
            "never",
        ]));
        gpg
    }

    fn command(&self) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback"])
            .args(["--passphrase", "", "--trust-model", "always"])
            .env("GNUPGHOME", self.home.path());
        gpg
    }

    pub fn public_key(&self) -> String {
        tool(self.command().args(["--armor", "--export", self.address]))
    }

    pub fn private_key(&self) -> String {
        tool(self.command().args(["--armor", "--export-secret-keys", self.address]))
    }

    /// What is in an encrypted file.
    pub fn decrypt(&self, file: &Path) -> Vec<u8> {
        let output = self.command().arg("--decrypt").arg(file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpg: {said}");
        output.stdout
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        // The agent that gpg started for this folder alone.
        let mut end = Command::new("gpgconf");
        end.args(["--kill", "all"]).env("GNUPGHOME", self.home.path());
        drop(end.output());
    }
}
