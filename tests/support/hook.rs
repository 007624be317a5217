//! A listener that takes any request: webhooks and heartbeats. It answers what it is told to, and
//! keeps what arrived.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::Value;

use super::inbox::Inbox;
use super::serve::Background;

pub struct Hook {
    /// The part of each address that must never be shown.
    pub token: &'static str,
    background: Background,
    room: Arc<Room>,
}

/// A request as it arrived, and what it was answered.
#[derive(Debug, Clone)]
pub struct Taken {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub status: u16,
}

impl Taken {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

struct Room {
    status: AtomicU16,
    taken: Inbox<Taken>,
}

impl Hook {
    pub fn start() -> Self {
        let room = Arc::new(Room { status: AtomicU16::new(200), taken: Inbox::default() });
        let shared = Arc::clone(&room);
        let background = Background::serve(move |listener| async move {
            let router = Router::new().fallback(take).with_state(shared);
            axum::serve(listener, router).await.unwrap();
        });
        Self { token: "hook-token-that-must-not-be-shown", background, room }
    }

    /// A secret.
    pub fn url(&self) -> String {
        format!("http://{}/{}", self.background.address, self.token)
    }

    /// What to answer from now on.
    pub fn answer(&self, status: u16) {
        self.room.status.store(status, Ordering::SeqCst);
    }

    /// Every request so far, whatever it was answered.
    pub fn taken(&self) -> Vec<Taken> {
        self.room.taken.all()
    }

    pub fn wait_for(&self, count: usize) -> Vec<Taken> {
        self.room.taken.wait_for("requests", count)
    }

    /// Waits until something that `is` so was taken with 200.
    pub fn wait_until(&self, what: &str, is: impl Fn(&Taken) -> bool) -> Taken {
        self.room.taken.wait_until(what, |all| {
            all.iter().find(|taken| taken.status == 200 && is(taken)).cloned()
        })
    }

    /// What of their paths is no secret, in the order in which they came.
    pub fn pings(&self) -> Vec<String> {
        let taken = self.taken().into_iter();
        taken.map(|taken| taken.path.replace(&format!("/{}", self.token), "")).collect()
    }
}

async fn take(
    State(room): State<Arc<Room>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let status = room.status.load(Ordering::SeqCst);
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())));
    room.taken.push(Taken {
        method: method.to_string(),
        path: uri.to_string(),
        headers: headers.collect(),
        body: text(&body),
        status,
    });
    StatusCode::from_u16(status).unwrap()
}
