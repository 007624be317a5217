//! The state of all jobs, told now and then to whoever asked for it. Knows the facts and says them in
//! a few lines for each job; must not know how a message looks.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Job, Site, bytes};
use crate::alert::Route;
use crate::catalog::{Note, Post};
use crate::copies::Copies;
use crate::fault::Result;
use crate::health::{self, JobHealth};
use crate::model::{Event, EventKind, RunState};
use crate::report::{counted, span};

/// What a digest looks back on.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Writes the digests whose time has come since they were last written; one that was missed comes
/// late, and once.
pub async fn post_digests(site: &Site, jobs: &[Arc<Job>]) -> Result<()> {
    let now = site.clock.now();
    for route in site.routes.iter().filter(|route| !route.digest.is_empty()) {
        let name = format!("digest:{}", route.name);
        let was = site.catalog.fact(&name).await?;
        // A clock that was set back starts anew.
        let last = was.as_deref().and_then(|was| was.parse().ok()).map(|at: Timestamp| at.min(now));
        let is_due = last.is_some_and(|last| route.digest.next(last).is_some_and(|due| due <= now));
        if last.is_some() && !is_due {
            continue;
        }
        let note = Note { name, was, is: Some(now.to_string()) };
        let event = match is_due {
            true => Some(digest(site, route, jobs).await?),
            false => None,
        };
        let post = |event| Post { route: &route.name, event, repeat: None };
        let posts: Vec<Post<'_>> = event.iter().map(post).collect();
        site.catalog.post(&posts, &[note], None, now).await?;
    }
    Ok(())
}

async fn digest(site: &Site, route: &Route, jobs: &[Arc<Job>]) -> Result<Event> {
    let now = site.clock.now();
    let mut states = Vec::new();
    for job in jobs.iter().filter(|job| route.is_about(job.name.as_str())) {
        states.push(state(site, job).await?);
    }
    Ok(event(&states, now))
}

/// What is said of one job.
struct State {
    health: JobHealth,
    made: usize,
    failed: usize,
    /// The newest backup's, as it is stored.
    bytes: Option<u64>,
    copies: Copies,
}

async fn state(site: &Site, job: &Job) -> Result<State> {
    let now = site.clock.now();
    let runs = site.catalog.runs_of(&job.name).await?;
    let ended = |states: &[RunState]| {
        let recent = runs.iter().filter(|run| {
            let at = run.started_at.unwrap_or(run.requested_at);
            run.kind.makes_backup() && now.duration_since(at) <= WEEK
        });
        recent.filter(|run| states.contains(&run.state)).count()
    };
    let known = site.catalog.backups(Some(&job.name)).await?;
    let newest = known.iter().find(|known| known.manifest.kind.counts());
    Ok(State {
        health: health::job_health(&site.health_facts(job).await?, now),
        made: ended(&[RunState::Succeeded, RunState::Partial]),
        failed: ended(&[RunState::Failed, RunState::Interrupted]),
        bytes: newest.map(|known| known.manifest.stored_bytes()),
        copies: site.copies(job).await?,
    })
}

impl State {
    /// Why somebody should look.
    fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for place in self.health.destinations.iter().filter(|place| !place.status.is_well()) {
            let wrong = match place.status {
                health::Status::Never => "has no backup",
                health::Status::Failing => "was not reached by the last run",
                _ => "has an old backup",
            };
            findings.push(format!("'{}' {wrong}", place.name));
        }
        if self.health.status == health::Status::Unproven {
            findings.push("no drill has proven a backup lately".to_owned());
        }
        findings
    }

    fn lines(&self, now: Timestamp) -> Vec<String> {
        let ago = |at: Timestamp| format!("{} ago", span(now.duration_since(at).as_secs()));
        let last = match self.health.last_success {
            None => "no backup yet".to_owned(),
            Some(at) => format!("last backup {}", ago(at)),
        };
        let size = self.bytes.map(|size| format!(", {}", bytes(size))).unwrap_or_default();
        let proven = match self.health.last_proven {
            None => "never proven".to_owned(),
            Some(at) => format!("last proven {}", ago(at)),
        };
        let rule = match &self.copies.missing {
            None => "3-2-1 is met".to_owned(),
            Some(missing) => missing.clone(),
        };
        let mut lines = vec![
            format!("{}; {last}{size}", self.health.status.as_str()),
            proven,
            format!(
                "in 7 days {} made, {} failed",
                counted(self.made, "backup", "backups"),
                self.failed
            ),
            format!("{}; {rule}", counted(self.copies.copies, "copy", "copies")),
        ];
        lines.extend(self.findings().iter().map(|finding| format!("needs a look: {finding}")));
        lines
    }
}

fn event(states: &[State], now: Timestamp) -> Event {
    let bad: Vec<&str> = states
        .iter()
        .filter(|state| !state.findings().is_empty())
        .map(|state| state.health.job.as_str())
        .collect();
    let all = counted(states.len(), "job", "jobs");
    let summary = match (bad.as_slice(), states.len()) {
        ([], 1) => "the job is well".to_owned(),
        ([], _) => format!("all {all} are well"),
        ([one], _) => format!("{one} needs a look"),
        (several, _) => format!("{} of {all} need a look: {}", several.len(), several.join(", ")),
    };
    let details = states.iter();
    let details = details.map(|state| (state.health.job.to_string(), state.lines(now).join("\n")));
    Event {
        details: details.collect(),
        hint: (!bad.is_empty()).then(|| "`respaldo status` shows what is wrong".to_owned()),
        ..Event::new(EventKind::Digest, None, now, summary)
    }
}
