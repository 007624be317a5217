//! A database to be put in the place of another: loaded beside it, and then swapped in. Knows what is
//! there now and what becomes of it.

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};

use super::belongings;
use super::estate::Estate;
use super::loading::Loading;
use super::reapply::reapply;
use super::swap::{self, BEFORE, NEW};
use super::tables::quote;
use super::{Postgres, elsewhere, locale, roles};
use crate::fault::{Context, Result};
use crate::model::{Artifact, Content, Erasure, SourceFacts};
use crate::source::{Finished, Intake, Kept, Session, Target, Wanted};

pub(super) struct PostgresTarget {
    loading: Loading,
    /// The database that is meant.
    name: String,
    /// Where the present one goes.
    before: String,
    present: Option<Present>,
    /// What the new one gets of its own.
    estate: Option<Estate>,
    /// The claim on the new database's name is this session's.
    claimed: Option<PgConnection>,
    create_roles: bool,
    /// Made before anything else.
    new_roles: Vec<String>,
    obstacles: Vec<String>,
    notes: Vec<String>,
    erasures: Vec<Erasure>,
}

/// The database of that name as it is now.
struct Present {
    tables: i64,
    clients: i64,
    bytes: i64,
}

impl PostgresTarget {
    pub(super) async fn new(
        source: &Postgres,
        wanted: &Wanted,
        session: &Session,
        (name, major): (String, u32),
    ) -> Result<Self> {
        let mut admin = source.connect_beside(&name).await?;
        let taken = swap::names(&mut admin).await?;
        let beside = free_name(&name, &format!("{NEW}{}", wanted.tag), &taken);
        let mut loading = Loading::new(source, wanted, session, (beside, major));
        loading.only = wanted.piece.clone();
        loading.freezes = true;
        let mut target = Self {
            before: free_name(&name, &format!("{BEFORE}{}", wanted.tag), &taken),
            loading,
            name,
            present: None,
            estate: None,
            claimed: None,
            create_roles: wanted.create_roles,
            new_roles: Vec::new(),
            obstacles: Vec::new(),
            notes: Vec::new(),
            erasures: wanted.erasures.clone(),
        };
        target.look(&mut admin).await?;
        target.look_at_parts(wanted.database.is_some());
        admin.close().await.ok();
        Ok(target)
    }

    /// What is there now, and what stands in the way.
    async fn look(&mut self, admin: &mut PgConnection) -> Result<()> {
        let doing = "look at the server";
        if let Some(belongings) = belongings::of(admin, &self.name).await? {
            let (clients, bytes): (i64, i64) = sqlx::query_as(
                "SELECT (SELECT count(*) FROM pg_stat_activity a WHERE a.datname = d.datname),
                        pg_database_size(d.oid)
                 FROM pg_database d WHERE datname = $1",
            )
            .bind(&self.name)
            .fetch_one(&mut *admin)
            .await
            .context(doing)?;
            let mut inside = self.loading.server.connect(&self.name).await?;
            let tables = super::tables::list(&mut inside).await?.len();
            inside.close().await.ok();
            let tables = i64::try_from(tables).unwrap_or(i64::MAX);
            self.present = Some(Present { tables, clients, bytes });
            self.estate = Some(Estate::of_present(belongings));
        }
        let prepared: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_prepared_xacts WHERE database = $1")
                .bind(&self.name)
                .fetch_one(&mut *admin)
                .await
                .context(doing)?;
        if prepared > 0 {
            self.obstacles.push(format!(
                "'{}' has {prepared} prepared transactions: commit or roll them back first (pg_prepared_xacts)",
                self.name
            ));
        }
        let may_create: bool = sqlx::query_scalar(
            "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user",
        )
        .fetch_one(&mut *admin)
        .await
        .context(doing)?;
        if !may_create {
            self.obstacles.push(format!(
                "'{user}' may not make a database: ALTER ROLE {} CREATEDB; or restore with --in-place",
                quote(&self.loading.server.user),
                user = self.loading.server.user,
            ));
        }
        self.lost_by_a_swap(admin).await;
        let Some(facts) = &mut self.loading.facts else { return Ok(()) };
        if locale::fill(facts, admin, &self.name).await? {
            self.notes.push(
                "the backup says of its locale LC_COLLATE alone: the rest is taken from the present database".to_owned(),
            );
        }
        let facts = facts.clone();
        if self.present.is_none() {
            self.estate = Estate::of_backup(&facts, self.loading.no_owner);
        }
        self.look_for_roles(admin, &facts).await?;
        self.look_for_extensions(admin, &facts).await?;
        self.notes.extend(elsewhere::notes(admin, &facts, self.loading.major).await);
        Ok(())
    }

