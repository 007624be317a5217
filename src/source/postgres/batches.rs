//! An archive loaded while it arrives: a large table as soon as it begins, small ones together once they are here, each
//! with its indexes and keys; then what needs all of them. Knows in which order; must not know where an archive comes
//! from, nor what is stored where in it.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc::UnboundedReceiver;

use super::arrival::{Arrival, Batch};
use super::head::{self, Contents};
use super::loading::{Loading, parallel};
use super::programs::{run, went};
use crate::fault::{Context, Fault, Result};
use crate::model::TableName;
use crate::source::child::{self, Pipes};

/// An archive that arrives, for all who load a part of it at the same time.
struct Parts<'a> {
    archive: &'a Path,
    arrival: &'a Arc<Arrival>,
    contents: Contents<'a>,
}

/// Entries that were loaded, and what was said.
type Loaded = (Vec<i64>, Vec<String>);

impl Loading {
    /// Loads a whole archive that comes into a file.
    pub(super) async fn load_arriving(
        &self,
        archive: &Path,
        arrival: &Arc<Arrival>,
        batches: UnboundedReceiver<Batch>,
    ) -> Result<Vec<String>> {
        let cancel = self.session.cancel.child_token();
        let mut loading = self.clone();
        loading.session.cancel = cancel.clone();
        loading.load_batches(archive, arrival, batches).await.map_err(|fault| {
            // What one has met ends all the others.
            arrival.refuse();
            cancel.cancel();
            let broke = |error| Fault::transient("keep the archive in the spool").cause(error);
            arrival.broke().map_or(fault, broke)
        })
    }

    async fn load_batches(
        &self,
        archive: &Path,
        arrival: &Arc<Arrival>,
        mut batches: UnboundedReceiver<Batch>,
    ) -> Result<Vec<String>> {
        let Some(first) = batches.recv().await else {
            // Nothing in it is large: pg_restore has the better overview.
            whole(arrival)?;
            let all = self.pg_restore()?.arg("--exit-on-error").args(parallel(self.jobs));
            return run(all.arg(archive), &self.session).await;
        };
        let head = arrival.head();
        let contents = head::contents(&head).ok_or_else(|| Fault::permanent("it has no head"))?;
        let definitions = contents.definitions();
        let mut said = self.load_entries(self.pg_restore()?, archive, &definitions, 1).await?;
        let parts = Parts { archive, arrival, contents };
        let others = stream::poll_fn(move |context| batches.poll_recv(context));
        let loading = stream::iter([first]).chain(others);
        let loading = loading.map(|batch| self.load_batch(&parts, batch));
        let loaded: Vec<Loaded> = loading.buffer_unordered(self.jobs).try_collect().await?;
        whole(arrival)?;
        let (ids, words): (Vec<_>, Vec<_>) = loaded.into_iter().unzip();
        said.extend(words.concat());
        let done: HashSet<i64> = ids.concat().into_iter().chain(definitions).collect();
        let rest = parts.contents.entries.iter().map(|entry| entry.id);
        let rest: Vec<i64> = rest.filter(|id| !done.contains(id)).collect();
        said.extend(self.load_entries(self.pg_restore()?, archive, &rest, self.jobs).await?);
        Ok(said)
    }

    async fn load_batch(&self, parts: &Parts<'_>, batch: Batch) -> Result<Loaded> {
        let _session = self.sessions.acquire().await.context("wait for a session")?;
        let (rows, is_large) = (batch.rows.clone(), batch.is_large);
        let tables = parts.contents.tables_of(&rows.iter().copied().collect());
        let made = parts.contents.made_of(&tables);
        let all = [&rows[..], &made].concat();
        // Indexes of a large table may be made by several sessions.
        let mut said = self.feed_batch(parts, batch, if is_large { &rows } else { &all }).await?;
        if is_large {
            said.extend(self.make(parts.archive, &made).await?);
            for (table, name) in self.counted(&parts.contents, &tables) {
                self.look_at(&name, parts.contents.is_complete(table, &made)).await?;
            }
        }
        Ok((all, said))
    }

    /// Gives a program the head of an archive with these entries, and the rows as they come.
    async fn feed_batch(
        &self,
        parts: &Parts<'_>,
        batch: Batch,
        entries: &[i64],
    ) -> Result<Vec<String>> {
        let program = self.pg_restore()?.arg("--exit-on-error");
        let child = child::spawn(program, Pipes::Stdin, self.session.cancel.clone()).await?;
        let mut into = child.stdin.ok_or_else(|| Fault::permanent("the program has no input"))?;
        let head = parts.contents.only(&entries.iter().copied().collect());
        let arrival = parts.arrival.clone();
        let copying = tokio::task::spawn_blocking(move || {
            into.write_all(&head)?;
            arrival.copy(&batch, &into)
        });
        let copied = copying.await.context("hand over what comes")?;
        // Whoever reads knows better why it broke.
        let said = went(child::ended(child.end).await?, false)?;
        copied.context("hand over what comes")?;
        Ok(said)
    }

    /// Those of these tables that the backup has counted.
    fn counted(&self, contents: &Contents<'_>, tables: &HashSet<i64>) -> Vec<(i64, TableName)> {
        let print = self.facts.as_ref().and_then(|facts| facts.fingerprint.as_ref());
        let counted = print.into_iter().flat_map(|print| &print.tables).map(|table| &table.name);
        let made = contents.tables();
        let these = counted.filter_map(|name| {
            let id = made.get(&(name.schema.as_bytes(), name.table.as_bytes()))?;
            tables.contains(id).then(|| (*id, name.clone()))
        });
        these.collect()
    }
}

fn whole(arrival: &Arrival) -> Result<()> {
    match arrival.is_whole() {
        true => Ok(()),
        false => Err(Fault::transient("the archive did not come to its end")),
    }
}
