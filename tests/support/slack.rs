//! A listener that takes Slack messages at an incoming webhook.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Json, Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::Value;

use super::inbox::Inbox;
use super::serve::Background;

pub struct Slack {
    /// The part of the address that must never be shown.
    pub token: &'static str,
    background: Background,
    room: Arc<Room>,
}

struct Room {
    token: &'static str,
    status: AtomicU16,
    attempts: AtomicUsize,
    taken: Inbox<Value>,
}

impl Slack {
    pub fn start() -> Self {
        let token = "webhook-token-that-must-not-be-shown";
        let (status, attempts) = (AtomicU16::new(200), AtomicUsize::new(0));
        let room = Arc::new(Room { token, status, attempts, taken: Inbox::default() });
        let shared = Arc::clone(&room);
        let background = Background::serve(move |listener| async move {
            let router = Router::new().route("/services/T0/B0/{token}", post(take));
            axum::serve(listener, router.with_state(shared)).await.unwrap();
        });
        Self { token, background, room }
    }

    /// The address to post to: a secret.
    pub fn webhook(&self) -> String {
        format!("http://{}/services/T0/B0/{}", self.background.address, self.token)
    }

    /// What to answer from now on: 200, or a fault.
    pub fn answer(&self, status: u16) {
        self.room.status.store(status, Ordering::SeqCst);
    }

    /// How often somebody posted, whatever the answer.
    pub fn attempts(&self) -> usize {
        self.room.attempts.load(Ordering::SeqCst)
    }

    /// Messages that were answered with 200.
    pub fn messages(&self) -> Vec<Value> {
        self.room.taken.all()
    }

    pub fn wait_for(&self, count: usize) -> Vec<Value> {
        self.room.taken.wait_for("Slack messages", count)
    }
}

async fn take(
    State(room): State<Arc<Room>>,
    Path(token): Path<String>,
    Json(message): Json<Value>,
) -> (StatusCode, &'static str) {
    room.attempts.fetch_add(1, Ordering::SeqCst);
    let status = match room.status.load(Ordering::SeqCst) {
        200 if token != room.token => 403,
        status => status,
    };
    if status == 200 {
        room.taken.push(message);
    }
    let words = match status {
        200 => "ok",
        403 => "invalid_token",
        404 => "no_service",
        _ => "service_unavailable",
    };
    (StatusCode::from_u16(status).unwrap(), words)
}
