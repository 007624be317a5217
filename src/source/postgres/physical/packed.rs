//! A base backup that the server compresses before it sends it, as a stream: `pg_basebackup` writes such a one
//! into a folder only, and finds a pipe where it means to make a file. Knows that program's names and order of
//! doing things; must not know what is made of the stream.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::pipe::fcntl_setpipe_size;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::inside::MOST_LABEL_BYTES;
use crate::fault::{Context, Result};
use crate::source::child::{self, Ended, PIPE_BYTES, Pipes, Program};

/// Servers compress what they send from this version on.
pub(super) const PACKED_FROM: u32 = 15;
const ARCHIVE: &str = "base.tar.zst";
/// By then `backup_label`, the first file of all, has come.
const MOST_FIRST_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 64 << 10;
/// Between its folder and its file the program has the server make a checkpoint: that takes longer.
const PAUSE: Duration = Duration::from_millis(1);

/// How the program began.
pub(super) enum Start {
    Begun(Packed),
    /// It ended before it wrote anything.
    Over(Ended),
    /// No pipe could be put in its way: it was stopped.
    Missed(String),
}

/// A compressed tar on its way.
pub(super) struct Packed {
    pub first: Vec<u8>,
    pub rest: File,
    pub label: Vec<u8>,
    pub end: JoinHandle<Result<Ended>>,
}

/// Starts the program, which makes `folder` before it asks the server for anything.
pub(super) async fn start(
    program: Program,
    folder: &Path,
    cancel: &CancellationToken,
) -> Result<Start> {
    // What an attempt before this one has left.
    fs::remove_dir_all(folder).ok();
    let own = cancel.child_token();
    let mut child = child::spawn(program, Pipes::Stdout, own.clone()).await?;
    drop(child.stdout.take());
    while !folder.is_dir() && !child.end.is_finished() {
        tokio::time::sleep(PAUSE).await;
    }
    if !folder.is_dir() {
        return Ok(Start::Over(child::ended(child.end).await?));
    }
    let (rest, held) = match pipe(&folder.join(ARCHIVE)) {
        Ok(pipe) => pipe,
        Err(error) => {
            own.cancel();
            child::ended(child.end).await.ok();
            return Ok(Start::Missed(error.to_string()));
        }
    };
    let end = tokio::spawn(async move {
        let ended = child::ended(child.end).await;
        // Only now is the end of the stream the end of the program, whether it wrote something or not.
        drop(held);
        ended
    });
    let reading = tokio::task::spawn_blocking(move || begin(rest));
    let (first, rest, label) =
        reading.await.context("read")?.context("read what pg_basebackup writes")?;
    match first.is_empty() {
        true => Ok(Start::Over(child::ended(end).await?)),
        false => Ok(Start::Begun(Packed { first, rest, label, end })),
    }
}

/// A pipe where a file would be made: the end to read from, and one that keeps it open.
fn pipe(path: &Path) -> io::Result<(File, File)> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    // Opened in both directions it waits for nobody.
    let held = OpenOptions::new().read(true).write(true).open(path)?;
    fcntl_setpipe_size(&held, PIPE_BYTES).ok();
    Ok((File::open(path)?, held))
}

/// Blocks until the label was read, or the end.
fn begin(mut output: File) -> io::Result<(Vec<u8>, File, Vec<u8>)> {
    let mut first = Vec::new();
    loop {
        let here = first.len();
        first.resize(here + READ_BYTES, 0);
        let count = output.read(&mut first[here..])?;
        first.truncate(here + count);
        let label = label_in(&first);
        if count == 0 || label.is_some() || first.len() >= MOST_FIRST_BYTES {
            return Ok((first, output, label.unwrap_or_default()));
        }
    }
}

/// `backup_label`, once enough has come to tell.
fn label_in(packed: &[u8]) -> Option<Vec<u8>> {
    let mut tar = tar::Archive::new(zstd::Decoder::new(packed).ok()?);
    let mut member = tar.entries().ok()?.next()?.ok()?;
    let size = member.size();
    if *member.path_bytes() != *b"backup_label" || size > MOST_LABEL_BYTES {
        return None;
    }
    let mut label = Vec::new();
    member.read_to_end(&mut label).ok()?;
    (label.len() as u64 == size).then_some(label)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(name: &str, text: &[u8]) -> Vec<u8> {
        let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text).unwrap();
        let mut zstd = tar.into_inner().unwrap();
        // Nothing that compresses: a server's first block is as large.
        let noise = (0..1 << 18_u32).flat_map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes());
        zstd.write_all(&noise.collect::<Vec<u8>>()).unwrap();
        zstd.finish().unwrap()
    }

    #[test]
    fn the_label_is_read_as_soon_as_it_is_there() {
        let whole = packed("backup_label", b"START TIMELINE: 1\n");
        assert_eq!(label_in(&whole).unwrap(), b"START TIMELINE: 1\n");
        assert_eq!(label_in(&whole[..whole.len() / 2]).unwrap(), b"START TIMELINE: 1\n");
        assert_eq!(label_in(&whole[..20]), None);
        assert_eq!(label_in(&packed("PG_VERSION", b"15\n")), None);
        assert_eq!(label_in(b"no zstd at all"), None);
    }

    fn script(text: &str, folder: &Path) -> Program {
        Program::new("/bin/sh").args(["-c", text, "sh"]).arg(folder)
    }

    #[tokio::test]
    async fn a_program_that_means_to_write_a_file_writes_into_a_pipe() {
        let place = tempfile::tempdir().unwrap();
        let (folder, cancel) = (place.path().join("base"), CancellationToken::new());
        let label = place.path().join("packed");
        fs::write(&label, packed("backup_label", b"x")).unwrap();
        // It goes on when there is a pipe: what it does before takes a server's checkpoint.
        let text = format!(
            "mkdir \"$1\"; until [ -p \"$1/{ARCHIVE}\" ]; do :; done; cat {} > \"$1/{ARCHIVE}\"; exit 3",
            label.display()
        );
        let Start::Begun(packed) = start(script(&text, &folder), &folder, &cancel).await.unwrap()
        else {
            panic!("it has not begun");
        };
        assert_eq!(packed.label, b"x");
        let mut all = packed.first;
        let mut rest = packed.rest;
        let all = tokio::task::spawn_blocking(move || rest.read_to_end(&mut all).map(|_| all));
        assert_eq!(all.await.unwrap().unwrap(), fs::read(&label).unwrap());
        assert_eq!(child::ended(packed.end).await.unwrap().status.code(), Some(3));
    }

    #[tokio::test]
    async fn whoever_ends_early_or_was_faster_is_told_from_one_that_writes() {
        let place = tempfile::tempdir().unwrap();
        let (folder, cancel) = (place.path().join("base"), CancellationToken::new());
        for text in ["exit 4", "mkdir \"$1\"; exit 4"] {
            match start(script(text, &folder), &folder, &cancel).await.unwrap() {
                Start::Over(ended) => assert_eq!(ended.status.code(), Some(4)),
                _ => panic!("it has ended"),
            }
        }
        // A folder that is there with the file in it, all at once.
        let text = format!(
            "mkdir \"$1.new\"; : > \"$1.new/{ARCHIVE}\"; mv \"$1.new\" \"$1\"; \
             until [ -e \"$1/never\" ]; do sleep 1; done"
        );
        let started = start(script(&text, &folder), &folder, &cancel).await.unwrap();
        assert!(matches!(started, Start::Missed(_)));
    }
}
