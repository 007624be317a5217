//! Azurite, Microsoft's own emulator of Azure Blob Storage, as a process. It checks signatures.

use std::ffi::OsStr;
use std::path::PathBuf;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::guard::Guard;
use super::http::{self, Reply};
use super::temp_folder;

pub struct Azurite {
    pub port: u16,
    pub account: &'static str,
    pub key: String,
    _folder: tempfile::TempDir,
    _guard: Guard,
}

impl Azurite {
    pub fn start() -> Self {
        let folder = temp_folder("azurite");
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".testbed/azurite/node_modules");
        let server = root.join("azurite/dist/src/blob/main.js");
        assert!(server.exists(), "{} is missing: run scripts/test-servers.sh", server.display());
        let account = "keeper";
        let key = BASE64_STANDARD.encode("an account's key that must not be shown");
        let accounts = format!("AZURITE_ACCOUNTS={account}:{key}");
        let command = ["env", accounts.as_str(), "node"].map(OsStr::new);
        let arguments =
            ["--blobHost", "127.0.0.1", "--blobPort", "0", "--skipApiVersionCheck", "--location"];
        let arguments = arguments.map(OsStr::new);
        let all = [&command[..], &[server.as_os_str()], &arguments, &[folder.path().as_os_str()]];
        let guard = Guard::run(&all.concat());
        let rest = guard.wait_for_line("listens on http://127.0.0.1:");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Self { port: digits.parse().unwrap(), account, key, _folder: folder, _guard: guard }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{}", self.port, self.account)
    }

    pub fn make_container(&self, name: &str) {
        let reply = self.ask("PUT", name, &[("restype", "container")]);
        assert_eq!(reply.status, 201, "make container {name}: {}", reply.body);
    }

    /// What `HEAD` says of a blob, such as its tier.
    pub fn head(&self, container: &str, key: &str) -> Reply {
        self.ask("HEAD", &format!("{container}/{key}"), &[])
    }

    /// Any request without a body, signed with the account's key.
    pub fn ask(&self, method: &str, path: &str, query: &[(&str, &str)]) -> Reply {
        let version = "2021-12-02";
        let date = jiff::fmt::rfc2822::DateTimePrinter::new();
        let date = date.timestamp_to_rfc9110_string(&jiff::Timestamp::now()).unwrap();
        let headers = format!("x-ms-date:{date}\nx-ms-version:{version}\n");
        let mut resource = format!("/{0}/{0}/{path}", self.account);
        for (name, value) in query {
            resource += &format!("\n{name}:{value}");
        }
        // Eleven standard headers, all of them empty.
        let text = format!("{method}\n{}{headers}{resource}", "\n".repeat(11));
        let key = BASE64_STANDARD.decode(&self.key).unwrap();
        let signed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes());
        let login = format!("SharedKey {}:{}", self.account, BASE64_STANDARD.encode(signed));
        let query: Vec<String> = query.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let target = format!("/{}/{path}?{}", self.account, query.join("&"));
        let headers =
            [("Authorization", login.as_str()), ("x-ms-date", &date), ("x-ms-version", version)];
        http::request(self.port, method, &target, &headers, "").unwrap()
    }
}
