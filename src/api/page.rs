//! The page for people: written here whole, with nothing to build, and readable without a script.
//! Knows its addresses, its frame and what it may show to whom; must not decide what is well.

mod actions;
mod audit;
mod backup;
mod drills;
mod job;
mod overview;
mod picture;
mod run;
mod storage;
mod words;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::Hall;
use super::access::{self, ANONYMOUS, Caller};
use crate::app::App;
use crate::fault::{Fault, FaultKind, Result};
use crate::job::Job;
use crate::model::{Role, VERSION};
use words::Now;

/// Those that show something, each for a role.
pub(super) fn routes() -> Router<Hall> {
    Router::new()
        .route("/", get(overview::show))
        .route("/jobs/{job}", get(job::show))
        .route("/jobs/{job}/run", post(actions::start))
        .route("/jobs/{job}/backups/{id}", get(backup::show))
        .route("/runs", get(run::list))
        .route("/runs/{id}", get(run::show))
        .route("/runs/{id}/cancel", post(actions::cancel))
        .route("/drills", get(drills::list))
        .route("/drills/{run}", get(drills::show))
        .route("/storage", get(storage::show))
        .route("/audit", get(audit::show))
}

/// What every page is made with, and shows nothing.
pub(super) fn assets() -> Router<Hall> {
    let style = async || asset("text/css", include_str!("page/assets/style.css"));
    let script = async || asset("text/javascript", include_str!("page/assets/page.js"));
    let icon = async || asset("image/svg+xml", include_str!("page/assets/icon.svg"));
    Router::new()
        .route("/assets/style.css", get(style))
        .route("/assets/page.js", get(script))
        .route("/assets/icon.svg", get(icon))
}

/// What is around every page.
#[derive(Default)]
struct Frame {
    /// Somebody came in, and sees more than the form to log in.
    is_inside: bool,
    /// The page that is open, by its address.
    at: &'static str,
    host: String,
    /// Who is logged in; nobody where reading is open to all.
    caller: Option<String>,
    role: Option<Role>,
    version: &'static str,
    now: String,
}

impl Frame {
    fn new(app: &App, at: &'static str, caller: &Caller, now: &Now) -> Self {
        Self {
            is_inside: true,
            at,
            host: app.site.host.clone(),
            caller: Some(caller.name.clone()).filter(|name| name != ANONYMOUS),
            role: Some(caller.role),
            version: VERSION,
            now: now.exact(now.at),
        }
    }

    /// Address, name, and whether it is open; those that this caller may see.
    fn pages(&self) -> Vec<(&'static str, &'static str, bool)> {
        let everybody =
            [("/", "Overview"), ("/runs", "Runs"), ("/drills", "Drills"), ("/storage", "Storage")];
        let audit = Some(("/audit", "Audit")).filter(|_| self.role >= Some(Role::Admin));
        let pages = everybody.into_iter().chain(audit);
        pages.map(|(address, name)| (address, name, address == self.at)).collect()
    }

    fn may_operate(&self) -> bool {
        self.role >= Some(Role::Operator)
    }
}

/// The moment, in the zone of the config.
fn now(app: &App) -> Now {
    Now { at: app.site.clock.now(), zone: app.settings.timezone.clone() }
}

fn page(template: &impl Template) -> Response {
    page_with(StatusCode::OK, template)
}

fn page_with(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => access::page(status, text),
        Err(error) => {
            tracing::error!("write a page: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("max-age=300")),
    ];
    (headers, text).into_response()
}

/// A page that could not be written.
enum Missing {
    NotThere(&'static str),
    Failed(Fault),
}

impl From<Fault> for Missing {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

#[derive(Template)]
#[template(path = "missing.html")]
struct MissingPage {
    frame: Frame,
    title: &'static str,
    text: String,
}

impl IntoResponse for Missing {
    fn into_response(self) -> Response {
        let (status, title, text) = match self {
            Self::NotThere(what) => {
                (StatusCode::NOT_FOUND, "Not here", format!("There is no such {what}."))
            }
            Self::Failed(fault) if fault.kind() == FaultKind::Usage => {
                (StatusCode::BAD_REQUEST, "That does not work", fault.chain())
            }
            Self::Failed(fault) => {
                tracing::error!("a page could not be shown: {}", fault.chain());
                let text = "What respaldo knows can't be read now. Its log says why.".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, "Something is wrong", text)
            }
        };
        page_with(status, &MissingPage { frame: Frame::default(), title, text })
    }
}

/// The job that an address names.
fn job_of<'a>(app: &'a App, name: &str) -> Result<&'a Arc<Job>, Missing> {
    app.jobs.iter().find(|job| job.name.as_str() == name).ok_or(Missing::NotThere("job"))
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login {
    frame: Frame,
    wrong: bool,
}

/// The form; `wrong`: a token was tried that opens nothing.
pub(super) fn login(wrong: bool) -> Response {
    page(&Login { frame: Frame::default(), wrong })
}
