//! A restored database takes the place of the live one in one step: with all that belonged to it, with
//! clients writing, and so that it can be undone. What is killed has changed nothing, or is complete.
//! And parts of a backup come back beside what is there.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::support::config::{HEAD, LOCAL, postgres, s3, text};
use crate::support::postgres::{Database, Postgres};
use crate::support::program::{Output, Respaldo};
use crate::support::s3::S3;
use crate::support::stored::Stored;
use crate::support::{eventually, tool};

/// A shop with two tenants, which refer to what they share.
const SHOP: &str = "
    CREATE SCHEMA financial;
    CREATE TABLE public.users (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE financial.accounts (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id text NOT NULL,
        owner int REFERENCES public.users);
    CREATE TABLE financial.bookings (
        id int PRIMARY KEY, tenant_id text NOT NULL, account int NOT NULL REFERENCES financial.accounts,
        amount numeric NOT NULL CHECK (amount <> 0), twice numeric GENERATED ALWAYS AS (amount * 2) STORED);
    CREATE TABLE financial.rates (day date PRIMARY KEY, rate numeric);
    CREATE VIEW public.totals AS SELECT tenant_id, sum(amount) FROM financial.bookings GROUP BY 1;
    INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 50) n;
    INSERT INTO financial.accounts (tenant_id, owner)
        SELECT CASE n % 2 WHEN 0 THEN 'abc' ELSE 'xyz' END, n FROM generate_series(1, 50) n;
    INSERT INTO financial.bookings
        SELECT n, CASE (n % 50) % 2 WHEN 1 THEN 'abc' ELSE 'xyz' END, n % 50 + 1, n
        FROM generate_series(1, 5000) n;
    INSERT INTO financial.rates VALUES ('2026-01-01', 1.5);
    ANALYZE;";

/// A job of one database in a folder, backed up.
fn backed_up(database: &Database, source: &str, job: &str) -> Respaldo {
    let source = postgres(database, source);
    let respaldo =
        Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\n{source}{job}\n")).deadline(LONG);
    respaldo.run(&["backup", "db"]).expect(0);
    respaldo
}

const LONG: Duration = Duration::from_secs(240);

fn restore(respaldo: &Respaldo, more: &[&str]) -> Output {
    respaldo.run(&[&["restore", "db", "--yes"], more].concat())
}

/// What belongs to a database itself.
fn belongings(database: &Database) -> String {
    database.psql(&format!(
        "SELECT pg_get_userbyid(datdba), datconnlimit, shobj_description(oid, 'pg_database'),
                (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(datacl) a),
                (SELECT string_agg(coalesce(setrole::regrole::text, '-') || ' ' || setconfig::text, ' ' ORDER BY setrole)
                 FROM pg_db_role_setting WHERE setdatabase = d.oid)
         FROM pg_database d WHERE datname = '{}'",
        database.name
    ))
}

/// Drops what restores have kept of it.
fn drop_kept(server: &Postgres, database: &Database) {
    for name in alike(server, database).iter().filter(|name| name.contains("__before_")) {
        drop(server.existing(name));
    }
}

/// The databases whose names begin like this one's.
fn alike(server: &Postgres, database: &Database) -> BTreeSet<String> {
    let names = server.psql(
        "postgres",
        &format!("SELECT datname FROM pg_database WHERE datname ^@ '{}'", database.name),
    );
    names.lines().map(str::to_owned).collect()
}

/// A client that goes on writing, and comes again when it is sent away.
struct Writer(Child);

