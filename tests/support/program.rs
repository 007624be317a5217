//! The built program itself, run as a user runs it: a config file, arguments, an environment that
//! holds nothing but what the test gives.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::http::{self, Reply};
use super::inbox::Inbox;
use super::process::{self, Process};
use super::{DEADLINE, SETPRIV, copy_program, free_port, temp_folder};

const PROGRAM: &str = env!("CARGO_BIN_EXE_respaldo");

/// A folder, a config and a port of its own.
pub struct Respaldo {
    folder: tempfile::TempDir,
    config: Option<PathBuf>,
    environment: Vec<(String, String)>,
    deadline: Duration,
    pub port: u16,
}

/// How one command ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code; after a signal, its number below zero.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Itself, when the code is the one wanted; a panic with all it said otherwise.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.stdout))
    }

    /// Both outputs, for what must be in neither.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl Respaldo {
    /// `@DIR@` and `@PORT@` in the config stand for the test's own folder and port.
    pub fn new(config: &str) -> Self {
        let mut respaldo = Self::without_config();
        respaldo.config = Some(respaldo.path("respaldo.toml"));
        respaldo.write_config(config);
        respaldo
    }

    /// With an environment alone, as in the seeds.
    pub fn without_config() -> Self {
        let folder = temp_folder("program");
        Self { folder, config: None, environment: vec![], deadline: DEADLINE, port: free_port() }
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), self.fill_in(&value.into())));
        self
    }

    /// For a command that moves much data.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the test's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Writes a file into the folder, such as a secret, and returns its path.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Writes a program into the folder, such as a hook's.
    pub fn write_program(&self, name: &str, script: &str) {
        copy_program(&self.write(&format!("{name}.txt"), script), &self.path(name));
    }

    /// Replaces the config, for a reload.
    pub fn write_config(&self, config: &str) {
        std::fs::write(self.path("respaldo.toml"), self.fill_in(config)).unwrap();
    }

    fn fill_in(&self, text: &str) -> String {
        let folder = self.folder().to_str().unwrap();
        text.replace("@DIR@", folder).replace("@PORT@", &self.port.to_string())
    }

    /// Runs one command to its end. At the deadline it is killed and the test fails.
    pub fn run(&self, arguments: &[&str]) -> Output {
        Running::start(self.command(&[], Path::new(PROGRAM), arguments)).finish(self.deadline)
    }

    /// As `run`, but as a user without any rights.
    pub fn run_as_nobody(&self, arguments: &[&str]) -> Output {
        let nobody = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"];
        // The build folder may lie below a home that nobody may enter.
        let program = self.path("respaldo-for-nobody");
        if !program.exists() {
            copy_program(Path::new(PROGRAM), &program);
        }
        Running::start(self.command(&nobody, &program, arguments)).finish(self.deadline)
    }

    /// As `run`, but killed (-9) just before it does the `nth` system call of these, such as
    /// `rename,renameat,renameat2`; the code is 0 once it does fewer.
    pub fn run_killed_at(&self, calls: &str, nth: usize, arguments: &[&str]) -> Output {
        self.run_traced(&[&format!("inject={calls}:signal=KILL:when={nth}")], arguments)
    }

    /// As `run`, with system calls that fail or kill, in the words of strace.
    pub fn run_traced(&self, injections: &[&str], arguments: &[&str]) -> Output {
        let calls = injections
            .iter()
            .filter_map(|inject| inject.strip_prefix("inject=")?.split(':').next());
        let trace = format!("trace={}", calls.collect::<Vec<_>>().join(","));
        let mut strace = vec!["--", "strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace];
        strace.extend(injections.iter().flat_map(|inject| ["-e", inject]));
        Running::start(self.command(&strace, Path::new(PROGRAM), arguments)).finish(self.deadline)
    }

    /// Starts a command and leaves it running, to be watched or killed.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(&[], Path::new(PROGRAM), arguments))
    }

    /// Starts `respaldo run`.
    pub fn daemon(&self) -> Daemon {
        self.watch(&["run"])
    }

    /// Starts any command, to follow what it says while it runs.
    pub fn watch(&self, arguments: &[&str]) -> Daemon {
        let mut running = self.start(arguments);
        let log = Arc::new(Inbox::default());
        let ends = [
            Box::new(running.child.stdout.take().unwrap()) as Box<dyn Read + Send>,
            Box::new(running.child.stderr.take().unwrap()),
        ];
        let readers = ends.map(|end| read_lines(end, Arc::clone(&log)));
        let inbox = Arc::clone(&log);
        std::thread::spawn(move || {
            for reader in readers {
                reader.join().unwrap();
            }
            inbox.close();
        });
        Daemon { running, log, port: self.port }
    }

    fn command(&self, privileges: &[&str], program: &Path, arguments: &[&str]) -> Command {
        // It becomes the program, with the same pid, and dies with the thread that started it.
        let mut command = Command::new(SETPRIV);
        command.args(["--pdeathsig", "KILL"]).args(privileges).arg("--").arg(program);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        let path = std::env::var("PATH").unwrap();
        command
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .envs(self.environment.iter().cloned())
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// A command under way; killed by its pid when dropped.
pub struct Running {
    child: Child,
    status: Option<ExitStatus>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        Self { child: command.spawn().expect("setpriv is missing"), status: None }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Its children, theirs, and so on.
    pub fn descendants(&self) -> Vec<Process> {
        process::descendants(self.pid())
    }

    pub fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            process::send(self.pid(), signal);
        }
    }

    /// Kills it alone, and gives what it had started.
    pub fn kill9(self) -> Vec<Process> {
        let family = self.descendants();
        self.signal(Signal::KILL);
        family
    }

    /// Waits for the end and gives what it said; kills it and panics at the deadline.
    pub fn finish(mut self, deadline: Duration) -> Output {
        let stdout = read_all(self.child.stdout.take().unwrap());
        let stderr = read_all(self.child.stderr.take().unwrap());
        let status = self.wait(deadline);
        // An orphan that holds the pipe is a finding, not a reason to hang.
        let said = |end: mpsc::Receiver<String>| {
            end.recv_timeout(DEADLINE).expect("it ended, but a child of it still holds its output")
        };
        let (stdout, stderr) = (said(stdout), said(stderr));
        let Some(status) = status else {
            panic!("killed at the deadline\nstdout: {stdout}\nstderr: {stderr}")
        };
        Output { code: code(status), stdout, stderr }
    }

    /// The status, or nothing when it had to be killed at the deadline.
    fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let ended = process::wait_end(self.pid(), deadline);
        if !ended {
            self.signal(Signal::KILL);
        }
        self.status = Some(self.child.wait().unwrap());
        self.status.filter(|_| ended)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.signal(Signal::KILL);
            drop(self.child.wait());
        }
    }
}

