//! What only an administrator does: the audit read, tokens made and ended, the config read again.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::Hall;
use super::super::access::Admin;
use super::super::ask::{Asked, Named, Told, last_of_full, later, soon};
use super::super::problem::Problem;
use super::runs::limit;
use super::shapes::{Audit, Deed, Reloaded, Token, TokenMade, TokenWanted};
use crate::catalog::AuditQuery;
use crate::fault::{FaultKind, Result};
use crate::job;
use crate::model::{self, Action, JobName};

/// Seconds of a day, for how long a token is good.
const DAY: i64 = 86_400;
const MOST_DAYS: u16 = 3650;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditWanted {
    /// Only what is not older.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// One job only.
    #[param(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$")]
    job: Option<JobName>,
    /// Only rows before this one.
    before: Option<i64>,
    /// How many at most; 100 unless told.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
}

/// Who did what, when, from where; the newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "admin", params(AuditWanted),
    security(("token" = ["admin"])), responses((status = 200, body = Audit)))]
pub async fn audit(
    State(hall): State<Hall>,
    _: Admin,
    Asked(wanted): Asked<AuditWanted>,
) -> Result<Json<Audit>, Problem> {
    let most = limit(wanted.limit)?;
    let AuditWanted { since, job, before, .. } = wanted;
    let app = hall.live.app();
    let rows = soon(app.site.catalog.audit(&AuditQuery { since, job, before, most })).await?;
    let next = last_of_full(&rows, most).map(|row| row.seq);
    Ok(Json(Audit { events: rows.into_iter().map(Deed::from).collect(), next }))
}

/// Reads the config again, as SIGHUP does. A bad one leaves the old one in place.
#[utoipa::path(post, path = "/api/v1/reload", tag = "admin",
    security(("token" = ["admin"])), responses((status = 200, body = Reloaded)))]
pub async fn reload(
    State(hall): State<Hall>,
    Admin(caller): Admin,
) -> Result<Json<Reloaded>, Problem> {
    let site = hall.live.app().site.clone();
    let deed = model::Deed::new(Action::Reload);
    let warnings = later(site.audited(&caller.actor(), deed, hall.live.reload())).await?;
    Ok(Json(Reloaded { warnings }))
}

/// Every token, those of the config first; none is shown.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "admin",
    security(("token" = ["admin"])), responses((status = 200, body = Vec<Token>)))]
pub async fn tokens(State(hall): State<Hall>, _: Admin) -> Result<Json<Vec<Token>>, Problem> {
    let app = hall.live.app();
    let made = soon(app.site.catalog.tokens()).await?;
    let fixed = app.settings.server.tokens.iter().map(|token| Token {
        name: token.name.to_string(),
        role: token.role.to_string(),
        from: "config",
        created_at: None,
        expires_at: None,
        used_at: None,
        revoked_at: None,
    });
    let made = made.into_iter().map(|token| Token {
        name: token.name.to_string(),
        role: token.role.to_string(),
        from: "catalog",
        created_at: Some(token.created_at),
        expires_at: token.expires_at,
        used_at: token.used_at,
        revoked_at: token.revoked_at,
    });
    Ok(Json(fixed.chain(made).collect()))
}

/// Makes a token, which is in the answer and nowhere else.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "admin", request_body = TokenWanted,
    security(("token" = ["admin"])), responses((status = 201, body = TokenMade)))]
pub async fn make_token(
    State(hall): State<Hall>,
    Admin(caller): Admin,
    Told(wanted): Told<TokenWanted>,
) -> Result<(StatusCode, Json<TokenMade>), Problem> {
    if wanted.days.is_some_and(|days| !(1..=MOST_DAYS).contains(&days)) {
        let problem = format!("days is 1 to {MOST_DAYS}");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem));
    }
    let app = hall.live.app();
    not_fixed(&hall, &wanted.name)?;
    let lasts = wanted.days.map(|days| SignedDuration::from_secs(i64::from(days) * DAY));
    let actor = caller.actor();
    let made = job::make_token(&app.site, &actor, &wanted.name, wanted.role, lasts);
    let made = match soon(async { Ok(made.await) }).await? {
        Err(fault) if fault.kind() == FaultKind::Usage => {
            return Err(Problem::new(StatusCode::CONFLICT, fault.chain()));
        }
        made => made?,
    };
    let shown = TokenMade {
        name: wanted.name.to_string(),
        role: wanted.role.to_string(),
        // The one answer that holds a secret: whoever asked for it has to get it.
        token: made.token.expose().to_owned(),
        expires_at: made.expires_at,
    };
    Ok((StatusCode::CREATED, Json(shown)))
}

/// Ends a token at once.
#[utoipa::path(delete, path = "/api/v1/tokens/{name}", tag = "admin",
    params(("name" = String, Path, description = "its name")),
    security(("token" = ["admin"])), responses((status = 204)))]
pub async fn revoke_token(
    State(hall): State<Hall>,
    Admin(caller): Admin,
    Named(name): Named<JobName>,
) -> Result<StatusCode, Problem> {
    not_fixed(&hall, &name)?;
    let app = hall.live.app();
    let actor = caller.actor();
    let work = job::revoke_token(&app.site, &actor, &name);
    match soon(async { Ok(work.await) }).await? {
        Err(fault) if fault.kind() == FaultKind::Usage => Err(Problem::not_found(fault.chain())),
        done => {
            done?;
            Ok(StatusCode::NO_CONTENT)
        }
    }
}

fn not_fixed(hall: &Hall, name: &JobName) -> Result<(), Problem> {
    if !hall.live.app().settings.server.has_token(name) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::CONFLICT, format!("token '{name}' is one of the config"))
        .hint("change it in [server.tokens] and reload"))
}
