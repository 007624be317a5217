//! `respaldo verify`: on one destination, or on each that has the backup.

use std::sync::Arc;

use super::args::Verify;
use super::output::{self, Progress};
use super::{Desk, Exit};
use crate::destination::Destination;
use crate::fault::Result;
use crate::job::{self, Choice, Control, Found, Spool, bytes, find};

pub(super) async fn verify(desk: &Desk, wanted: Verify) -> Result<Exit> {
    let job = desk.app.job(&wanted.job)?;
    let site = &desk.app.site;
    let all: Vec<Arc<dyn Destination>> = match &wanted.destination {
        Some(name) => vec![job.place(name)?.destination.clone()],
        None => job.places.iter().map(|place| place.destination.clone()).collect(),
    };
    // `latest` is one backup, and the same on every destination.
    let first = find(&all, &job.name, wanted.id, &site.trusted).await?;
    let id = Choice::Id(first.manifest.id);
    let control = Control::new(&desk.stop);
    let spool = Spool::create(site, &format!("verify-{}", uuid::Uuid::new_v4()), &control)?;
    let mut reports = Vec::new();
    let mut failed = false;
    for destination in &all {
        let found: Found =
            match find(std::slice::from_ref(destination), &job.name, id, &site.trusted).await {
                Ok(found) => found,
                Err(fault) => {
                    output::say(&format!("{}: {}", destination.name(), fault.chain()));
                    failed = true;
                    continue;
                }
            };
        let control = Control::new(&desk.stop);
        let (meter, total) = (control.meter.clone(), found.manifest.plain_bytes());
        let bar =
            Progress::show(destination.name().to_owned(), move || (meter.plain(), Some(total)));
        let verified = job::verify(site, &found, spool.session(), &control.meter).await;
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
