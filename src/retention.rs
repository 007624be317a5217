//! Which backups a destination keeps. Pure: a policy, the backups and `now` in; a plan with a reason
//! for each backup out. Only this file can make a [`Doomed`] or an [`Erased`], and nothing else can be
//! deleted.

mod intake;

use std::collections::{HashMap, HashSet};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::manifest::SMALL_FILES;
use crate::model::{BackupId, BackupKind, JobName, Manifest, Volume, chain};

pub use intake::{Accept, takes, wanted};

/// How long a safety backup is kept when the policy names no days.
const SAFETY_DAYS: u32 = 3;

/// What to keep on one destination. A backup is kept when any rule keeps it; with no rule at all,
/// every backup is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The newest so many backups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// Every backup younger than so many days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    /// The newest backup of each of the last so many hours that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// The newest backup of each of the last so many days that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// The newest backup of each of the last so many ISO weeks that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// The newest backup of each of the last so many months that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
    /// The newest backup of each of the last so many years that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yearly: Option<u32>,
    /// For a cold destination: it takes only the first backup of each such period. Default: each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept: Option<Accept>,
}

impl Policy {
    /// No rule says how long: each backup that it takes stays.
    pub fn keeps_everything(&self) -> bool {
        *self == Self { accept: self.accept, ..Self::default() }
    }

    /// The days after which no rule keeps a backup any more, where there is one for every period.
    /// None: no age says it, because backups are counted or all are kept.
    pub fn oldest_days(&self) -> Option<u32> {
        if self.keeps_everything() || self.last.is_some() {
            return None;
        }
        let days = |count: Option<u32>, each: u32| {
            // The period that has begun counts as one, so the oldest may be a whole one older.
            count.map(|count| count.saturating_add(1).saturating_mul(each))
        };
        let ends = [
            self.days,
            days(self.hourly, 1).map(|hours| hours.div_ceil(24)),
            days(self.daily, 1),
            days(self.weekly, 7),
            days(self.monthly, 31),
            days(self.yearly, 366),
        ];
        ends.into_iter().flatten().max()
    }
}

/// One committed backup on the destination. What is not committed is never a candidate.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub id: BackupId,
    pub kind: BackupKind,
    /// The backup that it holds only the changes since.
    pub since: Option<BackupId>,
    pub pinned: bool,
    /// A restore or a verification is reading it.
    pub leased: bool,
    /// A drill has shown that it restores.
    pub proven: bool,
    /// The store did not let it go the last time: it is asked again, but it is no sign of a clock that
    /// jumped.
    pub retained: bool,
}

/// What the plan is made from.
#[derive(Debug)]
pub struct Facts<'a> {
    pub job: &'a JobName,
    pub policy: &'a Policy,
    pub backups: &'a [Candidate],
    pub now: Timestamp,
    /// Where a day begins.
    pub zone: &'a TimeZone,
    /// The job marker on the destination names another owner.
    pub foreign: bool,
    /// The policy is not the one of the last prune here.
    pub policy_changed: bool,
    /// The newest backup is so much smaller than those before it that they may be the good ones.
    pub suspect: bool,
    /// A person asked for this plan and confirmed it.
    pub confirmed: bool,
}

/// Permission to delete one backup from one destination.
#[derive(Debug, PartialEq, Eq)]
pub struct Doomed {
    job: JobName,
    id: BackupId,
}

impl Doomed {
    pub fn job(&self) -> &JobName {
        &self.job
    }

    pub fn id(&self) -> &BackupId {
        &self.id
    }
}

/// What becomes of one backup, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    pub id: BackupId,
    pub keep: bool,
    pub reasons: Vec<String>,
}

/// Why a plan is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// The clock is behind the newest backup.
    ClockBehind,
    /// Another respaldo owns this job's folder on the destination.
    Foreign,
    /// The newest backup is much smaller than those before it.
    Anomaly,
    /// More than half of the backups would go, and the policy did not change.
    MoreThanHalf,
}

