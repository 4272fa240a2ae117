//! Histograms with one bucket for each power of two, in which openraft counts its batches.
//!
//! Stands in for the published package of the same name (the workspace patches it in), whose first histogram fills lookup tables for
//! sixteen resolutions: 26 MiB that stay allocated, of which openraft uses a few kilobytes. Without them an idle server is smaller by 40
//! %. Owns nothing else, and must offer no more than openraft names; no other code of the project uses it directly.

use std::fmt;
use std::marker::PhantomData;

/// One bucket for zero, one for each number of bits.
const BUCKETS: usize = 65;

/// How often values of each magnitude occurred. `T` labels periods of time in the package replaced; there is one period here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    labels: PhantomData<T>,
}

/// Values below which the given share of all samples lies: the greatest of their bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentileStats {
    /// Number of samples.
    pub samples: u64,
    /// 0.1 %.
    pub p0_1: u64,
    /// 1 %.
    pub p1: u64,
    /// 5 %.
    pub p5: u64,
    /// 10 %.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p99_9: u64,
}

/// Several histograms to be printed together, one line each.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    lines: Vec<(String, PercentileStats)>,
}

// === impl Histogram ===

impl<T> Default for Histogram<T> {
    fn default() -> Histogram<T> {
        Histogram { counts: [0; BUCKETS], labels: PhantomData }
    }
}

impl<T> Histogram<T> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Histogram<T> {
        Histogram::default()
    }

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value several times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
    }

    /// Number of samples.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The usual percentiles.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.at_permille(1),
            p1: self.at_permille(10),
            p5: self.at_permille(50),
            p10: self.at_permille(100),
            p50: self.at_permille(500),
            p90: self.at_permille(900),
            p99: self.at_permille(990),
            p99_9: self.at_permille(999),
        }
    }

    fn at_permille(&self, permille: u64) -> u64 {
        let rank = (self.total().saturating_mul(permille)).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return match bucket {
                    0 => 0,
                    bits => u64::MAX >> (BUCKETS - 1 - bits),
                };
            }
        }
        0
    }
}

// === impl PercentileStats ===

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[samples: {}, p1: {}, p50: {}, p99: {}, p99.9: {}]", self.samples, self.p1, self.p50, self.p99, self.p99_9)
    }
}

// === impl AsciiChart ===

impl AsciiChart {
    /// An empty one.
    #[must_use]
    pub fn new() -> AsciiChart {
        AsciiChart::default()
    }

    /// With one more line.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram) -> AsciiChart {
        self.lines.push((name.to_owned(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_greatest_value_of_their_bucket() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p99, 0);
        histogram.record_n(5, 98);
        histogram.record(0);
        histogram.record(u64::MAX);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p50, stats.p99, stats.p99_9), (100, 0, 7, 7, u64::MAX));
    }
}
