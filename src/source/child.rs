//! Programs that respaldo starts: with an explicit environment, dying with the daemon, their exit
//! status always awaited. Knows processes; must not know what a program is for.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child as TokioChild, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fault::{Context, Fault, Result};

/// Where programs are looked for: never the caller's `PATH`.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A larger pipe means fewer switches between the two ends. Linux allows 1 MiB to anyone, but with
/// half of that more of it stays in the processor's cache.
pub const PIPE_BYTES: usize = 512 << 10;
/// What C's standard input and output take at once; of a pipe it is 4 KiB by itself. A program of GNU's
/// coreutils, left out where those are of another kind.
const LARGE_BUFFERS: [&str; 4] = ["stdbuf", "--input=256K", "--output=256K", "--"];
const STDERR_LINES: usize = 10_000;
const STDERR_LINE_BYTES: u64 = 8 << 10;

/// A program to start. Arguments are visible to every user of the machine: no secret goes there.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    inside: Option<Inside>,
    softly: bool,
    large_buffers: bool,
}

/// A folder that a program finds as [`FOLDER`], and the user that it runs as.
#[derive(Debug)]
struct Inside {
    folder: PathBuf,
    user: Option<Account>,
}

/// Where a program finds the folder that it was put inside of, whoever may enter those above it.
pub const FOLDER: &str = "/proc/self/fd/3";
/// The folder comes as standard input, for nothing else is handed over without unsafe code.
const HAND_OVER: &str = "exec \"$@\" 3<&0 </dev/null";
/// How long a program that is asked to end may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A user as `/etc/passwd` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub user: u32,
    pub group: u32,
}

impl Account {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::find(|account| account.name == name)
    }

    /// The one that we are; some programs refuse to run for a number that has no name.
    pub fn own() -> Option<Self> {
        let own = rustix::process::geteuid().as_raw();
        Self::find(|account| account.user == own)
    }

    fn find(is: impl Fn(&Self) -> bool) -> Option<Self> {
        let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
        passwd.lines().filter_map(Self::parse).find(is)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let mut number = |skipped| fields.nth(skipped)?.parse().ok();
        Some(Self { name, user: number(1)?, group: number(0)? })
    }
}

impl Program {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let (args, env) = (Vec::new(), Vec::new());
        Self { path: path.into(), args, env, inside: None, softly: false, large_buffers: false }
    }

    /// Runs it without any way to gain rights, as `user` where one is given, with `folder` at
    /// [`FOLDER`]. It has no standard input.
    pub fn inside(self, folder: &Path, user: Option<&Account>) -> Self {
        let inside = Inside { folder: folder.to_owned(), user: user.cloned() };
        Self { inside: Some(inside), ..self }
    }

    /// It is asked to end by SIGQUIT, and killed only when it does not.
    pub fn softly(self) -> Self {
        Self { softly: true, ..self }
    }

    /// Much goes through its standard input or output: for each gigabyte of a dump that saves a quarter
    /// of a million system calls.
    pub fn with_large_buffers(self) -> Self {
        Self { large_buffers: true, ..self }
    }

    /// What stands before the program: what ends it with us, and takes rights away.
    fn before(&self) -> Vec<String> {
        let mut words: Vec<String> = ["--pdeathsig", "KILL"].map(str::to_owned).into();
        if let Some(Inside { user, .. }) = &self.inside {
            words.extend(["--", "sh", "-c", HAND_OVER, "sh", "setpriv"].map(str::to_owned));
            words.push("--no-new-privs".into());
            if let Some(account) = user {
                words.push(format!("--reuid={}", account.user));
                words.push(format!("--regid={}", account.group));
                words.push("--clear-groups".into());
            }
            // Said again: a change of the user takes it away.
            words.extend(["--pdeathsig", "KILL"].map(str::to_owned));
        }
        words.push("--".into());
        if self.large_buffers && find(LARGE_BUFFERS[0]).is_some() {
            words.extend(LARGE_BUFFERS.map(str::to_owned));
        }
        words
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args<T: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// A password may go here: only the same user can read it.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }
}

/// Which of its streams the program shares with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipes {
    Stdout,
    Stdin,
    Both,
}

/// A running program. Blocking ends of its pipes, and its end.
pub struct Child {
    pub stdin: Option<File>,
    pub stdout: Option<File>,
    pub end: JoinHandle<Result<Ended>>,
}

/// A program that ended, well or not.
#[derive(Debug)]
pub struct Ended {
    pub program: String,
    pub status: ExitStatus,
    /// What it said, at most 10,000 lines.
    pub stderr: Vec<String>,
}

impl Ended {
    /// Success, with what was said; otherwise a fault with the program's own last words.
    pub fn success(self) -> Result<Vec<String>> {
        if self.status.success() { Ok(self.stderr) } else { Err(self.fault()) }
    }

    pub fn fault(&self) -> Fault {
        let how = match self.status.code() {
            Some(code) => format!("{} exited with code {code}", self.program),
            None => format!("{} was killed ({})", self.program, self.status),
        };
        let words: Vec<&str> =
            self.stderr.iter().rev().take(3).rev().map(|line| line.trim()).collect();
        let text = if words.is_empty() { how } else { format!("{how}: {}", words.join("; ")) };
        Fault::transient(text)
    }
}

