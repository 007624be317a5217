//! An archive loaded in passes, each as somebody who may do no more than it needs. What a dump defines
//! is somebody else's code: nothing of it runs as a superuser. Knows pg_restore's list of an archive;
//! must not know what the database is for.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection as _};

use super::entries::{entries, entry};
use super::loading::Loading;
use super::tables::quote;
use super::target::literal;
use crate::fault::{Context, Result};
use crate::source::child::Program;

/// As whom a part of an archive is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum As {
    /// A superuser, who gives everything to its owner at once: it defines, and runs nothing.
    Superuser,
    /// The role without rights: what it loads calls the functions of the dump.
    Rows,
    /// A superuser who keeps it, for nobody else may own it.
    Keeper,
}

/// Descriptions in the list of an archive.
const ROWS: [&str; 3] = ["TABLE DATA ", "SEQUENCE SET ", "BLOBS "];
/// They are checked against the rows that are there, by functions and casts of the dump's own.
const CHECKED: [&str; 2] = ["CHECK CONSTRAINT ", "FK CONSTRAINT "];
/// Their owner must be a superuser, and no role of a dump is one here. They come last, so that an event
/// trigger sees nothing of the loading.
const KEPT: [&str; 2] = ["EVENT TRIGGER ", "COMMENT - EVENT TRIGGER "];
const WRAPPER: &str = "FOREIGN DATA WRAPPER ";

/// A section of an archive in passes.
fn passes(section: &str, list: &str) -> Vec<(As, Vec<String>)> {
    let mut chosen: Vec<(As, String)> = Vec::new();
    for line in entries(list) {
        let what = entry(line);
        let is = |known: &[&str]| known.iter().any(|word| what.starts_with(word));
        let who = match section {
            "pre-data" if is(&[WRAPPER]) => As::Keeper,
            "data" if is(&ROWS) => As::Rows,
            "post-data" if is(&CHECKED) => As::Rows,
            "post-data" if is(&KEPT) => As::Keeper,
            _ => As::Superuser,
        };
        chosen.push((who, line.to_owned()));
    }
    // What a server is made with comes before the server; elsewhere the order is ours.
    if section != "pre-data" {
        chosen.sort_by_key(|(who, _)| *who);
    }
    let mut passes: Vec<(As, Vec<String>)> = Vec::new();
    for (who, line) in chosen {
        match passes.last_mut() {
            Some((last, lines)) if *last == who => lines.push(line),
            _ => passes.push((who, vec![line])),
        }
    }
    passes
}

impl Loading {
    /// Loads a section of an archive that lies in a file; rows as `rows`.
    pub(super) async fn in_passes(
        &self,
        section: &str,
        archive: &Path,
        rows: &str,
    ) -> Result<Vec<String>> {
        let list = self.list(section, archive).await?;
        let mut said = Vec::new();
        for (who, lines) in passes(section, &list) {
            // Where nobody is a superuser, nobody can keep it.
            if who == As::Keeper && self.server.user == rows {
                tracing::info!("left out, for only a superuser may make it: {}", lines.join("; "));
                continue;
            }
            let with = |program: Program| match who {
                As::Superuser => program,
                As::Rows => program.env("PGUSER", rows),
                As::Keeper => program.arg("--no-owner"),
            };
            let program = with(self.of_section(section)?);
            said.extend(self.load_entries(program, archive, &lines, self.jobs).await?);
        }
        Ok(said)
    }

    /// Gives the role that rows are loaded as what it needs, now that what it needs is there.
    pub(super) async fn let_in(&self, rows: &str) -> Result<()> {
        if self.server.user == rows {
            return Ok(());
        }
        let role = quote(rows);
        let mut sql = format!(
            "DO $$ DECLARE one regnamespace; BEGIN
               FOR one IN SELECT oid FROM pg_namespace
                 WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
                 EXECUTE format('GRANT USAGE ON SCHEMA %s TO %I', one, {name});
                 EXECUTE format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA %s TO %I', one, {name});
                 EXECUTE format('GRANT SELECT, INSERT, REFERENCES ON ALL TABLES IN SCHEMA %s TO %I', one, {name});
                 EXECUTE format('GRANT SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA %s TO %I', one, {name});
               END LOOP; END $$;",
            name = literal(rows)
        );
        if self.major >= 14 {
            sql.push_str(&format!("GRANT pg_read_all_data, pg_write_all_data TO {role};"));
        }
        let mut connection = self.server.connect(&self.database).await?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await;
        connection.close().await.ok();
        done.map(drop).context("let rows be loaded without rights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_code_of_the_dump_is_not_loaded_as_a_superuser() {
        let data = ";\n; Archive created\n3; 0 7 TABLE DATA public t shop\n4; 0 8 BLOB METADATA - 8 shop\n\
                    5; 0 0 SEQUENCE SET public s shop\n";
        let [first, second] = &passes("data", data)[..] else { panic!() };
        assert_eq!((first.0, first.1.len()), (As::Superuser, 1));
        assert_eq!((second.0, second.1.len()), (As::Rows, 2));

        let post = "1; 0 1 EVENT TRIGGER - e shop\n2; 0 2 CHECK CONSTRAINT public t shop\n\
                    3; 0 3 MATERIALIZED VIEW DATA public m shop\n4; 0 4 FK CONSTRAINT public f shop\n";
        let passes = passes("post-data", post);
        let who: Vec<As> = passes.iter().map(|(who, _)| *who).collect();
        assert_eq!(who, [As::Superuser, As::Rows, As::Keeper]);
        assert_eq!(passes[1].1.len(), 2);
    }

    #[test]
    fn definitions_keep_their_order() {
        let pre = "1; 0 1 SCHEMA - auth shop\n2; 0 2 FOREIGN DATA WRAPPER - w shop\n3; 0 3 SERVER - s shop\n";
        let who: Vec<As> = passes("pre-data", pre).iter().map(|(who, _)| *who).collect();
        assert_eq!(who, [As::Superuser, As::Keeper, As::Superuser]);
        assert_eq!(passes("data", ";\n"), [], "nothing in it: nothing is started");
    }
}
