//! A dump loaded into a database that is new or empty. MySQL can't rename a database, and a table
//! with a trigger can't be moved into another one: what is there is only ever replaced where that was
//! asked for, by a copy of what was loaded beside it and found right.

use std::io::Write;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row};

use super::client::{self, Client, Family};
use super::connection::{is_encrypted, number, text};
use super::definers::Definers;
use super::replace::{self, beside, claim};
use super::snapshot;
use super::{Mysql, explain, quote};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, ArtifactFormat, Content, Erasure, SourceFacts, Subject};
use crate::source::child::{self, Pipes};
use crate::source::{Exit, Finished, Intake, Session, Source, Target, Wanted};

pub(super) struct MysqlTarget {
    server: Mysql,
    session: Session,
    /// The database that is meant.
    name: String,
    /// The one that is loaded into: that one, or one beside it that will replace what is in it.
    loaded: String,
    /// The claim on the one beside is this session's.
    claimed: Option<MySqlConnection>,
    /// It is there, and empty.
    exists: bool,
    version: String,
    client: Client,
    tls: bool,
    facts: Option<SourceFacts>,
    begun: bool,
    /// On a server that knows nobody.
    makes_definers: bool,
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
        if held > 0 && !wanted.in_place {
            return Err(Fault::usage(format!(
                "the database '{name}' on {} holds {held} tables, routines or events, and MySQL can't replace a database in one step",
                source.place()
            ))
            .hint(format!(
                "restore beside it with --database {name}_restored and point the application there, or give up what it holds with --in-place"
            )));
        }
        let tls = is_encrypted(&mut connection).await?;
        connection.close().await.ok();
        let family = Family::of(&version);
        let client = client::shell(family, source.bin_dir.as_deref(), session).await?;
        let replaces = held > 0;
        Ok(Self {
            server: source.clone(),
            session: session.clone(),
            loaded: if replaces { beside(&name, &wanted.tag) } else { name.clone() },
            claimed: None,
            name,
            exists: exists && !replaces,
            version,
            client,
            tls,
            facts: wanted.facts.clone(),
            begun: false,
            makes_definers: false,
            erasures: wanted.erasures.clone(),
        })
    }

    /// Whoever the dump names is made on the way: for a server that was started for it.
    pub(super) fn make_definers(&mut self) {
        self.makes_definers = true;
    }

    fn create_sql(&self) -> String {
        let mut sql = format!("CREATE DATABASE {}", quote(&self.loaded));
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

    fn headline(&self) -> String {
        let family = Family::of(&self.version).name();
        let (name, place) = (&self.name, self.server.place());
        format!("into database '{name}' on {place} ({family} {})", self.version)
    }

    fn replaces(&self) -> bool {
        self.loaded != self.name
    }

    async fn run(&self, connection: &mut MySqlConnection, sql: String) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
    }
}

