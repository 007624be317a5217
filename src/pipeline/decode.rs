//! The way back: pieces in, plain bytes out, both digested. What is read may be hostile: it is
//! bounded by what the manifest promised.

use std::io::{self, BufReader, Read, Write};
use std::sync::mpsc::{self, SyncSender, sync_channel};
use std::thread;

use bytes::{Buf, Bytes};
use flate2::read::MultiGzDecoder;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::buffers::Buffers;
use super::{Digester, Identities, Meter};
use crate::fault::{Context, Fault, Result};
use crate::model::{Cipher, Compression, Sha256};

const COPY_BYTES: usize = 256 << 10;
/// Buffers between the thread that makes plain bytes and the one that writes them.
const BUFFERS: usize = 4;
/// Pieces on their way from the destination to the decoder.
const PIECES: usize = 8;

/// What the manifest says of the stream.
#[derive(Debug, Clone)]
pub struct Expected {
    pub compression: Compression,
    /// More than this is not written.
    pub plain_bytes: u64,
    /// How it is encrypted.
    pub cipher: Option<Cipher>,
    /// What opens it, if it is.
    pub identities: Identities,
}

/// What was in fact read and written.
#[derive(Debug)]
pub struct Decoded {
    pub stored_bytes: u64,
    pub stored_sha256: Sha256,
    pub plain_bytes: u64,
    pub plain_sha256: Sha256,
    /// The writer took no more; its owner knows why. Digests are of no use then.
    pub writer_broke: Option<io::Error>,
}

/// A blocking reader's side of an asynchronous stream of pieces.
pub struct Fed {
    pieces: Receiver<Result<Bytes>>,
    rest: Bytes,
    digester: Digester,
    fault: Option<Fault>,
}

/// Connects a stream to a blocking reader. The returned future must be driven beside it.
pub fn feed<S>(stream: S) -> (impl Future<Output = ()>, Fed)
where
    S: Stream<Item = Result<Bytes>> + Send + Unpin,
{
    let (sender, pieces) = channel(PIECES);
    (drive(stream, sender), Fed::new(pieces))
}

async fn drive<S>(mut stream: S, sender: Sender<Result<Bytes>>)
where
    S: Stream<Item = Result<Bytes>> + Unpin,
{
    while let Some(piece) = stream.next().await {
        if sender.send(piece).await.is_err() {
            return;
        }
    }
}

impl Fed {
    fn new(pieces: Receiver<Result<Bytes>>) -> Self {
        Self { pieces, rest: Bytes::new(), digester: Digester::default(), fault: None }
    }

    #[cfg(test)]
    pub fn from_chunks(chunks: impl Iterator<Item = Bytes>) -> Self {
        let chunks: Vec<_> = chunks.collect();
        let (sender, pieces) = channel(chunks.len().max(1));
        for chunk in chunks {
            sender.try_send(Ok(chunk)).unwrap();
        }
        Self::new(pieces)
    }
}

impl Read for Fed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(Ok(piece)) => {
                    self.digester.update(&piece);
                    self.rest = piece;
                }
                Some(Err(fault)) => {
                    self.fault = Some(fault);
                    return Err(io::Error::other("the destination broke off"));
                }
            }
        }
        let count = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Reads everything, blocking, and writes the plain bytes. A writer that breaks is reported in the
/// result, for its owner knows better why; a stream that is no such stream is an error.
pub fn decode(
    mut fed: Fed,
    expected: &Expected,
    writer: &mut (dyn Write + Send),
    meter: &Meter,
) -> Result<Decoded> {
    let mut plain = Digester::default();
    let copied = match expected.cipher {
        None => decompress(&mut fed, expected, writer, &mut plain, meter).context("decompress"),
        Some(cipher) => expected.identities.open(cipher, &mut fed).and_then(|mut opened| {
            let broke = decompress(&mut opened, expected, writer, &mut plain, meter);
            // At its end a cipher says whether all of it was as it was written.
            let ended = broke.and_then(|broke| match broke {
                None => io::copy(&mut opened, &mut io::sink()).map(|_| None),
                broke => Ok(broke),
            });
            ended.context("decrypt and decompress")
        }),
    };
    if let Some(fault) = fed.fault.take() {
        return Err(fault);
    }
    let writer_broke = copied?;
    if writer_broke.is_none() {
        // Whatever lies behind the end is part of what is stored, and of its digest.
        io::copy(&mut fed, &mut io::sink()).ok();
        if let Some(fault) = fed.fault.take() {
            return Err(fault);
        }
    }
    let (stored_bytes, stored_sha256) = fed.digester.finish();
    let (plain_bytes, plain_sha256) = plain.finish();
    Ok(Decoded { stored_bytes, stored_sha256, plain_bytes, plain_sha256, writer_broke })
}

