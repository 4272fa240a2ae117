//! Exponential waiting with jitter.

use std::time::Duration;

use rand::Rng;

/// Doubles from `base` to `max`; each wait is scattered by ±20 % so that many clients do not come back at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// A fresh backoff.
    #[must_use]
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, failures: 0 }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let wait = exponential(self.base, self.max, self.failures);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(rand::rng().random_range(0.8..1.2))
    }

    /// Something worked: start over.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `base * 2^failures`, at most `max`.
#[must_use]
pub fn exponential(base: Duration, max: Duration, failures: u32) -> Duration {
    base.saturating_mul(2_u32.saturating_pow(failures.min(30))).min(max)
}
