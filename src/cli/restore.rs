//! `respaldo restore` and `respaldo undo`: the plan, the question, and the doing.

mod given;
mod list;
mod recovery;

use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::args::{Restore, Undo};
use super::key::identities;
use super::output::{self, Progress};
use super::{Desk, Exit, open, stop_token};
use crate::app;
use crate::catalog::Request;
use crate::clock::{Clock, Stopwatch};
use crate::config;
use crate::destination::Destination;
use crate::fault::{Context, Fault, Result};
use crate::job::{
    self, Choice, Control, Job, RestoreRequest, Restored, Site, Spool, find, labelled,
};
use crate::lock::Lock;
use crate::model::{Action, Deed, JobName, RunKind, SourceFacts, TableName, Trigger};
use crate::source::{Piece, Source};

pub(super) async fn restore(file: Option<&Path>, clock: Clock, wanted: Restore) -> Result<Exit> {
    if wanted.given.list {
        return list::list(&open(file, clock).await?, &wanted).await;
    }
    if wanted.given.file.is_some() || wanted.given.db.is_some() || wanted.given.media.is_some() {
        return given::restore(file, clock, wanted).await;
    }
    if let Some(data_dir) = wanted.recovery.data_dir.clone() {
        return recovery::recover(file, clock, &wanted, data_dir).await;
    }
    let Some(url) = wanted.from.clone() else {
        let desk = open(file, clock).await?;
        return match wanted.all.is_empty() {
            true => from_config(&desk, wanted).await,
            false => together(&desk, wanted).await,
        };
    };
    let written = config::destination(&url, clock.now())?;
    let destination = app::destination("from", &written, None)?;
    // With a config its keys are known and its source says where to; without one, neither is needed.
    match open(file, clock.clone()).await {
        Ok(desk) => from_url(&desk.app.site, Some(&desk), destination, wanted, &clock).await,
        Err(fault) if file.is_some() => Err(fault),
        Err(_) => {
            let scratch = tempfile::tempdir().context("make a scratch folder")?;
            let site = Arc::new(app::bare_site(scratch.path(), clock.clone()).await?);
            from_url(&site, None, destination, wanted, &clock).await
        }
    }
}

/// The backup that a label means, or else the one that is named.
pub(super) async fn meant(
    all: &[Arc<dyn Destination>],
    job: &JobName,
    id: Choice,
    label: Option<&str>,
) -> Result<Choice> {
    match label {
        Some(label) => Ok(Choice::Id(labelled(all, job, label).await?)),
        None => Ok(id),
    }
}

async fn from_config(desk: &Desk, wanted: Restore) -> Result<Exit> {
    let job = desk.app.job(wanted.job.as_deref().unwrap_or_default())?;
    let all: Vec<Arc<dyn Destination>> = match &wanted.destination {
        Some(name) => vec![job.place(name)?.destination.clone()],
        None => job.places.iter().map(|place| place.destination.clone()).collect(),
    };
    let id = meant(&all, &job.name, wanted.id, wanted.label.as_deref()).await?;
    let found = find(&all, &job.name, id, &desk.app.site.trusted).await?;
    let choose = |facts: &SourceFacts| source_of(job, facts);
    let doing = Doing { site: &desk.app.site, job: Some(job), stop: &desk.stop };
    doing.carry_out(found, choose, wanted).await
}

async fn from_url(
    site: &Arc<Site>,
    desk: Option<&Desk>,
    destination: Arc<dyn Destination>,
    wanted: Restore,
    clock: &Clock,
) -> Result<Exit> {
    let name: JobName = wanted.job.as_deref().unwrap_or_default().parse()?;
    let all = [destination];
    let id = meant(&all, &name, wanted.id, wanted.label.as_deref()).await?;
    let found = find(&all, &name, id, &site.trusted).await?;
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
    Doing { site, job: configured, stop: &stop }.carry_out(found, choose, wanted).await
}

/// A restore, and whose it is.
struct Doing<'a> {
    site: &'a Arc<Site>,
    /// `None`: no config knows it, and nothing of it is written down.
    job: Option<&'a Arc<Job>>,
    stop: &'a CancellationToken,
}

