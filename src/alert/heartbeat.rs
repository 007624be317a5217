//! A dead man's switch: a service that is pinged when a backup begins and ends, and that itself
//! raises the alarm when no ping comes. Knows the two ways in which such services are pinged; must
//! not let a ping's address, which is a secret, into any error.

use super::{Notice, http};
use crate::fault::Result;
use crate::model::EventKind;
use crate::secret::Secret;

#[derive(Debug, Clone)]
pub struct Heartbeat {
    pub pings: Pings,
}

#[derive(Debug, Clone)]
pub enum Pings {
    /// As healthchecks.io: `URL/start`, `URL`, `URL/fail`, posted with a short text.
    Base(Secret),
    /// An address for each, which is only asked for; what has none is not pinged.
    Each { start: Option<Secret>, success: Option<Secret>, fail: Option<Secret> },
}

impl Heartbeat {
    pub(super) async fn send(&self, notice: &Notice) -> Result<()> {
        let client = http::client()?;
        let (url, request) = match &self.pings {
            Pings::Base(base) => {
                let base = base.expose().trim_end_matches('/');
                let url = match notice.kind {
                    EventKind::Started => format!("{base}/start"),
                    EventKind::Succeeded | EventKind::Test => base.to_owned(),
                    _ => format!("{base}/fail"),
                };
                let request = client.post(&url).body(notice.text());
                (url, request)
            }
            Pings::Each { start, success, fail } => {
                let url = match notice.kind {
                    EventKind::Started => start,
                    EventKind::Succeeded | EventKind::Test => success,
                    _ => fail,
                };
                let Some(url) = url.as_ref().map(|url| url.expose().to_owned()) else {
                    return Ok(());
                };
                let request = client.get(&url);
                (url, request)
            }
        };
        let response = request.send().await.map_err(|error| {
            let whole = "its URL must be a whole one: https://hc-ping.com/UUID";
            http::unsent(error, "ping the heartbeat", whole, &http::host(&url))
        })?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(http::refused(status.as_u16(), "the heartbeat")),
        }
    }
}
