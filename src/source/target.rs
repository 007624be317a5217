//! The doors back: what a backup is loaded into, put in its place, or only tried in. Knows what a restore
//! asks of an engine; must not know any.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::postgres::physical::DataFolder;
use super::{Intake, Source};
use crate::fault::Result;
use crate::model::{Artifact, Erasure, Replayed, SourceFacts, TableName};

/// Where a restore should go: the words of the command line.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub database: Option<String>,
    pub path: Option<PathBuf>,
    /// Of files, only what these globs name; empty: all of them.
    pub paths: Vec<String>,
    /// What the backup says of its source.
    pub facts: Option<SourceFacts>,
    /// What will be loaded, in this order.
    pub artifacts: Vec<Artifact>,
    /// Names what is made on the way, so that it can be told apart.
    pub tag: String,
    /// Leave out who owned what.
    pub no_owner: bool,
    /// Make the roles that are missing.
    pub create_roles: bool,
    /// Change what is there, instead of putting something in its place.
    pub in_place: bool,
    /// Only this of it.
    pub piece: Option<Piece>,
    /// The schema that a piece goes into.
    pub into: Option<String>,
    /// The rows of a piece that are copied back to where they were: an SQL condition.
    pub rows: Option<String>,
    /// How many sessions load at once; `None`: as the machine suits.
    pub jobs: Option<usize>,
    /// What is removed again once all is loaded, and before it is put in its place.
    pub erasures: Vec<Erasure>,
    /// Although it may not be what was backed up.
    pub unchecked: bool,
}

/// A part of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Schema(String),
    Table(TableName),
}

impl Piece {
    pub fn holds(&self, name: &TableName) -> bool {
        match self {
            Self::Schema(schema) => *schema == name.schema,
            Self::Table(table) => table == name,
        }
    }

    pub fn schema(&self) -> &str {
        match self {
            Self::Schema(schema) => schema,
            Self::Table(table) => &table.schema,
        }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schema(schema) => write!(f, "the schema '{schema}'"),
            Self::Table(table) => write!(f, "the table '{}.{}'", table.schema, table.table),
        }
    }
}

/// What a target says once it is in place.
#[derive(Debug, Default)]
pub struct Finished {
    pub said: Vec<String>,
    pub kept: Vec<Kept>,
}

impl From<Vec<String>> for Finished {
    fn from(said: Vec<String>) -> Self {
        Self { said, kept: Vec::new() }
    }
}

/// What was replaced, and where it is now: databases, files or folders of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What took its place.
    pub current: String,
    /// What it is called now.
    pub kept: String,
}

/// What restores that were cut off had left, once it was looked at.
#[derive(Debug, Default)]
pub struct Leftovers {
    pub said: Vec<String>,
    /// One had begun its last step, which is done now: what it restored is in place.
    pub finished: bool,
}

impl From<Vec<String>> for Leftovers {
    fn from(said: Vec<String>) -> Self {
        Self { said, ..Self::default() }
    }
}

/// Something that a backup can be loaded into. Until [`finish`](Self::finish), what was there
/// before is untouched.
#[async_trait]
pub trait Target: Send {
    /// The plan's lines: what is there now, and what will happen to it.
    fn plan(&self) -> Vec<String>;

    /// What a person types to confirm.
    fn name(&self) -> String;

    /// What has to be settled before it can be begun, each with how.
    fn obstacles(&self) -> Vec<String> {
        Vec::new()
    }

    /// What it overwrites, as a source of all of it: a safety backup of that is made first. `None`: it
    /// changes nothing that is there.
    fn overwrites(&self) -> Option<Arc<dyn Source>> {
        None
    }

    async fn begin(&mut self) -> Result<()>;

    /// How many artifacts are loaded at the same time, once the first one is there.
    fn at_once(&self) -> usize {
        1
    }

    /// Whether it needs one of those that come after the first: only that one defines what is a part of what.
    async fn needs(&mut self, _artifact: &Artifact) -> Result<bool> {
        Ok(true)
    }

    async fn load(&mut self, artifact: &Artifact) -> Result<Intake>;

    /// The folder that the rest of a server's log is wanted in, once its base backup is loaded.
    fn data_folder(&self) -> Option<DataFolder> {
        None
    }

    /// Everything is loaded and every digest was right: does what has to come after the last row.
    async fn complete(&mut self) -> Result<()> {
        Ok(())
    }

    /// What of the backup's facts it should hold, where only a part is loaded.
    fn expects(&self, facts: &SourceFacts) -> SourceFacts {
        facts.clone()
    }

    /// What it holds once it is complete, by the questions that were asked when `expected` was backed
    /// up; `None` where a target can't be asked, or not
    /// before it is finished.
    async fn holds(&mut self, _expected: &SourceFacts) -> Result<Option<SourceFacts>> {
        Ok(None)
    }

    /// Puts it in its place.
    async fn finish(&mut self) -> Result<Finished>;

    /// Something went wrong: removes what was made.
    async fn discard(&mut self);
}

/// What a drill loads into: made by respaldo, used by nobody, and removed.
#[async_trait]
pub trait Scratch: Send {
    /// Loaded, completed and asked what it holds; never put in the place of anything.
    fn target(&mut self) -> &mut dyn Target;

    /// Whether the first value that a statement returns is true.
    async fn check(&mut self, sql: &str) -> Result<bool>;

    /// How far a server's log was replayed, by its own word, where there is one.
    async fn replayed(&mut self) -> Result<Option<Replayed>> {
        Ok(None)
    }

    /// How a program that checks it finds it.
    fn environment(&self) -> Vec<(&'static str, String)>;

    /// Leaves nothing behind; so does a killed process, once the next one has started.
    async fn remove(self: Box<Self>) -> Result<()>;
}