/// Starts a program. It dies with this process (`setpriv --pdeathsig KILL`), and when `cancel` is.
pub async fn spawn(program: Program, pipes: Pipes, cancel: CancellationToken) -> Result<Child> {
    let name = program.name();
    let doing = format!("start {name}");
    let (stdin_theirs, stdin) = match pipes {
        Pipes::Stdin | Pipes::Both => {
            let (theirs, ours) = pipe().context(doing.clone())?;
            (Stdio::from(theirs), Some(File::from(ours)))
        }
        Pipes::Stdout => match &program.inside {
            Some(inside) => (File::open(&inside.folder).context(doing.clone())?.into(), None),
            None => (Stdio::null(), None),
        },
    };
    let (stdout_theirs, stdout) = match pipes {
        Pipes::Stdout | Pipes::Both => {
            let (ours, theirs) = pipe().context(doing.clone())?;
            (Stdio::from(theirs), Some(File::from(ours)))
        }
        Pipes::Stdin => (Stdio::null(), None),
    };
    let mut command = Command::new("setpriv");
    command
        .args(program.before())
        .arg(&program.path)
        .args(&program.args)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .envs(program.env)
        .current_dir("/")
        // What it starts in turn is ended with it.
        .process_group(0)
        .stdin(stdin_theirs)
        .stdout(stdout_theirs)
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = on_lasting_thread(command).await.map_err(|error| {
        Fault::permanent(doing).cause(error).hint("setpriv (package util-linux) must be installed")
    })?;
    let stderr = child.stderr.take();
    let softly = program.softly;
    let end = tokio::spawn(async move {
        let listen = async {
            match stderr {
                Some(stderr) => lines(stderr).await,
                None => Vec::new(),
            }
        };
        let wait = async {
            tokio::select! {
                status = child.wait() => status,
                () = cancel.cancelled() => {
                    if softly {
                        signal(&child, kill_process, Signal::QUIT);
                        tokio::time::timeout(PATIENCE, child.wait()).await.ok();
                    }
                    signal(&child, kill_process_group, Signal::KILL);
                    child.start_kill().ok();
                    child.wait().await
                }
            }
        };
        let (status, stderr) = tokio::join!(wait, listen);
        let status = status.context(format!("wait for {name}"))?;
        if cancel.is_cancelled() {
            return Err(Fault::cancelled(format!("{name} was stopped")));
        }
        Ok(Ended { program: name, status, stderr })
    });
    Ok(Child { stdin, stdout, end })
}

/// Signals a program, or its whole group: a shell's own children would hold its pipes open.
fn signal(child: &TokioChild, send: fn(Pid, Signal) -> rustix::io::Result<()>, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        send(pid, signal).ok();
    }
}

/// Runs a program to its end and returns its standard output, at most 1 MiB of it.
pub async fn output(program: Program, cancel: CancellationToken) -> Result<String> {
    output_of(program, cancel, 1 << 20).await
}

/// As [`output`], of a program that has more to say: at most 256 MiB.
pub async fn whole_output(program: Program, cancel: CancellationToken) -> Result<String> {
    output_of(program, cancel, 256 << 20).await
}

async fn output_of(program: Program, cancel: CancellationToken, most: u64) -> Result<String> {
    let child = spawn(program, Pipes::Stdout, cancel).await?;
    let mut text = String::new();
    if let Some(stdout) = child.stdout {
        tokio::fs::File::from_std(stdout)
            .take(most)
            .read_to_string(&mut text)
            .await
            .context("read a program's output")?;
    }
    ended(child.end).await?.success()?;
    Ok(text)
}

/// Awaits a program's end.
pub async fn ended(end: JoinHandle<Result<Ended>>) -> Result<Ended> {
    end.await.context("wait for a program")?
}

fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // A machine that allows less keeps its own size: slower, not wrong.
    fcntl_setpipe_size(&write, PIPE_BYTES).ok();
    Ok((read, write))
}

async fn lines(stderr: impl tokio::io::AsyncRead + Unpin) -> Vec<String> {
    let mut reader = BufReader::new(stderr);
    let mut lines = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(STDERR_LINE_BYTES).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) {
            return lines;
        }
        if lines.len() < STDERR_LINES {
            lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// `PDEATHSIG` fires when the thread that started the child ends, and tokio's threads may: so one
/// thread that never ends starts them all.
async fn on_lasting_thread(mut command: Command) -> std::io::Result<TokioChild> {
    static STARTER: OnceLock<Sender<Work>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, receiver) = channel::<Work>();
        std::thread::Builder::new()
            .name("starter".into())
            .spawn(move || receiver.into_iter().for_each(|work| work()))
            .map_or_else(|_| channel().0, |_| sender)
    });
    let (answer, answered) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let work: Work = Box::new(move || {
        let _entered = runtime.enter();
        answer.send(command.spawn()).ok();
    });
    starter.send(work).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
    answered.await.map_err(std::io::Error::other)?
}

/// The program of this name: a whole path, or a name on [`PATH`].
pub fn locate(name: &str) -> Option<PathBuf> {
    match name.contains('/') {
        true => Some(PathBuf::from(name)).filter(|path| path.is_file()),
        false => find(name),
    }
}

/// The first program of this name on [`PATH`].
pub fn find(name: &str) -> Option<PathBuf> {
    PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}
