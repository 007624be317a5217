//! An artifact read back: from a destination, through cipher and codec, into whatever takes it;
//! believed only when every digest is the manifest's.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};

use super::Found;
use crate::destination::{Destination, Key};
use crate::fault::{Context, Fault, Result};
use crate::model::Artifact;
use crate::pipeline::{Expected, Fed, Identities, Meter, decode, feed, weigh};
use crate::source::{Clean, Intake};

/// Reads a whole artifact into `intake`, and waits for both ends.
pub(super) async fn read_artifact(
    destination: &Arc<dyn Destination>,
    folder: &Key,
    artifact: &Artifact,
    identities: &Identities,
    intake: Intake,
    meter: &Meter,
) -> Result<Clean> {
    let (drive, fed) = stored(destination, folder, artifact)?;
    let expected = Expected {
        compression: artifact.compression,
        plain_bytes: artifact.plain_bytes,
        cipher: artifact.encryption.as_ref().map(|encryption| encryption.cipher),
        identities: identities.clone(),
    };
    let Intake { mut writer, exit } = intake;
    let meter = meter.clone();
    let decoding = tokio::task::spawn_blocking(move || {
        let decoded = decode(fed, &expected, writer.as_mut(), &meter);
        // The end of its input is what the reader waits for.
        drop(writer);
        decoded
    });
    let (decoded, ()) = tokio::join!(decoding, drive);
    let exit = exit.wait().await;
    let decoded = decoded.context("decode")?.context(reading(artifact, destination))?;
    if let Some(error) = decoded.writer_broke {
        exit?;
        return Err(error).transient("write what was read");
    }
    let stored = decoded.stored_sha256 == artifact.stored_sha256
        && decoded.stored_bytes == artifact.stored_bytes;
    let plain = artifact.plain_sha256.is_none_or(|digest| decoded.plain_sha256 == digest)
        && decoded.plain_bytes == artifact.plain_bytes;
    if !stored || !plain {
        return Err(damaged(artifact, destination, if stored { "plain" } else { "stored" }));
    }
    exit
}

/// Reads a whole artifact without looking inside, and compares what is stored.
pub(super) async fn weigh_artifact(
    destination: &Arc<dyn Destination>,
    folder: &Key,
    artifact: &Artifact,
    meter: &Meter,
) -> Result<()> {
    let (drive, fed) = stored(destination, folder, artifact)?;
    let meter = meter.clone();
    let weighing = tokio::task::spawn_blocking(move || weigh(fed, &meter));
    let (weighed, ()) = tokio::join!(weighing, drive);
    let weighed = weighed.context("read")?.context(reading(artifact, destination))?;
    if weighed != (artifact.stored_bytes, artifact.stored_sha256) {
        return Err(damaged(artifact, destination, "stored"));
    }
    Ok(())
}

/// An artifact as it is stored, all volumes joined, for who takes it away.
pub fn stored_stream(
    found: &Found,
    artifact: &Artifact,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    volumes(&found.destination, &found.folder(), artifact)
}

/// The stored stream, all volumes joined. The future must be driven beside the reader.
fn stored(
    destination: &Arc<dyn Destination>,
    folder: &Key,
    artifact: &Artifact,
) -> Result<(impl Future<Output = ()> + use<>, Fed)> {
    Ok(feed(volumes(destination, folder, artifact)?))
}

fn volumes(
    destination: &Arc<dyn Destination>,
    folder: &Key,
    artifact: &Artifact,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let keys = artifact.volumes.iter().map(|volume| folder.child(&volume.name));
    let keys = keys.collect::<Result<Vec<_>>>()?;
    let source = destination.clone();
    let pieces = stream::iter(keys).then(move |key| {
        let source = source.clone();
        async move { source.read(&key).await }
    });
    Ok(pieces.try_flatten().boxed())
}

fn reading(artifact: &Artifact, destination: &Arc<dyn Destination>) -> String {
    format!("read {} on '{}'", artifact.name, destination.name())
}

fn damaged(artifact: &Artifact, destination: &Arc<dyn Destination>, which: &str) -> Fault {
    Fault::permanent(format!(
        "{} on '{}' is damaged: its {which} bytes are not those that were written",
        artifact.name,
        destination.name()
    ))
    .hint("use another destination or another backup; `respaldo verify` tells which are whole")
}