#[async_trait]
impl Target for MysqlTarget {
    fn plan(&self) -> Vec<String> {
        let there = match self.exists {
            _ if self.replaces() => {
                return vec![
                    self.headline(),
                    format!(
                        "it is loaded into '{}' and compared there first; then all that '{}' holds is dropped, and a copy of what was loaded takes its place (that can't be undone)",
                        self.loaded, self.name
                    ),
                ];
            }
            true => "there now, and empty: it is filled",
            false => "no such database there now: it will be created",
        };
        vec![
            self.headline(),
            format!("{there}; until the end it is incomplete, and after a failure it is emptied"),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn overwrites(&self) -> Option<Arc<dyn Source>> {
        let held = Mysql { database: self.name.clone(), ..self.server.clone() };
        self.replaces().then(|| Arc::new(held) as _)
    }

    async fn begin(&mut self) -> Result<()> {
        if self.replaces() {
            let meant = Mysql { database: self.name.clone(), ..self.server.clone() };
            let left = replace::clear_leftovers(&meant, true).await?;
            left.said.iter().for_each(|line| tracing::warn!("{line}"));
        }
        let mut admin = self.server.connect(None).await?;
        if self.replaces() && !claim(&mut admin, &self.loaded).await? {
            return Err(Fault::transient(format!("'{}' is being restored already", self.name))
                .hint("wait for the other restore to end"));
        }
        if !self.exists {
            let doing = format!("create the database '{}'", self.loaded);
            self.run(&mut admin, self.create_sql()).await.map_err(|error| {
                let user = &self.server.user;
                let hint = match number(&error) {
                    Some(1007) => "somebody else made it just now: look what it is".to_owned(),
                    Some(1115 | 1273) => {
                        "this server lacks the backup's character set or collation: make the database yourself, then restore into it".to_owned()
                    }
                    _ => format!("the user needs the right to: GRANT ALL ON {}.* TO '{user}'", quote(&self.loaded)),
                };
                Fault::permanent(doing).cause(error).hint(hint)
            })?;
        }
        self.begun = true;
        match self.replaces() {
            true => self.claimed = Some(admin),
            false => drop(admin.close().await),
        }
        Ok(())
    }

    async fn load(&mut self, artifact: &Artifact) -> Result<Intake> {
        if artifact.format != ArtifactFormat::Mysql || artifact.content != Content::Whole {
            return Err(Fault::usage(format!("{} can't be loaded into a database", artifact.name))
                .hint("RESTORE.md in the backup says how to load it with stock tools"));
        }
        let program =
            replace::shell(&self.server, &self.client, self.tls, &self.loaded, &self.session)?;
        let child = child::spawn(program, Pipes::Stdin, self.session.cancel.clone()).await?;
        let writer = child.stdin.ok_or_else(|| Fault::permanent("the program has no input"))?;
        let exit = Exit::new(async move {
            let ended = child::ended(child.end).await?;
            if ended.status.success() { Ok(ended.stderr) } else { Err(explain(ended.fault())) }
        });
        let mut writer: Box<dyn Write + Send> = Box::new(writer);
        if self.makes_definers {
            writer = Box::new(Definers::new(writer, &self.server));
        }
        Ok(Intake { writer, exit })
    }

    async fn holds(&mut self, expected: &SourceFacts) -> Result<Option<SourceFacts>> {
        let found = Mysql { database: self.loaded.clone(), ..self.server.clone() };
        let mut connection = found.connect(Some(&self.loaded)).await?;
        let (_, mut facts) = found.facts(&mut connection).await?;
        let tables = found.contents(&mut connection).await?.tables;
        connection.close().await.ok();
        if let Some(print) = &expected.fingerprint {
            let mut counted = tokio::select! {
                counted = snapshot::rows_of(&found, tables) => counted?,
                () = self.session.cancel.cancelled() => {
                    return Err(Fault::cancelled("the restore was stopped"));
                }
            };
            // The database may have another name now; of its tables it is not a part.
            let schema = print.tables.first().map_or(&expected.name, |table| &table.name.schema);
            counted.tables.iter_mut().for_each(|table| table.name.schema.clone_from(schema));
            facts.fingerprint = Some(counted);
        }
        Ok(Some(facts))
    }

    async fn finish(&mut self) -> Result<Finished> {
        let mut said = vec![format!("database '{}' is in place", self.name)];
        if !self.erasures.is_empty() {
            let mut inside = self.server.connect(Some(&self.loaded)).await?;
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
        if self.replaces() {
            replace::mark(&self.server, &self.loaded).await?;
            // From here on it goes forward only: the next start would go on with it.
            self.begun = false;
            replace::replace(&self.server, &self.name, &self.loaded, &self.session).await?;
            self.loaded.clone_from(&self.name);
            said.push("what it held before was dropped".to_owned());
        }
        self.claimed = None;
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
            let name = quote(&self.loaded);
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
            tracing::warn!("the database '{}' stays half loaded: {}", self.loaded, fault.chain());
        }
    }
}
