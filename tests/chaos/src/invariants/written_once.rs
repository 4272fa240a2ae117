//! Whatever the outcome, a transaction is in the record once or not at all, whole and in one revision; and the record holds no value that
//! no client wrote.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::History;
use crate::record::Record;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    let values = record.values();
    let mut sent: BTreeMap<&str, &str> = BTreeMap::new();
    for operation in &history.operations {
        let Some(transaction) = operation.transaction() else { continue };
        let mut revisions = BTreeSet::new();
        let mut found = 0;
        for (key, value) in &transaction.puts {
            sent.insert(value, key);
            for (revision, at_key) in values.get(value.as_str()).into_iter().flatten() {
                found += 1;
                revisions.insert(*revision);
                if at_key != key {
                    broken(format!("{value} was written to {key} and stands at {at_key}"));
                }
            }
        }
        if found != 0 && (revisions.len() > 1 || found != transaction.puts.len()) {
            broken(format!("{}: {:?} stands {found} times, at {revisions:?}", operation.client, transaction.puts));
        }
    }
    for (value, at) in &values {
        if !sent.contains_key(value) {
            broken(format!("nobody wrote {value}, which stands at {at:?}"));
        }
    }
}
