//! `respaldo restore`: the plan, the question, and the doing.

use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::sync::Arc;

use super::args::Restore;
use super::key::identities;
use super::output::{self, Progress};
use super::{Desk, Exit, open, stop_token};
use crate::app;
use crate::clock::{Clock, Stopwatch};
use crate::config;
use crate::destination::Destination;
use crate::fault::{Context, Fault, Result};
use crate::job::{self, Control, RestoreRequest, Site, Spool, find};
use crate::model::{JobName, SourceFacts};
use crate::source::Source;

pub(super) async fn restore(file: Option<&Path>, clock: Clock, wanted: Restore) -> Result<Exit> {
    let Some(url) = wanted.from.clone() else {
        let desk = open(file, clock).await?;
        return from_config(&desk, wanted).await;
    };
    let written = config::destination(&url, clock.now())?;
    let destination = app::destination("from", &written, None)?;
    // With a config its keys are known and its source says where to; without one, neither is needed.
    match open(file, clock.clone()).await {
        Ok(desk) => from_url(&desk.app.site, Some(&desk), destination, wanted, &clock).await,
        Err(fault) if file.is_some() => Err(fault),
        Err(_) => {
            let scratch = tempfile::tempdir().context("make a scratch folder")?;
            let site = app::bare_site(scratch.path(), clock.clone()).await?;
            from_url(&site, None, destination, wanted, &clock).await
        }
    }
}

async fn from_config(desk: &Desk, wanted: Restore) -> Result<Exit> {
    let job = desk.app.job(&wanted.job)?;
    let all: Vec<Arc<dyn Destination>> = match &wanted.destination {
        Some(name) => vec![job.place(name)?.destination.clone()],
        None => job.places.iter().map(|place| place.destination.clone()).collect(),
    };
    let found = find(&all, &job.name, wanted.id, &desk.app.site.trusted).await?;
    let control = Control::new(&desk.stop);
    let choose = |facts: &SourceFacts| {
        job::source_for(job, facts).ok_or_else(|| {
            Fault::usage(format!("job '{}' backs up no {} now", job.name, facts.engine.as_str()))
                .hint("restore it with --from URL, on a machine without this config")
        })
    };
    carry_out(&desk.app.site, found, choose, wanted, control).await
}

async fn from_url(
    site: &Site,
    desk: Option<&Desk>,
    destination: Arc<dyn Destination>,
    wanted: Restore,
    clock: &Clock,
) -> Result<Exit> {
    let name: JobName = wanted.job.parse()?;
    let found = find(&[destination], &name, wanted.id, &site.trusted).await?;
    let configured = desk.and_then(|desk| desk.app.job(name.as_str()).ok());
    let database = wanted.database.clone();
    let choose = |facts: &SourceFacts| match configured.and_then(|job| job::source_for(job, facts))
    {
        Some(source) => Ok(source),
        None => {
            let database = database.as_ref().unwrap_or(&facts.name);
            app::ambient_source(facts.engine, database, clock)
        }
    };
    let stop = match desk {
        Some(desk) => desk.stop.clone(),
        None => stop_token()?,
    };
    carry_out(site, found, choose, wanted, Control::new(&stop)).await
}

async fn carry_out(
    site: &Site,
    found: job::Found,
    choose: impl Fn(&SourceFacts) -> Result<Arc<dyn Source>>,
    wanted: Restore,
    control: Control,
) -> Result<Exit> {
    // Of somebody else's backups this installation's own memory says nothing.
    let own = wanted.from.is_none().then_some(site);
    let erasures = job::to_reapply(&found, own, &site.trusted, wanted.trust).await?;
    let spool = Spool::create(site, &format!("restore-{}", uuid::Uuid::new_v4()), &control)?;
    let request = RestoreRequest {
        database: wanted.database,
        path: wanted.to,
        artifacts: wanted.artifact,
        no_owner: wanted.no_owner,
        create_roles: wanted.create_roles,
        jobs: wanted.jobs.map(|jobs| usize::from(jobs.get())),
        unchecked: wanted.unchecked,
        trust: wanted.trust,
        identities: identities(&wanted.unlock)?,
        erasures,
    };
    let plan = job::Restore::plan(found, choose, &request, spool.session()).await?;
    for line in plan.lines(site) {
        output::say(&line);
    }
    if wanted.dry_run {
        return Ok(Exit::Done);
    }
    plan.check()?;
    if !wanted.yes {
        confirm(&plan.target_name())?;
    }
    let (meter, total) = (control.meter.clone(), plan.plain_bytes());
    let watch = Stopwatch::start();
    let bar = Progress::show("restore".to_owned(), move || (meter.plain(), Some(total)));
    let done = plan.run(site, &control.meter).await;
    bar.end();
    for line in done?.said {
        output::say(&line);
    }
    output::say(&format!("restored in {:.1} s", watch.elapsed().as_secs_f64()));
    Ok(Exit::Done)
}

/// The target's name, typed: a habit of pressing `y` restores nothing.
pub(super) fn confirm(name: &str) -> Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Fault::usage("nobody is there to confirm").hint("add --yes"));
    }
    output::say(&format!("type {name} to go on:"));
    let mut typed = String::new();
    stdin.lock().read_line(&mut typed).context("read the answer")?;
    if typed.trim() == name {
        return Ok(());
    }
    Err(Fault::cancelled("not confirmed: nothing was changed"))
}
