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

enum Ping {
    Start,
    Success,
    Fail,
}

impl Ping {
    fn of(kind: EventKind) -> Self {
        match kind {
            EventKind::Started => Self::Start,
            EventKind::Succeeded | EventKind::Test => Self::Success,
            _ => Self::Fail,
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Start => "/start",
            Self::Success => "",
            Self::Fail => "/fail",
        }
    }
}

impl Heartbeat {
    /// Whether there is an address for it.
    pub(super) fn has(&self, kind: EventKind) -> bool {
        self.address(kind).is_some()
    }

    fn address(&self, kind: EventKind) -> Option<String> {
        let given = match (&self.pings, Ping::of(kind)) {
            (Pings::Base(base), ping) => {
                let base = base.expose().trim_end_matches('/');
                return Some(format!("{base}{}", ping.suffix()));
            }
            (Pings::Each { start, .. }, Ping::Start) => start,
            (Pings::Each { success, .. }, Ping::Success) => success,
            (Pings::Each { fail, .. }, Ping::Fail) => fail,
        };
        given.as_ref().map(|address| address.expose().to_owned())
    }

    pub(super) async fn send(&self, notice: &Notice) -> Result<()> {
        let Some(url) = self.address(notice.kind) else { return Ok(()) };
        let client = http::client()?;
        let request = match &self.pings {
            Pings::Base(_) => client.post(&url).body(notice.text()),
            Pings::Each { .. } => client.get(&url),
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
