//! Tokens for HTTP: made of chance, shown once, known by their digest from then on.

use aws_lc_rs::{constant_time, digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};

use super::Site;
use crate::fault::{Context, Fault, Result};
use crate::model::{Action, Actor, Deed, JobName, Role};
use crate::secret::Secret;

/// By these letters people and scanners of repositories know what it is.
const PREFIX: &str = "rsp_";

/// A token that was just made.
pub struct NewToken {
    /// Nobody can find it out again.
    pub token: Secret,
    pub expires_at: Option<Timestamp>,
}

/// Makes a token of 256 random bits.
pub async fn make_token(
    site: &Site,
    actor: &Actor,
    name: &JobName,
    role: Role,
    lasts: Option<SignedDuration>,
) -> Result<NewToken> {
    let now = site.clock.now();
    let expires_at = match lasts {
        Some(lasts) => Some(now.checked_add(lasts).context("find the token's last day")?),
        None => None,
    };
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| Fault::permanent("no random numbers are to be had"))?;
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let digest = token_digest(&token);
    let deed = Deed::new(Action::TokenCreate).to(name).saying(role.as_str());
    let work = site.catalog.add_token(name, role, &digest, expires_at, now);
    site.audited(actor, deed, work).await?;
    Ok(NewToken { token: Secret::new(token), expires_at })
}

/// Ends a token at once.
pub async fn revoke_token(site: &Site, actor: &Actor, name: &JobName) -> Result<()> {
    let work = async {
        if site.catalog.revoke_token(name, site.clock.now()).await? {
            return Ok(());
        }
        Err(Fault::usage(format!("there is no token '{name}'")).hint(
            "`respaldo token list` shows them; those of the config end when they are taken out of it",
        ))
    };
    site.audited(actor, Deed::new(Action::TokenRevoke).to(name), work).await
}

/// What is remembered of a token: SHA-256. It has too much chance in it to need more.
pub fn token_digest(token: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, token.as_bytes()).as_ref().to_vec()
}

/// In a time that says nothing about where they differ.
pub fn is_same_digest(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}