impl Doing<'_> {
    async fn carry_out(
        &self,
        found: job::Found,
        choose: impl Fn(&SourceFacts) -> Result<Arc<dyn Source>>,
        wanted: Restore,
    ) -> Result<Exit> {
        let control = Control::new(self.stop);
        let spool = self.spool(&control)?;
        let plan = self.plan(found, choose, &wanted, wanted.trust, &spool).await?;
        self.begin(vec![plan], self.job.into_iter().cloned().collect(), &wanted, &control).await
    }

    fn spool(&self, control: &Control) -> Result<Spool> {
        Spool::create(self.site, &format!("restore-{}", uuid::Uuid::new_v4()), control)
    }

    /// `trust`: without a signature that is known.
    async fn plan(
        &self,
        found: job::Found,
        choose: impl Fn(&SourceFacts) -> Result<Arc<dyn Source>>,
        wanted: &Restore,
        trust: bool,
        spool: &Spool,
    ) -> Result<job::Restore> {
        let site = self.site;
        // Of somebody else's backups this installation's own memory says nothing.
        let own = wanted.from.is_none().then_some(site.as_ref());
        let request = RestoreRequest {
            database: wanted.database.clone(),
            path: wanted.to.clone(),
            paths: wanted.path.clone(),
            artifacts: wanted.artifact.clone(),
            no_owner: wanted.no_owner,
            create_roles: wanted.create_roles,
            jobs: wanted.jobs.map(|jobs| usize::from(jobs.get())),
            unchecked: wanted.unchecked,
            in_place: wanted.in_place,
            piece: piece(wanted)?,
            into: wanted.into.clone(),
            rows: wanted.rows.clone(),
            trust,
            identities: identities(&wanted.unlock)?,
            erasures: job::to_reapply(&found, own, &site.trusted, wanted.trust).await?,
        };
        job::Restore::plan(found, choose, &request, spool.session()).await
    }

    /// Shows the plans, asks, and carries them out as one.
    async fn begin(
        &self,
        plans: Vec<job::Restore>,
        jobs: Vec<Arc<Job>>,
        wanted: &Restore,
        control: &Control,
    ) -> Result<Exit> {
        for line in plans.iter().flat_map(|plan| plan.lines(self.site)) {
            output::say(&line);
        }
        if wanted.dry_run {
            return Ok(Exit::Done);
        }
        plans.iter().try_for_each(job::Restore::check)?;
        if !wanted.yes {
            let names: Vec<String> = plans.iter().map(job::Restore::target_name).collect();
            confirm(&names.join(" "))?;
        }
        let total = plans.iter().map(job::Restore::plain_bytes).sum();
        let meter = control.meter.clone();
        let watch = Stopwatch::start();
        let bar = Progress::show("restore".to_owned(), move || (meter.plain(), Some(total)));
        let done = self.run(plans, &jobs, control).await;
        bar.end();
        let done = done?;
        done.said.iter().for_each(|line| output::say(line));
        output::say(&format!("restored in {:.1} s", watch.elapsed().as_secs_f64()));
        for job in jobs.iter().filter(|_| done.can_undo) {
            output::say(&format!("`respaldo undo {}` takes it back", job.name));
        }
        Ok(Exit::Done)
    }

    async fn run(
        &self,
        plans: Vec<job::Restore>,
        jobs: &[Arc<Job>],
        control: &Control,
    ) -> Result<Restored> {
        let site = self.site;
        // A backup in the midst of it would be sent away.
        let _locks = jobs.iter().map(|job| hold(site, job)).collect::<Result<Vec<_>>>()?;
        let all = |of: fn(&job::Restore) -> String| plans.iter().map(of).collect::<Vec<_>>();
        let deed = Deed {
            job: jobs.first().map(|job| job.name.clone()),
            ..Deed::new(Action::Restore)
                .to(all(job::Restore::target_name).join(" "))
                .saying(all(job::Restore::words).join(", "))
        };
        let work = async {
            let Some(job) = jobs.first() else {
                return job::restore(site, plans, jobs, control).await;
            };
            let request = Request::own(&job.name, RunKind::Restore, Trigger::Manual);
            let run = site.catalog.add_run(&request, site.clock.now()).await?;
            job::restore_run(site, (job, run), jobs, plans, control).await
        };
        site.audited(&site.actor, deed, work).await
    }
}