/// Reads everything, blocking, without looking inside: its size in bytes, and its digest.
pub fn weigh(mut fed: Fed, meter: &Meter) -> Result<(u64, Sha256)> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match fed.read(&mut buffer) {
            Ok(0) => return Ok(fed.digester.finish()),
            Ok(count) => meter.add_plain(count),
            Err(error) => {
                let unknown = || Fault::transient("read what is stored").cause(error);
                return Err(fed.fault.take().unwrap_or_else(unknown));
            }
        }
    }
}

fn decompress(
    mut stream: &mut dyn Read,
    expected: &Expected,
    writer: &mut (dyn Write + Send),
    plain: &mut Digester,
    meter: &Meter,
) -> io::Result<Option<io::Error>> {
    match expected.compression {
        Compression::Zstd => {
            copy(&mut zstd::Decoder::new(&mut stream)?, expected, writer, plain, meter)
        }
        Compression::Gzip => {
            let buffered = BufReader::with_capacity(COPY_BYTES, &mut stream);
            copy(&mut MultiGzDecoder::new(buffered), expected, writer, plain, meter)
        }
        Compression::None => copy(&mut stream, expected, writer, plain, meter),
    }
}

/// One thread makes the plain bytes, another digests and writes them.
fn copy(
    reader: &mut dyn Read,
    expected: &Expected,
    writer: &mut (dyn Write + Send),
    plain: &mut Digester,
    meter: &Meter,
) -> io::Result<Option<io::Error>> {
    let (full, filled) = sync_channel(BUFFERS);
    let (empty, emptied) = sync_channel(BUFFERS);
    let (made, broke) = thread::scope(|scope| {
        let (out, plain) = (&mut *writer, &mut *plain);
        let writing = scope.spawn(move || write(out, &filled, &empty, plain, meter));
        let made = make(reader, expected.plain_bytes, &full, emptied);
        drop(full);
        (made, writing.join())
    });
    made?;
    match broke {
        Ok(None) => Ok(writer.flush().err()),
        Ok(broke) => Ok(broke),
        Err(_) => Err(io::Error::other("the writing thread broke")),
    }
}

/// Reads to the end, or until nobody takes it any more.
fn make(
    reader: &mut dyn Read,
    most: u64,
    full: &SyncSender<Vec<u8>>,
    emptied: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let mut buffers = Buffers::new(emptied, BUFFERS);
    let mut bytes = 0;
    loop {
        let Some(mut buffer) = buffers.next(COPY_BYTES) else { return Ok(()) };
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        bytes += count as u64;
        if bytes > most {
            return Err(io::Error::other("it holds more than the manifest says"));
        }
        buffer.truncate(count);
        if full.send(buffer).is_err() {
            return Ok(());
        }
    }
}

/// Writes what is made, until there is no more or the writer breaks.
fn write(
    writer: &mut dyn Write,
    filled: &mpsc::Receiver<Vec<u8>>,
    empty: &SyncSender<Vec<u8>>,
    plain: &mut Digester,
    meter: &Meter,
) -> Option<io::Error> {
    for buffer in filled {
        plain.update(&buffer);
        meter.add_plain(buffer.len());
        if let Err(error) = writer.write_all(&buffer) {
            return Some(error);
        }
        // The other thread may be at its end already: then nobody needs the buffer.
        empty.try_send(buffer).ok();
    }
    None
}