    /// A part alone takes the place of a whole database only where that is named.
    fn look_at_parts(&mut self, is_named: bool) {
        if self.present.is_none() || self.loading.is_whole() {
            return;
        }
        let lost = format!("only a part of the backup is loaded: all else of '{}'", self.name);
        if is_named {
            self.notes.push(format!("{lost} goes with the one that is replaced"));
            return;
        }
        let piece = self.loading.contents.iter().find_map(|part| match part {
            Content::Schema(schema) => Some(format!("--schema {schema}")),
            Content::Rows(Some(table)) => Some(format!("--table {}.{}", table.schema, table.table)),
            _ => None,
        });
        let beside = piece.map(|piece| format!("put it beside what is there with {piece}, or "));
        self.obstacles.push(format!(
            "{lost} would be replaced by it: {}restore it as a new database with --database NEW_NAME",
            beside.unwrap_or_default()
        ));
    }

    /// Slots and subscriptions stay with the database that is replaced.
    async fn lost_by_a_swap(&mut self, admin: &mut PgConnection) {
        let asked = [
            ("logical replication slots", "SELECT slot_name::text FROM pg_replication_slots WHERE database = $1"),
            (
                "subscriptions",
                "SELECT subname::text FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
                 WHERE datname = $1",
            ),
        ];
        for (what, sql) in asked {
            // Only a superuser sees subscriptions.
            let named = sqlx::query_scalar::<_, String>(sql).bind(&self.name);
            let named = named.fetch_all(&mut *admin).await.unwrap_or_default();
            if !named.is_empty() {
                self.notes.push(format!(
                    "{what} stay with the database that is replaced: {}",
                    named.join(", ")
                ));
            }
        }
    }

    async fn look_for_roles(
        &mut self,
        admin: &mut PgConnection,
        facts: &SourceFacts,
    ) -> Result<()> {
        if self.loading.no_owner {
            return Ok(());
        }
        let mut named = self.estate.as_ref().map(Estate::roles).unwrap_or_default();
        named.retain(|role| !facts.roles.contains(role));
        let mut needed = roles::missing(admin, &facts.roles).await?;
        let wished = roles::missing(admin, &named).await?;
        if self.create_roles {
            needed.extend(wished);
            self.new_roles = needed;
            let names = self.new_roles.join(", ");
            let note = format!("these roles are made, without a login: {names}");
            self.notes.extend((!names.is_empty()).then_some(note));
            return Ok(());
        }
        if !needed.is_empty() {
            self.obstacles.push(format!(
                "these roles are missing: {}: load globals.sql first (see RESTORE.md), or add --create-roles or --no-owner",
                needed.join(", ")
            ));
        }
        if !wished.is_empty() {
            self.notes.push(format!(
                "these roles are missing, and the database will not be theirs nor will they have a right to it: {}: load globals.sql first, or add --create-roles",
                wished.join(", ")
            ));
        }
        Ok(())
    }

    async fn look_for_extensions(
        &mut self,
        admin: &mut PgConnection,
        facts: &SourceFacts,
    ) -> Result<()> {
        if !self.loading.is_whole() {
            return Ok(());
        }
        let missing = elsewhere::missing_extensions(admin, facts).await?;
        if !missing.is_empty() {
            self.obstacles.push(format!(
                "these extensions are not installed on the server: {}",
                missing.join(", ")
            ));
        }
        Ok(())
    }
}

