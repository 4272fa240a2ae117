//! How much of something there was over a time: average, spread, peak, and the distribution over buckets.
//!
//! Each value counts for as long as it lasted. Without a clock: `now` comes from the caller. Answers to upstream's `Integrator` and
//! `TimingHistogram`.

use std::time::Duration;

use crate::flowcontrol::shares::Demand;

/// How fast a level's expected demand falls, each time the seats are divided: half of it in five minutes.
const DECAY: f64 = 0.977;

/// The seats that a level asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Integrator {
    value: f64,
    since: Duration,
    begun: Duration,
    sum: f64,
    sum_of_squares: f64,
    high: f64,
    smoothed: f64,
    average: f64,
    deviation: f64,
    last_high: f64,
}

impl Integrator {
    /// The value from now on.
    pub fn set(&mut self, now: Duration, value: f64) {
        self.pass(now);
        self.value = value;
        self.high = self.high.max(value);
    }

    /// Ends a period; what was asked for in it, and what is expected next.
    pub fn end_period(&mut self, now: Duration) -> Demand {
        self.pass(now);
        let secs = now.saturating_sub(self.begun).as_secs_f64();
        if secs > 0.0 {
            self.average = self.sum / secs;
            self.deviation = (self.sum_of_squares / secs - self.average * self.average).max(0.0).sqrt();
        }
        let envelope = self.average + self.deviation;
        self.smoothed = envelope.max(DECAY * self.smoothed + (1.0 - DECAY) * envelope);
        self.last_high = self.high;
        (self.begun, self.sum, self.sum_of_squares, self.high) = (now, 0.0, 0.0, self.value);
        Demand { high: self.last_high, smoothed: self.smoothed }
    }

    /// Average, standard deviation, peak and expectation, as the last period ended.
    pub fn last(&self) -> [f64; 4] {
        [self.average, self.deviation, self.last_high, self.smoothed]
    }

    fn pass(&mut self, now: Duration) {
        let secs = now.saturating_sub(self.since).as_secs_f64();
        self.since = self.since.max(now);
        self.sum += secs * self.value;
        self.sum_of_squares += secs * self.value * self.value;
    }
}

/// For how many nanoseconds a value was in each bucket.
#[derive(Clone, Debug)]
pub struct TimedHistogram {
    bounds: &'static [f64],
    nanos: Vec<u64>,
    sum: f64,
    value: f64,
    since: Duration,
}

impl TimedHistogram {
    /// With these upper bounds; the last bucket has none.
    pub fn new(bounds: &'static [f64]) -> TimedHistogram {
        TimedHistogram { bounds, nanos: vec![0; bounds.len() + 1], sum: 0.0, value: 0.0, since: Duration::ZERO }
    }

    /// The value from now on.
    pub fn set(&mut self, now: Duration, value: f64) {
        let passed = now.saturating_sub(self.since);
        self.since = self.since.max(now);
        let bucket = self.bounds.iter().position(|bound| self.value <= *bound).unwrap_or(self.bounds.len());
        let nanos = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        self.nanos[bucket] = self.nanos[bucket].saturating_add(nanos);
        #[allow(clippy::cast_precision_loss, reason = "a metric")]
        let weight = nanos as f64;
        self.sum += weight * self.value;
        self.value = value;
    }

    /// Upper bounds with the nanoseconds up to each, the nanoseconds in all, and the sum of values by nanoseconds.
    pub fn cumulated(&mut self, now: Duration) -> (Vec<(f64, u64)>, u64, f64) {
        self.set(now, self.value);
        let mut total = 0_u64;
        let mut cumulated = Vec::with_capacity(self.bounds.len());
        for (at, nanos) in self.nanos.iter().enumerate() {
            total = total.saturating_add(*nanos);
            cumulated.extend(self.bounds.get(at).map(|bound| (*bound, total)));
        }
        (cumulated, total, self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_value_counts_as_long_as_it_lasts() {
        let mut demand = Integrator::default();
        demand.set(secs(2), 10.0);
        demand.set(secs(4), 0.0);
        assert_eq!(demand.end_period(secs(8)), Demand { high: 10.0, smoothed: 2.5 + 18.75_f64.sqrt() });
        let quiet = demand.end_period(secs(18));
        assert!(quiet.high == 0.0 && quiet.smoothed > 6.0, "the expectation falls slowly: {quiet:?}");
    }

    #[test]
    fn a_histogram_is_weighed_by_time() {
        let mut histogram = TimedHistogram::new(&[0.5, 1.0]);
        histogram.set(secs(3), 0.8);
        histogram.set(secs(4), 7.0);
        let (buckets, total, sum) = histogram.cumulated(secs(5));
        assert_eq!((buckets, total), (vec![(0.5, 3_000_000_000), (1.0, 4_000_000_000)], 5_000_000_000));
        assert!((sum - 7.8e9).abs() < 1.0, "{sum}");
    }
}
