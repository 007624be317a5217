//! What is answered over HTTP: health for probes, the page, the API. This file is the map: which route
//! is open and which asks who comes. Must not decide what is healthy, or do any work.

pub mod access;
pub mod ask;
mod asked;
mod gate;
mod guard;
mod login;
mod metrics;
mod page;
mod probes;
pub mod problem;
mod serve;
mod v1;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::fault::Result;
use gate::Gate;
pub use metrics::{FAMILIES, Family, Kind};
use problem::Problem;
pub use serve::serve;

/// The OpenAPI document: what `/api/v1/openapi.json` answers.
pub fn document() -> serde_json::Value {
    v1::described().1
}

/// What the daemon shows of itself, and does for those who ask over HTTP.
#[async_trait]
pub trait Live: Send + Sync + 'static {
    fn app(&self) -> Arc<App>;
    /// Recovery is done, and runs are being taken.
    fn is_ready(&self) -> bool;
    /// A run was put into the queue.
    fn queued(&self);
    /// Reads the config again; returns its warnings. A bad one leaves the old one in place.
    async fn reload(&self) -> Result<Vec<String>>;
}

/// No request has a larger body.
const BODY: usize = 64 * 1024;

/// Who follow a run at once.
const LISTENERS: usize = 32;

/// What the routes share.
#[derive(Clone)]
pub struct Hall {
    pub live: Arc<dyn Live>,
    gate: Arc<Gate>,
    /// Seats for those who follow a run.
    listeners: Arc<Semaphore>,
    /// The daemon ends: so do answers that go on.
    pub stop: CancellationToken,
}

impl Hall {
    pub fn new(live: Arc<dyn Live>, stop: CancellationToken) -> Self {
        Self { live, gate: Arc::default(), listeners: Arc::new(Semaphore::new(LISTENERS)), stop }
    }
}

impl FromRef<Hall> for Arc<dyn Live> {
    fn from_ref(hall: &Hall) -> Self {
        hall.live.clone()
    }
}

pub fn router(hall: Hall) -> Router {
    // For everybody: a route belongs here only if it shows nothing and does nothing.
    let open = Router::new()
        .route("/health", get(probes::health))
        .route("/health/{job}", get(probes::job_health))
        .route("/metrics", get(metrics::metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(probes::ready))
        .route("/login", get(login::form).post(login::log_in))
        .route("/logout", post(login::log_out))
        .merge(page::assets());
    // For who has a token, and each route says which role: `access::Viewer` and so on.
    let closed = v1::router()
        .merge(page::routes())
        .route_layer(from_fn_with_state(hall.clone(), access::admit));
    open.merge(closed)
        .fallback(async || Problem::not_found("there is nothing here"))
        .method_not_allowed_fallback(async || Problem::method())
        .layer(DefaultBodyLimit::max(BODY))
        .layer(from_fn_with_state(hall.clone(), guard::guard))
        .with_state(hall)
}
