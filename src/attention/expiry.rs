//! What will soon expire: told 30, 7 and 1 days before, and when it has. Knows days; must not know
//! what it is that expires.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Days before the end; 0: it is over.
const STEPS: [i64; 4] = [0, 1, 7, 30];

/// What people were told of one certificate or key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warned {
    pub ends: Timestamp,
    /// The last step that was told, in days.
    pub days: i64,
}

/// The step to tell of now, if it was not told yet. One that was renewed begins anew.
pub fn warn(ends: Timestamp, told: Option<Warned>, now: Timestamp) -> Option<Warned> {
    let left = ends.duration_since(now);
    let within = |days: &i64| left <= SignedDuration::from_hours(24 * days);
    let days = STEPS.into_iter().find(within)?;
    let is_known = told.is_some_and(|told| told.ends == ends && told.days <= days);
    (!is_known).then_some(Warned { ends, days })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_told_once_and_a_renewal_begins_anew() {
        let ends: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let mut told = None;
        let mut said = Vec::new();
        for hours in (-48..24 * 40).rev() {
            let now = ends - SignedDuration::from_hours(hours);
            if let Some(warned) = warn(ends, told, now) {
                said.push((hours, warned.days));
                told = Some(warned);
            }
        }
        assert_eq!(said, [(720, 30), (168, 7), (24, 1), (0, 0)]);
        let renewed = ends + SignedDuration::from_hours(24 * 20);
        assert_eq!(warn(renewed, told, ends), Some(Warned { ends: renewed, days: 30 }));
        let later = ends + SignedDuration::from_hours(24 * 365);
        assert_eq!(warn(later, told, ends), None);
        // A daemon that was down for weeks tells the nearest step alone.
        let now = ends - SignedDuration::from_hours(20);
        assert_eq!(warn(ends, None, now), Some(Warned { ends, days: 1 }));
    }
}
