//! Tests of the invariants: a correct history passes, and each violation that is planted in it is found by the invariant whose promise it
//! breaks.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use trireme_chaos::history::{Answer, At, Call, Event, Final, History, Kv, Operation, Said, Transaction, Watch};
use trireme_chaos::invariants;

fn at(seq: u64) -> At {
    At { seq, ms: seq * 10 }
}

fn kv(key: &str, value: &str, create: i64, modified: i64, version: i64) -> Kv {
    Kv { key: key.into(), value: value.into(), create, modified, version, lease: 0 }
}

fn put(kv: &Kv, before: Option<&Kv>) -> Event {
    Event { kv: kv.clone(), deleted: false, before: before.cloned() }
}

fn gone(key: &str, modified: i64, before: &Kv) -> Event {
    Event { kv: Kv { key: key.into(), modified, ..Kv::default() }, deleted: true, before: Some(before.clone()) }
}

fn operation(started: u64, ended: u64, call: Call, answer: Answer) -> Operation {
    Operation { client: format!("c{started}"), call, started: at(started), ended: Some((at(ended), answer)) }
}

fn write(started: u64, ended: u64, puts: &[(&str, &str)], revision: i64) -> Operation {
    let puts = puts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    operation(started, ended, Call::Write(Transaction { puts, ..Transaction::default() }), Answer::Written(revision))
}

fn transaction(operation: &mut Operation) -> &mut Transaction {
    match &mut operation.call {
        Call::Write(transaction) => transaction,
        other => panic!("{other:?} is no write"),
    }
}

/// Two registers, a leader and its successor, a lease, a watch that was resumed, and one of a prefix.
fn right() -> History {
    let (a, c) = (kv("k/r1", "a", 2, 2, 1), kv("k/r1", "c", 2, 4, 2));
    let (b, d, e) = (kv("k/r2", "b", 3, 3, 1), kv("k/r1", "d", 2, 6, 3), kv("k/r5", "e", 6, 6, 1));
    let (f, g) = (kv("k/fenced", "f", 7, 7, 1), kv("k/fenced", "g", 7, 8, 2));
    let leased = Kv { lease: 77, ..kv("k/lease/1", "h", 9, 9, 1) };

    let mut swap = write(6, 7, &[("k/r1", "c")], 4);
    transaction(&mut swap).expect = vec![("k/r1".into(), 2)];
    let conflict = Transaction { expect: vec![("k/r1".into(), 2)], puts: vec![("k/r1".into(), "never".into())], ..Transaction::default() };
    let delete = Transaction { deletes: vec!["k/r2".into()], ..Transaction::default() };
    let mut fenced = [write(20, 21, &[("k/fenced", "f")], 7), write(22, 23, &[("k/fenced", "g")], 8)];
    transaction(&mut fenced[0]).fence = Some(1);
    transaction(&mut fenced[1]).fence = Some(2);
    let mut on_lease = write(26, 27, &[("k/lease/1", "h")], 9);
    transaction(&mut on_lease).lease = 77;
    let read = Answer::Read(4, vec![c.clone(), b.clone()]);
    let mut operations = vec![
        write(0, 1, &[("k/r1", "a")], 2),
        write(2, 5, &[("k/r2", "b")], 3),
        swap,
        operation(8, 9, Call::Read("k/r".into()), read),
        operation(10, 11, Call::Write(conflict), Answer::Conflict(4, vec![c.clone()])),
        operation(12, 13, Call::Write(delete), Answer::Written(5)),
        write(14, 15, &[("k/r1", "d"), ("k/r5", "e")], 6),
        operation(16, 17, Call::Read("k/r".into()), Answer::Read(6, vec![d.clone(), e.clone()])),
    ];
    operations.extend(fenced);
    operations.push(operation(24, 25, Call::Grant(5), Answer::Lease(77, 5)));
    operations.push(on_lease);
    let mut unknown = write(28, 29, &[("k/r3", "perhaps")], 0);
    unknown.ended = None;
    operations.push(unknown);

    let said = |seq: u64, upto: i64, events: Vec<Event>| (at(seq), Said::Batch(upto, events));
    let watch = |member: &str, prefix: &str, from: i64, said| Watch {
        watcher: format!("w {prefix}"),
        member: member.into(),
        prefix: prefix.into(),
        from,
        said,
    };
    let first = vec![
        said(1, 2, vec![put(&a, None)]),
        said(7, 4, vec![put(&b, None), put(&c, Some(&a))]),
        said(13, 5, vec![gone("k/r2", 5, &b)]),
        said(15, 6, vec![put(&d, Some(&c)), put(&e, None)]),
        (at(16), Said::Ended("the member went".into())),
    ];
    let second = vec![
        said(23, 8, vec![put(&f, None), put(&g, Some(&f))]),
        said(27, 9, vec![put(&leased, None)]),
        said(600, 10, vec![gone("k/lease/1", 10, &leased)]),
    ];
    let picker = vec![said(7, 4, vec![put(&a, None), put(&c, Some(&a))]), said(20, 6, vec![put(&d, Some(&c))]), said(601, 10, Vec::new())];
    let end = |member: &str| Final { member: member.into(), revision: 10, keys: vec![g.clone(), d.clone(), e.clone()] };
    History {
        operations,
        watches: vec![watch("h0", "k/", 2, first), watch("h1", "k/", 7, second), watch("h2", "k/r1", 2, picker)],
        leaders: BTreeMap::from([(1, vec![1]), (2, vec![3])]),
        finals: vec![end("h0"), end("h1"), end("h2")],
        shared: false,
        failures: Vec::new(),
    }
}

