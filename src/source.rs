//! The doors to what is backed up: what can be read, how it is read, and how it is loaded back.
//! Knows engines and their programs; must not know destinations, schedules or the catalog.

pub mod child;
pub mod command;
pub mod files;
pub mod given;
pub mod mysql;
pub mod postgres;
mod private;
pub mod reader;
pub mod sqlite;
mod tagged;
mod target;
mod unpacked;

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::fault::{Fault, Result};
use crate::model::{
    ArtifactFormat, BackupId, Content, Engine, Fingerprint, FingerprintLevel, Lsn, PhysicalFacts,
    Sha256, SourceFacts,
};

pub use target::{Finished, Kept, Leftovers, Piece, Scratch, Target, Wanted};

/// What a run lends to a source or a target.
#[derive(Clone, Debug)]
pub struct Session {
    /// A private folder, removed when the run is over.
    pub spool: PathBuf,
    /// Cancelled when the run must stop; children are killed then.
    pub cancel: CancellationToken,
    /// What is made now is what the next drill compares with.
    pub drilled: bool,
    /// What is made now holds only the changes since that one.
    pub since: Option<Since>,
}

/// The base backup of a server that the next one stands on.
#[derive(Clone, Debug)]
pub struct Since {
    pub id: BackupId,
    /// Where it begins in the log, and on which timeline.
    pub start_lsn: Lsn,
    pub timeline: u32,
    /// PostgreSQL's own list of its files.
    pub manifest: PathBuf,
}

/// How much is taken of every table beside its dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Print {
    Off,
    /// Content where a drill will ask for it, else counts.
    Auto,
    Counts,
    Content,
}

impl Print {
    fn level(self, session: &Session) -> Option<FingerprintLevel> {
        match self {
            Self::Off => None,
            Self::Auto if session.drilled => Some(FingerprintLevel::Content),
            Self::Auto | Self::Counts => Some(FingerprintLevel::Counts),
            Self::Content => Some(FingerprintLevel::Content),
        }
    }
}

/// Something that can be backed up. It only ever reads.
#[async_trait]
pub trait Source: Send + Sync {
    fn engine(&self) -> Engine;

    /// What a manifest calls it: the database, the file, the folders.
    fn name(&self) -> String;

    /// The server it burdens, as `host:port`; runs on one server are limited.
    fn server(&self) -> Option<String> {
        None
    }

    /// How many of its streams are read at once.
    fn streams(&self) -> usize {
        1
    }

    /// Further sources that belong to it, as a server's databases do. They are read after it.
    async fn also(&self, _session: &Session) -> Result<Vec<Arc<dyn Source>>> {
        Ok(Vec::new())
    }

    /// What exists beside it, and whether it is taken: the other databases of a server,
    /// the other volumes of a machine.
    async fn beside(&self) -> Result<Vec<(Neighbour, bool)>> {
        Ok(Vec::new())
    }

    /// As a server that is backed up whole, and whose log is kept besides.
    fn physical(&self) -> Option<&postgres::physical::Physical> {
        None
    }

    /// What it looks like now, cheaply, where a job can be run by its changes.
    async fn state(&self, _cancel: &CancellationToken) -> Result<Option<Sha256>> {
        Ok(None)
    }

    /// Connects, looks, and says what is there; changes nothing.
    async fn inspect(&self, session: &Session) -> Result<SourceFacts>;

    /// Begins a dump.
    async fn open(&self, session: &Session) -> Result<Dump>;

    /// A place that a backup of this source can be loaded into.
    async fn target(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Target>>;

    /// Puts what a restore replaced back in its place; what it replaces is kept in turn.
    async fn undo(&self, _kept: &Kept, _session: &Session) -> Result<Kept> {
        Err(Fault::usage(format!("what {} replaced is not kept", self.engine().as_str())))
    }

    /// Removes what a restore replaced, for good.
    async fn forget(&self, _kept: &Kept, _session: &Session) -> Result<()> {
        Ok(())
    }

    /// What restores of a backup have replaced, found by its name.
    async fn replaced(&self, _backup: &BackupId) -> Result<Vec<Kept>> {
        Ok(Vec::new())
    }

    /// Removes what restores that were cut off have left, or finishes what had begun its last step.
    async fn clear_leftovers(&self) -> Result<Leftovers> {
        Ok(Leftovers::default())
    }

    /// A place made for a drill, which nobody uses and which goes away. A fault of the kind
    /// `Unprovable` says what is missing here.
    async fn scratch(&self, _wanted: &Wanted, _session: &Session) -> Result<Box<dyn Scratch>> {
        Err(Fault::unprovable(format!("there is no drill for {}", self.engine().as_str())))
    }
}

/// A dump that was begun: its facts, and its streams.
pub struct Dump {
    pub facts: SourceFacts,
    /// In the order in which a restore wants them.
    pub parts: Vec<Part>,
    pub warnings: Vec<String>,
    /// To be awaited after the last stream: an error there means that they may not fit together.
    pub closing: BoxFuture<'static, Result<Closing>>,
}

/// What exists beside a source, and would be lost with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Neighbour {
    /// On the server `host:port`.
    Database { name: String, server: String },
    /// Mounted at this folder.
    Volume(PathBuf),
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database { name, server } => write!(f, "the database '{name}' on {server}"),
            Self::Volume(folder) => write!(f, "the volume {}", folder.display()),
        }
    }
}

