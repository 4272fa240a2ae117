//! How far an outside client's compaction may go.
//!
//! The store's history is also Kubernetes' own: its watches and lists resume from it. So a client of the etcd API compacts
//! what is older than a while; what is younger goes when the store itself lets it go.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Samples of the revision within the retention.
const SAMPLES: u32 = 10;

/// Where the revision stood when.
#[derive(Debug)]
pub(crate) struct Retention {
    period: Duration,
    samples: Mutex<VecDeque<(Instant, i64)>>,
}

// === impl Retention ===

impl Retention {
    pub(crate) fn new(period: Duration) -> Retention {
        Retention { period, samples: Mutex::default() }
    }

    /// Takes a sample now and then.
    pub(crate) async fn follow(&self, revision: impl Fn() -> i64) {
        while !self.period.is_zero() {
            self.note(Instant::now(), revision());
            tokio::time::sleep(self.period / SAMPLES).await;
        }
    }

    /// The greatest revision that a client may compact to.
    pub(crate) fn floor(&self, now: Instant, current: i64) -> i64 {
        if self.period.is_zero() {
            return current;
        }
        let samples = self.samples.lock();
        samples.iter().rev().find(|(at, _)| now.duration_since(*at) >= self.period).map_or(0, |(_, revision)| *revision)
    }

    fn note(&self, now: Instant, revision: i64) {
        let mut samples = self.samples.lock();
        samples.push_back((now, revision));
        // The first one of those that are old enough is the one that counts.
        while samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= self.period) {
            samples.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_old_enough_may_go() {
        let retention = Retention::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        assert_eq!(retention.floor(at(0), 5), 0);
        for secs in 0..30 {
            retention.note(at(secs), 100 + secs as i64);
            let expected = if secs < 10 { 0 } else { 100 + secs as i64 - 10 };
            assert_eq!(retention.floor(at(secs), 1000), expected, "after {secs} s");
        }
        assert_eq!(retention.samples.lock().len(), 11);
        assert_eq!(Retention::new(Duration::ZERO).floor(start, 7), 7);
    }
}
