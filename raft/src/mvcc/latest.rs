//! A cache of the current records of keys that were written or read lately: a put needs the previous version, and most reads of one key
//! are of keys in use. Each would cost the engine two lookups, in tables that a small block cache does not hold.
//!
//! Invariant: a record here equals the one that the engine holds at [`At::revision`], and both change together at the end of each
//! batch. So it does not matter to apply whether a record is found here or in the engine.
//!
//! Two generations, each of half the size: a record that is used moves into the young one; when that is full, the old one is
//! dropped and the young one becomes the old one.
//!
//! Serves reads of one key and the versions that puts and deletions replace. Compares, ranges and history read the engine.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use trireme_proto::etcd::{self, event::EventType};
use trireme_proto::store::StateHead;

use crate::mutant;

/// What a record takes beside its key and value, roughly.
const RECORD_BYTES: usize = 256;
/// Larger records than this part of a generation are not kept.
const LARGEST_PART: usize = 4;

/// Where the records stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct At {
    pub(crate) cluster_id: u64,
    pub(crate) revision: i64,
    /// Counts the states that were replaced.
    replaced: u64,
}

/// The records.
pub(crate) struct Latest {
    generation_bytes: usize,
    inner: Mutex<Inner>,
}

struct Inner {
    at: At,
    young: HashMap<Bytes, etcd::KeyValue>,
    young_bytes: usize,
    old: HashMap<Bytes, etcd::KeyValue>,
}

fn at(head: &StateHead, replaced: u64) -> At {
    At { cluster_id: head.cluster_id, revision: head.revision, replaced }
}

fn size(kv: &etcd::KeyValue) -> usize {
    kv.key.len() + kv.value.len() + RECORD_BYTES
}

// === impl Latest ===

impl Latest {
    /// Nothing yet, of a state that stands at `head`.
    pub(crate) fn new(head: &StateHead, max_bytes: usize) -> Latest {
        let inner = Inner { at: at(head, 0), young: HashMap::new(), young_bytes: 0, old: HashMap::new() };
        Latest { generation_bytes: max_bytes / 2, inner: Mutex::new(inner) }
    }

    /// The current record of `key` and where the state stands, if the record is cached. A record that is not cached may still exist.
    pub(crate) fn get(&self, key: &[u8]) -> Option<(etcd::KeyValue, At)> {
        let mut inner = self.inner.lock();
        let kv = match inner.young.get(key) {
            Some(kv) => kv.clone(),
            None => {
                let kv = inner.old.remove(key)?;
                inner.insert(kv.clone(), self.generation_bytes);
                kv
            }
        };
        Some((kv, inner.at))
    }

    /// A batch was written that leads to `head`.
    pub(crate) fn advance(&self, head: &StateHead, revisions: &[(i64, Vec<etcd::Event>)]) {
        let mut inner = self.inner.lock();
        inner.at = at(head, inner.at.replaced);
        for event in revisions.iter().flat_map(|(_, events)| events) {
            let Some(kv) = &event.kv else { continue };
            inner.remove(&kv.key);
            if event.r#type() == EventType::Put {
                inner.insert(kv.clone(), self.generation_bytes);
            }
        }
    }

    /// Where the records stand now.
    pub(crate) fn at(&self) -> At {
        self.inner.lock().at
    }

    /// Takes the current record of a key as the engine had it, unless the state has moved on since it was at `at`.
    pub(crate) fn offer(&self, kv: &etcd::KeyValue, at: At) {
        let mut inner = self.inner.lock();
        if inner.at == at && !inner.young.contains_key(&kv.key) {
            inner.old.remove(&kv.key);
            inner.insert(kv.clone(), self.generation_bytes);
        }
    }

    /// Runs `replace`, which replaces this state by another one that stands at `head`. No lookup finds a record here while it runs.
    pub(crate) fn restart(&self, head: &StateHead, replace: impl FnOnce()) {
        let mut inner = self.inner.lock();
        inner.at = at(head, inner.at.replaced + 1);
        if !mutant::on("latest-outlives-state") {
            inner.young.clear();
            inner.young_bytes = 0;
            inner.old.clear();
        }
        replace();
    }
}

