//! The proof of an encrypted backup: what its manifest must not say, encrypted beside it, and put
//! back for whoever has a key.

use bytes::Bytes;

use super::{Found, Job, Site};
use crate::destination::read_small;
use crate::fault::{Context, Fault, FaultKind, Result};
use crate::model::proof::MAX_PROOF_BYTES;
use crate::model::{Artifact, Belongings, Manifest, Proof, Volume};
use crate::pipeline::{Identities, sha256};

/// A stored proof larger than this is not one.
const MAX_STORED_BYTES: u64 = 16 << 20;

/// Takes out of the manifest what must not be read by everybody: of an encrypted backup more than that. Returns the
/// files that hold it instead: the proof, and the config, for it too may speak of tables.
pub(super) fn private_files(
    site: &Site,
    job: &Job,
    manifest: &mut Manifest,
) -> Result<Vec<(String, Bytes)>> {
    let Some(seal) = &job.encoding.seal else {
        let open = manifest.sources.iter_mut().filter_map(|facts| facts.belongings.as_mut());
        open.for_each(Belongings::withhold_secrets);
        return Ok(vec![("config.toml".to_owned(), site.config.clone().into())]);
    };
    let proof = serde_json::to_vec(&Proof::seal(manifest)?).context("write the proof")?;
    let proof = seal.pack(&proof)?;
    let name = format!("proof.json.zst{}", seal.suffix());
    manifest.proof =
        Some(Volume { name: name.clone(), bytes: proof.len() as u64, sha256: sha256(&proof) });
    let config = seal.wrap(site.config.as_bytes())?;
    Ok(vec![(name, proof.into()), (format!("config.toml{}", seal.suffix()), config.into())])
}

/// What became of the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is in the manifest, or never was out of it.
    Whole,
    /// What was given does not open it.
    Shut,
}

/// Checks the stored proof, and puts it into the manifest where the identities open it.
pub(super) async fn open(found: &mut Found, identities: &Identities) -> Result<Opened> {
    let Some(volume) = found.manifest.proof.clone() else { return Ok(Opened::Whole) };
    let key = found.folder().child(&volume.name)?;
    let name = &volume.name;
    let stored = read_small(found.destination.as_ref(), &key, MAX_STORED_BYTES).await?;
    let stored = stored.ok_or_else(|| Fault::permanent(format!("{name} is missing")))?;
    if stored.len() as u64 != volume.bytes || sha256(&stored) != volume.sha256 {
        return Err(Fault::permanent(format!("{name} is damaged: it is not what was written")));
    }
    if identities.is_empty() {
        return Ok(Opened::Shut);
    }
    let cipher = found.manifest.proof_cipher();
    let cipher = cipher.ok_or_else(|| Fault::permanent(format!("{name} has no known ending")))?;
    let identities = identities.clone();
    let unpacking =
        tokio::task::spawn_blocking(move || identities.unpack(cipher, &stored, MAX_PROOF_BYTES));
    match unpacking.await.context("decrypt")? {
        Ok(bytes) => {
            let proof = Proof::parse(&bytes)?;
            proof.unseal(&mut found.manifest)?;
            Ok(Opened::Whole)
        }
        // Its bytes are right, so it is the key that is not.
        Err(fault) if fault.kind() == FaultKind::Usage => Ok(Opened::Shut),
        Err(fault) => Err(fault).context(format!("open {name}")),
    }
}

/// Whether an artifact can be looked into.
pub(super) fn opens(artifact: &Artifact, identities: &Identities) -> bool {
    artifact.encryption.as_ref().is_none_or(|encryption| identities.fit(encryption))
}

/// What it means that the proof stays shut: a word where what was given opens other parts of the
/// backup, as a tenant's own key does, and else a refusal.
pub(super) fn stays_shut(manifest: &Manifest, identities: &Identities) -> Result<String> {
    let known = manifest.artifacts.iter().filter_map(|artifact| artifact.encryption.as_ref());
    // A passphrase that does not open the proof opens nothing.
    if known.clone().any(|to| !to.recipients.is_empty() && identities.fit(to)) {
        return Ok("the proof is encrypted to others: plain digests are not compared".into());
    }
    let readers = manifest.readers().join(" and ");
    let why = match identities.is_empty() {
        true => format!("the backup is encrypted {readers}, and no identity is given"),
        false => format!("the identity that is given opens nothing: it is encrypted {readers}"),
    };
    let passphrase = known.clone().any(|to| to.recipients.is_empty());
    Err(Fault::usage(why).hint(missing(passphrase)))
}

/// Refuses to begin without a key for each of `artifacts`.
pub(super) fn check<'a>(
    mut artifacts: impl Iterator<Item = &'a Artifact>,
    identities: &Identities,
) -> Result<()> {
    let Some(artifact) = artifacts.find(|artifact| !opens(artifact, identities)) else {
        return Ok(());
    };
    let to = artifact.encryption.as_ref();
    let reader = to.map(|to| to.reader()).unwrap_or_default();
    let why = format!("{} is encrypted {reader}: what is given does not open it", artifact.name);
    Err(Fault::usage(why).hint(missing(to.is_some_and(|to| to.recipients.is_empty()))))
}

/// What to add.
pub(super) fn missing(passphrase: bool) -> &'static str {
    if passphrase {
        "add --passphrase-file FILE: a file that holds the passphrase"
    } else {
        "add --identity FILE: the file of the private key, which is not kept on this machine"
    }
}
