//! What comes with a request, read with one kind of error; and answers that do not wait for ever. Knows
//! extractors; must not know routes.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::Problem;
use crate::fault::{Fault, FaultKind, Result};

/// How long the catalog may take: nobody piles up behind a hung disk.
const CATALOG: Duration = Duration::from_secs(5);
/// How long a destination or a database may take.
const FAR: Duration = Duration::from_secs(50);

/// The variable parts of a path.
pub struct Named<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let named = Path::<T>::from_request_parts(parts, state).await;
        named.map(|Path(named)| Self(named)).map_err(|error| Problem::not_found(error.body_text()))
    }
}

/// What stands behind the `?`; keys that are not known are refused.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let asked = Query::<T>::from_request_parts(parts, state).await;
        asked
            .map(|Query(asked)| Self(asked))
            .map_err(|error| Problem::bad_request(error.body_text()))
    }
}

/// A JSON body; keys that are not known are refused. No body at all, and `null`, is `{}`.
pub struct Told<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Told<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.map(|kind| kind.to_str().unwrap_or_default().to_ascii_lowercase());
        if kind.is_some_and(|kind| kind.split(';').next() != Some("application/json")) {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not JSON")
                .hint("send Content-Type: application/json"));
        }
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| Problem::new(error.status(), error.body_text()))?;
        let text = if bytes.is_empty() { b"{}".as_slice() } else { &bytes };
        let told: Value = serde_json::from_slice(text)
            .map_err(|error| Problem::bad_request(format!("the body is not JSON: {error}")))?;
        let wrong = |why: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why);
        let told = if told.is_null() { Value::Object(Map::new()) } else { told };
        // A list would be taken for the values of the keys, in their order.
        if !told.is_object() {
            return Err(wrong("the body is not a JSON object".to_owned()));
        }
        serde_json::from_value(told).map(Self).map_err(|error| wrong(error.to_string()))
    }
}

/// The last of a page that is full: after it there may be more.
pub fn last_of_full<T>(page: &[T], most: i64) -> Option<&T> {
    page.last().filter(|_| i64::try_from(page.len()) == Ok(most))
}

/// What the catalog answers, in time.
pub async fn soon<T>(work: impl Future<Output = Result<T>>) -> Result<T, Problem> {
    within(CATALOG, work, "the catalog does not answer").await
}

/// What a destination or a database answers, in time.
pub async fn later<T>(work: impl Future<Output = Result<T>>) -> Result<T, Problem> {
    within(FAR, work, "a destination or a database does not answer").await
}

async fn within<T>(
    most: Duration,
    work: impl Future<Output = Result<T>>,
    late: &str,
) -> Result<T, Problem> {
    let done = tokio::time::timeout(most, work).await;
    Ok(done.unwrap_or_else(|_| Err(Fault::transient(late)))?)
}

/// As `soon`, of something that is asked for by its name.
pub async fn find_soon<T>(work: impl Future<Output = Result<T>>) -> Result<T, Problem> {
    there(soon(async { Ok(work.await) }).await?)
}

/// As `later`, of something that is asked for by its name.
pub async fn find_later<T>(work: impl Future<Output = Result<T>>) -> Result<T, Problem> {
    there(later(async { Ok(work.await) }).await?)
}

/// What is asked for by its name is there, or is not found.
pub fn there<T>(found: Result<T>) -> Result<T, Problem> {
    found.map_err(|fault| {
        if fault.kind() != FaultKind::Usage {
            return fault.into();
        }
        let problem = Problem::not_found(fault.chain());
        match fault.next_step() {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    })
}
