//! A MariaDB server of the tests' own: loopback TCP with a password, and a socket without.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use super::config::encode;
use super::guard::Guard;
use super::{free_port, temp_folder, tool};

/// Speed: what a test stores need not survive a power cut.
const SETTINGS: [&str; 5] = [
    "--bind-address=127.0.0.1",
    "--innodb-flush-log-at-trx-commit=0",
    "--skip-innodb-doublewrite",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=64M",
];

/// A running server; stopped, and its folder removed, when dropped or when the test process ends.
pub struct Mariadb {
    pub port: u16,
    /// Of [`Mariadb::USER`].
    pub password: String,
    folder: PathBuf,
    guard: Mutex<Option<Guard>>,
}

impl Mariadb {
    /// May do everything, over TCP.
    pub const USER: &str = "admin";

    /// The server that all tests of the process share.
    pub fn start() -> &'static Self {
        static SHARED: OnceLock<Mariadb> = OnceLock::new();
        SHARED.get_or_init(Self::fresh)
    }

    /// A server for one test: a lock that it holds would hold up the others.
    pub fn fresh() -> Self {
        let program = Path::new("/usr/sbin/mariadbd");
        assert!(program.exists(), "no {}: run scripts/test-servers.sh", program.display());
        let folder = temp_folder("mariadb").keep();
        // With all that breaks a URL, a shell or an options file which is put together by hand.
        let password = format!("pw-{}-:@/%'\"\\&?# $x", uuid::Uuid::new_v4().simple());
        let mut server = Self { port: 0, password, folder, guard: Mutex::new(None) };
        let data = server.folder.join("data");
        std::fs::create_dir(server.temporary()).unwrap();
        if rustix::process::geteuid().is_root() {
            tool(Command::new("chown").args(["-R", "mysql:"]).arg(&server.folder));
        }
        tool(
            Command::new("mariadb-install-db")
                .args(["--no-defaults", "--auth-root-authentication-method=normal"])
                .args(["--skip-test-db", "--skip-name-resolve", &user_option()])
                .arg(format!("--datadir={}", data.display()))
                .env("TMPDIR", server.temporary()),
        );
        for _ in 0..3 {
            server.port = free_port();
            match server.launch() {
                Ok(guard) => {
                    server.guard = Mutex::new(Some(guard));
                    server.sql("", &server.admin_sql());
                    return server;
                }
                Err(log) => eprintln!("MariaDB on port {}: {log:#?}", server.port),
            }
        }
        panic!("MariaDB does not start");
    }

    fn admin_sql(&self) -> String {
        let (user, password) = (Self::USER, literal(&self.password));
        format!(
            "CREATE USER '{user}'@'127.0.0.1' IDENTIFIED BY {password}; \
             GRANT ALL ON *.* TO '{user}'@'127.0.0.1' WITH GRANT OPTION"
        )
    }

    fn launch(&self) -> Result<Guard, Vec<String>> {
        let mut words = vec!["mariadbd".to_owned(), "--no-defaults".into(), user_option()];
        words.extend(SETTINGS.map(str::to_owned));
        words.push(format!("--datadir={}", self.folder.join("data").display()));
        words.push(format!("--tmpdir={}", self.temporary().display()));
        words.push(format!("--socket={}", self.socket().display()));
        words.push(format!("--port={}", self.port));
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        let guard = Guard::run_in("KILL", &self.folder, &words);
        match guard.try_wait_for_line("ready for connections") {
            Some(_) => Ok(guard),
            None => {
                let log = guard.lines.all();
                guard.end_and_keep();
                Err(log)
            }
        }
    }

    /// A server that starts removes what begins with `#sql` there, whosever temporary table it is.
    fn temporary(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    /// Lets root in without a password.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Makes a database of its own; `name` is made unique.
    pub fn database(&self, name: &str) -> Database<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let unique =
            format!("{name}_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        self.sql("", &format!("CREATE DATABASE {} CHARACTER SET utf8mb4", quote(&unique)));
        self.existing(&unique)
    }

    /// A database that something else made, such as a restore; it is dropped at the end too.
    pub fn existing(&self, name: &str) -> Database<'_> {
        Database { name: name.to_owned(), server: self }
    }

    pub fn has_database(&self, name: &str) -> bool {
        self.sql("", "SHOW DATABASES").lines().any(|known| known == name)
    }

    /// Runs SQL as root and returns the rows, with tabs between columns.
    #[track_caller]
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let output = self.try_sql(database, sql);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mariadb {database}: {said}\n{sql}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn try_sql(&self, database: &str, sql: &str) -> Output {
        let mut child = self
            .client("mariadb")
            .args(["--batch", "--raw", "--skip-column-names"])
            .arg(format!("--database={database}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mariadb is missing: run scripts/test-servers.sh");
        let (mut stdin, sql) = (child.stdin.take().unwrap(), sql.to_owned());
        let writer = std::thread::spawn(move || stdin.write_all(sql.as_bytes()));
        let output = child.wait_with_output().unwrap();
        drop(writer.join().unwrap());
        output
    }

    /// A client program, as root.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg("--no-defaults")
            .arg(format!("--socket={}", self.socket().display()))
            .args(["--user=root", "--default-character-set=utf8mb4"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/");
        command
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        drop(self.guard.get_mut().map(Option::take));
    }
}

/// One database; dropped when this is.
pub struct Database<'a> {
    pub name: String,
    server: &'a Mariadb,
}

impl Database<'_> {
    /// `mysql://USER@127.0.0.1:PORT/NAME`.
    pub fn url_of(&self, user: &str) -> String {
        format!("mysql://{user}@127.0.0.1:{}/{}", self.server.port, encode(&self.name))
    }

    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql)
    }

    /// All that it holds, as SQL text, and each table's checksum: alike for two that are alike.
    pub fn contents(&self) -> String {
        let dump = tool(
            self.server
                .client("mariadb-dump")
                .args(["--routines", "--triggers", "--events", "--hex-blob", "--skip-comments"])
                .args(["--dump-history", "--", &self.name]),
        );
        let tables = self.sql(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
             AND TABLE_TYPE = 'BASE TABLE' ORDER BY 1",
        );
        let sums = tables.lines().map(|table| {
            let row = self.sql(&format!("CHECKSUM TABLE {}", quote(table)));
            format!("{table} {}\n", row.rsplit('\t').next().unwrap())
        });
        format!("{dump}{}", sums.collect::<String>())
    }

    /// Waits until somebody waits for a table that another session has locked.
    pub fn wait_for_waiter(&self) {
        self.sql(
            "DELIMITER //\n\
             BEGIN NOT ATOMIC DECLARE i INT DEFAULT 0; \
             WHILE i < 6000 AND NOT EXISTS (SELECT 1 FROM information_schema.PROCESSLIST \
                 WHERE STATE = 'Waiting for table metadata lock' AND DB = DATABASE()) DO \
                 DO SLEEP(0.01); SET i = i + 1; END WHILE; \
             IF i = 6000 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'nobody waits'; END IF; \
             END//\n",
        );
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        drop(self.server.try_sql("", &format!("DROP DATABASE IF EXISTS {}", quote(&self.name))));
    }
}

pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Whom the server becomes when it is started by root.
fn user_option() -> String {
    let root = rustix::process::geteuid().is_root();
    let user = if root { "mysql".to_owned() } else { std::env::var("USER").unwrap() };
    format!("--user={user}")
}
