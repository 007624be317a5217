//! `respaldo lifecycle`: the rules for the stores themselves, to be looked at and put into force by a
//! person.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::{Exit, output};
use crate::app::App;
use crate::destination::{Destination, Expiry};
use crate::fault::{Context, Result};

pub(super) fn lifecycle(app: &App, as_json: bool) -> Result<Exit> {
    let mut all: BTreeMap<&str, (&Arc<dyn Destination>, Vec<Expiry>)> = BTreeMap::new();
    for job in &app.jobs {
        for place in &job.places {
            let destination = &place.destination;
            let (_, expiries) =
                all.entry(destination.name()).or_insert_with(|| (destination, Vec::new()));
            // Elsewhere respaldo deletes, and keeps what no rule of a store would.
            if destination.append_only() {
                expiries.push(Expiry { job: job.name.clone(), days: place.policy.oldest_days() });
            }
        }
    }
    let mut printed = Vec::new();
    for (name, (destination, expiries)) in &all {
        let Some(lifecycle) = destination.lifecycle(expiries) else {
            output::say(&format!("{name}: no rules, it is not an object store"));
            continue;
        };
        for endless in expiries.iter().filter(|expiry| expiry.days.is_none()) {
            output::say(&format!(
                "{name}: no rule for {}: its policy counts backups, or keeps them all, and a rule \
                 knows only ages",
                endless.job
            ));
        }
        if as_json {
            let place = destination.place();
            let (command, rules) = (lifecycle.command, lifecycle.rules);
            printed.push(
                json!({ "destination": name, "place": place, "command": command, "rules": rules }),
            );
            continue;
        }
        output::say(&format!("{name}: {}", lifecycle.command));
        let text = serde_json::to_string_pretty(&lifecycle.rules).context("write the rules")?;
        output::data(&format!("{text}\n"))?;
    }
    if as_json {
        output::json(&printed)?;
    }
    if all.values().any(|(_, expiries)| expiries.iter().any(|expiry| expiry.days.is_some())) {
        output::say(
            "a rule knows no backup that must stay: where backups stop, it deletes the last one too",
        );
    }
    Ok(Exit::Done)
}
