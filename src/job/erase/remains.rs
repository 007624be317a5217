//! What an erasure can't reach, and until when it stays. Pure: what was seen in, sentences out.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::EraseState;
use super::shelf::Shelf;
use crate::catalog::Known;
use crate::job::{Job, Place};
use crate::model::{BackupId, Content, Engine, Erasure, JobName, Manifest, SourceFacts, Subject};

/// Something that is not gone.
#[derive(Debug, Serialize)]
pub struct Remains {
    /// A sentence.
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<BackupId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Where it can be known: the retention rules let it go then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Remains {
    fn word(what: impl Into<String>) -> Self {
        Self { what: what.into(), id: None, destination: None, until: None }
    }
}

/// `known`: every backup of every job.
pub(super) fn of(
    job: &Job,
    erasure: &Erasure,
    shelves: &[Shelf<'_>],
    known: &[Known],
) -> Vec<Remains> {
    let mut all: Vec<Remains> = others(job, erasure, known)
        .into_iter()
        .map(|(other, database)| {
            Remains::word(format!(
                "whatever the backups of job '{other}' hold of it, for they are of '{database}' too: erase it from those as well"
            ))
        })
        .collect();
    if let Subject::Schema(schema) = &erasure.subject {
        for shelf in shelves {
            whole(erasure, schema, shelf, &mut all);
        }
        let defined = shelves.iter().flat_map(|shelf| &shelf.seen);
        let defined = defined.filter(|seen| seen.tombstone.names(schema)).count();
        if defined > 0 {
            all.push(Remains::word(
                "the definitions of its tables, without rows, in the main archives of these backups",
            ));
        }
        let sealed = shelves.iter().flat_map(|shelf| &shelf.seen);
        if sealed.filter(|seen| seen.tombstone.names(schema)).any(|s| s.manifest.proof.is_some()) {
            all.push(Remains::word(
                "the names and row counts of its tables in the encrypted proofs, which only a key opens",
            ));
        }
    } else {
        all.push(Remains::word(
            "the rows in the backups themselves, until these go; a restore removes them",
        ));
    }
    for place in &job.places {
        let (name, url) = (place.destination.name(), place.destination.place());
        if ["s3://", "az://", "gs://"].iter().any(|scheme| url.starts_with(scheme)) {
            all.push(Remains {
                destination: Some(name.to_owned()),
                ..Remains::word(format!(
                    "if the bucket of '{name}' keeps versions, the former ones, until its own rules end them"
                ))
            });
        }
    }
    all.push(Remains::word(
        "names in the logs of runs; and what the database itself still holds, the next backup holds again",
    ));
    all
}

/// Other jobs whose backups are of the same database, by its name and server.
fn others<'a>(
    job: &Job,
    erasure: &Erasure,
    known: &'a [Known],
) -> BTreeSet<(&'a JobName, &'a str)> {
    let of =
        |facts: &'a SourceFacts| (facts.engine, facts.name.as_str(), facts.system_id.as_deref());
    let named = |facts: &&SourceFacts| erasure.database.as_ref().is_none_or(|n| *n == facts.name);
    let (own, rest): (Vec<_>, Vec<_>) =
        known.iter().map(|known| &known.manifest).partition(|manifest| manifest.job == job.name);
    let own: Vec<_> = own.iter().flat_map(|m| &m.sources).filter(named).map(of).collect();
    let shared = |manifest: &&'a Manifest| {
        let mut facts = manifest.sources.iter();
        facts.find(|facts| own.contains(&of(facts))).map(|facts| (&manifest.job, &*facts.name))
    };
    rest.iter().filter_map(shared).collect()
}

fn whole(erasure: &Erasure, schema: &str, shelf: &Shelf<'_>, all: &mut Vec<Remains>) {
    for copy in shelf.copies.iter().filter(|copy| copy.became.state == EraseState::Retained) {
        let what = format!("{}: its file is kept by the store", copy.id);
        let (id, until) = (Some(copy.id), copy.became.until);
        all.push(Remains { what, id, destination: Some(copy.destination.clone()), until });
    }
    for seen in &shelf.seen {
        let (id, was_apart) = (seen.manifest.id, seen.tombstone.names(schema));
        let Some(what) = inside(&seen.manifest, schema, erasure.database.as_deref(), was_apart)
        else {
            continue;
        };
        let until = until(shelf.place, &id).filter(|_| !seen.pinned);
        let ends = if seen.pinned { "it is pinned" } else { "it goes with its backup" };
        let destination = Some(shelf.place.destination.name().to_owned());
        all.push(Remains {
            what: format!("{id}: {what}; {ends}"),
            id: Some(id),
            destination,
            until,
        });
    }
}

/// Where its rows are in an archive with others, as far as the manifest knows.
fn inside(
    manifest: &Manifest,
    schema: &str,
    database: Option<&str>,
    was_apart: bool,
) -> Option<&'static str> {
    let apart = was_apart || !manifest.of_schema(schema, database).is_empty();
    manifest.artifacts.iter().find_map(|artifact| {
        let facts = manifest.source_of(artifact);
        if facts.engine != Engine::Postgres || database.is_some_and(|name| name != facts.name) {
            return None;
        }
        let print = facts.fingerprint.as_ref();
        let held = print.map(|print| print.tables.iter().any(|t| t.name.schema == schema));
        match (&artifact.content, held) {
            (Content::Whole, Some(true)) => Some("it is inside a whole dump"),
            (Content::Whole, None) => Some("it may be inside a whole dump"),
            (Content::Main, Some(true)) if !apart => Some("its rows are in the main archive"),
            (Content::Main, None) if !apart => Some("its rows may be in the main archive"),
            (Content::Rows(None), _) => Some("a table's encrypted archive may be of it"),
            _ => None,
        }
    })
}

fn until(place: &Place, id: &BackupId) -> Option<Timestamp> {
    let days = i64::from(place.policy.oldest_days()?);
    id.started().checked_add(SignedDuration::from_hours(days * 24)).ok()
}
