//! Reliable: from its start to the revision a watch says it has reached, no event is missing and none is added.

use std::collections::BTreeSet;

use crate::history::{Event, History, Said};
use crate::record::Record;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    let short = |event: &Event| (event.kv.modified, event.kv.key.clone(), event.deleted);
    for watch in &history.watches {
        let mut reached = watch.from - 1;
        for (_, said) in &watch.said {
            let Said::Batch(upto, events) = said else { continue };
            let found: BTreeSet<_> = events.iter().map(short).collect();
            let wanted: BTreeSet<_> = record.between(&watch.prefix, reached, *upto).map(short).collect();
            if found != wanted {
                let missing: Vec<_> = wanted.difference(&found).take(3).collect();
                let added: Vec<_> = found.difference(&wanted).take(3).collect();
                broken(format!("{} at {}, {reached} to {upto}: missing {missing:?}, added {added:?}", watch.watcher, watch.member));
            }
            reached = reached.max(*upto);
        }
    }
}
