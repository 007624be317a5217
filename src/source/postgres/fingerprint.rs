//! What the tables held at the snapshot: rows counted, and their content hashed where that is wanted.
//! The same query is asked of a restored database. Knows SQL; must not know what is compared with
//! what.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::tables::{quote, quoted};
use crate::fault::{Context, Result};
use crate::model::{Fingerprint, FingerprintLevel, SequencePrint, TableName, TablePrint};

/// A value's text depends on these; a database or role may set them. (`jit`: to compile such a query takes
/// longer than it saves.)
const PINNED: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres';
    SET bytea_output = 'hex'; SET extra_float_digits = 3; SET lc_monetary = 'C'; SET xmlbinary = 'base64';
    SET search_path = pg_catalog; SET row_security = off; SET max_parallel_workers_per_gather = 0; SET jit = off;
    SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0";

/// Materialized views that a dump fills, among the objects. Earlier backups did not count them.
pub(super) const POPULATED: &str = "populated materialized views";

/// Takes the connection into `snapshot`, if one is given, and pins what a value's text depends on.
pub(super) async fn begin(connection: &mut PgConnection, snapshot: Option<&str>) -> Result<()> {
    let doing = "take part in the snapshot";
    sqlx::raw_sql(PINNED).execute(&mut *connection).await.transient(doing)?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    sqlx::raw_sql(begin).execute(&mut *connection).await.transient(doing)?;
    if let Some(id) = snapshot {
        let sql = format!("SET TRANSACTION SNAPSHOT '{}'", id.replace('\'', "''"));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.transient(doing)?;
    }
    Ok(())
}

/// Reads the tables one by one.
pub(super) async fn take(
    connection: &mut PgConnection,
    tables: &[TableName],
    level: FingerprintLevel,
) -> Result<Fingerprint> {
    let mut prints = Vec::new();
    for name in tables {
        prints.push(table(connection, name, level).await?);
    }
    with_rest(connection, prints, level).await
}

/// Tables that were read, and what else there is.
pub(super) async fn with_rest(
    connection: &mut PgConnection,
    tables: Vec<TablePrint>,
    level: FingerprintLevel,
) -> Result<Fingerprint> {
    Ok(Fingerprint {
        level,
        approximate: false,
        tables,
        sequences: sequences(connection).await?,
        objects: objects(connection).await?,
    })
}

