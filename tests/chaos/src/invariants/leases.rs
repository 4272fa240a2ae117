//! A key on a lease is there until the lease's time has passed since the last time it was surely given.

use std::collections::BTreeMap;

use crate::history::{Answer, Call, History, Said};
use crate::record::Record;

/// What clocks may differ by.
const SLACK_PERCENT: u64 = 15;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    // When each lease was given its time, counted from the moment it was asked for.
    let mut given: BTreeMap<i64, Vec<(u64, i64)>> = BTreeMap::new();
    for operation in &history.operations {
        if let (Call::Grant(_) | Call::KeepAlive(_), Some(Answer::Lease(id, ttl))) = (&operation.call, operation.answer()) {
            given.entry(*id).or_default().push((operation.started.ms, *ttl));
        }
    }
    // When each deletion was first seen: it cannot have happened later.
    let mut gone: BTreeMap<(i64, &str), u64> = BTreeMap::new();
    for watch in &history.watches {
        for (at, said) in &watch.said {
            let Said::Batch(_, events) = said else { continue };
            for event in events.iter().filter(|event| event.deleted) {
                let first = gone.entry((event.kv.modified, &event.kv.key)).or_insert(at.ms);
                *first = at.ms.min(*first);
            }
        }
    }
    let asked: Vec<&str> = history
        .operations
        .iter()
        .filter_map(|operation| operation.transaction())
        .flat_map(|txn| &txn.deletes)
        .map(String::as_str)
        .collect();
    for ((revision, key), at) in gone {
        let Some(kv) = record.key_at(key, revision - 1).filter(|kv| kv.lease != 0 && !asked.contains(&key)) else { continue };
        for (start, ttl) in given.get(&kv.lease).into_iter().flatten() {
            let ttl_ms = u64::try_from(*ttl).unwrap_or(0) * 1000;
            let earliest = start + ttl_ms - ttl_ms * SLACK_PERCENT / 100;
            if *start <= at && at < earliest {
                broken(format!("{key} went at {at} ms, although lease {} got {ttl} s at {start} ms", kv.lease));
            }
        }
    }
}
