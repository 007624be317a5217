//! What a database is and holds, and whether its user may see all of it: a client that may not see
//! a table or a trigger leaves it out without a word.

use sqlx::{MySqlConnection, Row};

use super::Mysql;
use super::client::{Client, Family};
use super::connection::text;
use crate::fault::{Context, Fault, Result};
use crate::model::{Engine, SourceFacts};

/// More names than this are counted.
const NAMES: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Tables with rows of their own, in order.
    pub tables: Vec<String>,
    /// Those whose rows a transaction does not hold still.
    pub unsteady: Vec<String>,
    /// MariaDB's tables that remember former rows.
    pub versioned: Vec<String>,
    /// `table.column` of every FLOAT.
    pub floats: Vec<String>,
    /// Whether routines may exist that the user can't see.
    pub unsure: bool,
}

impl Contents {
    pub(super) fn warnings(&self, client: &Client) -> Vec<String> {
        let mut said = Vec::new();
        if !self.unsteady.is_empty() {
            said.push(format!(
                "tables without transactions may change while they are dumped, and differ from the rest: {} (ALTER TABLE ... ENGINE=InnoDB)",
                names(&self.unsteady)
            ));
        }
        if !self.versioned.is_empty() && !client.dumps_history() {
            said.push(format!(
                "former rows of system-versioned tables are not in the dump, which takes a MariaDB client 10.11 or newer: {}",
                names(&self.versioned)
            ));
        }
        if !self.floats.is_empty() {
            said.push(format!(
                "FLOAT columns are dumped with six digits, as the server shows them: {} (DOUBLE and DECIMAL are exact)",
                names(&self.floats)
            ));
        }
        if self.unsure {
            said.push(
                "the user may not see all procedures and functions: GRANT SELECT ON mysql.proc (MySQL: SHOW_ROUTINE ON *.*) TO it".into(),
            );
        }
        said
    }
}

