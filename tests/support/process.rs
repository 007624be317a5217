//! Who is running, from `/proc`, and waiting for an end through a pidfd.

use std::fs;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::DEADLINE;

/// A process, told from a later one with the same pid by its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub name: String,
    pub command: String,
    start: u64,
    state: char,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything, also spaces and parentheses.
        let (head, tail) = stat.rsplit_once(") ")?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split(' ').collect();
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            name,
            command: String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned(),
            start: fields.get(19)?.parse().ok()?,
            state: fields.first()?.chars().next()?,
        })
    }

    /// Whether it still runs; one that only waits to be reaped does not.
    pub fn is_alive(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.start == self.start && now.state != 'Z')
    }

    /// Waits for its end; panics at the deadline.
    pub fn wait_gone(&self) {
        if self.is_alive() {
            assert!(wait_end(self.pid, DEADLINE), "still there: {self:?}");
        }
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }
}

/// Every process that runs now.
pub fn all() -> Vec<Process> {
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).filter(|process| process.state != 'Z').collect()
}

/// Children of `pid`, their children, and so on.
pub fn descendants(pid: i32) -> Vec<Process> {
    let everyone = all();
    let mut family = vec![pid];
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        for process in everyone.iter().filter(|process| process.parent == parent) {
            family.push(process.pid);
            found.push(process.clone());
        }
        next += 1;
    }
    found
}

/// Those among the descendants of `pid` with this name, such as `pg_dump`.
pub fn children_named(pid: i32, name: &str) -> Vec<Process> {
    descendants(pid).into_iter().filter(|process| process.name == name).collect()
}

/// Whoever has `text` in its command line, environment or working folder, wherever it was adopted;
/// but not this process, nor a PostgreSQL server's own. To be asked with a name that is unique, such as a
/// database's.
pub fn mentioning(text: &str) -> Vec<Process> {
    let me = i32::try_from(std::process::id()).unwrap();
    let mentions = |process: &Process| {
        let pid = process.pid;
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        process.command.contains(text)
            || String::from_utf8_lossy(&environment).contains(text)
            || folder.to_string_lossy().contains(text)
    };
    all()
        .into_iter()
        .filter(|process| process.pid != me && process.name != "postgres" && mentions(process))
        .collect()
}

/// Sends a signal by pid; one that is gone already is fine.
pub fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => panic!("signal {pid:?}: {error}"),
        }
    }
}

/// Waits until the process has ended (a child of ours may then be reaped); false at the deadline.
pub fn wait_end(pid: i32, deadline: Duration) -> bool {
    let Some(raw) = Pid::from_raw(pid) else { return true };
    let handle = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return true,
        Err(error) => panic!("watch process {pid}: {error}"),
    };
    // A pidfd is readable once its process has ended.
    let mut watched = [PollFd::new(&handle, PollFlags::IN)];
    poll(&mut watched, Some(&deadline.try_into().unwrap())).unwrap() > 0
}
