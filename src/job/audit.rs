//! The audit as the work sees it: an intent before the deed and its outcome after it, so that a deed
//! that was cut off is seen too. A deed whose intent can't be written does not take place.

use super::Site;
use crate::fault::{Fault, Result};
use crate::model::{Action, Actor, AuditOutcome, Deed, RunId};

/// Rows that go into the log at once.
const LINES: i64 = 200;
/// How far the log has come.
const LOGGED: &str = "audit-logged";

impl Site {
    /// Does what `work` does, between an intent and an outcome.
    pub async fn audited<T>(
        &self,
        actor: &Actor,
        deed: Deed,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.audited_by(actor, deed, work, |_| Ok(None)).await
    }

    /// As `audited`, where `ended` says what is to be noted of work that came to its end, or what went
    /// wrong all the same.
    pub async fn audited_by<T>(
        &self,
        actor: &Actor,
        deed: Deed,
        work: impl Future<Output = Result<T>>,
        ended: impl Fn(&T) -> Result<Option<String>, String>,
    ) -> Result<T> {
        let now = self.clock.now();
        let intent = self.catalog.add_audit(actor, &deed, AuditOutcome::Begun, None, now).await?;
        let done = work.await;
        let (outcome, detail) = match done.as_ref().map_err(Fault::chain).and_then(ended) {
            Ok(note) => (AuditOutcome::Done, note),
            Err(trouble) => (AuditOutcome::Failed, Some(trouble)),
        };
        let deed = Deed { detail, ..deed };
        let now = self.clock.now();
        let noted = self.catalog.add_audit(actor, &deed, outcome, Some(intent), now).await;
        // What was done is done: it can't be taken back for want of a row.
        noted.inspect_err(|fault: &Fault| tracing::error!("{}", fault.chain())).ok();
        done
    }

    /// Notes what has no before and after.
    pub async fn note(&self, actor: &Actor, deed: &Deed, outcome: AuditOutcome) -> Result<()> {
        let now = self.clock.now();
        self.catalog.add_audit(actor, deed, outcome, None, now).await.map(drop)
    }
}

/// Brings what is new in the audit into the log too, whoever wrote it: the catalog may be lost.
pub async fn log_audit(site: &Site) -> Result<()> {
    let logged = site.catalog.fact(LOGGED).await?;
    let mut last: i64 = logged.and_then(|seq| seq.parse().ok()).unwrap_or(0);
    loop {
        let rows = site.catalog.audit_after(last, LINES).await?;
        let Some(newest) = rows.last() else { return Ok(()) };
        last = newest.seq;
        for row in &rows {
            tracing::info!(
                target: "audit",
                seq = row.seq,
                at = %row.at,
                actor = row.actor,
                from = row.from,
                action = row.action.as_str(),
                outcome = row.outcome.as_str(),
                intent = row.intent,
                job = row.job.as_ref().map(|job| job.as_str()),
                subject = row.subject,
                detail = row.detail,
                "audit"
            );
        }
        site.catalog.set_fact(LOGGED, &last.to_string()).await?;
    }
}

/// Asks a run to stop.
pub async fn cancel(site: &Site, actor: &Actor, run: RunId) -> Result<()> {
    let found = site.catalog.run(run).await?;
    let under_way = "`respaldo status` shows the runs that are under way";
    let Some(found) = found else {
        return Err(Fault::usage(format!("there is no run {run}")).hint(under_way));
    };
    let work = async {
        match site.catalog.request_cancel(run, site.clock.now()).await? {
            true => Ok(()),
            false => {
                Err(Fault::usage(format!("run {run} is over: {}", found.state)).hint(under_way))
            }
        }
    };
    site.audited(actor, Deed::of(Action::Cancel, &found.job).to(run), work).await
}