/// `respaldo run`, with its log as it comes; killed by its pid when dropped.
pub struct Daemon {
    running: Running,
    log: Arc<Inbox<String>>,
    port: u16,
}

impl Daemon {
    pub fn pid(&self) -> i32 {
        self.running.pid()
    }

    pub fn descendants(&self) -> Vec<Process> {
        self.running.descendants()
    }

    /// Every line so far, of stdout and stderr.
    pub fn log(&self) -> Vec<String> {
        self.log.all()
    }

    /// Waits for a line with `text`; panics with the whole log when it ends without.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.wait_for_logs(text, 1).remove(0)
    }

    /// Waits for `count` lines with `text`.
    pub fn wait_for_logs(&self, text: &str, count: usize) -> Vec<String> {
        self.log.wait_until(&format!("{count} log lines with {text:?}"), |lines| {
            let found: Vec<String> =
                lines.iter().filter(|line| line.contains(text)).cloned().collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// The status and body of `GET /health`.
    pub fn health(&self) -> (u16, Value) {
        let reply = self.get("/health");
        (reply.status, reply.json())
    }

    pub fn get(&self, path: &str) -> Reply {
        http::get(self.port, path)
            .unwrap_or_else(|error| panic!("GET {path}: {error}; log: {:#?}", self.log()))
    }

    /// SIGHUP: reload.
    pub fn reload(&self) {
        self.running.signal(Signal::HUP);
    }

    /// SIGTERM, and the exit code once it has ended.
    pub fn terminate(mut self) -> i32 {
        self.running.signal(Signal::TERM);
        let status = self.running.wait(DEADLINE);
        code(status.unwrap_or_else(|| panic!("no end after SIGTERM; log: {:#?}", self.log())))
    }

    /// Waits for its end by itself, and gives the exit code.
    pub fn end(mut self) -> i32 {
        let status = self.running.wait(DEADLINE);
        code(status.unwrap_or_else(|| panic!("no end; log: {:#?}", self.log())))
    }

    /// SIGKILL, and its descendants as they were at that moment.
    pub fn kill9(mut self) -> Vec<Process> {
        let family = self.descendants();
        self.running.signal(Signal::KILL);
        self.running.wait(DEADLINE);
        family
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}

fn read_all(mut end: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (said, all) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        end.read_to_end(&mut bytes).unwrap();
        said.send(String::from_utf8_lossy(&bytes).into_owned())
    });
    all
}

fn read_lines(
    end: impl Read + Send + 'static,
    inbox: Arc<Inbox<String>>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(end).split(b'\n').map_while(Result::ok) {
            inbox.push(String::from_utf8_lossy(&line).into_owned());
        }
    })
}
