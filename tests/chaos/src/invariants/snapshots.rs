//! A read shows the keys exactly as they were at the revision it names.

use crate::history::{Answer, Call, History};
use crate::record::Record;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    for operation in &history.operations {
        let (Call::Read(prefix), Some(Answer::Read(revision, keys))) = (&operation.call, operation.answer()) else { continue };
        let wanted = record.keys_at(prefix, *revision);
        if wanted != *keys {
            let differs = wanted.iter().zip(keys).find(|(wanted, found)| wanted != found);
            broken(format!(
                "{} read {} keys at {revision}, there were {}; first difference: {differs:?}",
                operation.client,
                keys.len(),
                wanted.len()
            ));
        }
    }
}
