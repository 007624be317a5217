//! The audit: who did what, when, from where, and what came of it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::super::Live;
use super::super::access::Admin;
use super::super::ask::last_of_full;
use super::words::{Badge, Now, Tone, When};
use super::{Frame, Missing, now, page};
use crate::catalog::AuditQuery;
use crate::fault::Result;
use crate::model::{AuditEvent, AuditOutcome};

const PAGE: i64 = 100;

#[derive(Template)]
#[template(path = "audit.html")]
struct Audit {
    frame: Frame,
    rows: Vec<Row>,
    /// Where the list goes on.
    older: Option<i64>,
}

struct Row {
    at: When,
    actor: String,
    from: String,
    what: String,
    badge: Badge,
    detail: String,
}

impl Row {
    fn of(event: AuditEvent, now: &Now) -> Self {
        let tone = match event.outcome {
            AuditOutcome::Begun => Tone::Quiet,
            AuditOutcome::Done => Tone::Good,
            AuditOutcome::Failed | AuditOutcome::Refused => Tone::Bad,
        };
        let job = event.job.map(|job| format!(" of {job}")).unwrap_or_default();
        let subject = event.subject.map(|subject| format!(" {subject}")).unwrap_or_default();
        let action = event.action.as_str().replace('_', " ");
        Self {
            at: now.when(event.at),
            actor: event.actor,
            from: event.from,
            what: format!("{action}{subject}{job}"),
            badge: Badge::new(tone, event.outcome.as_str()),
            detail: event.detail.unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    before: Option<i64>,
}

pub(super) async fn show(
    Admin(caller): Admin,
    State(live): State<Arc<dyn Live>>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Missing> {
    let app = live.app();
    let now = now(&app);
    let query = AuditQuery { before: wanted.before, most: PAGE, ..AuditQuery::default() };
    let events = app.site.catalog.audit(&query).await?;
    let older = last_of_full(&events, PAGE).map(|event| event.seq).filter(|seq| *seq > 1);
    Ok(page(&Audit {
        frame: Frame::new(&app, "/audit", &caller, &now),
        rows: events.into_iter().map(|event| Row::of(event, &now)).collect(),
        older,
    }))
}
