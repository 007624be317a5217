//! What belongs to a database itself and is in no dump of it: owner, rights, settings, connection limit,
//! comment, tablespace. Read from one, and given to the one that takes its place.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::tables::quote;
use super::target::literal;
use crate::fault::{Context, Result};

#[derive(Debug, Clone)]
pub(super) struct Belongings {
    pub owner: String,
    pub tablespace: String,
    pub comment: Option<String>,
    limit: i32,
    /// `None`: the rights that every new database has.
    rights: Option<Vec<Right>>,
    settings: Vec<Setting>,
}

#[derive(Debug, Clone)]
struct Right {
    /// `None`: everybody.
    role: Option<String>,
    privilege: String,
    grantable: bool,
}

#[derive(Debug, Clone)]
struct Setting {
    /// `None`: whoever connects.
    role: Option<String>,
    name: String,
    value: String,
}

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
    .context(doing)?;
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
    .context(doing)?;
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
    .context(doing)?;
    let by_default: bool = row.try_get("by_default").context(doing)?;
    let right = |(role, privilege, grantable)| Right { role, privilege, grantable };
    Ok(Some(Belongings {
        owner: row.try_get("owner").context(doing)?,
        tablespace: row.try_get("tablespace").context(doing)?,
        comment: row.try_get("comment").context(doing)?,
        limit: row.try_get("datconnlimit").context(doing)?,
        rights: (!by_default).then(|| rights.into_iter().map(right).collect()),
        settings: settings
            .into_iter()
            .filter_map(|(role, text)| {
                let (name, value) = text.split_once('=')?;
                Some(Setting { role, name: name.to_owned(), value: value.to_owned() })
            })
            .collect(),
    }))
}

impl Belongings {
    /// Gives them to another database, but for the comment. What this user may not give is returned as
    /// the statements that somebody else can run.
    pub(super) async fn give(&self, connection: &mut PgConnection, to: &str) -> Vec<String> {
        let mut refused = Vec::new();
        for sql in self.statements(to) {
            let ran = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *connection).await;
            if let Err(error) = ran {
                tracing::warn!("could not give the database what the former one had: {error}");
                refused.push(sql);
            }
        }
        refused
    }

    fn statements(&self, to: &str) -> Vec<String> {
        let to = quote(to);
        let mut all = Vec::new();
        if self.limit != -1 {
            all.push(format!("ALTER DATABASE {to} CONNECTION LIMIT {}", self.limit));
        }
        if let Some(rights) = &self.rights {
            all.push(format!("REVOKE ALL ON DATABASE {to} FROM PUBLIC, {}", quote(&self.owner)));
            for Right { role, privilege, grantable } in rights {
                let role = role.as_deref().map_or("PUBLIC".to_owned(), quote);
                let more = if *grantable { " WITH GRANT OPTION" } else { "" };
                all.push(format!("GRANT {privilege} ON DATABASE {to} TO {role}{more}"));
            }
        }
        for Setting { role, name, value } in &self.settings {
            let whose = match role {
                Some(role) => format!("ALTER ROLE {} IN DATABASE {to}", quote(role)),
                None => format!("ALTER DATABASE {to}"),
            };
            let name_parts: Vec<String> = name.split('.').map(quote).collect();
            let value = match LISTS.contains(&name.as_str()) {
                true => names(value).iter().map(|one| literal(one)).collect::<Vec<_>>().join(", "),
                false => literal(value),
            };
            // An empty list can't be written down as one.
            let value = if value.is_empty() { "''".to_owned() } else { value };
            all.push(format!("{whose} SET {} TO {value}", name_parts.join(".")));
        }
        all
    }
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
        let belongings = Belongings {
            owner: "o\"x".into(),
            tablespace: "pg_default".into(),
            comment: None,
            limit: 7,
            rights: Some(vec![Right { role: None, privilege: "CONNECT".into(), grantable: false }]),
            settings: vec![
                Setting { role: None, name: "search_path".into(), value: "\"$user\", app".into() },
                Setting { role: Some("r".into()), name: "app.x".into(), value: "it's".into() },
            ],
        };
        assert_eq!(
            belongings.statements("n\"w"),
            [
                "ALTER DATABASE \"n\"\"w\" CONNECTION LIMIT 7",
                "REVOKE ALL ON DATABASE \"n\"\"w\" FROM PUBLIC, \"o\"\"x\"",
                "GRANT CONNECT ON DATABASE \"n\"\"w\" TO PUBLIC",
                "ALTER DATABASE \"n\"\"w\" SET \"search_path\" TO '$user', 'app'",
                "ALTER ROLE \"r\" IN DATABASE \"n\"\"w\" SET \"app\".\"x\" TO 'it''s'",
            ]
        );
    }
}
