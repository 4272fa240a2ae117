//! Token buckets by key; those that were used longest ago are forgotten when there are too many.
//!
//! Pure: the time is given. A key that was forgotten begins with a full bucket again, as upstream's.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// What a bucket gives.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Tokens that come back in a second.
    pub per_sec: f64,
    /// Tokens in a full bucket.
    pub burst: f64,
}

struct Bucket {
    left: f64,
    at: Instant,
    turn: u64,
}

/// A key's digest: keys come from clients, and may be long.
type Key = [u8; 32];

/// At most `size` buckets.
pub struct Buckets {
    rate: Rate,
    size: usize,
    buckets: HashMap<Key, Bucket>,
    /// The keys in the order in which they were used.
    turns: BTreeMap<u64, Key>,
    turn: u64,
}

// === impl Buckets ===

impl Buckets {
    /// No buckets yet.
    pub fn new(rate: Rate, size: usize) -> Buckets {
        Buckets { rate, size: size.max(1), buckets: HashMap::new(), turns: BTreeMap::new(), turn: 0 }
    }

    /// Takes a token of the key's bucket; false if there is none.
    pub fn take(&mut self, key: &str, now: Instant) -> bool {
        let key: Key = Sha256::digest(key.as_bytes()).into();
        self.turn += 1;
        let fresh = || Bucket { left: self.rate.burst, at: now, turn: self.turn };
        let bucket = self.buckets.entry(key).or_insert_with(fresh);
        self.turns.remove(&bucket.turn);
        self.turns.insert(self.turn, key);
        let refilled = now.saturating_duration_since(bucket.at).as_secs_f64() * self.rate.per_sec;
        bucket.left = (bucket.left + refilled).min(self.rate.burst);
        (bucket.at, bucket.turn) = (now.max(bucket.at), self.turn);
        let has_one = bucket.left >= 1.0;
        if has_one {
            bucket.left -= 1.0;
        }
        self.forget();
        has_one
    }

    fn forget(&mut self) {
        while self.buckets.len() > self.size
            && let Some((_, key)) = self.turns.pop_first()
        {
            self.buckets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_forgets_the_oldest() {
        let now = Instant::now();
        let mut buckets = Buckets::new(Rate { per_sec: 1.0, burst: 1.0 }, 2);
        assert!(buckets.take("a", now) && buckets.take("b", now));
        assert!(!buckets.take("a", now), "used again: b is now the oldest");
        assert!(buckets.take("c", now) && buckets.buckets.len() == 2 && buckets.turns.len() == 2);
        assert!(!buckets.take("a", now) && buckets.take("b", now), "b was forgotten");
        for number in 0..1000 {
            buckets.take(&number.to_string(), now);
        }
        assert_eq!((buckets.buckets.len(), buckets.turns.len()), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_fills_up_to_its_burst() {
        let start = Instant::now();
        let mut buckets = Buckets::new(Rate { per_sec: 2.0, burst: 3.0 }, 1);
        let passed = |buckets: &mut Buckets, ms: u64| (0..10).filter(|_| buckets.take("", start + Duration::from_millis(ms))).count();
        assert_eq!([0, 400, 500, 60_000, 59_000].map(|ms| passed(&mut buckets, ms)), [3, 0, 1, 3, 0]);
    }
}
