//! A dump loaded into a database that is new or empty. MySQL can't rename a database, and a table
//! with a trigger can't be moved into another one, so nothing is ever put in place of what is there.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row};

use super::client::{self, Client, Family};
use super::connection::{is_encrypted, number, text};
use super::{Mysql, explain, quote};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, ArtifactFormat, Content, Erasure, SourceFacts, Subject};
use crate::source::child::{self, Pipes, Program};
use crate::source::{Exit, Finished, Intake, Session, Target, Wanted};

pub(super) struct MysqlTarget {
    server: Mysql,
    session: Session,
    name: String,
    /// It is there, and empty.
    exists: bool,
    version: String,
    client: Client,
    tls: bool,
    facts: Option<SourceFacts>,
    begun: bool,
    erasures: Vec<Erasure>,
}

impl MysqlTarget {
    pub(super) async fn new(source: &Mysql, wanted: &Wanted, session: &Session) -> Result<Self> {
        let backed_up = wanted.facts.as_ref().map(|facts| facts.name.clone());
        let name = wanted.database.clone().or(backed_up).unwrap_or(source.database.clone());
        let mut connection = source.connect(None).await?;
        let doing = "look at the server";
        let version = sqlx::raw_sql("SELECT VERSION()").fetch_one(&mut connection).await;
        let version = text(&version.transient(doing)?, 0).unwrap_or_default();
        let exists = sqlx::query("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?")
            .bind(&name)
            .fetch_optional(&mut connection)
            .await
            .transient(doing)?
            .is_some();
        let held = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ?)
                  + (SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = ?)
                  + (SELECT COUNT(*) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = ?)",
        )
        .bind(&name)
        .bind(&name)
        .bind(&name)
        .fetch_one(&mut connection)
        .await
        .transient(doing)?;
        let held: i64 = held.try_get_unchecked(0).context(doing)?;
        if held > 0 {
            return Err(Fault::usage(format!(
                "the database '{name}' on {} holds {held} tables, routines or events, and MySQL can't replace a database in one step",
                source.place()
            ))
            .hint(format!(
                "restore beside it with --database {name}_restored and point the application there, or empty it yourself first"
            )));
        }
        let tls = is_encrypted(&mut connection).await?;
        connection.close().await.ok();
        let family = Family::of(&version);
        let client = client::shell(family, source.bin_dir.as_deref(), session).await?;
        Ok(Self {
            server: source.clone(),
            session: session.clone(),
            name,
            exists,
            version,
            client,
            tls,
            facts: wanted.facts.clone(),
            begun: false,
            erasures: wanted.erasures.clone(),
        })
    }

    fn create_sql(&self) -> String {
        let mut sql = format!("CREATE DATABASE {}", quote(&self.name));
        // They come from a manifest: only what can be such a name.
        let word = |text: &Option<String>| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            text.clone().filter(|text| !text.is_empty() && text.chars().all(plain))
        };
        if let Some(facts) = &self.facts {
            if let Some(encoding) = word(&facts.encoding) {
                sql.push_str(&format!(" CHARACTER SET {encoding}"));
            }
            if let Some(collation) = word(&facts.collation) {
                sql.push_str(&format!(" COLLATE {collation}"));
            }
        }
        sql
    }

    async fn run(&self, connection: &mut MySqlConnection, sql: String) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
    }

    fn program(&self) -> Result<Program> {
        let options = self.server.defaults_file(self.client.family, self.tls, &self.session)?;
        Ok(Program::new(&self.client.path)
            .arg(format!("--defaults-file={}", options.display()))
            // A dump is somebody's words: none of them starts a program or reads a file here.
            .args(["--binary-mode", "--skip-local-infile", "--no-auto-rehash"])
            .args(["--default-character-set=utf8mb4", "--max-allowed-packet=1G"])
            .arg(format!("--database={}", self.name)))
    }
}