impl Held {
    pub fn reason(self) -> &'static str {
        match self {
            Self::ClockBehind => "the clock is behind the newest backup",
            Self::Foreign => "another respaldo owns this job's folder here",
            Self::Anomaly => "the newest backup is much smaller than those before it",
            Self::MoreThanHalf => {
                "more than half of the backups would go though the policy did not change (did the clock jump?)"
            }
        }
    }

    pub fn next_step(self) -> &'static str {
        match self {
            Self::ClockBehind => "set the clock right; pruning goes on by itself",
            Self::Foreign => {
                "give one of the two jobs another name, or take the folder over with `respaldo prune JOB --adopt`"
            }
            Self::Anomaly => {
                "look at what was backed up; if it is right, confirm with `respaldo prune JOB --yes`"
            }
            Self::MoreThanHalf => {
                "look at `respaldo prune JOB --dry-run`; if it is right, confirm with `respaldo prune JOB --yes`"
            }
        }
    }
}

/// A decision for each backup, newest first, and what may be deleted by it: nothing while held.
#[derive(Debug)]
pub struct Plan {
    pub decisions: Vec<Decision>,
    /// In the order in which they go: the oldest first, but nothing before what stands on it, so that
    /// whatever is left when it is cut off can be restored.
    pub doomed: Vec<Doomed>,
    pub held: Option<Held>,
}

type Period = fn(&Zoned) -> String;

/// Decides for every backup.
///
/// Whatever the policy says, these stay: the newest full backup, the newest proven one, and what is
/// pinned or leased; and with each that stays, for whatever reason, all that it stands on.
pub fn plan(facts: &Facts<'_>) -> Plan {
    let mut backups: Vec<&Candidate> = facts.backups.iter().collect();
    backups.sort_by_key(|backup| std::cmp::Reverse(backup.id));
    let decisions = decide(facts.policy, &backups, facts.now, facts.zone);
    let mut gone: Vec<BackupId> = decisions.iter().filter(|d| !d.keep).map(|d| d.id).collect();
    gone.sort_by_key(|id| (foot(&backups, *id), std::cmp::Reverse(*id)));
    let held = hold(facts, &backups, &gone);
    let doomed = match held {
        Some(_) => Vec::new(),
        None => gone.into_iter().map(|id| Doomed { job: facts.job.clone(), id }).collect(),
    };
    Plan { decisions, doomed, held }
}

/// What the rules say of each backup; `backups` are newest first.
fn decide(
    policy: &Policy,
    backups: &[&Candidate],
    now: Timestamp,
    zone: &TimeZone,
) -> Vec<Decision> {
    let mut reasons: HashMap<BackupId, Vec<String>> = HashMap::new();
    let mut keep = |id: BackupId, why: &str| reasons.entry(id).or_default().push(why.to_owned());

    // One that lacks what it stands on is worth nothing, whatever it is called.
    let counts = |b: &&Candidate| b.kind.counts() && is_whole(backups, b.id);
    let full: Vec<&Candidate> = backups.iter().copied().filter(counts).collect();
    if let Some(newest) = full.first() {
        keep(newest.id, "newest");
    }
    if let Some(proven) = full.iter().find(|b| b.proven) {
        keep(proven.id, "newest proven");
    }
    for backup in backups {
        if backup.pinned {
            keep(backup.id, "pinned");
        }
        if backup.leased {
            keep(backup.id, "in use");
        }
        if policy.keeps_everything() {
            keep(backup.id, "no retention policy");
        }
        let days = match backup.kind {
            BackupKind::Full | BackupKind::Incremental => policy.days,
            BackupKind::Safety | BackupKind::Suspect => {
                Some(policy.days.unwrap_or(0).max(SAFETY_DAYS))
            }
        };
        if let Some(days) = days.filter(|days| younger(backup, *days, now)) {
            keep(backup.id, &format!("younger than {days} days"));
        }
    }
    for backup in full.iter().take(policy.last.unwrap_or(0) as usize) {
        keep(backup.id, "last");
    }
    let periods: [(&str, Option<u32>, Period); 5] = [
        ("hourly", policy.hourly, |at| at.strftime("%Y-%m-%d %H %z").to_string()),
        ("daily", policy.daily, |at| at.strftime("%Y-%m-%d").to_string()),
        ("weekly", policy.weekly, |at| at.strftime("%G-%V").to_string()),
        ("monthly", policy.monthly, |at| at.strftime("%Y-%m").to_string()),
        ("yearly", policy.yearly, |at| at.strftime("%Y").to_string()),
    ];
    for (name, count, period) in periods {
        let mut seen: Vec<String> = Vec::new();
        for backup in &full {
            let this = period(&backup.id.started().to_zoned(zone.clone()));
            if seen.contains(&this) {
                continue;
            }
            if seen.len() >= count.unwrap_or(0) as usize {
                break;
            }
            keep(backup.id, &format!("{name} {this}"));
            seen.push(this);
        }
    }
    for backup in backups {
        let Some(below) = backup.since.filter(|_| reasons.contains_key(&backup.id)) else {
            continue;
        };
        // Newest first: what is below has its own turn later.
        let why = format!("{} stands on it", backup.id);
        reasons.entry(below).or_default().push(why);
    }
    let decision = |backup: &&Candidate| match reasons.remove(&backup.id) {
        Some(reasons) => Decision { id: backup.id, keep: true, reasons },
        None => Decision { id: backup.id, keep: false, reasons: vec!["no rule keeps it".into()] },
    };
    backups.iter().map(decision).collect()
}

