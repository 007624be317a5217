//! Which of a backup's artifacts are loaded, and whether it may be believed at all. Knows manifests and
//! what was asked for; must not know where anything goes.

use super::super::Found;
use super::RestoreRequest;
use crate::fault::{Fault, Result};
use crate::model::{Artifact, Content, Engine, Erasure, SourceFacts};
use crate::signature::Verdict;
use crate::source::Piece;

/// What is loaded, by source. Of several databases, and of several sets of files, one name or path
/// can't mean them all.
pub(super) fn choose_artifacts(
    found: &Found,
    request: &RestoreRequest,
    warnings: &mut Vec<String>,
) -> Result<Vec<(SourceFacts, Vec<Artifact>)>> {
    let manifest = &found.manifest;
    let names =
        || manifest.artifacts.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join(", ");
    for name in &request.artifacts {
        if !manifest.artifacts.iter().any(|artifact| artifact.name == *name) {
            return Err(Fault::usage(format!("the backup has no artifact '{name}'"))
                .hint(format!("it has: {}", names())));
        }
    }
    let mut chosen = Vec::new();
    for (n, facts) in manifest.sources.iter().enumerate() {
        let of_source = manifest.artifacts.iter().filter(|artifact| artifact.source == n);
        let artifacts: Vec<Artifact> = match request.artifacts.as_slice() {
            [] if request.piece.is_some() && facts.engine != Engine::Postgres => Vec::new(),
            [] if request.piece.is_some() => {
                of_piece(&of_source.cloned().collect::<Vec<_>>(), request.piece.as_ref())
            }
            [] => of_source.filter(|artifact| is_loaded(artifact)).cloned().collect(),
            names => of_source.filter(|artifact| names.contains(&artifact.name)).cloned().collect(),
        };
        if !artifacts.is_empty() {
            chosen.push((facts.clone(), artifacts));
        }
    }
    if chosen.is_empty()
        && let Some(piece) = &request.piece
    {
        return Err(Fault::usage(format!("the backup has no database for {piece}"))
            .hint(format!("it has: {}", names())));
    }
    if request.artifacts.is_empty() && request.piece.is_none() {
        let left: Vec<&str> = manifest
            .artifacts
            .iter()
            .filter(|artifact| !is_loaded(artifact))
            .map(|artifact| artifact.name.as_str())
            .collect();
        if !left.is_empty() {
            let left = left.join(", ");
            warnings
                .push(format!("not loaded, for it is the server's own: {left} (see RESTORE.md)"));
        }
    }
    let is_files = |(facts, _): &(SourceFacts, Vec<Artifact>)| facts.engine == Engine::Files;
    if !request.paths.is_empty() && !chosen.iter().all(is_files) {
        return Err(Fault::usage("--path can't mean a part of a database")
            .hint(format!("choose the files with --artifact, one of: {}", names())));
    }
    let databases = chosen.iter().filter(|(facts, _)| is_database(facts)).count();
    let places = chosen.len() - databases;
    if request.database.is_some() && databases > 1 || request.path.is_some() && places > 1 {
        let what = if databases > 1 { "--database" } else { "--to" };
        return Err(Fault::usage(format!("{what} can't mean several of {}", manifest.subject()))
            .hint(format!("choose with --artifact, one of: {}", names())));
    }
    Ok(chosen)
}

fn is_database(facts: &SourceFacts) -> bool {
    matches!(facts.engine, Engine::Postgres | Engine::Mysql)
}

/// What a piece of a database may need: the smallest archive that defines it, and its rows where they
/// lie apart.
fn of_piece(artifacts: &[Artifact], piece: Option<&Piece>) -> Vec<Artifact> {
    let Some(piece) = piece else { return Vec::new() };
    let own = Content::Schema(piece.schema().to_owned());
    let definer = artifacts
        .iter()
        .find(|artifact| artifact.content == own)
        .or_else(|| artifacts.iter().find(|a| matches!(a.content, Content::Whole | Content::Main)));
    // Which tables are a table's partitions only the archive that defines them knows.
    let may_be_parted =
        matches!(piece, Piece::Table(_)) && definer.is_some_and(|d| d.content != own);
    let rows = artifacts.iter().filter(|artifact| match &artifact.content {
        Content::Rows(Some(table)) => may_be_parted || piece.holds(table),
        _ => false,
    });
    definer.into_iter().map(|definer| definer.to_owned()).chain(rows.cloned()).collect()
}

/// Roles and settings belong to a server, and are for a person to look at first.
pub(in crate::job) fn is_loaded(artifact: &Artifact) -> bool {
    !matches!(artifact.content, Content::Globals | Content::Settings | Content::Grants)
}

/// What is erased again from one of the backup's databases.
pub(super) fn reapplied(
    found: &Found,
    request: &RestoreRequest,
    facts: &SourceFacts,
) -> Vec<Erasure> {
    let concerns = |erasure: &&Erasure| erasure.concerns(&found.manifest.id, facts);
    request.erasures.iter().filter(concerns).cloned().collect()
}

pub(in crate::job) fn check_signature(found: &Found, trust: bool) -> Result<Vec<String>> {
    let (what, hint) = match &found.signature {
        Verdict::Trusted => return Ok(Vec::new()),
        Verdict::UnknownKey(key) => (
            format!("the backup is signed by a key that is not known here ({key})"),
            "if you know where it comes from, add --trust, or the key to `trusted_keys` in the config",
        ),
        Verdict::Missing => {
            ("the backup is not signed".to_owned(), "if you know where it comes from, add --trust")
        }
        Verdict::Broken => (
            "the backup's manifest is not the one that was signed".to_owned(),
            "somebody or something changed it: use another destination or backup; --trust takes it all the same",
        ),
    };
    if trust { Ok(vec![what]) } else { Err(Fault::permanent(what).hint(hint)) }
}

/// For people: what a signature is worth here.
pub(in crate::job) fn signature_words(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Trusted => "signature: good, by a known key",
        Verdict::UnknownKey(_) => "signature: good, but by a key that is not known here",
        Verdict::Missing => "signature: missing",
        Verdict::Broken => "signature: broken",
    }
}
