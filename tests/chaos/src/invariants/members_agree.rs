//! When all is healed, every member has the same keys at the same revision, and they follow from the record.

use crate::history::History;
use crate::record::Record;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    for end in &history.finals {
        if end.revision != record.last() && !(history.shared && end.revision > record.last()) {
            broken(format!("{} ends at revision {}, the record at {}", end.member, end.revision, record.last()));
        }
        let wanted = record.keys_at("", end.revision);
        if end.keys != wanted {
            let differs = wanted.iter().zip(&end.keys).find(|(wanted, found)| wanted != found);
            broken(format!(
                "{} ends with {} keys, the record with {}; first difference: {differs:?}",
                end.member,
                end.keys.len(),
                wanted.len()
            ));
        }
    }
}
