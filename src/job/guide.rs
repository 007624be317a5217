//! `RESTORE.md`: how to get a backup back, with respaldo and with stock tools alone, by its own file
//! names. Knows what each format opens with; a test runs these very commands.

mod afterwards;
mod physical;

use crate::model::{
    Artifact, ArtifactFormat, BackupId, Cipher, Compression, Content, Encryption, Engine, Manifest,
    SourceFacts,
};

/// `below` is what an incremental backup stands on, the full one first.
pub(super) fn restore_md(manifest: &Manifest, below: &[BackupId]) -> String {
    let mut text = format!(
        "# Backup {} of job {}\n\n{}taken {} by respaldo {}.\n\n{}\
         ## Without respaldo: stock tools, in this folder\n\n\
         ### 1. Is every byte there?\n\n```sh\nsha256sum -c SHA256SUMS\n```\n\n### 2. Restore\n{}",
        manifest.id,
        manifest.job,
        subjects(manifest),
        manifest.started_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        manifest.respaldo,
        with_respaldo(manifest),
        keys(manifest),
    );
    for (n, source) in manifest.sources.iter().enumerate() {
        let of_source = |a: &&Artifact| a.source == n;
        let mut artifacts: Vec<&Artifact> = manifest.artifacts.iter().filter(of_source).collect();
        // Roles come before what they own.
        artifacts.sort_by_key(|artifact| artifact.content != Content::Globals);
        text.push_str(&afterwards::roles(source, &artifacts));
        match artifacts.iter().find(|artifact| artifact.content == Content::Main) {
            Some(main) => text.push_str(&parted(source, main, &artifacts)),
            None => artifacts.iter().for_each(|artifact| {
                text.push_str(&section(artifact, &commands(source, artifact)))
            }),
        }
        if source.engine == Engine::Physical {
            text.push_str(&physical::text(manifest, below, &artifacts));
        }
    }
    for source in &manifest.sources {
        if let Some(reads_with) = &source.reads_with {
            text.push_str(&format!("\n`{}` needs {reads_with} or newer.\n", source.name));
        }
    }
    text + &afterwards::text(manifest)
}

/// The lines of respaldo itself: they check more, and put what was there aside.
fn with_respaldo(manifest: &Manifest) -> String {
    // Of several databases each goes back to its own name.
    let (path, database) = match manifest.sources.as_slice() {
        [one] => match one.engine {
            Engine::Postgres | Engine::Mysql => {
                ("", format!(" --database {}", quote(&new_database(&one.name))))
            }
            Engine::Sqlite | Engine::Files | Engine::Command => (" --to /new/path", String::new()),
            Engine::Physical => (" --latest --data-dir /new/data", String::new()),
        },
        _ => ("", String::new()),
    };
    let known = manifest.artifacts.iter().filter_map(|artifact| artifact.encryption.as_ref());
    let opens = match known.into_iter().next() {
        None => "",
        Some(to) if to.recipients.is_empty() => " --passphrase-file passphrase.txt",
        Some(_) => " --identity key.txt",
    };
    let servers = |facts: &SourceFacts| matches!(facts.engine, Engine::Postgres | Engine::Mysql);
    let environment = match manifest.sources.iter().any(servers) {
        true => "; the server comes from the environment (`DB_HOST`, `DB_USER`, `DB_PASSWORD`)",
        false => "",
    };
    let command = format!("respaldo restore {} {}{path}{opens}", manifest.job, manifest.id);
    format!(
        "## With respaldo\n\n```text\n\
         {command} --dry-run        # what it would do, and where to\n\
         {command}                  # where the job's config is\n\
         {command} --from URL --trust{database}\n```\n\n\
         The last line needs no config: `URL` is where the folder `{}` lies, such as `file:///backups` or \
         `s3://bucket/prefix/`{environment}. `--trust` says that you know where the backup is from: a new \
         machine does not know the key that signed it.\n\n",
        manifest.job
    )
}

fn subjects(manifest: &Manifest) -> String {
    let subject = |source: &SourceFacts| {
        let version = source.server_version.as_ref().map(|v| format!(" (version {v})"));
        let engine = source.engine.as_str();
        format!("{engine} `{}`{},\n", source.name, version.unwrap_or_default())
    };
    manifest.sources.iter().map(subject).collect()
}

fn section(artifact: &Artifact, commands: &str) -> String {
    format!("\n`{}`:\n\n```sh\n{commands}```\n", artifact.name)
}

