//! The streams of a run: every source in turn, each with as many of its streams at once as it allows.
//! A stream that breaks stops the others; only when all of them ended well is there something to
//! commit.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use super::delivery::Delivery;
use super::{Control, Job, bytes};
use crate::fault::{Context, Fault, FaultKind, Result};
use crate::model::{Artifact, BackupId, Compression, Content, SourceFacts};
use crate::pipeline::{Seal, encode};
use crate::source::{Clean, Dump, Part, Session, Source};

/// Pieces between the encoder and the destinations.
const PIECES: usize = 4;

/// What was streamed so far.
pub(super) struct Streaming<'a> {
    job: &'a Job,
    delivery: &'a Delivery,
    /// With a token of its own: what breaks here stops the streams, and not who called.
    session: Session,
    control: &'a Control,
    stems: HashSet<String>,
    pub sources: Vec<SourceFacts>,
    pub artifacts: Vec<Artifact>,
    pub cleans: Vec<Clean>,
    pub warnings: Vec<String>,
    /// A source is damaged itself, and so what was read of it.
    pub damaged: bool,
}

impl<'a> Streaming<'a> {
    pub(super) fn new(
        job: &'a Job,
        delivery: &'a Delivery,
        session: &Session,
        control: &'a Control,
    ) -> Self {
        let cancel = session.cancel.child_token();
        Self {
            job,
            delivery,
            session: Session { cancel, ..session.clone() },
            control,
            stems: HashSet::new(),
            sources: Vec::new(),
            artifacts: Vec::new(),
            cleans: Vec::new(),
            warnings: Vec::new(),
            damaged: false,
        }
    }

    /// Databases come before the files that they speak of, as the job lists them.
    pub(super) async fn every_source(&mut self, id: &BackupId) -> Result<()> {
        let mut waiting: VecDeque<Arc<dyn Source>> = self.job.sources.iter().cloned().collect();
        while let Some(source) = waiting.pop_front() {
            let streamed = self.source(source.as_ref(), id).await;
            if streamed.is_err() {
                self.session.cancel.cancel();
            }
            streamed?;
            for (n, also) in source.also(&self.session).await?.into_iter().enumerate() {
                waiting.insert(n, also);
            }
        }
        Ok(())
    }

    async fn source(&mut self, source: &dyn Source, id: &BackupId) -> Result<()> {
        let Dump { mut facts, parts, warnings, closing } = source.open(&self.session).await?;
        let streams = source.streams().max(1);
        tracing::info!("backing up {} {} as {id}", facts.engine.as_str(), facts.name);
        // Of what comes compressed nobody knows how much there will be.
        let is_known = !parts.iter().any(|part| part.format.is_compressed());
        self.control.add_total(facts.size_bytes.filter(|_| is_known));
        self.warnings.extend(warnings);
        let stems = self.stems_of(&parts);
        let mut parts: Vec<(usize, Part)> = parts
            .into_iter()
            .zip(stems)
            .map(|(mut part, stem)| {
                part.stem = self.free_stem(stem);
                part
            })
            .enumerate()
            .collect();
        if streams > 1 {
            parts.sort_by_key(|(_, part)| std::cmp::Reverse(part.size));
        }
        let index = self.sources.len();
        let mut done = Vec::new();
        let mut broken = None;
        {
            let this = &*self;
            let mut streams = stream::iter(parts)
                .map(async |(n, part)| (n, this.stream(index, part).await))
                .buffer_unordered(streams);
            while let Some((n, streamed)) = streams.next().await {
                match streamed {
                    Ok(streamed) => done.push((n, streamed)),
                    Err(fault) => {
                        // What stops because of it is not why.
                        this.session.cancel.cancel();
                        broken.get_or_insert(fault);
                    }
                }
            }
        }
        let closing = match (broken, closing.await) {
            (None, closing) => closing?,
            // What the streams hung on explains more than that they broke.
            (Some(_), Err(cause)) if cause.kind() != FaultKind::Cancelled => return Err(cause),
            (Some(fault), _) => return Err(fault),
        };
        facts.fingerprint = closing.fingerprint;
        facts.physical = closing.physical;
        self.damaged |= closing.damaged;
        self.warnings.extend(closing.warnings);
        self.sources.push(facts);
        done.sort_by_key(|(n, _)| *n);
        for (_, (mut artifact, clean)) in done {
            if artifact.format.is_compressed() {
                artifact.unpacked_bytes = closing.unpacked_bytes;
            }
            self.warnings.extend(clean.warnings().iter().cloned());
            self.artifacts.push(artifact);
            self.cleans.push(clean);
        }
        Ok(())
    }

