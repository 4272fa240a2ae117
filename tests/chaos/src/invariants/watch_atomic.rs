//! Atomic: the events of a revision come in one batch.

use std::collections::BTreeSet;

use crate::history::{History, Said};
use crate::record::Record;

pub(super) fn check(history: &History, _record: &Record, broken: &mut dyn FnMut(String)) {
    for watch in &history.watches {
        let mut earlier = BTreeSet::new();
        for (_, said) in &watch.said {
            let Said::Batch(_, events) = said else { continue };
            let here: BTreeSet<i64> = events.iter().map(|event| event.kv.modified).collect();
            for revision in here.intersection(&earlier) {
                broken(format!("{}: {revision} was split", watch.watcher));
            }
            earlier.extend(here);
        }
    }
}
