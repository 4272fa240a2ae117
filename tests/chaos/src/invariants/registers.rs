//! Each key by itself is a linearizable register, by a search that trusts no revision: Wing and Gong's, with Lowe's memory
//! of configurations that were tried (as in Porcupine). Writes of unknown outcome may take effect at any time
//! after they began, or never.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::history::{Answer, Call, History};
use crate::record::Record;

/// Operations that the search may look at for one key before it gives up without a verdict.
const PATIENCE: usize = 2_000_000;

/// One operation on one key.
#[derive(Clone, Debug)]
struct Op {
    started: u64,
    /// Never, for an unknown outcome.
    ended: u64,
    kind: Kind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Kind {
    Write(Option<String>),
    Read(Option<String>),
    /// A write that took effect only if the register held this.
    Swap(Option<String>, String),
}

pub(super) fn check(history: &History, record: &Record, broken: &mut dyn FnMut(String)) {
    let mut keys: BTreeMap<String, Vec<Op>> = BTreeMap::new();
    // A compare names a revision; the record says which value the key had at it.
    let value_of = |key: &str, revision: i64| record.key_at(key, revision).filter(|kv| kv.modified == revision).map(|kv| kv.value.clone());
    // Keys on leases are deleted when their leases expire, which is no client's operation.
    let all: BTreeSet<&str> = history
        .operations
        .iter()
        .filter_map(|operation| operation.transaction())
        .filter(|transaction| transaction.lease == 0)
        .flat_map(|transaction| transaction.puts.iter().map(|(key, _)| key.as_str()).chain(transaction.deletes.iter().map(String::as_str)))
        .collect();
    for operation in &history.operations {
        let started = operation.started.seq;
        let (ended, answer) = match &operation.ended {
            Some((at, answer)) => (at.seq, Some(answer)),
            None => (u64::MAX, None),
        };
        match (&operation.call, answer) {
            (Call::Write(_), Some(Answer::Refused(_) | Answer::Conflict(..))) => {}
            (Call::Write(transaction), answer) => {
                let ended = if matches!(answer, Some(Answer::Written(_))) { ended } else { u64::MAX };
                for (key, value) in transaction.puts.iter().filter(|(key, _)| all.contains(key.as_str())) {
                    let expected = transaction.expect.iter().find(|(expected, _)| expected == key);
                    let kind = match expected {
                        Some((_, revision)) => Kind::Swap(value_of(key, *revision), value.clone()),
                        None => Kind::Write(Some(value.clone())),
                    };
                    keys.entry(key.clone()).or_default().push(Op { started, ended, kind });
                }
                for key in &transaction.deletes {
                    keys.entry(key.clone()).or_default().push(Op { started, ended, kind: Kind::Write(None) });
                }
            }
            (Call::Read(prefix), Some(Answer::Read(_, found))) => {
                for key in all.iter().filter(|key| key.starts_with(prefix)) {
                    let value = found.iter().find(|kv| kv.key == **key).map(|kv| kv.value.clone());
                    keys.entry((*key).to_owned()).or_default().push(Op { started, ended, kind: Kind::Read(value) });
                }
            }
            _ => {}
        }
    }
    for (key, ops) in keys {
        if let Some(stuck) = search(&ops) {
            broken(format!("{key} is no register: no order of its {} operations explains {stuck:?}", ops.len()));
        }
    }
}

/// None if there is an order; else the operation that could not be placed.
fn search(ops: &[Op]) -> Option<Op> {
    let mut ops = ops.to_vec();
    ops.sort_by_key(|op| (op.started, op.ended));
    // Writes of unknown outcome whose value was never read have no visible effect, but deletions do.
    let read: HashSet<&String> = ops
        .iter()
        .filter_map(|op| match &op.kind {
            Kind::Read(value) | Kind::Swap(value, _) => value.as_ref(),
            Kind::Write(_) => None,
        })
        .collect();
    let needed = |op: &Op| {
        op.ended != u64::MAX
            || match &op.kind {
                Kind::Write(Some(value)) | Kind::Swap(_, value) => read.contains(value),
                _ => true,
            }
    };
    let keep: Vec<bool> = ops.iter().map(needed).collect();
    let ops: Vec<Op> = ops.iter().zip(keep).filter(|(_, keep)| *keep).map(|(op, _)| op.clone()).collect();
    let certain = ops.iter().filter(|op| op.ended != u64::MAX).count();

    let mut done = vec![false; ops.len()];
    let mut seen: HashSet<(Done, Option<String>)> = HashSet::new();
    let mut stack: Vec<(usize, Option<String>)> = Vec::new();
    let (mut value, mut placed, mut next, mut steps, mut furthest) = (None::<String>, 0, 0, 0, 0);
    // Everything before it is placed.
    let mut first = 0;
    let mut stuck = ops.first().cloned();
    loop {
        if placed == certain {
            return None;
        }
        steps += 1;
        if steps > PATIENCE {
            return None;
        }
        while first < ops.len() && done[first] {
            first += 1;
        }
        // The first candidate from `next` on: it began before everything that is not placed has ended. What began later has ended
        // later, so it need not be looked at for that.
        let mut limit = u64::MAX;
        let mut end = first;
        while end < ops.len() && ops[end].started <= limit {
            if !done[end] {
                limit = limit.min(ops[end].ended);
            }
            end += 1;
        }
        let found = (next.max(first)..ops.len()).take_while(|at| ops[*at].started <= limit).find(|at| {
            !done[*at]
                && apply(&ops[*at].kind, &value).is_some_and(|after| {
                    done[*at] = true;
                    let new = seen.insert((Done::of(&done, first, end), after));
                    done[*at] = false;
                    new
                })
        });
        match found {
            Some(at) => {
                stack.push((at, value.clone()));
                value = apply(&ops[at].kind, &value).unwrap_or_default();
                done[at] = true;
                placed += usize::from(ops[at].ended != u64::MAX);
                next = 0;
            }
            None => {
                if placed >= furthest {
                    furthest = placed;
                    stuck = ops.iter().zip(&done).filter(|(_, done)| !**done).map(|(op, _)| op).min_by_key(|op| op.ended).cloned();
                }
                // A read that fits could always be placed first, because it changes nothing: where that leads to no order, no other
                // choice does.
                loop {
                    let Some((at, before)) = stack.pop() else { return stuck };
                    done[at] = false;
                    first = first.min(at);
                    placed -= usize::from(ops[at].ended != u64::MAX);
                    value = before;
                    next = at + 1;
                    if !matches!(ops[at].kind, Kind::Read(_)) {
                        break;
                    }
                }
            }
        }
    }
}

/// What the register holds afterwards; none if the operation cannot have happened now.
fn apply(kind: &Kind, value: &Option<String>) -> Option<Option<String>> {
    match kind {
        Kind::Write(written) => Some(written.clone()),
        Kind::Read(found) => (found == value).then(|| value.clone()),
        Kind::Swap(expected, written) => (expected == value).then(|| Some(written.clone())),
    }
}

/// Which operations are placed: all before the first that is not, and of those after it these.
#[derive(PartialEq, Eq, Hash)]
struct Done {
    first: usize,
    after: Vec<u64>,
}

impl Done {
    /// None before `from` is missing, none at or after `end` is placed.
    fn of(done: &[bool], from: usize, end: usize) -> Done {
        let first = (from..end).find(|at| !done[*at]).unwrap_or(end);
        let word = |chunk: &[bool]| chunk.iter().enumerate().fold(0, |word, (at, done)| word | (u64::from(*done) << at));
        let mut after: Vec<u64> = done[first..end].chunks(64).map(word).collect();
        // Trailing zeros are dropped, so that equal sets compare equal.
        while after.last() == Some(&0) {
            after.pop();
        }
        Done { first, after }
    }
}
