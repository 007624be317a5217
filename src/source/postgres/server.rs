//! What belongs to a server and not to one of its databases: roles, tablespaces, settings; and the
//! databases themselves, those of tomorrow too. Knows what SQL shows of a server; must not know how a
//! database is dumped.

use std::sync::Arc;

use async_trait::async_trait;
use globset::Glob;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::{Begun, Postgres, begin, client, dump_part, major_of};
use crate::fault::{Context, Fault, Result};
use crate::model::{ArtifactFormat, BackupId, Content, Engine, SourceFacts};
use crate::source::{
    Dump, Kept, Leftovers, Neighbour, Part, Scratch, Session, Source, Target, Wanted,
};

/// Several databases of one server, each with a snapshot of its own.
#[derive(Debug, Clone)]
pub struct PostgresServer {
    /// Its database is the one that is asked for the others.
    pub postgres: Postgres,
    /// Names and patterns; one that starts with `!` excepts.
    pub databases: Vec<String>,
}

#[async_trait]
impl Source for PostgresServer {
    fn engine(&self) -> Engine {
        Engine::Postgres
    }

    fn name(&self) -> String {
        format!("{}:{}", self.postgres.host, self.postgres.port)
    }

    fn server(&self) -> Option<String> {
        self.postgres.server()
    }

    fn streams(&self) -> usize {
        self.postgres.streams
    }

    async fn also(&self, _session: &Session) -> Result<Vec<Arc<dyn Source>>> {
        let databases = chosen(&self.databases, &self.postgres.databases().await?)?;
        Ok(databases
            .into_iter()
            .map(|database| {
                let one = Postgres { database, globals: false, ..self.postgres.clone() };
                Arc::new(one) as Arc<dyn Source>
            })
            .collect())
    }

    async fn beside(&self) -> Result<Vec<(Neighbour, bool)>> {
        let there = self.postgres.databases().await?;
        let taken = chosen(&self.databases, &there)?;
        Ok(self.postgres.neighbours(there, |name| taken.iter().any(|taken| taken == name)))
    }

    async fn inspect(&self, session: &Session) -> Result<SourceFacts> {
        let facts = self.postgres.inspect(session).await?;
        // It is a server's, and none of its databases'.
        Ok(SourceFacts { name: self.name(), size_bytes: None, belongings: None, ..facts })
    }

    async fn open(&self, session: &Session) -> Result<Dump> {
        let facts = self.inspect(session).await?;
        let (parts, warnings) = self.postgres.server_parts(major_of(&facts), session).await?;
        Ok(Dump { warnings, ..Dump::new(facts, parts) })
    }

    async fn undo(&self, kept: &Kept, session: &Session) -> Result<Kept> {
        self.postgres.undo(kept, session).await
    }

    async fn forget(&self, kept: &Kept, session: &Session) -> Result<()> {
        self.postgres.forget(kept, session).await
    }

    async fn replaced(&self, backup: &BackupId) -> Result<Vec<Kept>> {
        self.postgres.replaced(backup).await
    }

    async fn clear_leftovers(&self) -> Result<Leftovers> {
        self.postgres.clear_leftovers().await
    }

