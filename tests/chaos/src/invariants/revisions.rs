//! One revision, one content: no two watches, wherever and whenever, tell different things about it; and none is skipped.

use crate::history::History;
use crate::record::Record;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    for contradiction in record.contradictions() {
        broken(contradiction.clone());
    }
    let mut before: Option<i64> = None;
    for (revision, _) in record.changes() {
        if let Some(before) = before.filter(|before| before + 1 != revision && !history.shared) {
            broken(format!("nothing is known to have happened between {before} and {revision}"));
        }
        before = Some(revision);
    }
}