/// Several jobs, each from its backup that is nearest to the moment of the first one's: all of it is
/// loaded before any of it is put in place.
async fn together(desk: &Desk, wanted: Restore) -> Result<Exit> {
    let jobs: Vec<Arc<Job>> =
        wanted.all.iter().map(|name| desk.app.job(name).cloned()).collect::<Result<_>>()?;
    let control = Control::new(&desk.stop);
    let (mut moment, mut plans, mut spools) = (wanted.id, Vec::new(), Vec::new());
    for job in &jobs {
        let all: Vec<_> = job.places.iter().map(|place| place.destination.clone()).collect();
        let id = match moment {
            Choice::Latest => Choice::Latest,
            Choice::Id(id) => Choice::Id(job::nearest(&desk.app.site, &job.name, &id).await?),
        };
        let found = find(&all, &job.name, id, &desk.app.site.trusted).await?;
        if let Choice::Latest = moment {
            moment = Choice::Id(found.manifest.id);
        }
        let choose = |facts: &SourceFacts| source_of(job, facts);
        let doing = Doing { site: &desk.app.site, job: Some(job), stop: &desk.stop };
        let spool = doing.spool(&control)?;
        plans.push(doing.plan(found, choose, &wanted, wanted.trust, &spool).await?);
        spools.push(spool);
    }
    let doing = Doing { site: &desk.app.site, job: jobs.first(), stop: &desk.stop };
    doing.begin(plans, jobs.clone(), &wanted, &control).await
}

fn source_of(job: &Job, facts: &SourceFacts) -> Result<Arc<dyn Source>> {
    job::source_for(job, facts).ok_or_else(|| {
        Fault::usage(format!("job '{}' backs up no {} now", job.name, facts.engine.as_str()))
            .hint("restore it with --from URL, on a machine without this config")
    })
}

/// What --schema or --table ask for.
fn piece(wanted: &Restore) -> Result<Option<Piece>> {
    if let Some(schema) = &wanted.schema {
        return Ok(Some(Piece::Schema(schema.clone())));
    }
    if let Some(text) = &wanted.table {
        let Some((schema, table)) = text.split_once('.') else {
            return Err(
                Fault::usage(format!("'{text}' names no schema")).hint("for example public.orders")
            );
        };
        let name = TableName { schema: schema.to_owned(), table: table.to_owned() };
        return Ok(Some(Piece::Table(name)));
    }
    if wanted.into.is_some() || wanted.rows.is_some() {
        return Err(Fault::usage("--into and --where go with --schema or --table")
            .hint("a whole database gets another name with --database NAME"));
    }
    Ok(None)
}

/// Nothing else of the job goes on meanwhile.
fn hold(site: &Site, job: &Job) -> Result<Lock> {
    Lock::try_take(&site.job_lock(&job.name)).context("lock the job")?.ok_or_else(|| {
        Fault::transient(format!("a run of job '{}' is under way", job.name))
            .hint("`respaldo status` shows it; wait for it, or stop it with `respaldo cancel RUN`")
    })
}

/// `respaldo undo`: what the last restore replaced, put back.
pub(super) async fn undo(desk: &Desk, wanted: Undo) -> Result<Exit> {
    let site = &desk.app.site;
    let job = desk.app.job(&wanted.job)?;
    let replaced = job::undo_plan(site, job).await?;
    for one in &replaced {
        output::say(&format!(
            "'{}' was restored from {} at {}; '{}', which is what it was before, takes its place again",
            one.current,
            one.backup,
            one.at.strftime("%Y-%m-%d %H:%M UTC"),
            one.kept
        ));
    }
    if !wanted.yes {
        confirm(&replaced.iter().map(|one| one.current.as_str()).collect::<Vec<_>>().join(" "))?;
    }
    let _lock = hold(site, job)?;
    let control = Control::new(&desk.stop);
    let spool = Spool::create(site, &format!("undo-{}", uuid::Uuid::new_v4()), &control)?;
    let deed = Deed::of(Action::Undo, &job.name).to(replaced
        .iter()
        .map(|one| one.current.as_str())
        .collect::<Vec<_>>()
        .join(" "));
    let work = job::undo(site, job, &replaced, spool.session());
    for line in site.audited(&site.actor, deed, work).await? {
        output::say(&line);
    }
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
