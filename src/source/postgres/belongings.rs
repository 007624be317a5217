//! What belongs to a database itself and is in no dump of it: owner, rights, settings, connection limit,
//! comment, tablespace. Read from one, and written as what another one is told. Knows SQL; must not know
//! which database gets it, nor whether this user may give it.

use sqlx::{PgConnection, Row};

use super::tables::quote;
use super::target::literal;
use crate::fault::{Context, Result};
use crate::model::{Belongings, Right, Setting};

/// Settings whose value is a list of names, each quoted where it must be: as in pg_dumpall's
/// `variable_is_guc_list_quote`.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// `None`: there is no such database.
pub(super) async fn of(connection: &mut PgConnection, name: &str) -> Result<Option<Belongings>> {
    let doing = "look at what belongs to the database";
    let row = sqlx::query(
        "SELECT pg_get_userbyid(d.datdba)::text AS owner, t.spcname::text AS tablespace,
                d.datconnlimit, shobj_description(d.oid, 'pg_database') AS comment,
                d.datacl IS NULL AS by_default
         FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = $1",
    )
    .bind(name)
    .fetch_optional(&mut *connection)
    .await
    .transient(doing)?;
    let Some(row) = row else { return Ok(None) };
    let rights: Vec<(Option<String>, String, bool)> = sqlx::query_as(
        "SELECT r.rolname::text, a.privilege_type, a.is_grantable
         FROM pg_database d CROSS JOIN LATERAL aclexplode(d.datacl) a
              LEFT JOIN pg_roles r ON r.oid = a.grantee
         WHERE d.datname = $1 AND (a.grantee = 0 OR r.oid IS NOT NULL) ORDER BY 1 NULLS FIRST, 2",
    )
    .bind(name)
    .fetch_all(&mut *connection)
    .await
    .transient(doing)?;
    let settings: Vec<(Option<String>, String)> = sqlx::query_as(
        "SELECT r.rolname::text, one FROM pg_db_role_setting s
              JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
              CROSS JOIN LATERAL unnest(s.setconfig) WITH ORDINALITY AS all_of_them (one, place)
         WHERE d.datname = $1 AND (s.setrole = 0 OR r.oid IS NOT NULL)
         ORDER BY r.rolname NULLS FIRST, place",
    )
    .bind(name)
    .fetch_all(&mut *connection)
    .await
    .transient(doing)?;
    let by_default: bool = row.try_get("by_default").context(doing)?;
    let right = |(role, privilege, grantable)| Right { role, privilege, grantable };
    Ok(Some(Belongings {
        owner: Some(row.try_get("owner").context(doing)?),
        tablespace: Some(row.try_get("tablespace").context(doing)?)
            .filter(|tablespace| tablespace != "pg_default"),
        comment: row.try_get("comment").context(doing)?,
        connection_limit: Some(row.try_get("datconnlimit").context(doing)?)
            .filter(|limit| *limit != -1),
        rights: (!by_default).then(|| rights.into_iter().map(right).collect()),
        settings: settings
            .into_iter()
            .filter_map(|(role, text)| {
                let (name, value) = text.split_once('=')?;
                Some(Setting { role, name: name.to_owned(), value: Some(value.to_owned()) })
            })
            .collect(),
    }))
}

/// The privileges that there are on a database; another word is none, wherever it comes from.
const PRIVILEGES: [&str; 3] = ["CONNECT", "CREATE", "TEMPORARY"];

/// What a database is told.
pub(super) struct Statement {
    pub sql: String,
    /// It lacks a value that the backup does not hold.
    pub is_partial: bool,
}

impl From<String> for Statement {
    fn from(sql: String) -> Self {
        Self { sql, is_partial: false }
    }
}

