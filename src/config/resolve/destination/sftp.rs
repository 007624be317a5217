//! SFTP: who, where, by which key the server is known, and one secret.

use super::secret_or_ambient;
use crate::config::address;
use crate::config::file::FileDestination;
use crate::config::resolve::Desk;
use crate::destination::{SftpOptions, host_key, private_key};
use crate::fault::Result;

pub(super) fn resolve(
    desk: &mut Desk<'_>,
    name: &str,
    written: FileDestination,
) -> Result<SftpOptions> {
    let key = |last: &str| format!("destinations.{name}.{last}");
    let url = written.url;
    let example =
        "for example sftp://user@host:22/path/, or sftp://user@host/~/path/ below its home";
    let wrong = |desk: &Desk<'_>, why: &str| desk.wrong_url(&key("url"), &url, why).hint(example);
    let parsed = address::parse(&url).map_err(|why| wrong(desk, &why))?;
    let why = if parsed.password.is_some() {
        Some("a password doesn't belong into it: see password_file")
    } else if parsed.host.is_empty() {
        Some("it names no host")
    } else if parsed.user.is_none() {
        Some("it names no user")
    } else if !parsed.query.is_empty() {
        Some("it can't have a ?")
    } else if parsed.path.split('/').any(|part| part == "..") || parsed.path.contains('\0') {
        Some("its path can't have ..")
    } else if parsed.path.trim_matches('/').is_empty() {
        Some("it names no folder")
    } else {
        None
    };
    if let Some(why) = why {
        return Err(wrong(desk, why));
    }
    let path = parsed.path.trim_end_matches('/');
    let path = match path.strip_prefix("~/") {
        Some(below_home) => below_home.trim_start_matches('/').to_owned(),
        None if path == "~" => String::new(),
        None => format!("/{}", path.trim_start_matches('/')),
    };
    let ambient = desk.ambient(&["SFTP_HOST_KEY"])?;
    let ambient = ambient.map(|found| found.value.lines().map(str::to_owned).collect());
    let host_keys: Vec<String> = written.host_key.or(ambient).unwrap_or_default();
    for written in &host_keys {
        if let Err(why) = host_key(written) {
            return Err(desk.wrong(&key("host_key"), written, why).hint(
                "take the line of /etc/ssh/ssh_host_ed25519_key.pub on that machine; without one, \
                 `respaldo config check` says which key it sees",
            ));
        }
    }
    let given = written.password.is_some() || written.password_file.is_some();
    let key_given = written.private_key.is_some() || written.private_key_file.is_some();
    if given && key_given {
        return Err(desk
            .refuse(&key("password"), "private_key is given as well")
            .hint("remove one of the two; the key is the safer one"));
    }
    // What is in the config counts, and not the other one that is in the environment.
    let names: &[&str] = if given { &[] } else { &["SFTP_PRIVATE_KEY"] };
    let key_key = key("private_key");
    let file = written.private_key_file;
    let secret_key = secret_or_ambient(desk, &key_key, written.private_key, file, names)?;
    let phrase = (written.passphrase, written.passphrase_file);
    let phrase_given = phrase.0.is_some() || phrase.1.is_some();
    let names: &[&str] = if secret_key.is_some() { &["SFTP_PASSPHRASE"] } else { &[] };
    let passphrase = secret_or_ambient(desk, &key("passphrase"), phrase.0, phrase.1, names)?;
    let names: &[&str] = if secret_key.is_some() { &[] } else { &["SFTP_PASSWORD"] };
    let file = written.password_file;
    let password = secret_or_ambient(desk, &key("password"), written.password, file, names)?;
    match &secret_key {
        Some(secret) => {
            if let Err(why) = private_key(secret, passphrase.as_ref()) {
                return Err(desk
                    .refuse(&key_key, why)
                    .hint("`ssh-keygen -t ed25519 -f FILE` makes one; see passphrase_file too"));
            }
        }
        None if phrase_given => {
            return Err(desk
                .refuse(&key("passphrase"), "it belongs to a private_key, and there is none")
                .hint("add private_key_file, or remove it"));
        }
        None if password.is_none() => {
            return Err(desk
                .refuse(&key_key, "neither it nor password is given")
                .hint("add private_key_file or password_file"));
        }
        None => {}
    }
    Ok(SftpOptions {
        host: parsed.host,
        port: parsed.port.unwrap_or(22),
        user: parsed.user.unwrap_or_default(),
        path,
        host_keys,
        password,
        private_key: secret_key,
        passphrase,
    })
}
