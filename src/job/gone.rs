//! What the last backup held and this one does not: a schema or a database that was dropped, or that
//! a pattern no longer meets. Pure: two manifests in, sentences out.

use std::collections::BTreeSet;

use crate::model::{Artifact, Content, Manifest, SourceFacts};

/// A sentence for each. The new manifest's parts are given before it is one.
pub(super) fn since(
    last: &Manifest,
    sources: &[SourceFacts],
    artifacts: &[Artifact],
) -> Vec<String> {
    let names = |sources: &[SourceFacts]| -> BTreeSet<String> {
        sources.iter().map(|facts| facts.name.clone()).collect()
    };
    let schemas = |sources: &[SourceFacts], artifacts: &[Artifact]| -> BTreeSet<(String, String)> {
        let schema = |artifact: &Artifact| match &artifact.content {
            Content::Schema(schema) => {
                Some((sources[artifact.source].name.clone(), schema.clone()))
            }
            _ => None,
        };
        artifacts.iter().filter_map(schema).collect()
    };
    let there = names(sources);
    let mut gone: Vec<String> = names(&last.sources)
        .difference(&there)
        .map(|name| format!("'{name}' was in the last backup, and is no longer there"))
        .collect();
    let had = schemas(&last.sources, &last.artifacts);
    let has = schemas(sources, artifacts);
    let dropped = had.difference(&has).filter(|(database, _)| there.contains(database));
    gone.extend(dropped.map(|(database, schema)| {
        format!("schema '{schema}' of '{database}' was in the last backup, and is no longer there")
    }));
    gone
}
