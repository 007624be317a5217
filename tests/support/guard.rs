//! What ends a server together with its test, however the test process ends: a shell that waits for
//! its stdin to close. A `static` is never dropped, and a killed process drops nothing.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use super::inbox::Inbox;

/// Dropping it ends what it guards, and waits until that is done.
pub struct Guard {
    shell: Child,
    stdin: Option<ChildStdin>,
    /// Lines of the guarded program, stdout and stderr together; closed when it has ended.
    pub lines: Arc<Inbox<String>>,
}

/// The program is a child of the shell, so that its pid is still its own when it is killed. Ctrl-C
/// reaches the whole process group, and must not take the shell before its time.
const RUN: &str = r#"
signal=$1 folder=$2
shift 2
"$@" 2>&1 </dev/null &
trap '' INT TERM HUP
exec >/dev/null 2>&1
read -r last || last=remove
kill -"$signal" $!
wait
[ "$last" = keep ] || [ -z "$folder" ] || rm -rf "$folder""#;
const AT_END: &str = r#"
trap '' INT TERM HUP
folder=$1
shift
read -r last
"$@"
rm -rf "$folder""#;

impl Guard {
    /// Runs a program that is killed at the end.
    pub fn run(command: &[&OsStr]) -> Self {
        Self::run_in("KILL", Path::new(""), command)
    }

    /// Runs a program that gets `signal` at the end; `folder` is removed once it is gone.
    pub fn run_in(signal: &str, folder: &Path, command: &[&OsStr]) -> Self {
        Self::shell(RUN, &[&[OsStr::new(signal), folder.as_os_str()], command].concat())
    }

    /// Runs a command at the end, and removes its folder.
    pub fn at_end(folder: &Path, command: &[&OsStr]) -> Self {
        Self::shell(AT_END, &[&[folder.as_os_str()], command].concat())
    }

    /// Ends the program as dropping does, but leaves its folder.
    pub fn end_and_keep(mut self) {
        if let Some(stdin) = &mut self.stdin {
            stdin.write_all(b"keep\n").unwrap();
        }
    }

    fn shell(script: &str, arguments: &[&OsStr]) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", script, "guard"])
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh is missing");
        let lines = Arc::new(Inbox::default());
        let (stdin, stdout) = (shell.stdin.take(), shell.stdout.take().unwrap());
        let inbox = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                inbox.push(String::from_utf8_lossy(&line).into_owned());
            }
            inbox.close();
        });
        Self { shell, stdin, lines }
    }

    /// Waits for a line with `text` and returns what follows it there.
    pub fn wait_for_line(&self, text: &str) -> String {
        self.lines.wait_until(&format!("a line with {text:?}"), |lines| after(lines, text))
    }

    /// The same, but nothing when the program ends without such a line.
    pub fn try_wait_for_line(&self, text: &str) -> Option<String> {
        self.lines.try_wait_until(|lines| after(lines, text)).ok()
    }
}

fn after(lines: &[String], text: &str) -> Option<String> {
    lines.iter().find_map(|line| line.split_once(text)).map(|(_, rest)| rest.to_owned())
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if let Err(error) = self.shell.wait() {
            eprintln!("wait for a guard: {error}");
        }
    }
}
