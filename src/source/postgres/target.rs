//! A dump loaded into a new database beside the one that is meant, which it then replaces by two
//! renames in one transaction. The old one stays, under another name.

use std::fs::File;
use std::path::PathBuf;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::reapply::reapply;
use super::tables::quote;
use super::{Postgres, client};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, ArtifactFormat, Content, Erasure, SourceFacts};
use crate::source::child::{self, Pipes, Program};
use crate::source::{Exit, Intake, Session, Target, Wanted};

/// pg_restore's last words when it came to the end in spite of errors.
const WENT_ON: &str = "errors ignored on restore";
/// Sessions that load one archive.
const MOST_JOBS: usize = 4;

pub(super) struct PostgresTarget {
    server: Postgres,
    session: Session,
    /// The database that is meant.
    name: String,
    /// The new one, until it takes that name.
    beside: String,
    /// Where the present one goes.
    before: String,
    present: Option<Present>,
    facts: Option<SourceFacts>,
    major: u32,
    no_owner: bool,
    created: bool,
    contents: Vec<Content>,
    /// The main archive of several, once it is here.
    main: Option<PathBuf>,
    erasures: Vec<Erasure>,
}

/// The database of that name as it is now.
struct Present {
    owner: String,
    tables: i64,
    clients: i64,
}

impl PostgresTarget {
    pub(super) async fn new(source: &Postgres, wanted: &Wanted, session: &Session) -> Result<Self> {
        let backed_up = wanted.facts.as_ref().map(|facts| facts.name.clone());
        let name = wanted.database.clone().or(backed_up).unwrap_or(source.database.clone());
        let mut target = Self {
            server: source.clone(),
            session: session.clone(),
            beside: String::new(),
            before: String::new(),
            name,
            present: None,
            facts: wanted.facts.clone(),
            major: 0,
            no_owner: wanted.no_owner,
            created: false,
            contents: wanted.artifacts.iter().map(|artifact| artifact.content.clone()).collect(),
            main: None,
            erasures: wanted.erasures.clone(),
        };
        target.look(&wanted.tag).await?;
        Ok(target)
    }

