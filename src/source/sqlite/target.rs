//! A copy loaded into a file of its own, checked, and put where it belongs: a new file, or in the place
//! of the job's. Knows what has to be right before that.

use std::fs;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, StatVfsMountFlags, statvfs};

use super::replace::{self, Present, with_ending};
use super::{blocking, facts, fingerprint, integrity};
use crate::durable::{self, Draft, Existing};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, Erasure, FingerprintLevel, SourceFacts, Subject};
use crate::source::tagged::{NEW, free};
use crate::source::{Exit, Finished, Intake, Target, Wanted};

pub(super) struct SqliteTarget {
    path: PathBuf,
    /// What is there now; it gives way.
    present: Option<Present>,
    tag: String,
    draft: Option<Draft>,
    obstacles: Vec<String>,
    erasures: Vec<Erasure>,
}

impl SqliteTarget {
    /// `own` is the job's file; empty where there is none.
    pub(super) fn new(own: &Path, wanted: &Wanted) -> Result<Self> {
        let path = match &wanted.path {
            Some(path) => {
                check_new(path)?;
                path.clone()
            }
            None if own.as_os_str().is_empty() => {
                return Err(Fault::usage("where the database belongs is not known here")
                    .hint("name a file that does not exist yet, with --to PATH"));
            }
            None => own.canonicalize().unwrap_or_else(|_| own.to_owned()),
        };
        let mut target = Self {
            present: None,
            path,
            tag: wanted.tag.clone(),
            draft: None,
            obstacles: Vec::new(),
            erasures: wanted.erasures.clone(),
        };
        if wanted.path.is_none() {
            let bytes = wanted.artifacts.iter().map(|artifact| artifact.plain_bytes).sum();
            target.look(bytes)?;
        }
        Ok(target)
    }

    fn look(&mut self, bytes: u64) -> Result<()> {
        if self.path.symlink_metadata().is_ok() {
            let present = replace::present(&self.path)?;
            if present == Present::InUse {
                let fault = replace::in_use(&self.path);
                let hint = fault.next_step().unwrap_or_default();
                self.obstacles.push(format!("{fault}: {hint}"));
            }
            self.present = Some(present);
        }
        let Some(folder) = self.path.ancestors().skip(1).find(|path| path.exists()) else {
            return Ok(());
        };
        let disk = statvfs(folder).context(format!("look at {}", folder.display()))?;
        let (free, folder_name) = (disk.f_bavail.saturating_mul(disk.f_frsize), folder.display());
        if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
            self.obstacles.push(format!(
                "{folder_name} is mounted read-only here: mount it so that it can be written (without `:ro`), or restore with --to"
            ));
        } else if rustix::fs::access(folder, Access::WRITE_OK).is_err() {
            self.obstacles.push(format!("this user may not write in {folder_name}"));
        } else if free < bytes {
            self.obstacles.push(format!(
                "{folder_name} has {} MB free, and the database takes {} MB beside the present one",
                free / 1_000_000,
                bytes / 1_000_000
            ));
        }
        Ok(())
    }

    /// The file as it is before it is in its place.
    pub(super) fn loaded(&self) -> Result<PathBuf> {
        let draft = self.draft.as_ref();
        let draft = draft.ok_or_else(|| Fault::permanent("the target is not open"))?;
        Ok(draft.path().to_owned())
    }

    fn draft(&mut self) -> Result<&mut Draft> {
        self.draft.as_mut().ok_or_else(|| Fault::permanent("the target is not open"))
    }
}

fn check_new(path: &Path) -> Result<()> {
    for taken in [path.to_owned(), with_ending(path, "-wal"), with_ending(path, "-journal")] {
        if taken.symlink_metadata().is_ok() {
            return Err(Fault::usage(format!("{} exists", taken.display())).hint(
                "stop the application and move it away (with its -wal and -shm), or name another path",
            ));
        }
    }
    Ok(())
}