#[async_trait]
impl Target for MysqlTarget {
    fn plan(&self) -> Vec<String> {
        let there = match self.exists {
            true => "there now, and empty: it is filled",
            false => "no such database there now: it will be created",
        };
        vec![
            format!(
                "into database '{}' on {} ({} {})",
                self.name,
                self.server.place(),
                Family::of(&self.version).name(),
                self.version
            ),
            format!("{there}; until the end it is incomplete, and after a failure it is emptied"),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    async fn begin(&mut self) -> Result<()> {
        let mut admin = self.server.connect(None).await?;
        if !self.exists {
            let doing = format!("create the database '{}'", self.name);
            self.run(&mut admin, self.create_sql()).await.map_err(|error| {
                let user = &self.server.user;
                let hint = match number(&error) {
                    Some(1007) => "somebody else made it just now: look what it is".to_owned(),
                    Some(1115 | 1273) => {
                        "this server lacks the backup's character set or collation: make the database yourself, then restore into it".to_owned()
                    }
                    _ => format!("the user needs the right to: GRANT ALL ON {}.* TO '{user}'", quote(&self.name)),
                };
                Fault::permanent(doing).cause(error).hint(hint)
            })?;
        }
        self.begun = true;
        admin.close().await.ok();
        Ok(())
    }

    async fn load(&mut self, artifact: &Artifact) -> Result<Intake> {
        if artifact.format != ArtifactFormat::Mysql || artifact.content != Content::Whole {
            return Err(Fault::usage(format!("{} can't be loaded into a database", artifact.name))
                .hint("RESTORE.md in the backup says how to load it with stock tools"));
        }
        let child =
            child::spawn(self.program()?, Pipes::Stdin, self.session.cancel.clone()).await?;
        let writer = child.stdin.ok_or_else(|| Fault::permanent("the program has no input"))?;
        let exit = Exit::new(async move {
            let ended = child::ended(child.end).await?;
            if ended.status.success() { Ok(ended.stderr) } else { Err(explain(ended.fault())) }
        });
        Ok(Intake { writer: Box::new(writer), exit })
    }

    async fn finish(&mut self) -> Result<Finished> {
        let mut said = vec![format!("database '{}' is in place", self.name)];
        if !self.erasures.is_empty() {
            let mut inside = self.server.connect(Some(&self.name)).await?;
            for erasure in &self.erasures {
                let Subject::Sql(sql) = &erasure.subject else { continue };
                self.run(&mut inside, sql.clone()).await.map_err(|error| {
                    let what = format!("erase again: {}", erasure.words());
                    Fault::permanent(what).cause(error).hint(
                        "`respaldo erase JOB --list` shows what was erased; this backup does not suit that statement",
                    )
                })?;
            }
            inside.close().await.ok();
            said.push(format!("{} erasures were reapplied", self.erasures.len()));
        }
        self.begun = false;
        Ok(said.into())
    }

    async fn discard(&mut self) {
        if !self.begun {
            return;
        }
        let doing = "remove what was loaded";
        let drop = async {
            let mut admin = self.server.connect(None).await?;
            let name = quote(&self.name);
            if !self.exists {
                return self
                    .run(&mut admin, format!("DROP DATABASE IF EXISTS {name}"))
                    .await
                    .context(doing);
            }
            // It was there before: it comes back empty, in its own character set.
            let show = format!("SHOW CREATE DATABASE {name}");
            let row =
                sqlx::raw_sql(AssertSqlSafe(show)).fetch_one(&mut admin).await.context(doing)?;
            let create = text(&row, 1).unwrap_or_default();
            self.run(&mut admin, format!("DROP DATABASE {name}")).await.context(doing)?;
            self.run(&mut admin, create).await.context(doing)
        };
        if let Err(fault) = drop.await {
            tracing::warn!("the database '{}' stays half loaded: {}", self.name, fault.chain());
        }
    }
}
