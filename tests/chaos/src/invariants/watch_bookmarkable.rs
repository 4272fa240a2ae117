//! Bookmarkable: after a watch has said that it reached a revision, nothing at or below it comes any more; and it never
//! says so of one it has not reached.

use crate::history::{History, Said};
use crate::record::Record;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    for watch in &history.watches {
        let mut mark = watch.from - 1;
        for (_, said) in &watch.said {
            let Said::Batch(upto, events) = said else { continue };
            if let Some(event) = events.iter().find(|event| event.kv.modified <= mark || event.kv.modified > *upto) {
                broken(format!("{}: an event at {} between the marks {mark} and {upto}", watch.watcher, event.kv.modified));
            }
            if *upto < mark || *upto > record.last() {
                broken(format!("{}: mark {upto} after {mark}; the last revision is {}", watch.watcher, record.last()));
            }
            mark = *upto;
        }
    }
}
