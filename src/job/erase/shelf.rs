//! A job's backups on one destination, as an erasure goes through them: which hold something of it,
//! which may be changed, and what became of each.

use super::copy::Seen;
use super::{Became, EraseState, ErasedCopy};
use crate::catalog::Gone;
use crate::destination::list_backups;
use crate::fault::{Context, Fault, Result};
use crate::job::delivery::{COMMIT, within};
use crate::job::select::lease_path;
use crate::job::{Control, Job, Place, Site};
use crate::lock::Lock;
use crate::model::{BackupId, Erasure, Subject};
use crate::signature::Verdict;

/// The backups on one destination that an erasure is about.
pub(super) struct Shelf<'a> {
    pub place: &'a Place,
    pub seen: Vec<Seen>,
    pub copies: Vec<ErasedCopy>,
}

impl<'a> Shelf<'a> {
    pub(super) async fn look(
        site: &Site,
        job: &Job,
        place: &'a Place,
        erasure: &Erasure,
    ) -> Result<Self> {
        let destination = place.destination.as_ref();
        let mut shelf = Self { place, seen: Vec::new(), copies: Vec::new() };
        for id in within(job.stall, list_backups(destination, &job.name)).await? {
            if !erasure.precedes(&id) {
                continue;
            }
            match within(job.stall, Seen::look(site, destination, &job.name, &id)).await {
                Ok(Some(seen)) => {
                    let became = shelf.would(&seen, erasure);
                    shelf.note(id, seen.pinned, became);
                    shelf.seen.push(seen);
                }
                Ok(None) => {}
                Err(fault) if fault.is_transient() => return Err(fault),
                Err(fault) => shelf.note(id, false, Became::left(fault.chain())),
            }
        }
        Ok(shelf)
    }

    fn would(&self, seen: &Seen, erasure: &Erasure) -> Became {
        let Subject::Schema(schema) = &erasure.subject else { return Became::default() };
        let gone = seen.manifest.of_schema(schema, erasure.database.as_deref());
        if gone.is_empty() {
            return Became::default();
        }
        if self.place.destination.append_only() {
            return Became::left("the destination is append_only");
        }
        if seen.verdict != Verdict::Trusted {
            return Became::left("no key that is known here has signed it");
        }
        let bytes = gone.iter().map(|artifact| artifact.stored_bytes).sum();
        let files = gone.iter().map(|artifact| artifact.volumes.len()).sum();
        Became { state: EraseState::Planned, files, bytes, ..Became::default() }
    }

    fn note(&mut self, id: BackupId, pinned: bool, became: Became) {
        let destination = self.place.destination.name().to_owned();
        self.copies.retain(|copy| copy.id != id);
        if became.state != EraseState::Untouched {
            self.copies.push(ErasedCopy { id, destination, pinned, became });
        }
    }

    /// Whether all that can be erased here is.
    pub(super) async fn erase(
        &mut self,
        site: &Site,
        job: &Job,
        erasure: &Erasure,
        control: &Control,
    ) -> bool {
        let Subject::Schema(schema) = &erasure.subject else { return true };
        let mut complete = true;
        let destination = self.place.destination.clone();
        for mut seen in std::mem::take(&mut self.seen) {
            let id = seen.manifest.id;
            if control.cancel.is_cancelled() {
                complete = false;
            } else if seen.verdict == Verdict::Trusted {
                // Nobody reads it while it changes; whoever does, is let finish.
                let pinned = seen.pinned;
                let lease = Lock::try_take(&lease_path(&site.data_dir, &job.name, &id));
                let erasing = seen.erase(site, destination.as_ref(), schema, erasure);
                let became = match lease.context("take a lease") {
                    Ok(Some(_lease)) => within(job.stall.max(COMMIT), erasing).await,
                    Ok(None) => Err(Fault::transient("it is being read at this moment")),
                    Err(fault) => Err(fault),
                };
                let became = became.unwrap_or_else(|fault| {
                    complete = false;
                    tracing::error!("{id} on '{}': {}", destination.name(), fault.chain());
                    Became::left(fault.chain())
                });
                if became.state == EraseState::Erased {
                    let gone = (&id, destination.name());
                    let now = site.clock.now();
                    let noted = site.catalog.add_removal(&job.name, gone, Gone::Erased, now).await;
                    if let Err(fault) = noted {
                        tracing::warn!("{}", fault.chain());
                    }
                    tracing::info!(
                        "schema '{schema}' erased from {id} on '{}': {} files, {} bytes",
                        destination.name(),
                        became.files,
                        became.bytes
                    );
                }
                self.note(id, pinned, became);
            }
            self.seen.push(seen);
        }
        complete
    }
}
