//! The command line: words in, sentences and exit codes out. stdout carries data only; talk goes to
//! stderr. Knows people; must not know how a run is done.
//!
//! Exit codes: 0 done, 1 failed, 2 bad usage or config, 3 partial.

mod alert;
mod args;
mod audit;
mod backup;
mod config;
mod drill;
mod erase;
mod health;
mod import;
mod key;
mod lifecycle;
mod list;
mod output;
mod pin;
mod prune;
mod report;
mod restore;
mod status;
mod sync;
mod token;
mod verify;
mod wal;

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tokio_util::sync::CancellationToken;

use crate::app::{self, App};
use crate::clock::Clock;
use crate::config::{self as settings, Loaded};
use crate::fault::{Context, Fault, FaultKind, Result};
use crate::job::{self, rebuild, recover};
use crate::telemetry;
use crate::{daemon, model};
use args::{Args, Catalog, Command};

/// What a command ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Done,
    Partial,
    Failed,
    Usage,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partial => 3,
        }
    }

    fn of(fault: &Fault) -> Self {
        if fault.kind() == FaultKind::Usage { Self::Usage } else { Self::Failed }
    }
}

/// Every command and flag, as clap knows them: what the reference is written from, and what each
/// command line in the documents is held against.
pub fn command() -> clap::Command {
    Args::command()
}

pub fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let exit = match runtime.context("start the runtime") {
        Ok(runtime) => {
            let exit = runtime.block_on(dispatch(args));
            // A thread that hangs in a dead mount must not keep the process.
            runtime.shutdown_background();
            exit
        }
        Err(fault) => Err(fault),
    };
    let exit = exit.unwrap_or_else(|fault| {
        output::fault(&fault);
        Exit::of(&fault)
    });
    ExitCode::from(exit.code())
}

/// What a command works with.
pub(super) struct Desk {
    pub(super) app: App,
    /// Cancelled by Ctrl-C or SIGTERM.
    pub(super) stop: CancellationToken,
}

async fn dispatch(args: Args) -> Result<Exit> {
    let clock = Clock::system();
    let stream = match args.command {
        Command::Run => telemetry::Stream::Stdout,
        _ => telemetry::Stream::Stderr,
    };
    let default = match args.command {
        Command::Run => "respaldo=info,audit=info,warn",
        _ => "warn",
    };
    let filter = settings::environment("RUST_LOG").unwrap_or_else(|| default.to_owned());
    let colour = settings::environment("NO_COLOR").is_none_or(|value| value.is_empty());
    telemetry::start(args.log_format.into(), stream, &filter, colour, clock.clone());

    let file = args.config.as_deref();
    match args.command {
        Command::Run => {
            let loaded = load(file, &clock)?;
            loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            daemon::run(args.config, loaded, clock).await?;
            Ok(Exit::Done)
        }
        Command::Backup(wanted) => backup::backup(&open(file, clock).await?, wanted).await,
        Command::List(wanted) => list::list(file, clock, wanted).await,
        Command::Show(wanted) => list::show(&open(file, clock).await?, wanted).await,
        Command::Verify(wanted) => verify::verify(file, clock, wanted).await,
        Command::Restore(wanted) => restore::restore(file, clock, *wanted).await,
        Command::Undo(wanted) => restore::undo(&open(file, clock).await?, wanted).await,
        Command::Drill(wanted) => drill::drill(file, clock, wanted).await,
        Command::Prune(wanted) => prune::prune(&open(file, clock).await?, wanted).await,
        Command::Sync(wanted) => sync::sync(&open(file, clock).await?, wanted).await,
        Command::Erase(wanted) => erase::erase(&open(file, clock).await?, wanted).await,
        Command::Import(wanted) => import::import(&open(file, clock).await?, wanted).await,
        Command::Pin(wanted) => pin::pin(&open(file, clock).await?, wanted).await,
        Command::Unpin(wanted) => pin::unpin(&open(file, clock).await?, wanted).await,
        Command::Report(wanted) => report::report(&open(file, clock).await?, wanted).await,
        Command::Status { json } => status::status(&open(file, clock).await?, json).await,
        Command::Health(wanted) => health::health(file, &wanted),
        Command::Alert(args::Alert::Test(wanted)) => {
            alert::test(&load(file, &clock)?, clock, &wanted).await
        }
        Command::Config(command) => config::config(file, clock, command).await,
        Command::Catalog(Catalog::Rebuild) => rebuild_catalog(&open(file, clock).await?).await,
        Command::Lifecycle { json } => {
            let loaded = load(file, &clock)?;
            lifecycle::lifecycle(&App::open(&loaded, clock, app::person()).await?, json)
        }
        Command::Wal(wanted) => wal::wal(&open(file, clock).await?, wanted).await,
        Command::Key(key) => key::key(&key),
        Command::Token(wanted) => token::token(&open(file, clock).await?, wanted).await,
        Command::Audit(wanted) => audit::audit(&open(file, clock).await?, wanted).await,
        Command::Cancel { run } => cancel(&open(file, clock).await?, run).await,
    }
}

fn load(file: Option<&Path>, clock: &Clock) -> Result<Loaded> {
    settings::load(file, clock.now())
}

/// Loads the config, opens the catalog, and tells the truth about runs that died.
async fn open(file: Option<&Path>, clock: Clock) -> Result<Desk> {
    let app = App::open(&load(file, &clock)?, clock, app::person()).await?;
    if app.site.catalog.is_empty().await? {
        rebuild(&app.site, &app.jobs).await?;
    }
    recover(&app.site, &app.jobs, false).await?;
    Ok(Desk { app, stop: stop_token()? })
}

/// Cancelled by the first Ctrl-C or SIGTERM.
fn stop_token() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancel.cancel();
    });
    Ok(stop)
}

async fn rebuild_catalog(desk: &Desk) -> Result<Exit> {
    let (count, troubles) = rebuild(&desk.app.site, &desk.app.jobs).await?;
    output::say(&format!("{count} copies of backups are in the catalog"));
    troubles.iter().for_each(|trouble| output::say(&format!("not read: {trouble}")));
    Ok(if troubles.is_empty() { Exit::Done } else { Exit::Partial })
}

async fn cancel(desk: &Desk, run: model::RunId) -> Result<Exit> {
    let site = &desk.app.site;
    job::cancel(site, &site.actor, run).await?;
    output::say(&format!("run {run} is being stopped"));
    Ok(Exit::Done)
}
