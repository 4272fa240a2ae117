//! What the state machine counts of itself, for metrics. Plain atomics; never read by anything that decides.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use trireme_proto::etcd::{self, event::EventType};

/// Counts since this process opened the state.
#[derive(Debug, Default)]
pub struct MvccCounters {
    /// Keys put.
    pub puts: AtomicU64,
    /// Keys deleted.
    pub deletes: AtomicU64,
    /// Transactions applied.
    pub txns: AtomicU64,
    /// Ranges read outside of transactions.
    pub ranges: AtomicU64,
    /// Events handed to watches.
    pub events: AtomicU64,
    /// Watches there are.
    pub watchers: AtomicI64,
    /// Watches that read from history because they fell behind what is kept in memory.
    pub slow_watchers: AtomicI64,
    /// Number of keys; negative until it is first asked for.
    keys: AtomicI64,
}

// === impl MvccCounters ===

impl MvccCounters {
    pub(crate) fn new() -> MvccCounters {
        MvccCounters { keys: AtomicI64::new(-1), ..MvccCounters::default() }
    }

    /// Counts what one batch of entries did.
    pub(crate) fn applied(&self, revisions: &[(i64, Vec<etcd::Event>)]) {
        let (mut puts, mut deletes, mut keys) = (0, 0, 0);
        for event in revisions.iter().flat_map(|(_, events)| events) {
            match event.r#type() {
                EventType::Put => {
                    puts += 1;
                    keys += i64::from(event.kv.as_ref().is_some_and(|kv| kv.version == 1));
                }
                EventType::Delete => {
                    deletes += 1;
                    keys -= 1;
                }
            }
        }
        self.puts.fetch_add(puts, Ordering::Relaxed);
        self.deletes.fetch_add(deletes, Ordering::Relaxed);
        self.txns.fetch_add(revisions.len() as u64, Ordering::Relaxed);
        if self.keys.load(Ordering::Relaxed) >= 0 {
            self.keys.fetch_add(keys, Ordering::Relaxed);
        }
    }

    /// The number of keys, where it is known.
    pub(crate) fn keys(&self) -> Option<i64> {
        Some(self.keys.load(Ordering::Relaxed)).filter(|keys| *keys >= 0)
    }

    /// From here on the number of keys is followed.
    pub(crate) fn set_keys(&self, keys: Option<i64>) {
        self.keys.store(keys.unwrap_or(-1), Ordering::Relaxed);
    }
}
