//! A database that a restore makes is like the one that was backed up in what no dump of it holds: it
//! sorts and compares text as that one did, and has its owner, rights and settings. What can't be given is
//! said.

use std::process::Command;

use serde_json::json;

use super::stock_tools::{commands, fetched, shell};
use crate::support::config::{HEAD, LOCAL, postgres, text};
use crate::support::postgres::{Database, Postgres};
use crate::support::program::{Output, Respaldo};
use crate::support::stored::Stored;
use crate::support::{temp_folder, tool};

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
    let said = respaldo.run(&["drill", "db", "--trust", "--json"]).expect(1).json();
    let unprovable = said["unprovable"].to_string();
    assert!(unprovable.contains("'xx_XX.UTF-8' is not installed"), "{said:#}");
    drop_kept(server, &database);
}

/// A database with belongings of every kind, backed up and gone.
struct Owned {
    server: Postgres,
    database: Database,
    respaldo: Respaldo,
    belonged: String,
}

impl Owned {
    /// `job` is further keys of it.
    fn gone(job: &str) -> Self {
        let server = Postgres::fresh();
        let database = made(&server, "owned", "");
        let name = &database.name;
        server.psql(
            "postgres",
            &format!(
                "CREATE ROLE app; CREATE ROLE \"re'port\"; CREATE ROLE loader LOGIN CREATEDB PASSWORD 'load';
                 ALTER DATABASE {name} OWNER TO app;
                 REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;
                 GRANT CONNECT ON DATABASE {name} TO \"re'port\" WITH GRANT OPTION;
                 ALTER DATABASE {name} CONNECTION LIMIT 77;
                 COMMENT ON DATABASE {name} IS 'the shop''s own \\ words';
                 ALTER DATABASE {name} SET search_path = 'app', 'public';
                 ALTER DATABASE {name} SET log_min_duration_statement = '5s';
                 ALTER DATABASE {name} SET \"app.tenant\" = 'it''s';
                 ALTER DATABASE {name} SET \"app.jwt_secret\" = 'hush-hush';
                 ALTER ROLE app IN DATABASE {name} SET work_mem = '17MB'"
            ),
        );
        database.psql("ALTER TABLE words OWNER TO loader");
        let source = postgres(&database, "");
        let respaldo =
            Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\nretries = 0\n{job}{source}"));
        respaldo.run(&["backup", "db"]).expect(0);
        let belonged = belongings(&server, name);
        assert!(belonged.starts_with("app|77|the shop's own \\ words|"), "{belonged}");
        gone(&server, &database);
        Self { server, database, respaldo, belonged }
    }

    fn restore(&self, more: &[&str]) -> Output {
        self.respaldo.run(&[&["restore", "db"], more].concat())
    }

    /// Restores on another server, as whoever.
    fn restore_on(
        &self,
        server: &Postgres,
        (user, password): &(String, String),
        more: &[&str],
    ) -> Output {
        let url = format!("file://{}", self.respaldo.path("backups").display());
        let respaldo = Respaldo::without_config()
            .env("DB_HOST", "127.0.0.1")
            .env("DB_PORT", server.port.to_string())
            .env("DB_USER", user.as_str())
            .env("DB_PASSWORD", password.as_str());
        respaldo.run(&[&["restore", "db", "--from", &url, "--trust"], more].concat())
    }

    /// What belonged to it, but for the setting that may be a secret.
    fn without_secret(&self) -> String {
        let secret = "- app.jwt_secret=hush-hush ";
        assert!(self.belonged.contains(secret), "{}", self.belonged);
        self.belonged.replace(secret, "")
    }
}

fn belongings(server: &Postgres, name: &str) -> String {
    server.psql(
        "postgres",
        &format!(
            "SELECT pg_get_userbyid(datdba), datconnlimit, shobj_description(oid, 'pg_database'),
                    (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(datacl) a),
                    (SELECT string_agg(coalesce(r.rolname, '-') || ' ' || one, ' ' ORDER BY r.rolname NULLS FIRST, one)
                     FROM pg_db_role_setting LEFT JOIN pg_roles r ON r.oid = setrole, unnest(setconfig) one
                     WHERE setdatabase = d.oid)
             FROM pg_database d WHERE datname = '{name}'"
        ),
    )
}

/// The SQL that a restore says is to be run.
fn told(said: &str) -> String {
    let all = said.lines().filter_map(|line| line.split_once(";    -- "));
    all.map(|(sql, _)| format!("{};\n", sql.trim_start())).collect()
}

#[test]
fn a_new_database_gets_what_belonged_to_the_one_that_was_backed_up() {
    let keys = temp_folder("keys");
    let key = keys.path().join("key");
    tool(Command::new("age-keygen").arg("-o").arg(&key));
    let public = tool(Command::new("age-keygen").arg("-y").arg(&key));
    let owned = Owned::gone(&format!("encrypt = {{ age = [\"{}\"] }}\n", public.trim()));
    let manifest = Stored::newest(&owned.respaldo.path("backups"), "db").manifest().to_string();
    for word in ["hush-hush", "re'port", "17MB", "own words", "belongings"] {
        assert!(!manifest.contains(word), "{word} in {manifest}");
    }
    let opens = ["--identity", key.to_str().unwrap()];
    let plan = owned.restore(&[&["--dry-run"], &opens[..]].concat()).expect(0).stderr;
    for part in [
        "it gets the owner 'app'",
        "rights on it for PUBLIC, app, re'port",
        "search_path, log_min_duration_statement, app.tenant, app.jwt_secret, work_mem",
        "a limit of 77 connections",
        "its comment",
    ] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    let said = owned.restore(&[&["--yes"], &opens[..]].concat()).expect(0).all();
    assert_eq!(belongings(&owned.server, &owned.database.name), owned.belonged);
    assert_eq!(told(&said), "", "{said}");
}

