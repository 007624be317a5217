//! What holds for every request: whom it is meant for, where it comes from, how long it may take, and
//! what a browser may do with the answer. Knows headers; must not know who asks.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::{Hall, access};

/// How long an answer may take to begin, the request's body included.
const ANSWER: Duration = Duration::from_secs(60);

/// Set on whatever does not say otherwise.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

pub(super) async fn guard(State(hall): State<Hall>, request: Request, next: Next) -> Response {
    let mut response = match check(&hall, &request) {
        Ok(()) => match tokio::time::timeout(ANSWER, next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                Problem::new(StatusCode::REQUEST_TIMEOUT, "this took too long").into_response()
            }
        },
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn check(hall: &Hall, request: &Request) -> Result<(), Problem> {
    // They say nothing, and a load balancer may ask by any name.
    if ["/livez", "/readyz"].contains(&request.uri().path()) {
        return Ok(());
    }
    let app = hall.live.app();
    let known = Names { hosts: &app.settings.server.hosts, own: &app.site.host };
    let host = host(request)?;
    if let Some(host) = host.as_ref().filter(|host| !known.include(host.host())) {
        let name = host.host();
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("this daemon is not known as '{name}'"),
        )
        .hint(format!("if it is, say so in the config: [server] hosts = [\"{name}\"]")));
    }
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method())
        || is_same_origin(request.headers(), host.as_ref(), &known)
    {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "this request comes from another site's page")
        .hint("behind a proxy, pass the Host header on, or name the page's host in server.hosts"))
}

/// The names that are this daemon's.
struct Names<'a> {
    hosts: &'a [String],
    own: &'a str,
}

impl Names<'_> {
    /// Whoever owns a domain can let its name point at this machine, and then have a browser that is
    /// near ask in its name. Nobody owns an address, `localhost`, or a name without a dot, such as
    /// that of a compose service.
    fn include(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || !host.contains('.')
            || host.ends_with(".localhost")
            || host.eq_ignore_ascii_case(self.own)
            || self.are_written(&host)
    }

    fn are_written(&self, host: &str) -> bool {
        self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
    }
}

/// Whom the request is meant for. None says nothing: no browser leaves it out.
fn host(request: &Request) -> Result<Option<Authority>, Problem> {
    let wrong = || Problem::bad_request("the Host header can't be read");
    let mut named = request.headers().get_all(header::HOST).iter();
    let readable = |host: &HeaderValue| host.to_str().ok()?.parse::<Authority>().ok();
    let host = named.next().map(readable);
    match (request.uri().authority(), host) {
        _ if named.next().is_some() => Err(wrong()),
        (Some(authority), Some(Some(host))) if host != *authority => Err(wrong()),
        (Some(authority), _) => Ok(Some(authority.clone())),
        (None, Some(host)) => host.ok_or_else(wrong).map(Some),
        (None, None) => Ok(None),
    }
}

/// Whether what changes something comes from our own page, or from no page at all.
fn is_same_origin(headers: &HeaderMap, host: Option<&Authority>, known: &Names<'_>) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("null"));
    let site = text(HeaderName::from_static("sec-fetch-site"));
    match (text(header::ORIGIN), site) {
        (Some("null"), _) => false,
        (Some(origin), _) => origin
            .split_once("://")
            .and_then(|(scheme, authority)| Some((scheme, authority.parse::<Authority>().ok()?)))
            .is_some_and(|(scheme, origin)| {
                let port = |of: &Authority| of.port_u16().or(default_port(scheme));
                let same = |host: &Authority| {
                    host.host().eq_ignore_ascii_case(origin.host()) && port(host) == port(&origin)
                };
                default_port(scheme).is_some()
                    && (host.is_some_and(same) || known.are_written(origin.host()))
            }),
        (None, Some(site)) => site == "same-origin",
        // A program. A browser that sends the page's cookie always says where it comes from.
        (None, None) => access::cookie(headers).is_none(),
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_else_can_own_are_ours() {
        let hosts = ["backups.example.com".to_owned()];
        let names = Names { hosts: &hosts, own: "web1.lan" };
        for ours in [
            "localhost",
            "app.localhost",
            "127.0.0.1",
            "10.1.2.3",
            "[::1]",
            "respaldo",
            "WEB1.lan",
            "Backups.Example.com",
            "backups.example.com.",
        ] {
            assert!(names.include(ours), "{ours}");
        }
        for foreign in ["evil.example", "example.com", "127.0.0.1.nip.io", "web1.lan.evil.example"]
        {
            assert!(!names.include(foreign), "{foreign}");
        }
    }

    #[test]
    fn what_changes_something_comes_from_our_own_page_or_from_a_program() {
        let hosts = ["backups.example.com".to_owned()];
        let names = Names { hosts: &hosts, own: "web1" };
        let same = |given: &[(&str, &str)], host: &str| {
            let pairs = given.iter().map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            });
            is_same_origin(&pairs.collect(), Some(&host.parse().unwrap()), &names)
        };
        assert!(same(&[], "web1:8080"));
        assert!(same(&[("origin", "http://web1:8080")], "web1:8080"));
        assert!(same(&[("origin", "https://web1")], "web1:443"));
        // A proxy that puts a name of its own into Host.
        assert!(same(&[("origin", "https://backups.example.com")], "respaldo:8080"));
        assert!(same(&[("sec-fetch-site", "same-origin")], "web1:8080"));
        for origin in [
            "http://web1:8081",
            "http://web2:8080",
            "null",
            "web1:8080",
            "file://",
            "ws://web1:8080",
        ] {
            assert!(!same(&[("origin", origin)], "web1:8080"), "{origin}");
        }
        assert!(!same(&[("sec-fetch-site", "same-site")], "web1:8080"));
        assert!(!same(&[("sec-fetch-site", "cross-site")], "web1:8080"));
        assert!(!same(&[("cookie", "a=b; respaldo=x")], "web1:8080"));
        assert!(same(&[("cookie", "a=b")], "web1:8080"));
    }
}
