//! The ledger of what was erased: `<job>/erasures.json` on every destination, and in the catalog. Two
//! lines, the ledger and its signature, so that one put replaces both. Knows how it is read, believed
//! and joined; must not know what an erasure does.

use bytes::Bytes;
use futures::future::join_all;

use super::commit::owner;
use super::delivery::within;
use super::{Found, Job, Site};
use crate::destination::{Destination, Key, LEDGER, read_small};
use crate::durable::Existing;
use crate::fault::{Context, Fault, Result};
use crate::model::erasure::MAX_LEDGER_BYTES;
use crate::model::{Erasure, JobName, Ledger};
use crate::signature::{self, Verdict};

/// The ledger as it lies on a destination; `None`: nothing was ever erased there.
async fn read(
    destination: &dyn Destination,
    job: &JobName,
    trusted: &[String],
) -> Result<Option<(Ledger, Verdict)>> {
    let key = Key::job(job).child(LEDGER)?;
    let Some(bytes) = read_small(destination, &key, MAX_LEDGER_BYTES).await? else {
        return Ok(None);
    };
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (ledger, signature) = bytes.split_at(end);
    let signature = Some(signature.trim_ascii()).filter(|text| !text.is_empty());
    let verdict = signature::verify(ledger, signature, trusted);
    let ledger = Ledger::parse(ledger, job).map_err(|fault| {
        let hint = format!("look at {}/{key}, and move it away if it is none", destination.place());
        Fault::permanent(format!("the erasures on '{}' can't be read", destination.name()))
            .cause(fault)
            .hint(hint)
    })?;
    Ok(Some((ledger, verdict)))
}

pub(super) async fn put(site: &Site, destination: &dyn Destination, ledger: &Ledger) -> Result<()> {
    let doing = "write the erasures";
    let mut bytes = serde_json::to_vec(ledger).context(doing)?;
    let signature = serde_json::to_vec(&site.signer.sign(&bytes)).context(doing)?;
    bytes.push(b'\n');
    bytes.extend(signature);
    bytes.push(b'\n');
    if bytes.len() as u64 > MAX_LEDGER_BYTES {
        return Err(Fault::usage("the ledger of erasures is full")
            .hint("say several erasures by one statement, such as DELETE ... WHERE id IN (...)"));
    }
    let key = Key::job(&ledger.job).child(LEDGER)?;
    destination.put(&key, Bytes::from(bytes), Existing::Replace).await?;
    Ok(())
}

fn doubt(destination: &dyn Destination, verdict: &Verdict) -> Option<Fault> {
    let name = destination.name();
    let what = match verdict {
        Verdict::Trusted => return None,
        Verdict::UnknownKey(key) => {
            format!("the erasures on '{name}' are signed by a key that is not known here ({key})")
        }
        Verdict::Missing => format!("the erasures on '{name}' are not signed"),
        Verdict::Broken => format!("the erasures on '{name}' are not those that were signed"),
    };
    Some(Fault::permanent(what))
}

/// What the catalog remembers.
pub(super) async fn remembered(site: &Site, job: &JobName) -> Result<Vec<Erasure>> {
    let text = site.catalog.fact(&fact(job)).await?;
    text.map_or(Ok(Vec::new()), |text| {
        serde_json::from_str(&text).context("read the erasures in the catalog")
    })
}

pub(super) async fn remember(site: &Site, job: &JobName, erasures: &[Erasure]) -> Result<()> {
    let mut ledger = Ledger::new(job);
    ledger.merge(&remembered(site, job).await?);
    ledger.merge(erasures);
    let text = serde_json::to_string(&ledger.erasures).context("remember the erasures")?;
    site.catalog.set_fact(&fact(job), &text).await
}

fn fact(job: &JobName) -> String {
    format!("erasures {job}")
}

/// The ledgers of a job's destinations, and what they know together.
pub(super) struct Gathered {
    pub erasures: Vec<Erasure>,
    /// In the order of the job's places, each as it lies there; an error: it can't be used.
    pub shelves: Vec<Result<Ledger>>,
}

/// Reads every ledger, and has the catalog remember what any of them knows.
pub(super) async fn gather(site: &Site, job: &Job) -> Result<Gathered> {
    let look = async |destination: &dyn Destination| {
        let foreign = owner(job, destination).await?.is_some_and(|o| o != site.installation);
        let Some((ledger, verdict)) = read(destination, &job.name, &site.trusted).await? else {
            return Ok((Ledger::new(&job.name), foreign));
        };
        doubt(destination, &verdict).map_or(Ok((ledger, foreign)), |fault| {
            Err(fault
                .hint("if you know the key, add it to `trusted_keys`; else move the file away"))
        })
    };
    let looks = job.places.iter().map(|place| within(job.stall, look(place.destination.as_ref())));
    let looks = join_all(looks).await;
    for fault in looks.iter().filter_map(|look| look.as_ref().err()) {
        tracing::warn!("{}", fault.chain());
    }
    let mut all = Ledger::new(&job.name);
    all.merge(&remembered(site, &job.name).await?);
    looks.iter().flatten().for_each(|(ledger, _)| all.merge(&ledger.erasures));
    if !all.erasures.is_empty() {
        remember(site, &job.name, &all.erasures).await?;
    }
    let shelves = job.places.iter().zip(looks).map(|(place, look)| {
        let (ledger, foreign) = look?;
        if !foreign {
            return Ok(ledger);
        }
        // Read it may be, written not.
        let name = place.destination.name();
        Err(Fault::permanent(format!("another respaldo owns this job's folder on '{name}'"))
            .hint(format!("`respaldo prune {} --adopt` takes it over", job.name)))
    });
    Ok(Gathered { erasures: all.erasures, shelves: shelves.collect() })
}

/// What must not come back by this restore: by the destination's ledger, and with `site` by the
/// catalog too. A ledger that nobody here trusts is refused, unless `trust`.
pub async fn to_reapply(
    found: &Found,
    site: Option<&Site>,
    trusted: &[String],
    trust: bool,
) -> Result<Vec<Erasure>> {
    let job = &found.manifest.job;
    let mut all = Ledger::new(job);
    if let Some(site) = site {
        all.merge(&remembered(site, job).await?);
    }
    let destination = found.destination.as_ref();
    if let Some((ledger, verdict)) = read(destination, job, trusted).await? {
        if let Some(fault) = doubt(destination, &verdict).filter(|_| !trust) {
            return Err(fault.hint(
                "somebody may have changed what a restore would delete: look at erasures.json; --trust takes it all the same",
            ));
        }
        all.merge(&ledger.erasures);
    }
    Ok(all.erasures)
}
