//! One pass over a stream: compress, encrypt and digest on the way out, the reverse on the way back.
//! Knows codecs, ciphers and digests; must not know what the bytes mean or where they go.

mod buffers;
mod decode;
mod encode;
mod gzip;
mod open;
mod openpgp;
mod seal;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::Digest;

use crate::model::Sha256;

pub use decode::{Decoded, Expected, Fed, decode, feed, weigh};
pub use encode::{Encoded, Encoding, LEVEL, Piece, encode};
pub use open::{Identities, generate};
pub use openpgp::key_ends;
pub use seal::Seal;

/// Counts bytes as they pass, for whoever shows progress.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    plain: AtomicU64,
    stored: AtomicU64,
}

impl Meter {
    /// Bytes before compression.
    pub fn plain(&self) -> u64 {
        self.0.plain.load(Ordering::Relaxed)
    }

    /// Bytes after compression.
    pub fn stored(&self) -> u64 {
        self.0.stored.load(Ordering::Relaxed)
    }

    fn add_plain(&self, bytes: usize) {
        self.0.plain.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn add_stored(&self, bytes: usize) {
        self.0.stored.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A digest under way, with its count.
#[derive(Clone, Default)]
struct Digester {
    hasher: sha2::Sha256,
    bytes: u64,
}

impl Digester {
    fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn finish(self) -> (u64, Sha256) {
        (self.bytes, Sha256(self.hasher.finalize().into()))
    }
}

/// The digest of a small whole.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    let mut digester = Digester::default();
    digester.update(bytes);
    digester.finish().1
}
