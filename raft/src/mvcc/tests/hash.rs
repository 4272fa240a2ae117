//! The hash of a revision: the same whatever happened since and wherever compaction is; another for anything that differs.

use trireme_proto::store::CompactCommand;
use trireme_proto::store::command::Body;

use super::{Machine, bytes, disks, memory};
use crate::StoreError;

fn compact(machine: &mut Machine, revision: i64) {
    machine.run(Body::Compact(CompactCommand { revision, holder: String::new() })).unwrap();
}

#[test]
fn replicas_that_agree_have_the_same_hash_however_far_they_are() {
    for (ahead, behind) in disks().into_iter().zip(disks()) {
        let (mut ahead, mut behind) = (Machine::new(ahead), Machine::new(behind));
        let mut at = 0;
        for machine in [&mut ahead, &mut behind] {
            machine.put("a", "1");
            machine.put("b", "1");
            machine.put("a", "2");
            machine.delete("b", "");
            compact(machine, 4);
            at = machine.put("c\0", "3");
        }
        let expected = behind.state.hash(at).unwrap();
        assert_eq!(behind.state.hash(0).unwrap(), expected);
        ahead.put("a", "4");
        ahead.delete("c\0", "");
        ahead.put("d", "5");
        assert_eq!(ahead.state.hash(at).unwrap(), expected);
        assert_ne!(ahead.state.hash(0).unwrap().hash, expected.hash);
        // One has removed compacted history, the other has not.
        ahead.state.compact_now().unwrap();
        assert!(!ahead.state.has_compacted_history() && behind.state.has_compacted_history());
        assert_eq!(ahead.state.hash(at).unwrap(), expected);
        assert!(matches!(ahead.state.hash(3), Err(StoreError::Compacted { compact_revision: 4 })));
        assert!(matches!(behind.state.hash(at + 1), Err(StoreError::FutureRevision { .. })));
    }
}

#[test]
fn values_versions_and_deletions_change_the_hash() {
    let run = |steps: &[&dyn Fn(&mut Machine)]| {
        let mut machine = Machine::new(memory());
        steps.iter().for_each(|step| step(&mut machine));
        machine.state.hash(3).unwrap().hash
    };
    let put = |key: &'static str, value: &'static str| {
        move |machine: &mut Machine| {
            machine.put(key, value);
        }
    };
    let hashes = [
        run(&[&put("a", "1"), &put("a", "1")]),
        run(&[&put("a", "1"), &put("a", "2")]),
        run(&[&put("a", "1"), &put("b", "1")]),
        run(&[&put("b", "1"), &put("a", "1")]),
        run(&[&put("a", "1"), &|machine| drop(machine.delete("a", ""))]),
    ];
    for (i, hash) in hashes.iter().enumerate() {
        assert!(!hashes[..i].contains(hash), "{i}: {hashes:x?}");
    }
}

#[test]
fn hidden_keys_are_neither_returned_nor_counted() {
    let mut machine = Machine::new(memory());
    for key in ["a", "h/1", "h/2", "i"] {
        machine.put(key, "x");
    }
    let hidden = [(bytes("h/"), bytes("h0"))];
    let everything = trireme_proto::etcd::RangeRequest { key: bytes("\0"), range_end: bytes("\0"), ..Default::default() };
    for revision in [0, machine.state.revision(), machine.state.revision() - 1] {
        let request = trireme_proto::etcd::RangeRequest { revision, ..everything.clone() };
        let response = machine.state.range_outside(&request, &hidden).unwrap();
        let keys: Vec<_> = response.kvs.iter().map(|kv| kv.key.clone()).collect();
        let expected = if revision == machine.state.revision() - 1 { vec![bytes("a")] } else { vec![bytes("a"), bytes("i")] };
        assert_eq!((response.count, keys), (expected.len() as i64, expected));
    }
    let limited = trireme_proto::etcd::RangeRequest { limit: 1, ..everything };
    let response = machine.state.range_outside(&limited, &hidden).unwrap();
    assert_eq!((response.kvs.len(), response.more, response.count), (1, true, 2));
    let one = trireme_proto::etcd::RangeRequest { key: bytes("h/1"), ..Default::default() };
    assert_eq!(machine.state.range_outside(&one, &hidden).unwrap().count, 0);
}

#[test]
fn keys_are_counted_once_and_then_followed() {
    let mut machine = Machine::new(memory());
    machine.put("a", "1");
    machine.put("b", "1");
    assert_eq!(machine.state.keys().unwrap(), 2);
    machine.put("b", "2");
    machine.put("c", "1");
    machine.delete("a", "");
    machine.delete("nothing", "");
    assert_eq!(machine.state.keys().unwrap(), 2);
    machine.crash_and_replay();
    assert_eq!(machine.state.keys().unwrap(), 2);
}