/// What is known once every stream was read.
#[derive(Debug, Default)]
pub struct Closing {
    pub fingerprint: Option<Fingerprint>,
    /// Of a base backup: what of the log it needs.
    pub physical: Option<PhysicalFacts>,
    /// How much a stream makes that the source has compressed.
    pub unpacked_bytes: Option<u64>,
    /// What was read is whole, and as damaged as what it was read from.
    pub damaged: bool,
    pub warnings: Vec<String>,
}

impl Dump {
    /// One whose streams are read one after the other, and which ends with the last of them.
    pub fn new(facts: SourceFacts, parts: Vec<Part>) -> Self {
        let closing = std::future::ready(Ok(Closing::default())).boxed();
        Self { facts, parts, warnings: Vec::new(), closing }
    }

    fn closing_with(
        mut self,
        closing: impl Future<Output = Result<Closing>> + Send + 'static,
    ) -> Self {
        self.closing = closing.boxed();
        self
    }
}

/// What a file or folder is called, as the start of an artifact's name: short, not hidden, and one
/// line.
fn safe_name(name: &str, otherwise: &str) -> String {
    let safe = |c: char| if c.is_control() || "/\\".contains(c) { '_' } else { c };
    let name: String = name.trim_start_matches('.').chars().map(safe).take(40).collect();
    if name.is_empty() { otherwise.to_owned() } else { name }
}

type Opener = Box<dyn FnOnce() -> BoxFuture<'static, Result<Flow>> + Send>;

/// One stream to be.
pub struct Part {
    /// The artifact's name without endings.
    pub stem: String,
    pub content: Content,
    pub format: ArtifactFormat,
    /// The ending of its name before compression.
    pub extension: String,
    /// About how much it is, in plain bytes; the largest are begun first.
    pub size: u64,
    opener: Opener,
}

impl Part {
    fn new<F>(stem: impl Into<String>, format: ArtifactFormat, opener: F) -> Self
    where
        F: FnOnce() -> BoxFuture<'static, Result<Flow>> + Send + 'static,
    {
        let opener = Box::new(opener);
        let extension = format.extension().to_owned();
        Self { stem: stem.into(), content: Content::Whole, format, extension, size: 0, opener }
    }

    fn holding(self, content: Content, size: u64) -> Self {
        Self { content, size, ..self }
    }

    fn ending(self, extension: &str) -> Self {
        Self { extension: extension.to_owned(), ..self }
    }

    /// A small one that is whole in memory.
    fn text(stem: impl Into<String>, format: ArtifactFormat, text: String) -> Self {
        Self::new(stem, format, move || {
            let reader = Box::new(std::io::Cursor::new(text));
            let exit = Exit::new(std::future::ready(Ok(Vec::new())));
            std::future::ready(Ok(Flow { reader, exit })).boxed()
        })
    }

    pub async fn open(self) -> Result<Flow> {
        (self.opener)().await
    }
}

/// A stream being read. Its end says nothing: only [`Exit::wait`] tells whether it was whole.
pub struct Flow {
    pub reader: Box<dyn Read + Send>,
    pub exit: Exit,
}

/// How a stream's maker ended.
#[must_use = "the end of a stream is not success"]
pub struct Exit(BoxFuture<'static, Result<Vec<String>>>);

impl Exit {
    fn new(wait: impl Future<Output = Result<Vec<String>>> + Send + 'static) -> Self {
        Self(Box::pin(wait))
    }

    /// Its end, and what is done behind it if that was a good one.
    fn then(self, next: impl Future<Output = Result<Vec<String>>> + Send + 'static) -> Self {
        Self::new(async move {
            let mut said = self.0.await?;
            said.extend(next.await?);
            Ok(said)
        })
    }

    pub async fn wait(self) -> Result<Clean> {
        self.0.await.map(|warnings| Clean { warnings })
    }
}

/// Proof that a stream's maker ended well. Only [`Exit::wait`] makes one; a commit asks for them.
#[derive(Debug)]
pub struct Clean {
    warnings: Vec<String>,
}

impl Clean {
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// A place being loaded: write everything, drop the writer, then wait for the exit.
pub struct Intake {
    pub writer: Box<dyn Write + Send>,
    pub exit: Exit,
}

impl Intake {
    /// A file that takes every byte as it comes.
    pub fn file(file: File) -> Self {
        let exit = Exit::new(std::future::ready(Ok(Vec::new())));
        Self { writer: Box::new(file), exit }
    }
}