fn commands(source: &SourceFacts, artifact: &Artifact) -> String {
    let plain = plain_stream(artifact);
    match (artifact.format, &artifact.content) {
        (ArtifactFormat::PgPlain, Content::Globals) => format!(
            "# Of a role that is there already psql complains, and goes on.\n\
             {plain} | psql -X --quiet --dbname=postgres\n"
        ),
        (ArtifactFormat::PgCustom | ArtifactFormat::PgPlain, content) => {
            let database = match content {
                Content::Schema(schema) => new_database(&format!("{}_{schema}", source.name)),
                _ => new_database(&source.name),
            };
            let database = quote(&database);
            let created = createdb(source, &database);
            match (artifact.format, content) {
                (ArtifactFormat::PgCustom, Content::Schema(schema)) => {
                    // pg_dump names it when it is asked for it alone, and every new database has one.
                    let public =
                        format!("psql -X --dbname={database} --command='DROP SCHEMA public'\n");
                    let public = if schema == "public" { public.as_str() } else { "" };
                    format!(
                        "{created}{public}{plain} | pg_restore --dbname={database} || \\\n    \
                         echo 'What refers to other schemas can not be made without them: see above.'\n"
                    )
                }
                (ArtifactFormat::PgCustom, _) => {
                    format!("{created}{plain} | pg_restore --exit-on-error --dbname={database}\n")
                }
                _ => {
                    format!("{created}{plain} | psql -X -v ON_ERROR_STOP=1 --dbname={database}\n")
                }
            }
        }
        (ArtifactFormat::Mysql, Content::Grants) => {
            format!("{plain} | {} --binary-mode\n", mysql_client(source))
        }
        (ArtifactFormat::Mysql, _) => {
            let (database, mysql) = (new_database(&source.name), mysql_client(source));
            let create = quote(&format!("CREATE DATABASE `{database}`{}", character_set(source)));
            let database = quote(&database);
            // Without --binary-mode a dump's own words could start programs here.
            format!("{mysql} -e {create}\n{plain} | {mysql} --binary-mode {database}\n")
        }
        (ArtifactFormat::SqliteFile, _) => {
            let restored = quote(&format!("restored-{}", source.name));
            format!("{plain} > {restored}\nsqlite3 {restored} 'PRAGMA integrity_check'\n")
        }
        (ArtifactFormat::Tar | ArtifactFormat::TarZst, _) => {
            let folder = artifact.stem();
            let folder = quote(&format!("restored-{folder}"));
            format!(
                "mkdir {folder}\n{plain} | tar --extract --preserve-permissions --numeric-owner --xattrs --acls --directory={folder}\n"
            )
        }
        (ArtifactFormat::Bytes, Content::BackupManifest) => {
            format!("{plain} > restored-backup_manifest    # PostgreSQL's own list of the files\n")
        }
        (ArtifactFormat::Bytes, _) => {
            let restored = quote(&format!("restored-{}", artifact.stem()));
            let tool: String = source.tool.iter().flat_map(|tool| tool.chars()).collect();
            let tool = tool.replace(char::is_control, " ");
            format!("{plain} > {restored}    # written by: {tool}\n")
        }
        (ArtifactFormat::Json, _) => format!("{plain}    # for you to read\n"),
    }
}

fn createdb(source: &SourceFacts, database: &str) -> String {
    let encoding = source.encoding.as_deref().unwrap_or("UTF8");
    let mut command = "createdb --template=template0".to_owned();
    let mut add = |option: &str, value: Option<&str>| {
        // A value never stands alone, and so is no option.
        let value = value.map(|value| quote(value.trim_start_matches('-')));
        command.extend(value.map(|value| format!(" --{option}={value}")));
    };
    add("encoding", Some(encoding));
    if let Some(locale) = &source.locale {
        add("lc-collate", source.collation.as_deref());
        add("lc-ctype", Some(&locale.ctype));
        let knows_provider = source.reader_major().is_some_and(|major| major >= 15);
        add("locale-provider", knows_provider.then_some(&locale.provider));
        match locale.provider.as_str() {
            "icu" => {
                add("icu-locale", locale.name.as_deref());
                add("icu-rules", locale.rules.as_deref());
            }
            "builtin" => add("builtin-locale", locale.name.as_deref()),
            _ => {}
        }
    }
    format!("{command} {database}\n")
}

