//! Ordered: events of a watch never go back in revision.

use crate::history::{History, Said};
use crate::record::Record;

pub(super) fn check(history: &History, _record: &Record, broken: &mut dyn FnMut(String)) {
    for watch in &history.watches {
        let mut last = 0;
        for (_, said) in &watch.said {
            let Said::Batch(_, events) = said else { continue };
            for event in events {
                if event.kv.modified < last {
                    broken(format!("{}: {} after {last}", watch.watcher, event.kv.modified));
                }
                last = event.kv.modified;
            }
        }
    }
}
