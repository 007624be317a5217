//! Reader in, pieces out: compressed, cut into volumes, digested, in constant memory.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::buffers::Buffers;
use super::gzip::Gzip;
use super::seal::{Seal, Sealed};
use super::{Digester, Meter};
use crate::fault::{Context, Fault, Result};
use crate::model::artifact::volume_name;
use crate::model::{Compression, Sha256, Volume};

/// What is read at once, and what is sent on at once: large enough that switching threads costs
/// nothing, small enough that a dozen of them do not count.
const READ_BYTES: usize = 256 << 10;
const PIECE_BYTES: usize = 1 << 20;
/// A read that brings less than this came too early; the pause lets some 150 KiB of a fast dump
/// gather.
const WORTH_WAKING: usize = 128 << 10;
const PAUSE: Duration = Duration::from_micros(600);
/// One that brings less than this, of a stream that is slow, may wait twice as long: half of the smallest pipe that
/// Linux makes by itself.
const LITTLE: usize = 32 << 10;
/// Up to this zstd level one thread is faster than any dump, and more of them only get in its way:
/// 4.35 s against 4.12 s for a gigabyte on two cores, and 12 MiB more memory.
const ONE_THREAD_KEEPS_UP: i32 = 2;
/// Above it, zstd's own; each holds some 5 MiB.
const ZSTD_WORKERS: u32 = 2;
/// The fastest of both codecs. zstd's stays ahead of a dump on one thread. libdeflate's makes 106.5 MB of a dump
/// of 821 MB, where `gzip -6` makes 105.1 in five times the time, and 118 MB of 321 MB of text and programs, which
/// are 113; level 4 makes 103 and 114 in a quarter of that time.
pub const LEVEL: i32 = 1;
/// Buffers between the reading thread and the compressing one.
const BUFFERS: usize = 8;

/// How a stream is to be stored.
#[derive(Debug, Clone)]
pub struct Encoding {
    pub compression: Compression,
    /// The codec's own scale; `None`: the fastest.
    pub level: Option<i32>,
    /// Where a volume ends, in bytes.
    pub volume_bytes: u64,
    /// To whom it is encrypted, once compressed. None: everybody can read it.
    pub seal: Option<Seal>,
}

impl Encoding {
    /// Whether what is stored is what was read, byte by byte.
    fn changes_nothing(&self) -> bool {
        self.compression == Compression::None && self.seal.is_none()
    }

    fn doing(&self) -> &'static str {
        if self.seal.is_some() { "compress and encrypt" } else { "compress" }
    }
}

/// What goes to the destinations, in order.
#[derive(Debug, Clone)]
pub enum Piece {
    Data(Bytes),
    /// The next data belongs to the next volume.
    NextVolume,
}

/// What was read and what was made of it.
#[derive(Debug)]
pub struct Encoded {
    pub plain_bytes: u64,
    pub plain_sha256: Sha256,
    pub stored_bytes: u64,
    pub stored_sha256: Sha256,
    pub volumes: Vec<Volume>,
}

