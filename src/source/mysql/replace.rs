//! All that a database holds given up for what was loaded beside it. It can't be done in one step: so
//! it is marked first, and whoever finds the mark after a kill does it again from the start. Knows
//! names, locks and how a database is copied.

use std::io;

use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, Row};
use tokio_util::sync::CancellationToken;

use super::client::{self, Client};
use super::connection::text;
use super::stream::Watched;
use super::{Mysql, explain, quote};
use crate::fault::{Context, Fault, Result};
use crate::source::child::{self, Pipes, Program};
use crate::source::{Leftovers, Session, tagged};

/// Between the database's name and the backup's id, in the name of one that is being loaded.
const NEW: &str = "__new_";
/// An empty table in it: all of it is there and right, and what it replaces is being dropped.
const MARK: &str = "respaldo_is_loaded";
/// An empty table in the database that is meant: what it held is gone, and what replaces it is on its way.
const COPYING: &str = "respaldo_is_copied_here";
/// What of a database's name is in that of the one beside it: no name is longer than 64.
const START: usize = 36;

/// The name of the database that is loaded beside another.
pub(super) fn beside(name: &str, tag: &str) -> String {
    format!("{}{tag}", start(name))
}

fn start(name: &str) -> String {
    format!("{}{NEW}", name.chars().take(START).collect::<String>())
}

/// Held, by its session, by whoever loads a database of that name.
pub(super) async fn claim(connection: &mut MySqlConnection, name: &str) -> Result<bool> {
    let doing = "claim the new database's name";
    // Nothing is said in it for as long as the load takes.
    sqlx::raw_sql("SET SESSION wait_timeout = 2147483")
        .execute(&mut *connection)
        .await
        .context(doing)?;
    let row = sqlx::query("SELECT GET_LOCK(CONCAT('respaldo ', MD5(?)), 0)")
        .bind(name)
        .fetch_one(connection)
        .await
        .context(doing)?;
    let got: Option<i64> = row.try_get_unchecked(0).context(doing)?;
    Ok(got == Some(1))
}

/// The program that runs SQL in a database.
pub(super) fn shell(
    server: &Mysql,
    client: &Client,
    tls: bool,
    database: &str,
    session: &Session,
) -> Result<Program> {
    let options = server.defaults_file(client.family, tls, session)?;
    Ok(Program::new(&client.path)
        .arg(format!("--defaults-file={}", options.display()))
        // A dump is somebody's words: none of them starts a program or reads a file here.
        .args(["--binary-mode", "--skip-local-infile", "--no-auto-rehash"])
        .args(["--default-character-set=utf8mb4", "--max-allowed-packet=1G"])
        .arg(format!("--database={database}")))
}