    async fn target(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Target>> {
        self.postgres.target(wanted, session).await
    }

    async fn scratch(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Scratch>> {
        self.postgres.scratch(wanted, session).await
    }
}

/// Which databases are meant. A name that is not there is an error: it was dropped, or never was.
fn chosen(patterns: &[String], there: &[String]) -> Result<Vec<String>> {
    let mut meant = vec![false; there.len()];
    for pattern in patterns {
        let (text, value) = match pattern.strip_prefix('!') {
            Some(text) => (text, false),
            None => (pattern.as_str(), true),
        };
        let glob = Glob::new(text)
            .map_err(|error| Fault::usage(format!("'{text}' is no pattern: {}", error.kind())))?
            .compile_matcher();
        let mut matched = false;
        for (name, meant) in there.iter().zip(&mut meant) {
            if glob.is_match(name) || name == text {
                (*meant, matched) = (value, true);
            }
        }
        if !matched && value && !text.contains(['*', '?', '[', '{']) {
            return Err(Fault::permanent(format!("there is no database '{text}' on the server"))
                .hint(format!("it has: {}", there.join(", "))));
        }
    }
    let named = there.iter().zip(meant).filter(|(_, meant)| *meant);
    let databases: Vec<String> = named.map(|(name, _)| name.clone()).collect();
    if databases.is_empty() {
        return Err(Fault::permanent("no database of the server is meant")
            .hint("look at `databases` in the config"));
    }
    Ok(databases)
}

impl Postgres {
    /// The server's databases, but for templates and those that let nobody in.
    pub(super) async fn databases(&self) -> Result<Vec<String>> {
        let mut connection = self.connect(&self.database).await?;
        let there = sqlx::query_scalar(
            "SELECT datname::text FROM pg_database
             WHERE datallowconn AND NOT datistemplate ORDER BY 1",
        )
        .fetch_all(&mut connection)
        .await
        .transient("list the databases")?;
        connection.close().await.ok();
        Ok(there)
    }

    /// Databases, and whether they are taken. The one that every server has, to be asked
    /// for the others, is no loss.
    pub(super) fn neighbours(
        &self,
        databases: Vec<String>,
        is_taken: impl Fn(&str) -> bool,
    ) -> Vec<(Neighbour, bool)> {
        let worth = databases.into_iter().filter(|name| name != "postgres" || is_taken(name));
        let neighbour = |name: String| {
            let is_taken = is_taken(&name);
            let server = format!("{}:{}", self.host, self.port);
            (Neighbour::Database { name, server }, is_taken)
        };
        worth.map(neighbour).collect()
    }

    /// Roles and tablespaces to be loaded again, and the server's settings for people to read.
    pub(super) async fn server_parts(
        &self,
        major: u32,
        session: &Session,
    ) -> Result<(Vec<Part>, Vec<String>)> {
        let client = client::for_server("pg_dumpall", major, self.bin_dir.as_deref())?;
        let mut connection = self.connect(&self.database).await?;
        let mut warnings = Vec::new();
        let is_superuser: bool =
            sqlx::query_scalar("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
                .fetch_one(&mut connection)
                .await
                .transient("look at the own role")?;
        let with_passwords = self.role_passwords && is_superuser;
        if self.role_passwords && !is_superuser {
            warnings
                .push("globals are without password hashes: only a superuser reads them".into());
        }
        let settings = self.settings(&mut connection).await?;
        connection.close().await.ok();
        // What it connects to is named by the environment, as for pg_dump.
        let program = self
            .program(client.path, &self.database)
            .args(["--globals-only", "--no-password"])
            .arg(format!("--database={}", super::target::conninfo_of(&self.database)))
            .args((!with_passwords).then_some("--no-role-passwords"));
        let child = Begun::Now(begin(program, session).await?);
        let globals = dump_part("globals", ArtifactFormat::PgPlain, child, session.clone());
        Ok((
            vec![
                globals.holding(Content::Globals, 0),
                Part::text("server", ArtifactFormat::Json, settings).holding(Content::Settings, 0),
            ],
            warnings,
        ))
    }

    /// As far as this user may see them. What may hold a password is left out.
    async fn settings(&self, connection: &mut PgConnection) -> Result<String> {
        let mut asked = serde_json::Map::new();
        let queries = [
            (
                "settings",
                "SELECT coalesce(jsonb_object_agg(name, setting ORDER BY name), '{}') FROM pg_settings
                 WHERE source NOT IN ('default', 'override', 'client', 'session')
                   AND name !~ '(conninfo|passphrase|password|secret|token)' AND name !~ '\\.'",
            ),
            (
                "hba",
                "SELECT coalesce(jsonb_agg(to_jsonb(r) - 'options' ORDER BY line_number), '[]')
                 FROM pg_hba_file_rules r",
            ),
            ("archiver", "SELECT to_jsonb(a) FROM pg_stat_archiver a"),
            (
                "databases",
                "SELECT jsonb_agg(jsonb_build_object('name', datname, 'owner', pg_get_userbyid(datdba),
                     'encoding', pg_encoding_to_char(encoding), 'collation', datcollate,
                     'connection_limit', datconnlimit) ORDER BY datname)
                 FROM pg_database",
            ),
            (
                "replication_slots",
                "SELECT coalesce(jsonb_agg(jsonb_build_object('name', slot_name, 'type', slot_type,
                     'database', database) ORDER BY slot_name), '[]') FROM pg_replication_slots",
            ),
        ];
        for (name, sql) in queries {
            let answer: std::result::Result<Value, sqlx::Error> =
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await;
            let answer = answer.unwrap_or_else(|error| match error.as_database_error() {
                Some(refused) => json!({ "not_readable": refused.message() }),
                None => json!({ "not_readable": error.to_string() }),
            });
            asked.insert(name.to_owned(), answer);
        }
        let mut text = serde_json::to_string_pretty(&asked).context("write the settings")?;
        text.push('\n');
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_chosen_by_name_and_pattern() {
        let there = ["app", "app_test", "postgres"].map(str::to_owned);
        let chosen = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            chosen(&patterns, &there)
        };
        assert_eq!(chosen(&["*"]).unwrap(), there);
        assert_eq!(chosen(&["*", "!app_*"]).unwrap(), ["app", "postgres"]);
        assert_eq!(chosen(&["postgres", "app"]).unwrap(), ["app", "postgres"]);
        assert!(chosen(&["gone"]).unwrap_err().to_string().contains("no database 'gone'"));
        assert!(chosen(&["x*"]).unwrap_err().to_string().contains("no database"));
    }
}
