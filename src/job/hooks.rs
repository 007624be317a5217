//! Programs of the job's owner before and after a backup or a restore: to stop an application, to thaw a volume,
//! to tell somebody. Knows when they run and for how long; must not hand them a password.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Job, Site};
use crate::fault::{Fault, Result};
use crate::model::{BackupId, Event, EventKind, RunId, RunState};
use crate::source::child::{self, Program};

/// What runs before and after each backup of a job. The words are a program and its arguments;
/// empty: none.
#[derive(Debug, Clone)]
pub struct Hooks {
    /// It must succeed, or nothing is backed up.
    pub before: Vec<String>,
    /// It runs in every case, also when the backup failed or was cancelled.
    pub after: Vec<String>,
    /// It must succeed, or nothing that was restored is put in its place.
    pub before_restore: Vec<String>,
    /// It runs whatever became of the restore.
    pub after_restore: Vec<String>,
    /// How long each may take.
    pub limit: Duration,
}

/// Runs what comes before. Its failure is the run's.
pub(super) async fn before(job: &Job, id: &BackupId, cancel: &CancellationToken) -> Result<()> {
    let Some(hooks) = &job.hooks else { return Ok(()) };
    run(&hooks.before, "before the backup", job, id, None, hooks.limit, cancel).await
}

/// Runs what comes after. The backup is as good or bad as it was, whatever becomes of it.
pub(super) async fn after(
    job: &Job,
    id: &BackupId,
    state: RunState,
    most: Option<Duration>,
) -> Result<()> {
    let Some(hooks) = &job.hooks else { return Ok(()) };
    let limit = most.map_or(hooks.limit, |most| most.min(hooks.limit));
    // Its own: the run's may be why it comes to run at all.
    let cancel = CancellationToken::new();
    run(&hooks.after, "after the backup", job, id, Some(state), limit, &cancel).await
}

/// Runs what comes before a restore is put in its place: the application is stopped, for example.
pub(super) async fn before_restore(
    job: &Job,
    id: &BackupId,
    cancel: &CancellationToken,
) -> Result<()> {
    let Some(hooks) = &job.hooks else { return Ok(()) };
    run(&hooks.before_restore, "before the restore", job, id, None, hooks.limit, cancel).await
}

/// Runs what comes after, for the application must run again in every case.
pub(super) async fn after_restore(job: &Job, id: &BackupId, state: RunState) -> Result<()> {
    let Some(hooks) = &job.hooks else { return Ok(()) };
    let (words, cancel) = (&hooks.after_restore, CancellationToken::new());
    run(words, "after the restore", job, id, Some(state), hooks.limit, &cancel).await
}

async fn run(
    words: &[String],
    when: &str,
    job: &Job,
    id: &BackupId,
    state: Option<RunState>,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<()> {
    let Some((name, arguments)) = words.split_first() else { return Ok(()) };
    let doing = format!("the hook '{name}' that runs {when}");
    let path = child::locate(name).ok_or_else(|| {
        Fault::permanent(format!("{doing} is not there"))
            .hint(format!("install it here, or write its whole path; looked in {}", child::PATH))
    })?;
    let mut program = Program::new(path)
        .args(arguments)
        .env("RESPALDO_JOB", job.name.as_str())
        .env("RESPALDO_ID", id.to_string());
    if let Some(state) = state {
        program = program.env("RESPALDO_STATE", state.as_str());
    }
    let stop = cancel.child_token();
    let ended = tokio::select! {
        ended = tokio::time::timeout(limit, child::output(program, stop.clone())) => ended,
        () = cancel.cancelled() => return Err(Fault::cancelled("the run was stopped")),
    };
    match ended {
        Ok(Ok(said)) => {
            tracing::info!("{doing} is done");
            said.lines().for_each(|line| tracing::info!("{name}: {line}"));
            Ok(())
        }
        Ok(Err(fault)) => Err(Fault::new(fault.kind(), format!("{doing} failed")).cause(fault)),
        Err(_) => {
            stop.cancel();
            Err(Fault::transient(format!("{doing} took longer than its {limit:?} and was ended"))
                .hint("raise `timeout` in the job's hooks, or find out what it waits for"))
        }
    }
}

/// Tells people of a hook that failed after a backup: of what came before, the run's end tells.
pub(super) async fn tell(site: &Site, job: &Job, run: RunId, fault: &Fault) -> Result<()> {
    let summary = format!("what runs after the backup of '{}' failed", job.name);
    let event = Event {
        run: Some(run),
        details: vec![("What".into(), fault.chain())],
        hint: fault.next_step().map(str::to_owned),
        ..Event::new(EventKind::HookFailed, Some(job.name.clone()), site.clock.now(), summary)
    };
    site.tell(&event).await
}
