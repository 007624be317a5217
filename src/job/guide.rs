//! `RESTORE.md`: how to get a backup back with stock tools alone, with its own file names. Knows
//! what each format opens with; a test runs these very commands.

use crate::model::{Artifact, ArtifactFormat, Compression, Manifest, SourceFacts};

pub(super) fn restore_md(manifest: &Manifest) -> String {
    let mut text = format!(
        "# Backup {} of job {}\n\n{}taken {} by respaldo {}.\n\n\
         With respaldo: `respaldo restore {} {}` (add `--from URL` on a machine without its config).\n\
         Without it, in this folder:\n\n\
         ## 1. Is every byte there?\n\n```sh\nsha256sum -c SHA256SUMS\n```\n\n## 2. Restore\n",
        manifest.id,
        manifest.job,
        subjects(manifest),
        manifest.started_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        manifest.respaldo,
        manifest.job,
        manifest.id,
    );
    for artifact in &manifest.artifacts {
        text.push_str(&format!(
            "\n`{}`:\n\n```sh\n{}```\n",
            artifact.name,
            commands(manifest, artifact)
        ));
    }
    for source in &manifest.sources {
        if let Some(reads_with) = &source.reads_with {
            text.push_str(&format!("\n`{}` needs {reads_with} or newer.\n", source.name));
        }
    }
    text
}

fn subjects(manifest: &Manifest) -> String {
    let subject = |source: &SourceFacts| {
        let version = source.server_version.as_ref().map(|v| format!(" (version {v})"));
        let engine = source.engine.as_str();
        format!("{engine} `{}`{},\n", source.name, version.unwrap_or_default())
    };
    manifest.sources.iter().map(subject).collect()
}

fn commands(manifest: &Manifest, artifact: &Artifact) -> String {
    let plain = plain_stream(artifact);
    let source = manifest.source_of(artifact);
    match artifact.format {
        ArtifactFormat::PgCustom | ArtifactFormat::PgPlain => {
            let encoding = source.encoding.as_deref().unwrap_or("UTF8");
            let database = quote(&new_database(&source.name));
            let load = match artifact.format {
                ArtifactFormat::PgCustom => {
                    format!("pg_restore --exit-on-error --dbname={database}")
                }
                _ => format!("psql -X -v ON_ERROR_STOP=1 --dbname={database}"),
            };
            format!(
                "createdb --template=template0 --encoding={encoding} {database}\n{plain} | {load}\n"
            )
        }
        ArtifactFormat::SqliteFile => {
            let restored = quote(&format!("restored-{}", source.name));
            format!("{plain} > {restored}\nsqlite3 {restored} 'PRAGMA integrity_check'\n")
        }
        ArtifactFormat::Tar => {
            let folder = artifact.stem();
            let folder = quote(&format!("restored-{folder}"));
            format!(
                "mkdir {folder}\n{plain} | tar --extract --preserve-permissions --numeric-owner --xattrs --acls --directory={folder}\n"
            )
        }
    }
}

/// A name that no program takes for an option or, by a `=` in it, for a connection string.
fn new_database(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .collect();
    format!("{}_restored", safe.trim_start_matches('-'))
}

/// The command that writes the artifact's plain bytes.
fn plain_stream(artifact: &Artifact) -> String {
    let names: Vec<String> = artifact.volumes.iter().map(|volume| quote(&volume.name)).collect();
    let names = names.join(" ");
    let tool = match artifact.compression {
        Compression::Zstd => "zstd -dc",
        Compression::Gzip => "gunzip -c",
        Compression::None => return format!("cat {names}"),
    };
    if artifact.volumes.len() == 1 {
        format!("{tool} {names}")
    } else {
        format!("cat {names} | {tool}")
    }
}

/// For a POSIX shell.
fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.chars().all(plain) && !text.starts_with('-') {
        text.to_owned()
    } else if text.starts_with('-') {
        format!("'./{}'", text.replace('\'', r"'\''"))
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
