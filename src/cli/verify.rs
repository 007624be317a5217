//! `respaldo verify`: one backup on each destination that has it, or what is due by the job's schedule.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::args::Verify;
use super::key::identities;
use super::output::{self, Progress};
use super::restore::meant;
use super::{Desk, Exit, open, stop_token};
use crate::catalog::Request;
use crate::clock::Clock;
use crate::destination::Destination;
use crate::fault::{Context, Fault, Result};
use crate::job::{
    self, Choice, Control, Depth, Found, Job, Reread, Site, Spool, Verified, bytes, find, remember,
    send_messages, verify_due,
};
use crate::lock::Lock;
use crate::model::{Action, Deed, RunKind, RunState, Trigger};
use crate::{app, config};

pub(super) async fn verify(file: Option<&Path>, clock: Clock, wanted: Verify) -> Result<Exit> {
    let Some(url) = &wanted.from else {
        let desk = open(file, clock).await?;
        let job = desk.app.job(&wanted.job)?;
        if wanted.due {
            return due(&desk, job, wanted.json).await;
        }
        let all: Vec<Arc<dyn Destination>> = match &wanted.destination {
            Some(name) => vec![job.place(name)?.destination.clone()],
            None => job.places.iter().map(|place| place.destination.clone()).collect(),
        };
        return check(&desk.app.site, &desk.stop, &all, &wanted).await;
    };
    let written = config::destination(url, clock.now())?;
    let all = [app::destination("from", &written, None)?];
    // With a config its keys are known; without one, their signatures are of nobody known.
    match open(file, clock.clone()).await {
        Ok(desk) => check(&desk.app.site, &desk.stop, &all, &wanted).await,
        Err(fault) if file.is_some() => Err(fault),
        Err(_) => {
            let scratch = tempfile::tempdir().context("make a scratch folder")?;
            let site = app::bare_site(scratch.path(), clock).await?;
            check(&site, &stop_token()?, &all, &wanted).await
        }
    }
}

async fn check(
    site: &Site,
    stop: &CancellationToken,
    all: &[Arc<dyn Destination>],
    wanted: &Verify,
) -> Result<Exit> {
    let identities = identities(&wanted.unlock)?;
    let most = if wanted.stored { Depth::Stored } else { Depth::Whole };
    let job = wanted.job.parse()?;
    // `latest` is one backup, and the same on every destination.
    let id = meant(all, &job, wanted.id, wanted.label.as_deref()).await?;
    let first = find(all, &job, id, &site.trusted).await?;
    let id = Choice::Id(first.manifest.id);
    let control = Control::new(stop);
    let spool = Spool::create(site, &format!("verify-{}", uuid::Uuid::new_v4()), &control)?;
    let mut reports = Vec::new();
    let mut failed = false;
    for destination in all {
        let found: Found =
            match find(std::slice::from_ref(destination), &job, id, &site.trusted).await {
                Ok(found) => found,
                Err(fault) => {
                    output::say(&format!("{}: {}", destination.name(), fault.chain()));
                    failed = true;
                    continue;
                }
            };
        let control = Control::new(stop);
        let (meter, total) = (control.meter.clone(), found.manifest.read_bytes());
        let bar =
            Progress::show(destination.name().to_owned(), move || (meter.plain(), Some(total)));
        let session = spool.session();
        let deed = Deed::of(Action::Verify, &job).to(found.manifest.id);
        let deed = deed.saying(destination.name());
        let work = job::verify(site, found, most, &identities, session, &control.meter);
        let damaged = |verified: &Verified| {
            (!verified.ok).then(|| "it is not whole".to_owned()).map_or(Ok(None), Err)
        };
        let verified = site.audited_by(&site.actor, deed, work, damaged).await;
        bar.end();
        let verified = verified?;
        // What only looked at digests is no reason for the daemon to look less.
        if (most == Depth::Whole || !verified.ok) && wanted.from.is_none() {
            remember(site, &verified).await?;
        }
        failed |= !verified.ok;
        tell(&verified, most);
        reports.push(verified);
    }
    if wanted.json {
        output::json(&reports)?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn tell(verified: &Verified, most: Depth) {
    let word = match verified.ok {
        false => "NOT whole",
        true if !verified.archived.is_empty() => "archived, not read in full",
        true if most == Depth::Stored => "every stored byte is there",
        true => "whole",
    };
    output::say(&format!(
        "{} {} on {}: {word}, {} read",
        verified.job,
        verified.id,
        verified.destination,
        bytes(verified.bytes)
    ));
    verified.failures.iter().for_each(|line| output::say(&format!("  error: {line}")));
    verified.warnings.iter().for_each(|line| output::say(&format!("  warning: {line}")));
}

/// A run such as the daemon's, now.
async fn due(desk: &Desk, job: &Arc<Job>, json: bool) -> Result<Exit> {
    let site = &desk.app.site;
    if job.verify.is_none() {
        return Err(Fault::usage(format!("job '{}' has no `verify`", job.name))
            .hint("add verify = { schedule = \"@daily\", days = 30 } to it, or leave out --due"));
    }
    let lock = Lock::try_take(&site.lock_of(RunKind::Verify, &job.name));
    let Some(_lock) = lock.context("lock the verification")? else {
        return Err(Fault::transient(format!("job '{}' is being verified", job.name))
            .hint("`respaldo status` shows how far it is"));
    };
    let request = Request::own(&job.name, RunKind::Verify, Trigger::Manual);
    let run = site.catalog.add_run(&request, site.clock.now()).await?;
    let control = Control::new(&desk.stop);
    let (meter, progress) = (control.meter.clone(), control.clone());
    let bar = Progress::show(job.name.to_string(), move || (meter.plain(), progress.total()));
    let deed = Deed::of(Action::Verify, &job.name).to(format!("run {run}"));
    let trouble = |reread: &Reread| {
        (reread.state() != RunState::Succeeded)
            .then(|| reread.state().as_str().to_owned())
            .map_or(Ok(None), Err)
    };
    let work = verify_due(site, job, run, &control);
    let reread = site.audited_by(&site.actor, deed, work, trouble).await;
    bar.end();
    let reread = reread?;
    reread.read.iter().for_each(|read| tell(read, Depth::Whole));
    for copy in &reread.unread {
        output::say(&format!("error: {} on {}: {}", copy.id, copy.destination, copy.error));
    }
    if reread.read.is_empty() && reread.unread.is_empty() {
        output::say(&format!("{}: nothing is due", job.name));
    }
    if json {
        output::json(&reread.read)?;
    }
    if let Err(fault) = send_messages(site).await {
        tracing::error!("{}", fault.chain());
    }
    Ok(match reread.state() {
        RunState::Succeeded => Exit::Done,
        RunState::Partial => Exit::Partial,
        _ => Exit::Failed,
    })
}
