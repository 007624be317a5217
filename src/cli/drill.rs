//! `respaldo drill`: whether a backup restores, tried now.

use std::path::Path;
use std::sync::Arc;

use super::args::Drill;
use super::key::identities;
use super::output::{self, Progress};
use super::{Desk, Exit, open, stop_token};
use crate::catalog::Request;
use crate::clock::Clock;
use crate::destination::Destination;
use crate::fault::{Context, Fault, Result};
use crate::job::{self, Control, DrillRequest, Drilled, Job, Site, count, send_messages};
use crate::lock::Lock;
use crate::model::{Action, Deed, JobName, RunKind, SourceFacts, Trigger};
use crate::source::Source;
use crate::{app, config};

pub(super) async fn drill(file: Option<&Path>, clock: Clock, wanted: Drill) -> Result<Exit> {
    let Some(url) = &wanted.from else {
        let desk = open(file, clock).await?;
        let job = desk.app.job(&wanted.job)?.clone();
        let mut request = match &wanted.destination {
            Some(name) => DrillRequest::of(&job, [job.place(name)?]),
            None if wanted.id == job::Choice::Latest => {
                DrillRequest::next(&desk.app.site, &job).await?
            }
            None => DrillRequest::of(&job, &job.places),
        };
        complete(&mut request, &wanted)?;
        return hold(&desk.app.site, Some(&job), request, &wanted, Control::new(&desk.stop)).await;
    };
    let written = config::destination(url, clock.now())?;
    let destination = app::destination("from", &written, None)?;
    match open(file, clock.clone()).await {
        Ok(desk) => from_url(&desk.app.site, Some(&desk), destination, &wanted).await,
        Err(fault) if file.is_some() => Err(fault),
        Err(_) => {
            let scratch = tempfile::tempdir().context("make a scratch folder")?;
            let site = Arc::new(app::bare_site(scratch.path(), clock).await?);
            from_url(&site, None, destination, &wanted).await
        }
    }
}

/// With a config its keys and its checks are known; without one, nothing but what the backup says.
async fn from_url(
    site: &Arc<Site>,
    desk: Option<&Desk>,
    destination: Arc<dyn Destination>,
    wanted: &Drill,
) -> Result<Exit> {
    let name: JobName = wanted.job.parse()?;
    let job = desk.and_then(|desk| desk.app.job(name.as_str()).ok());
    let mut request = match job {
        Some(job) => DrillRequest::of(job, []),
        None => DrillRequest::without_config(name),
    };
    request.from = vec![(destination, job.and_then(|job| job.max_age))];
    complete(&mut request, wanted)?;
    let control = match desk {
        Some(desk) => Control::new(&desk.stop),
        None => Control::new(&stop_token()?),
    };
    hold(site, job, request, wanted, control).await
}

fn complete(request: &mut DrillRequest, wanted: &Drill) -> Result<()> {
    (request.choice, request.trust) = (wanted.id, wanted.trust);
    request.identities = identities(&wanted.unlock)?;
    Ok(())
}

async fn hold(
    site: &Arc<Site>,
    job: Option<&Arc<Job>>,
    request: DrillRequest,
    wanted: &Drill,
    control: Control,
) -> Result<Exit> {
    let lock = Lock::try_take(&site.lock_of(RunKind::Drill, &request.job));
    let Some(_lock) = lock.context("lock the drill")? else {
        return Err(Fault::transient(format!("a drill of job '{}' is running", request.job))
            .hint("`respaldo status` shows how far it is"));
    };
    let run = Request::own(&request.job, RunKind::Drill, Trigger::Manual);
    let run = site.catalog.add_run(&run, site.clock.now()).await?;
    let choose = |facts: &SourceFacts| -> Result<Arc<dyn Source>> {
        match job.and_then(|job| job::source_for(job, facts)) {
            Some(source) => Ok(source),
            None => app::loader(facts.engine, &facts.name),
        }
    };
    let (meter, progress) = (control.meter.clone(), control.clone());
    let bar = Progress::show(request.job.to_string(), move || (meter.plain(), progress.total()));
    let deed = Deed::of(Action::Drill, &request.job).to(format!("run {}", run));
    let work = job::drill(site, run, &request, choose, &control);
    let unproven = |drilled: &Drilled| drilled.trouble().map(str::to_owned).map_or(Ok(None), Err);
    let drilled = site.audited_by(&site.actor, deed, work, unproven).await;
    bar.end();
    let drilled = drilled?;
    tell(&drilled);
    if wanted.json {
        output::json(&drilled)?;
    }
    if let Err(fault) = send_messages(site).await {
        tracing::error!("{}", fault.chain());
    }
    Ok(if drilled.proven { Exit::Done } else { Exit::Failed })
}

fn tell(drilled: &Drilled) {
    drilled.notes.iter().for_each(|note| output::say(&format!("note: {note}")));
    let lines = drilled.unprovable.iter().chain(&drilled.failures);
    lines.for_each(|line| output::say(&format!("error: {line}")));
    if let Some(hint) = drilled.next_step() {
        output::say(&format!("hint: {hint}"));
    }
    let id = drilled.id.map_or("no backup".to_owned(), |id| id.to_string());
    let from = &drilled.destination;
    // Of a server that is backed up whole no table is counted.
    let held = match drilled.tables.len() {
        0 => String::new(),
        tables => format!("{} tables, {} rows, ", count(tables as u64), count(drilled.rows())),
    };
    output::say(&match (drilled.proven, &drilled.unprovable) {
        (true, _) => format!("proven: {id} from '{from}': {held}{:.1} s", drilled.seconds),
        (_, Some(_)) => format!("not provable here: {id} from '{from}'"),
        _ => format!("NOT proven: {id} from '{from}'"),
    });
}