#[async_trait]
impl Target for SqliteTarget {
    fn plan(&self) -> Vec<String> {
        let path = self.path.display();
        let Some(present) = self.present else {
            return vec![format!("into the new file {path}")];
        };
        let size = fs::metadata(&self.path).map_or(0, |meta| meta.len());
        let damaged = if present == Present::Damaged { ", damaged" } else { "" };
        vec![
            format!(
                "in the place of {path}, which has {} kB now{damaged} and is kept beside it",
                size / 1000
            ),
            "stop the application first: what it has open it goes on writing to the former one"
                .into(),
        ]
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn obstacles(&self) -> Vec<String> {
        self.obstacles.clone()
    }

    async fn begin(&mut self) -> Result<()> {
        let doing = format!("create {}", self.path.display());
        let folder = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        durable::create_folder(folder).context(format!("create {}", folder.display()))?;
        let mut draft = Draft::create_at(&free(folder, NEW, &self.tag, &[]), &self.path)
            .context(doing.clone())?;
        // Who is alive: nobody else takes it for a leftover.
        draft.file().try_lock().context(doing)?;
        self.draft = Some(draft);
        Ok(())
    }

    async fn load(&mut self, _artifact: &Artifact) -> Result<Intake> {
        let writer = self.draft()?.file().try_clone().context("write the database")?;
        Ok(Intake { writer: Box::new(writer), exit: Exit::new(async { Ok(Vec::new()) }) })
    }

    async fn complete(&mut self) -> Result<()> {
        let path = self.draft()?.path().to_owned();
        blocking(move || integrity(&path)).await
    }

    async fn holds(&mut self, expected: &SourceFacts) -> Result<Option<SourceFacts>> {
        let path = self.draft()?.path().to_owned();
        let level = expected.fingerprint.as_ref().map(|print| print.level);
        blocking(move || held(&path, level).map(Some)).await
    }

    async fn finish(&mut self) -> Result<Finished> {
        let draft = self.draft.take().ok_or_else(|| Fault::permanent("the target is not open"))?;
        let (path, erasures, tag) = (self.path.clone(), self.erasures.clone(), self.tag.clone());
        let replaces = self.present.is_some();
        blocking(move || {
            reapply(draft.path(), &erasures)?;
            let mut finished = Finished::from(vec![format!("{} is in place", path.display())]);
            if replaces {
                let kept = replace::put(draft, &path, &tag)?;
                finished.said.push(format!("the former one is kept as {}", kept.kept));
                finished.kept.push(kept);
            } else {
                draft.publish(Existing::Refuse).context(format!("create {}", path.display()))?;
            }
            Ok(finished)
        })
        .await
    }

    async fn discard(&mut self) {
        self.draft = None;
    }
}

/// What a file holds, by the questions that were asked when it was backed up.
fn held(path: &Path, level: Option<FingerprintLevel>) -> Result<SourceFacts> {
    // One that may only read would leave its -wal and -shm behind.
    let doing = "look into what was loaded";
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).context(doing)?;
    let mut found = facts(path, &connection)?;
    found.fingerprint = level.map(|level| fingerprint::take(&connection, level)).transpose()?;
    connection.close().map_err(|(_, error)| error).context(doing)?;
    Ok(found)
}

/// Erases again what was erased before, in a database that nobody uses yet.
fn reapply(path: &Path, erasures: &[Erasure]) -> Result<()> {
    let statements = erasures.iter().filter_map(|erasure| match &erasure.subject {
        Subject::Sql(sql) => Some((erasure, sql)),
        Subject::Schema(_) => None,
    });
    for (erasure, sql) in statements {
        let doing = || format!("erase again: {}", erasure.words());
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).context(doing())?;
        // Nothing of it stays in free pages.
        let sql = format!("PRAGMA secure_delete = ON; BEGIN; {sql}\n; COMMIT");
        connection.execute_batch(&sql).map_err(|error| {
            Fault::permanent(doing()).cause(error).hint(
                "`respaldo erase JOB --list` shows what was erased; this backup does not suit that statement, so nothing was put in place",
            )
        })?;
    }
    Ok(())
}
