//! How base backups that stand on one another are put together with PostgreSQL's own programs. Knows what
//! those want where; the commands that open each are its own.

use super::quote;
use crate::model::{Artifact, BackupId, Content, Manifest};

/// The folder that the data folder's archive is opened into.
fn opened(artifacts: &[&Artifact]) -> String {
    let base = artifacts.iter().find(|artifact| artifact.content == Content::Whole);
    quote(&format!("restored-{}", base.map_or("base", |base| base.stem())))
}

fn tablespaces<'a>(artifacts: &'a [&Artifact]) -> impl Iterator<Item = (u32, String)> + 'a {
    artifacts.iter().filter_map(|artifact| match artifact.content {
        Content::Tablespace(oid) => Some((oid, format!("restored-{}", artifact.stem()))),
        _ => None,
    })
}

/// What comes after the commands that open a base backup; `below` is what it stands on, the full one first.
pub(super) fn text(manifest: &Manifest, below: &[BackupId], artifacts: &[&Artifact]) -> String {
    let base = opened(artifacts);
    let mut text = String::new();
    let has_list = |artifact: &&Artifact| artifact.content == Content::BackupManifest;
    if artifacts.iter().any(has_list) {
        text.push_str(
            "\nTo be put together with others, as the `RESTORE.md` of an incremental backup says, its parts are led to one \
             another:\n\n```sh\n",
        );
        text.push_str(&format!("cp restored-backup_manifest {base}/backup_manifest\n"));
        for (oid, folder) in tablespaces(artifacts) {
            text.push_str(&format!("ln -s \"$PWD\"/{} {base}/pg_tblspc/{oid}\n", quote(&folder)));
        }
        text.push_str("```\n");
    }
    let Some(since) = manifest.stands_on() else { return text };
    let named: Vec<String> = below.iter().map(|id| format!("`{id}`")).collect();
    text.push_str(&format!(
        "\n### It holds only the changes since `{since}`\n\nOf each of these backups do step 2 in its own folder, beside this \
         one: {}. Then put them together, with the programs of the server's own major version:\n\n```sh\n\
         pg_combinebackup --output=restored",
        named.join(", ")
    ));
    for (oid, folder) in tablespaces(artifacts) {
        let folder = quote(&folder);
        text.push_str(&format!(
            " \\\n    --tablespace-mapping=\"$PWD\"/{folder}=\"$PWD\"/restored-space.{oid}"
        ));
    }
    for id in below {
        text.push_str(&format!(" \\\n    ../{id}/{base}"));
    }
    text.push_str(&format!(" \\\n    {base}\npg_verifybackup --no-parse-wal restored\n```\n"));
    text
}
