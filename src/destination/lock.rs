//! Objects that their store will not let go: whether one is locked, and until when. By the store's own
//! clock, since that is the one that counts.

use std::time::Duration;

use jiff::Timestamp;
use object_store::path::Path;
use object_store::signer::Signer;
use reqwest::Method;

/// How long the store gets to answer; without an answer the delete itself will tell.
const ANSWER: Duration = Duration::from_secs(20);

/// Asks S3 whether an object is locked: a bucket with versions would take the delete, hide the object
/// behind a marker, and keep it all the same. `Some(None)` is a legal hold, which has no end.
pub(super) async fn held(signer: &dyn Signer, path: &Path) -> Option<Option<Timestamp>> {
    let url = signer.signed_url(Method::HEAD, path, ANSWER).await.ok()?;
    let client = reqwest::Client::builder().timeout(ANSWER).build().ok()?;
    let answer = client.head(url).send().await.ok()?;
    let header = |name: &str| answer.headers().get(name)?.to_str().ok();
    if header("x-amz-object-lock-legal-hold").is_some_and(|hold| hold == "ON") {
        return Some(None);
    }
    let until: Timestamp = header("x-amz-object-lock-retain-until-date")?.parse().ok()?;
    let now = jiff::fmt::rfc2822::parse(header("date")?).ok()?.timestamp();
    (until > now).then_some(Some(until))
}

/// The date in a refusal, as in "can't be deleted until 2025-11-24T00:00:00Z".
pub(super) fn date_in(text: &str) -> Option<Timestamp> {
    let after = text.split("until ").nth(1)?;
    let date = after.trim_start_matches(['\'', '"', '\\']);
    let end = date.find(|c: char| !c.is_ascii_alphanumeric() && !"-:.+".contains(c));
    date[..end.unwrap_or(date.len())].trim_end_matches('.').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_found_in_a_refusal() {
        let text = "Object 'a/b' is subject to bucket's retention policy and cannot be deleted or \
            overwritten until 2026-01-02T03:04:05.678901-08:00";
        let found = date_in(text).unwrap();
        assert_eq!(found.to_string(), "2026-01-02T11:04:05.678901Z");
        assert_eq!(date_in(&format!("{text}\" }}")), Some(found));
        assert_eq!(date_in("not until tomorrow"), None);
        assert_eq!(date_in("denied"), None);
    }
}
