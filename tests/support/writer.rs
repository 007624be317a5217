//! Somebody who writes into a server all the time, one transaction after the other, and remembers when the
//! server said of each that it is committed.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use jiff::Timestamp;

use super::inbox::Inbox;
use super::postgres::Database;

/// A transaction that was committed.
#[derive(Debug, Clone, Copy)]
pub struct Committed {
    pub n: u64,
    /// When it began to be written, and when it was known to be there.
    pub began: Timestamp,
    pub at: Timestamp,
}

/// Writes rows into the table `ticks` until it is told to stop, or its server dies.
pub struct Writer {
    stop: Arc<AtomicBool>,
    committed: Arc<Inbox<Committed>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(database: &Database) -> Self {
        database.psql("CREATE TABLE IF NOT EXISTS ticks (n bigint PRIMARY KEY, filler text)");
        let next: u64 = database.psql("SELECT coalesce(max(n), 0) + 1 FROM ticks").parse().unwrap();
        let mut psql = database.client("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(Inbox::default()));
        let thread = std::thread::spawn({
            let (stop, committed) = (stop.clone(), committed.clone());
            move || {
                let mut child = psql.spawn().unwrap();
                let mut stdin = child.stdin.take().unwrap();
                let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
                for n in next.. {
                    let began = Timestamp::now();
                    let sql = format!(
                        "INSERT INTO ticks VALUES ({n}, repeat(md5('{n}'), 20)) RETURNING n;\n"
                    );
                    if stop.load(Ordering::Acquire)
                        || stdin.write_all(sql.as_bytes()).is_err()
                        || !matches!(said.next(), Some(Ok(line)) if line == n.to_string())
                    {
                        break;
                    }
                    committed.push(Committed { n, began, at: Timestamp::now() });
                }
                drop(stdin);
                child.wait().unwrap();
                committed.close();
            }
        });
        Self { stop, committed, thread: Some(thread) }
    }

    /// Waits until so many more are committed.
    pub fn goes_on(&self, more: usize) {
        let wanted = self.committed.all().len() + more;
        self.committed.wait_until("more transactions", |all| (all.len() >= wanted).then_some(()));
    }

    /// All that was committed, in order, once it has ended: it is told to, where its server lives.
    pub fn ended(mut self) -> Vec<Committed> {
        self.end();
        self.committed.all()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}
