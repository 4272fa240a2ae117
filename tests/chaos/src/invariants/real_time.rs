//! An operation that ended before another began comes before it: writes by their revisions, reads by the revision they show. A read that
//! breaks this is stale.

use crate::history::{Answer, At, Call, History};
use crate::record::Record;

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    // Everything that ended, in order, with what it proves: the store was at least at this revision.
    let mut ended: Vec<(At, i64, &str)> = Vec::new();
    let values = record.values();
    for operation in &history.operations {
        if let (Some((at, _)), Some(revision)) = (&operation.ended, operation.revision()) {
            ended.push((*at, revision, &operation.client));
        }
    }
    ended.sort();
    let mut highest: Vec<(At, i64, &str)> = Vec::new();
    for (at, revision, client) in ended {
        if highest.last().is_none_or(|(_, before, _)| revision > *before) {
            highest.push((at, revision, client));
        }
    }
    for operation in &history.operations {
        let before = &highest[..highest.partition_point(|(at, ..)| *at < operation.started)];
        let Some((_, floor, witness)) = before.last() else { continue };
        let (shown, is_write) = match (&operation.call, operation.answer()) {
            (Call::Write(transaction), answer) => {
                // Also for writes of unknown outcome: the record says whether they took effect.
                let stands =
                    transaction.puts.iter().find_map(|(_, value)| values.get(value.as_str())?.first()).map(|(revision, _)| *revision);
                match (stands, answer) {
                    (Some(revision), _) => (revision, true),
                    (None, Some(Answer::Conflict(revision, _))) => (*revision, false),
                    _ => continue,
                }
            }
            (_, Some(Answer::Read(revision, _))) => (*revision, false),
            _ => continue,
        };
        if shown < *floor || (is_write && shown == *floor) {
            let (client, started) = (&operation.client, operation.started);
            broken(format!("{client} began at {started:?}, when {witness} had seen {floor}; it is at {shown}: {:?}", operation.call));
        }
    }
}
