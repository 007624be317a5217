//! A run that a person asks for over HTTP, by the page or by the API. Knows the queue and the audit;
//! must not know forms or JSON.

use super::Live;
use super::access::Caller;
use crate::catalog::Request;
use crate::fault::Result;
use crate::job::Job;
use crate::model::{Action, Deed, RunId, RunKind, Trigger};

/// Puts a run into the queue, as the timer does.
pub(super) async fn start(
    live: &dyn Live,
    caller: &Caller,
    job: &Job,
    kind: RunKind,
    label: Option<String>,
) -> Result<RunId> {
    let action = match kind {
        RunKind::Verify => Action::Verify,
        RunKind::Drill => Action::Drill,
        _ => Action::Backup,
    };
    let app = live.app();
    let now = app.site.clock.now();
    let deed = Deed { detail: label.clone(), ..Deed::of(action, &job.name) };
    let request = Request { label, ..Request::now(&job.name, kind, Trigger::Manual, now) };
    let work = app.site.catalog.enqueue(&request, now);
    let noted = |run: &RunId| Ok(Some(format!("run {run}")));
    let run = app.site.audited_by(&caller.actor(), deed, work, noted).await?;
    live.queued();
    Ok(run)
}
