//! `respaldo restore --file`, `--db`, `--media`: dumps on disk, as the scripts before respaldo made them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::args::Restore;
use super::super::output::{self, Progress};
use super::super::{Desk, Exit, open, stop_token};
use super::Doing;
use crate::app;
use crate::clock::Clock;
use crate::fault::{Context, Fault, Result};
use crate::job::{self, Control, Given, Job, Site, Spool, bytes, check_given};
use crate::model::{Engine, SourceFacts};
use crate::source::Source;

/// The folders in which scripts keep their dumps below the one for backups.
const SHELVES: [&str; 3] = ["", "db", "media"];

pub(super) async fn restore(file: Option<&Path>, clock: Clock, wanted: Restore) -> Result<Exit> {
    // Without a config a file can be read all the same, and loaded where the environment says.
    let (desk, scratch) = match open(file, clock.clone()).await {
        Ok(desk) => (Some(desk), None),
        Err(fault) if file.is_some() => return Err(fault),
        Err(_) => (None, Some(tempfile::tempdir().context("make a scratch folder")?)),
    };
    let bare = match &scratch {
        Some(scratch) => Some(Arc::new(app::bare_site(scratch.path(), clock.clone()).await?)),
        None => None,
    };
    let site: &Arc<Site> = match (&desk, &bare) {
        (Some(desk), _) => &desk.app.site,
        (None, Some(site)) => site,
        (None, None) => return Err(Fault::permanent("there is no data folder")),
    };
    let stop = desk.as_ref().map_or_else(stop_token, |desk| Ok(desk.stop.clone()))?;
    let words = &wanted.given;
    let named = [(&words.file, None), (&words.db, Some(true)), (&words.media, Some(false))];
    let control = Control::new(&stop);
    let (mut plans, mut jobs, mut spools) = (Vec::new(), Vec::<Arc<Job>>::new(), Vec::new());
    if wanted.to.is_some() && words.db.is_some() && words.media.is_some() {
        return Err(Fault::usage("--to can't mean both a database and files")
            .hint("restore them one after the other"));
    }
    for (path, is_database) in named {
        let Some(path) = path else { continue };
        let given = read(site, &find(desk.as_ref(), path), &Control::new(&stop)).await?;
        check_kind(&given, is_database)?;
        if words.verify_only {
            return verify(site, &given, &Control::new(&stop)).await;
        }
        let (found, source) = match into(desk.as_ref(), &wanted, &given)? {
            Some((job, source)) => {
                let found = given.found(job.name.clone(), &source.name())?;
                if !jobs.iter().any(|known| known.name == job.name) {
                    jobs.push(job);
                }
                (found, Some(source))
            }
            None => {
                let database = wanted.database.as_deref().unwrap_or_default();
                (given.found("given".parse()?, database)?, None)
            }
        };
        let choose = |facts: &SourceFacts| match &source {
            Some(source) => Ok(source.clone()),
            None => app::ambient_source(facts.engine, &facts.name, &clock),
        };
        let doing = Doing { site, job: None, stop: &stop };
        let spool = doing.spool(&control)?;
        plans.push(doing.plan(found, choose, &wanted, true, &spool).await?);
        spools.push(spool);
    }
    let doing = Doing { site, job: jobs.first(), stop: &stop };
    doing.begin(plans, jobs.clone(), &wanted, &control).await
}

/// The file as it was named, or of that name where the backups are.
fn find(desk: Option<&Desk>, path: &Path) -> PathBuf {
    if path.exists() || path.components().count() > 1 {
        return path.to_owned();
    }
    let shelves = desk.map(shelves).unwrap_or_default();
    let there = shelves.into_iter().map(|folder| folder.join(path)).find(|path| path.is_file());
    there.unwrap_or_else(|| path.to_owned())
}

