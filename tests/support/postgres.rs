//! A PostgreSQL server of the tests' own: loopback TCP with a password, and a socket without. 15 as
//! this Debian has it; 17 and 18 in folders with newer ones.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use super::guard::Guard;
use super::{
    SETPRIV, copy_program, free_port, process, temp_folder, temp_folder_in, testbed, tool,
};

/// Where a version's programs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edition {
    Fifteen,
    Seventeen,
    Eighteen,
}

impl Edition {
    fn major(self) -> u32 {
        match self {
            Self::Fifteen => 15,
            Self::Seventeen => 17,
            Self::Eighteen => 18,
        }
    }

    /// The Debian that lies in a folder of the testbed and has it; None: the machine's own.
    fn suite(self) -> Option<&'static str> {
        match self {
            Self::Fifteen => None,
            Self::Seventeen => Some("trixie"),
            Self::Eighteen => Some("forky"),
        }
    }

    /// Of client programs, for whoever is outside.
    fn bin(self) -> PathBuf {
        match self.suite() {
            None => "/usr/lib/postgresql/15/bin".into(),
            Some(suite) => testbed(&format!("{suite}/bin")),
        }
    }

    /// What the server takes for `/`.
    fn root(self) -> PathBuf {
        match self.suite() {
            None => "/".into(),
            Some(suite) => testbed(&format!("{suite}/root")),
        }
    }

    /// A path as the server names it.
    fn inside(self, path: &Path) -> PathBuf {
        Path::new("/").join(path.strip_prefix(self.root()).unwrap())
    }

    /// A folder that its servers find; whoever takes it removes it.
    fn temp_folder(self) -> PathBuf {
        let place = match self.suite() {
            None => in_memory(),
            Some(_) => self.root().join("tmp"),
        };
        temp_folder_in(&place, "postgres").keep()
    }

    /// The user's and group's numbers there.
    fn ids(self) -> (Option<u32>, Option<u32>) {
        let passwd = std::fs::read_to_string(self.root().join("etc/passwd")).unwrap();
        let line = passwd.lines().find(|line| line.starts_with("postgres:")).unwrap();
        let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
        (fields.next().unwrap(), fields.next().unwrap())
    }

    /// A server's program; it refuses to run as root.
    fn server_program(self, program: &str) -> Command {
        let major = self.major();
        let mut command = match self.suite() {
            None if is_root() => Command::new(AS_POSTGRES[0]),
            None => {
                let mut command = Command::new(self.bin().join(program));
                plain(&mut command);
                return command;
            }
            Some(_) => {
                assert!(
                    is_root(),
                    "PostgreSQL {major} is started by chroot: run the tests as root"
                );
                let mut command = Command::new("/usr/sbin/chroot");
                command.arg(self.root()).arg(AS_POSTGRES[0]);
                command
            }
        };
        command.args(&AS_POSTGRES[1..]).arg(format!("/usr/lib/postgresql/{major}/bin/{program}"));
        plain(&mut command);
        command
    }

    /// Its programs for whoever is outside, laid out as a server of its own expects it.
    fn outside(self) -> tempfile::TempDir {
        let folder = temp_folder("outside");
        let usr = self.root().join("usr");
        let version = folder.path().join(format!("usr/lib/postgresql/{}", self.major()));
        std::fs::create_dir_all(version.join("bin")).unwrap();
        let link = |what: &str, to: &Path| std::os::unix::fs::symlink(usr.join(what), to).unwrap();
        link("share", &folder.path().join("usr/share"));
        link(&format!("lib/postgresql/{}/lib", self.major()), &version.join("lib"));
        for program in std::fs::read_dir(self.bin()).unwrap() {
            let program = program.unwrap();
            copy_program(&program.path(), &version.join("bin").join(program.file_name()));
        }
        folder
    }
}

/// Programs of a newer PostgreSQL, servers' too, as if they were installed in a folder; removed with it.
pub struct Outside {
    folder: tempfile::TempDir,
    major: u32,
}

impl Outside {
    pub fn bin(&self) -> PathBuf {
        self.folder.path().join(format!("usr/lib/postgresql/{}/bin", self.major))
    }
}

/// Where files are made and removed fastest, which is much of what a server does in these tests; where memory is
/// short, on the disk.
fn in_memory() -> PathBuf {
    const ENOUGH: u64 = 6 << 30;
    let memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(memory).map_or(0, |disk| disk.f_bavail * disk.f_frsize);
    if free >= ENOUGH { memory.to_owned() } else { std::env::temp_dir() }
}

