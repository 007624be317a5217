//! A folder for one drill: what is extracted into it is compared with the archive, entry by entry.
//! Knows the run's spool; must not touch what was backed up.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use globset::GlobSet;
use tokio_util::sync::CancellationToken;

use super::target::FilesTarget;
use super::{contents, walk};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, Engine, Fingerprint, FingerprintLevel, SourceFacts};
use crate::source::{Exit, Finished, Intake, Scratch, Session, Target, Wanted};

pub(super) struct FilesScratch {
    target: Extracted,
}

struct Extracted {
    inner: FilesTarget,
    session: Session,
    /// All that is made is in it.
    root: PathBuf,
    /// What each archive says of its members, and where they are.
    noted: Vec<(PathBuf, PathBuf)>,
}

impl FilesScratch {
    pub(super) fn new(wanted: &Wanted, session: &Session) -> Result<Self> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let root = session.spool.join(format!("files-{}", &unique[..8]));
        let wanted = Wanted { path: Some(root.join("restored")), ..wanted.clone() };
        let inner = FilesTarget::new(&[], &wanted, session)?;
        Ok(Self { target: Extracted { inner, session: session.clone(), root, noted: Vec::new() } })
    }
}

#[async_trait]
impl Target for Extracted {
    fn plan(&self) -> Vec<String> {
        self.inner.plan()
    }

    fn name(&self) -> String {
        self.inner.name()
    }

    async fn begin(&mut self) -> Result<()> {
        self.inner.begin().await
    }

    async fn load(&mut self, artifact: &Artifact) -> Result<Intake> {
        let Intake { writer, exit } = self.inner.load(artifact).await?;
        let list = self.session.spool.join(format!("list-{}", uuid::Uuid::new_v4().simple()));
        self.noted.push((list.clone(), self.inner.folder_of(artifact)?));
        let (reader, other) = io::pipe().context("read the archive twice")?;
        let noting = tokio::task::spawn_blocking(move || contents::note(reader, &list));
        let exit = Exit::new(async move {
            let clean = exit.wait().await?;
            noting.await.context("read the archive")??;
            Ok(clean.warnings)
        });
        Ok(Intake { writer: Box::new(Twice { writer, other: Some(other) }), exit })
    }

    async fn complete(&mut self) -> Result<()> {
        for (list, folder) in std::mem::take(&mut self.noted) {
            let comparing = tokio::task::spawn_blocking(move || contents::compare(&list, &folder));
            comparing.await.context("compare the files")??;
        }
        Ok(())
    }

    async fn holds(&mut self, expected: &SourceFacts) -> Result<Option<SourceFacts>> {
        if expected.fingerprint.is_none() {
            return Ok(None);
        }
        let folders = self.inner.folders();
        let cancel = self.session.cancel.clone();
        let name = expected.name.clone();
        let counting = tokio::task::spawn_blocking(move || {
            let mut counts = Counts::default();
            for folder in folders {
                counts.add(&folder, &GlobSet::empty(), &cancel)?;
            }
            let fingerprint = Some(counts.print());
            Ok::<_, Fault>(SourceFacts { fingerprint, ..SourceFacts::named(Engine::Files, name) })
        });
        counting.await.context("count the files")?.map(Some)
    }

    async fn finish(&mut self) -> Result<Finished> {
        Ok(Finished::default())
    }

    async fn discard(&mut self) {}
}

#[async_trait]
impl Scratch for FilesScratch {
    fn target(&mut self) -> &mut dyn Target {
        &mut self.target
    }

    async fn check(&mut self, _sql: &str) -> Result<bool> {
        Err(Fault::usage("files answer no SQL").hint("use `programs` in the job's `drill`"))
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("RESPALDO_PATH", self.target.inner.staged().display().to_string())]
    }

    async fn remove(self: Box<Self>) -> Result<()> {
        let (doing, root) = ("remove a scratch folder", self.target.root);
        let removing = tokio::task::spawn_blocking(move || match root.exists() {
            true => std::fs::remove_dir_all(root),
            false => Ok(()),
        });
        removing.await.context(doing)?.context(doing)
    }
}

/// How many entries of each kind there are.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<String, u64>);

impl Counts {
    pub(super) fn note(&mut self, kind: std::fs::FileType) {
        let kind = match kind {
            kind if kind.is_dir() => "folders",
            kind if kind.is_file() => "files",
            kind if kind.is_symlink() => "links",
            _ => "special files",
        };
        *self.0.entry(kind.to_owned()).or_default() += 1;
    }

    fn add(&mut self, folder: &Path, exclude: &GlobSet, cancel: &CancellationToken) -> Result<()> {
        walk(folder, exclude, cancel, |_, entry| {
            self.note(entry.context("count the files")?.file_type());
            Ok(())
        })
    }

    pub(super) fn join(&mut self, other: Self) {
        for (kind, number) in other.0 {
            *self.0.entry(kind).or_default() += number;
        }
    }

    pub(super) fn print(self) -> Fingerprint {
        Fingerprint {
            level: FingerprintLevel::Counts,
            approximate: false,
            tables: Vec::new(),
            sequences: Vec::new(),
            objects: self.0,
        }
    }
}

/// One stream for two readers. When the second one has given up, the first still gets everything: its
/// own words come later.
struct Twice {
    writer: Box<dyn Write + Send>,
    other: Option<io::PipeWriter>,
}

impl Write for Twice {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(other) = &mut self.other
            && other.write_all(bytes).is_err()
        {
            self.other = None;
        }
        self.writer.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
