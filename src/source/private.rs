//! A server that is started for one drill, with a socket and all its data in a folder of its own. Knows how
//! such a program is made, awaited and ended; must not know what it serves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Session;
use super::child::{self, Ended, Pipes, Program};
use crate::fault::{Context, Fault, FaultKind, Result};

/// The longest path of a socket on Linux.
const SOCKET_PATH: usize = 107;
const LOOK: Duration = Duration::from_millis(30);
const LOOKS: u32 = 4000;

/// Dropped, it is ended; its folder goes with the run's spool.
pub(super) struct PrivateServer {
    pub folder: PathBuf,
    /// Cancelled when it must end.
    pub stop: CancellationToken,
    end: Option<JoinHandle<Result<Ended>>>,
}

impl PrivateServer {
    /// One that will live in `folder`, where its socket is called `socket`.
    pub(super) fn new(folder: PathBuf, socket: &Path, session: &Session) -> Result<Self> {
        if socket.as_os_str().len() > SOCKET_PATH {
            return Err(Fault::unprovable(format!(
                "{} is too long for a socket",
                socket.display()
            ))
            .hint("take a data_dir with a shorter path"));
        }
        Ok(Self { folder, stop: session.cancel.child_token(), end: None })
    }

    /// Runs the program that makes its data.
    pub(super) async fn make(&self, program: Program) -> Result<()> {
        let made = child::output(program, self.stop.clone()).await;
        made.map(drop).map_err(|fault| could_not("make", fault))
    }

    pub(super) async fn launch(&mut self, program: Program) -> Result<()> {
        let child = child::spawn(program, Pipes::Stdout, self.stop.clone()).await?;
        drop(child.stdout);
        self.end = Some(child.end);
        Ok(())
    }

    /// Waits until somebody gets in.
    pub(super) async fn answer<'a, T>(
        &mut self,
        get_in: impl Fn() -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        for _ in 0..LOOKS {
            if let Ok(connection) = get_in().await {
                return Ok(connection);
            }
            if let Some(ended) = self.ended().await? {
                return Err(could_not("start", ended.fault()));
            }
            Self::rest().await;
        }
        Err(Fault::unprovable("the server for the drill does not answer")
            .hint("is the machine short of memory?"))
    }

    /// How it ended by itself, if it has.
    pub(super) async fn ended(&mut self) -> Result<Option<Ended>> {
        match self.end.take_if(|end| end.is_finished()) {
            Some(end) => child::ended(end).await.map(Some),
            None => Ok(None),
        }
    }

    /// A moment's rest between two looks at it.
    pub(super) async fn rest() {
        tokio::time::sleep(LOOK).await;
    }

    /// Ends it and removes its folder.
    pub(super) async fn end(mut self) -> Result<()> {
        self.stop.cancel();
        if let Some(end) = self.end.take() {
            // That it was stopped is what it says then.
            child::ended(end).await.ok();
        }
        let (doing, folder) = ("remove a scratch server", self.folder.clone());
        let removing = tokio::task::spawn_blocking(move || fs::remove_dir_all(folder));
        removing.await.context(doing)?.context(doing)
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn could_not(what: &str, fault: Fault) -> Fault {
    if fault.kind() == FaultKind::Cancelled {
        return fault;
    }
    Fault::unprovable(format!("a server for the drill could not {what}")).cause(fault)
}
