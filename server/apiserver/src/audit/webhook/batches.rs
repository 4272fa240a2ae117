//! A batch of events, and how many batches pass in a time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

/// Encoded events.
#[derive(Debug, Default)]
pub struct Batch {
    events: Vec<Bytes>,
    bytes: usize,
}

// === impl Batch ===

impl Batch {
    /// One more event.
    pub fn add(&mut self, event: Bytes) {
        self.bytes = self.bytes.saturating_add(event.len());
        self.events.push(event);
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Their bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The list as it is sent.
    pub fn encode(&self) -> Bytes {
        const HEAD: &[u8] = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
        let mut list = BytesMut::with_capacity(HEAD.len() + self.bytes + self.events.len() + 2);
        list.extend_from_slice(HEAD);
        for (at, event) in self.events.iter().enumerate() {
            if at > 0 {
                list.extend_from_slice(b",");
            }
            list.extend_from_slice(event);
        }
        list.extend_from_slice(b"]}");
        list.freeze()
    }
}

/// Lets so many pass in a second, and some more at once after a pause.
pub struct Throttle {
    limit: Option<(f64, u32)>,
    tokens: f64,
    updated: Instant,
}

// === impl Throttle ===

impl Throttle {
    /// A second's number, and the most at once; none: no limit.
    pub fn new(limit: Option<(f64, u32)>) -> Throttle {
        Throttle { limit, tokens: limit.map_or(0.0, |(_, burst)| f64::from(burst)), updated: Instant::now() }
    }

    /// Waits for the next one's turn.
    pub async fn pass(&mut self) {
        let Some((rate, burst)) = self.limit.filter(|(rate, _)| *rate > 0.0) else { return };
        let now = Instant::now();
        self.tokens = (self.tokens + rate * now.duration_since(self.updated).as_secs_f64()).min(f64::from(burst.max(1)));
        self.updated = now;
        if self.tokens < 1.0 {
            let pause = Duration::from_secs_f64(((1.0 - self.tokens) / rate).min(3600.0));
            tokio::time::sleep(pause).await;
            self.tokens = 1.0;
            self.updated = Instant::now();
        }
        self.tokens -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_list() {
        let mut batch = Batch::default();
        batch.add(Bytes::from_static(b"{\"a\":1}"));
        batch.add(Bytes::from_static(b"{}"));
        let list: serde_json::Value = serde_json::from_slice(&batch.encode()).unwrap();
        assert_eq!((&list["kind"], &list["items"]), (&serde_json::json!("EventList"), &serde_json::json!([{"a": 1}, {}])));
    }

    #[tokio::test(start_paused = true)]
    async fn batches_pass_at_their_rate() {
        let mut throttle = Throttle::new(Some((10.0, 2)));
        let start = Instant::now();
        for _ in 0..12 {
            throttle.pass().await;
        }
        let took = start.elapsed();
        assert!((Duration::from_millis(950)..Duration::from_millis(1100)).contains(&took), "ten after a burst of two: {took:?}");
    }
}