/// The folders where dumps may lie beside backups.
pub(super) fn shelves(desk: &Desk) -> Vec<PathBuf> {
    let places = desk.app.jobs.iter().flat_map(|job| &job.places);
    let local = places.filter(|place| place.destination.is_local());
    let mut roots: Vec<PathBuf> = local
        .filter_map(|place| place.destination.place().strip_prefix("file://").map(PathBuf::from))
        .collect();
    roots.sort();
    roots.dedup();
    roots.iter().flat_map(|root| SHELVES.map(|shelf| root.join(shelf))).collect()
}

async fn read(site: &Site, path: &Path, control: &Control) -> Result<Given> {
    let meter = control.meter.clone();
    let bar = Progress::show("read".to_owned(), move || (meter.plain(), None));
    let given = job::given(site, path, &control.meter).await;
    bar.end();
    let given = given?;
    for sums in given.sums() {
        output::say(&format!("as {} says", sums.display()));
    }
    Ok(given)
}

fn check_kind(given: &Given, is_database: Option<bool>) -> Result<()> {
    let is = given.engine() != Engine::Files;
    let path = given.path().display();
    match is_database {
        Some(true) if !is => Err(Fault::usage(format!("{path} is a tar of files"))
            .hint(format!("restore it with --media {path}"))),
        Some(false) if is => Err(Fault::usage(format!("{path} is of a database"))
            .hint(format!("restore it with --db {path}"))),
        _ => Ok(()),
    }
}

async fn verify(site: &Site, given: &Given, control: &Control) -> Result<Exit> {
    let spool = Spool::create(site, &format!("verify-{}", uuid::Uuid::new_v4()), control)?;
    let (meter, total) = (control.meter.clone(), given.plain_bytes());
    let bar = Progress::show("verify".to_owned(), move || (meter.plain(), Some(total)));
    let checked = check_given(site, given, spool.session(), &control.meter).await;
    bar.end();
    checked?;
    output::say(&format!(
        "{}: whole, {} of {} read",
        given.path().display(),
        bytes(given.plain_bytes()),
        given.engine().as_str()
    ));
    if given.sums().is_empty() {
        output::say("no .sha256 or .md5 lies beside it to compare it with");
    }
    Ok(Exit::Done)
}

/// A job, and one of its sources.
type Home = (Arc<Job>, Arc<dyn Source>);

/// The job and its source that the dump goes into: the one that was named, else the only one of its
/// kind. `None`: there is no config, and the environment or --to says where to.
fn into(desk: Option<&Desk>, wanted: &Restore, given: &Given) -> Result<Option<Home>> {
    let Some(desk) = desk else { return Ok(None) };
    let engine = given.engine();
    let jobs: Vec<Arc<Job>> = match &wanted.job {
        Some(name) => vec![desk.app.job(name)?.clone()],
        None => desk.app.jobs.clone(),
    };
    let mut all = Vec::new();
    for job in jobs {
        let sources: Vec<_> =
            job.sources.iter().filter(|s| s.engine() == engine).cloned().collect();
        all.extend(sources.into_iter().map(|source| (job.clone(), source)));
    }
    // Of several databases the one that the file's name speaks of.
    let name = given.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    if wanted.job.is_some() && all.len() > 1 {
        let named = |source: &Arc<dyn Source>| name.contains(&source.name());
        all.sort_by_key(|(_, source)| !named(source));
        if all.first().is_some_and(|(_, source)| named(source)) {
            all.truncate(1);
        }
    }
    let names = |all: &[Home]| {
        let names: Vec<String> =
            all.iter().map(|(j, s)| format!("{} ({})", j.name, s.name())).collect();
        names.join(", ")
    };
    match all.as_slice() {
        [_] => Ok(all.pop()),
        [] if wanted.to.is_some() && wanted.job.is_none() => Ok(None),
        [] => Err(Fault::usage(format!("no job backs up {}", engine.as_str()))
            .hint("add one to the config, or name a new file or folder with --to")),
        several => Err(Fault::usage(format!("{name} could go into: {}", names(several)))
            .hint("name the job; of several databases of one job, call the file as the database")),
    }
}