/// The server refuses to run as root.
const AS_POSTGRES: [&str; 5] =
    [SETPRIV, "--reuid=postgres", "--regid=postgres", "--init-groups", "--"];
/// Speed: what a test stores need not survive a power cut, but it does survive [`Postgres::stop`].
const SETTINGS: &str = "fsync = off\nfull_page_writes = off\n\
    max_connections = 200\nlisten_addresses = '127.0.0.1'\nlog_line_prefix = '%m [%p] %d '\n";

/// A running server; stopped, and its folder removed, when dropped or when the test process ends.
pub struct Postgres {
    pub port: u16,
    pub user: &'static str,
    pub password: String,
    edition: Edition,
    folder: PathBuf,
    guard: Mutex<Option<Guard>>,
}

impl Postgres {
    /// The server that all tests of the process share. For one that a test stops, breaks or
    /// reconfigures: [`Postgres::fresh`].
    pub fn start() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::fresh)
    }

    /// A server for one test.
    pub fn fresh() -> Self {
        Self::of(Edition::Fifteen)
    }

    /// One whose files lie below `place`, which stays.
    pub fn fresh_in(place: &Path) -> Self {
        Self::made_in(Edition::Fifteen, place.join("server"))
    }

    /// One of PostgreSQL 17, for one test.
    pub fn seventeen() -> Self {
        Self::of(Edition::Seventeen)
    }

    /// One of PostgreSQL 18, for one test.
    pub fn eighteen() -> Self {
        Self::of(Edition::Eighteen)
    }

    /// The programs of its version, as if they were installed on this machine.
    pub fn outside(&self) -> Outside {
        Outside { folder: self.edition.outside(), major: self.edition.major() }
    }

    fn of(edition: Edition) -> Self {
        let bin = edition.bin();
        assert!(bin.exists(), "no PostgreSQL in {bin:?}: run scripts/test-servers.sh");
        Self::made_in(edition, edition.temp_folder())
    }

    fn made_in(edition: Edition, folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        // With all that breaks a URL, a shell or a connection string which is put together by hand.
        let password = format!("pw-{}-:@/%'&? $x", uuid::Uuid::new_v4().simple());
        let guard = Mutex::new(None);
        let server = Self { port: 0, user: "postgres", password, edition, folder, guard };
        server.make_cluster();
        server.listening()
    }

    /// A server of the same version on a data folder that `fill` makes, which lets in whom this one
    /// does.
    pub fn on_another(&self, fill: impl FnOnce(&Path)) -> Self {
        let folder = self.edition.temp_folder();
        if is_root() {
            let (user, group) = self.edition.ids();
            chown(&folder, user, group).unwrap();
        }
        fill(&folder.join("data"));
        let (password, guard) = (self.password.clone(), Mutex::new(None));
        Self { port: 0, user: self.user, password, edition: self.edition, folder, guard }
            .listening()
    }

    fn listening(mut self) -> Self {
        // Between choosing a port and listening somebody else may take it.
        for _ in 0..3 {
            self.port = free_port();
            match self.launch() {
                Ok(guard) => {
                    self.guard = Mutex::new(Some(guard));
                    return self;
                }
                Err(log) => eprintln!("PostgreSQL on port {}: {log:#?}", self.port),
            }
        }
        panic!("PostgreSQL does not start");
    }

    /// Returns once it takes connections, or its log when it ends before.
    fn launch(&self) -> Result<Guard, Vec<String>> {
        let command = self.edition.server_program("postgres");
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let data = self.edition.inside(&self.folder.join("data"));
        let port = self.port.to_string();
        let options = [OsStr::new("-D"), data.as_ref(), OsStr::new("-p"), OsStr::new(&port)];
        let words: Vec<&OsStr> = words.chain(options).collect();
        let guard = Guard::run_in("QUIT", &self.folder, &words);
        match guard.try_wait_for_line("ready to accept connections") {
            Some(_) => Ok(guard),
            None => {
                let log = guard.lines.all();
                guard.end_and_keep();
                Err(log)
            }
        }
    }

    fn make_cluster(&self) {
        let pwfile = self.folder.join("pwfile");
        std::fs::write(&pwfile, &self.password).unwrap();
        let (data, socket) = (self.folder.join("data"), self.socket_folder());
        std::fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
        std::fs::DirBuilder::new().mode(0o755).create(&socket).unwrap();
        if is_root() {
            let (user, group) = self.edition.ids();
            for path in [&self.folder, &pwfile, &data, &socket] {
                chown(path, user, group).unwrap();
            }
        }
        tool(
            self.edition
                .server_program("initdb")
                .args(["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres"])
                .args(["--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile"])
                .arg(self.edition.inside(&pwfile))
                .arg("-D")
                .arg(self.edition.inside(&data)),
        );
        std::fs::remove_file(&pwfile).unwrap();
        let conf = data.join("postgresql.conf");
        std::fs::OpenOptions::new()
            .append(true)
            .open(conf)
            .and_then(|mut file| {
                let socket = self.edition.inside(&socket);
                let socket = socket.display();
                writeln!(file, "{SETTINGS}unix_socket_directories = '{socket}'")
            })
            .unwrap();
    }

    /// The server's log since it was last started.
    pub fn log(&self) -> Vec<String> {
        self.guard.lock().unwrap().as_ref().map(|guard| guard.lines.all()).unwrap_or_default()
    }

    /// What stands in `PGHOST` for the socket, which asks for no password.
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// The postmaster's pid.
    pub fn pid(&self) -> i32 {
        let file = self.folder.join("data/postmaster.pid");
        let text = std::fs::read_to_string(file).expect("the server is stopped");
        text.lines().next().unwrap().parse().unwrap()
    }

    /// Stops it at once, as a crash would; [`Postgres::start_again`] recovers it on the same port.
    pub fn stop(&self) {
        if let Some(guard) = self.guard.lock().unwrap().take() {
            guard.end_and_keep();
        }
    }

    /// Kills every process of it (-9) at one moment, as a machine that loses its power does.
    pub fn kill9(&self) {
        let Some(guard) = self.guard.lock().unwrap().take() else { return };
        let postmaster = self.pid();
        // It would start those anew that end before it.
        process::send(postmaster, rustix::process::Signal::STOP);
        let family = process::descendants(postmaster);
        process::send(postmaster, rustix::process::Signal::KILL);
        family.iter().for_each(|process| process.signal(rustix::process::Signal::KILL));
        // A server that starts on this folder refuses while one of them is there.
        family.iter().for_each(process::Process::wait_gone);
        guard.end_and_keep();
    }

    pub fn start_again(&self) {
        let guard = self.launch().unwrap_or_else(|log| panic!("PostgreSQL: {log:#?}"));
        *self.guard.lock().unwrap() = Some(guard);
    }

    /// Its data folder, as we see it.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Ends it in order, and starts it again when that is done which needs it down.
    fn down_for(&self, work: impl FnOnce()) {
        let guard = self.guard.lock().unwrap().take().unwrap();
        process::send(self.pid(), rustix::process::Signal::INT);
        guard.wait_for_line("database system is shut down");
        guard.end_and_keep();
        work();
        self.start_again();
    }

    fn run_checksums(&self, word: &str) {
        let inside = self.edition.inside(&self.data());
        tool(self.edition.server_program("pg_checksums").args([word, "-D"]).arg(inside));
    }

    /// Gives its pages checksums from now on.
    pub fn enable_checksums(&self) {
        self.down_for(|| self.run_checksums("--enable"));
    }

    /// Breaks a page of a table below the server, which has checksums from then on.
    pub fn break_page(&self, database: &str, table: &str) {
        let ask = format!("SELECT pg_relation_filepath('{table}')");
        self.psql(database, "CHECKPOINT");
        let path = self.data().join(self.psql(database, &ask));
        // In order: checksums can't be had of what a crash left.
        self.down_for(|| {
            self.run_checksums("--enable");
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[8000] ^= 0xff;
            std::fs::write(&path, bytes).unwrap();
        });
    }

    /// As after a failover: it begins a timeline of its own.
    pub fn start_on_a_new_timeline(&self) {
        let data = self.folder.join("data");
        std::fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .and_then(|mut file| writeln!(file, "restore_command = 'false'"))
            .unwrap();
        let signal = data.join("recovery.signal");
        std::fs::write(&signal, "").unwrap();
        if is_root() {
            let (user, group) = self.edition.ids();
            chown(&signal, user, group).unwrap();
        }
        self.start_again();
    }

    /// Makes a database of its own; `name` is made unique.
    pub fn database(&self, name: &str) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let unique =
            format!("{name}_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {} TEMPLATE template0", quote(&unique)));
        Database { name: unique, host: Host::of(self) }
    }

    /// A database that something else made, such as a restore; it is dropped at the end too.
    pub fn existing(&self, name: &str) -> Database {
        Database { name: name.to_owned(), host: Host::of(self) }
    }

    pub fn has_database(&self, name: &str) -> bool {
        let names = self.psql("postgres", "SELECT datname FROM pg_database");
        names.lines().any(|known| known == name)
    }

    /// Runs SQL in one database and returns the rows: unaligned, `|` between columns.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        Host::of(self).psql(database, sql)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let stopped = self.guard.get_mut().is_ok_and(|guard| guard.is_none());
        if stopped {
            drop(std::fs::remove_dir_all(&self.folder));
        }
    }
}

