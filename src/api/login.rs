//! Logging in with a token, which becomes a cookie, and out. Knows a form; must not know what is behind.

use axum::Extension;
use axum::Form;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::Hall;
use super::access::{self, Peer};
use super::gate::{self, Given, Refusal};
use super::page;
use super::problem::Problem;
use crate::model::{Action, AuditOutcome, Deed};

pub(super) async fn form(RawQuery(query): RawQuery) -> Response {
    page::login(query.is_some_and(|query| query == "wrong"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogIn {
    token: String,
}

pub(super) async fn log_in(
    State(hall): State<Hall>,
    peer: Option<Extension<Peer>>,
    Form(log_in): Form<LogIn>,
) -> Response {
    let app = hall.live.app();
    let from = access::peer(peer.as_deref());
    let token = log_in.token.trim();
    match hall.gate.admit(&app, Given::Header(token), from).await {
        Ok(caller) => {
            gate::note(&app, &caller.actor(), &Deed::new(Action::Login), AuditOutcome::Done).await;
            let cookie = access::set_cookie(token, app.settings.server.secure_cookies);
            ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
        }
        Err(Refusal::Nobody | Refusal::Wrong) => Redirect::to("/login?wrong").into_response(),
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

pub(super) async fn log_out(
    State(hall): State<Hall>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Response {
    let app = hall.live.app();
    if let Some(token) = access::cookie(&headers)
        && let Ok(caller) =
            hall.gate.admit(&app, Given::Cookie(token), access::peer(peer.as_deref())).await
    {
        gate::note(&app, &caller.actor(), &Deed::new(Action::Logout), AuditOutcome::Done).await;
    }
    let cookie = access::set_cookie("", app.settings.server.secure_cookies);
    ([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}
