//! Resumable: a watch from a revision that is still kept continues there; one that cannot says so, and says the truth.

use std::collections::BTreeMap;

use crate::history::{History, Said};
use crate::record::Record;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    // Where each watcher is. It resumes right after that, or after a compaction that it was told of.
    let mut reached: BTreeMap<&str, i64> = BTreeMap::new();
    for watch in &history.watches {
        let watcher = watch.watcher.as_str();
        if let Some(reached) = reached.get(watcher).filter(|reached| watch.from != **reached + 1) {
            broken(format!("{watcher} was at {reached} and went on from {}", watch.from));
        }
        reached.insert(watcher, watch.from - 1);
        for (_, said) in &watch.said {
            match said {
                Said::Batch(upto, _) => {
                    reached.insert(watcher, *upto);
                }
                Said::Compacted(floor) => {
                    let at = reached.get(watcher).copied().unwrap_or(0);
                    if *floor <= at + 1 || *floor > record.last() {
                        broken(format!("{watcher} needed {} and was told that {floor} is the floor", at + 1));
                    }
                    // It lists at the floor and goes on from there.
                    reached.insert(watcher, floor - 1);
                }
                Said::Ended(_) => {}
            }
        }
    }
}
