//! A database for one drill, on a server that the job names. Knows how it is made, told from every other
//! one, and dropped; must not touch a database that it did not make.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::elsewhere::missing_extensions;
use super::loading::Loading;
use super::script::extensions_for;
use super::tables::quote;
use super::target::literal;
use super::{Postgres, major_of};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, Engine, SourceFacts};
use crate::secret::Secret;
use crate::source::{Dump, Finished, Intake, Scratch, Session, Source, Target, Wanted};

/// With a part that nobody can guess behind it.
const NAME: &str = "respaldo_drill_";
const COMMENT: &str = "made by respaldo for a drill, and dropped after it";

/// A server that backups are proven on.
#[derive(Debug, Clone)]
pub struct ProvingGround(pub Postgres);

#[async_trait]
impl Source for ProvingGround {
    fn engine(&self) -> Engine {
        Engine::Postgres
    }

    fn name(&self) -> String {
        self.0.name()
    }

    async fn inspect(&self, session: &Session) -> Result<SourceFacts> {
        self.0.inspect(session).await
    }

    async fn open(&self, session: &Session) -> Result<Dump> {
        self.0.open(session).await
    }

    async fn target(&self, _wanted: &Wanted, _session: &Session) -> Result<Box<dyn Target>> {
        Err(Fault::usage("nothing is restored into the server of a drill"))
    }

    async fn scratch(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Scratch>> {
        Ok(Box::new(NamedScratch::make(&self.0, wanted, session).await?))
    }
}

struct NamedScratch {
    server: Arc<Postgres>,
    loading: Loading,
    /// Holds the claim on the name: who finds the database and gets the claim may drop it.
    admin: PgConnection,
    /// A role was made too, for the server's user may do more than a dump should.
    has_role: bool,
}

impl NamedScratch {
    async fn make(server: &Postgres, wanted: &Wanted, session: &Session) -> Result<Self> {
        let doing = "look at the server of the drill";
        let mut admin = server.connect(&server.database).await?;
        clear(&mut admin).await?;
        let (number, is_superuser, may_create): (i32, bool, bool) = sqlx::query_as(
            "SELECT current_setting('server_version_num')::int, rolsuper, rolsuper OR rolcreatedb
             FROM pg_roles WHERE rolname = current_user",
        )
        .fetch_one(&mut admin)
        .await
        .context(doing)?;
        let major = u32::try_from(number / 10_000).unwrap_or(0);
        let facts = wanted.facts.clone();
        let was = facts.as_ref().map_or(0, major_of);
        if major < was || !may_create {
            let (what, hint) = match may_create {
                true => (
                    format!(
                        "the server of the drill is a PostgreSQL {major}, and the backup of a {was}"
                    ),
                    "name a server of the same major",
                ),
                false => (
                    format!("'{}' may not make a database on the server of the drill", server.user),
                    "ALTER ROLE ... CREATEDB",
                ),
            };
            return Err(Fault::unprovable(what).hint(hint));
        }
        if let Some(facts) = &facts {
            let missing = missing_extensions(&mut admin, facts).await?;
            if !missing.is_empty() {
                let names = missing.join(", ");
                let what = format!(
                    "these extensions are not installed on the server of the drill: {names}"
                );
                return Err(Fault::unprovable(what).hint("install them there"));
            }
        }
        let name = format!("{NAME}{}", uuid::Uuid::new_v4().simple());
        let mut loader = server.clone();
        if is_superuser {
            loader.user.clone_from(&name);
            loader.password = Some(Secret::new(uuid::Uuid::new_v4().simple().to_string()));
        }
        let wanted = Wanted { no_owner: true, ..wanted.clone() };
        let mut loading = Loading::new(&loader, &wanted, session, (name, major));
        if loading.is_script {
            return Err(Fault::unprovable(
                "a plain SQL dump names roles that are not on that server",
            )
            .hint("take `server` out of the job's `drill`, or the default format for the dump"));
        }
        loading.rows_as = Some(loader.user.clone());
        let server = Arc::new(server.clone());
        Ok(Self { server, loading, admin, has_role: is_superuser })
    }

    /// Nothing is loaded into what is not empty and ours.
    async fn check_is_ours(&mut self) -> Result<()> {
        let doing = "look at the database of the drill";
        let comment: Option<String> = sqlx::query_scalar(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1",
        )
        .bind(&self.loading.database)
        .fetch_one(&mut self.admin)
        .await
        .context(doing)?;
        let mut inside = self.server.connect(&self.loading.database).await?;
        let there: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_class WHERE oid >= 16384")
            .fetch_one(&mut inside)
            .await
            .context(doing)?;
        inside.close().await.ok();
        if comment.as_deref() != Some(COMMENT) || there > 0 {
            return Err(Fault::permanent("the database of the drill is not the one that was made"));
        }
        Ok(())
    }

