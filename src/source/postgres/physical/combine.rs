//! A chain of base backups made one: each unpacked into a stage of its own, put together by PostgreSQL's
//! own program, checked by another, and moved to where a full one would lie. Knows those programs and
//! where they want things; must not know where a backup comes from.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::super::client;
use super::data_folder::{DataFolder, HELD_BACK, TABLESPACES, VERSION, look_through, unpack};
use crate::durable;
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, Content};
use crate::source::Intake;
use crate::source::child::{self, Program};

/// Inside of the folder that is being made, so that a second attempt clears it with the rest.
const CHAIN: &str = "respaldo.chain";
const COMBINED: &str = "combined";

/// The programs that put a chain together, of the server's own version.
#[derive(Debug, Clone)]
pub struct Combiner {
    combine: PathBuf,
    /// Not everywhere installed.
    verify: Option<PathBuf>,
}

impl Combiner {
    /// Looks in the folders that are named, and in the usual ones. Another version's program refuses
    /// the files.
    pub async fn find(
        major: u32,
        bin_dirs: &[PathBuf],
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let combine = client::exactly("pg_combinebackup", major, bin_dirs, cancel).await;
        let combine = combine.ok_or_else(|| {
            Fault::permanent(format!(
                "pg_combinebackup of PostgreSQL {major}, which puts a chain of backups together, is not installed here"
            ))
            .hint(format!("install postgresql-client-{major}, or set `bin_dir` on the source"))
        })?;
        let verify = client::exactly("pg_verifybackup", major, bin_dirs, cancel).await;
        Ok(Self { combine, verify })
    }
}

/// One backup of a chain, unpacked beside the others.
pub struct Stage {
    path: PathBuf,
    spaces: BTreeMap<u32, PathBuf>,
    cancel: CancellationToken,
}

impl Stage {
    /// Whether it is needed: what a tablespace held that is no more, nobody asks for.
    pub fn takes(&self, artifact: &Artifact) -> bool {
        match artifact.content {
            Content::Tablespace(oid) => self.spaces.contains_key(&oid),
            _ => true,
        }
    }

    pub async fn load(&self, artifact: &Artifact) -> Result<Intake> {
        let space = match artifact.content {
            Content::Tablespace(oid) => self.spaces.get(&oid).map(PathBuf::as_path),
            _ => None,
        };
        unpack(artifact, &self.path, space, VERSION, &self.cancel).await
    }

    /// All of it is there: leads to its tablespaces as a server's own folder does.
    fn link(&self) -> Result<()> {
        for folder in self.spaces.values().chain([&self.path]) {
            look_through(folder, &self.path)?;
        }
        for (oid, folder) in &self.spaces {
            let link = self.path.join(TABLESPACES).join(oid.to_string());
            symlink(folder, link).context("lead a stage to its tablespace")?;
        }
        Ok(())
    }
}

impl DataFolder {
    /// A place for the `n`th backup of a chain, counted from the full one.
    pub fn stage(&self, n: usize) -> Result<Stage> {
        let made = |folder: &Path| -> Result<PathBuf> {
            let stage = folder.join(CHAIN).join(n.to_string());
            durable::create_folder(&stage).context(format!("make {}", stage.display()))?;
            Ok(stage)
        };
        let spaces = self.spaces.iter().map(|(oid, space)| Ok((*oid, made(&space.folder)?)));
        Ok(Stage {
            path: made(&self.path)?,
            spaces: spaces.collect::<Result<_>>()?,
            cancel: self.cancel.clone(),
        })
    }

    /// Puts so many stages together, and what comes of it where a full backup would lie.
    pub async fn combine(&self, stages: usize, combiner: &Combiner) -> Result<()> {
        let all: Vec<Stage> = (0..stages).map(|n| self.stage(n)).collect::<Result<_>>()?;
        let Some(last) = all.last() else { return Ok(()) };
        all.iter().try_for_each(Stage::link)?;
        let chain = self.path.join(CHAIN);
        let combined = chain.join(COMBINED);
        let mut program = Program::new(&combiner.combine)
            // All of it is synced at the end.
            .args(["--no-sync", "--manifest-checksums=SHA256", "--output"])
            .arg(&combined);
        for (oid, old) in &last.spaces {
            let Some(space) = self.spaces.get(oid) else { continue };
            let new = space.folder.join(CHAIN).join(COMBINED);
            program = program.arg("--tablespace-mapping").arg(format!(
                "{}={}",
                escaped(old),
                escaped(&new)
            ));
        }
        let program = program.args(all.iter().map(|stage| &stage.path));
        tracing::info!("putting {stages} backups together");
        let output = child::output(program, self.cancel.clone()).await;
        output.context("put the chain of backups together")?;
        self.verify(&combined, combiner).await?;
        let (folder, last) = (self.clone(), last.path.clone());
        let moving = tokio::task::spawn_blocking(move || folder.take_over(&last));
        moving.await.context("move what was put together")?
    }

    /// Every file is what PostgreSQL's own list says.
    async fn verify(&self, combined: &Path, combiner: &Combiner) -> Result<()> {
        let Some(verify) = &combiner.verify else {
            tracing::info!("pg_verifybackup is not installed here: its list is not compared");
            return Ok(());
        };
        // The log comes later, and is looked at then.
        let program = Program::new(verify).args(["--no-parse-wal", "--quiet"]).arg(combined);
        match child::output(program, self.cancel.clone()).await {
            Ok(_) => Ok(()),
            Err(fault) if self.cancel.is_cancelled() => Err(fault),
            Err(fault) => {
                Err(Fault::permanent("what was put together is damaged").cause(fault).hint(
                    "begin with the full backup instead: the log leads from there to every later moment",
                ))
            }
        }
    }

    /// Moves what was put together up, and removes the stages. Whom it belongs to, the last of them says.
    fn take_over(&self, last: &Path) -> Result<()> {
        let doing = "move what was put together";
        let owner = last.join(VERSION).symlink_metadata().context(doing)?;
        let folders = self.spaces.values().map(|space| space.folder.as_path());
        for folder in folders.chain([self.path.as_path()]) {
            let chain = folder.join(CHAIN);
            for entry in fs::read_dir(chain.join(COMBINED)).context(doing)? {
                let entry = entry.context(doing)?;
                let name = entry.file_name();
                let name = match name == VERSION && folder == self.path {
                    true => HELD_BACK.into(),
                    false => name,
                };
                fs::rename(entry.path(), folder.join(name)).context(doing)?;
            }
            fs::remove_dir_all(chain).context("remove what was put together")?;
        }
        if rustix::process::geteuid().is_root() {
            let version = self.path.join(HELD_BACK);
            lchown(version, Some(owner.uid()), Some(owner.gid())).context(doing)?;
        }
        Ok(())
    }
}

/// For `--tablespace-mapping`, where `=` parts the two.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace('=', "\\=")
}