/// Gives a database what belonged to another one, but for owner, tablespace and comment, which it gets with
/// its name.
pub(super) fn statements(belongings: &Belongings, to: &str) -> Vec<Statement> {
    let to = quote(to);
    let mut all: Vec<Statement> = Vec::new();
    if let Some(limit) = belongings.connection_limit {
        all.push(format!("ALTER DATABASE {to} CONNECTION LIMIT {limit}").into());
    }
    if let Some(rights) = &belongings.rights {
        // Each by itself: a role that is not there must not keep everybody's.
        let owner = belongings.owner.as_deref().map(quote);
        for role in std::iter::once("PUBLIC".to_owned()).chain(owner) {
            all.push(format!("REVOKE ALL ON DATABASE {to} FROM {role}").into());
        }
        for Right { role, privilege, grantable } in rights {
            if !PRIVILEGES.contains(&privilege.as_str()) {
                continue;
            }
            let role = role.as_deref().map_or("PUBLIC".to_owned(), quote);
            let more = if *grantable { " WITH GRANT OPTION" } else { "" };
            all.push(format!("GRANT {privilege} ON DATABASE {to} TO {role}{more}").into());
        }
    }
    for Setting { role, name, value } in &belongings.settings {
        let whose = match role {
            Some(role) => format!("ALTER ROLE {} IN DATABASE {to}", quote(role)),
            None => format!("ALTER DATABASE {to}"),
        };
        let name_parts: Vec<String> = name.split('.').map(quote).collect();
        let is_list = LISTS.contains(&name.as_str());
        let value_words = match value {
            None => "'...'".to_owned(),
            Some(value) if is_list => {
                names(value).iter().map(|one| literal(one)).collect::<Vec<_>>().join(", ")
            }
            Some(value) => literal(value),
        };
        // An empty list can't be written down as one.
        let value_words = if value_words.is_empty() { "''".to_owned() } else { value_words };
        let sql = format!("{whose} SET {} TO {value_words}", name_parts.join("."));
        all.push(Statement { sql, is_partial: value.is_none() });
    }
    all
}

/// The names of a list such as `"$user", public`.
fn names(list: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut chars = list.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
        let mut name = String::new();
        match chars.next() {
            None => return found,
            Some('"') => {
                while let Some(c) = chars.next() {
                    if c == '"' && chars.next_if_eq(&'"').is_none() {
                        break;
                    }
                    name.push(c);
                }
            }
            Some(first) => {
                name.push(first);
                while let Some(c) = chars.next_if(|c| *c != ',' && !c.is_whitespace()) {
                    name.push(c);
                }
            }
        }
        found.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names_are_taken_apart() {
        assert_eq!(names("\"$user\", public"), ["$user", "public"]);
        assert_eq!(names("\"a\"\"b,c\",x ,  y"), ["a\"b,c", "x", "y"]);
        assert_eq!(names("\"\""), [""]);
        assert!(names("").is_empty());
    }

    #[test]
    fn every_statement_names_the_new_database_and_nothing_breaks_out() {
        let setting = |role: Option<&str>, name: &str, value: Option<&str>| Setting {
            role: role.map(str::to_owned),
            name: name.into(),
            value: value.map(str::to_owned),
        };
        let belongings = Belongings {
            owner: Some("o\"x".into()),
            connection_limit: Some(7),
            rights: Some(vec![
                Right { role: None, privilege: "CONNECT".into(), grantable: false },
                Right { role: None, privilege: "ALL ON x TO y; --".into(), grantable: true },
            ]),
            settings: vec![
                setting(None, "search_path", Some("\"$user\", app")),
                setting(Some("r"), "app.x", Some("it's")),
                setting(None, "app.key\"", None),
            ],
            ..Belongings::default()
        };
        let all = statements(&belongings, "n\"w");
        let partial: Vec<bool> = all.iter().map(|statement| statement.is_partial).collect();
        assert_eq!(partial, [false, false, false, false, false, false, true]);
        let all: Vec<String> = all.into_iter().map(|statement| statement.sql).collect();
        assert_eq!(
            all,
            [
                "ALTER DATABASE \"n\"\"w\" CONNECTION LIMIT 7",
                "REVOKE ALL ON DATABASE \"n\"\"w\" FROM PUBLIC",
                "REVOKE ALL ON DATABASE \"n\"\"w\" FROM \"o\"\"x\"",
                "GRANT CONNECT ON DATABASE \"n\"\"w\" TO PUBLIC",
                "ALTER DATABASE \"n\"\"w\" SET \"search_path\" TO '$user', 'app'",
                "ALTER ROLE \"r\" IN DATABASE \"n\"\"w\" SET \"app\".\"x\" TO 'it''s'",
                "ALTER DATABASE \"n\"\"w\" SET \"app\".\"key\"\"\" TO '...'",
            ]
        );
    }
}
