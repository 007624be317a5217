//! What a new database gets of its own: what belongs to the one whose place it takes, or, where there is
//! none, what the backup says. Knows what of it this user can give, and says the rest as SQL for somebody
//! who can; must not know how the database is loaded.

use sqlx::{AssertSqlSafe, PgConnection};

use super::belongings::{self, Statement};
use super::tables::quote;
use crate::fault::{Context, Result};
use crate::model::{Belongings, SourceFacts};

/// Belongings on their way to a database.
pub(super) struct Estate {
    belongings: Belongings,
    /// Of a database that is there: its owner and tablespace are demanded, and not only wished for.
    is_present: bool,
    /// Given when the database was made.
    owner: Option<String>,
    tablespace: Option<String>,
}

impl Estate {
    /// What the present database has.
    pub(super) fn of_present(belongings: Belongings) -> Self {
        Self { belongings, is_present: true, owner: None, tablespace: None }
    }

    /// What the backup says; without roles, where none is wanted. `None`: it says nothing.
    pub(super) fn of_backup(facts: &SourceFacts, no_owner: bool) -> Option<Self> {
        let mut belongings = facts.belongings.clone()?;
        if no_owner {
            belongings.owner = None;
            belongings.rights = None;
            belongings.settings.retain(|setting| setting.role.is_none());
        }
        Some(Self { belongings, is_present: false, owner: None, tablespace: None })
    }

    /// Roles without which some of it can't be given.
    pub(super) fn roles(&self) -> Vec<String> {
        self.belongings.roles()
    }

    pub(super) fn comment(&self) -> Option<&str> {
        self.belongings.comment.as_deref()
    }

    /// For the plan: what it will get.
    pub(super) fn words(&self) -> String {
        let Belongings { owner, tablespace, comment, connection_limit, rights, settings } =
            &self.belongings;
        let mut words: Vec<String> = Vec::new();
        words.extend(owner.iter().map(|owner| format!("the owner '{owner}'")));
        words.extend(rights.iter().map(|rights| {
            let name = |role: &Option<String>| role.clone().unwrap_or("PUBLIC".to_owned());
            let mut roles: Vec<String> = rights.iter().map(|right| name(&right.role)).collect();
            roles.dedup();
            format!("rights on it for {}", roles.join(", "))
        }));
        let mut names: Vec<&str> = settings.iter().map(|setting| setting.name.as_str()).collect();
        names.dedup();
        words.extend((!names.is_empty()).then(|| format!("settings ({})", names.join(", "))));
        words.extend(connection_limit.map(|limit| format!("a limit of {limit} connections")));
        words.extend(tablespace.iter().map(|name| format!("the tablespace '{name}'")));
        words.extend(comment.is_some().then(|| "its comment".to_owned()));
        match words.is_empty() {
            true => "what every new one has".to_owned(),
            false => words.join(", "),
        }
    }

    /// Owner and tablespace that the database is made with: those of the backup where this user may give
    /// them and goes on having a say in it.
    pub(super) async fn made_with(
        &mut self,
        admin: &mut PgConnection,
        major: u32,
    ) -> Result<(Option<&str>, Option<&str>)> {
        let (owner, tablespace) = (&self.belongings.owner, &self.belongings.tablespace);
        let (may_own, may_lie) = match self.is_present {
            true => (true, true),
            false => {
                let set = if major >= 16 { "SET" } else { "MEMBER" };
                sqlx::query_as(
                    "SELECT coalesce((SELECT pg_has_role(oid, 'USAGE') AND pg_has_role(oid, $3)
                                      FROM pg_roles WHERE rolname = $1), false),
                            coalesce((SELECT has_tablespace_privilege(oid, 'CREATE')
                                      FROM pg_tablespace WHERE spcname = $2), false)",
                )
                .bind(owner)
                .bind(tablespace)
                .bind(set)
                .fetch_one(admin)
                .await
                .context("look whether the owner and tablespace can be given")?
            }
        };
        self.owner = owner.clone().filter(|_| may_own);
        self.tablespace = tablespace.clone().filter(|_| may_lie);
        Ok((self.owner.as_deref(), self.tablespace.as_deref()))
    }

    /// Gives it to the database that was made, which will be called `name`, but for the comment. What can't be
    /// given is returned as lines for people.
    pub(super) async fn give(
        &self,
        admin: &mut PgConnection,
        made: &str,
        name: &str,
    ) -> Vec<String> {
        let mut refused: Vec<String> = self.not_made_with(name);
        let told = belongings::statements(&self.belongings, made);
        let later = belongings::statements(&self.belongings, name);
        for (Statement { sql, is_partial }, later) in told.into_iter().zip(later) {
            let ran = match is_partial {
                true => Err("the backup is not encrypted, and so does not say it".to_owned()),
                false => {
                    let ran = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *admin).await;
                    ran.map_err(|error| reason(&error))
                }
            };
            if let Err(why) = ran {
                refused.push(line(&later.sql, &why));
            }
        }
        if !refused.is_empty() {
            let whose =
                if self.is_present { "the former one had" } else { "the backup says of it" };
            refused.insert(
                0,
                format!("this user may not give it all that {whose}; run as a superuser:"),
            );
        }
        refused
    }

    /// It may not be given away any later either: who does not own a database can't rename it.
    fn not_made_with(&self, name: &str) -> Vec<String> {
        let (name, mut lines) = (quote(name), Vec::new());
        if let (Some(owner), None) = (&self.belongings.owner, &self.owner) {
            let sql = format!("ALTER DATABASE {name} OWNER TO {}", quote(owner));
            lines.push(line(&sql, "there is no such role, or this user is not a member of it"));
        }
        if let (Some(tablespace), None) = (&self.belongings.tablespace, &self.tablespace) {
            let sql = format!("ALTER DATABASE {name} SET TABLESPACE {}", quote(tablespace));
            lines.push(line(&sql, "there is no such tablespace, or no right to it"));
        }
        lines
    }
}

fn reason(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(said) => said.message().to_owned(),
        None => error.to_string(),
    }
}

fn line(sql: &str, why: &str) -> String {
    format!("  {sql};    -- {}", why.replace(char::is_control, " "))
}