/// A backup and all that it stands on, or what of that is missing.
fn chain_of(backups: &[&Candidate], id: BackupId) -> Result<Vec<BackupId>, BackupId> {
    chain(id, |id| Some(backups.iter().find(|one| one.id == *id)?.since))
}

fn is_whole(backups: &[&Candidate], id: BackupId) -> bool {
    chain_of(backups, id).is_ok()
}

/// The full backup on which one stands, or as far down as it is known.
fn foot(backups: &[&Candidate], id: BackupId) -> BackupId {
    match chain_of(backups, id) {
        Ok(all) => all.last().copied().unwrap_or(id),
        Err(missing) => missing.min(id),
    }
}

fn younger(backup: &Candidate, days: u32, now: Timestamp) -> bool {
    now.duration_since(backup.id.started()) < SignedDuration::from_hours(i64::from(days) * 24)
}

fn hold(facts: &Facts<'_>, backups: &[&Candidate], gone: &[BackupId]) -> Option<Held> {
    // A second of slack: ids are cut to the second, clocks of two containers are not.
    let soon = facts.now.checked_add(1.second()).unwrap_or(facts.now);
    if backups.first().is_some_and(|newest| newest.id.started() > soon) {
        return Some(Held::ClockBehind);
    }
    if !gone.is_empty() && facts.foreign {
        return Some(Held::Foreign);
    }
    if !gone.is_empty() && facts.suspect && !facts.confirmed {
        return Some(Held::Anomaly);
    }
    // A chain goes as one when the next has begun: it counts as one.
    let chains = |of: &dyn Fn(&Candidate) -> bool| {
        let wanted = backups.iter().filter(|backup| !backup.retained && of(backup));
        wanted.map(|backup| foot(backups, backup.id)).collect::<HashSet<_>>().len()
    };
    let (free, going) = (chains(&|_| true), chains(&|backup| gone.contains(&backup.id)));
    let many = going > 1 && going * 2 > free;
    (many && !facts.policy_changed && !facts.confirmed).then_some(Held::MoreThanHalf)
}

/// What is known of a folder without a manifest.
#[derive(Debug, Clone, Copy)]
pub struct Uncommitted {
    pub id: BackupId,
    /// This installation started it, and knows that the run is over.
    pub run_is_over: bool,
    /// How long a run may last: after twice that, nobody is still writing.
    pub deadline: SignedDuration,
    /// It was a backup here, by all that is remembered.
    pub was_committed: bool,
    /// Retention has begun to delete it here.
    pub removing: bool,
    /// Somebody has pinned it here.
    pub pinned: bool,
}

/// What a folder without a manifest is.
#[derive(Debug, PartialEq, Eq)]
pub enum Unlisted {
    /// What a run or a deletion left behind: it may be cleared away.
    Leftover(Doomed),
    /// Somebody may still be writing it.
    Open,
    /// It was a backup, and its manifest is lost: a person has to look.
    Damaged,
}

