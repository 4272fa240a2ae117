//! What transactions do, case by case.

use trireme_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use trireme_proto::etcd::request_op::Request;
use trireme_proto::etcd::response_op::Response;
use trireme_proto::etcd::{Compare, PutRequest, RangeRequest, TxnRequest};

use super::*;

fn compare(key: &str, range_end: &str, target: CompareTarget, result: CompareResult, union: TargetUnion) -> Compare {
    Compare { result: result as i32, target: target as i32, key: bytes(key), range_end: bytes(range_end), target_union: Some(union) }
}

fn holds(machine: &mut Machine, compare: Compare) -> bool {
    machine.txn(TxnRequest { compare: vec![compare], ..Default::default() }).unwrap().succeeded
}

#[test]
fn versions_and_revisions_count_as_etcds_do() {
    let mut machine = Machine::new(memory());
    assert_eq!(machine.state.revision(), 1);
    assert_eq!(machine.put("a", "1"), 2);
    assert_eq!(machine.put("a", "2"), 3);
    let kv = machine.get("a").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version, &kv.value[..]), (2, 3, 2, &b"2"[..]));
    let deleted = machine.delete("a", "");
    assert_eq!(deleted.header.unwrap().revision, 4);
    assert!(machine.get("a").is_none());
    assert_eq!(machine.put("a", "3"), 5);
    let kv = machine.get("a").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
    // Neither a read nor a deletion of nothing makes a revision.
    machine.delete("nothing", "");
    machine.txn(success([read("a", "")])).unwrap();
    assert_eq!(machine.state.revision(), 5);
}

#[test]
fn one_revision_for_a_whole_transaction_whose_operations_see_each_other() {
    let mut machine = Machine::new(memory());
    machine.put("a", "old");
    let response = machine.txn(success([put("b", "1"), read("a", "z"), delete("a", ""), read("a", "z")])).unwrap();
    let keys: Vec<Vec<Bytes>> = response
        .responses
        .iter()
        .filter_map(|op| match &op.response {
            Some(Response::ResponseRange(range)) => Some(range.kvs.iter().map(|kv| kv.key.clone()).collect()),
            _ => None,
        })
        .collect();
    assert_eq!(keys, [vec![bytes("a"), bytes("b")], vec![bytes("b")]]);
    assert_eq!(machine.state.revision(), 3);
    assert_eq!(machine.range("a", "z", 2).unwrap().kvs[0].value, "old");
}

#[test]
fn no_path_changes_a_key_twice() {
    let refused = [
        success([put("a", "1"), put("a", "2")]),
        success([put("a", "1"), delete("a", "")]),
        success([delete("a", "c"), put("b", "1")]),
        success([put("b", "1"), nested(success([put("b", "2")]))]),
        success([nested(success([delete("a", "z")])), put("b", "2")]),
        TxnRequest { failure: vec![put("a", "1"), put("a", "2")], ..Default::default() },
    ];
    let mut machine = Machine::new(memory());
    for txn in refused {
        assert!(matches!(machine.txn(txn.clone()), Err(StoreError::DuplicateKey)), "{txn:?}");
    }
    assert_eq!(machine.state.revision(), 1);
    // The branches of a nested transaction exclude each other, and a second deletion finds nothing.
    let branches = TxnRequest { success: vec![put("b", "1")], failure: vec![put("b", "2")], ..Default::default() };
    machine.txn(success([put("a", "1"), nested(branches)])).unwrap();
    machine.txn(success([delete("a", "z"), delete("a", "z")])).unwrap();
    assert_eq!(machine.state.revision(), 3);
}

#[test]
fn malformed_operations_are_refused_and_change_nothing() {
    let put_with = |put: PutRequest| op(Request::RequestPut(put));
    let key = || bytes("a");
    let refused = [
        success([put("", "1")]),
        success([delete("", "")]),
        success([read("", "")]),
        success([put("x", "1"), put_with(PutRequest { key: key(), value: key(), ignore_value: true, ..Default::default() })]),
        success([put("x", "1"), put_with(PutRequest { key: key(), lease: 7, ignore_lease: true, ..Default::default() })]),
        success([put("x", "1"), etcd::RequestOp { request: None }]),
        success([put("x", "1"), op(Request::RequestRange(RangeRequest { key: key(), sort_order: 9, ..Default::default() }))]),
    ];
    let mut machine = Machine::new(memory());
    for txn in refused {
        assert!(matches!(machine.txn(txn.clone()), Err(StoreError::Invalid(_))), "{txn:?}");
    }
    // These fail in the middle: what came before is undone.
    let missing = put_with(PutRequest { key: key(), ignore_value: true, ..Default::default() });
    assert!(matches!(machine.txn(success([put("x", "1"), missing])), Err(StoreError::KeyNotFound)));
    let lease = put_with(PutRequest { key: key(), lease: 7, ..Default::default() });
    assert!(matches!(machine.txn(success([put("x", "1"), lease])), Err(StoreError::LeaseNotFound(7))));
    let future = op(Request::RequestRange(RangeRequest { key: key(), revision: 99, ..Default::default() }));
    assert!(matches!(machine.txn(success([put("x", "1"), future])), Err(StoreError::FutureRevision { requested: 99, current: 1 })));
    assert!(machine.get("x").is_none());
    assert_eq!(machine.state.revision(), 1);
}

