//! An archive on its way into a file, tables of which are read while others are still to come. Knows which of them
//! are here, and which are so large that nobody should wait for their end; must not know how they are loaded.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::blocks::Taker;
use super::frozen;
use super::head::Contents;

/// A table of so many bytes is worth a session of its own; and so are smaller ones together.
const LARGE_BYTES: u64 = 32 << 20;
const COPY_BYTES: usize = 256 << 10;

/// Tables that lie one behind the other in the file: small ones that are all here, or a large one that may not be
/// at its end yet.
pub(super) struct Batch {
    /// The entries that are their rows.
    pub rows: Vec<i64>,
    pub is_large: bool,
    start: u64,
    end: Arc<OnceLock<u64>>,
}

/// How far it has come.
pub(super) struct Arrival {
    path: PathBuf,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    head: Arc<[u8]>,
    /// Bytes that are in the file.
    here: u64,
    /// Why there are not more.
    broke: Option<io::Error>,
    is_whole: bool,
    /// Nobody writes any more.
    is_over: bool,
    /// Nobody wants it any more.
    is_refused: bool,
}

/// Makes the file. The first takes the archive, the second tells what may be loaded of it.
pub(super) fn begin(path: &Path) -> io::Result<(Spool, Arc<Arrival>, UnboundedReceiver<Batch>)> {
    let file = File::create(path)?;
    let (batches, batch) = unbounded_channel();
    let arrival = Arrival { path: path.to_owned(), state: Mutex::default(), moved: Condvar::new() };
    let arrival = Arc::new(arrival);
    let spool = Spool {
        file,
        arrival: arrival.clone(),
        batches,
        own: HashSet::new(),
        here: 0,
        gathered: (Vec::new(), 0),
        table: None,
        large: None,
    };
    Ok((spool, arrival, batch))
}

impl Arrival {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its head, which is here before any batch is.
    pub(super) fn head(&self) -> Arc<[u8]> {
        self.state().head.clone()
    }

    /// Whether all of it has come.
    pub(super) fn is_whole(&self) -> bool {
        self.state().is_whole
    }

    /// What its writer met, once: all that others say comes of that.
    pub(super) fn broke(&self) -> Option<io::Error> {
        self.state().broke.take()
    }

    /// Lets its writer fail, and all who read it.
    pub(super) fn refuse(&self) {
        self.state().is_refused = true;
        self.moved.notify_all();
    }