/// A folder without a manifest is a leftover where it never was a backup and its own installation
/// knows that the run is over, or where it is so old that no run can still be writing it; and where a
/// deletion of it was cut off. Whatever else is there was a backup, and is never deleted.
pub fn unlisted(job: &JobName, folder: Uncommitted, now: Timestamp) -> Unlisted {
    let age = now.duration_since(folder.id.started());
    let abandoned = age > folder.deadline * 2 + SignedDuration::from_hours(24);
    let leftover = || Unlisted::Leftover(Doomed { job: job.clone(), id: folder.id });
    match folder {
        _ if folder.pinned => Unlisted::Damaged,
        _ if folder.removing => leftover(),
        _ if folder.was_committed => Unlisted::Damaged,
        _ if folder.run_is_over || abandoned => leftover(),
        _ => Unlisted::Open,
    }
}

/// Permission to delete one file of a backup that goes on without it.
#[derive(Debug, PartialEq, Eq)]
pub struct Erased {
    job: JobName,
    id: BackupId,
    file: String,
}

impl Erased {
    pub fn job(&self) -> &JobName {
        &self.job
    }

    pub fn id(&self) -> &BackupId {
        &self.id
    }

    pub fn file(&self) -> &str {
        &self.file
    }
}

/// Permission to delete what was taken out of a backup. `manifest` is the one that lies there now:
/// what it lists stays, and so does what every backup has.
pub fn erased(manifest: &Manifest, taken: &Volume) -> Option<Erased> {
    let mut kept = manifest.volumes().chain(&manifest.proof).map(|volume| volume.name.as_str());
    let name = taken.name.as_str();
    let small = SMALL_FILES.iter().any(|small| name.starts_with(small));
    let stays = small || kept.any(|kept| kept == name);
    let erased = Erased { job: manifest.job.clone(), id: manifest.id, file: name.to_owned() };
    (!stays).then_some(erased)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn full(started: Timestamp) -> Candidate {
        Candidate {
            id: BackupId::at(started),
            kind: BackupKind::Full,
            since: None,
            pinned: false,
            leased: false,
            proven: false,
            retained: false,
        }
    }

    /// A lock of the store holds many that no rule keeps: asked for again and again, never in a heap.
    #[test]
    fn what_the_store_retains_is_no_sign_of_a_jump() {
        let (job, now) = ("db".parse().unwrap(), at("2025-11-24T00:00:00Z"));
        let policy = Policy { last: Some(2), ..Policy::default() };
        let mut backups = every(24, 10, now);
        let planned = |backups: &[Candidate]| {
            plan(&Facts { policy_changed: false, ..with(&job, &policy, backups, now) })
        };
        assert_eq!(planned(&backups).held, Some(Held::MoreThanHalf));
        backups.iter_mut().skip(3).for_each(|backup| backup.retained = true);
        let plan = planned(&backups);
        assert_eq!((plan.held, plan.doomed.len()), (None, 8));
    }

    #[test]
    fn the_oldest_that_a_policy_keeps() {
        let policy = Policy { days: Some(7), ..Policy::default() };
        assert_eq!(policy.oldest_days(), Some(7));
        assert_eq!(Policy { monthly: Some(12), ..policy.clone() }.oldest_days(), Some(403));
        assert_eq!(Policy { hourly: Some(48), ..Policy::default() }.oldest_days(), Some(3));
        assert_eq!(Policy { last: Some(5), ..policy }.oldest_days(), None);
        assert_eq!(Policy::default().oldest_days(), None);
    }

    fn every(hours: i64, count: i64, now: Timestamp) -> Vec<Candidate> {
        (0..count).map(|n| full(now - SignedDuration::from_hours(hours * n + 1))).collect()
    }

    fn with<'a>(
        job: &'a JobName,
        policy: &'a Policy,
        backups: &'a [Candidate],
        now: Timestamp,
    ) -> Facts<'a> {
        Facts {
            job,
            policy,
            backups,
            now,
            zone: &UTC,
            foreign: false,
            policy_changed: true,
            suspect: false,
            confirmed: false,
        }
    }

    fn job() -> JobName {
        "db".parse().unwrap()
    }

    static UTC: TimeZone = TimeZone::UTC;
    const NOW: &str = "2025-11-24T12:00:00Z";

    #[test]
    fn seven_days_of_twice_daily_keep_fourteen() {
        let policy = Policy { days: Some(7), ..Policy::default() };
        let backups = every(12, 40, at(NOW));
        let plan = plan(&with(&job(), &policy, &backups, at(NOW)));
        assert_eq!(plan.decisions.iter().filter(|d| d.keep).count(), 14);
        assert_eq!(plan.doomed.len(), 26);
    }

    #[test]
    fn grandfathers_are_promoted() {
        let policy = Policy {
            daily: Some(7),
            weekly: Some(4),
            monthly: Some(12),
            yearly: Some(7),
            ..Policy::default()
        };
        let backups = every(12, 2 * 365 * 3, at(NOW));
        let plan = plan(&with(&job(), &policy, &backups, at(NOW)));
        let kept = plan.decisions.iter().filter(|d| d.keep).count();
        // 7 days, 3 further weeks, 10 further months (October is also a week's), 3 further years.
        assert!((20..=26).contains(&kept), "{kept} kept");
        let oldest = plan.decisions.iter().rfind(|d| d.keep).unwrap();
        assert!(oldest.reasons[0].starts_with("yearly 2022"), "{:?}", oldest.reasons);
    }

    #[test]
    fn a_missed_month_leaves_the_newest() {
        let policy = Policy { days: Some(7), ..Policy::default() };
        let backups = every(24, 5, at("2025-10-01T00:00:00Z"));
        let plan = plan(&with(&job(), &policy, &backups, at(NOW)));
        assert_eq!(plan.decisions[0].reasons, ["newest"]);
        assert_eq!(plan.doomed.len(), 4);
    }

    #[test]
    fn a_clock_that_jumped_ahead_waits_for_a_person() {
        let policy = Policy { days: Some(7), ..Policy::default() };
        let backups = every(12, 14, at(NOW));
        let job = job();
        let later = at(NOW) + SignedDuration::from_hours(24 * 365);
        let mut facts = Facts { policy_changed: false, ..with(&job, &policy, &backups, later) };
        let held = plan(&facts);
        assert_eq!((held.held, held.doomed.len()), (Some(Held::MoreThanHalf), 0));
        facts.confirmed = true;
        assert_eq!(plan(&facts).doomed.len(), 13);
    }

    #[test]
    fn a_clock_that_is_behind_stops_pruning() {
        let policy = Policy { last: Some(1), ..Policy::default() };
        let backups = every(12, 14, at(NOW));
        let job = job();
        let mut facts = with(&job, &policy, &backups, at("2020-01-01T00:00:00Z"));
        facts.confirmed = true;
        assert_eq!(plan(&facts).held, Some(Held::ClockBehind));
    }

    #[test]
    fn a_backup_that_shrank_holds_back_the_older_ones() {
        let policy = Policy { last: Some(3), ..Policy::default() };
        let backups = every(12, 5, at(NOW));
        let job = job();
        let mut facts = Facts { suspect: true, ..with(&job, &policy, &backups, at(NOW)) };
        assert_eq!((plan(&facts).held, plan(&facts).doomed.len()), (Some(Held::Anomaly), 0));
        facts.confirmed = true;
        assert_eq!((plan(&facts).held, plan(&facts).doomed.len()), (None, 2));
    }

    #[test]
    fn a_second_owner_deletes_nothing() {
        let policy = Policy { last: Some(1), ..Policy::default() };
        let backups = every(12, 3, at(NOW));
        let job = job();
        let facts = Facts { foreign: true, ..with(&job, &policy, &backups, at(NOW)) };
        assert_eq!(plan(&facts).held, Some(Held::Foreign));
    }

    #[test]
    fn leftovers_go_when_their_run_is_known_to_be_over_or_long_past() {
        let deadline = SignedDuration::from_hours(6);
        let id = BackupId::at(at("2025-11-24T02:00:00Z"));
        let folder = |run_is_over| {
            let (was_committed, removing, pinned) = (false, false, false);
            Uncommitted { id, run_is_over, deadline, was_committed, removing, pinned }
        };
        let doomed = || Unlisted::Leftover(Doomed { job: job(), id });
        assert_eq!(unlisted(&job(), folder(false), at(NOW)), Unlisted::Open);
        assert_eq!(unlisted(&job(), folder(true), at(NOW)), doomed());
        assert_eq!(unlisted(&job(), folder(false), at("2025-11-26T02:00:00Z")), doomed());
        // What was a backup is none, however old it is.
        let was = Uncommitted { was_committed: true, ..folder(true) };
        assert_eq!(unlisted(&job(), was, at("2028-11-26T02:00:00Z")), Unlisted::Damaged);
        let half = Uncommitted { removing: true, ..was };
        assert_eq!(unlisted(&job(), half, at(NOW)), doomed());
        assert_eq!(
            unlisted(&job(), Uncommitted { pinned: true, ..half }, at(NOW)),
            Unlisted::Damaged
        );
    }

    prop_compose! {
        fn any_backup()(
            hours in 0_i64..20_000, safety: bool, pinned: bool, leased: bool, proven: bool,
        ) -> Candidate {
            let kind = if safety { BackupKind::Safety } else { BackupKind::Full };
            Candidate { kind, pinned, leased, proven, ..full(at(NOW) - SignedDuration::from_hours(hours)) }
        }
    }

    /// Some of them incremental, each on the one that was made before it.
    fn chained(mut backups: Vec<Candidate>, changes: &[bool]) -> Vec<Candidate> {
        backups.sort_by_key(|b| b.id);
        backups.dedup_by_key(|b| b.id);
        let mut last: Option<BackupId> = None;
        for (backup, changes) in backups.iter_mut().zip(changes.iter().cycle()) {
            if backup.kind != BackupKind::Full {
                continue;
            }
            if let (true, Some(last)) = (changes, last) {
                (backup.kind, backup.since) = (BackupKind::Incremental, Some(last));
            }
            last = Some(backup.id);
        }
        backups
    }

    #[test]
    fn what_a_kept_backup_stands_on_is_kept_and_the_reason_is_said() {
        let mut backups = chained(every(4, 6, at(NOW)), &[false, true, true]);
        backups[1].pinned = true;
        let policy = Policy { last: Some(1), ..Policy::default() };
        let job = job();
        let plan = plan(&with(&job, &policy, &backups, at(NOW)));
        // Oldest first: a full one, two on it, a full one, two on it.
        let keeps: Vec<bool> = plan.decisions.iter().rev().map(|d| d.keep).collect();
        assert_eq!(keeps, [true, true, false, true, true, true]);
        let why = |n: usize| plan.decisions[5 - n].reasons.join(", ");
        assert_eq!(why(0), format!("{} stands on it", backups[1].id));
        assert_eq!(why(3), format!("{} stands on it", backups[4].id));
    }

    #[test]
    fn a_chain_goes_from_its_end() {
        let backups = chained(every(4, 7, at(NOW)), &[false, true, true, false, true, true, false]);
        let policy = Policy { last: Some(1), ..Policy::default() };
        let job = job();
        let facts = Facts { confirmed: true, ..with(&job, &policy, &backups, at(NOW)) };
        let gone: Vec<BackupId> = plan(&facts).doomed.iter().map(|d| *d.id()).collect();
        let order = [2, 1, 0, 5, 4, 3].map(|n: usize| backups[n].id);
        assert_eq!(gone, order);
    }

    /// When a new chain begins, nothing of the one before is kept any more: that is no jump of a clock.
    #[test]
    fn a_chain_that_is_over_counts_as_one() {
        let backups = chained(every(4, 7, at(NOW)), &[false, true, true, true, true, true, false]);
        let policy = Policy { last: Some(1), ..Policy::default() };
        let job = job();
        let facts = Facts { policy_changed: false, ..with(&job, &policy, &backups, at(NOW)) };
        let plan = plan(&facts);
        assert_eq!((plan.held, plan.doomed.len()), (None, 6));
    }

    prop_compose! {
        fn any_policy()(
            last in prop::option::of(0_u32..5), days in prop::option::of(0_u32..30),
            hourly in prop::option::of(0_u32..5), daily in prop::option::of(0_u32..10),
            weekly in prop::option::of(0_u32..5), monthly in prop::option::of(0_u32..13),
            yearly in prop::option::of(0_u32..5),
        ) -> Policy {
            Policy { last, days, hourly, daily, weekly, monthly, yearly, accept: None }
        }
    }

    proptest! {
        #[test]
        fn a_chain_is_never_broken_under_any_policy(
            policy in any_policy(), backups in prop::collection::vec(any_backup(), 0..40),
            changes in prop::collection::vec(any::<bool>(), 1..10), done in 0_usize..40,
        ) {
            let backups = chained(backups, &changes);
            let job = job();
            let facts = Facts { confirmed: true, ..with(&job, &policy, &backups, at(NOW)) };
            let plan = plan(&facts);
            // Wherever it is cut off.
            let gone: Vec<BackupId> = plan.doomed.iter().take(done).map(|d| *d.id()).collect();
            let left: Vec<&Candidate> = backups.iter().filter(|b| !gone.contains(&b.id)).collect();
            let since = |id: &BackupId| Some(left.iter().find(|b| b.id == *id)?.since);
            for backup in &left {
                prop_assert!(chain(backup.id, since).is_ok(), "{} is worth nothing now", backup.id);
            }
            for backup in &backups {
                let safe = backup.pinned || backup.leased;
                let Some(below) = backup.since.filter(|_| safe) else { continue };
                prop_assert!(plan.doomed.iter().all(|d| *d.id() != below));
            }
        }

        #[test]
        fn the_floor_holds_under_every_policy(
            policy in any_policy(),
            backups in prop::collection::vec(any_backup(), 0..40),
            changes in prop::collection::vec(any::<bool>(), 1..10), ahead in -1_000_i64..100_000,
            policy_changed: bool, foreign: bool, confirmed: bool, suspect: bool,
        ) {
            let backups = chained(backups, &changes);
            let job = job();
            let now = at(NOW) + SignedDuration::from_hours(ahead);
            let facts = Facts { policy_changed, foreign, confirmed, suspect, ..with(&job, &policy, &backups, now) };
            let plan = plan(&facts);
            let gone = |id: &BackupId| plan.doomed.iter().any(|d| d.id() == id);

            prop_assert_eq!(plan.decisions.len(), backups.len());
            prop_assert!(plan.decisions.iter().all(|d| !d.reasons.is_empty()));
            let newest_full = backups.iter().rfind(|b| b.kind.counts());
            let newest_proven = backups.iter().rfind(|b| b.kind.counts() && b.proven);
            for kept in newest_full.into_iter().chain(newest_proven) {
                prop_assert!(!gone(&kept.id), "a floor was in the plan");
            }
            for backup in &backups {
                prop_assert!(!(gone(&backup.id) && (backup.pinned || backup.leased)));
            }
            if plan.held.is_some() || foreign || (suspect && !confirmed) {
                prop_assert!(plan.doomed.is_empty());
            }
            if !policy_changed && !confirmed && plan.doomed.len() > 1 {
                let all: Vec<&Candidate> = backups.iter().collect();
                let chains = |ids: Vec<BackupId>| {
                    ids.into_iter().map(|id| foot(&all, id)).collect::<HashSet<_>>().len()
                };
                let going = chains(plan.doomed.iter().map(|d| *d.id()).collect());
                prop_assert!(going <= 1 || going * 2 <= chains(all.iter().map(|b| b.id).collect()));
            }
            if backups.iter().any(|b| b.id.started() > now + SignedDuration::from_secs(1)) {
                prop_assert!(plan.doomed.is_empty(), "pruned with a clock that is behind");
            }
        }

        #[test]
        fn pruning_twice_prunes_nothing_more(
            policy in any_policy(), backups in prop::collection::vec(any_backup(), 0..40),
            changes in prop::collection::vec(any::<bool>(), 1..10),
        ) {
            let mut backups = chained(backups, &changes);
            let job = job();
            let first = plan(&with(&job, &policy, &backups, at(NOW)));
            backups.retain(|b| !first.doomed.iter().any(|d| d.id() == &b.id));
            let second = plan(&with(&job, &policy, &backups, at(NOW)));
            prop_assert!(second.doomed.is_empty());
        }
    }
}
