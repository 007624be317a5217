//! `respaldo config`: is it right, what is it, what can it be, and a first one.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::args::Config;
use super::{Exit, load, output};
use crate::app::{App, person};
use crate::clock::Clock;
use crate::config::{schema, show, template};
use crate::durable::{self, Existing};
use crate::fault::{Fault, Result};
use crate::job::{Control, Job, Spool, bytes, look_at_server, look_at_space, rooms, uncovered};
use crate::model::RunKind;

/// A place that does not answer is said to be down, and the next one is tried.
const ANSWER: Duration = Duration::from_secs(60);

pub(super) async fn config(file: Option<&Path>, clock: Clock, command: Config) -> Result<Exit> {
    match command {
        Config::Check => check(file, clock).await,
        Config::Show => {
            let loaded = load(file, &clock)?;
            warn(&loaded.warnings);
            output::data(&show(&loaded.settings))?;
            Ok(Exit::Done)
        }
        Config::Schema => {
            output::json(&schema())?;
            Ok(Exit::Done)
        }
        Config::Init { file: None } => {
            output::data(template())?;
            Ok(Exit::Done)
        }
        Config::Init { file: Some(path) } => init(&path),
    }
}

fn init(path: &Path) -> Result<Exit> {
    let doing = format!("write {}", path.display());
    durable::write(path, template().as_bytes(), Existing::Refuse).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AlreadyExists => "it exists: name another file, or move it away",
            _ => "name a file in a folder that you may write",
        };
        Fault::usage(doing).cause(error).hint(hint)
    })?;
    output::say(&format!(
        "wrote {0}; edit it, then: respaldo --config {0} config check",
        path.display()
    ));
    Ok(Exit::Done)
}

async fn check(file: Option<&Path>, clock: Clock) -> Result<Exit> {
    let loaded = load(file, &clock)?;
    match loaded.files.as_slice() {
        [] => output::say("config: the environment"),
        files => {
            files.iter().for_each(|file| output::say(&format!("config: {}", file.display())));
        }
    }
    warn(&loaded.warnings);
    let app = App::open(&loaded, clock, person()).await?;
    let stop = super::stop_token()?;
    let control = Control::new(&stop);
    let spool = Spool::create(&app.site, &format!("check-{}", uuid::Uuid::new_v4()), &control)?;
    let mut well = true;
    for job in &app.jobs {
        output::data(&format!("job {}\n", job.name))?;
        for line in next_runs(&app, job, RunKind::Backup) {
            output::data(&format!("  next    {line}\n"))?;
        }
        for line in job.incremental.iter().flat_map(|_| next_runs(&app, job, RunKind::Incremental))
        {
            output::data(&format!("  changes {line}\n"))?;
        }
        let mut reached = true;
        for source in &job.sources {
            let inspected = within(source.inspect(spool.session())).await;
            reached &= inspected.is_ok();
            well &= say(
                "source",
                &format!("{} ", source.engine().as_str()),
                inspected.map(|facts| {
                    let size = facts.size_bytes.map(bytes).unwrap_or_default();
                    format!("{} {} {size}", facts.name, facts.server_version.unwrap_or_default())
                }),
            )?;
        }
        // What keeps it from being asked was told of above.
        if reached && let Some(looked) = within(look_at_server(job)).await.transpose() {
            well &= say("changes", "", looked)?;
        }
        for place in &job.places {
            let destination = &place.destination;
            let checked = within(destination.check()).await;
            let name = format!("{} ", destination.name());
            well &= say("store", &name, checked.map(|()| destination.place()))?;
        }
    }
    look_at_space(&app.site, &app.jobs).await?;
    for place in rooms(&app.site, &app.jobs).await?.iter().filter(|p| p.is_worth_a_word()) {
        output::say(&format!("warning: {}", place.sentence()));
    }
    for warning in uncovered(&app.site, &app.jobs).await {
        output::say(&format!("warning: {warning}"));
    }
    Ok(if well { Exit::Done } else { Exit::Failed })
}

fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| output::say(&format!("warning: {warning}")));
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(ANSWER, work).await {
        Ok(done) => done,
        Err(_) => Err(Fault::transient(format!("no answer in {} s", ANSWER.as_secs()))),
    }
}

fn say(what: &str, name: &str, found: Result<String>) -> Result<bool> {
    match found {
        Ok(text) => output::data(&format!("  {what:<7} {name}ok: {}\n", text.trim()))?,
        Err(fault) => {
            output::data(&format!("  {what:<7} {name}FAILED: {}\n", fault.chain()))?;
            if let Some(hint) = fault.next_step() {
                output::data(&format!("          hint: {hint}\n"))?;
            }
            return Ok(false);
        }
    }
    Ok(true)
}

fn next_runs(app: &App, job: &Job, kind: RunKind) -> Vec<String> {
    let mut at = app.site.clock.now();
    let mut lines = Vec::new();
    for _ in 0..3 {
        let Some(next) = job.next_time(kind, at) else { break };
        let zoned = next.to_zoned(job.schedule.zone().clone());
        lines.push(zoned.strftime("%a %Y-%m-%d %H:%M %Z").to_string());
        at = next;
    }
    if lines.is_empty() {
        lines.push("only when asked to".to_owned());
    }
    lines
}