#[async_trait]
impl Target for PostgresTarget {
    fn plan(&self) -> Vec<String> {
        let server = &self.loading.server;
        let mut lines = vec![format!(
            "into database '{}' on {}:{} (PostgreSQL {})",
            self.name, server.host, server.port, self.loading.major
        )];
        match &self.present {
            None => {
                let gets = self.estate.as_ref().map_or_else(
                    || "what every new one has: the backup does not say what belonged to it".to_owned(),
                    Estate::words,
                );
                lines.push("no such database there now: it will be created".into());
                lines.push(format!("it gets {gets}"));
            }
            Some(present) => lines.push(format!(
                "there now: '{}' with {} tables, {} MB and {} clients; it is kept as '{}', its clients are disconnected",
                self.name,
                present.tables,
                present.bytes / 1_000_000,
                present.clients,
                self.before
            )),
        }
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        lines
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn obstacles(&self) -> Vec<String> {
        self.obstacles.clone()
    }

    async fn begin(&mut self) -> Result<()> {
        roles::make(&self.loading.server, &self.new_roles).await?;
        let (owner, tablespace) = match &mut self.estate {
            Some(estate) => {
                let mut admin = self.loading.server.connect("postgres").await?;
                let with = estate.made_with(&mut admin, self.loading.major).await;
                admin.close().await.ok();
                with?
            }
            None => (None, None),
        };
        self.claimed = Some(self.loading.begin_beside(owner, tablespace).await?);
        Ok(())
    }

    fn at_once(&self) -> usize {
        self.loading.jobs
    }

    async fn needs(&mut self, artifact: &Artifact) -> Result<bool> {
        self.loading.needs(artifact).await
    }

    async fn load(&mut self, artifact: &Artifact) -> Result<Intake> {
        self.loading.load(artifact).await
    }

    async fn complete(&mut self) -> Result<()> {
        self.loading.complete().await
    }

    fn expects(&self, facts: &SourceFacts) -> SourceFacts {
        self.loading.expects(facts)
    }

    async fn holds(&mut self, expected: &SourceFacts) -> Result<Option<SourceFacts>> {
        // Both only read; the planner's facts are the better for a whole table.
        let (held, analyzed) = tokio::join!(self.loading.holds(expected), self.loading.analyze());
        analyzed?;
        held.map(Some)
    }

    async fn finish(&mut self) -> Result<Finished> {
        let server = &self.loading.server;
        let beside = self.loading.database.clone();
        let mut inside = server.connect(&beside).await?;
        let parts_only = !self.loading.is_whole();
        let cancel = &self.loading.session.cancel;
        let erased = reapply(&mut inside, &self.erasures, parts_only, cancel).await?;
        inside.close().await.ok();
        let mut admin = server.connect_beside(&self.name).await?;
        let refused = match &self.estate {
            Some(estate) => estate.give(&mut admin, &beside, &self.name).await,
            None => Vec::new(),
        };
        let comment = self.estate.as_ref().and_then(Estate::comment);
        let names = (self.name.as_str(), beside.as_str(), self.before.as_str());
        swap::swap(server, &mut admin, names, comment, self.present.is_some()).await?;
        admin.close().await.ok();
        self.claimed = None;
        let mut said = vec![format!("database '{}' is in place", self.name)];
        if erased > 0 {
            said.push(format!("{erased} erasures were reapplied"));
        }
        let kept = self
            .present
            .as_ref()
            .map(|_| Kept { current: self.name.clone(), kept: self.before.clone() });
        if kept.is_some() {
            said.push(format!("the former one is kept as '{}'", self.before));
        }
        said.extend(refused);
        Ok(Finished { said, kept: kept.into_iter().collect() })
    }

    async fn discard(&mut self) {
        if let Some(admin) = self.claimed.take() {
            self.loading.drop_beside(admin).await;
        }
    }
}

/// An SQL string.
pub(super) fn literal(text: &str) -> String {
    // With a backslash in it, only this spelling means the same under every setting.
    match text.contains('\\') {
        true => format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        false => format!("'{}'", text.replace('\'', "''")),
    }
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
pub(super) fn free_name(name: &str, ending: &str, taken: &[String]) -> String {
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
