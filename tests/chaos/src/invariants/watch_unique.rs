//! Unique: no event comes twice, neither in one watch nor in one that was resumed.

use std::collections::BTreeSet;

use crate::history::{History, Said};
use crate::record::Record;

pub(super) fn check(history: &History, _record: &Record, broken: &mut dyn FnMut(String)) {
    let mut seen = BTreeSet::new();
    for watch in &history.watches {
        for (_, said) in &watch.said {
            let Said::Batch(_, events) = said else { continue };
            for event in events {
                if !seen.insert((&watch.watcher, event.kv.modified, &event.kv.key)) {
                    broken(format!("{}: {} at {} once more", watch.watcher, event.kv.key, event.kv.modified));
                }
            }
        }
    }
}