    /// What only a superuser can make, made by one and given away.
    async fn give(&self) -> Result<()> {
        let role = quote(&self.loading.server.user);
        let extensions = extensions_for(self.loading.facts.as_ref(), &self.loading.server.user);
        let sql = format!("{extensions}; GRANT ALL ON SCHEMA public TO {role}");
        let mut inside = self.server.connect(&self.loading.database).await?;
        let done = run(&mut inside, sql).await;
        inside.close().await.ok();
        done.context("make the extensions")
    }
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

/// Whoever drills in a database of that name holds this.
async fn claim(admin: &mut PgConnection, name: &str) -> Result<bool> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock(1920168805, hashtext($1))")
        .bind(name)
        .fetch_one(admin)
        .await
        .context("claim the database of the drill")
}

/// Drops what drills that were killed have left: by name, by comment, and claimed by nobody.
async fn clear(admin: &mut PgConnection) -> Result<()> {
    let doing = "look for what a drill has left";
    let left: Vec<String> = sqlx::query_scalar(
        "SELECT datname::text FROM pg_database
         WHERE starts_with(datname, $1) AND shobj_description(oid, 'pg_database') = $2",
    )
    .bind(NAME)
    .bind(COMMENT)
    .fetch_all(&mut *admin)
    .await
    .context(doing)?;
    for name in left {
        if claim(admin, &name).await? {
            remove(admin, &name, true).await.context(doing)?;
            tracing::info!("dropped '{name}', which a drill that was cut off left");
        }
    }
    Ok(())
}

async fn remove(admin: &mut PgConnection, name: &str, role: bool) -> Result<(), sqlx::Error> {
    let name = quote(name);
    run(admin, format!("DROP DATABASE IF EXISTS {name}")).await?;
    match role {
        true => run(admin, format!("DROP ROLE IF EXISTS {name}")).await,
        false => Ok(()),
    }
}

#[async_trait]
impl Target for NamedScratch {
    fn plan(&self) -> Vec<String> {
        vec![format!("into a new database on {}:{}", self.server.host, self.server.port)]
    }

    fn name(&self) -> String {
        self.loading.database.clone()
    }

    async fn begin(&mut self) -> Result<()> {
        let name = self.loading.database.clone();
        if !claim(&mut self.admin, &name).await? {
            return Err(Fault::transient("another drill has the same name"));
        }
        let owner = quote(&self.loading.server.user);
        if self.has_role {
            let password = self.loading.server.password.as_ref().map(Secret::expose);
            let password = literal(password.unwrap_or_default());
            let sql = format!("CREATE ROLE {owner} LOGIN NOSUPERUSER PASSWORD {password}");
            run(&mut self.admin, sql).await.context("make a role for the drill")?;
        }
        let doing = "make a database for the drill";
        self.loading.create(&mut self.admin, None, None).await.context(doing)?;
        let database = quote(&name);
        let sql = format!("COMMENT ON DATABASE {database} IS {}", literal(COMMENT));
        run(&mut self.admin, sql).await.context(doing)?;
        self.check_is_ours().await?;
        if self.has_role {
            let sql = format!("ALTER DATABASE {database} OWNER TO {owner}");
            run(&mut self.admin, sql).await.context(doing)?;
            self.give().await?;
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
        let held = self.loading.holds(expected).await?;
        // No role is made on a server that others use, so that nothing can belong to one.
        Ok(Some(SourceFacts { roles: expected.roles.clone(), ..held }))
    }

    async fn finish(&mut self) -> Result<Finished> {
        Ok(Finished::default())
    }

    async fn discard(&mut self) {}
}

#[async_trait]
impl Scratch for NamedScratch {
    fn target(&mut self) -> &mut dyn Target {
        self
    }

    async fn check(&mut self, sql: &str) -> Result<bool> {
        self.loading.server.is_true(&self.loading.database, sql, &self.loading.session).await
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let server = &self.loading.server;
        let password = server.password.as_ref().map(|password| password.expose().to_owned());
        let mut found = vec![
            ("PGHOST", server.host.clone()),
            ("PGPORT", server.port.to_string()),
            ("PGUSER", server.user.clone()),
            ("PGDATABASE", self.loading.database.clone()),
        ];
        found.extend(password.map(|password| ("PGPASSWORD", password)));
        found
    }

    async fn remove(mut self: Box<Self>) -> Result<()> {
        let removed = remove(&mut self.admin, &self.loading.database, self.has_role).await;
        self.admin.close().await.ok();
        removed.context("drop the database of the drill")
    }
}
