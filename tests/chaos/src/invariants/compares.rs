//! A transaction's compares are decided on the state right before it.

use crate::history::{Answer, History};
use crate::record::Record;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    for operation in &history.operations {
        let Some(transaction) = operation.transaction() else { continue };
        let mod_at = |key: &str, revision: i64| record.key_at(key, revision).map_or(0, |kv| kv.modified);
        match operation.answer() {
            Some(Answer::Written(revision)) => {
                for (key, expected) in &transaction.expect {
                    let found = mod_at(key, revision - 1);
                    if found != *expected {
                        broken(format!("{} wrote at {revision} expecting {key} at {expected}; it was at {found}", operation.client));
                    }
                }
            }
            Some(Answer::Conflict(revision, keys)) => {
                if transaction.expect.iter().all(|(key, expected)| mod_at(key, *revision) == *expected) {
                    broken(format!("{} was refused at {revision}, where all held: {:?}", operation.client, transaction.expect));
                }
                for kv in keys {
                    if record.key_at(&kv.key, *revision) != Some(kv) {
                        broken(format!("{} was shown {kv:?} at {revision}", operation.client));
                    }
                }
            }
            _ => {}
        }
    }
}
