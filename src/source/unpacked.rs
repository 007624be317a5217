//! A tar that its source has compressed, opened on the way into what reads it. Knows that one codec; must not
//! know what is in the tar.

use std::io::{self, Write};

use zstd::stream::write::Decoder;

use crate::fault::{Context, Result};
use crate::model::Artifact;

/// Hands on what an artifact unpacks to, and no more than its manifest says: `writer` gets a plain tar.
pub(super) fn unpacked(
    artifact: &Artifact,
    writer: impl Write + Send + 'static,
) -> Result<Box<dyn Write + Send>> {
    if !artifact.format.is_compressed() {
        return Ok(Box::new(writer));
    }
    let left = artifact.unpacked_bytes.unwrap_or(0);
    let decoder = Decoder::new(Bounded { writer, left }).context("open what is compressed")?;
    Ok(Box::new(decoder))
}

struct Bounded<W> {
    writer: W,
    left: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        let left = self.left.checked_sub(written as u64);
        self.left =
            left.ok_or_else(|| io::Error::other("it unpacks to more than the manifest says"))?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_unpacked_than_was_said() {
        let mut bounded = Bounded { writer: Vec::new(), left: 10 };
        bounded.write_all(&[0; 10]).unwrap();
        assert!(bounded.write_all(&[0]).is_err());
    }
}
