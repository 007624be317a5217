//! What an operator can do from the page: start a run, or stop one. Knows forms; the work is put into
//! the queue as the timer puts it there.

use std::sync::Arc;

use axum::Form;
use axum::extract::{Path, State};
use axum::response::Redirect;
use serde::Deserialize;

use super::super::access::Operator;
use super::super::{Live, asked};
use super::{Missing, job_of};
use crate::fault::Result;
use crate::job;
use crate::model::{RunId, RunKind};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    kind: String,
}

pub(super) async fn start(
    Operator(caller): Operator,
    State(live): State<Arc<dyn Live>>,
    Path(name): Path<String>,
    Form(wanted): Form<Start>,
) -> Result<Redirect, Missing> {
    let app = live.app();
    let job = job_of(&app, &name)?;
    let kind: RunKind = match wanted.kind.as_str() {
        "backup" => RunKind::Backup,
        "verify" => RunKind::Verify,
        "drill" => RunKind::Drill,
        _ => return Err(Missing::NotThere("kind of run")),
    };
    let run = asked::start(live.as_ref(), &caller, job, kind, None).await?;
    Ok(Redirect::to(&format!("/runs/{run}")))
}

pub(super) async fn cancel(
    Operator(caller): Operator,
    State(live): State<Arc<dyn Live>>,
    Path(id): Path<String>,
) -> Result<Redirect, Missing> {
    let run: RunId = id.parse().map_err(|_| Missing::NotThere("run"))?;
    job::cancel(&live.app().site, &caller.actor(), run).await?;
    Ok(Redirect::to(&format!("/runs/{run}")))
}
