//! The only reader of time. Everything that decides takes `now` as an argument, and gets it from a
//! [`Clock`] that a test can hold still.
#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Where `now` comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    pub fn system() -> Self {
        Self(Arc::new(Timestamp::now))
    }

    /// A clock that a test sets.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

/// Measures how long something takes; unmoved by a wall clock that jumps.
#[derive(Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// The instant `wait` from now, for timers that count monotonic time.
    pub fn instant_after(wait: Duration) -> Instant {
        Instant::now() + wait
    }
}

/// This moment on the runtime's own clock, which a test can hold still.
pub fn tick() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
