//! A MariaDB database comes back as it was at one moment: every kind of object, odd names, with
//! writers at work; by stock tools and by respaldo. What could go missing without a word is said or
//! refused.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::support::config::{HEAD, LOCAL, text};
use crate::support::mariadb::{Database, Mariadb, quote};
use crate::support::process;
use crate::support::program::Respaldo;
use crate::support::stored::Stored;
use crate::support::tool;

pub const EVERYTHING: &str = r#"
CREATE TABLE customers (
    id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(90) NOT NULL, born DATE, extra JSON,
    photo LONGBLOB, flags BIT(10), kind ENUM('a', 'ñandú'), tags SET('x', 'y'),
    balance DECIMAL(12, 2), ratio DOUBLE, seen TIMESTAMP(6) NULL, place POINT,
    twice DECIMAL(13, 2) GENERATED ALWAYS AS (balance * 2) STORED,
    short VARCHAR(10) GENERATED ALWAYS AS (LEFT(name, 10)) VIRTUAL,
    KEY (short), FULLTEXT (name), CHECK (balance >= 0)
) COMMENT 'it''s "commented"; -- $1';
INSERT INTO customers (name, born, extra, photo, flags, kind, tags, balance, ratio, seen, place)
SELECT CONCAT('Señora 😀 ', seq, '\t\\ "q"\n--\r\0'), '1970-01-01' + INTERVAL seq DAY,
    JSON_OBJECT('n', seq, 'ñ', JSON_ARRAY(NULL, 'x')), UNHEX(LPAD(HEX(seq * 977), 8, '0')),
    seq MOD 1024, IF(seq MOD 3, 'ñandú', NULL), 'x,y', seq / 100, seq / 3,
    FROM_UNIXTIME(seq * 3600.123456), POINT(seq, -seq) FROM seq_1_to_3000;
CREATE TABLE `a.b ``odd``` (`sel``ect` INT, `de fault` TEXT,
    FOREIGN KEY (`sel``ect`) REFERENCES customers (id) ON DELETE CASCADE);
INSERT INTO `a.b ``odd``` SELECT seq, IF(seq MOD 3, REPEAT('ü', seq), NULL) FROM seq_1_to_400;
CREATE TABLE parts (at DATE NOT NULL, what TEXT) PARTITION BY RANGE (YEAR(at))
    (PARTITION p24 VALUES LESS THAN (2025), PARTITION rest VALUES LESS THAN MAXVALUE);
INSERT INTO parts SELECT '2024-06-01' + INTERVAL seq DAY, CONCAT('event ', seq) FROM seq_1_to_500;
CREATE TABLE versions (x INT) WITH SYSTEM VERSIONING;
INSERT INTO versions VALUES (1), (2);
UPDATE versions SET x = x + 10;
CREATE TABLE latin (v VARCHAR(20)) CHARACTER SET latin1;
INSERT INTO latin VALUES ('señor');
CREATE TABLE empty (a INT);
CREATE SEQUENCE tickets START WITH 1000 INCREMENT BY 7;
CREATE VIEW rich AS SELECT id, balance FROM customers WHERE balance > 10;
CREATE VIEW richer AS SELECT * FROM rich WHERE balance > 20;
DELIMITER //
CREATE FUNCTION doubled(x INT) RETURNS INT DETERMINISTIC RETURN x * 2//
CREATE PROCEDURE note(IN what TEXT) BEGIN
    -- Dump completed
    INSERT INTO parts VALUES (CURRENT_DATE, what);
END//
CREATE TRIGGER noted BEFORE UPDATE ON customers FOR EACH ROW SET NEW.name = TRIM(NEW.name)//
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 03:00:00' DO CALL note('ñ')//
DELIMITER ;
"#;

/// A job `db` of one database, as the server's admin.
fn local(server: &Mariadb, database: &Database<'_>) -> Respaldo {
    as_user(database, Mariadb::USER, &server.password)
}

fn as_user(database: &Database<'_>, user: &str, password: &str) -> Respaldo {
    let (url, password) = (text(&database.url_of(user)), text(password));
    Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\nretries = 0\nsource = {{ mysql = {url}, password = {password} }}\n"
    ))
}

