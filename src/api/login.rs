//! Logging in with a token, which becomes a cookie, and out. Knows a form; must not know what is behind.

use axum::Extension;
use axum::Form;
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Hall;
use super::access::{self, Peer, Viewer};
use super::gate::{Given, Refusal};
use super::problem::Problem;

const FORM: &str = include_str!("login.html");

pub(super) async fn form(RawQuery(query): RawQuery) -> Response {
    let wrong = query.is_some_and(|query| query == "wrong");
    let message = if wrong { "That token opens nothing." } else { "" };
    access::page(StatusCode::OK, FORM.replace("{message}", message))
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
        Ok(_) => {
            let cookie = access::set_cookie(token, app.settings.server.secure_cookies);
            ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
        }
        Err(Refusal::Nobody | Refusal::Wrong) => Redirect::to("/login?wrong").into_response(),
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

pub(super) async fn log_out(State(hall): State<Hall>) -> Response {
    let cookie = access::set_cookie("", hall.live.app().settings.server.secure_cookies);
    ([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}

/// Who the token is, and what it may do.
pub(super) async fn who_am_i(Viewer(caller): Viewer) -> Json<Value> {
    Json(json!({ "name": caller.name, "role": caller.role }))
}
