//! A database that a restore makes is like the one that was backed up in what no dump of it holds: it
//! sorts and compares text as that one did.

use super::stock_tools::{commands, fetched, shell};
use crate::support::config::{HEAD, LOCAL, postgres, text};
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::stored::Stored;

/// A job of one database in a folder, backed up.
fn backed_up(database: &Database, more: &str) -> Respaldo {
    let more = format!(", bin_dir = {}{more}", text(database.bin().to_str().unwrap()));
    let source = postgres(database, &more);
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\nretries = 0\n{source}"));
    respaldo.run(&["backup", "db"]).expect(0);
    respaldo
}

/// A database that is made with these words, and has text to sort.
fn made(server: &Postgres, name: &str, words: &str) -> Database {
    let database = server.existing(&format!("{name}_{}", std::process::id()));
    let create = format!("CREATE DATABASE {} TEMPLATE template0 {words}", database.name);
    server.psql("postgres", &create);
    database.psql(
        "CREATE TABLE words (word text PRIMARY KEY);
         INSERT INTO words VALUES ('Ñandú'), ('zorro'), ('nube'), ('oso'), ('_a');
         CREATE UNIQUE INDEX ON words (lower(word))",
    );
    database
}

/// How it sorts and tells case, and by what.
fn sorts(database: &Database) -> String {
    database.psql(
        "SELECT string_agg(word, ' ' ORDER BY word), string_agg(lower(word), ' ' ORDER BY lower(word)) FROM words;
         SELECT to_jsonb(d) - '{oid,datname,datfrozenxid,datminmxid,dattablespace}'::text[]
         FROM pg_database d WHERE datname = current_database()",
    )
}

fn gone(server: &Postgres, database: &Database) {
    server.psql("postgres", &format!("DROP DATABASE {}", database.name));
}

/// Every way in which a locale can be more than `LC_COLLATE`, restored anew, over the present one, by a drill
/// and by RESTORE.md.
fn keeps_its_locale(server: &Postgres, name: &str, words: &str) {
    let database = made(server, name, words);
    let before = sorts(&database);
    let respaldo = backed_up(&database, "");
    respaldo.run(&["restore", "db", "--yes"]).expect(0);
    assert_eq!(sorts(&database), before, "over the present one");
    gone(server, &database);
    respaldo.run(&["restore", "db", "--yes"]).expect(0);
    assert_eq!(sorts(&database), before, "anew");

    let folder = fetched(&respaldo, "db");
    shell(&folder, &database, &commands(&folder));
    let by_hand = server.existing(&format!("{}_restored", database.name));
    assert_eq!(sorts(&by_hand), before, "by RESTORE.md");
    drop_kept(server, &database);
}

fn drop_kept(server: &Postgres, database: &Database) {
    let like = format!("SELECT datname FROM pg_database WHERE datname ^@ '{}__'", database.name);
    server.psql("postgres", &like).lines().for_each(|name| drop(server.existing(name)));
}

#[test]
fn a_restored_database_sorts_and_compares_as_it_did() {
    let server = Postgres::start();
    let icu = "LOCALE_PROVIDER icu ICU_LOCALE 'es'";
    keeps_its_locale(server, "like_icu", icu);
    keeps_its_locale(server, "like_ctype", "LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'");
    let database = made(server, "like_drill", icu);
    let drilled = backed_up(&database, "");
    drilled.run(&["drill", "db"]).expect(0);
}

#[test]
fn a_restored_database_of_seventeen_keeps_its_provider() {
    let server = Postgres::seventeen();
    let builtin = "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LC_COLLATE 'C' LC_CTYPE 'C'";
    keeps_its_locale(&server, "like_builtin", builtin);
    let rules = "LOCALE_PROVIDER icu ICU_LOCALE 'es' ICU_RULES '&a < z'";
    keeps_its_locale(&server, "like_rules", rules);
}

/// A manifest of before a locale was written down: what it lacks is the present database's.
#[test]
fn what_an_older_backup_does_not_say_of_its_locale_is_taken_from_the_present() {
    let server = Postgres::start();
    let database = made(server, "like_older", "LOCALE_PROVIDER icu ICU_LOCALE 'es'");
    let before = sorts(&database);
    let respaldo = backed_up(&database, "");
    let stored = Stored::newest(&respaldo.path("backups"), "db");
    let mut manifest = stored.manifest();
    assert_eq!(manifest["sources"][0]["locale"]["name"], "es");
    manifest["sources"][0].as_object_mut().unwrap().remove("locale");
    stored.write_manifest(&manifest);
    let said = respaldo.run(&["restore", "db", "--yes", "--trust"]).expect(0).stderr;
    assert!(said.contains("the rest is taken from the present database"), "{said}");
    assert_eq!(sorts(&database), before);
    drop_kept(server, &database);
}

#[test]
fn a_locale_that_the_server_can_not_make_is_refused() {
    let server = Postgres::start();
    let database = made(server, "like_other", "LOCALE_PROVIDER icu ICU_LOCALE 'es'");
    let respaldo = backed_up(&database, "");
    let stored = Stored::newest(&respaldo.path("backups"), "db");
    let mut manifest = stored.manifest();
    manifest["sources"][0]["locale"]["ctype"] = "xx_XX.UTF-8".into();
    stored.write_manifest(&manifest);
    let said = respaldo.run(&["restore", "db", "--yes", "--trust"]).expect(1).all();
    assert!(said.contains("xx_XX") && said.contains("the backup's locale"), "{said}");
    let said = respaldo.run(&["drill", "db", "--json"]).expect(1).stdout;
    assert!(said.contains("the manifest"), "{said}");
    drop_kept(server, &database);
}