#[test]
fn compares_of_every_target_and_result() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let mut machine = Machine::new(memory());
    machine.put("a", "m");
    machine.put("a", "n"); // create 2, mod 3, version 2
    type Union = fn(i64) -> TargetUnion;
    let numbers: [(CompareTarget, Union, i64); 4] = [
        (CompareTarget::Version, TargetUnion::Version, 2),
        (CompareTarget::Create, TargetUnion::CreateRevision, 2),
        (CompareTarget::Mod, TargetUnion::ModRevision, 3),
        (CompareTarget::Lease, TargetUnion::Lease, 0),
    ];
    for (target, union, has) in numbers {
        for (result, wanted, expected) in [
            (Equal, has, true),
            (Equal, has + 1, false),
            (NotEqual, has + 1, true),
            (NotEqual, has, false),
            (Greater, has - 1, true),
            (Greater, has, false),
            (Less, has + 1, true),
            (Less, has, false),
        ] {
            let held = holds(&mut machine, compare("a", "", target, result, union(wanted)));
            assert_eq!(held, expected, "{target:?} {result:?} {wanted}");
        }
    }
    for (result, wanted, expected) in [(Equal, "n", true), (Less, "o", true), (Greater, "m", true), (NotEqual, "n", false)] {
        let held = holds(&mut machine, compare("a", "", CompareTarget::Value, result, TargetUnion::Value(bytes(wanted))));
        assert_eq!(held, expected, "value {result:?} {wanted}");
    }
    // A missing key has no value at all, but version and revisions of zero.
    assert!(holds(&mut machine, compare("q", "", CompareTarget::Create, Equal, TargetUnion::CreateRevision(0))));
    assert!(!holds(&mut machine, compare("q", "", CompareTarget::Value, NotEqual, TargetUnion::Value(bytes("x")))));
    // A range must hold for every key.
    machine.put("b", "n");
    assert!(holds(&mut machine, compare("a", "c", CompareTarget::Value, Equal, TargetUnion::Value(bytes("n")))));
    assert!(!holds(&mut machine, compare("a", "c", CompareTarget::Version, Equal, TargetUnion::Version(2))));
}

#[test]
fn nested_compares_see_the_state_before_the_transaction() {
    let mut machine = Machine::new(memory());
    let absent = compare("a", "", CompareTarget::Version, CompareResult::Equal, TargetUnion::Version(0));
    let inner = TxnRequest { compare: vec![absent], success: vec![put("b", "absent")], failure: vec![put("b", "there")] };
    machine.txn(success([put("a", "1"), nested(inner)])).unwrap();
    assert_eq!(machine.get("b").unwrap().value, "absent");
}

#[test]
fn ranges_limit_count_filter_and_sort() {
    let mut machine = Machine::new(memory());
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("a", "4")] {
        machine.put(key, value);
    }
    let all = RangeRequest { key: bytes("\0"), range_end: bytes("\0"), ..Default::default() };
    let keys = |request: RangeRequest| {
        let response = machine.state.range(&request).unwrap();
        let keys: Vec<String> = response.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
        (keys.join(""), response.more, response.count)
    };
    let expected = |keys: &str, more: bool, count: i64| (keys.to_owned(), more, count);
    let by = |sort_target, sort_order, limit| RangeRequest { sort_target, sort_order, limit, ..all.clone() };
    assert_eq!(keys(all.clone()), expected("abc", false, 3));
    assert_eq!(keys(RangeRequest { limit: 2, ..all.clone() }), expected("ab", true, 3));
    assert_eq!(keys(RangeRequest { limit: 3, ..all.clone() }), expected("abc", false, 3));
    assert_eq!(keys(RangeRequest { count_only: true, ..all.clone() }), expected("", false, 3));
    assert_eq!(keys(RangeRequest { min_mod_revision: 4, ..all.clone() }), expected("ac", false, 3));
    assert_eq!(keys(RangeRequest { max_create_revision: 2, ..all.clone() }), expected("a", false, 3));
    assert_eq!(keys(by(0, 2, 2)), expected("cb", true, 3));
    assert_eq!(keys(by(4, 1, 0)), expected("bca", false, 3));
    assert_eq!(keys(by(4, 2, 1)), expected("a", true, 3));
    assert_eq!(keys(by(3, 0, 0)), expected("bca", false, 3));
    let keys_only = machine.state.range(&RangeRequest { keys_only: true, ..all.clone() }).unwrap();
    assert!(keys_only.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 0));
}
