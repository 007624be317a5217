//! A few buffers that go round between two threads: one fills them, the other empties them and sends them back.
//! Must not know what is in them.

use std::sync::mpsc::Receiver;

/// The side of the thread that fills them.
pub(super) struct Buffers {
    emptied: Receiver<Vec<u8>>,
    left_to_make: usize,
}

impl Buffers {
    /// No more than `most` are ever made.
    pub(super) fn new(emptied: Receiver<Vec<u8>>, most: usize) -> Self {
        Self { emptied, left_to_make: most }
    }

    /// One of `bytes` to be filled, which may be waited for; None: the other thread is gone.
    pub(super) fn next(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let mut buffer = match self.emptied.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if self.left_to_make > 0 => {
                self.left_to_make -= 1;
                Vec::new()
            }
            Err(_) => self.emptied.recv().ok()?,
        };
        buffer.resize(bytes, 0);
        Some(buffer)
    }
}
