//! What a run alone may have: a backup's folder, by its claim, and a time of the schedule. Knows runs and
//! claims; must not know where a claim lies.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Catalog, Run, millis};
use crate::fault::{Context, Result};
use crate::model::{BackupId, JobName, RunId, RunKind, Trigger};

impl Catalog {
    /// Says that a run which is under way makes another backup than it was started for.
    pub async fn turn_to(&self, id: RunId, backup: &BackupId, log: &str) -> Result<()> {
        sqlx::query("UPDATE runs SET backup = ?, log = ? WHERE id = ?")
            .bind(backup.to_string())
            .bind(log)
            .bind(id.0)
            .execute(&self.pool)
            .await
            .context("record the run's backup")?;
        Ok(())
    }

    /// Remembers the claim under which a run writes.
    pub async fn add_claim(&self, claim: Uuid, run: RunId) -> Result<()> {
        self.set_fact(&format!("claim:{claim}"), &run.to_string()).await
    }

    /// The run of this installation that writes or wrote under a claim.
    pub async fn claimant(&self, claim: Uuid) -> Result<Option<Run>> {
        let run = self.fact(&format!("claim:{claim}")).await?.and_then(|run| run.parse().ok());
        match run {
            Some(run) => self.run(RunId(run)).await,
            None => Ok(None),
        }
    }

    /// Whether a run was asked for by the schedule since its time `at`.
    pub async fn had_its_run(&self, job: &JobName, kind: RunKind, at: Timestamp) -> Result<bool> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM runs WHERE job = ? AND kind = ? AND requested_at >= ?
             AND trigger IN (?, ?))",
        )
        .bind(job.as_str())
        .bind(kind.as_str())
        .bind(millis(at))
        .bind(Trigger::Schedule.as_str())
        .bind(Trigger::CatchUp.as_str())
        .fetch_one(&self.pool)
        .await
        .context("look for a scheduled run")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Request;

    #[tokio::test]
    async fn a_scheduled_time_has_its_run_once_the_schedule_has_asked_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path()).await.unwrap();
        let job: JobName = "db".parse().unwrap();
        let at: Timestamp = "2025-11-24T02:00:00Z".parse().unwrap();
        let second = jiff::SignedDuration::from_secs(1);
        let had = async || catalog.had_its_run(&job, RunKind::Backup, at).await.unwrap();
        for (trigger, asked, expected) in [
            (Trigger::Schedule, at - second, false),
            (Trigger::Manual, at + second, false),
            (Trigger::CatchUp, at + second, true),
        ] {
            let run = Request::own(&job, RunKind::Backup, trigger);
            catalog.add_run(&run, asked).await.unwrap();
            assert_eq!(had().await, expected, "{trigger:?}");
        }
        let drill = catalog.had_its_run(&job, RunKind::Drill, at).await.unwrap();
        assert!(!drill, "another kind has times of its own");
    }

    #[tokio::test]
    async fn a_claim_is_known_by_its_run() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path()).await.unwrap();
        let job: JobName = "db".parse().unwrap();
        let request = Request::own(&job, RunKind::Backup, Trigger::Manual);
        let run = catalog.add_run(&request, Timestamp::UNIX_EPOCH).await.unwrap();
        let claim = Uuid::new_v4();
        catalog.add_claim(claim, run).await.unwrap();
        assert_eq!(catalog.claimant(claim).await.unwrap().map(|run| run.id), Some(run));
        assert!(catalog.claimant(Uuid::new_v4()).await.unwrap().is_none());
    }
}