    async fn look(&mut self, tag: &str) -> Result<()> {
        let doing = "look at the server";
        let mut admin = self.admin().await?;
        let taken: Vec<String> = sqlx::query_scalar("SELECT datname::text FROM pg_database")
            .fetch_all(&mut admin)
            .await
            .context(doing)?;
        self.beside = free_name(&self.name, &format!("__new_{tag}"), &taken);
        self.before = free_name(&self.name, &format!("__before_{tag}"), &taken);
        let number: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
            .fetch_one(&mut admin)
            .await
            .context(doing)?;
        self.major = u32::try_from(number / 10_000).unwrap_or(0);
        let prepared: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_prepared_xacts WHERE database = $1")
                .bind(&self.name)
                .fetch_one(&mut admin)
                .await
                .context(doing)?;
        if prepared > 0 {
            return Err(Fault::permanent(format!(
                "'{}' has {prepared} prepared transactions",
                self.name
            ))
            .hint("commit or roll them back first (pg_prepared_xacts)"));
        }
        let row: Option<(String, i64)> = sqlx::query_as(
            "SELECT pg_get_userbyid(datdba)::text,
                    (SELECT count(*) FROM pg_stat_activity a WHERE a.datname = d.datname)
             FROM pg_database d WHERE datname = $1",
        )
        .bind(&self.name)
        .fetch_optional(&mut admin)
        .await
        .context(doing)?;
        if let Some((owner, clients)) = row {
            let mut inside = self.server.connect(&self.name).await?;
            let tables: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
            )
            .fetch_one(&mut inside)
            .await
            .context(doing)?;
            inside.close().await.ok();
            self.present = Some(Present { owner, tables, clients });
        }
        admin.close().await.ok();
        Ok(())
    }

    /// A connection that is not to the database that will be renamed.
    async fn admin(&self) -> Result<PgConnection> {
        let other = if self.name == "postgres" { "template1" } else { "postgres" };
        self.server.connect(other).await
    }

    /// Whether several archives together make the database: the main one's definitions, every row
    /// there is, and then the main one's indexes and keys.
    fn is_parted(&self) -> bool {
        self.contents.len() > 1 && self.contents.contains(&Content::Main)
    }

    /// The major version that reads the archive and suits the server.
    fn reads_with(&self) -> u32 {
        let written_by = self.facts.as_ref().and_then(|facts| facts.reads_with.as_deref());
        let archive = written_by.and_then(|text| text.rsplit(' ').next()?.parse().ok());
        self.major.max(archive.unwrap_or(self.major))
    }

    fn pg_restore(&self) -> Result<Program> {
        let bin_dir = self.server.bin_dir.as_deref();
        let client = client::for_server("pg_restore", self.reads_with(), bin_dir)?;
        let owner: &[&str] = if self.no_owner { &["--no-owner", "--no-acl"] } else { &[] };
        Ok(self
            .server
            .program(client.path, &self.beside)
            .arg("--no-password")
            .arg(format!("--dbname={}", conninfo_of(&self.beside)))
            .args(owner))
    }

    /// It is needed twice, at the beginning and at the end, so it is kept in the meantime.
    fn load_main(&mut self, artifact: &Artifact) -> Result<Intake> {
        let path = self.session.spool.join(format!("main-{}", artifact.stem()));
        let writer = File::create(&path).context("keep the main archive for its second reading")?;
        let program =
            self.pg_restore()?.args(["--exit-on-error", "--section=pre-data", "--section=data"]);
        let program = program.args(jobs()).arg(&path);
        let session = self.session.clone();
        let exit = Exit::new(async move { run(program, &session).await });
        self.main = Some(path);
        Ok(Intake { writer: Box::new(writer), exit })
    }

    fn create_sql(&self) -> String {
        let mut sql = format!("CREATE DATABASE {} TEMPLATE template0", quote(&self.beside));
        if let Some(facts) = &self.facts {
            if let Some(encoding) = &facts.encoding {
                sql.push_str(&format!(" ENCODING {}", literal(encoding)));
            }
            if let Some(collation) = &facts.collation {
                let collation = literal(collation);
                sql.push_str(&format!(" LC_COLLATE {collation} LC_CTYPE {collation}"));
            }
        }
        if let Some(present) = &self.present {
            sql.push_str(&format!(" OWNER {}", quote(&present.owner)));
        }
        sql
    }

    async fn swap(&self, admin: &mut PgConnection) -> Result<()> {
        let doing = "put the new database in place";
        let run = async |admin: &mut PgConnection, sql: String| -> Result<()> {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(admin).await.context(doing)?;
            Ok(())
        };
        if self.present.is_some() {
            // New clients are kept out between the end of the old ones and the rename.
            let name = quote(&self.name);
            run(admin, format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await?;
            let swapped = async {
                run(
                    admin,
                    format!(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                         WHERE datname = {} AND pid <> pg_backend_pid()",
                        literal(&self.name)
                    ),
                )
                .await?;
                run(
                    admin,
                    format!(
                        "BEGIN; ALTER DATABASE {name} RENAME TO {}; ALTER DATABASE {} RENAME TO {name}; COMMIT",
                        quote(&self.before),
                        quote(&self.beside),
                    ),
                )
                .await
            }
            .await;
            let open = if swapped.is_ok() { quote(&self.before) } else { name };
            if swapped.is_err() {
                run(admin, "ROLLBACK".into()).await.ok();
            }
            run(admin, format!("ALTER DATABASE {open} ALLOW_CONNECTIONS true")).await?;
            return swapped;
        }
        let (beside, name) = (quote(&self.beside), quote(&self.name));
        run(admin, format!("ALTER DATABASE {beside} RENAME TO {name}")).await
    }
}

