//! What was refused, or failed its compares, has not happened.

use crate::history::{Answer, History};
use crate::record::Record;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    let values = record.values();
    for operation in &history.operations {
        let (Some(transaction), Some(Answer::Refused(_) | Answer::Conflict(..))) = (operation.transaction(), operation.answer()) else {
            continue;
        };
        for (key, value) in &transaction.puts {
            if let Some(at) = values.get(value.as_str()) {
                broken(format!("{}: {key}={value} got {:?}, and yet it stands at {at:?}", operation.client, operation.answer()));
            }
        }
    }
}
