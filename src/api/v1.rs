//! The API, version 1: which routes there are, and the document that describes them. Both come from
//! the same lines, so that neither has what the other lacks. Must not do any work.

mod admin;
mod backups;
mod download;
mod events;
mod jobs;
mod overview;
mod restore;
mod runs;
mod shapes;

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Hall;
use super::access::Viewer;

/// What is said of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "respaldo",
        description = "What `respaldo` shows and does over HTTP. Send a token as `Authorization: Bearer TOKEN`; \
            the scopes of each operation name the role that it takes.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT"),
    ),
    components(schemas(super::problem::Problem))
)]
struct About;

pub(super) fn router() -> Router<Hall> {
    let (router, document) = described();
    router.route("/api/v1/openapi.json", get(async move |_: Viewer| Json(document.clone())))
}

/// The routes, and the document that describes them.
pub(super) fn described() -> (Router<Hall>, Value) {
    let (router, document) = OpenApiRouter::with_openapi(About::openapi())
        .routes(routes!(overview::who_am_i))
        .routes(routes!(overview::health))
        .routes(routes!(overview::status))
        .routes(routes!(overview::drills))
        .routes(routes!(overview::report))
        .routes(routes!(jobs::all))
        .routes(routes!(jobs::one))
        .routes(routes!(jobs::plan))
        .routes(routes!(jobs::back_up))
        .routes(routes!(jobs::verify))
        .routes(routes!(jobs::drill))
        .routes(routes!(restore::plan))
        .routes(routes!(backups::of_job))
        .routes(routes!(backups::one))
        .routes(routes!(backups::pin))
        .routes(routes!(backups::unpin))
        .routes(routes!(download::artifact))
        .routes(routes!(runs::all))
        .routes(routes!(runs::one))
        .routes(routes!(runs::log))
        .routes(routes!(runs::cancel))
        .routes(routes!(events::of_run))
        .routes(routes!(admin::audit))
        .routes(routes!(admin::reload))
        .routes(routes!(admin::tokens, admin::make_token))
        .routes(routes!(admin::revoke_token))
        .split_for_parts();
    (router, complete(document))
}

/// What holds for every operation: how to get in, and how it is refused.
fn complete(mut document: utoipa::openapi::OpenApi) -> Value {
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    let cookie = ApiKey::Cookie(ApiKeyValue::new(super::access::COOKIE));
    components.add_security_scheme("cookie", SecurityScheme::ApiKey(cookie));
    let mut document = json!(document);
    let refusal = json!({
        "description": "what went wrong, as in RFC 9457",
        "content": {
            "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } }
        },
    });
    for path in document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut()) {
        for operation in path.as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
            for status in ["4XX", "503"] {
                operation["responses"][status] = refusal.clone();
            }
        }
    }
    document
}