fn stored(respaldo: &Respaldo) -> Stored {
    Stored::newest(&respaldo.path("backups"), "db")
}

/// Does what RESTORE.md says, with a server found as people have it: in their own `.my.cnf`.
#[track_caller]
fn restore_md(respaldo: &Respaldo, server: &Mariadb) {
    let folder = stored(respaldo).folder;
    let home = respaldo.write(
        "home/.my.cnf",
        &format!("[client]\nuser=root\nsocket={}\n", server.socket().display()),
    );
    fs::set_permissions(&home, PermissionsExt::from_mode(0o600)).unwrap();
    let text = fs::read_to_string(folder.join("RESTORE.md")).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let commands: String = blocks.collect();
    tool(
        Command::new("bash")
            .args(["-e", "-u", "-o", "pipefail", "-c", &commands])
            .current_dir(&folder)
            .env_clear()
            .env("HOME", home.parent().unwrap())
            .env("PATH", "/usr/bin:/bin"),
    );
}

#[test]
fn everything_comes_back_by_respaldo_and_by_stock_tools() {
    let server = Mariadb::start();
    // A quote in its name would stop mariadb-dump itself at the first event.
    for odd in ["shop", "-we ird $db`=x.ñ"] {
        let source = server.database(odd);
        source.sql(EVERYTHING);
        let user = format!("u {}", source.name);
        let (user, role) = (&user[..user.len().min(40)], format!("r{}", std::process::id()));
        source.sql(&format!(
            "CREATE OR REPLACE ROLE {role}; GRANT INSERT ON {0}.customers TO {role}; \
             CREATE USER {1}@'%' IDENTIFIED BY 'sesame'; GRANT {role} TO {1}@'%'; \
             GRANT SELECT, EXECUTE ON {0}.* TO {1}@'%' WITH GRANT OPTION; \
             GRANT UPDATE (`name`) ON {0}.customers TO {1}@'%'; \
             GRANT USAGE ON *.* TO {1}@'%' REQUIRE SSL",
            quote(&source.name.replace('_', "\\_")).replace("\\_", "_"),
            quote(user),
        ));
        let grants = |_: &str| {
            let lines = server.sql("", &format!("SHOW GRANTS FOR {}@'%'", quote(user)));
            let kept = lines.lines().filter(|line| !line.starts_with("GRANT USAGE"));
            let mut kept: Vec<String> = kept.map(str::to_owned).collect();
            kept.sort();
            kept
        };
        let before = grants("");
        let respaldo = local(server, &source);
        let said = respaldo.run(&["backup", "db"]).expect(0).all();
        assert!(!said.to_lowercase().contains("warn"), "{said}");
        respaldo.run(&["verify", "db"]).expect(0);

        let other = server.existing(&format!("{}_other", source.name));
        let plan = respaldo
            .run(&["restore", "db", &format!("--database={}", other.name), "--yes"])
            .expect(0);
        assert!(
            plan.stderr.contains("not loaded, for it is the server's own: grants.sql.zst"),
            "{}",
            plan.stderr
        );
        assert_eq!(other.contents(), source.contents(), "{odd} by respaldo");
        assert_eq!(
            other.sql("SELECT x FROM versions FOR SYSTEM_TIME ALL ORDER BY x"),
            "1\n2\n11\n12",
            "former rows too"
        );

        let safe = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let name: String = source.name.chars().map(safe).collect();
        let restored = server.existing(&format!("{}_restored", name.trim_start_matches('-')));
        server.sql("", &format!("DROP USER {}@'%'; DROP ROLE {role}", quote(user)));
        restore_md(&respaldo, server);
        assert_eq!(restored.contents(), source.contents(), "{odd} by RESTORE.md");
        assert_eq!(grants(""), before);
        let account = server.sql("", &format!("SHOW CREATE USER {}@'%'", quote(user)));
        assert!(account.contains("ACCOUNT LOCK") && account.contains("REQUIRE SSL"), "{account}");
        assert!(!account.contains('*'), "a password came along: {account}");

        // With nothing but a pipe.
        let plain = server.existing(&format!("{}_plain", source.name));
        server.sql("", &format!("CREATE DATABASE {} CHARACTER SET utf8mb4", quote(&plain.name)));
        let mut zstd = Command::new("zstd")
            .arg("-dc")
            .arg(stored(&respaldo).artifact(0))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tool(server.client("mariadb").args(["--", &plain.name]).stdin(zstd.stdout.take().unwrap()));
        assert!(zstd.wait().unwrap().success());
        assert_eq!(plain.contents(), source.contents(), "{odd} by a pipe");
        server.sql("", &format!("DROP USER {}@'%'; DROP ROLE {role}", quote(user)));
    }
}