#[test]
fn what_may_be_a_secret_is_in_no_manifest_that_can_be_read() {
    let owned = Owned::gone("");
    let stored = Stored::newest(&owned.respaldo.path("backups"), "db");
    let shown = owned.respaldo.run(&["show", "db", &stored.id(), "--json"]).expect(0).stdout;
    assert!(shown.contains("app.jwt_secret") && !shown.contains("hush-hush"), "{shown}");
    let said = owned.restore(&["--yes"]).expect(0).all();
    let name = &owned.database.name;
    assert_eq!(belongings(&owned.server, name), owned.without_secret());
    let left = format!("ALTER DATABASE \"{name}\" SET \"app\".\"jwt_secret\" TO '...';\n");
    assert_eq!(told(&said), left, "{said}");
}

#[test]
fn what_can_not_be_given_is_said_as_sql_and_does_not_fail_the_restore() {
    let owned = Owned::gone("");
    let name = &owned.database.name;
    let superuser = |server: &Postgres| ("postgres".to_owned(), server.password.clone());
    let loader = ("loader".to_owned(), "load".to_owned());

    // A server where nobody has heard of these roles.
    let other = Postgres::fresh();
    other.psql("postgres", "CREATE ROLE loader LOGIN CREATEDB PASSWORD 'load'");
    let plan = owned.restore_on(&other, &superuser(&other), &["--dry-run"]).expect(0).stderr;
    assert!(plan.contains("these roles are missing") && plan.contains("app, re'port"), "{plan}");
    let said = owned.restore_on(&other, &superuser(&other), &["--yes"]).expect(0).all();
    assert!(belongings(&other, name).starts_with("postgres|77|the shop's own"), "{said}");
    let may = format!("SELECT has_database_privilege('loader', '{name}', 'CONNECT')");
    assert_eq!(other.psql("postgres", &may), "f", "it must not be open to everybody");
    // What it says mends it.
    other.psql("postgres", "CREATE ROLE app; CREATE ROLE \"re'port\"");
    other.psql("postgres", &told(&said).replace("'...'", "'hush-hush'"));
    assert_eq!(belongings(&other, name), owned.belonged, "{said}");

    let third = Postgres::fresh();
    third.psql("postgres", "CREATE ROLE loader LOGIN CREATEDB PASSWORD 'load'");
    owned.restore_on(&third, &superuser(&third), &["--yes", "--create-roles"]).expect(0);
    assert_eq!(belongings(&third, name), owned.without_secret());

    // Somebody who may make a database, and not give it away.
    third.psql("postgres", &format!("DROP DATABASE {name}"));
    let said = owned.restore_on(&third, &loader, &["--yes"]).expect(0).all();
    let told = told(&said);
    let owner = format!("ALTER DATABASE \"{name}\" OWNER TO \"app\";");
    assert!(told.contains(&owner) && told.contains("log_min_duration_statement"), "{said}");
    let has = belongings(&third, name);
    assert!(has.starts_with("loader|77|the shop's own") && has.contains("search_path"), "{has}");
    third.psql("postgres", &told.replace("'...'", "'hush-hush'"));
    assert_eq!(belongings(&third, name), owned.belonged);

    // Nobody's roles are wanted: its settings are.
    third.psql("postgres", &format!("DROP DATABASE {name}"));
    let said = owned.restore_on(&third, &loader, &["--yes", "--no-owner"]).expect(0).all();
    let has = belongings(&third, name);
    assert!(has.starts_with("loader|77|the shop's own"), "{has}");
    assert!(has.contains("search_path=app") && !has.contains("17MB"), "{has}");
    assert!(said.contains("\"tenant\" TO 'it''s'") && !said.contains("17MB"), "{said}");
}

#[test]
fn a_manifest_from_anywhere_runs_no_sql_and_an_older_one_is_said_to_be_silent() {
    let owned = Owned::gone("");
    let stored = Stored::newest(&owned.respaldo.path("backups"), "db");
    let mut manifest = stored.manifest();
    let evil = "x\"'; CREATE ROLE evil SUPERUSER; --";
    manifest["sources"][0]["belongings"] = json!({
        "owner": evil, "tablespace": evil, "comment": evil,
        "rights": [{ "role": evil, "privilege": "CONNECT" }, { "privilege": evil }],
        "settings": [
            { "name": evil, "value": evil }, { "name": "search_path", "value": evil },
            { "role": evil, "name": "work_mem", "value": evil }, { "name": "app.x", "value": evil },
        ],
    });
    manifest["sources"][0]["locale"]["provider"] = "libc".into();
    stored.write_manifest(&manifest);
    owned.restore(&["--yes", "--trust"]).expect(0);
    let evils = "SELECT count(*) FROM pg_roles WHERE rolname = 'evil'";
    assert_eq!(owned.server.psql("postgres", evils), "0");
    assert!(belongings(&owned.server, &owned.database.name).contains(evil));
    gone(&owned.server, &owned.database);

    manifest["sources"][0].as_object_mut().unwrap().remove("belongings");
    stored.write_manifest(&manifest);
    let plan = owned.restore(&["--dry-run", "--trust"]).expect(0).stderr;
    assert!(plan.contains("the backup does not say what belonged to it"), "{plan}");
}