async fn run(connection: &mut MySqlConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

pub(super) async fn mark(server: &Mysql, loaded: &str) -> Result<()> {
    let mut inside = server.connect(Some(loaded)).await?;
    let sql = format!("CREATE TABLE IF NOT EXISTS {} (n INT)", quote(MARK));
    run(&mut inside, sql).await.context("note that all is loaded")?;
    inside.close().await.ok();
    Ok(())
}

/// Empties `name`, copies `loaded` into it, and drops `loaded`.
pub(super) async fn replace(
    server: &Mysql,
    name: &str,
    loaded: &str,
    session: &Session,
) -> Result<()> {
    let doing = format!("replace what '{name}' holds");
    let from = Mysql { database: loaded.to_owned(), ..server.clone() };
    let seen = from.look(session).await?;
    let dump = from.dump_program(&seen, Some(MARK), session)?;
    let mut admin = server.connect(None).await?;
    let show = format!("SHOW CREATE DATABASE {}", quote(name));
    // It comes back empty, in its own character set; rights on it are by its name, and stay.
    if let Ok(row) = sqlx::raw_sql(AssertSqlSafe(show)).fetch_one(&mut admin).await {
        let create = text(&row, 1).unwrap_or_default();
        let drop = format!("DROP DATABASE {}", quote(name));
        run(&mut admin, drop).await.context(doing.clone())?;
        run(&mut admin, create).await.context(doing.clone())?;
    } else {
        let create = format!("CREATE DATABASE {}", quote(name));
        run(&mut admin, create).await.context(doing.clone())?;
    }
    let mark = format!("{}.{}", quote(name), quote(COPYING));
    run(&mut admin, format!("CREATE TABLE {mark} (n INT)")).await.context(doing.clone())?;
    let client = client::shell(seen.family, server.bin_dir.as_deref(), session).await?;
    let into = shell(server, &client, seen.tls, name, session)?;
    pump(dump, into, session).await.map_err(|fault| {
        Fault::permanent(doing.clone()).cause(fault).hint(format!(
            "what was loaded is whole in '{loaded}': the next start of the daemon, or the same restore again, goes on with it"
        ))
    })?;
    run(&mut admin, format!("DROP DATABASE {}", quote(loaded))).await.context(doing.clone())?;
    run(&mut admin, format!("DROP TABLE {mark}")).await.context(doing)?;
    admin.close().await.ok();
    Ok(())
}

/// What a replacement that was cut off may have left of a database.
struct Stand {
    is_empty: bool,
    is_marked: bool,
}

impl Stand {
    /// Whether it still is what was left: gone, empty, or marked. Otherwise it was not begun, or somebody has
    /// mended it since: then it is nobody's to drop.
    fn is_begun(&self) -> bool {
        self.is_empty || self.is_marked
    }
}

async fn stand(admin: &mut MySqlConnection, name: &str) -> Result<Stand> {
    let doing = "look whether a restore had begun its last step";
    let row = sqlx::query(
        "SELECT NOT EXISTS (SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = ?),
                EXISTS (SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?)",
    )
    .bind(name)
    .bind(name)
    .bind(COPYING)
    .fetch_one(admin)
    .await
    .context(doing)?;
    let is = |column: usize| row.try_get_unchecked::<i64, _>(column).context(doing);
    Ok(Stand { is_empty: is(0)? != 0, is_marked: is(1)? != 0 })
}

/// One program's output into another.
async fn pump(dump: Program, into: Program, session: &Session) -> Result<()> {
    let from = child::spawn(dump, Pipes::Stdout, session.cancel.clone()).await?;
    let to = child::spawn(into, Pipes::Stdin, session.cancel.clone()).await?;
    let (Some(stdout), Some(mut stdin)) = (from.stdout, to.stdin) else {
        return Err(Fault::permanent("the programs have no pipes"));
    };
    let (mut reader, _begun) = Watched::new(stdout);
    let copied = tokio::task::spawn_blocking(move || io::copy(&mut reader, &mut stdin)).await;
    let (from, to) = (child::ended(from.end).await?, child::ended(to.end).await?);
    to.success().map_err(explain)?;
    from.success().map_err(explain)?;
    copied.context("copy a database")?.context("copy a database")?;
    Ok(())
}

/// Goes on with what is marked and had begun, and drops what was cut off before that. `anew`: another
/// restore into it begins now, so that nothing of a former one is wanted.
pub(super) async fn clear_leftovers(server: &Mysql, anew: bool) -> Result<Leftovers> {
    let doing = "look for what a restore left behind";
    let mut admin = server.connect(None).await?;
    let rows = sqlx::query(
        "SELECT s.SCHEMA_NAME, EXISTS (SELECT 1 FROM information_schema.TABLES t
                WHERE t.TABLE_SCHEMA = s.SCHEMA_NAME AND t.TABLE_NAME = ?)
         FROM information_schema.SCHEMATA s WHERE LOCATE(?, s.SCHEMA_NAME) > 0",
    )
    .bind(MARK)
    .bind(NEW)
    .fetch_all(&mut admin)
    .await
    .context(doing)?;
    let name = &server.database;
    let mut found = Leftovers::default();
    let start = start(name);
    let mut is_alone = true;
    for row in rows {
        let loaded = text(&row, 0).unwrap_or_default();
        let is_marked: i64 = row.try_get_unchecked(1).context(doing)?;
        // Only what was loaded for this very database.
        let ours = tagged::tag_of(loaded.as_ref(), &start).is_some();
        is_alone &= !ours;
        if !ours || !claim(&mut admin, &loaded).await? {
            continue;
        }
        let is_begun = is_marked != 0 && stand(&mut admin, name).await?.is_begun();
        if is_marked == 0 || anew && !is_begun {
            run(&mut admin, format!("DROP DATABASE {}", quote(&loaded))).await.context(doing)?;
            found.said.push(format!("dropped '{loaded}', which a restore that was cut off left"));
            continue;
        }
        if !is_begun {
            found.said.push(format!(
                "'{loaded}' is all of what a restore that was cut off should have put in the place of '{name}', which is left as it is: restore again, or DROP DATABASE {}",
                quote(&loaded)
            ));
            continue;
        }
        let spool = tempfile::tempdir().context("make a scratch folder")?;
        let session = Session {
            spool: spool.path().to_owned(),
            cancel: CancellationToken::new(),
            drilled: false,
            since: None,
        };
        replace(server, name, &loaded, &session).await?;
        found.said.push(format!("finished a restore into '{name}' that was cut off"));
        found.finished = true;
    }
    if is_alone && stand(&mut admin, name).await?.is_marked {
        // The copy was complete, and what it was made of is dropped already.
        let mark = format!("{}.{}", quote(name), quote(COPYING));
        run(&mut admin, format!("DROP TABLE IF EXISTS {mark}")).await.ok();
    }
    admin.close().await.ok();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_ones_name_fits_and_tells_its_backup() {
        let name = beside(&"ñ".repeat(60), "20251124t020000z");
        assert!(name.chars().count() <= 60);
        assert!(name.ends_with("__new_20251124t020000z"));
        assert_eq!(beside("shop", "20251124t020000z"), "shop__new_20251124t020000z");
    }
}
