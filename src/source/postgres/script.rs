//! A plain SQL dump loaded by a role without rights. It is one stream of definitions and rows, and what
//! comes after a definition runs it: no part of it can be given to a superuser. So it is all given to
//! the role that owns the database; what such a role may not do is prepared for it.

use sqlx::{AssertSqlSafe, Connection as _};

use super::loading::Loading;
use super::tables::quote;
use super::target::literal;
use crate::fault::{Context, Result};
use crate::model::SourceFacts;

/// Statements of a superuser by which a role without rights has the extensions of a backup, as if it had
/// made them.
pub(super) fn extensions_for(facts: Option<&SourceFacts>, role: &str) -> String {
    let mut sql = String::new();
    let names = facts.iter().flat_map(|facts| &facts.extensions);
    for extension in names.filter_map(|text| text.split(' ').next()) {
        let extension = quote(extension);
        sql.push_str(&format!("CREATE EXTENSION IF NOT EXISTS {extension} CASCADE;"));
    }
    let (owner, role) = (literal(&quote(role)), literal(role));
    sql.push_str(&format!(
        "UPDATE pg_extension SET extowner = {owner}::regrole;
         DO $$ DECLARE one name; BEGIN
           FOR one IN SELECT fdwname FROM pg_foreign_data_wrapper LOOP
             EXECUTE format('GRANT USAGE ON FOREIGN DATA WRAPPER %I TO %I', one, {role});
           END LOOP; END $$"
    ));
    sql
}

impl Loading {
    /// Before the dump: extensions are made, the database is the role's, and every schema that will be
    /// made lets any role in, so that what is made in it can be given to its owner.
    pub(super) async fn make_room_for_script(&self, role: &str) -> Result<()> {
        let (database, owner) = (quote(&self.database), quote(role));
        let extensions = extensions_for(self.facts.as_ref(), role);
        let sql = format!(
            "ALTER DATABASE {database} OWNER TO {owner}; GRANT ALL ON SCHEMA public TO PUBLIC;
             {extensions};
             CREATE FUNCTION respaldo_opens() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
               SET search_path = pg_catalog AS $f$
               DECLARE made record; BEGIN
                 FOR made IN SELECT object_identity FROM pg_event_trigger_ddl_commands()
                   WHERE object_type = 'schema' LOOP
                   EXECUTE 'GRANT ALL ON SCHEMA ' || made.object_identity || ' TO PUBLIC';
                 END LOOP; END $f$;
             CREATE EVENT TRIGGER respaldo_opens ON ddl_command_end WHEN TAG IN ('CREATE SCHEMA')
               EXECUTE FUNCTION respaldo_opens()"
        );
        self.as_superuser(sql).await.context("prepare for a plain dump")
    }

    /// What was prepared goes again.
    pub(super) async fn script_is_over(&self) -> Result<()> {
        if self.rows_as.is_none() || !self.is_script {
            return Ok(());
        }
        let sql = "DROP EVENT TRIGGER respaldo_opens; DROP FUNCTION respaldo_opens()";
        self.as_superuser(sql.to_owned()).await.context("clear up after a plain dump")
    }

    async fn as_superuser(&self, sql: String) -> Result<()> {
        let mut connection = self.server.connect(&self.database).await?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await;
        connection.close().await.ok();
        done.map(drop).context("prepare the database")
    }
}
