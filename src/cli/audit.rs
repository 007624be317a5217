//! `respaldo audit`: who did what, when, from where.

use std::collections::{BTreeMap, BTreeSet};

use super::args::Audit;
use super::{Desk, Exit, output};
use crate::catalog::AuditQuery;
use crate::fault::{Context, Result};
use crate::model::{AuditEvent, AuditOutcome};

/// More is not shown at once.
const MOST: i64 = 100_000;

pub(super) async fn audit(desk: &Desk, wanted: Audit) -> Result<Exit> {
    let site = &desk.app.site;
    let since = match wanted.since {
        Some(since) => Some(site.clock.now().checked_sub(since).context("find that day")?),
        None => None,
    };
    let query = AuditQuery { since, job: wanted.job, before: None, most: MOST };
    let rows = site.catalog.audit(&query).await?;
    if wanted.json {
        output::json(&rows)?;
        return Ok(Exit::Done);
    }
    // An intent says nothing more once its outcome is there.
    let over: BTreeSet<i64> = rows.iter().filter_map(|row| row.intent).collect();
    let all: BTreeMap<i64, &AuditEvent> = rows.iter().map(|row| (row.seq, row)).collect();
    let shown = rows.iter().filter(|row| !over.contains(&row.seq)).map(|row| cells(row, &all));
    output::table(
        &["AT", "WHO", "FROM", "WHAT", "JOB", "ON", "OUTCOME", "DETAIL"],
        shown.collect(),
    )?;
    Ok(Exit::Done)
}

fn cells(row: &AuditEvent, all: &BTreeMap<i64, &AuditEvent>) -> Vec<String> {
    let intent = row.intent.and_then(|seq| all.get(&seq));
    let outcome = match row.outcome {
        AuditOutcome::Begun => "begun, and not ended",
        outcome => outcome.as_str(),
    };
    // What was meant, and then what came of it.
    let details = [intent.and_then(|intent| intent.detail.clone()), row.detail.clone()];
    vec![
        row.at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        row.actor.clone(),
        row.from.clone(),
        row.action.to_string(),
        row.job.as_ref().map(ToString::to_string).unwrap_or_default(),
        row.subject.clone().unwrap_or_default(),
        outcome.to_owned(),
        details.into_iter().flatten().collect::<Vec<_>>().join("; "),
    ]
}
