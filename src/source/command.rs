//! Any program's standard output as one artifact, its exit status obeyed. Knows nothing of what the
//! program does; must not show what it was given in its environment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::FutureExt;

use super::child::{self, Ended, Pipes, Program};
use super::{
    Dump, Exit, Finished, Flow, Intake, Part, Scratch, Session, Source, Target, Wanted, safe_name,
};
use crate::durable::{self, Draft, Existing};
use crate::fault::{Context, Fault, Result};
use crate::model::{Artifact, ArtifactFormat, Engine, SourceFacts};
use crate::secret::Secret;

/// A program whose output is backed up.
#[derive(Debug, Clone)]
pub struct Command {
    /// What the artifact is called.
    pub name: String,
    /// The ending of its file's name, without a dot.
    pub extension: String,
    /// The program and its arguments; at least one.
    pub words: Vec<String>,
    /// The program that takes a backup in, and its arguments; empty: a restore writes a file.
    pub restore: Vec<String>,
    /// All that either finds in its environment, beside `PATH` and `LC_ALL`.
    pub env: BTreeMap<String, Secret>,
}

#[async_trait]
impl Source for Command {
    fn engine(&self) -> Engine {
        Engine::Command
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    async fn inspect(&self, _session: &Session) -> Result<SourceFacts> {
        self.program(&self.words)?;
        // The arguments are visible to every user of the machine as it is.
        let tool = Some(self.words.join(" "));
        Ok(SourceFacts { tool, ..SourceFacts::named(Engine::Command, &self.name) })
    }

    async fn open(&self, session: &Session) -> Result<Dump> {
        let facts = self.inspect(session).await?;
        let program = self.program(&self.words)?;
        let (source, cancel) = (self.clone(), session.cancel.clone());
        let stem = safe_name(&self.name, "command");
        let part = Part::new(stem, ArtifactFormat::Bytes, move || {
            async move {
                let child = child::spawn(program, Pipes::Stdout, cancel).await?;
                let stdout =
                    child.stdout.ok_or_else(|| Fault::permanent("the program has no output"))?;
                let wrote = Arc::new(AtomicBool::new(false));
                let reader = Box::new(Noted { inner: stdout, wrote: wrote.clone() });
                let exit = Exit::new(async move {
                    source.judge(child::ended(child.end).await?)?;
                    if wrote.load(Ordering::Relaxed) {
                        return Ok(Vec::new());
                    }
                    Err(Fault::permanent(format!(
                        "{} succeeded, but wrote nothing",
                        source.words[0]
                    ))
                    .hint("it must write the backup to its standard output"))
                });
                Ok(Flow { reader, exit })
            }
            .boxed()
        });
        Ok(Dump::new(facts, vec![part.ending(&self.extension)]))
    }

    async fn target(&self, wanted: &Wanted, session: &Session) -> Result<Box<dyn Target>> {
        Ok(match &wanted.path {
            Some(path) => Box::new(FileTarget::new(path)?),
            None if !self.restore.is_empty() => {
                self.program(&self.restore)?;
                let spooled = session.spool.join("restore");
                Box::new(ProgramTarget { source: self.clone(), session: session.clone(), spooled })
            }
            None => {
                return Err(Fault::usage("a restore of a command's output needs --to PATH")
                    .hint("name a new file, or set `restore_command` on the source"));
            }
        })
    }

    async fn scratch(&self, _wanted: &Wanted, session: &Session) -> Result<Box<dyn Scratch>> {
        let path = session.spool.join(format!("drill-{}", uuid::Uuid::new_v4().simple()));
        Ok(Box::new(FileScratch { target: FileTarget::new(&path)? }))
    }
}

impl Command {
    fn program(&self, words: &[String]) -> Result<Program> {
        let missing = || {
            let name = words.first().map(String::as_str).unwrap_or_default();
            Fault::permanent(format!("there is no program '{name}'")).hint(format!(
                "install it here, or write its whole path; looked in {}",
                child::PATH
            ))
        };
        let (name, arguments) = words.split_first().ok_or_else(missing)?;
        let path = child::locate(name);
        let program = Program::new(path.ok_or_else(missing)?).args(arguments);
        Ok(self.env.iter().fold(program, |program, (key, value)| program.env(key, value.expose())))
    }

    /// What it said goes to the run's log: many programs say there how far they are.
    fn judge(&self, ended: Ended) -> Result<()> {
        let stderr = ended.stderr.iter().map(|line| self.scrub(line)).collect();
        let ended = Ended { stderr, ..ended };
        if !ended.status.success() {
            return Err(ended.fault());
        }
        for line in &ended.stderr {
            tracing::info!("{}: {line}", ended.program);
        }
        Ok(())
    }

