//! Pieces of a config file: what a test writes down of its servers and databases.

use std::process::Command;

use super::gpg::Gpg;
use super::moto::Moto;
use super::postgres::Database;
use super::program::Respaldo;
use super::s3::S3;
use super::{temp_folder, tool};

/// The start of every config: its own data folder and port.
pub const HEAD: &str = "data_dir = \"@DIR@/data\"\n[server]\nlisten = \"127.0.0.1:@PORT@\"\n";

/// `[destinations.local]` in the test's own folder.
pub const LOCAL: &str = "[destinations.local]\nurl = \"file://@DIR@/backups\"\n";

/// `[destinations.NAME]` on the S3 server inside the test, below `prefix`.
pub fn s3(name: &str, server: &S3, prefix: &str) -> String {
    format!(
        "[destinations.{name}]\nurl = \"s3://{}/{prefix}/\"\nendpoint = \"{}\"\nregion = \"{}\"\n\
         access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
        server.bucket,
        server.endpoint(),
        server.region,
        server.access_key,
        server.secret_key
    )
}

/// `[destinations.NAME]` on moto.
pub fn moto(name: &str, server: &Moto, bucket: &str, prefix: &str) -> String {
    format!(
        "[destinations.{name}]\nurl = \"s3://{bucket}/{prefix}/\"\nendpoint = \"{}\"\n\
         region = \"us-east-1\"\naccess_key_id = \"test\"\nsecret_access_key = \"test\"\n",
        server.endpoint()
    )
}

/// A job's `source` of one database; `more` is further keys of it.
pub fn postgres(database: &Database, more: &str) -> String {
    let url = with_name(&database.url(), &database.name, &database.name);
    let (url, password) = (text(&url), text(database.password()));
    format!("source = {{ postgres = {url}, password = {password}{more} }}\n")
}

/// A database's URL with `new` in place of its name, encoded as a URL wants it.
pub fn with_name(url: &str, name: &str, new: &str) -> String {
    let base = url.strip_suffix(name).unwrap();
    format!("{base}{}", encode(new))
}

/// Percent-encoding, of everything that is not plain.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            plain if plain.is_ascii_alphanumeric() || plain == b'-' || plain == b'_' => {
                char::from(plain).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// A TOML string.
pub fn text(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// A machine with a config as it is shipped, and with every secret that it names, each of a kind that it takes;
/// those that are only passwords are `hunter2`.
pub fn machine(config: &str) -> Respaldo {
    let secrets = secrets_of(config);
    let machine = Respaldo::new(&config.replace(secrets, "@DIR@/secrets/"));
    for rest in config.split(secrets).skip(1) {
        // In a comment no name may follow.
        let Some((name, _)) = rest.split_once('"').filter(|(name, _)| !name.contains(' ')) else {
            continue;
        };
        let secret = match name {
            key if key.ends_with(".asc") => Gpg::of("hunter2@example.com").public_key(),
            key if key.ends_with("_key") && config.contains("private_key_file") => ssh_key(),
            webhook if webhook.contains("slack") => "https://hooks.example.com/hunter2".to_owned(),
            _ => "hunter2".to_owned(),
        };
        machine.write(&format!("secrets/{name}"), &secret);
    }
    machine
}

/// Where a shipped config has its secrets: in a container, or on a host that starts again.
pub fn secrets_of(config: &str) -> &'static str {
    match config.contains("/etc/respaldo/secrets/") {
        true => "/etc/respaldo/secrets/",
        false => "/run/secrets/",
    }
}

fn ssh_key() -> String {
    let folder = temp_folder("key");
    let file = folder.path().join("key");
    tool(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file));
    std::fs::read_to_string(file).unwrap()
}