/// Reads to the end, blocking. Nothing is sent after an error; the receiver sees the channel close,
/// and must not take that for an end: only the returned [`Encoded`] says so.
pub fn encode(
    reader: Box<dyn Read + Send>,
    name: &str,
    encoding: &Encoding,
    out: Sender<Piece>,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<Encoded> {
    let (full, filled) = sync_channel(BUFFERS);
    let (empty, emptied) = sync_channel(BUFFERS);
    thread::scope(|scope| {
        let plain = (!encoding.changes_nothing()).then(Digester::default);
        let reading = scope.spawn(move || read(reader, plain, full, emptied, meter, cancel));
        let cutter = Cutter::new(name, encoding.volume_bytes, out, meter);
        let cutter = Sealed::new(encoding.seal.as_ref(), cutter)
            .and_then(|sealed| compress(encoding, sealed, &filled, &empty))
            .and_then(Sealed::finish)
            .and_then(Cutter::end);
        // Ends a reader that waits for a buffer.
        drop((filled, empty));
        let read = join(reading);
        // What went wrong first explains the other.
        let cutter = match (cutter, &read) {
            (Err(error), Ok(_)) => return Err(error).transient(encoding.doing()),
            (Err(_), Err(_)) => None,
            (Ok(cutter), _) => Some(cutter),
        };
        let plain = read?;
        let cutter = cutter.ok_or_else(|| Fault::transient(encoding.doing()))?;
        let (stored_bytes, stored_sha256) = cutter.whole.unwrap_or_default().finish();
        let (plain_bytes, plain_sha256) =
            plain.map_or((stored_bytes, stored_sha256), Digester::finish);
        Ok(Encoded {
            plain_bytes,
            plain_sha256,
            stored_bytes,
            stored_sha256,
            volumes: cutter.volumes,
        })
    })
}

/// The digest of what was read; None: that of what is stored is the same.
type Plain = Option<Digester>;

fn join(thread: ScopedJoinHandle<'_, Result<Plain>>) -> Result<Plain> {
    thread.join().unwrap_or_else(|_| Err(Fault::permanent("the reading thread broke")))
}

fn read(
    mut reader: Box<dyn Read + Send>,
    mut plain: Plain,
    full: SyncSender<Vec<u8>>,
    emptied: Receiver<Vec<u8>>,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<Plain> {
    let mut buffers = Buffers::new(emptied, BUFFERS);
    loop {
        if cancel.is_cancelled() {
            return Err(Fault::cancelled("the run was stopped"));
        }
        let Some(mut buffer) = buffers.next(READ_BYTES) else { return Ok(plain) };
        let count = fill(reader.as_mut(), &mut buffer).transient("read the source's stream")?;
        if count == 0 {
            return Ok(plain);
        }
        buffer.truncate(count);
        if let Some(digester) = &mut plain {
            digester.update(&buffer);
        }
        meter.add_plain(count);
        if full.send(buffer).is_err() {
            return Ok(plain);
        }
    }
}

/// Reads until the buffer is full or the stream ends: pg_dump writes 8 KiB at a time, and to wake a
/// thread for each costs more than to compress it. So the pipe is left to fill a little first, which
/// saves an eighth of the CPU time.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                if count < WORTH_WAKING && filled < buffer.len() {
                    thread::sleep(if count < LITTLE { 2 * PAUSE } else { PAUSE });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn compress<W: Write>(
    encoding: &Encoding,
    mut out: W,
    filled: &Receiver<Vec<u8>>,
    empty: &SyncSender<Vec<u8>>,
) -> io::Result<W> {
    let copy = |writer: &mut dyn Write| {
        for buffer in filled {
            writer.write_all(&buffer)?;
            // The reader may be gone already: then nobody needs the buffer.
            empty.try_send(buffer).ok();
        }
        Ok::<_, io::Error>(())
    };
    match encoding.compression {
        Compression::Zstd => {
            let level = encoding.level.unwrap_or(LEVEL);
            let mut encoder = zstd::Encoder::new(out, level)?;
            encoder.include_checksum(true)?;
            if level > ONE_THREAD_KEEPS_UP {
                encoder.multithread(ZSTD_WORKERS)?;
            }
            copy(&mut encoder)?;
            encoder.finish()
        }
        Compression::Gzip => {
            let mut encoder = Gzip::new(out, encoding.level.unwrap_or(LEVEL))?;
            copy(&mut encoder)?;
            encoder.finish()
        }
        Compression::None => {
            copy(&mut out)?;
            Ok(out)
        }
    }
}

/// Cuts the stored stream into pieces and volumes, and digests both volume and whole.
struct Cutter {
    name: String,
    volume_bytes: u64,
    out: Sender<Piece>,
    meter: Meter,
    piece: BytesMut,
    /// As long as there is one volume only, that is all there is.
    whole: Option<Digester>,
    volume: Digester,
    volumes: Vec<Volume>,
}

impl Cutter {
    fn new(name: &str, volume_bytes: u64, out: Sender<Piece>, meter: &Meter) -> Self {
        Self {
            name: name.to_owned(),
            volume_bytes: volume_bytes.max(1),
            out,
            meter: meter.clone(),
            piece: BytesMut::with_capacity(PIECE_BYTES),
            whole: None,
            volume: Digester::default(),
            volumes: Vec::new(),
        }
    }

    fn send(&mut self, piece: Piece) -> io::Result<()> {
        self.out.blocking_send(piece).map_err(|_| io::Error::other("no destination is left"))
    }

    fn send_data(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let data =
            std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE_BYTES)).freeze();
        if let Some(whole) = &mut self.whole {
            whole.update(&data);
        }
        self.volume.update(&data);
        self.meter.add_stored(data.len());
        self.send(Piece::Data(data))
    }

    fn end_volume(&mut self) -> io::Result<()> {
        self.send_data()?;
        let volume = std::mem::take(&mut self.volume);
        self.whole.get_or_insert_with(|| volume.clone());
        let (bytes, sha256) = volume.finish();
        let name = volume_name(&self.name, self.volumes.len());
        self.volumes.push(Volume { name, bytes, sha256 });
        Ok(())
    }

    fn end(mut self) -> io::Result<Self> {
        self.end_volume()?;
        Ok(self)
    }

    fn room(&self) -> usize {
        let volume = self.volume_bytes - self.volume.bytes - self.piece.len() as u64;
        let piece = PIECE_BYTES - self.piece.len();
        usize::try_from(volume).unwrap_or(usize::MAX).min(piece)
    }
}

