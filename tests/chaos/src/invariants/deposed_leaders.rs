//! Writes that only a leader may do come in the order of leaderships: none of a term stands after one of a later term
//! (design D4).

use std::collections::BTreeMap;

use crate::history::History;
use crate::record::Record;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    let values = record.values();
    let mut terms: BTreeMap<i64, u64> = BTreeMap::new();
    for operation in &history.operations {
        let Some((transaction, term)) = operation.transaction().and_then(|transaction| Some((transaction, transaction.fence?))) else {
            continue;
        };
        for (revision, _) in transaction.puts.iter().filter_map(|(_, value)| values.get(value.as_str())).flatten() {
            terms.insert(*revision, term);
        }
    }
    let mut last = (0, 0);
    for (revision, term) in terms {
        if term < last.1 {
            broken(format!("a leader of term {term} wrote at {revision}, one of term {} at {} before", last.1, last.0));
        }
        last = (revision, term);
    }
}
