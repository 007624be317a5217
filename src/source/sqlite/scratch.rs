//! A file for one drill, in the run's spool. Knows how it is asked; must not know the live one.

use std::path::Path;

use async_trait::async_trait;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;

use super::target::SqliteTarget;
use super::{blocking, open};
use crate::fault::{Context, Result};
use crate::source::{Scratch, Session, Target, Wanted};

pub(super) struct SqliteScratch {
    target: SqliteTarget,
}

impl SqliteScratch {
    pub(super) fn new(wanted: &Wanted, session: &Session) -> Result<Self> {
        let name = format!("drill-{}.sqlite3", uuid::Uuid::new_v4().simple());
        let wanted = Wanted { path: Some(session.spool.join(name)), ..wanted.clone() };
        Ok(Self { target: SqliteTarget::new(Path::new(""), &wanted)? })
    }
}

#[async_trait]
impl Scratch for SqliteScratch {
    fn target(&mut self) -> &mut dyn Target {
        &mut self.target
    }

    async fn check(&mut self, sql: &str) -> Result<bool> {
        let (path, sql) = (self.target.loaded()?, sql.to_owned());
        blocking(move || {
            let doing = "run the check";
            let connection = open(&path)?;
            // A view or a trigger of the file is somebody else's.
            connection
                .set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)
                .context(doing)?;
            connection
                .query_row(&sql, [], |row| {
                    Ok(match row.get_ref(0)? {
                        ValueRef::Integer(number) => number != 0,
                        ValueRef::Real(number) => number != 0.0,
                        _ => false,
                    })
                })
                .context(doing)
        })
        .await
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let path = self.target.loaded().map(|path| path.display().to_string());
        path.map(|path| vec![("RESPALDO_PATH", path)]).unwrap_or_default()
    }

    async fn remove(mut self: Box<Self>) -> Result<()> {
        self.target.discard().await;
        Ok(())
    }
}
