//! What stands around the commands of `RESTORE.md`: which roles must be there before, and what is to be
//! done once a source is restored. Knows each engine's habits; must not know file names.

use super::{new_database, quote};
use crate::model::{Artifact, ArtifactFormat, Content, Engine, Manifest, SourceFacts};

/// Roles that the backup itself does not bring.
pub(super) fn roles(source: &SourceFacts, artifacts: &[&Artifact]) -> String {
    let brings = artifacts.iter().any(|artifact| artifact.content == Content::Globals);
    if brings || source.engine != Engine::Postgres || source.roles.is_empty() {
        return String::new();
    }
    let names: Vec<String> = source.roles.iter().map(|role| code(role)).collect();
    format!(
        "\nThese roles must be there, or `pg_restore` gets `--no-owner --no-acl`: {}.\n",
        names.join(", ")
    )
}

/// Without the log it comes back as it was when it was taken.
const PHYSICAL: &str = "\nThe folder is a server's data as it was when the backup ended: give it to PostgreSQL's own \
    user with mode 0700 and start a server of the same major version on it. To come to a later moment, put the \
    files of `wal/` (without their endings and digests) into its `pg_wal`, create `recovery.signal` and set \
    `restore_command = 'false'`.\n";

/// The last section: it is restored, and now?
pub(super) fn text(manifest: &Manifest) -> String {
    let mut text = "\n### 3. Afterwards\n".to_owned();
    for (n, source) in manifest.sources.iter().enumerate() {
        let of_source = |artifact: &&Artifact| artifact.source == n;
        let artifacts: Vec<&Artifact> = manifest.artifacts.iter().filter(of_source).collect();
        let has = |content: &Content| artifacts.iter().any(|one| one.content == *content);
        text.push_str(&match source.engine {
            Engine::Postgres => postgres(source, &artifacts, manifest.is_encrypted()),
            Engine::Physical if manifest.stands_on().is_some() => {
                PHYSICAL.replacen("The folder is", "The folder `restored` is", 1)
            }
            Engine::Physical => PHYSICAL.to_owned(),
            Engine::Mysql => mysql(source, has(&Content::Grants), manifest.is_encrypted()),
            Engine::Sqlite => "\nStop whoever has the old file open, put the new one in its place, and delete \
                the `-wal` and `-shm` files of the old one: they are not of the new one.\n"
                .to_owned(),
            Engine::Files => "\nOwners come back only where `tar` was run as root. Look at the new folder, then put \
                it in the place of the old one.\n"
                .to_owned(),
            Engine::Command => "\nThe file is what the program wrote; it is loaded by that program's own counterpart.\n"
                .to_owned(),
        });
    }
    text
}

/// Statistics, the names, and what an archive does not bring back on its own.
fn postgres(source: &SourceFacts, artifacts: &[&Artifact], with_hashes: bool) -> String {
    // One that holds schemas or tables alone makes no database of this name.
    let is_whole = |one: &&Artifact| matches!(one.content, Content::Whole | Content::Main);
    let Some(whole) = artifacts.iter().copied().find(is_whole) else { return String::new() };
    let restored = new_database(&source.name);
    let mut text = format!(
        "\nA restored database has no statistics yet, and would be slow:\n\n```sh\n\
         vacuumdb --analyze-only --quiet --dbname={}\n```\n\n\
         When you have looked at it and nobody is connected, it takes the old one's place, which stays:\n\n\
         ```sql\nALTER DATABASE {} RENAME TO {};\nALTER DATABASE {} RENAME TO {};\n```\n",
        quote(&restored),
        identifier(&source.name),
        identifier(&format!("{}_before", source.name)),
        identifier(&restored),
        identifier(&source.name),
    );
    text.push_str(match whole.format {
        ArtifactFormat::PgCustom => {
            "\nThe owner of the database itself, the rights on it, its settings (`ALTER DATABASE ... SET`) and its \
             comment are in the archive too, but only `pg_restore --create` brings them back, under the old name.\n"
        }
        _ => {
            "\nThe owner of the database itself, the rights on it, its settings (`ALTER DATABASE ... SET`) and its \
             comment are not in the dump: `belongings` in `manifest.json` says what they were, or in the proof where \
             the backup is encrypted.\n"
        }
    });
    let globals = artifacts.iter().any(|artifact| artifact.content == Content::Globals);
    if globals && !with_hashes {
        text.push_str(
            "\nRoles come back without their passwords, for the backup is not encrypted: `\\password NAME` in `psql` \
             gives each a new one.\n",
        );
    }
    text
}

fn mysql(source: &SourceFacts, grants: bool, with_hashes: bool) -> String {
    let mut text = format!(
        "\nWhen you have looked at it, point the application at the new database: MySQL has no way to rename one. \
         Views, routines and events may name `{}` themselves.\n",
        code(&source.name).trim_matches('`')
    );
    if grants && !with_hashes {
        text.push_str(
            "\nAccounts come back without their passwords, for the backup is not encrypted: `ALTER USER ... IDENTIFIED \
             BY` gives each a new one.\n",
        );
    }
    text
}

/// As a name in SQL, on one line.
fn identifier(name: &str) -> String {
    format!("\"{}\"", one_line(name).replace('"', "\"\""))
}

/// Between backticks, whatever it is.
fn code(text: &str) -> String {
    format!("`{}`", one_line(text).replace('`', "'"))
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