fn batch(history: &mut History, watch: usize, at: usize) -> (&mut i64, &mut Vec<Event>) {
    match &mut history.watches[watch].said[at].1 {
        Said::Batch(upto, events) => (upto, events),
        other => panic!("{other:?} is no batch"),
    }
}

fn answer(history: &mut History, operation: usize) -> &mut Answer {
    &mut history.operations[operation].ended.as_mut().unwrap().1
}

type Plant = fn(&mut History);

#[test]
fn a_right_history_passes_and_every_planted_violation_is_found() {
    assert_eq!(invariants::check(&right()), []);
    let planted: &[(&str, &str, Plant)] = &[
        ("acknowledged writes last", "a write is lost", |history| {
            history.operations.push(write(30, 31, &[("k/r3", "lost")], 11));
        }),
        ("acknowledged writes last", "another value stands there", |history| {
            transaction(&mut history.operations[1]).puts[0].1 = "b2".into();
        }),
        ("refused writes never happen", "a refused write stands", |history| *answer(history, 1) = Answer::Refused("no leader".into())),
        ("refused writes never happen", "a failed compare wrote", |history| *answer(history, 2) = Answer::Conflict(4, Vec::new())),
        ("a write happens once, and whole", "applied twice", |history| {
            batch(history, 1, 0).1[0].kv.value = "d".into();
        }),
        ("a write happens once, and whole", "half a transaction", |history| {
            transaction(&mut history.operations[0]).puts.push(("k/r9".into(), "half".into()));
        }),
        ("a write happens once, and whole", "a write of nobody's", |history| {
            history.operations.remove(1);
        }),
        ("a revision is never used twice", "two contents", |history| batch(history, 2, 1).1[0].kv.value = "x".into()),
        ("a revision is never used twice", "a hole", |history| {
            *batch(history, 0, 2).1 = Vec::new();
        }),
        ("real time is respected", "a stale read", |history| *answer(history, 7) = Answer::Read(5, Vec::new())),
        ("real time is respected", "a write behind one that had ended", |history| {
            history.operations[0].started = at(50);
            history.operations[0].ended = Some((at(51), Answer::Written(2)));
        }),
        ("real time is respected", "an unknown write behind a read", |history| {
            history.operations[1].ended = None;
            history.operations[1].started = at(18);
        }),
        ("a read shows one revision", "a mixture", |history| {
            if let Answer::Read(_, keys) = answer(history, 7) {
                keys.pop();
            }
        }),
        ("compares decide on the state before", "a swap on the wrong state", |history| {
            transaction(&mut history.operations[2]).expect[0].1 = 3;
        }),
        ("compares decide on the state before", "refused although it held", |history| {
            transaction(&mut history.operations[4]).expect[0].1 = 4;
        }),
        ("registers are linearizable", "a value that was overwritten comes back", |history| {
            history.operations.push(operation(40, 41, Call::Read("k/r1".into()), Answer::Read(6, vec![kv("k/r1", "a", 2, 2, 1)])));
        }),
        ("registers are linearizable", "a value that was written is not there", |history| {
            history.operations.push(operation(40, 41, Call::Read("k/r1".into()), Answer::Read(6, Vec::new())));
        }),
        ("versions count", "a version skipped", |history| {
            for watch in [0, 2] {
                let at = if watch == 0 { 3 } else { 1 };
                batch(history, watch, at).1[0].kv.version = 4;
            }
        }),
        ("versions count", "deleted twice", |history| {
            let event = gone("k/r2", 6, &kv("k/r2", "b", 3, 3, 1));
            batch(history, 0, 3).1.push(event);
        }),
        ("watches are ordered", "backwards", |history| batch(history, 0, 1).1.reverse()),
        ("watches are unique", "twice", |history| {
            let event = batch(history, 0, 2).1[0].clone();
            batch(history, 0, 2).1.push(event);
        }),
        ("watches are unique", "again after it was resumed", |history| {
            let event = batch(history, 0, 2).1[0].clone();
            batch(history, 1, 0).1.insert(0, event);
        }),
        ("watches are atomic", "split", |history| {
            let event = batch(history, 0, 3).1.pop().unwrap();
            *batch(history, 0, 3).0 = 5;
            history.watches[0].said.insert(4, (at(15), Said::Batch(6, vec![event])));
        }),
        ("watches are reliable", "an event is missing", |history| {
            batch(history, 2, 0).1.pop();
        }),
        ("watches are reliable", "an event of another prefix", |history| {
            let event = put(&kv("k/r2", "b", 3, 3, 1), None);
            batch(history, 2, 0).1.insert(1, event);
        }),
        ("watches are resumable", "it goes on too late", |history| history.watches[1].from = 8),
        ("watches are resumable", "told that kept history is gone", |history| {
            history.watches[0].said[4].1 = Said::Compacted(6);
        }),
        ("watches are bookmarkable", "an event behind the mark", |history| *batch(history, 0, 1).0 = 3),
        ("watches are bookmarkable", "a mark of the future", |history| *batch(history, 2, 2).0 = 12),
        ("events carry the value before", "the value before is another", |history| {
            batch(history, 0, 3).1[0].before.as_mut().unwrap().value = "a".into();
        }),
        ("events carry the value before", "the value before is missing", |history| batch(history, 0, 3).1[0].before = None),
        ("members live", "one does not start", |history| history.failures.push("h1 does not start".into())),
        ("members agree", "one lags for ever", |history| history.finals[1].revision = 9),
        ("members agree", "one has another value", |history| history.finals[2].keys[0].value = "z".into()),
        ("one leader a term", "two", |history| history.leaders.get_mut(&2).unwrap().push(2)),
        ("deposed leaders do not write", "the old one writes on", |history| {
            transaction(&mut history.operations[8]).fence = Some(3);
        }),
        ("leases live their time", "gone early", |history| history.watches[1].said[2].0 = At { seq: 600, ms: 900 }),
    ];
    for (invariant, name, plant) in planted {
        let mut history = right();
        plant(&mut history);
        let violations = invariants::check(&history);
        let found = violations.iter().any(|violation| violation.invariant == *invariant);
        assert!(found, "{name}: {invariant} was broken; found was {violations:?}");
    }
    for invariant in invariants::names() {
        assert!(planted.iter().any(|(planted, ..)| *planted == invariant), "nothing breaks {invariant}");
    }
}