/// Reads one table.
pub(super) async fn table(
    connection: &mut PgConnection,
    name: &TableName,
    level: FingerprintLevel,
) -> Result<TablePrint> {
    let doing = format!("count {}.{}", name.schema, name.table);
    // ONLY: what an heir or a partition holds is counted there.
    let from = format!("FROM ONLY {} AS t", quoted(name));
    if level == FingerprintLevel::Counts {
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) {from}")))
            .fetch_one(connection)
            .await
            .transient(doing)?;
        return Ok(TablePrint { name: name.clone(), rows: rows.unsigned_abs(), hash: None });
    }
    // By name: an inherited column may be at another place after a restore. Not those that are
    // generated, which follow from the others.
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT attname::text FROM pg_attribute
         WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
         ORDER BY attname COLLATE \"C\"",
    )
    .bind(quoted(name))
    .fetch_all(&mut *connection)
    .await
    .transient(doing.clone())?;
    let columns: Vec<String> =
        columns.iter().map(|column| format!("t.{}", quote(column))).collect();
    // The sum does not depend on the order of the rows, and sees one that is there twice.
    let sql = format!(
        "SELECT count(*) AS rows,
                coalesce(sum(hashtextextended((ROW({}))::text COLLATE \"C\", 0)), 0)::text AS sum {from}",
        columns.join(", ")
    );
    let row =
        sqlx::query(AssertSqlSafe(sql)).fetch_one(connection).await.transient(doing.clone())?;
    let rows: i64 = row.try_get("rows").context(doing.clone())?;
    let sum: String = row.try_get("sum").context(doing.clone())?;
    let sum: i128 = sum.parse().context(doing)?;
    Ok(TablePrint {
        name: name.clone(),
        rows: rows.unsigned_abs(),
        hash: Some(format!("{sum:032x}")),
    })
}

/// How far each one was that was ever used.
pub(super) async fn sequences(connection: &mut PgConnection) -> Result<Vec<SequencePrint>> {
    let doing = "read the sequences";
    let rows = sqlx::query(
        "SELECT schemaname::text AS schema, sequencename::text AS name, last_value
         FROM pg_sequences WHERE last_value IS NOT NULL AND schemaname !~ '^pg_' ORDER BY 1, 2",
    )
    .fetch_all(connection)
    .await
    .transient(doing)?;
    rows.iter()
        .map(|row| {
            Ok(SequencePrint {
                name: TableName {
                    schema: row.try_get("schema").context(doing)?,
                    table: row.try_get("name").context(doing)?,
                },
                last: row.try_get("last_value").context(doing)?,
            })
        })
        .collect()
}

/// Objects of the database's own, not those of its extensions.
async fn objects(connection: &mut PgConnection) -> Result<BTreeMap<String, u64>> {
    let doing = "count the objects";
    let rows = sqlx::query(
        "WITH RECURSIVE own AS (
            SELECT n.oid, n.nspname FROM pg_namespace n
            WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'),
         extension AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
         -- What reads a view without rows, and so is filled by no dump.
         unpopulated AS (
            SELECT oid FROM pg_class WHERE relkind = 'm' AND NOT relispopulated
            UNION
            SELECT r.ev_class FROM unpopulated u
                JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = u.oid
                JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid)
         SELECT kind, count(*)::bigint AS number FROM (
            SELECT CASE c.relkind WHEN 'r' THEN 'tables' WHEN 'p' THEN 'partitioned tables'
                WHEN 'v' THEN 'views' WHEN 'm' THEN 'materialized views' WHEN 'S' THEN 'sequences'
                WHEN 'f' THEN 'foreign tables' WHEN 'i' THEN 'indexes' WHEN 'I' THEN 'indexes'
                WHEN 'c' THEN 'composite types' END AS kind
            FROM pg_class c JOIN own ON own.oid = c.relnamespace
            WHERE ('pg_class'::regclass, c.oid) NOT IN (SELECT classid, objid FROM extension)
              AND c.relpersistence <> 't'
            UNION ALL
            SELECT $1::text FROM pg_class c JOIN own ON own.oid = c.relnamespace
            WHERE c.relkind = 'm' AND c.oid NOT IN (SELECT oid FROM unpopulated)
              AND ('pg_class'::regclass, c.oid) NOT IN (SELECT classid, objid FROM extension)
            UNION ALL
            SELECT 'functions' FROM pg_proc p JOIN own ON own.oid = p.pronamespace
            WHERE ('pg_proc'::regclass, p.oid) NOT IN (SELECT classid, objid FROM extension)
            UNION ALL
            SELECT 'triggers' FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                JOIN own ON own.oid = c.relnamespace WHERE NOT t.tgisinternal AND coalesce(to_jsonb(t) ->> 'tgparentid', '0') = '0'
            UNION ALL
            SELECT 'constraints' FROM pg_constraint c JOIN own ON own.oid = c.connamespace
            WHERE c.contype IN ('c', 'f', 'p', 'u', 'x') AND c.conparentid = 0
            UNION ALL
            SELECT 'policies' FROM pg_policy
            UNION ALL
            SELECT 'rules' FROM pg_rewrite WHERE rulename <> '_RETURN' AND oid >= 16384
            UNION ALL
            SELECT 'schemas' FROM own
            UNION ALL
            SELECT 'large objects' FROM pg_largeobject_metadata
         ) AS every WHERE kind IS NOT NULL GROUP BY kind",
    )
    .bind(POPULATED)
    .fetch_all(connection)
    .await
    .transient(doing)?;
    rows.iter()
        .map(|row| {
            let number: i64 = row.try_get("number").context(doing)?;
            Ok((row.try_get("kind").context(doing)?, number.unsigned_abs()))
        })
        .collect()
}
