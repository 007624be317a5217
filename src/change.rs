//! When a folder that changed is worth a backup: once it has come to rest. Pure: what was seen goes
//! in, a word comes out. Knows nothing of files; must not look at any.

use crate::model::Sha256;

/// What a watch has seen so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watch {
    /// At the look before.
    before: Option<Sha256>,
    /// What a backup was asked for last; one that failed is not asked for again until more changes.
    asked: Option<Sha256>,
}

impl Watch {
    /// Whether to back up `now`, given what the newest backup was made of. True once for each state
    /// that stayed the same from one look to the next.
    pub fn look(&mut self, now: Sha256, backed_up: Option<Sha256>) -> bool {
        let settled = self.before == Some(now);
        self.before = Some(now);
        if !settled || backed_up == Some(now) || self.asked == Some(now) {
            return false;
        }
        self.asked = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_backed_up_once_and_only_when_it_has_settled() {
        let [a, b, c] = [1, 2, 3].map(|n| Sha256([n; 32]));
        let mut watch = Watch::default();
        assert!(!watch.look(a, Some(a)), "nothing changed since the last backup");
        assert!(!watch.look(a, Some(a)));
        assert!(!watch.look(b, Some(a)), "it may still be changing");
        assert!(!watch.look(c, Some(a)), "it was");
        assert!(watch.look(c, Some(a)));
        assert!(!watch.look(c, Some(a)), "asked for, and perhaps still waiting");
        assert!(!watch.look(c, Some(c)));
        assert!(!watch.look(a, Some(c)));
        assert!(watch.look(a, Some(c)), "back to what it was is a change as well");
        let mut restarted = Watch::default();
        assert!(!restarted.look(a, None));
        assert!(restarted.look(a, None), "never backed up");
    }
}
