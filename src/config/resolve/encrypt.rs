//! Encryption: public keys that are read and tried here, so that a run does not fail of them at
//! night. Knows how keys are given; must never meet a private one.

use std::path::PathBuf;

use super::Desk;
use crate::config::file::{FileEncrypt, FileRecipients};
use crate::config::settings::{Encrypt, Recipients, Written};
use crate::fault::{Fault, Result};
use crate::pipeline::Seal;

/// A key ring that is larger is no list of recipients.
const MOST_KEY_BYTES: u64 = 1 << 20;
/// Each makes every artifact a little longer, and there is a limit to what its head may be.
const MOST_KEYS: usize = 64;

pub(super) fn resolve(desk: &mut Desk<'_>, key: &str, written: FileEncrypt) -> Result<Encrypt> {
    let FileEncrypt { age, openpgp, schemas, .. } = written;
    let passphrase = desk.secret(
        &format!("{key}.age_passphrase"),
        written.age_passphrase,
        written.age_passphrase_file,
    )?;
    let with_age = passphrase.map(|secret| (Seal::age_passphrase(secret), Written::AgePassphrase));
    let passphrase = desk.secret(
        &format!("{key}.openpgp_passphrase"),
        written.openpgp_passphrase,
        written.openpgp_passphrase_file,
    )?;
    let with_openpgp =
        passphrase.map(|secret| (Seal::openpgp_passphrase(secret), Written::OpenpgpPassphrase));
    let given = [
        ("age", age.is_some()),
        ("openpgp", openpgp.is_some()),
        ("age_passphrase", with_age.is_some()),
        ("openpgp_passphrase", with_openpgp.is_some()),
    ];
    only_one(desk, key, &given)?;
    let to = match with_age.or(with_openpgp) {
        Some((seal, written)) => Recipients { seal, written },
        None => recipients(desk, key, FileRecipients { age, openpgp })?,
    };
    let schemas = schemas.into_iter().map(|(schema, written)| {
        let key = format!("{key}.schemas.{schema}");
        let given = [("age", written.age.is_some()), ("openpgp", written.openpgp.is_some())];
        only_one(desk, &key, &given)?;
        Ok((schema, recipients(desk, &key, written)?))
    });
    Ok(Encrypt { schemas: schemas.collect::<Result<_>>()?, to })
}

fn only_one(desk: &Desk<'_>, key: &str, given: &[(&str, bool)]) -> Result<()> {
    let there: Vec<&str> = given.iter().filter(|(_, there)| *there).map(|(n, _)| *n).collect();
    if there.len() == 1 {
        return Ok(());
    }
    let names: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
    let why = match there.is_empty() {
        true => "it names no key to encrypt to".to_owned(),
        false => format!("{} are given, and a backup is encrypted in one way", there.join(" and ")),
    };
    Err(desk.refuse(key, why).hint(format!("give one of {}", names.join(", "))))
}

fn recipients(desk: &Desk<'_>, key: &str, written: FileRecipients) -> Result<Recipients> {
    if let Some(keys) = written.age {
        let key = format!("{key}.age");
        not_too_many(desk, &key, keys.len())?;
        let seal = Seal::age(&keys).map_err(|fault| refused(desk, &key, None, &fault))?;
        return Ok(Recipients {
            written: Written::Age(seal.encryption().recipients.clone()),
            seal,
        });
    }
    let key = format!("{key}.openpgp");
    let mut paths = Vec::new();
    let mut files = Vec::new();
    for path in written.openpgp.unwrap_or_default() {
        if path.contains("-----BEGIN PGP") {
            let why = "it holds a key itself, where the file of one is wanted";
            return Err(desk
                .refuse(&key, why)
                .hint("put the public key into a file and name that"));
        }
        let path = desk.absolute(&key, path)?;
        let file = read(&path).map_err(|error| {
            let why = format!("the file can't be read: {error}");
            desk.wrong(&key, &path.display().to_string(), why)
                .hint("write it with `gpg --armor --export YOU > FILE`, readable for respaldo")
        })?;
        // One by one, so that the error names its file.
        Seal::openpgp(std::slice::from_ref(&file), desk.now)
            .map_err(|fault| refused(desk, &key, Some(&path), &fault))?;
        files.push(file);
        paths.push(path);
    }
    let seal =
        Seal::openpgp(&files, desk.now).map_err(|fault| refused(desk, &key, None, &fault))?;
    not_too_many(desk, &key, seal.encryption().recipients.len())?;
    Ok(Recipients { seal, written: Written::Openpgp(paths) })
}

fn read(path: &PathBuf) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MOST_KEY_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_KEY_BYTES {
        return Err(std::io::Error::other("it is too large for a list of keys"));
    }
    Ok(bytes)
}

fn not_too_many(desk: &Desk<'_>, key: &str, count: usize) -> Result<()> {
    if count <= MOST_KEYS {
        return Ok(());
    }
    Err(desk
        .refuse(key, format!("it names {count} keys; {MOST_KEYS} is the most"))
        .hint("give several people one key"))
}

fn refused(desk: &Desk<'_>, key: &str, path: Option<&PathBuf>, fault: &Fault) -> Fault {
    let hint = fault.next_step().unwrap_or_default().to_owned();
    match path {
        Some(path) => desk.wrong(key, &path.display().to_string(), fault.chain()).hint(hint),
        None => desk.refuse(key, fault.chain()).hint(hint),
    }
}