impl Write for Cutter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.volume.bytes + self.piece.len() as u64 == self.volume_bytes {
            self.end_volume()?;
            self.send(Piece::NextVolume)?;
        }
        let count = self.room().min(bytes.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE_BYTES {
            self.send_data()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Expected, Fed, Identities, decode, sha256};

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1_u32;
        (0..bytes)
            .map(|n| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Half of it compresses.
                if n % 64 < 32 { b'a' } else { (state >> 24) as u8 }
            })
            .collect()
    }

    fn run(
        plain: &[u8],
        compression: Compression,
        level: Option<i32>,
        volume_bytes: u64,
    ) -> (Encoded, Vec<Vec<u8>>) {
        let (out, mut pieces) = tokio::sync::mpsc::channel(2);
        let encoding = Encoding { compression, level, volume_bytes, seal: None };
        let reader = Box::new(io::Cursor::new(plain.to_vec()));
        let collect = thread::spawn(move || {
            let mut volumes = vec![Vec::new()];
            while let Some(piece) = pieces.blocking_recv() {
                match piece {
                    Piece::Data(data) => volumes.last_mut().unwrap().extend_from_slice(&data),
                    Piece::NextVolume => volumes.push(Vec::new()),
                }
            }
            volumes
        });
        let encoded =
            encode(reader, "a", &encoding, out, &Meter::default(), &CancellationToken::new())
                .unwrap();
        (encoded, collect.join().unwrap())
    }

    #[test]
    fn what_goes_out_comes_back_in_every_codec_and_volume_size() {
        let codecs = [
            (Compression::Zstd, None),
            (Compression::Zstd, Some(9)),
            (Compression::Gzip, None),
            (Compression::None, None),
        ];
        for (compression, level) in codecs {
            for (bytes, volume) in
                [(0, 100), (5, 100), (3_000_000, u64::MAX), (3_000_000, 1_000_000)]
            {
                let plain = noise(bytes);
                let (encoded, volumes) = run(&plain, compression, level, volume);
                assert_eq!(encoded.plain_bytes, bytes as u64);
                assert_eq!(encoded.plain_sha256, sha256(&plain));
                assert_eq!(encoded.volumes.len(), volumes.len());
                for (said, stored) in encoded.volumes.iter().zip(&volumes) {
                    assert_eq!(said.bytes, stored.len() as u64);
                    assert_eq!(said.sha256, sha256(stored));
                    assert!(said.bytes <= volume);
                }
                let stored = volumes.concat();
                assert_eq!(encoded.stored_sha256, sha256(&stored));
                let mut back = Vec::new();
                let expected = Expected {
                    compression,
                    plain_bytes: bytes as u64,
                    cipher: None,
                    identities: Identities::default(),
                };
                let pieces = Fed::from_chunks(stored.chunks(1000).map(Bytes::copy_from_slice));
                let decoded = decode(pieces, &expected, &mut back, &Meter::default()).unwrap();
                assert_eq!(back, plain);
                assert_eq!(decoded.plain_sha256, encoded.plain_sha256);
                assert_eq!(decoded.stored_sha256, encoded.stored_sha256);
            }
        }
    }

    #[test]
    fn a_stream_that_breaks_is_an_error_and_no_end() {
        struct Breaks(usize);
        impl Read for Breaks {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 > 3 { Err(io::Error::other("gone")) } else { Ok(buffer.len()) }
            }
        }
        let (out, _pieces) = tokio::sync::mpsc::channel(100);
        let encoding = Encoding {
            compression: Compression::Zstd,
            level: None,
            volume_bytes: u64::MAX,
            seal: None,
        };
        let done = encode(
            Box::new(Breaks(0)),
            "a",
            &encoding,
            out,
            &Meter::default(),
            &CancellationToken::new(),
        );
        assert!(done.unwrap_err().chain().contains("gone"));
    }
}