impl Writer {
    fn start(database: &Database) -> Self {
        let mut client = Command::new("bash");
        client.args([
            "-c",
            "while :; do psql -Xqc 'INSERT INTO users SELECT max(id) + 1, now()::text FROM users' >/dev/null 2>&1; done",
        ]);
        let like = database.client("psql");
        client.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Self(client.stdin(Stdio::null()).process_group(0).spawn().unwrap())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.0);
        kill_process_group(group, Signal::KILL).unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn what_belongs_to_a_database_survives_and_everything_can_be_undone() {
    let server = Postgres::start();
    let database = server.database("swapped");
    database.psql(SHOP);
    let name = &database.name;
    server.psql(
        "postgres",
        &format!(
            "CREATE ROLE {name}_app; CREATE ROLE \"{name} Owner\";
             ALTER DATABASE {name} OWNER TO \"{name} Owner\";
             REVOKE ALL ON DATABASE {name} FROM PUBLIC;
             GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {name}_app WITH GRANT OPTION;
             ALTER DATABASE {name} CONNECTION LIMIT 77;
             COMMENT ON DATABASE {name} IS 'the shop''s own \\ words';
             ALTER DATABASE {name} SET search_path = \"$user\", public, financial;
             ALTER DATABASE {name} SET \"app.tenant\" = 'it''s';
             ALTER ROLE {name}_app IN DATABASE {name} SET work_mem = '17MB'"
        ),
    );
    let respaldo = backed_up(&database, "", "");
    let (backed_up, belonged) = (database.fingerprint(), belongings(&database));
    assert!(belonged.contains("17MB") && belonged.contains("words"), "{belonged}");

    database.psql("DELETE FROM financial.bookings; INSERT INTO users VALUES (99, 'new')");
    let broken = database.fingerprint();
    let said = {
        let _writer = Writer::start(&database);
        eventually("the client writes", || database.psql("SELECT max(id) FROM users") != "99");
        restore(&respaldo, &[]).expect(0)
    };
    assert!(said.all().contains("respaldo undo db"), "{}", said.all());
    let restored = database.psql("SELECT count(*), sum(amount) FROM financial.bookings");
    assert_eq!(restored, "5000|12502500");
    assert_eq!(belongings(&database), belonged);
    assert!(broken != backed_up);
    assert_eq!(alike(server, &database).len(), 2, "the new one and the old one");

    // Back to what was broken, and forth again.
    respaldo.run(&["undo", "db", "--yes"]).expect(0);
    assert_eq!(database.psql("SELECT count(*) FROM financial.bookings"), "0");
    assert_eq!(belongings(&database), belonged);
    respaldo.run(&["undo", "db", "--yes"]).expect(0);
    assert_eq!(database.psql("SELECT count(*) FROM financial.bookings"), "5000");
    assert_eq!(belongings(&database), belonged);
    assert_eq!(alike(server, &database).len(), 2);
    let old = alike(server, &database).into_iter().find(|n| n.contains("__before_")).unwrap();
    let _dropped = server.existing(&old);
}

#[test]
fn what_was_replaced_goes_when_its_time_is_over() {
    let server = Postgres::start();
    let database = server.database("forgotten");
    database.psql(SHOP);
    let respaldo = backed_up(&database, "", "keep_old = \"0s\"");
    restore(&respaldo, &[]).expect(0);
    assert_eq!(alike(server, &database).len(), 2);
    let daemon = respaldo.daemon();
    daemon.wait_for_log("which a restore replaced");
    assert_eq!(alike(server, &database).len(), 1);
    drop(daemon);
    let said = respaldo.run(&["undo", "db", "--yes"]).expect(2).all();
    assert!(said.contains("is kept"), "{said}");
}

#[test]
fn soak_killed_at_any_instant_the_database_is_the_old_one_or_the_new_one() {
    let rounds = if std::env::var_os("RESPALDO_SOAK").is_some() { 40 } else { 8 };
    let server = Postgres::start();
    let database = server.database("killed");
    database.psql(SHOP);
    let respaldo = backed_up(&database, "", "");
    let whole = database.fingerprint();
    // The first round is measured, and its end is not cut off.
    let began = Instant::now();
    restore(&respaldo, &[]).expect(0);
    let length = began.elapsed();
    database.psql("CREATE TABLE marker AS SELECT 1 AS live; TRUNCATE financial.bookings");
    let mut live = database.fingerprint();
    let mut seen = BTreeSet::new();
    for round in 0..rounds {
        let after = length.mul_f64(0.1 + f64::from(round) / f64::from(rounds));
        let running = respaldo.start(&["restore", "db", "--yes"]);
        std::thread::sleep(after);
        for process in running.kill9() {
            process.wait_gone();
        }
        // The next start says which it is, and clears up, once the server knows that we are gone.
        eventually("it is cleared up", || {
            respaldo.run(&["status"]).expect(0);
            !alike(server, &database).iter().any(|name| name.contains("__new_"))
        });
        let now = database.fingerprint();
        assert!(now == live || now == whole, "round {round}, after {after:?}");
        seen.insert(now == live);
        if now == whole {
            database.psql("CREATE TABLE marker AS SELECT 1 AS live; TRUNCATE financial.bookings");
            live = database.fingerprint();
        }
    }
    assert!(seen.contains(&true), "no kill came before the swap");
    drop_kept(server, &database);
}

#[test]
fn an_undo_takes_back_one_restore_though_the_same_backup_was_restored_before() {
    let server = Postgres::start();
    let database = server.database("twice");
    database.psql(SHOP);
    let respaldo = backed_up(&database, "", "");
    database.psql("UPDATE users SET name = 'spoiled'");
    restore(&respaldo, &[]).expect(0);
    database.psql("INSERT INTO users VALUES (99, 'of a day of new orders')");
    let a_day = database.fingerprint();
    restore(&respaldo, &[]).expect(0);
    let said = respaldo.run(&["undo", "db", "--yes"]).expect(0).all();
    assert_eq!(database.fingerprint(), a_day, "{said}");
    drop_kept(server, &database);
}

#[test]
fn killed_while_it_waits_to_swap_nothing_has_changed_and_people_get_in() {
    let server = Postgres::start();
    let database = server.database("waiting");
    database.psql(SHOP);
    let respaldo = backed_up(&database, "", "");
    database.psql("UPDATE users SET name = 'changed'");
    let live = database.fingerprint();
    // Somebody else is changing the database itself: the swap waits for them.
    let mut other = server.existing("postgres").client("psql");
    let mut other = other.args(["-Xq", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let sql = format!("BEGIN; ALTER DATABASE {} CONNECTION LIMIT 50;\n", database.name);
    other.stdin.as_mut().unwrap().write_all(sql.as_bytes()).unwrap();
    let running = respaldo.start(&["restore", "db", "--yes"]);
    eventually("the swap waits", || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%RENAME TO%'";
        server.psql("postgres", waiting) != "0"
    });
    for process in running.kill9() {
        process.wait_gone();
    }
    drop(other.stdin.take());
    other.wait().unwrap();
    eventually("it is cleared up", || {
        respaldo.run(&["status"]).expect(0);
        alike(server, &database).len() == 1
    });
    // The server went on once it could, and then saw that nobody was there to have it done.
    assert_eq!(database.psql("SELECT name FROM users WHERE id = 1"), "changed");
    assert_eq!(database.fingerprint(), live);
}

#[test]
fn in_place_without_the_right_to_make_a_database() {
    let server = Postgres::start();
    let database = server.database("in_place");
    let name = &database.name;
    server.psql(
        "postgres",
        &format!(
            "CREATE ROLE {name}_owner LOGIN PASSWORD 'secret'; ALTER DATABASE {name} OWNER TO {name}_owner"
        ),
    );
    database.psql(&format!(
        "ALTER SCHEMA public OWNER TO {name}_owner; SET ROLE {name}_owner; {SHOP}
         SELECT lo_from_bytea(4711, 'a large object')"
    ));
    let url = database.url().replacen("postgres@", &format!("{name}_owner@"), 1);
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\nsource = {{ postgres = {}, password = \"secret\", globals = false }}\n",
        text(&url)
    ));
    respaldo.run(&["backup", "db"]).expect(0);
    let whole = database.fingerprint();
    let said = restore(&respaldo, &[]).expect(2).all();
    assert!(said.contains("CREATEDB") && said.contains("--in-place"), "{said}");

    let owner = format!("SET ROLE {name}_owner;");
    database.psql(&format!(
        "{owner} DELETE FROM financial.bookings; DROP VIEW totals; CREATE TABLE newer (n int)"
    ));
    let broken = database.fingerprint();
    let said = restore(&respaldo, &["--in-place"]).expect(0).all();
    assert_eq!(database.psql("SELECT count(*) FROM financial.bookings"), "5000");
    assert_eq!(database.psql("SELECT count(*) FROM totals"), "2");
    assert_eq!(database.psql("SELECT convert_from(lo_get(4711), 'UTF8')"), "a large object");
    assert_eq!(database.fingerprint(), whole, "what the backup lacks is gone");

    // The safety backup holds what was there; it is not the latest.
    let safety =
        said.split("what was there is the backup ").nth(1).unwrap().split(':').next().unwrap();
    let latest = respaldo.run(&["restore", "db", "--dry-run"]).all();
    assert!(!latest.contains(safety), "{latest}");
    restore(&respaldo, &[safety, "--in-place"]).expect(0);
    assert_eq!(database.fingerprint(), broken);
    restore(&respaldo, &["--in-place"]).expect(0);
    assert_eq!(database.fingerprint(), whole);

    // Something there is not ours to drop: then all of it stays as it is.
    database.psql(&format!("CREATE SCHEMA other; {owner} TRUNCATE financial.rates"));
    let before = database.fingerprint();
    let said = restore(&respaldo, &["--in-place"]).expect(1).all();
    assert!(said.contains("rolled back"), "{said}");
    assert_eq!(database.fingerprint(), before);
}

#[test]
fn killed_in_the_midst_of_it_in_place_has_changed_nothing() {
    let server = Postgres::start();
    let database = server.database("in_place_killed");
    database.psql(SHOP);
    let respaldo = backed_up(&database, "", "");
    database.psql("DELETE FROM financial.rates");
    let live = database.fingerprint();
    // A reader that does not let go holds the restore up in its midst.
    let mut reader = database.client("psql");
    let mut reader = reader.args(["-Xq", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let begin = b"BEGIN; SELECT * FROM users LIMIT 0;\n";
    reader.stdin.as_mut().unwrap().write_all(begin).unwrap();
    let running = respaldo.start(&["restore", "db", "--yes", "--in-place"]);
    eventually("it waits for the reader", || {
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock' AND application_name = 'respaldo'",
            database.name
        );
        server.psql("postgres", &waiting) != "0"
    });
    for process in running.kill9() {
        process.wait_gone();
    }
    drop(reader.stdin.take());
    reader.wait().unwrap();
    eventually("its session is gone", || {
        let there = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'respaldo'",
            database.name
        );
        server.psql("postgres", &there) == "0"
    });
    assert_eq!(database.fingerprint(), live);
}

#[test]
fn one_schema_and_one_tenants_rows() {
    let database = Postgres::start().database("tenant");
    database.psql(SHOP);
    let respaldo = backed_up(&database, "", "");
    // The tenant loses some bookings; another one goes on.
    database.psql(
        "DELETE FROM financial.bookings WHERE tenant_id = 'abc' AND id > 1000;
         UPDATE financial.bookings SET amount = 7 WHERE tenant_id = 'xyz' AND id = 1;
         DELETE FROM financial.bookings WHERE tenant_id = 'xyz' AND id = 2",
    );
    let (abc, xyz) = (
        "SELECT count(*), sum(amount) FROM financial.bookings WHERE tenant_id = 'abc'",
        "SELECT count(*), sum(amount) FROM financial.bookings WHERE tenant_id = 'xyz'",
    );
    let others = database.psql(xyz);
    restore(&respaldo, &["--schema", "financial", "--into", "financial_restored"]).expect(0);
    assert_eq!(database.psql("SELECT count(*) FROM financial_restored.bookings"), "5000");
    assert_eq!(database.psql(xyz), others);
    let said =
        restore(&respaldo, &["--schema", "financial", "--into", "financial_restored"]).expect(2);
    assert!(said.all().contains("has a schema 'financial_restored' already"), "{}", said.all());

    let said = restore(
        &respaldo,
        &["--schema", "financial", "--into", "again", "--where", "tenant_id = 'abc'"],
    )
    .expect(0)
    .all();
    assert!(said.contains("rates\" has no such rows"), "{said}");
    let whole =
        "SELECT count(*), sum(amount) FROM financial_restored.bookings WHERE tenant_id = 'abc'";
    assert_eq!(database.psql(abc), database.psql(whole));
    assert_eq!(database.psql(xyz), others, "the other tenant is as it was");
    let names = alike(Postgres::start(), &database);
    assert_eq!(names.len(), 1, "nothing is left beside it: {names:?}");
}

#[test]
fn rows_of_a_table_without_a_key_do_not_come_a_second_time() {
    let database = Postgres::start().database("keyless");
    database.psql(
        "CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1), (2), (3);
         CREATE TABLE said (word text); INSERT INTO said VALUES ('a'), ('b');
         CREATE TABLE maybe (id int UNIQUE); INSERT INTO maybe VALUES (1), (NULL);
         CREATE TABLE pairs (a int NOT NULL, b int NOT NULL, UNIQUE (a, b)); INSERT INTO pairs VALUES (1, 1)",
    );
    let respaldo = backed_up(&database, "", "");
    database.psql(
        "DELETE FROM items WHERE id > 1; DELETE FROM said WHERE word = 'b'; DELETE FROM pairs",
    );
    let where_true = ["--into", "back", "--where", "true"];
    let said =
        restore(&respaldo, &[&["--schema", "public"][..], &where_true].concat()).expect(0).all();
    let count = "SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM said), \
        (SELECT count(*) FROM maybe), (SELECT count(*) FROM pairs)";
    assert_eq!(database.psql(count), "3|1|2|1", "{said}");
    assert!(
        said.contains("\"said\" has no key") && said.contains("\"maybe\" has no key"),
        "{said}"
    );
    assert_eq!(
        database.psql("SELECT count(*) FROM back.said"),
        "2",
        "it is there to be copied from"
    );
    let where_true = ["--into", "back_2", "--where", "true"];
    let refused =
        restore(&respaldo, &[&["--table", "public.said"][..], &where_true].concat()).expect(2);
    assert!(refused.stderr.contains("has no key"), "{}", refused.stderr);
}

#[test]
fn one_table_from_s3_also_where_tables_and_schemas_lie_apart() {
    let (database, store) = (Postgres::start().database("table"), S3::start());
    database.psql(SHOP);
    for (n, more) in ["", ", streams = 2, streams_above = \"64KiB\"", ", schemas = \"each\""]
        .into_iter()
        .enumerate()
    {
        let job = format!(
            "{HEAD}{}[jobs.db]\n{}",
            s3("offsite", &store, &format!("apart-{n}")),
            postgres(&database, more)
        );
        let respaldo = Respaldo::new(&job);
        respaldo.run(&["backup", "db"]).expect(0);
        let into = format!("back_{n}");
        restore(&respaldo, &["--table", "financial.bookings", "--into", &into]).expect(0);
        let differ = format!(
            "SELECT count(*) FROM (TABLE financial.bookings EXCEPT TABLE {into}.bookings) d"
        );
        assert_eq!(database.psql(&differ), "0", "{more}");
        let tables =
            format!("SELECT string_agg(tablename, ' ') FROM pg_tables WHERE schemaname = '{into}'");
        assert_eq!(database.psql(&tables), "bookings", "{more}");
        assert_eq!(database.psql(&format!("SELECT count(*) FROM {into}.bookings")), "5000");
        let said = restore(&respaldo, &["--table", "financial.nothing"]).expect(1).all();
        assert!(said.contains("nothing") && said.contains("hint:"), "{said}");
    }
}

#[test]
fn hooks_stop_the_application_only_for_the_swap() {
    let database = Postgres::start().database("hooked");
    database.psql(SHOP);
    let hooks = "hooks = { before_restore = [\"/bin/sh\", \"-c\", \"echo before $RESPALDO_ID >> @DIR@/log; ! test -e @DIR@/no\"], \
                 after_restore = [\"/bin/sh\", \"-c\", \"echo after $RESPALDO_STATE >> @DIR@/log\"] }";
    let respaldo = backed_up(&database, "", hooks);
    let live = database.fingerprint();
    respaldo.write("no", "");
    let said = restore(&respaldo, &[]).expect(1).all();
    assert!(said.contains("before the restore"), "{said}");
    assert_eq!(database.fingerprint(), live);
    assert_eq!(alike(Postgres::start(), &database).len(), 1, "nothing is left");
    std::fs::remove_file(respaldo.path("no")).unwrap();
    restore(&respaldo, &[]).expect(0);
    let log = std::fs::read_to_string(respaldo.path("log")).unwrap();
    let words: Vec<&str> = log.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(words, ["before", "before", "after"], "{log}");
    assert!(log.ends_with("after succeeded\n"), "{log}");
    drop_kept(Postgres::start(), &database);
}

#[test]
fn roles_that_are_missing_are_named_and_made_on_request() {
    let server = Postgres::start();
    let database = server.database("roles");
    let role = format!("{} tenant", database.name);
    database.psql(&format!("{SHOP} CREATE ROLE \"{role}\"; ALTER TABLE users OWNER TO \"{role}\""));
    let respaldo = backed_up(&database, "", "");
    let fresh = Postgres::fresh();
    let into = format!("postgres://postgres@127.0.0.1:{}/shop", fresh.database("x").port());
    let there = fresh.database("there");
    let source =
        format!("source = {{ postgres = {}, password = {} }}", text(&into), text(there.password()));
    let config = format!("{HEAD}{LOCAL}[jobs.db]\n{source}\n");
    respaldo.write_config(&config);
    let said = restore(&respaldo, &[]).expect(2).all();
    assert!(said.contains(&role) && said.contains("--create-roles"), "{said}");
    restore(&respaldo, &["--create-roles"]).expect(0);
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'users'";
    assert_eq!(fresh.psql(&database.name, owner), role);
}

#[test]
fn a_database_and_its_media_from_one_moment() {
    let database = Postgres::start().database("together");
    database.psql(SHOP);
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\n{}[jobs.notes]\nsource = {{ sqlite = \"@DIR@/notes.db\" }}\n",
        postgres(&database, "")
    ));
    let notes = respaldo.path("notes.db");
    let sqlite = |sql: &str| tool(Command::new("sqlite3").arg(&notes).arg(sql));
    sqlite("CREATE TABLE t (n); INSERT INTO t VALUES (1)");
    respaldo.run(&["backup", "--all"]).expect(0);
    let whole = database.fingerprint();
    database.psql("DELETE FROM financial.rates");
    let broken = database.fingerprint();
    // One of them can't be put back: then neither is.
    let to = respaldo.path("back.db").display().to_string();
    respaldo.write("back.db", "in the way");
    let all = ["restore", "--all", "db", "notes", "--to", &to, "--yes"];
    respaldo.run(&all).expect(2);
    assert_eq!(database.fingerprint(), broken);
    std::fs::remove_file(&to).unwrap();
    respaldo.run(&all).expect(0);
    assert_eq!(database.fingerprint(), whole);
    assert_eq!(tool(Command::new("sqlite3").arg(&to).arg("SELECT n FROM t")), "1\n");
    drop_kept(Postgres::start(), &database);
}

#[test]
fn what_is_not_as_it_was_is_not_put_in_place() {
    let server = Postgres::start();
    let database = server.database("differs");
    database.psql(SHOP);
    let respaldo = backed_up(&database, ", streams = 2, streams_above = \"64KiB\"", "");
    database.psql("DELETE FROM financial.rates");
    let live = database.fingerprint();
    // The main archive alone lacks the rows that lie apart.
    let main = format!("{}.dump.zst", database.name);
    let said = restore(&respaldo, &["--artifact", &main]).expect(1).all();
    assert!(said.contains("table financial.bookings has 0 rows, and had 5000"), "{said}");
    assert_eq!(database.fingerprint(), live);
    assert_eq!(alike(server, &database).len(), 1, "nothing is left");
    restore(&respaldo, &["--artifact", &main, "--unchecked"]).expect(0);
    assert_eq!(database.psql("SELECT count(*) FROM financial.bookings"), "0");
    assert_eq!(database.psql("SELECT count(*) FROM financial.rates"), "1");
    drop_kept(server, &database);
}

#[test]
fn a_stream_that_lost_a_row_is_not_put_in_place() {
    let database = Postgres::start().database("lost_a_row");
    database.psql(SHOP);
    let respaldo = backed_up(&database, ", streams = 2, streams_above = \"64KiB\"", "");
    let whole = database.fingerprint();
    // Also those that were looked at before the others had come have their statistics.
    restore(&respaldo, &[]).expect(0);
    let analyzed = "SELECT string_agg(DISTINCT tablename, ' ') FROM pg_stats
                    WHERE schemaname IN ('public', 'financial')";
    assert_eq!(database.psql(analyzed), "accounts bookings rates users");
    assert_eq!(database.fingerprint(), whole);

    database.psql("DELETE FROM financial.bookings WHERE id = 4711");
    let live = database.fingerprint();
    let fewer = respaldo.path("fewer.dump");
    tool(
        database
            .client("pg_dump")
            .args(["-Fc", "-Z0", "--data-only", "--table=financial.bookings", "-f"])
            .arg(&fewer),
    );
    let stored = Stored::newest(&respaldo.path("backups"), "db");
    let artifacts = stored.manifest()["artifacts"].as_array().unwrap().clone();
    let is_it = |artifact: &Value| artifact["name"].as_str().unwrap().contains("bookings");
    let number = artifacts.iter().position(is_it).unwrap();
    stored.forge(number, &std::fs::read(&fewer).unwrap());
    let said = restore(&respaldo, &["--trust"]).expect(1).all();
    assert!(said.contains("table financial.bookings has 4999 rows, and had 5000"), "{said}");
    assert_eq!(database.fingerprint(), live);
    drop_kept(Postgres::start(), &database);
}

#[test]
fn from_fifteen_into_seventeen() {
    let database = Postgres::start().database("upgraded");
    database.psql(SHOP);
    let respaldo = backed_up(&database, ", fingerprint = \"content\"", "");
    let newer = Postgres::seventeen();
    let bin = newer.existing("postgres").bin();
    let there = newer.database("upgraded_there");
    let more = format!(", bin_dir = {}", text(bin.to_str().unwrap()));
    respaldo.write_config(&format!("{HEAD}{LOCAL}[jobs.db]\n{}\n", postgres(&there, &more)));
    let said = restore(&respaldo, &["--database", &there.name]).expect(0).all();
    assert!(said.contains("(PostgreSQL 17)"), "{said}");
    assert_eq!(there.fingerprint(), database.fingerprint());
    drop_kept(&newer, &there);
}
