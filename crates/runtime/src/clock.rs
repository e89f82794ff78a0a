//! The time, as whoever works on lanes sees it: a thing that is passed in, so that the same logic
//! runs on the clock of this machine and on a simulated one.

use std::time::{Duration, Instant};

/// What time it is.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 UTC. May jump in both directions.
    fn now_ms(&self) -> i64;

    /// How much time has passed since some moment. Never goes back.
    fn passed(&self) -> Duration;
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    now_ms: fn() -> i64,
    since: Instant,
}

impl SystemClock {
    /// A clock whose date is told by a function.
    pub fn new(now_ms: fn() -> i64) -> Self {
        SystemClock { now_ms, since: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        (self.now_ms)()
    }

    fn passed(&self) -> Duration {
        self.since.elapsed()
    }
}
