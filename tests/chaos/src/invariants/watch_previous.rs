//! An event carries what its key was before, unless that has been compacted.

use crate::history::{History, Said};
use crate::record::Record;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    for watch in &history.watches {
        let mut first = true;
        for (_, said) in &watch.said {
            let Said::Batch(_, events) = said else { continue };
            for event in events {
                let wanted = record.key_at(&event.kv.key, event.kv.modified - 1);
                // Where a watch starts at the floor, the version before is gone; later ones are still there.
                let at_floor = first && event.before.is_none();
                if event.before.as_ref() != wanted && !at_floor {
                    broken(format!("{}: {event:?}, but before it was {wanted:?}", watch.watcher));
                }
                first &= event.kv.modified == watch.from;
            }
        }
    }
}
