//! Create revision, mod revision and version of every put follow from the changes before it.

use std::collections::BTreeMap;

use crate::history::{History, Kv};
use crate::record::Record;

pub(super) fn check(_history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    let mut live: BTreeMap<&str, &Kv> = BTreeMap::new();
    for (revision, events) in record.changes() {
        for (key, event) in events {
            let before = live.get(key.as_str());
            if event.deleted {
                if live.remove(key.as_str()).is_none() {
                    broken(format!("{key} is deleted at {revision} and was not there"));
                }
                continue;
            }
            let wanted = before.map_or((revision, 1), |before| (before.create, before.version + 1));
            if (event.kv.create, event.kv.version) != wanted {
                broken(format!(
                    "{key} at {revision} has create revision and version {:?}, not {wanted:?}",
                    (event.kv.create, event.kv.version)
                ));
            }
            live.insert(key, &event.kv);
        }
    }
}
