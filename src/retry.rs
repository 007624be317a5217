//! How long to wait before trying again. Knows only counting; what is tried, and whether it may be
//! tried again, is its caller's.

use std::time::Duration;

/// Waits that grow: `first`, then `factor` times as long each time, never above `most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub factor: u32,
    pub most: Duration,
}

impl Backoff {
    /// Between the attempts of a run: 10 s, 1 min, 6 min, then 10 min.
    pub const RUN: Self =
        Self { first: Duration::from_secs(10), factor: 6, most: Duration::from_secs(600) };
    /// Between the attempts to send a message: 5 s, 20 s, ... then every 10 min.
    pub const MESSAGE: Self =
        Self { first: Duration::from_secs(5), factor: 4, most: Duration::from_secs(600) };

    /// The wait after failure number `failures`, counted from 1.
    pub fn after(&self, failures: u32) -> Duration {
        let growth = self.factor.saturating_pow(failures.saturating_sub(1));
        self.first.saturating_mul(growth).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit() {
        let waits: Vec<u64> = [1, 2, 3, 4, 99].map(|n| Backoff::RUN.after(n).as_secs()).to_vec();
        assert_eq!(waits, [10, 60, 360, 600, 600]);
    }
}
