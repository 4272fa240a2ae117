//! Measurements of a store: atomics and fixed histograms, rendered by the server of the metrics endpoint.
//!
//! Must not decide anything: no code of the store reads these numbers back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Bucket bounds of etcd's disk histograms, in seconds: 1 ms, doubled up to 8 s.
const DISK_BOUNDS: &[f64] = &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192];
/// Bucket bounds of etcd's histograms of round trips, in seconds: 0.1 ms, doubled up to 3.3 s.
const ROUND_TRIP_BOUNDS: &[f64] =
    &[0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048, 0.4096, 0.8192, 1.6384, 3.2768];

/// A histogram with fixed bounds. Observing takes no lock.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is above the last bound.
    buckets: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct HistogramReading {
    /// Upper bound in seconds, and how many observations are at most that.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of all observations, in seconds.
    pub sum_secs: f64,
    /// Number of observations.
    pub count: u64,
}

/// The measurements of one store.
#[derive(Debug)]
pub struct StoreMetrics {
    /// Synced writes of the log.
    pub log_sync: Histogram,
    /// Write batches of the state.
    pub state_commit: Histogram,
    /// How often another leader was seen.
    pub leader_changes: AtomicU64,
    /// Proposals without a result yet.
    pub proposals_pending: AtomicI64,
    /// Proposals that got no answer, or were refused.
    pub proposals_failed: AtomicU64,
    /// What was found damaged on this member's disk, and what was rebuilt.
    pub damage: DamageCounters,
    /// Heartbeats until they were answered, by member.
    round_trips: Mutex<BTreeMap<u64, Arc<Histogram>>>,
}

/// Damage that was found and repaired. Each is counted once, when it is found.
#[derive(Debug, Default)]
pub struct DamageCounters {
    /// The state could not be opened or read, or contradicted itself.
    pub state: AtomicU64,
    /// The state was not what the majority has.
    pub diverged: AtomicU64,
    /// A snapshot failed its checksums, and was dropped.
    pub snapshot: AtomicU64,
    /// The log could not be trusted any more: this member has to join again under a new id.
    pub log: AtomicU64,
    /// States rebuilt from this member's own snapshot and log.
    pub rebuilt: AtomicU64,
    /// States fetched from another member.
    pub reseeded: AtomicU64,
}

/// Counts a proposal as pending while it lives.
pub(crate) struct Pending<'a>(&'a StoreMetrics);

// === impl Histogram ===

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Histogram {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, buckets, sum_ns: AtomicU64::new(0) }
    }

    /// Counts one observation.
    pub fn observe(&self, took: Duration) {
        let secs = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < secs);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What was observed so far.
    #[must_use]
    pub fn read(&self) -> HistogramReading {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            if let Some(bound) = self.bounds.get(index) {
                buckets.push((*bound, count));
            }
        }
        HistogramReading { buckets, sum_secs: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)).as_secs_f64(), count }
    }
}

// === impl StoreMetrics ===

impl StoreMetrics {
    pub(crate) fn new() -> StoreMetrics {
        StoreMetrics {
            log_sync: Histogram::new(DISK_BOUNDS),
            state_commit: Histogram::new(DISK_BOUNDS),
            leader_changes: AtomicU64::new(0),
            proposals_pending: AtomicI64::new(0),
            proposals_failed: AtomicU64::new(0),
            damage: DamageCounters::default(),
            round_trips: Mutex::default(),
        }
    }

    pub(crate) fn pending(&self) -> Pending<'_> {
        self.proposals_pending.fetch_add(1, Ordering::Relaxed);
        Pending(self)
    }

    /// The histogram of one member's heartbeats.
    pub(crate) fn round_trip(&self, member: u64) -> Arc<Histogram> {
        self.round_trips.lock().entry(member).or_insert_with(|| Arc::new(Histogram::new(ROUND_TRIP_BOUNDS))).clone()
    }

    /// Heartbeats by member.
    #[must_use]
    pub fn round_trips(&self) -> Vec<(u64, HistogramReading)> {
        self.round_trips.lock().iter().map(|(member, histogram)| (*member, histogram.read())).collect()
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.proposals_pending.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_is_above_all_counts() {
        let histogram = Histogram::new(DISK_BOUNDS);
        for millis in [1, 2, 3, 100_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let reading = histogram.read();
        assert_eq!(reading.buckets[..3], [(0.001, 1), (0.002, 2), (0.004, 3)]);
        assert_eq!((reading.buckets.last(), reading.count), (Some(&(8.192, 3)), 4));
        assert!((reading.sum_secs - 100.006).abs() < 1e-9);
    }
}
