//! Limits the log lines about refused connections: one a minute for each host, however often it tries.
//!
//! A connection with a foreign certificate must be visible in the log and must not be able to fill it.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// Time between two log lines about one host.
const QUIET: Duration = Duration::from_secs(60);
/// Hosts that are remembered; meanwhile refusals of further hosts are not logged.
const HOSTS: usize = 64;

/// When a refusal of each host was last logged.
#[derive(Default)]
pub(super) struct Refusals {
    told: Mutex<BTreeMap<String, Instant>>,
}

impl Refusals {
    /// Whether a refusal of `from` (`host:port`) is to be logged now.
    pub(super) fn is_news(&self, from: &str, now: Instant) -> bool {
        let host = from.rsplit_once(':').map_or(from, |(host, _)| host);
        let mut told = self.told.lock();
        told.retain(|_, at| now.duration_since(*at) < QUIET);
        if told.contains_key(host) || told.len() >= HOSTS {
            return false;
        }
        told.insert(host.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_of_once_a_minute_and_only_so_many_are_remembered() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        assert!(refusals.is_news("10.0.0.1:4000", now));
        assert!(!refusals.is_news("10.0.0.1:4001", now), "another port is the same host");
        for host in 0..200 {
            refusals.is_news(&format!("10.1.0.{host}:1"), now);
        }
        assert!(refusals.told.lock().len() <= HOSTS);
        assert!(refusals.is_news("10.0.0.1:4002", now + QUIET));
    }
}
