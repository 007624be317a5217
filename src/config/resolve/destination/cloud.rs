//! Azure and GCS: an account and one secret, or the machine's own. Knows the variables of their own
//! tools.

use std::path::PathBuf;

use super::{Vessel, endpoint, secret_or_ambient};
use crate::config::file::FileDestination;
use crate::config::resolve::Desk;
use crate::destination::{AzureOptions, GcsOptions};
use crate::fault::Result;
use crate::secret::Secret;

/// Access tiers that a new blob can have.
const TIERS: [&str; 4] = ["Hot", "Cool", "Cold", "Archive"];
const CLASSES: [&str; 4] = ["STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"];

pub(super) fn azure(
    desk: &mut Desk<'_>,
    name: &str,
    written: FileDestination,
    vessel: Vessel,
) -> Result<AzureOptions> {
    let key = |last: &str| format!("destinations.{name}.{last}");
    let ambient = desk.ambient(&["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"])?;
    let account = written.account.or(ambient.map(|found| found.value)).ok_or_else(|| {
        desk.refuse(&key("account"), "it is missing: whose container is it?")
            .hint("name the storage account, or set AZURE_STORAGE_ACCOUNT_NAME")
    })?;
    if account.is_empty() || !account.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    {
        return Err(desk
            .wrong(&key("account"), &account, "it has lower-case letters and digits only")
            .hint("write the storage account's name alone, without its address"));
    }
    one_of(desk, &key("storage_class"), written.storage_class.as_deref(), &TIERS)?;
    if written.storage_class.as_deref() == Some("Archive") {
        let key = key("storage_class");
        desk.warnings.push(format!(
            "{key} is Archive: such objects take hours to thaw, and until then neither restore nor \
             verify can read them"
        ));
    }
    let key_key = key("access_key");
    let given = written.access_key.is_some() || written.access_key_file.is_some();
    let token_given = written.sas_token.is_some() || written.sas_token_file.is_some();
    if given && token_given {
        return Err(desk
            .refuse(&key_key, "sas_token is given as well")
            .hint("remove one of the two; a shared access signature can be allowed less"));
    }
    // What is in the config counts, and not the other one that is in the environment.
    let names: &[&str] = match token_given {
        true => &[],
        false => &["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"],
    };
    let access_key =
        secret_or_ambient(desk, &key_key, written.access_key, written.access_key_file, names)?;
    if access_key.as_ref().is_some_and(|key| !is_base64(key)) {
        return Err(desk
            .refuse(&key_key, "it is no access key of a storage account: those are base64")
            .hint("copy it from the account's \"Access keys\", all of it"));
    }
    let names: &[&str] = if access_key.is_some() { &[] } else { &["AZURE_STORAGE_SAS_TOKEN"] };
    let sas_token = secret_or_ambient(
        desk,
        &key("sas_token"),
        written.sas_token,
        written.sas_token_file,
        names,
    )?;
    if sas_token.as_ref().is_some_and(|token| !token.expose().contains("sig=")) {
        return Err(desk
            .refuse(&key("sas_token"), "it is no shared access signature: those have a sig=")
            .hint("copy what follows the ? of the signed address"));
    }
    let ambient = desk.ambient(&["AZURE_STORAGE_BLOB_ENDPOINT"])?;
    let given = match (written.endpoint, ambient) {
        (Some(url), _) => Some((key("endpoint"), url)),
        (None, found) => found.map(|found| (found.variable, found.value)),
    };
    Ok(AzureOptions {
        account,
        container: vessel.name,
        prefix: vessel.prefix,
        endpoint: given.map(|(key, url)| endpoint(desk, &key, url)).transpose()?,
        access_key,
        sas_token,
        storage_class: written.storage_class,
        append_only: written.append_only.unwrap_or(false),
    })
}

pub(super) fn gcs(
    desk: &mut Desk<'_>,
    name: &str,
    written: FileDestination,
    vessel: Vessel,
) -> Result<GcsOptions> {
    let key = |last: &str| format!("destinations.{name}.{last}");
    one_of(desk, &key("storage_class"), written.storage_class.as_deref(), &CLASSES)?;
    let mut file = written.credentials_file;
    if file.is_none() && written.credentials.is_none() {
        // Google's own variable names the file and not its content.
        let named = desk.variables.get("GOOGLE_APPLICATION_CREDENTIALS");
        file = named.filter(|path| !path.is_empty()).map(PathBuf::from);
    }
    let credentials = desk.secret(&key("credentials"), written.credentials, file)?;
    if credentials.as_ref().is_some_and(|key| !is_service_account(key)) {
        return Err(desk
            .refuse(&key("credentials"), "it is no service account's key")
            .hint("make one in the console (IAM, service accounts, keys), as JSON"));
    }
    let url = written.endpoint;
    Ok(GcsOptions {
        bucket: vessel.name,
        prefix: vessel.prefix,
        endpoint: url.map(|url| endpoint(desk, &key("endpoint"), url)).transpose()?,
        credentials,
        storage_class: written.storage_class,
        append_only: written.append_only.unwrap_or(false),
    })
}

fn one_of(desk: &Desk<'_>, key: &str, word: Option<&str>, known: &[&str]) -> Result<()> {
    match word {
        Some(word) if !known.contains(&word) => {
            let meant = crate::config::did_you_mean(word, known.iter().copied());
            Err(desk
                .wrong(key, word, format!("there is no such class{meant}"))
                .hint(format!("it is one of {}", known.join(", "))))
        }
        _ => Ok(()),
    }
}

fn is_base64(key: &Secret) -> bool {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.decode(key.expose()).is_ok_and(|bytes| !bytes.is_empty())
}

fn is_service_account(key: &Secret) -> bool {
    let parsed: Option<serde_json::Value> = serde_json::from_str(key.expose()).ok();
    parsed.is_some_and(|json| json["private_key"].is_string() && json["client_email"].is_string())
}