    /// The line without what the program was given in secret.
    fn scrub(&self, line: &str) -> String {
        let secrets = self.env.values().map(Secret::expose).filter(|secret| secret.len() > 3);
        secrets.fold(line.to_owned(), |line, secret| line.replace(secret, "***"))
    }
}

/// Notes whether there was anything to read.
struct Noted<R> {
    inner: R,
    wrote: Arc<AtomicBool>,
}

impl<R: Read> Read for Noted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if read > 0 {
            self.wrote.store(true, Ordering::Relaxed);
        }
        Ok(read)
    }
}

fn into_file(draft: &mut Draft) -> Result<Intake> {
    let writer = draft.file().try_clone().context("write the file")?;
    Ok(Intake { writer: Box::new(writer), exit: Exit::new(async { Ok(Vec::new()) }) })
}

/// A file that must not exist yet.
struct FileTarget {
    path: PathBuf,
    draft: Option<Draft>,
}

impl FileTarget {
    fn new(path: &Path) -> Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(Fault::usage(format!("{} exists", path.display()))
                .hint("name a file that does not exist yet"));
        }
        Ok(Self { path: path.to_owned(), draft: None })
    }
}

#[async_trait]
impl Target for FileTarget {
    fn plan(&self) -> Vec<String> {
        vec![format!("into the new file {}", self.path.display())]
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    async fn begin(&mut self) -> Result<()> {
        if let Some(parent) = self.path.parent() {
            durable::create_folder(parent).context(format!("create {}", parent.display()))?;
        }
        let draft = Draft::create(&self.path).context(format!("create {}", self.path.display()))?;
        self.draft = Some(draft);
        Ok(())
    }

    async fn load(&mut self, _artifact: &Artifact) -> Result<Intake> {
        into_file(self.draft.as_mut().ok_or_else(|| Fault::permanent("the target is not open"))?)
    }

    async fn finish(&mut self) -> Result<Finished> {
        let draft = self.draft.take().ok_or_else(|| Fault::permanent("the target is not open"))?;
        draft.publish(Existing::Refuse).context(format!("create {}", self.path.display()))?;
        Ok(vec![format!("{} is in place", self.path.display())].into())
    }

    async fn discard(&mut self) {
        self.draft = None;
    }
}

/// A file for one drill, which programs of the job's own look at.
struct FileScratch {
    target: FileTarget,
}

#[async_trait]
impl Scratch for FileScratch {
    fn target(&mut self) -> &mut dyn Target {
        &mut self.target
    }

    async fn check(&mut self, _sql: &str) -> Result<bool> {
        Err(Fault::usage("a command's output answers no SQL"))
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let draft = self.target.draft.iter();
        draft.map(|draft| ("RESPALDO_PATH", draft.path().display().to_string())).collect()
    }

    async fn remove(mut self: Box<Self>) -> Result<()> {
        self.target.discard().await;
        Ok(())
    }
}

/// A program that takes the backup in. It is kept in the spool until every digest was right: what a
/// program has read can't be taken back.
struct ProgramTarget {
    source: Command,
    session: Session,
    spooled: PathBuf,
}

#[async_trait]
impl Target for ProgramTarget {
    fn plan(&self) -> Vec<String> {
        vec![format!(
            "into '{}', once every digest was right: what becomes of what is there now is its own affair",
            self.source.restore.join(" ")
        )]
    }

    fn name(&self) -> String {
        self.source.name.clone()
    }

    async fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    async fn load(&mut self, _artifact: &Artifact) -> Result<Intake> {
        let writer = File::create(&self.spooled).context("write the spool")?;
        Ok(Intake { writer: Box::new(writer), exit: Exit::new(async { Ok(Vec::new()) }) })
    }

    async fn finish(&mut self) -> Result<Finished> {
        let program = self.source.program(&self.source.restore)?;
        let child = child::spawn(program, Pipes::Stdin, self.session.cancel.clone()).await?;
        let mut stdin = child.stdin.ok_or_else(|| Fault::permanent("the program has no input"))?;
        let mut spooled = File::open(&self.spooled).context("read the spool")?;
        let fed = tokio::task::spawn_blocking(move || io::copy(&mut spooled, &mut stdin));
        let fed = fed.await.context("hand the backup to the program")?;
        // Its own words explain more than the pipe that broke.
        self.source.judge(child::ended(child.end).await?)?;
        fed.transient("hand the backup to the program")?;
        Ok(vec![format!("'{}' took it in", self.source.restore[0])].into())
    }

    async fn discard(&mut self) {
        std::fs::remove_file(&self.spooled).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_in_secret_is_not_repeated() {
        let env = [("A", "hunter2"), ("B", "x")].map(|(k, v)| (k.to_owned(), Secret::new(v)));
        let command = Command {
            name: "a".into(),
            extension: "bin".into(),
            words: vec!["true".into()],
            restore: Vec::new(),
            env: env.into(),
        };
        assert_eq!(command.scrub("auth x:hunter2 failed"), "auth x:*** failed");
    }
}
