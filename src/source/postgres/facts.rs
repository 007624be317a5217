//! What a server says of a database: version, size, locale, extensions, the roles that it names. Knows SQL;
//! must not know what is made of it.

use sqlx::{PgConnection, Row};

use super::{Postgres, locale};
use crate::fault::{Context, Fault, Result};
use crate::model::{Engine, SourceFacts};

/// Roles that the database's definitions name. The first superuser is in no such list, for what it owns
/// can't be lost; in a dump it is named like any other.
const ROLES: &str = "
    SELECT string_agg(role, E'\\n' ORDER BY role) FROM (
        SELECT DISTINCT r.rolname::text AS role FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
        WHERE d.refclassid = 'pg_authid'::regclass AND r.rolname !~ '^pg_'
          AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        UNION
        SELECT r.rolname::text FROM pg_roles r WHERE r.oid = 10 AND (
            EXISTS (SELECT 1 FROM pg_class c WHERE c.relowner = 10 AND c.oid >= 16384
                    AND c.relnamespace::regnamespace::text !~ '^pg_')
            OR EXISTS (SELECT 1 FROM pg_proc p WHERE p.proowner = 10 AND p.oid >= 16384)
            OR EXISTS (SELECT 1 FROM pg_namespace n WHERE n.nspowner = 10 AND n.oid >= 16384))
    ) AS named";

impl Postgres {
    pub(super) async fn facts(&self, connection: &mut PgConnection) -> Result<(u32, SourceFacts)> {
        let doing = "ask the server about the database";
        let row = sqlx::query(
            "SELECT current_setting('server_version_num')::int AS num,
                    current_setting('server_version') AS version,
                    pg_database_size(d.oid) AS size,
                    pg_encoding_to_char(d.encoding)::text AS encoding,
                    d.datname::text AS name, pg_is_in_recovery() AS standby
             FROM pg_database d WHERE d.datname = current_database()",
        )
        .fetch_one(&mut *connection)
        .await
        .transient(doing)?;
        let number: i32 = row.try_get("num").context(doing)?;
        let major = u32::try_from(number / 10_000).unwrap_or(0);
        if major < 12 {
            let version: String = row.try_get("version").context(doing)?;
            return Err(Fault::permanent(format!("PostgreSQL {version} is too old"))
                .hint("respaldo backs up PostgreSQL 12 and newer"));
        }
        let name: String = row.try_get("name").context(doing)?;
        let (collation, locale) = locale::of(connection, &name).await?.unzip();
        let size: i64 = row.try_get("size").context(doing)?;
        let standby: bool = row.try_get("standby").context(doing)?;
        let lsn = if standby { "pg_last_wal_replay_lsn()" } else { "pg_current_wal_lsn()" };
        // Each of these may be missing in a version or forbidden to a user; none is worth failing for.
        let mut extra = async |sql: String| -> Option<String> {
            sqlx::query_scalar::<_, Option<String>>(sqlx::AssertSqlSafe(sql))
                .fetch_one(&mut *connection)
                .await
                .ok()
                .flatten()
        };
        let system_id =
            extra("SELECT system_identifier::text FROM pg_control_system()".into()).await;
        let snapshot_lsn = extra(format!("SELECT {lsn}::text")).await;
        let collation_version = extra(
            "SELECT pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = current_database()".into(),
        )
        .await;
        let extensions = extra(
            "SELECT string_agg(extname || ' ' || extversion, ',' ORDER BY extname) FROM pg_extension".into(),
        )
        .await;
        let roles = extra(ROLES.into()).await;
        let list = |joined: Option<String>, between| -> Vec<String> {
            let joined = joined.unwrap_or_default();
            joined.split(between).filter(|one| !one.is_empty()).map(str::to_owned).collect()
        };
        let facts = SourceFacts {
            server_version: row.try_get("version").ok(),
            size_bytes: u64::try_from(size).ok(),
            system_id,
            encoding: row.try_get("encoding").ok(),
            collation,
            locale,
            collation_version,
            extensions: list(extensions, ','),
            roles: list(roles, '\n'),
            snapshot_lsn,
            ..SourceFacts::named(Engine::Postgres, &self.database)
        };
        Ok((major, facts))
    }
}
