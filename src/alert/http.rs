//! What every channel over HTTP shares: a client that goes nowhere else, and errors without the
//! address, which is a secret. Must not know what is posted.

use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;

use crate::fault::{Context, Fault, Result};

const CONNECT: Duration = Duration::from_secs(10);
const SEND: Duration = Duration::from_secs(30);

pub(super) fn client() -> Result<Client> {
    // A redirect would carry the message, and perhaps the token, to somebody else.
    Client::builder()
        .connect_timeout(CONNECT)
        .timeout(SEND)
        .redirect(Policy::none())
        .build()
        .context("prepare to post")
}

/// Why nothing was answered; `whole` is the hint for an address that is none.
pub(super) fn unsent(error: reqwest::Error, doing: &str, whole: &str, host: &str) -> Fault {
    let error = error.without_url();
    if error.is_builder() {
        return Fault::permanent(doing).cause(error).hint(whole);
    }
    Fault::transient(doing)
        .cause(error)
        .hint(format!("check that this machine or container may reach {host}"))
}

/// An answer that says no. What it says is not repeated: it may echo the address or a header.
pub(super) fn refused(status: u16, who: &str) -> Fault {
    let text = format!("{who} answered {status}");
    match status {
        408 | 425 | 429 | 500.. => Fault::transient(text).hint("it is busy; try again later"),
        401 | 403 => Fault::permanent(text).hint("check the token in its URL or headers"),
        404 | 410 => Fault::permanent(text).hint("check its URL: nothing is there"),
        300..=399 => Fault::permanent(text).hint("give the URL that it redirects to"),
        _ => Fault::permanent(text).hint("check its URL, method, headers and body"),
    }
}

/// The host of an address, which is all that may be shown of it.
pub(super) fn host(url: &str) -> String {
    let url = url::Url::parse(url).ok();
    url.as_ref().and_then(|url| url.host_str()).unwrap_or("its host").to_owned()
}
