//! A database for one drill, on a server that was started for it. Knows what a backup needs to be
//! loaded and asked; must not know any server but that one.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::elsewhere::missing_extensions;
use super::loading::Loading;
use super::tables::quote;
use super::throwaway::Throwaway;
use super::{Postgres, locale, major_of};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, SourceFacts};
use crate::source::{Finished, Intake, Scratch, Session, Target, Wanted};

/// What the database is called there.
const NAME: &str = "drill";

pub(super) struct PostgresScratch {
    server: Throwaway,
    target: ScratchTarget,
}

/// The only connections that it has are those of the throwaway server.
struct ScratchTarget {
    loading: Loading,
    /// Who loads rows and runs checks.
    rows: String,
}

impl Postgres {
    /// Whether the first value that a statement returns is true.
    pub(super) async fn is_true(
        &self,
        database: &str,
        sql: &str,
        session: &Session,
    ) -> Result<bool> {
        let doing = "run the check";
        let mut connection = self.connect(database).await?;
        let asked = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection);
        let row = tokio::select! {
            row = asked => row.context(doing)?,
            () = session.cancel.cancelled() => {
                return Err(Fault::cancelled("the drill was stopped"));
            }
        };
        let value: Option<bool> = sqlx::Row::try_get(&row, 0).context(doing)?;
        connection.close().await.ok();
        Ok(value.unwrap_or(false))
    }
}

impl PostgresScratch {
    pub(super) async fn start(
        source: &Postgres,
        wanted: &Wanted,
        session: &Session,
    ) -> Result<Self> {
        let facts = wanted.facts.clone().unwrap_or_else(|| {
            SourceFacts::named(crate::model::Engine::Postgres, &source.database)
        });
        let major = major_of(&facts);
        if major == 0 {
            return Err(Fault::unprovable("the backup does not say of which PostgreSQL it is")
                .hint("restore it by hand: `respaldo restore`"));
        }
        let has_tables = facts.fingerprint.as_ref().is_some_and(|print| !print.tables.is_empty());
        if facts.roles.is_empty() && has_tables {
            return Err(Fault::unprovable("the backup does not say which roles it names")
                .hint("it was imported, or made by an older respaldo: the next backup says so"));
        }
        let server = Throwaway::start(major, source.bin_dir.as_deref(), session).await?;
        let inside = Postgres { bin_dir: source.bin_dir.clone(), ..server.inside(NAME) };
        let mut loading = Loading::new(&inside, wanted, session, (NAME.to_owned(), major));
        let rows = server.rows_role();
        loading.rows_as = Some(rows.clone());
        Ok(Self { server, target: ScratchTarget { loading, rows } })
    }

    /// As the role without rights: what is asked may call what the dump defines.
    fn asked(&self) -> Postgres {
        Postgres { user: self.target.rows.clone(), ..self.target.loading.server.clone() }
    }
}

impl ScratchTarget {
    async fn prepare(&self, admin: &mut PgConnection) -> Result<()> {
        if let Some(facts) = &self.loading.facts {
            let missing = missing_extensions(admin, facts).await?;
            if let Some(first) = missing.first() {
                let names = missing.join(", ");
                let package = package(first, self.loading.major);
                return Err(Fault::unprovable(format!(
                    "these extensions are not installed here: {names}"
                ))
                .hint(format!(
                    "install them where respaldo runs, for PostgreSQL {} (on Debian {package}), or run `respaldo drill JOB --from URL` on a host that has them",
                    self.loading.major
                )));
            }
        }
        let mut sql = format!("CREATE ROLE {} LOGIN BYPASSRLS", quote(&self.rows));
        for role in self.loading.facts.iter().flat_map(|facts| &facts.roles) {
            let role = quote(role);
            sql.push_str(&format!("; CREATE ROLE {role} NOLOGIN NOSUPERUSER"));
            // Keys and checks are made by whoever owns the table, or belongs to who does.
            sql.push_str(&format!("; GRANT {role} TO {}", quote(&self.rows)));
        }
        run(admin, sql).await.context("make the roles of the backup")
    }
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

/// Where Debian has an extension.
fn package(extension: &str, major: u32) -> String {
    let name = match extension {
        name if name.starts_with("postgis") => "postgis-3".to_owned(),
        "vector" => "pgvector".to_owned(),
        "pg_cron" => "cron".to_owned(),
        "pg_partman" => "partman".to_owned(),
        name => name.replace('_', "-"),
    };
    format!("postgresql-{major}-{name}")
}

#[async_trait]
impl Target for ScratchTarget {
    fn plan(&self) -> Vec<String> {
        vec![format!("into a throwaway server of PostgreSQL {}", self.loading.major)]
    }

    fn name(&self) -> String {
        NAME.to_owned()
    }

    async fn begin(&mut self) -> Result<()> {
        let mut admin = self.loading.server.connect("postgres").await?;
        self.prepare(&mut admin).await?;
        let created = self.loading.create(&mut admin, None, None).await;
        created.map_err(|error| {
            let doing = "make a database like the one that was backed up";
            let said = error.to_string();
            if !said.contains("locale") {
                return Fault::permanent(doing).cause(error);
            }
            let facts = self.loading.facts.as_ref();
            let locale = facts.map_or("", |facts| locale::lacking(facts, &said));
            Fault::unprovable(format!("the locale '{locale}' is not installed here")).cause(error).hint(format!(
                "install it where respaldo runs: on Debian the package `locales`, a line `{locale} UTF-8` in /etc/locale.gen, and locale-gen"
            ))
        })?;
        admin.close().await.ok();
        if self.loading.is_script {
            self.loading.make_room_for_script(&self.rows).await?;
        }
        self.loading.make_room().await
    }

    async fn load(&mut self, artifact: &Artifact) -> Result<Intake> {
        self.loading.load(artifact).await
    }

    async fn complete(&mut self) -> Result<()> {
        self.loading.complete().await
    }

    async fn holds(&mut self, expected: &SourceFacts) -> Result<Option<SourceFacts>> {
        self.loading.holds(expected).await.map(Some)
    }

    async fn finish(&mut self) -> Result<Finished> {
        Ok(Finished::default())
    }

    async fn discard(&mut self) {}
}

#[async_trait]
impl Scratch for PostgresScratch {
    fn target(&mut self) -> &mut dyn Target {
        &mut self.target
    }

    async fn check(&mut self, sql: &str) -> Result<bool> {
        self.asked().is_true(NAME, sql, &self.target.loading.session).await
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let server = self.asked();
        vec![
            ("PGHOST", server.host),
            ("PGPORT", server.port.to_string()),
            ("PGUSER", server.user),
            ("PGDATABASE", NAME.to_owned()),
            ("PGSSLMODE", "disable".to_owned()),
        ]
    }

    async fn remove(self: Box<Self>) -> Result<()> {
        self.server.end().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_is_named_by_its_package() {
        assert_eq!(package("postgis_topology", 17), "postgresql-17-postgis-3");
        assert_eq!(package("pg_repack", 15), "postgresql-15-pg-repack");
    }
}