// === impl Inner ===

impl Inner {
    fn remove(&mut self, key: &[u8]) {
        match self.young.remove(key) {
            Some(kv) => self.young_bytes -= size(&kv),
            None => drop(self.old.remove(key)),
        }
    }

    /// Takes a record of which there is none in the young generation.
    fn insert(&mut self, kv: etcd::KeyValue, generation_bytes: usize) {
        let bytes = size(&kv);
        if bytes > generation_bytes / LARGEST_PART {
            return;
        }
        if self.young_bytes + bytes > generation_bytes {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(kv.key.clone(), kv);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(revision: i64) -> StateHead {
        StateHead { cluster_id: 7, revision, ..Default::default() }
    }

    fn kv(key: &str, mod_revision: i64, value_bytes: usize) -> etcd::KeyValue {
        etcd::KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            mod_revision,
            value: vec![0; value_bytes].into(),
            ..Default::default()
        }
    }

    fn event(kind: EventType, kv: etcd::KeyValue) -> etcd::Event {
        etcd::Event { r#type: kind as i32, kv: Some(kv), prev_kv: None }
    }

    fn found(latest: &Latest, key: &str) -> Option<i64> {
        latest.get(key.as_bytes()).map(|(kv, _)| kv.mod_revision)
    }

    #[test]
    fn shows_the_last_write_and_where_the_state_stands() {
        let latest = Latest::new(&head(1), 64 << 10);
        assert_eq!(found(&latest, "a"), None);
        latest.advance(&head(2), &[(2, vec![event(EventType::Put, kv("a", 2, 10))])]);
        latest.advance(&head(3), &[(3, vec![event(EventType::Put, kv("a", 3, 10)), event(EventType::Put, kv("b", 3, 10))])]);
        assert_eq!(latest.get(b"a"), Some((kv("a", 3, 10), At { cluster_id: 7, revision: 3, replaced: 0 })));
        latest.advance(&head(4), &[(4, vec![event(EventType::Delete, kv("a", 4, 0))])]);
        assert_eq!((found(&latest, "a"), found(&latest, "b")), (None, Some(3)));
        latest.restart(&head(9), || ());
        assert_eq!(found(&latest, "b"), None);
    }

    #[test]
    fn what_was_read_before_the_state_moved_is_not_taken() {
        let latest = Latest::new(&head(5), 64 << 10);
        let before = latest.at();
        latest.offer(&kv("a", 2, 10), before);
        assert_eq!(found(&latest, "a"), Some(2));
        latest.advance(&head(6), &[(6, vec![event(EventType::Delete, kv("a", 6, 0))])]);
        latest.offer(&kv("a", 2, 10), before);
        assert_eq!(found(&latest, "a"), None, "it was deleted meanwhile");
        let before = latest.at();
        latest.restart(&head(6), || ());
        latest.offer(&kv("a", 2, 10), before);
        assert_eq!(found(&latest, "a"), None, "that was another state");
    }

    #[test]
    fn stays_within_its_size_and_keeps_what_is_used() {
        let latest = Latest::new(&head(1), 64 << 10);
        for number in 2..2000 {
            latest.advance(&head(number), &[(number, vec![event(EventType::Put, kv(&format!("k{number}"), number, 100))])]);
            if number > 2 {
                assert_eq!(found(&latest, "k2"), Some(2), "it is asked for all the time");
            }
            let inner = latest.inner.lock();
            let held: usize = inner.young.values().chain(inner.old.values()).map(size).sum();
            assert!(held <= 64 << 10, "{held} bytes");
            assert_eq!(inner.young_bytes, inner.young.values().map(size).sum::<usize>());
        }
        assert_eq!((found(&latest, "k3"), found(&latest, "k1999")), (None, Some(1999)));
        latest.offer(&kv("large", 1, 60 << 10), latest.at());
        assert_eq!(found(&latest, "large"), None, "it would push out everything else");
    }
}
