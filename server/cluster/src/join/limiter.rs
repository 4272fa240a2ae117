//! Token buckets per address: they limit the rate of requests from unauthenticated clients.

use std::{collections::HashMap, net::IpAddr};

use jiff::Timestamp;

/// Requests that an address may make at once.
const BURST: f64 = 30.0;
/// Requests a second that it gets back.
const REFILL_PER_SEC: f64 = 5.0;
/// Addresses remembered. More than this many at once share what is left: the table never grows further.
const ADDRESSES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at_ms: i64,
}

/// Buckets by address; requests without a known address share one.
#[derive(Debug, Default)]
pub struct RateLimiter {
    buckets: HashMap<Option<IpAddr>, Bucket>,
}

impl RateLimiter {
    /// Takes `cost` from the address's bucket if it is not empty. A request that costs more than is left may overdraw it.
    pub fn allow(&mut self, from: Option<IpAddr>, cost: u32, now: Timestamp) -> bool {
        let now_ms = now.as_millisecond();
        if self.buckets.len() >= ADDRESSES_MAX && !self.buckets.contains_key(&from) {
            self.buckets.retain(|_, bucket| refilled(bucket, now_ms) < BURST);
            if self.buckets.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let bucket = self.buckets.entry(from).or_insert(Bucket { left: BURST, at_ms: now_ms });
        bucket.left = refilled(bucket, now_ms);
        bucket.at_ms = now_ms;
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= f64::from(cost);
        true
    }
}

fn refilled(bucket: &Bucket, now_ms: i64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // milliseconds between two requests
    let elapsed = (now_ms - bucket.at_ms).max(0) as f64 / 1000.0;
    (bucket.left + elapsed * REFILL_PER_SEC).min(BURST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap()
    }

    #[test]
    fn an_address_gets_its_burst_then_its_rate_and_others_are_not_held_up() {
        let mut limiter = RateLimiter::default();
        let (one, two) = (Some(IpAddr::from([10, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 2])));
        let passed = (0..100).filter(|_| limiter.allow(one, 1, at(0))).count();
        assert_eq!(passed, 30);
        assert!(limiter.allow(two, 1, at(0)));
        assert!(!limiter.allow(one, 1, at(100)));
        assert!(limiter.allow(one, 1, at(300)));
        assert!(!limiter.allow(one, 1, at(0)), "a clock that steps back gives nothing");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_idle() {
        let mut limiter = RateLimiter::default();
        let address = |n: u32| Some(IpAddr::from(n.to_be_bytes()));
        for n in 0..10_000 {
            limiter.allow(address(n), 1, at(0));
        }
        assert_eq!(limiter.buckets.len(), ADDRESSES_MAX);
        assert!(!limiter.allow(address(20_000), 1, at(0)));
        assert!(limiter.allow(address(20_000), 1, at(60_000)));
    }
}