/// A database in several archives: put together, and what stands alone.
fn parted(source: &SourceFacts, main: &Artifact, artifacts: &[&Artifact]) -> String {
    let database = quote(&new_database(&source.name));
    let file = quote(&format!("{}.dump", main.stem()));
    let load = format!("pg_restore --exit-on-error --dbname={database}");
    let mut whole = format!(
        "{}{} > {file}\n{load} --section=pre-data --section=data {file}\n",
        createdb(source, &database),
        plain_stream(main)
    );
    let is_rows = |a: &Artifact| matches!(a.content, Content::Schema(_) | Content::Rows(_));
    for artifact in artifacts.iter().filter(|artifact| is_rows(artifact)) {
        whole.push_str(&format!("{} | {load} --section=data\n", plain_stream(artifact)));
    }
    whole.push_str(&format!("{load} --section=post-data --jobs=2 {file}\nrm {file}\n"));
    let mut text = format!(
        "\nThe database `{}` whole: the definitions, every row, then indexes and keys.\n\n```sh\n{whole}```\n",
        source.name
    );
    for artifact in artifacts {
        match &artifact.content {
            Content::Main | Content::Rows(_) => {}
            Content::Schema(schema) => {
                text.push_str(&format!("\nThe schema `{schema}` alone, "));
                text.push_str(section(artifact, &commands(source, artifact)).trim_start());
            }
            _ => text.push_str(&section(artifact, &commands(source, artifact))),
        }
    }
    text
}

/// MariaDB's client, or MySQL's.
fn mysql_client(source: &SourceFacts) -> &'static str {
    match source.server_version.as_ref().is_some_and(|version| version.contains("MariaDB")) {
        true => "mariadb --default-character-set=utf8mb4",
        false => "mysql --default-character-set=utf8mb4",
    }
}

/// That of the database, as far as they are names: a manifest may come from anywhere.
fn character_set(source: &SourceFacts) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let word = |before: &str, text: &Option<String>| match text {
        Some(text) if !text.is_empty() && text.chars().all(plain) => format!(" {before} {text}"),
        _ => String::new(),
    };
    word("CHARACTER SET", &source.encoding) + &word("COLLATE", &source.collation)
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
    let decrypt = artifact.encryption.as_ref().map(decrypt);
    let decompress = match artifact.compression {
        Compression::Zstd => Some("zstd -dc"),
        Compression::Gzip => Some("gunzip -c"),
        Compression::None => artifact.format.is_compressed().then_some("zstd -dc"),
    };
    let mut tools = decrypt.into_iter().chain(decompress);
    let first = match tools.next() {
        Some(tool) if artifact.volumes.len() == 1 => format!("{tool} {names}"),
        Some(tool) => format!("cat {names} | {tool}"),
        None => format!("cat {names}"),
    };
    tools.fold(first, |stream, tool| format!("{stream} | {tool}"))
}

fn decrypt(encryption: &Encryption) -> &'static str {
    match (encryption.cipher, encryption.recipients.is_empty()) {
        (Cipher::Age, false) => "age -d -i \"$KEY\"",
        (Cipher::Age, true) => "age -d",
        (Cipher::Openpgp, _) => "gpg -d",
    }
}

/// Who can open it, and what they need at hand.
fn keys(manifest: &Manifest) -> String {
    let readers = manifest.readers();
    if readers.is_empty() {
        return String::new();
    }
    let mut text = format!("\nIt is encrypted {}.\n", readers.join(" and "));
    let mut known = manifest.artifacts.iter().filter_map(|artifact| artifact.encryption.as_ref());
    if known.clone().any(|to| to.cipher == Cipher::Age && !to.recipients.is_empty()) {
        text.push_str(
            "`KEY` is the file of a private key of age:\n\n\
             ```sh\nKEY=${KEY:-key.txt}\n```\n",
        );
    }
    if known.any(|to| to.cipher == Cipher::Openpgp && !to.recipients.is_empty()) {
        text.push_str("The private key is in the keyring of `gpg` (`gpg --import FILE`).\n");
    }
    if let Some(proof) = &manifest.proof {
        let name = &proof.name;
        text.push_str(&format!(
            "Names of tables, row counts, what belongs to a database itself and digests of the decrypted bytes are in `{name}`.\n"
        ));
    }
    text
}

/// For a POSIX shell.
pub(super) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.chars().all(plain) && !text.starts_with('-') {
        text.to_owned()
    } else if text.starts_with('-') {
        format!("'./{}'", text.replace('\'', r"'\''"))
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
