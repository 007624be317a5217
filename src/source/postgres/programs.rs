//! Programs that load a database, run to their end: alone, or one into the other. Knows their last words
//! and adds the next step; must not know what is loaded.

use std::io;

use crate::fault::{Context, Fault, Result};
use crate::source::Session;
use crate::source::child::{self, Ended, Pipes, Program};

/// pg_restore's last words when it came to the end in spite of errors.
const WENT_ON: &str = "errors ignored on restore";

pub(super) async fn run(program: Program, session: &Session) -> Result<Vec<String>> {
    run_on((program, false), session).await
}

/// Runs a program to its end; one that `goes_on` may have met errors that it said.
pub(super) async fn run_on(
    (program, goes_on): (Program, bool),
    session: &Session,
) -> Result<Vec<String>> {
    let child = child::spawn(program, Pipes::Stdout, session.cancel.clone()).await?;
    drop(child.stdout);
    went(child::ended(child.end).await?, goes_on)
}

pub(super) fn went(ended: Ended, goes_on: bool) -> Result<Vec<String>> {
    let went_on = goes_on && ended.stderr.iter().any(|line| line.contains(WENT_ON));
    match ended.status.success() || went_on {
        true => Ok(ended.stderr),
        false => Err(explain(&ended)),
    }
}

/// One program's output into another one's input, until both have ended well.
pub(super) async fn run_into(reader: Program, writer: Program, session: &Session) -> Result<()> {
    let writer = child::spawn(writer, Pipes::Stdin, session.cancel.clone()).await?;
    let reader = child::spawn(reader, Pipes::Stdout, session.cancel.clone()).await?;
    let (from, to) = (reader.stdout, writer.stdin);
    let copying = tokio::task::spawn_blocking(move || match (from, to) {
        (Some(mut from), Some(mut to)) => io::copy(&mut from, &mut to).map(drop),
        _ => Err(io::ErrorKind::NotConnected.into()),
    });
    let copied = copying.await.context("hand it over")?;
    let (reader, writer) = (child::ended(reader.end).await?, child::ended(writer.end).await?);
    went(writer, false)?;
    went(reader, false)?;
    copied.context("hand it over")
}

/// The first error, for what follows is the statement that it is about.
fn explain(ended: &Ended) -> Fault {
    let first =
        ended.stderr.iter().position(|line| line.contains("error: ") || line.contains("ERROR: "));
    let stderr = ended.stderr.iter().skip(first.unwrap_or(0));
    let stderr = match first {
        Some(_) => stderr.take(2).cloned().collect(),
        None => ended.stderr.clone(),
    };
    let fault = Ended { program: ended.program.clone(), status: ended.status, stderr }.fault();
    let text = fault.chain();
    if text.contains("role \"") && text.contains("does not exist") {
        return fault
            .hint("create the missing role first (--create-roles), or restore with --no-owner");
    }
    if text.contains("extension") {
        return fault.hint("install the extension on this server first");
    }
    fault
}
