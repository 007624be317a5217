//! What restores have replaced: put back, removed when its time is over, and found again after a
//! restore was killed. Knows the catalog and sources; must not know how one thing takes another's place.

use std::sync::Arc;

use super::super::{Control, Job, Site, Spool};
use super::source_for;
use crate::catalog::Replaced;
use crate::fault::{Fault, Result};
use crate::model::{BackupId, SourceFacts};
use crate::source::{Kept, Session, Source};

/// All that the job's last restore has replaced.
pub async fn undo_plan(site: &Site, job: &Job) -> Result<Vec<Replaced>> {
    let kept = site.catalog.kept(&job.name).await?;
    let Some(last) = kept.first().map(|kept| kept.at) else {
        return Err(Fault::usage(format!(
            "nothing that a restore of '{}' replaced is kept",
            job.name
        ))
        .hint("an older state comes back by `respaldo restore`, from a backup"));
    };
    // One restore replaces all of it at one moment; the same backup may have been restored before.
    Ok(kept.into_iter().take_while(|kept| kept.at == last).collect())
}

/// Puts each back in its place. What was restored is kept in turn, so that this can be undone too.
pub async fn undo(
    site: &Site,
    job: &Job,
    replaced: &[Replaced],
    session: &Session,
) -> Result<Vec<String>> {
    let (mut said, now) = (Vec::new(), site.clock.now());
    for one in replaced {
        let facts = SourceFacts::named(one.engine, &one.source);
        let source = source_of(job, &facts)?;
        let kept = Kept { current: one.current.clone(), kept: one.kept.clone() };
        let other = source.undo(&kept, session).await?;
        let names = (other.current.as_str(), other.kept.as_str());
        let of = (&job.name, &one.backup);
        site.catalog.remember_kept(of, &facts, names, now).await?;
        site.catalog.forget_kept(one.id).await?;
        said.push(format!("'{}' is what it was before the restore of {}", one.current, one.backup));
        said.push(format!("what was restored is kept as '{}'", other.kept));
    }
    Ok(said)
}

/// Removes what restores have replaced longer ago than a job keeps it.
pub async fn forget_old(site: &Site, jobs: &[Arc<Job>], control: &Control) {
    let now = site.clock.now();
    for job in jobs {
        let kept = match site.catalog.kept(&job.name).await {
            Ok(kept) => kept,
            Err(fault) => {
                tracing::error!("{}", fault.chain());
                continue;
            }
        };
        for old in kept.iter().filter(|kept| now.duration_since(kept.at) > job.keep_old) {
            match forget(site, job, old, control).await {
                Ok(()) => tracing::info!("removed '{}', which a restore replaced", old.kept),
                Err(fault) => tracing::warn!("'{}' is still there: {}", old.kept, fault.chain()),
            }
        }
    }
}

async fn forget(site: &Site, job: &Job, old: &Replaced, control: &Control) -> Result<()> {
    let spool = Spool::create(site, &format!("forget-{}", old.id), control)?;
    let source = source_of(job, &SourceFacts::named(old.engine, &old.source))?;
    let kept = Kept { current: old.current.clone(), kept: old.kept.clone() };
    source.forget(&kept, spool.session()).await?;
    site.catalog.forget_kept(old.id).await
}

fn source_of(job: &Job, facts: &SourceFacts) -> Result<Arc<dyn Source>> {
    source_for(job, facts).ok_or_else(|| {
        Fault::usage(format!("job '{}' backs up no {} now", job.name, facts.engine.as_str()))
            .hint("put its source back into the config")
    })
}

/// After a restore was killed: says what it left, removes what is half, and remembers what it had
/// replaced. Returns whether it had come to its end.
pub async fn settle(site: &Site, job: &Job, backup: &BackupId) -> Result<bool> {
    let (mut complete, now) = (false, site.clock.now());
    for source in &job.sources {
        let left = source.clear_leftovers().await?;
        left.said.iter().for_each(|line| tracing::warn!("{line}"));
        complete |= left.finished;
        for kept in source.replaced(backup).await? {
            let facts = SourceFacts::named(source.engine(), source.name());
            let names = (kept.current.as_str(), kept.kept.as_str());
            let of = (&job.name, backup);
            if site.catalog.remember_kept(of, &facts, names, now).await? {
                tracing::warn!(
                    "'{}' is the restored one; '{}' is what it was",
                    kept.current,
                    kept.kept
                );
                complete = true;
            }
        }
    }
    Ok(complete)
}
