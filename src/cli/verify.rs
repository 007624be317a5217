//! `respaldo verify`: on one destination, or on each that has the backup.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::args::Verify;
use super::key::identities;
use super::output::{self, Progress};
use super::{Exit, open, stop_token};
use crate::clock::Clock;
use crate::destination::Destination;
use crate::fault::{Context, Result};
use crate::job::{self, Choice, Control, Found, Site, Spool, bytes, find};
use crate::{app, config};

pub(super) async fn verify(file: Option<&Path>, clock: Clock, wanted: Verify) -> Result<Exit> {
    let Some(url) = &wanted.from else {
        let desk = open(file, clock).await?;
        let job = desk.app.job(&wanted.job)?;
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
    let job = wanted.job.parse()?;
    // `latest` is one backup, and the same on every destination.
    let first = find(all, &job, wanted.id, &site.trusted).await?;
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
        let (meter, total) = (control.meter.clone(), found.manifest.plain_bytes());
        let bar =
            Progress::show(destination.name().to_owned(), move || (meter.plain(), Some(total)));
        let verified = job::verify(site, found, &identities, spool.session(), &control.meter).await;
        bar.end();
        let verified = verified?;
        failed |= !verified.ok;
        let word = match verified.ok {
            false => "NOT whole",
            true if !verified.archived.is_empty() => "archived, not read in full",
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
        reports.push(verified);
    }
    if wanted.json {
        output::json(&reports)?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}
