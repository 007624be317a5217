//! Who asks, and what they may do. A closed route takes [`Viewer`], [`Operator`] or [`Admin`] as an
//! argument, and is not reached by anybody else. Knows headers and roles; must not know what a route
//! does.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::Hall;
use super::gate::{Given, Refusal};
use super::problem::Problem;
use crate::model::{Actor, Role};

/// The cookie that holds the token of who logged in.
pub(super) const COOKIE: &str = "respaldo";

/// Who comes without a token, where reading is open.
pub(super) const ANONYMOUS: &str = "anonymous";

/// What a page may do in a browser: its own scripts, styles and images, from files, never inline.
const PAGE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Where a request comes from; set on each by [`super::serve`].
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's name; [`ANONYMOUS`] without one.
    pub name: String,
    pub role: Role,
    pub from: IpAddr,
}

impl Caller {
    /// As the audit names them.
    pub fn actor(&self) -> Actor {
        match self.name.as_str() {
            ANONYMOUS => Actor::nobody(self.from),
            name => Actor::token(name, self.from),
        }
    }
}

/// Whoever sees.
pub struct Viewer(pub Caller);
/// Whoever starts and stops runs.
pub struct Operator(pub Caller);
/// Whoever may do everything.
pub struct Admin(pub Caller);

macro_rules! asks_for {
    ($role:ident) => {
        impl<S: Send + Sync> FromRequestParts<S> for $role {
            type Rejection = Response;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
                let is_api = is_api(parts.uri.path());
                match parts.extensions.get::<Caller>() {
                    Some(caller) if caller.role >= Role::$role => Ok(Self(caller.clone())),
                    Some(caller) => Err(forbidden(caller, Role::$role).into_response()),
                    // The route is not behind `admit`: nobody is let in.
                    None => Err(refused(Refusal::Nobody, is_api, false)),
                }
            }
        }
    };
}

asks_for!(Viewer);
asks_for!(Operator);
asks_for!(Admin);

/// Lets in whoever has a token, and notes who it is; in front of every closed route.
pub(super) async fn admit(State(hall): State<Hall>, mut request: Request, next: Next) -> Response {
    let is_api = is_api(request.uri().path());
    let from = peer(request.extensions().get::<Peer>());
    let given = given(request.headers());
    let by_cookie = matches!(given, Given::Cookie(_));
    match hall.gate.admit(&hall.live.app(), given, from).await {
        Ok(caller) => {
            let actor = caller.actor();
            let what = format!("{} {}", request.method(), request.uri().path());
            request.extensions_mut().insert(caller);
            let response = next.run(request).await;
            if response.status() == StatusCode::FORBIDDEN {
                hall.gate.note_refusal(&hall.live.app(), actor, &what).await;
            }
            response
        }
        Err(refusal) => refused(refusal, is_api, by_cookie),
    }
}

pub(super) fn peer(peer: Option<&Peer>) -> IpAddr {
    peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0.to_canonical())
}

/// The token that came with the request; a header counts before a cookie.
fn given(headers: &HeaderMap) -> Given<'_> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let bearer = value.to_str().ok().and_then(|value| value.split_once(' '));
        return match bearer {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Given::Header(token.trim())
            }
            // Somebody tried something: no token has this shape.
            _ => Given::Header(""),
        };
    }
    cookie(headers).map_or(Given::Nothing, Given::Cookie)
}

/// The page's cookie.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    pairs
        .flat_map(|pairs| pairs.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == COOKIE && !value.is_empty())
        .map(|(_, value)| value)
}

/// The header that gives a browser the token, or with an empty one takes it away.
pub(super) fn set_cookie(token: &str, secure: bool) -> String {
    let age = if token.is_empty() { "; Max-Age=0" } else { "" };
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{age}{secure}")
}

/// Programs get a problem; people are sent to the login.
fn refused(refusal: Refusal, is_api: bool, by_cookie: bool) -> Response {
    let may_log_in = matches!(refusal, Refusal::Nobody | Refusal::Wrong);
    let mut response = match is_api || !may_log_in {
        true => Problem::from(refusal).into_response(),
        false => Redirect::to("/login").into_response(),
    };
    // One that is over would stand in the way of what is open to everybody.
    if may_log_in
        && by_cookie
        && let Ok(value) = HeaderValue::from_str(&set_cookie("", false))
    {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

fn forbidden(caller: &Caller, needed: Role) -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        format!("'{}' is {}", caller.name, with_article(caller.role)),
    )
    .hint(format!(
        "this takes {}; tokens are made by `respaldo token create`",
        with_article(needed)
    ))
}

fn with_article(role: Role) -> String {
    match role {
        Role::Viewer => format!("a {role}"),
        Role::Operator | Role::Admin => format!("an {role}"),
    }
}

fn is_api(path: &str) -> bool {
    path.starts_with("/api/")
}

/// A page of our own, with what it may do in a browser. A form on it says where it comes from.
pub fn page(status: StatusCode, html: String) -> Response {
    let headers =
        [(header::CONTENT_SECURITY_POLICY, PAGE), (header::REFERRER_POLICY, "same-origin")];
    (status, headers, Html(html)).into_response()
}
