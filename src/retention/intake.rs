//! What a destination takes in: a cold one only the first backup of each period, and of what it
//! lacks, only what it would keep. Pure; must not know how a backup gets there.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Candidate, Policy, decide, is_whole};
use crate::model::{BackupId, BackupKind};

/// How often a cold destination takes a backup: a tape that is mounted, a store that is slow to thaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Accept {
    Daily,
    // ISO weeks, from Monday.
    Weekly,
    Monthly,
    Yearly,
}

impl Accept {
    /// The longest that one such period can be.
    pub fn longest(self) -> SignedDuration {
        // A day that is set back is an hour longer.
        let days = match self {
            Self::Daily => 1,
            Self::Weekly => 7,
            Self::Monthly => 31,
            Self::Yearly => 366,
        };
        SignedDuration::from_hours(24 * days + 1)
    }

    fn period(self, id: BackupId, zone: &TimeZone) -> String {
        let format = match self {
            Self::Daily => "%Y-%m-%d",
            Self::Weekly => "%G-%V",
            Self::Monthly => "%Y-%m",
            Self::Yearly => "%Y",
        };
        id.started().to_zoned(zone.clone()).strftime(format).to_string()
    }
}

/// Whether a destination takes the full backup `id`, where the full backups `there` are already.
/// Periods are those of the job's time zone.
pub fn takes(
    policy: &Policy,
    zone: &TimeZone,
    id: BackupId,
    there: impl IntoIterator<Item = BackupId>,
) -> bool {
    let Some(accept) = policy.accept else { return true };
    let period = accept.period(id, zone);
    there.into_iter().all(|other| accept.period(other, zone) != period)
}

