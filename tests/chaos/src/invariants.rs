//! What must hold of every history, one promise a file.
//!
//! Each is a function of history and record that says how it was broken; none knows how the history came about. The
//! watch guarantees are those of <https://etcd.io/docs/v3.6/learning/api_guarantees/>. A history in which the
//! order of revisions respects real time, every read shows one revision as it was, and every compare decided on the
//! state before it, is linearizable, with the revisions as the witness; `registers` looks for a witness of its own.

use crate::history::{History, Violation};
use crate::record::Record;

mod acknowledged_writes;
mod compares;
mod deposed_leaders;
mod leases;
mod members_agree;
mod members_live;
mod one_leader;
mod real_time;
mod refused_writes;
mod registers;
mod revisions;
mod snapshots;
mod versions;
mod watch_atomic;
mod watch_bookmarkable;
mod watch_ordered;
mod watch_previous;
mod watch_reliable;
mod watch_resumable;
mod watch_unique;
mod written_once;

type Check = fn(&History, &Record, &mut dyn FnMut(String));

/// All of them, by name.
const ALL: &[(&str, Check)] = &[
    ("acknowledged writes last", acknowledged_writes::check),
    ("refused writes never happen", refused_writes::check),
    ("a write happens once, and whole", written_once::check),
    ("a revision is never used twice", revisions::check),
    ("real time is respected", real_time::check),
    ("a read shows one revision", snapshots::check),
    ("compares decide on the state before", compares::check),
    ("registers are linearizable", registers::check),
    ("versions count", versions::check),
    ("watches are ordered", watch_ordered::check),
    ("watches are unique", watch_unique::check),
    ("watches are atomic", watch_atomic::check),
    ("watches are reliable", watch_reliable::check),
    ("watches are resumable", watch_resumable::check),
    ("watches are bookmarkable", watch_bookmarkable::check),
    ("events carry the value before", watch_previous::check),
    ("members live", members_live::check),
    ("members agree", members_agree::check),
    ("one leader a term", one_leader::check),
    ("deposed leaders do not write", deposed_leaders::check),
    ("leases live their time", leases::check),
];

/// How many violations of one kind are reported.
const TOLD: usize = 5;

/// Every promise that a history breaks.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let record = Record::of(history);
    let mut violations = Vec::new();
    for (invariant, check) in ALL {
        let mut told = 0;
        check(history, &record, &mut |what| {
            told += 1;
            if told <= TOLD {
                violations.push(Violation { invariant, what });
            }
        });
    }
    violations
}

/// Names of all invariants.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}