/// A session that stays open: statements go in, and an answer comes back.
struct Held {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Held {
    fn open(server: &Mariadb, database: &Database<'_>) -> Self {
        let mut child = server
            .client("mariadb")
            .args(["--batch", "--skip-column-names", "--unbuffered", "--", &database.name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, stdin, stdout: BufReader::new(stdout) }
    }

    /// Runs it, and waits until it is done.
    fn run(&mut self, sql: &str) {
        writeln!(self.stdin, "{sql}; SELECT 'done';").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_dump_beside_writers_is_of_one_moment_and_its_rows_are_counted_there() {
    let server = Mariadb::start();
    let source = server.database("busy");
    source.sql(
        "CREATE TABLE a (id INT AUTO_INCREMENT PRIMARY KEY, v TEXT); \
         CREATE TABLE b LIKE a; CREATE TABLE filler (v TEXT); \
         INSERT INTO filler SELECT REPEAT(MD5(seq), 8) FROM seq_1_to_40000;",
    );
    // Each writes the same number of rows to both, in one transaction, until it is told to stop.
    let writers: Vec<Child> = (0..3)
        .map(|_| {
            let mut child = server
                .client("mariadb")
                .args(["--", &source.name])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            child
                .stdin
                .take()
                .unwrap()
                .write_all(
                    b"DELIMITER //\nBEGIN NOT ATOMIC WHILE GET_LOCK('stop_writers', 0) DO \
                      DO RELEASE_LOCK('stop_writers'); START TRANSACTION; INSERT INTO a (v) VALUES ('x'); \
                      INSERT INTO b (v) SELECT 'y'; COMMIT; END WHILE; END//\n",
                )
                .unwrap();
            child
        })
        .collect();
    let respaldo = local(server, &source);
    for _ in 0..3 {
        let said = respaldo.run(&["backup", "db"]).expect(0).all();
        assert!(!said.contains("approximate"), "{said}");
        let other = server.existing(&format!("{}_other", source.name));
        respaldo.run(&["restore", "db", "--database", &other.name, "--yes"]).expect(0);
        let rows = |table| other.sql(&format!("SELECT COUNT(*) FROM {table}"));
        assert_eq!(rows("a"), rows("b"), "both or neither");
        let print = stored(&respaldo).manifest()["sources"][0]["fingerprint"].clone();
        assert_eq!(print["approximate"], serde_json::Value::Null, "{print}");
        let counted = print["tables"].as_array().unwrap().iter().map(|table| {
            assert_eq!(table["schema"], source.name);
            (table["table"].as_str().unwrap(), table["rows"].to_string())
        });
        let restored = ["a", "b", "filler"].map(|table| (table, rows(table)));
        assert_eq!(counted.collect::<Vec<_>>(), restored, "counted at the dump's own moment");
    }
    let mut stop = Held::open(server, &source);
    stop.run("DO GET_LOCK('stop_writers', 600)");
    for mut writer in writers {
        drop(writer.kill());
        drop(writer.wait());
    }
}

fn newest_log(respaldo: &Respaldo) -> String {
    let folder = respaldo.path("data/logs/db");
    let mut logs: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.sort();
    fs::read_to_string(logs.last().unwrap()).unwrap()
}

#[test]
fn a_dump_that_is_killed_or_overtaken_by_ddl_fails_and_its_password_is_nowhere() {
    let server = &Mariadb::fresh();
    let source = server.database("blocked");
    source.sql("CREATE TABLE a (x INT); CREATE TABLE z (x INT); INSERT INTO z VALUES (1), (2)");
    let respaldo = local(server, &source);
    let mut held = Held::open(server, &source);

    held.run("LOCK TABLES z WRITE");
    let running = respaldo.watch(&["backup", "db"]);
    let dump = loop {
        // The global lock is waited for in vain first: then the dump comes without.
        source.wait_for_waiter();
        let dumps = process::children_named(running.pid(), "mariadb-dump");
        if let Some(dump) = dumps.into_iter().next() {
            break dump;
        }
    };
    let (first, secret) = (&server.password[..20], &server.password[20..]);
    for process in running.descendants() {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        let seen = format!("{} {}", process.command, String::from_utf8_lossy(&environment));
        assert!(!seen.contains(first) && !seen.contains(secret), "{seen}");
    }
    let options = walkdir::WalkDir::new(respaldo.path("data/spool")).into_iter();
    let options = options.map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    let modes: Vec<u32> =
        options.map(|entry| entry.metadata().unwrap().permissions().mode() & 0o777).collect();
    assert_eq!(modes, [0o600], "one file of options, for us alone");
    dump.signal(rustix::process::Signal::KILL);
    let log = running.log();
    assert_eq!(running.end(), 1, "{log:#?}");
    held.run("UNLOCK TABLES");
    assert!(newest_log(&respaldo).contains("mariadb-dump was killed"), "{}", newest_log(&respaldo));

    held.run("LOCK TABLES z WRITE");
    let running = respaldo.watch(&["backup", "db"]);
    while process::children_named(running.pid(), "mariadb-dump").is_empty() {
        source.wait_for_waiter();
    }
    source.wait_for_waiter();
    held.run("TRUNCATE z");
    held.run("UNLOCK TABLES");
    assert_eq!(running.end(), 1, "rows that were there at the dump's moment can't be had any more");
    let log = newest_log(&respaldo);
    assert!(log.contains("definition has changed") && log.contains("the next try"), "{log}");

    assert_eq!(Stored::ids(&respaldo.path("backups"), "db"), Vec::<String>::new());
    respaldo.run(&["backup", "db"]).expect(0);
    assert!(!respaldo.path("data/spool").read_dir().unwrap().any(|_| true), "the spool is empty");
}

#[test]
fn what_a_transaction_does_not_hold_still_is_named() {
    let server = Mariadb::start();
    let source = server.database("mixed");
    source.sql(
        "CREATE TABLE good (x INT); CREATE TABLE `my isam` (x INT) ENGINE=MyISAM; \
         CREATE TABLE ari (x INT) ENGINE=Aria; CREATE TABLE f (x FLOAT)",
    );
    let respaldo = local(server, &source);
    respaldo.run(&["backup", "db"]).expect(0);
    let warnings = stored(&respaldo).manifest()["warnings"].to_string();
    for part in ["without transactions", "ari, my isam (", "six digits", "f.x ("] {
        assert!(warnings.contains(part), "no {part:?} in {warnings}");
    }
    assert!(!warnings.contains("good"), "{warnings}");
}

#[test]
fn a_user_who_would_not_see_everything_is_told_which_right_to_grant() {
    let server = Mariadb::start();
    let source = server.database("guarded");
    source
        .sql("CREATE TABLE a (x INT); CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW SET @x = 1");
    let user = format!("weak{}", std::process::id());
    source.sql(&format!(
        "CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'pw'; GRANT SELECT ON {}.* TO {user}@'127.0.0.1'",
        quote(&source.name)
    ));
    let respaldo = as_user(&source, &user, "pw");
    let said = respaldo.run(&["backup", "db"]).expect(1).stderr;
    assert!(said.contains("no right to SHOW VIEW, TRIGGER, EVENT"), "{said}");
    let grant = said.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap();
    assert!(grant.starts_with("GRANT SHOW VIEW, TRIGGER, EVENT ON"), "{said}");

    server.sql("", grant);
    respaldo.run(&["backup", "db"]).expect(0);
    let warnings = stored(&respaldo).manifest()["warnings"].to_string();
    for part in [
        "row counts are approximate: the user has no RELOAD right",
        "users and grants are not in the backup",
        "may not see all procedures",
    ] {
        assert!(warnings.contains(part), "no {part:?} in {warnings}");
    }
    respaldo.run(&["verify", "db"]).expect(0);
    server.sql("", &format!("DROP USER {user}@'127.0.0.1'"));
}

#[test]
fn a_wrong_password_or_database_is_told_with_the_next_step_and_never_shown() {
    let server = Mariadb::start();
    let source = server.database("closed");
    let respaldo = as_user(&source, Mariadb::USER, "wrong-password-0815");
    let said = respaldo.run(&["backup", "db"]).expect(1).all();
    assert!(said.contains("check password_file") && !said.contains("wrong-password"), "{said}");
    assert!(!newest_log(&respaldo).contains("wrong-password"));
    let missing = server.existing("no_such_database");
    let said = local(server, &missing).run(&["backup", "db"]).expect(1).all();
    assert!(said.contains("no_such_database") && said.contains("no such database on"), "{said}");
}

#[test]
fn a_database_that_holds_something_is_never_overwritten() {
    let server = Mariadb::start();
    let source = server.database("live");
    source.sql("CREATE TABLE t AS SELECT seq FROM seq_1_to_100");
    let respaldo = local(server, &source);
    respaldo.run(&["backup", "db"]).expect(0);
    let before = source.contents();
    let said = respaldo.run(&["restore", "db", "--yes"]).expect(2).stderr;
    assert!(said.contains("holds 1 tables") && said.contains("--database"), "{said}");
    assert_eq!(source.contents(), before);

    let (empty, fresh) = (server.database("empty"), server.existing(&format!("{}_n", source.name)));
    server.sql("", &format!("ALTER DATABASE {} CHARACTER SET latin1", quote(&empty.name)));
    let was = server.sql("", &format!("SHOW CREATE DATABASE {}", quote(&empty.name)));
    Stored::flip(&stored(&respaldo).artifact(0));
    for target in [&empty.name, &fresh.name] {
        respaldo.run(&["restore", "db", "--database", target, "--yes"]).expect(1);
    }
    assert!(!server.has_database(&fresh.name), "what a restore made is gone with it");
    assert_eq!(server.sql("", &format!("SHOW CREATE DATABASE {}", quote(&empty.name))), was);
    assert_eq!(empty.sql("SHOW TABLES"), "");

    Stored::flip(&stored(&respaldo).artifact(0));
    respaldo.run(&["restore", "db", "--database", &empty.name, "--yes"]).expect(0);
    assert_eq!(empty.contents(), source.contents());
}

#[test]
fn a_dump_without_its_last_line_is_no_dump() {
    let server = Mariadb::start();
    let source = server.database("cut");
    source.sql("CREATE TABLE t AS SELECT seq FROM seq_1_to_100");
    let respaldo = local(server, &source);
    respaldo.run(&["backup", "db"]).expect(0);
    let backup = stored(&respaldo);
    let plain = tool(Command::new("zstd").arg("-dc").arg(backup.artifact(0)));
    let cut = &plain[..plain.rfind("-- Dump completed").unwrap()];
    backup.forge(0, format!("{cut}-- Dump completed\nSELECT 1").as_bytes());
    let said = respaldo.run(&["verify", "db"]).expect(1).all();
    assert!(said.contains("it was cut short"), "{said}");
}

#[test]
fn neither_the_environment_nor_a_my_cnf_has_a_say() {
    let server = Mariadb::start();
    let source = server.database("calm");
    source.sql("CREATE TABLE t AS SELECT seq FROM seq_1_to_100");
    let respaldo = local(server, &source)
        .env("HOME", "@DIR@/home")
        .env("MYSQL_HOME", "@DIR@/home")
        .env("MYSQL_HOST", "nowhere.invalid")
        .env("MYSQL_TCP_PORT", "1")
        .env("MYSQL_PWD", "wrong")
        .env("MYSQL_UNIX_PORT", "/nowhere")
        .env("MYSQL_GROUP_SUFFIX", "_x");
    for file in ["home/.my.cnf", "home/my.cnf"] {
        respaldo.write(file, "[client]\nhost=nowhere.invalid\n[mariadb-dump]\nno-data\n");
    }
    respaldo.run(&["backup", "db"]).expect(0);
    respaldo.run(&["verify", "db"]).expect(0);
    let other = server.existing(&format!("{}_other", source.name));
    respaldo.run(&["restore", "db", "--database", &other.name, "--yes"]).expect(0);
    assert_eq!(other.contents(), source.contents());
}