#[async_trait]
impl Target for PostgresTarget {
    fn plan(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "into database '{}' on {}:{} (PostgreSQL {})",
            self.name, self.server.host, self.server.port, self.major
        )];
        match &self.present {
            None => lines.push("no such database there now: it will be created".into()),
            Some(present) => lines.push(format!(
                "there now: '{}' with {} tables and {} clients; it is kept as '{}', its clients are disconnected",
                self.name, present.tables, present.clients, self.before
            )),
        }
        lines
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    async fn begin(&mut self) -> Result<()> {
        let mut admin = self.admin().await?;
        let created = sqlx::raw_sql(AssertSqlSafe(self.create_sql())).execute(&mut admin).await;
        if let Err(error) = created {
            return Err(Fault::permanent("create a database beside the present one")
                .cause(error)
                .hint(format!(
                    "the user needs CREATEDB: ALTER ROLE {} CREATEDB; and the server the backup's locale",
                    quote(&self.server.user)
                )));
        }
        self.created = true;
        admin.close().await.ok();
        if self.contents == [Content::Schema("public".into())] {
            // pg_dump names it when it is asked for it alone, and every new database has one.
            let mut inside = self.server.connect(&self.beside).await?;
            let sql = "DROP SCHEMA public";
            sqlx::raw_sql(sql).execute(&mut inside).await.context("make room for the schema")?;
            inside.close().await.ok();
        }
        Ok(())
    }

    async fn load(&mut self, artifact: &Artifact) -> Result<Intake> {
        if self.is_parted() && artifact.content == Content::Main {
            return self.load_main(artifact);
        }
        let program = match artifact.format {
            ArtifactFormat::PgCustom => {
                // Of a schema's own archive the main one has the definitions already.
                let part: &[&str] = match (&artifact.content, self.is_parted()) {
                    (_, true) => &["--exit-on-error", "--section=data"],
                    // What refers to other schemas can't be made without them; the rest is wanted.
                    (Content::Schema(_), false) => &[],
                    _ => &["--exit-on-error"],
                };
                self.pg_restore()?.args(part)
            }
            ArtifactFormat::PgPlain => {
                let bin_dir = self.server.bin_dir.as_deref();
                let client = client::for_server("psql", self.reads_with(), bin_dir)?;
                self.server
                    .program(client.path, &self.beside)
                    .args(["--no-psqlrc", "--quiet", "--no-password", "--output=/dev/null"])
                    .args(["--set=ON_ERROR_STOP=1", "--file=-"])
            }
            other => {
                return Err(Fault::permanent(format!("{other:?} can't be loaded into a database")));
            }
        };
        let child = child::spawn(program, Pipes::Stdin, self.session.cancel.clone()).await?;
        let writer = child.stdin.ok_or_else(|| Fault::permanent("the program has no input"))?;
        let alone = !self.is_parted() && matches!(artifact.content, Content::Schema(_));
        let exit = Exit::new(async move {
            let ended = child::ended(child.end).await?;
            let went_on = alone && ended.stderr.iter().any(|line| line.contains(WENT_ON));
            match ended.status.success() || went_on {
                true => Ok(ended.stderr),
                false => Err(explain(ended.fault())),
            }
        });
        Ok(Intake { writer: Box::new(writer), exit })
    }

    async fn finish(&mut self) -> Result<Vec<String>> {
        if let Some(main) = self.main.take() {
            // Indexes, keys and triggers, now that every row is there.
            let program = self
                .pg_restore()?
                .args(["--exit-on-error", "--section=post-data"])
                .args(jobs())
                .arg(main);
            run(program, &self.session).await?;
        }
        let mut inside = self.server.connect(&self.beside).await?;
        let parts_only =
            !self.contents.iter().any(|part| matches!(part, Content::Whole | Content::Main));
        let erased = reapply(&mut inside, &self.erasures, parts_only, &self.session.cancel).await?;
        sqlx::raw_sql("ANALYZE").execute(&mut inside).await.context("analyze the new database")?;
        inside.close().await.ok();
        let mut admin = self.admin().await?;
        self.swap(&mut admin).await?;
        self.created = false;
        admin.close().await.ok();
        let mut said = vec![format!("database '{}' is in place", self.name)];
        if erased > 0 {
            said.push(format!("{erased} erasures were reapplied"));
        }
        if self.present.is_some() {
            said.push(format!("the former one is kept as '{}'", self.before));
        }
        Ok(said)
    }

    async fn discard(&mut self) {
        if !self.created {
            return;
        }
        let drop = async {
            let mut admin = self.admin().await?;
            let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote(&self.beside));
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.context("drop it")?;
            Ok::<_, Fault>(())
        };
        if let Err(fault) = drop.await {
            tracing::warn!("could not drop the database '{}': {}", self.beside, fault.chain());
        }
    }
}

/// Archives in a file are loaded by several sessions.
fn jobs() -> Option<String> {
    let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_JOBS);
    (count > 1).then(|| format!("--jobs={count}"))
}

async fn run(program: Program, session: &Session) -> Result<Vec<String>> {
    let child = child::spawn(program, Pipes::Stdout, session.cancel.clone()).await?;
    drop(child.stdout);
    let ended = child::ended(child.end).await?;
    if ended.status.success() { Ok(ended.stderr) } else { Err(explain(ended.fault())) }
}

fn explain(fault: Fault) -> Fault {
    let text = fault.chain();
    if text.contains("role \"") && text.contains("does not exist") {
        return fault.hint("create the missing role first, or restore with --no-owner");
    }
    if text.contains("extension") {
        return fault.hint("install the extension on this server first");
    }
    fault
}

/// An SQL string.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A database as a connection string: a name alone may be taken for one.
pub(super) fn conninfo_of(database: &str) -> String {
    format!("dbname={}", conninfo(database))
}

/// A value in a libpq connection string.
fn conninfo(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The same backup may have been restored before: then a number is added.
fn free_name(name: &str, ending: &str, taken: &[String]) -> String {
    let numbered = (2..).map(|number| format!("{ending}_{number}"));
    let endings = std::iter::once(ending.to_owned()).chain(numbered);
    let mut names = endings.map(|ending| shorten(name, &ending));
    names.find(|name| !taken.contains(name)).unwrap_or_default()
}

/// Names end at 63 bytes in PostgreSQL; the ending must survive.
fn shorten(name: &str, ending: &str) -> String {
    let mut room = 63_usize.saturating_sub(ending.len()).min(name.len());
    while !name.is_char_boundary(room) {
        room -= 1;
    }
    format!("{}{ending}", &name[..room])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_not_break_out() {
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(conninfo("a' host=evil"), "'a\\' host=evil'");
        let long = shorten(&"ñ".repeat(60), "__new_1");
        assert!(long.len() <= 63 && long.ends_with("__new_1"));
        let taken = ["a__new_1", "a__new_1_2"].map(str::to_owned);
        assert_eq!(free_name("a", "__new_1", &taken), "a__new_1_3");
    }
}
