//! gzip as members of 1 MiB, compressed in parallel by libdeflate and joined in order: any gunzip
//! reads them as one stream.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use libdeflater::{CompressionLvl, Compressor};

const BLOCK_BYTES: usize = 1 << 20;
/// More gain nothing: the dump itself feeds no more than two.
const MOST_WORKERS: usize = 4;
/// Blocks that each has on its hands: with one alone it would wait for the other threads between two.
const PENDING: usize = 2;

/// A thread that turns blocks into members.
struct Worker {
    blocks: SyncSender<Vec<u8>>,
    members: Receiver<io::Result<Vec<u8>>>,
}

pub(super) struct Gzip<W> {
    out: W,
    block: Vec<u8>,
    workers: Vec<Worker>,
    /// Blocks go round, and their members are collected in the same order.
    sent: usize,
    collected: usize,
}

impl<W: Write> Gzip<W> {
    /// `level` 1 to 12, as libdeflate counts.
    pub(super) fn new(out: W, level: i32) -> io::Result<Self> {
        let level = CompressionLvl::new(level)
            .map_err(|_| io::Error::other(format!("gzip has no level {level}")))?;
        let count = thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
        let workers = (0..count).map(|_| start(level)).collect::<io::Result<_>>()?;
        Ok(Self { out, block: Vec::with_capacity(BLOCK_BYTES), workers, sent: 0, collected: 0 })
    }

    fn send(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES));
        if self.sent - self.collected == self.workers.len() * PENDING {
            self.collect()?;
        }
        let turn = self.sent % self.workers.len();
        self.workers[turn].blocks.send(block).map_err(|_| broken())?;
        self.sent += 1;
        Ok(())
    }

    fn collect(&mut self) -> io::Result<()> {
        let turn = self.collected % self.workers.len();
        let member = self.workers[turn].members.recv().map_err(|_| broken())??;
        self.collected += 1;
        self.out.write_all(&member)
    }

    /// Writes what is left and gives the inner writer back. An empty stream is one empty member.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() || self.sent == 0 {
            self.send()?;
        }
        while self.collected < self.sent {
            self.collect()?;
        }
        Ok(self.out)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK_BYTES {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start(level: CompressionLvl) -> io::Result<Worker> {
    let (blocks, work) = sync_channel::<Vec<u8>>(PENDING);
    let (done, members) = sync_channel(PENDING);
    // Ends by itself when the writer is dropped and its channel closes.
    thread::Builder::new().name("gzip".into()).spawn(move || {
        let mut compressor = Compressor::new(level);
        for block in work {
            let mut member = vec![0; compressor.gzip_compress_bound(block.len())];
            let made = compressor.gzip_compress(&block, &mut member).map(|bytes| {
                member.truncate(bytes);
                member
            });
            if done.send(made.map_err(|error| io::Error::other(format!("{error:?}")))).is_err() {
                return;
            }
        }
    })?;
    Ok(Worker { blocks, members })
}

fn broken() -> io::Error {
    io::Error::other("a compressing thread broke")
}
