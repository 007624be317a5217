//! The dump's own stream, watched as it passes: when its snapshot has begun, and without the line
//! that only new clients can read.

use std::io::{self, Read};

use tokio::sync::oneshot;

/// MariaDB's dumps begin so since 2024; MySQL's client and older ones of MariaDB stop at it.
const SANDBOX: &[u8] = b"/*M!999999\\- enable the sandbox mode */";
/// Written by the client after it has begun its transaction, and never in the head before.
const SIGNS: [&[u8]; 2] = [b" structure for ", b"\n-- Dumping "];
/// What is kept of the bytes before, for a sign that lies across two reads.
const KEPT: usize = 32;

/// Reads a dump and tells once when it has begun.
pub(super) struct Watched<R> {
    inner: R,
    /// The first bytes, until it is known whether the line is there.
    head: Option<Vec<u8>>,
    /// Read, and not handed on yet.
    ready: io::Cursor<Vec<u8>>,
    tail: Vec<u8>,
    begun: Option<oneshot::Sender<()>>,
}

impl<R: Read> Watched<R> {
    pub(super) fn new(inner: R) -> (Self, oneshot::Receiver<()>) {
        let (begun, told) = oneshot::channel();
        let watched = Self {
            inner,
            head: Some(Vec::new()),
            ready: io::Cursor::default(),
            tail: Vec::new(),
            begun: Some(begun),
        };
        (watched, told)
    }

    fn look(&mut self, bytes: &[u8]) {
        if self.begun.is_none() {
            return;
        }
        self.tail.extend_from_slice(bytes);
        let seen = SIGNS.iter().any(|sign| self.tail.windows(sign.len()).any(|w| w == *sign));
        if seen {
            // Nobody listens any more where the wait was given up.
            self.begun.take().map(|begun| begun.send(()).ok());
            self.tail = Vec::new();
        } else {
            self.tail.drain(..self.tail.len().saturating_sub(KEPT));
        }
    }

    /// Reads the first line and drops it when it is the one.
    fn open_head(&mut self, mut head: Vec<u8>) -> io::Result<()> {
        let mut buffer = [0; 4096];
        while head.len() <= SANDBOX.len() || head.starts_with(SANDBOX) && !head.contains(&b'\n') {
            let read = self.inner.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            head.extend_from_slice(&buffer[..read]);
        }
        if head.starts_with(SANDBOX) {
            let line = head.iter().position(|byte| *byte == b'\n').map_or(head.len(), |at| at + 1);
            head.drain(..line);
        }
        self.look(&head.clone());
        self.ready = io::Cursor::new(head);
        Ok(())
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(head) = self.head.take() {
            self.open_head(head)?;
        }
        let read = self.ready.read(buffer)?;
        if read > 0 {
            return Ok(read);
        }
        let read = self.inner.read(buffer)?;
        if read == 0 {
            self.begun = None;
        }
        self.look(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes at a time.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn the_line_is_dropped_and_the_sign_is_seen_however_the_bytes_come() {
        let dump =
            "-- MariaDB dump\n--\n-- Server\nSET 1;\n\n--\n-- Table structure for table `a`\n";
        let with = format!("{}\u{20}\n{dump}", std::str::from_utf8(SANDBOX).unwrap());
        for text in [dump, with.as_str()] {
            for size in [1, 7, 4096] {
                let (mut watched, mut begun) = Watched::new(Drops(text.as_bytes(), size));
                let mut read = String::new();
                watched.read_to_string(&mut read).unwrap();
                assert_eq!(read, dump);
                assert!(begun.try_recv().is_ok(), "{size}");
            }
        }
        let (mut watched, mut begun) = Watched::new(Drops(b"-- MariaDB dump\n", 3));
        watched.read_to_end(&mut Vec::new()).unwrap();
        assert!(begun.try_recv().is_err(), "it ended before it began");
    }
}