fn names(all: &[String]) -> String {
    let shown = all.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl Mysql {
    pub(super) async fn facts(
        &self,
        connection: &mut MySqlConnection,
    ) -> Result<(Family, SourceFacts)> {
        let doing = "ask the server about the database";
        let row = sqlx::query(
            "SELECT VERSION(), s.DEFAULT_CHARACTER_SET_NAME, s.DEFAULT_COLLATION_NAME,
                    (SELECT CAST(COALESCE(SUM(t.DATA_LENGTH), 0) AS UNSIGNED)
                     FROM information_schema.TABLES t WHERE t.TABLE_SCHEMA = s.SCHEMA_NAME)
             FROM information_schema.SCHEMATA s WHERE s.SCHEMA_NAME = DATABASE()",
        )
        .fetch_one(connection)
        .await
        .transient(doing)?;
        let version = text(&row, 0).unwrap_or_default();
        let facts = SourceFacts {
            server_version: Some(version.clone()),
            size_bytes: row.try_get_unchecked(3).ok(),
            encoding: text(&row, 1),
            collation: text(&row, 2),
            ..SourceFacts::named(Engine::Mysql, &self.database)
        };
        Ok((Family::of(&version), facts))
    }

    pub(super) async fn contents(&self, connection: &mut MySqlConnection) -> Result<Contents> {
        let doing = "list the database's tables";
        let rows = sqlx::query(
            "SELECT t.TABLE_NAME, t.TABLE_TYPE, COALESCE(e.TRANSACTIONS, 'NO')
             FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e
                  ON e.ENGINE = t.ENGINE
             WHERE t.TABLE_SCHEMA = DATABASE()
               AND t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY 1",
        )
        .fetch_all(&mut *connection)
        .await
        .transient(doing)?;
        let mut contents = Contents::default();
        for row in rows {
            let table = text(&row, 0).unwrap_or_default();
            if text(&row, 1).as_deref() == Some("SYSTEM VERSIONED") {
                contents.versioned.push(table.clone());
            }
            if text(&row, 2).as_deref() != Some("YES") {
                contents.unsteady.push(table.clone());
            }
            contents.tables.push(table);
        }
        let floats = sqlx::query(
            "SELECT CONCAT(c.TABLE_NAME, '.', c.COLUMN_NAME) FROM information_schema.COLUMNS c
             JOIN information_schema.TABLES t
                  ON t.TABLE_SCHEMA = c.TABLE_SCHEMA AND t.TABLE_NAME = c.TABLE_NAME
             WHERE c.TABLE_SCHEMA = DATABASE() AND c.DATA_TYPE = 'float'
               AND t.TABLE_TYPE <> 'VIEW' ORDER BY 1",
        )
        .fetch_all(connection)
        .await
        .transient(doing)?;
        contents.floats = floats.iter().filter_map(|row| text(row, 0)).collect();
        Ok(contents)
    }

    /// Fails where a right is missing without which something would be left out silently.
    pub(super) async fn check_rights(&self, connection: &mut MySqlConnection) -> Result<()> {
        let has = self.rights(connection).await?;
        let lacks: Vec<&str> = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"]
            .into_iter()
            .filter(|right| !has.granted.iter().any(|granted| granted == right))
            .collect();
        // What a role gives is not listed among the user's own.
        if lacks.is_empty() || has.role {
            return Ok(());
        }
        Err(Fault::permanent(format!(
            "{} has no right to {} on all of '{}': a dump would leave things out without a word",
            has.account,
            lacks.join(", "),
            self.database
        ))
        .hint(format!(
            "GRANT {} ON {}.* TO {}",
            lacks.join(", "),
            super::quote(&self.database),
            has.account
        )))
    }

    /// A routine shows only to those who may run it or may read where the server keeps them.
    pub(super) async fn unseen_routines(
        &self,
        connection: &mut MySqlConnection,
        family: Family,
    ) -> Result<bool> {
        let has = self.rights(connection).await?;
        let any = |names: &[&str]| has.global.iter().any(|right| names.contains(&right.as_str()));
        if has.role || any(&["SELECT", "SHOW_ROUTINE", "SHOW CREATE ROUTINE"]) {
            return Ok(false);
        }
        // With EXECUTE each shows by name at least, and the client fails where it may not read one.
        if has.granted.iter().any(|right| right == "EXECUTE") {
            return Ok(false);
        }
        let proc = "SELECT 1 FROM mysql.proc LIMIT 1";
        let readable =
            family == Family::Mariadb && sqlx::raw_sql(proc).fetch_all(connection).await.is_ok();
        Ok(!readable)
    }

    async fn rights(&self, connection: &mut MySqlConnection) -> Result<Rights> {
        let doing = "ask the server for the user's rights";
        let me = sqlx::raw_sql(
            "SELECT CONCAT('''', LEFT(CURRENT_USER(), CHAR_LENGTH(CURRENT_USER())
                    - CHAR_LENGTH(SUBSTRING_INDEX(CURRENT_USER(), '@', -1)) - 1), '''@''',
                    SUBSTRING_INDEX(CURRENT_USER(), '@', -1), '''')",
        )
        .fetch_one(&mut *connection)
        .await
        .transient(doing)?;
        let account = text(&me, 0).unwrap_or_default();
        // MySQL 5.7 knows no roles.
        let role = sqlx::raw_sql("SELECT CURRENT_ROLE()").fetch_one(&mut *connection).await.ok();
        let role = role.and_then(|row| text(&row, 0));
        let role = role.is_some_and(|role| !["", "NONE"].contains(&role.as_str()));
        let global = sqlx::query(
            "SELECT PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES WHERE GRANTEE = ?",
        )
        .bind(&account)
        .fetch_all(&mut *connection)
        .await
        .transient(doing)?;
        let global: Vec<String> = global.iter().filter_map(|row| text(row, 0)).collect();
        let here = sqlx::query(
            "SELECT PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES
             WHERE GRANTEE = ? AND DATABASE() LIKE TABLE_SCHEMA",
        )
        .bind(&account)
        .fetch_all(connection)
        .await
        .transient(doing)?;
        let here = here.iter().filter_map(|row| text(row, 0));
        Ok(Rights { granted: global.iter().cloned().chain(here).collect(), account, role, global })
    }
}

/// What the user we are may do, as far as the server lists it.
struct Rights {
    /// `'user'@'host'`.
    account: String,
    /// Everywhere.
    global: Vec<String>,
    /// In the database.
    granted: Vec<String>,
    /// A role is active, whose rights are not listed.
    role: bool,
}
