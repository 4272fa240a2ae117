//! An acknowledged write stands at its revision, with its content and nothing else (design D10).

use std::collections::BTreeMap;

use crate::history::{Answer, History};
use crate::record::Record;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    for operation in &history.operations {
        let (Some(transaction), Some(Answer::Written(revision))) = (operation.transaction(), operation.answer()) else { continue };
        let mut wanted: BTreeMap<&str, Option<&str>> =
            transaction.puts.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
        let existed = |key: &&String| record.key_at(key, revision - 1).is_some();
        wanted.extend(transaction.deletes.iter().filter(existed).map(|key| (key.as_str(), None)));
        if wanted.is_empty() {
            // Deleting nothing makes no revision.
            continue;
        }
        let found: BTreeMap<&str, Option<&str>> = record
            .at(*revision)
            .into_iter()
            .flatten()
            .map(|(key, event)| (key.as_str(), (!event.deleted).then_some(event.kv.value.as_str())))
            .collect();
        if found != wanted {
            broken(format!("{} was told {revision} for {wanted:?}; there stands {found:?}", operation.client));
        }
    }
}
