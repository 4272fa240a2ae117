//! Latencies of a run, all of them: a run has a few hundred thousand at most.

use std::time::Duration;

/// Latencies in microseconds.
#[derive(Default, Debug)]
pub struct Latencies {
    micros: Vec<u32>,
}

impl Latencies {
    /// Takes one down.
    pub fn note(&mut self, latency: Duration) {
        self.micros.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// Takes down those of another client.
    pub fn merge(&mut self, mut other: Latencies) {
        self.micros.append(&mut other.micros);
    }

    /// The latency that a share of all does not exceed, in milliseconds; 0 without any.
    pub fn millis(&self, share: f64) -> f64 {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut latencies = Latencies::default();
        assert!(latencies.millis(0.5).abs() < 1e-9);
        for ms in (1..=100).rev() {
            latencies.note(Duration::from_millis(ms));
        }
        assert!((latencies.millis(0.5) - 50.0).abs() < 1e-9 && (latencies.millis(0.99) - 99.0).abs() < 1e-9);
    }
}
