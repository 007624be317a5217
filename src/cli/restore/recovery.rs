//! `respaldo restore --data-dir`: a server as it was at a moment, as a folder to start it on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::super::args::Restore;
use super::super::key::identities;
use super::super::output::{self, Progress};
use super::super::{Exit, open, stop_token};
use super::confirm;
use crate::catalog::Request;
use crate::clock::{Clock, Stopwatch};
use crate::destination::Destination;
use crate::fault::{Context, Fault, Result};
use crate::job::{Control, Job, Pitr, PitrRequest, Site, Spool};
use crate::model::{Action, Deed, RunKind, Trigger};
use crate::wal::Moment;
use crate::{app, config};

pub(super) async fn recover(
    file: Option<&Path>,
    clock: Clock,
    wanted: &Restore,
    data_dir: PathBuf,
) -> Result<Exit> {
    let name = wanted.job.as_deref().unwrap_or_default();
    let scratch = tempfile::tempdir().context("make a scratch folder")?;
    // With a config its keys and its time zone are known; without one, neither is needed.
    let desk = match open(file, clock.clone()).await {
        Ok(desk) => Some(desk),
        Err(fault) if file.is_some() || wanted.from.is_none() => return Err(fault),
        Err(_) => None,
    };
    let site = match &desk {
        Some(desk) => desk.app.site.clone(),
        None => Arc::new(app::bare_site(scratch.path(), clock.clone()).await?),
    };
    let (job, all): (Option<Arc<Job>>, Vec<Arc<dyn Destination>>) = match (&desk, &wanted.from) {
        (_, Some(url)) => {
            let written = config::destination(url, clock.now())?;
            (None, vec![app::destination("from", &written, None)?])
        }
        (Some(desk), None) => {
            let job = desk.app.job(name)?.clone();
            let all = match &wanted.destination {
                Some(name) => vec![job.place(name)?.destination.clone()],
                None => job.places.iter().map(|place| place.destination.clone()).collect(),
            };
            (Some(job), all)
        }
        (None, None) => return Err(Fault::usage("there is no config")),
    };
    let zone = desk.as_ref().map_or(TimeZone::UTC, |desk| desk.app.settings.timezone.clone());
    let request = PitrRequest {
        job: name.parse()?,
        choice: wanted.id,
        moment: moment(wanted, &zone)?,
        data_dir,
        tablespaces: wanted.recovery.tablespace.iter().cloned().collect(),
        owner: wanted.recovery.owner,
        trust: wanted.trust,
        at_once: wanted.jobs.map(|jobs| usize::from(jobs.get())),
        identities: identities(&wanted.unlock)?,
    };
    let control = match &desk {
        Some(desk) => Control::new(&desk.stop),
        None => Control::new(&stop_token()?),
    };
    let spool = Spool::create(&site, &format!("restore-{}", uuid::Uuid::new_v4()), &control)?;
    let known = (&*site.trusted, &*site.bin_dirs);
    let plan = Pitr::plan(&all, &request, known, spool.session()).await?;
    plan.lines(&site)?.iter().for_each(|line| output::say(line));
    if wanted.dry_run {
        return Ok(Exit::Done);
    }
    plan.check()?;
    if !wanted.yes {
        confirm(&plan.target_name())?;
    }
    carry_out(&site, job.as_deref(), plan, &control).await
}

async fn carry_out(
    site: &Arc<Site>,
    job: Option<&Job>,
    plan: Pitr,
    control: &Control,
) -> Result<Exit> {
    let (meter, total) = (control.meter.clone(), plan.read_bytes());
    let watch = Stopwatch::start();
    let bar = Progress::show("restore".to_owned(), move || (meter.plain(), Some(total)));
    let deed = Deed {
        job: job.map(|job| job.name.clone()),
        ..Deed::new(Action::Restore).to(plan.target_name()).saying(plan.words())
    };
    let work = async {
        let Some(job) = job else { return plan.run(site, control).await };
        let request = Request::own(&job.name, RunKind::Restore, Trigger::Manual);
        let run = site.catalog.add_run(&request, site.clock.now()).await?;
        plan.run_as(site, job, run, control).await
    };
    let done = site.audited(&site.actor, deed, work).await;
    bar.end();
    done?.iter().for_each(|line| output::say(line));
    output::say(&format!("prepared in {:.1} s", watch.elapsed().as_secs_f64()));
    Ok(Exit::Done)
}

fn moment(wanted: &Restore, zone: &TimeZone) -> Result<Moment> {
    let wanted = &wanted.recovery;
    Ok(match (&wanted.to_time, wanted.to_lsn, &wanted.to_name) {
        (Some(text), ..) => Moment::Time(instant(text, zone)?),
        (_, Some(lsn), _) => Moment::Lsn(lsn),
        (.., Some(name)) => Moment::Name(name.clone()),
        _ => Moment::Latest,
    })
}

/// With an offset a moment of its own, without one a time of day in `zone`; where a clock was set back,
/// the earlier of the two.
fn instant(text: &str, zone: &TimeZone) -> Result<Timestamp> {
    if let Ok(instant) = text.parse() {
        return Ok(instant);
    }
    let civil: Option<DateTime> = text.parse().ok();
    let zoned = civil.and_then(|civil| civil.to_zoned(zone.clone()).ok());
    zoned.map(|zoned| zoned.timestamp()).ok_or_else(|| {
        Fault::usage(format!("'{text}' is no moment")).hint(
            "write it as '2025-11-24 14:30:00-05', or without the offset in the config's time zone",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_of_its_offset_or_of_the_config() {
        let lima = TimeZone::get("America/Lima").unwrap();
        let at = |text: &str| instant(text, &lima).unwrap().to_string();
        for text in [
            "2025-11-24 14:30:00-05",
            "2025-11-24 14:30:00-05:00",
            "2025-11-24T14:30:00-0500",
            "2025-11-24 19:30:00Z",
            "2025-11-24 19:30:00+00",
            "2025-11-24 14:30:00",
            "2025-11-24 14:30",
        ] {
            assert_eq!(at(text), "2025-11-24T19:30:00Z", "{text}");
        }
        assert_eq!(at("2025-11-24 14:30:00.25-05"), "2025-11-24T19:30:00.25Z");
        for wrong in ["", "yesterday", "14:30", "2025-13-01 00:00:00"] {
            assert!(instant(wrong, &lima).is_err(), "{wrong}");
        }
    }
}