    /// Copies a batch, up to its end, which it waits for. Blocks.
    pub(super) fn copy(&self, batch: &Batch, into: &File) -> io::Result<()> {
        let file = File::open(&self.path)?;
        let mut at = batch.start;
        while let Some(to) = self.beyond(at, batch)? {
            let most = usize::try_from(to - at).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
            match hand_over(&file, at, into, most)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => at += count as u64,
            }
        }
        Ok(())
    }

    /// How far a batch may be read; None: its end is where the reader is.
    fn beyond(&self, at: u64, batch: &Batch) -> io::Result<Option<u64>> {
        let mut state = self.state();
        loop {
            let end = batch.end.get().copied();
            match end.unwrap_or(state.here) {
                _ if state.is_refused => return Err(io::ErrorKind::Interrupted.into()),
                to if to > at => return Ok(Some(to)),
                _ if end.is_some() => return Ok(None),
                _ if state.is_over => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Gives a pipe some of a file, which need not come out of the page cache for that where both are able to.
fn hand_over(file: &File, at: u64, mut into: &File, most: usize) -> io::Result<usize> {
    match splice(file, Some(&mut at.clone()), into, None, most, SpliceFlags::empty()) {
        Err(Errno::INVAL) => {
            let mut buffer = vec![0; most];
            let count = file.read_at(&mut buffer, at)?;
            into.write_all(&buffer[..count])?;
            Ok(count)
        }
        moved => Ok(moved?),
    }
}

/// Writes the file, and says what is in it. Only with `flush` it is whole.
pub(super) struct Spool {
    file: File,
    arrival: Arc<Arrival>,
    batches: UnboundedSender<Batch>,
    own: HashSet<i64>,
    here: u64,
    /// Small tables, and where the first of them begins.
    gathered: (Vec<i64>, u64),
    /// The rows that are coming, and where they began.
    table: Option<(i64, u64)>,
    /// Where the end of a large table will be written down.
    large: Option<Arc<OnceLock<u64>>>,
}

impl Spool {
    /// Those that are gathered end here. Too few are better loaded with all that is left.
    fn announce(&mut self, end: u64) {
        let (rows, start) = mem::take(&mut self.gathered);
        if !rows.is_empty() && end - start >= LARGE_BYTES {
            self.send(Batch { rows, is_large: false, start, end: Arc::new(end.into()) });
        }
    }

    fn send(&self, batch: Batch) {
        // Where loading has failed nobody listens.
        self.batches.send(batch).ok();
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes);
        let mut state = self.arrival.state();
        let count = match written {
            Ok(count) => count,
            Err(error) => {
                let kind = error.kind();
                state.broke = Some(error);
                return Err(kind.into());
            }
        };
        self.here += count as u64;
        state.here = self.here;
        let is_refused = state.is_refused;
        drop(state);
        self.arrival.moved.notify_all();
        if is_refused {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if let Some((id, start)) = self.table
            && self.large.is_none()
            && self.here - start >= LARGE_BYTES
        {
            self.announce(start);
            let end = Arc::<OnceLock<_>>::default();
            self.large = Some(end.clone());
            self.send(Batch { rows: vec![id], is_large: true, start, end });
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.arrival.state().is_whole = true;
        Ok(())
    }
}

impl Taker for Spool {
    fn head(&mut self, head: &[u8], contents: &Contents<'_>) -> io::Result<()> {
        self.own = frozen::own_rows(contents);
        self.arrival.state().head = head.into();
        self.write_all(head)
    }

    fn begins(&mut self, id: i64) {
        // The byte that says what comes is written.
        let start = self.here - 1;
        if !self.own.contains(&id) {
            return self.announce(start);
        }
        self.table = Some((id, start));
        if self.gathered.0.is_empty() {
            self.gathered.1 = start;
        }
    }

    fn ended(&mut self) {
        let Some((id, _)) = self.table.take() else { return };
        if let Some(end) = self.large.take() {
            let state = self.arrival.state();
            end.set(self.here).ok();
            drop(state);
            return self.arrival.moved.notify_all();
        }
        self.gathered.0.push(id);
        if self.here - self.gathered.1 >= LARGE_BYTES {
            self.announce(self.here);
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.arrival.state().is_over = true;
        self.arrival.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: usize = 1 << 20;
    const MIDDLE: usize = 20 << 20;
    const LARGE: usize = 33 << 20;
    /// A large table that is not the archive's own.
    const OTHERS: usize = 34 << 20;

    /// Its head, and the rows that are the archive's own.
    fn begin_with(spool: &mut Spool, own: HashSet<i64>) {
        spool.write_all(b"head").unwrap();
        spool.own = own;
    }

    /// Writes tables of these sizes.
    fn written(sizes: &[usize]) -> (tempfile::TempDir, Spool, Arc<Arrival>, Vec<Batch>) {
        let place = tempfile::tempdir().unwrap();
        let (mut spool, arrival, mut batches) = begin(&place.path().join("archive")).unwrap();
        let own = (1..).zip(sizes).filter(|(_, size)| **size != OTHERS);
        begin_with(&mut spool, own.map(|(id, _)| i64::from(id)).collect());
        for (id, size) in (1..).zip(sizes) {
            spool.write_all(&[1]).unwrap();
            spool.begins(i64::from(id));
            vec![id; *size].chunks(1 << 20).for_each(|part| spool.write_all(part).unwrap());
            spool.ended();
        }
        spool.flush().unwrap();
        let all = std::iter::from_fn(|| batches.try_recv().ok()).collect();
        (place, spool, arrival, all)
    }

    fn copied(arrival: &Arrival, batch: &Batch) -> io::Result<Vec<u8>> {
        let (mut from, into) = io::pipe()?;
        let into = File::from(std::os::fd::OwnedFd::from(into));
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            io::Read::read_to_end(&mut from, &mut all).map(|_| all)
        });
        arrival.copy(batch, &into)?;
        drop(into);
        reading.join().unwrap()
    }

    #[test]
    fn a_few_small_tables_are_no_batch() {
        let (_place, _spool, arrival, batches) = written(&[SMALL, SMALL, 0]);
        assert_eq!(batches.len(), 0);
        assert!(arrival.is_whole());
    }

    #[test]
    fn a_large_table_is_one_and_small_ones_are_one_together() {
        let (_place, _spool, arrival, batches) =
            written(&[MIDDLE, LARGE, MIDDLE, MIDDLE, SMALL, LARGE, OTHERS, LARGE, 9]);
        let rows: Vec<_> = batches.iter().map(|batch| (&batch.rows[..], batch.is_large)).collect();
        assert_eq!(rows, [(&[2][..], true), (&[3, 4], false), (&[6], true), (&[8], true)]);
        let expected = |id: u8, size| [vec![1], vec![id; size]].concat();
        assert!(copied(&arrival, &batches[0]).unwrap() == expected(2, LARGE));
        let two = [expected(3, MIDDLE), expected(4, MIDDLE)].concat();
        assert!(copied(&arrival, &batches[1]).unwrap() == two);
        assert!(copied(&arrival, &batches[3]).unwrap() == expected(8, LARGE));
        // What is no pipe, or can't be spliced, takes it too.
        let mut file = tempfile::tempfile().unwrap();
        arrival.copy(&batches[1], &file).unwrap();
        let mut all = Vec::new();
        io::Seek::rewind(&mut file).unwrap();
        io::Read::read_to_end(&mut file, &mut all).unwrap();
        assert!(all == two);
    }

    #[test]
    fn whoever_reads_waits_for_the_end_and_hears_when_there_is_none() {
        let place = tempfile::tempdir().unwrap();
        for is_broken in [false, true] {
            let (mut spool, arrival, mut batches) = begin(&place.path().join("archive")).unwrap();
            begin_with(&mut spool, [1].into());
            spool.write_all(&[1]).unwrap();
            spool.begins(1);
            spool.write_all(&vec![7; LARGE]).unwrap();
            let batch = batches.try_recv().unwrap();
            let reading = std::thread::spawn({
                let arrival = arrival.clone();
                move || copied(&arrival, &batch)
            });
            if !is_broken {
                spool.write_all(&[8, 9]).unwrap();
                spool.ended();
                spool.write_all(&[5; 100]).unwrap();
            }
            drop(spool);
            let read = reading.join().unwrap();
            match is_broken {
                true => assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof),
                false => assert_eq!(read.unwrap()[LARGE..], [7, 8, 9]),
            }
            assert!(!arrival.is_whole(), "nobody has said so");
        }
    }

    #[test]
    fn a_full_disk_is_said() {
        let (mut spool, arrival, _batches) = begin(Path::new("/dev/full")).unwrap();
        assert!(spool.write_all(b"more").is_err());
        assert_eq!(arrival.broke().unwrap().kind(), io::ErrorKind::StorageFull);
        assert!(!arrival.is_whole());
    }

    #[test]
    fn what_nobody_wants_is_not_written_on() {
        let place = tempfile::tempdir().unwrap();
        let (mut spool, arrival, _batches) = begin(&place.path().join("archive")).unwrap();
        begin_with(&mut spool, HashSet::new());
        arrival.refuse();
        assert!(spool.write_all(b"more").is_err());
    }
}
