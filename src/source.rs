//! The doors to what is backed up: what can be read, how it is read, and how it is loaded back.
//! Knows engines and their programs; must not know destinations, schedules or the catalog.

pub mod child;
pub mod files;
pub mod postgres;
pub mod reader;
pub mod sqlite;

use std::io::{Read, Write};
use std::path::PathBuf;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::fault::Result;
use crate::model::{Artifact, ArtifactFormat, Engine, SourceFacts};

/// What a run lends to a source or a target.
#[derive(Clone, Debug)]
pub struct Session {
    /// A private folder, removed when the run is over.
    pub spool: PathBuf,
    /// Cancelled when the run must stop; children are killed then.
    pub cancel: CancellationToken,
}

/// Something that can be backed up. It only ever reads.
#[async_trait]
pub trait Source: Send + Sync {
    fn engine(&self) -> Engine;

    /// The server it burdens, as `host:port`; runs on one server are limited.
    fn server(&self) -> Option<String> {
        None
    }

    /// Connects, looks, and says what is there; changes nothing.
    async fn inspect(&self, session: &Session) -> Result<SourceFacts>;

    /// Begins a dump.
    async fn open(&self, session: &Session) -> Result<Dump>;

    /// A place that a backup of this source can be loaded into.
    async fn target(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Target>>;
}

/// Where a restore should go: the words of the command line.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub database: Option<String>,
    pub path: Option<PathBuf>,
    /// What the backup says of its source.
    pub facts: Option<SourceFacts>,
    /// How many artifacts will be loaded.
    pub artifacts: usize,
    /// Names what is made on the way, so that it can be told apart.
    pub tag: String,
    /// Leave out who owned what.
    pub no_owner: bool,
}

/// A dump that was begun: its facts, and its streams in the order in which they are read.
pub struct Dump {
    pub facts: SourceFacts,
    pub parts: Vec<Part>,
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
    pub format: ArtifactFormat,
    opener: Opener,
}

impl Part {
    fn new<F>(stem: impl Into<String>, format: ArtifactFormat, opener: F) -> Self
    where
        F: FnOnce() -> BoxFuture<'static, Result<Flow>> + Send + 'static,
    {
        Self { stem: stem.into(), format, opener: Box::new(opener) }
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

/// Something that a backup can be loaded into. Until [`finish`](Self::finish), what was there
/// before is untouched.
#[async_trait]
pub trait Target: Send {
    /// The plan's lines: what is there now, and what will happen to it.
    fn plan(&self) -> Vec<String>;

    /// What a person types to confirm.
    fn name(&self) -> String;

    async fn begin(&mut self) -> Result<()>;

    async fn load(&mut self, artifact: &Artifact) -> Result<Intake>;

    /// Everything is loaded and every digest was right: puts it in its place.
    async fn finish(&mut self) -> Result<Vec<String>>;

    /// Something went wrong: removes what was made.
    async fn discard(&mut self);
}