/// Of the backups that a destination lacks, those that it takes and that its next prune would keep;
/// oldest first, and so none before what it stands on. A cold one takes no incremental backups: it has
/// not what they stand on.
pub fn wanted(
    policy: &Policy,
    there: &[Candidate],
    missing: &[Candidate],
    now: Timestamp,
    zone: &TimeZone,
) -> Vec<BackupId> {
    let mut missing: Vec<&Candidate> = missing.iter().collect();
    missing.sort_by_key(|backup| backup.id);
    let mut all: Vec<&Candidate> = there.iter().collect();
    for backup in missing.iter().copied() {
        let full = all.iter().filter(|other| other.kind == BackupKind::Full).map(|other| other.id);
        let taken = match backup.kind {
            BackupKind::Full => takes(policy, zone, backup.id, full),
            BackupKind::Incremental | BackupKind::Safety | BackupKind::Suspect => {
                policy.accept.is_none()
            }
        };
        if taken {
            all.push(backup);
        }
    }
    all.sort_by_key(|backup| std::cmp::Reverse(backup.id));
    let kept = decide(policy, &all, now, zone);
    let kept = |id: &BackupId| kept.iter().any(|decision| decision.keep && decision.id == *id);
    let whole = |id: &BackupId| is_whole(&all, *id);
    missing.iter().map(|backup| backup.id).filter(kept).filter(whole).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::retention::{Facts, plan};

    const NOW: &str = "2025-11-24T12:00:00Z";

    fn full(text: &str) -> Candidate {
        Candidate {
            id: text.parse().unwrap(),
            kind: BackupKind::Full,
            since: None,
            pinned: false,
            leased: false,
            proven: false,
            retained: false,
        }
    }

    fn cold(accept: Accept) -> Policy {
        Policy { accept: Some(accept), ..Policy::default() }
    }

    fn ids(policy: &Policy, there: &[Candidate], missing: &[Candidate]) -> Vec<String> {
        let wanted = wanted(policy, there, missing, NOW.parse().unwrap(), &TimeZone::UTC);
        wanted.iter().map(BackupId::to_string).collect()
    }

    #[test]
    fn a_cold_destination_takes_the_first_of_each_period_where_the_job_lives() {
        let there = ["20251101T030000Z".parse().unwrap()];
        let takes = |accept, id: &str, zone: &TimeZone| {
            takes(&cold(accept), zone, id.parse().unwrap(), there)
        };
        let (utc, lima) = (TimeZone::UTC, TimeZone::get("America/Lima").unwrap());
        assert!(!takes(Accept::Monthly, "20251130T235959Z", &utc));
        assert!(takes(Accept::Monthly, "20251201T000000Z", &utc));
        // In Lima the one that is there was made on the last evening of October.
        assert!(takes(Accept::Monthly, "20251101T060000Z", &lima));
        assert!(!takes(Accept::Yearly, "20251231T235959Z", &utc));
        assert!(!takes(Accept::Daily, "20251101T235959Z", &utc));
        // The first of November 2025 is a Saturday: its ISO week began in October.
        assert!(!takes(Accept::Weekly, "20251102T235959Z", &utc));
        assert!(takes(Accept::Weekly, "20251103T000000Z", &utc));
        assert!(super::takes(&Policy::default(), &utc, there[0], there), "it is not cold");
    }

    #[test]
    fn of_what_is_missing_only_what_would_be_kept_is_wanted() {
        let missing =
            ["20251020T120000Z", "20251120T120000Z", "20251124T110000Z"].map(full).to_vec();
        let week = Policy { days: Some(7), ..Policy::default() };
        assert_eq!(ids(&week, &[], &missing), ["20251120T120000Z", "20251124T110000Z"]);
        // The newest is wanted whatever its age; a pinned one too.
        let last = [full("20240101T000000Z")];
        assert_eq!(ids(&week, &[], &last), ["20240101T000000Z"]);
        assert!(ids(&week, &[full("20251124T100000Z")], &last).is_empty());
        let pinned = [Candidate { pinned: true, ..full("20240101T000000Z") }];
        assert_eq!(ids(&week, &[full("20251124T100000Z")], &pinned), ["20240101T000000Z"]);
    }

    #[test]
    fn a_cold_destination_catches_up_with_the_first_of_each_period() {
        let missing =
            ["20251001T120000Z", "20251101T120000Z", "20251102T120000Z", "20251124T110000Z"]
                .map(full);
        let monthly = cold(Accept::Monthly);
        assert_eq!(ids(&monthly, &[], &missing), ["20251001T120000Z", "20251101T120000Z"]);
        let there = [full("20251103T120000Z")];
        assert_eq!(ids(&monthly, &there, &missing), ["20251001T120000Z"]);
        let young = Policy { days: Some(30), ..monthly };
        assert!(ids(&young, &there, &missing).is_empty());
    }

    #[test]
    fn an_incremental_one_is_wanted_with_all_that_it_stands_on_or_not_at_all() {
        let on = |id: &str, since: &str| Candidate {
            kind: BackupKind::Incremental,
            since: Some(since.parse().unwrap()),
            ..full(id)
        };
        let base = full("20251124T020000Z");
        let first = on("20251124T060000Z", "20251124T020000Z");
        let second = on("20251124T100000Z", "20251124T060000Z");
        let last = Policy { last: Some(1), ..Policy::default() };
        let all = [base.clone(), first.clone(), second.clone()];
        let chain = ["20251124T020000Z", "20251124T060000Z", "20251124T100000Z"];
        assert_eq!(ids(&last, &[], &all), chain);
        assert_eq!(ids(&last, &all[..1], &all[1..]), chain[1..]);
        assert_eq!(ids(&last, &[], &[base.clone(), second]), chain[..1], "the first is nowhere");
        let cold = cold(Accept::Daily);
        assert_eq!(ids(&cold, &[], &all), chain[..1]);
    }

    prop_compose! {
        fn some_backups()(hours in prop::collection::btree_set(0_i64..20_000, 0..40)) -> Vec<Candidate> {
            let now: Timestamp = NOW.parse().unwrap();
            let id = |hours| BackupId::at(now - SignedDuration::from_hours(hours)).to_string();
            hours.into_iter().map(|hours| full(&id(hours))).collect()
        }
    }

    proptest! {
        #[test]
        fn what_is_wanted_the_next_prune_keeps_and_then_nothing_is_wanted(
            all in some_backups(), split in 0_usize..40,
            last in prop::option::of(0_u32..5), days in prop::option::of(0_u32..30),
            daily in prop::option::of(0_u32..10), monthly in prop::option::of(0_u32..13),
            accept in prop::option::of(Just(Accept::Monthly)),
        ) {
            let policy = Policy { last, days, daily, monthly, accept, ..Policy::default() };
            let now: Timestamp = NOW.parse().unwrap();
            let (there, missing): (Vec<_>, Vec<_>) =
                all.into_iter().enumerate().partition(|(n, _)| (n * 7 + split) % 3 == 0);
            let mut there: Vec<Candidate> = there.into_iter().map(|(_, b)| b).collect();
            let missing: Vec<Candidate> = missing.into_iter().map(|(_, b)| b).collect();
            let job = "db".parse().unwrap();
            let wanted = wanted(&policy, &there, &missing, now, &TimeZone::UTC);
            there.extend(missing.iter().filter(|b| wanted.contains(&b.id)).cloned());
            let plan = plan(&Facts {
                job: &job, policy: &policy, backups: &there, now, zone: &TimeZone::UTC,
                foreign: false, policy_changed: true, suspect: false, confirmed: true,
            });
            prop_assert!(plan.doomed.iter().all(|doomed| !wanted.contains(doomed.id())));
            there.retain(|b| !plan.doomed.iter().any(|doomed| doomed.id() == &b.id));
            let again = super::wanted(&policy, &there, &missing, now, &TimeZone::UTC);
            let again: Vec<_> =
                again.iter().filter(|id| !there.iter().any(|b| b.id == **id)).collect();
            prop_assert!(again.is_empty(), "{again:?} is wanted after all");
        }
    }
}