/// Where a server is, and how to be let in.
#[derive(Clone)]
struct Host {
    edition: Edition,
    port: u16,
    user: &'static str,
    password: String,
}

impl Host {
    fn of(server: &Postgres) -> Self {
        let edition = server.edition;
        Self { edition, port: server.port, user: server.user, password: server.password.clone() }
    }

    fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.edition.bin().join(program));
        command
            .env_clear()
            .envs([("PGHOST", "127.0.0.1"), ("PGUSER", self.user), ("PGDATABASE", database)])
            .env("PGPORT", self.port.to_string())
            .env("PGPASSWORD", &self.password)
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .current_dir("/");
        command
    }

    fn try_psql(&self, database: &str, sql: &str) -> std::process::Output {
        let mut child = self
            .client("psql", database)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql is missing: run scripts/test-servers.sh");
        let (mut stdin, sql) = (child.stdin.take().unwrap(), sql.to_owned());
        // On its own thread: SQL that prints much would otherwise block both sides.
        let writer = std::thread::spawn(move || stdin.write_all(sql.as_bytes()));
        let output = child.wait_with_output().unwrap();
        // A psql that could not connect reads nothing; its own words say why.
        drop(writer.join().unwrap());
        output
    }

    fn psql(&self, database: &str, sql: &str) -> String {
        let output = self.try_psql(database, sql);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "psql {database}: {said}\n{sql}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

/// One database; dropped with its connections when this is.
pub struct Database {
    pub name: String,
    host: Host,
}

impl Database {
    /// `postgres://postgres@127.0.0.1:PORT/NAME`; the password is given apart.
    pub fn url(&self) -> String {
        format!("postgres://{}@127.0.0.1:{}/{}", self.host.user, self.host.port, self.name)
    }

    /// The URL with the password in it, encoded.
    pub fn url_with_password(&self) -> String {
        // Not `Url::set_password`: it leaves a `%` as it is, and nobody can read that back.
        let encode = |byte: u8| match byte {
            plain if plain.is_ascii_alphanumeric() || plain == b'-' => {
                char::from(plain).to_string()
            }
            other => format!("%{other:02X}"),
        };
        let password: String = self.host.password.bytes().map(encode).collect();
        self.url().replacen('@', &format!(":{password}@"), 1)
    }

    pub fn password(&self) -> &str {
        &self.host.password
    }

    pub fn port(&self) -> u16 {
        self.host.port
    }

    pub fn psql(&self, sql: &str) -> String {
        self.host.psql(&self.name, sql)
    }

    /// Where the client programs of its version are.
    pub fn bin(&self) -> PathBuf {
        self.host.edition.bin()
    }

    /// A client program of its version in this database, such as `pg_restore`.
    pub fn client(&self, program: &str) -> Command {
        self.host.client(program, &self.name)
    }

    /// Fills it with pgbench's tables: about 15 MB for each unit of `scale`.
    pub fn pgbench(&self, scale: u32) {
        let scale = scale.to_string();
        tool(self.client("pgbench").args(["-i", "-q", "-I", "dtGvp", "-s", &scale]));
    }

    /// Every user table with an order-independent digest of its rows, one a line: what a restored
    /// copy must give too.
    pub fn fingerprint(&self) -> String {
        let tables = self.psql(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables \
             WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1",
        );
        let digests = tables.lines().map(|table| {
            let name = table.replace('\'', "''");
            format!(
                "SELECT '{name}', count(*), sum(hashtextextended(t::text, 0)) FROM {table} AS t;\n"
            )
        });
        self.psql(&digests.collect::<String>())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote(&self.name));
        // A test may have stopped the server: then the database is gone with it.
        drop(self.host.try_psql("postgres", &sql));
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn plain(command: &mut Command) {
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").current_dir("/");
}