    /// What each is called. The name of a table is nobody's business once its rows are encrypted.
    fn stems_of(&self, parts: &[Part]) -> Vec<String> {
        let is_table = |part: &Part| matches!(part.content, Content::Rows(_));
        let hidden = |part: &Part| is_table(part) && self.job.encoding.seal.is_some();
        let whole = parts.iter().find(|part| !is_table(part)).map_or("", |part| &part.stem);
        let numbered = (1..).map(|n| format!("{whole}.table.{n}"));
        let mut numbered = numbered.map(|stem| stem.trim_start_matches('.').to_owned());
        let stems = parts.iter().map(|part| match hidden(part) {
            true => numbered.next().unwrap_or_default(),
            false => part.stem.clone(),
        });
        stems.collect()
    }

    /// Two databases of one name, or a folder that is called like one.
    fn free_stem(&mut self, stem: String) -> String {
        let numbered = (2..).map(|number| format!("{stem}-{number}"));
        let mut stems = std::iter::once(stem.clone()).chain(numbered);
        let free = stems.find(|stem| !self.stems.contains(stem)).unwrap_or_default();
        self.stems.insert(free.clone());
        free
    }

    async fn stream(&self, source: usize, part: Part) -> Result<(Artifact, Clean)> {
        let (format, content) = (part.format, part.content.clone());
        let mut encoding = self.job.encoding.clone();
        if let Content::Schema(schema) = &content
            && let Some(seal) = self.job.schema_seals.get(schema)
        {
            encoding.seal = Some(seal.clone());
        }
        if format.is_compressed() {
            encoding.compression = Compression::None;
        }
        let compression = encoding.compression;
        let encryption = encoding.seal.as_ref().map(|seal| seal.encryption().clone());
        let cipher = encoding.seal.as_ref().map_or("", Seal::suffix);
        let name = format!("{}.{}{}{cipher}", part.stem, part.extension, compression.suffix());
        if self.session.cancel.is_cancelled() {
            return Err(Fault::cancelled("another stream broke"));
        }
        let flow = part.open().await?;
        let (out, pieces) = mpsc::channel(PIECES);
        let encoding = tokio::task::spawn_blocking({
            let (name, meter) = (name.clone(), self.control.meter.clone());
            let cancel = self.session.cancel.clone();
            let reader = flow.reader;
            move || encode(reader, &name, &encoding, out, &meter, &cancel)
        });
        let mut lane = self.delivery.lane();
        lane.carry(&name, pieces).await;
        let encoded = encoding.await.context("encode").flatten();
        // Awaited in every case: a stream that ended is not a dump that succeeded.
        let exit = flow.exit.wait().await;
        lane.end(encoded.is_ok() && exit.is_ok()).await;
        let (encoded, clean) = match (encoded, exit) {
            (Ok(encoded), Ok(clean)) => (encoded, clean),
            (Ok(_), Err(fault)) => return Err(fault),
            // The child complains of a pipe that broke because nobody was left to read.
            (Err(fault), _) => return Err(fault),
        };
        tracing::info!(
            "{name}: {} in, {} stored",
            bytes(encoded.plain_bytes),
            bytes(encoded.stored_bytes)
        );
        let artifact = Artifact {
            name,
            source,
            content,
            format,
            compression,
            encryption,
            plain_bytes: encoded.plain_bytes,
            unpacked_bytes: None,
            plain_sha256: Some(encoded.plain_sha256),
            stored_bytes: encoded.stored_bytes,
            stored_sha256: encoded.stored_sha256,
            volumes: encoded.volumes,
        };
        Ok((artifact, clean))
    }
}
