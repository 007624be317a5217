//! A mail server (aiosmtpd) as a process, with TLS and a login where asked for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::guard::Guard;
use super::{temp_folder, testbed, tool};

/// How the server protects its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    Plain,
    StartTls,
    Implicit,
}

/// A message as it arrived; an address that starts with `refused` is answered with 550.
#[derive(Debug, Clone, Deserialize)]
pub struct Mail {
    /// The envelope's, not the header's.
    pub from: String,
    pub to: Vec<String>,
    pub subject: String,
    pub text: String,
    pub html: String,
    /// All of it, headers first.
    pub raw: String,
}

pub struct Smtp {
    pub port: u16,
    /// The certificate's name.
    pub host: &'static str,
    pub user: &'static str,
    pub password: &'static str,
    folder: PathBuf,
    guard: Guard,
}

impl Smtp {
    /// `login`: whether mail is taken only after [`Smtp::user`] has logged in.
    pub fn start(protection: Protection, login: bool) -> Self {
        let folder = temp_folder("smtp").keep();
        let (user, password) = ("respaldo", "smtp-password-that-must-not-be-shown");
        let mode = match protection {
            Protection::Plain => "plain",
            Protection::StartTls => "starttls",
            Protection::Implicit => "implicit",
        };
        make_certificates(&folder);
        let python = testbed("venv/bin/python");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/smtp_server.py");
        let login = if login { [user, password] } else { ["", ""] };
        let command = [
            python.as_os_str(),
            OsStr::new("-u"),
            OsStr::new(script),
            OsStr::new(mode),
            folder.as_os_str(),
            OsStr::new(login[0]),
            OsStr::new(login[1]),
        ];
        let guard = Guard::run_in("KILL", &folder, &command);
        let port = guard.wait_for_line("port ").parse().unwrap();
        Self { port, host: "localhost", user, password, folder, guard }
    }

    /// The certificate to trust.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    pub fn messages(&self) -> Vec<Mail> {
        read(&self.guard.lines.all())
    }

    pub fn wait_for(&self, count: usize) -> Vec<Mail> {
        self.guard.lines.wait_until(&format!("{count} mails"), |lines| {
            let mails = read(lines);
            (mails.len() >= count).then_some(mails)
        })
    }
}

fn read(lines: &[String]) -> Vec<Mail> {
    let mails = lines.iter().filter_map(|line| line.strip_prefix("mail "));
    mails.map(|json| serde_json::from_str(json).unwrap()).collect()
}

/// An authority and a certificate of it: one that signs itself is refused as a server's. Neither ends so
/// soon that an alert would say it.
fn make_certificates(folder: &Path) {
    let request = |name: &str, more: &[&str]| {
        let config = format!(
            "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN={name}\n\
             [ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n\
             [server]\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n\
             subjectAltName=DNS:localhost,IP:127.0.0.1\n"
        );
        let file = folder.join(format!("{name}.cnf"));
        std::fs::write(&file, config).unwrap();
        tool(
            Command::new("openssl")
                .current_dir(folder)
                .args(["req", "-x509", "-nodes", "-days", "90", "-newkey", "ec"])
                .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-extensions", name])
                .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
                .args(more)
                .arg("-config")
                .arg(&file),
        );
    };
    request("ca", &[]);
    request("server", &["-CA", "ca.pem", "-CAkey", "ca.key"]);
}
