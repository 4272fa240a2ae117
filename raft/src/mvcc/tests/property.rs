//! The state machine against the naive model, under random commands, compactions and crashes.

use futures::FutureExt as _;
use proptest::prelude::*;
use trireme_proto::etcd::compare::TargetUnion;
use trireme_proto::etcd::request_op::Request;
use trireme_proto::etcd::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest};
use trireme_proto::store::{CompactCommand, HoldCommand, LeaseGrantCommand, LeaseKeepAliveCommand, LeaseRevokeCommand};

use super::model::{Model, Refusal};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Txn(TxnRequest),
    Grant(i64),
    Revoke(i64),
    KeepAlive(i64),
    /// Revisions here are distances back from the current one.
    Compact(i64),
    Hold(&'static str, i64),
    Release(&'static str),
    Remove(usize),
    Flush,
    Crash,
    /// Several commands in one apply batch.
    Batch(Vec<TxnRequest>),
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just("a"), Just("a\0"), Just("a\0b"), Just("ab"), Just("b"), Just("c\u{1}")].prop_map(bytes)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![6 => Just(Bytes::new()), 1 => Just(bytes("\0")), 3 => key(), 1 => Just(bytes("z"))]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just("1"), Just("2"), Just("3")].prop_map(bytes)
}

fn put_op() -> impl Strategy<Value = Request> {
    let lease = prop_oneof![6 => Just(0i64), 4 => 1i64..4];
    (key(), value(), lease, any::<bool>(), 0..10).prop_map(|(key, value, lease, prev_kv, kind)| {
        let put = PutRequest { key, value, lease, prev_kv, ..Default::default() };
        Request::RequestPut(match kind {
            0 => PutRequest { value: Bytes::new(), ignore_value: true, ..put },
            1 => PutRequest { lease: 0, ignore_lease: true, ..put },
            _ => put,
        })
    })
}

fn range_request(back: i64) -> impl Strategy<Value = RangeRequest> {
    let shape = (key(), range_end(), 0i64..4, -1i64..back);
    let order = (0i32..5, 0i32..3, any::<bool>(), prop::bool::weighted(0.2));
    let filters = (prop::bool::weighted(0.2), 0i64..9, 0i64..9, 0i64..9, 0i64..9);
    (shape, order, filters).prop_map(|((key, range_end, limit, back), order, filters)| {
        let (mut sort_target, sort_order, keys_only, count_only) = order;
        if sort_order == 0 {
            sort_target = 0;
        }
        let mut request = RangeRequest {
            key,
            range_end,
            limit,
            // -1: the future; 0: the latest; else so far back, filled in when it runs.
            revision: back,
            sort_order,
            sort_target,
            keys_only,
            count_only,
            ..Default::default()
        };
        if filters.0 {
            request.min_mod_revision = filters.1;
            request.max_mod_revision = filters.2;
            request.min_create_revision = filters.3;
            request.max_create_revision = filters.4;
        }
        request
    })
}

fn compare() -> impl Strategy<Value = Compare> {
    let union = prop_oneof![
        (0i64..4).prop_map(TargetUnion::Version),
        (0i64..12).prop_map(TargetUnion::CreateRevision),
        (0i64..12).prop_map(TargetUnion::ModRevision),
        value().prop_map(TargetUnion::Value),
        (0i64..4).prop_map(TargetUnion::Lease),
    ];
    (key(), range_end(), 0i32..4, union).prop_map(|(key, range_end, result, union)| {
        let target = match union {
            TargetUnion::Version(_) => 0,
            TargetUnion::CreateRevision(_) => 1,
            TargetUnion::ModRevision(_) => 2,
            TargetUnion::Value(_) => 3,
            TargetUnion::Lease(_) => 4,
        };
        Compare { result, target, key, range_end, target_union: Some(union) }
    })
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let leaf = prop_oneof![
        5 => put_op(),
        2 => (key(), range_end(), any::<bool>())
            .prop_map(|(key, range_end, prev_kv)| Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv })),
        2 => range_request(1).prop_map(|range| Request::RequestRange(RangeRequest { revision: 0, ..range })),
    ]
    .prop_map(op);
    let flat = |op: BoxedStrategy<etcd::RequestOp>, most: usize| {
        let ops = prop::collection::vec(op, 0..most);
        (prop::collection::vec(compare(), 0..2), ops.clone(), ops).prop_map(|(compare, success, failure)| TxnRequest {
            compare,
            success,
            failure,
        })
    };
    let inner = flat(leaf.clone().boxed(), 3);
    let op = prop_oneof![5 => leaf, 1 => inner.prop_map(nested)];
    flat(op.boxed(), 4)
}

fn step() -> impl Strategy<Value = Step> {
    let holder = || prop_oneof![Just("backup"), Just("list")];
    prop_oneof![
        20 => txn().prop_map(Step::Txn),
        2 => (1i64..4).prop_map(Step::Grant),
        1 => (1i64..4).prop_map(Step::Revoke),
        1 => (1i64..4).prop_map(Step::KeepAlive),
        2 => (-1i64..6).prop_map(Step::Compact),
        1 => (holder(), -1i64..6).prop_map(|(holder, back)| Step::Hold(holder, back)),
        1 => holder().prop_map(Step::Release),
        3 => (1usize..5).prop_map(Step::Remove),
        1 => Just(Step::Flush),
        1 => Just(Step::Crash),
        2 => prop::collection::vec(txn(), 1..4).prop_map(Step::Batch),
    ]
}

fn refusal(error: &StoreError) -> Refusal {
    match error {
        StoreError::DuplicateKey => Refusal::Duplicate,
        StoreError::KeyNotFound => Refusal::KeyNotFound,
        StoreError::LeaseNotFound(_) => Refusal::LeaseNotFound,
        StoreError::LeaseExists(_) => Refusal::LeaseExists,
        StoreError::FutureRevision { .. } => Refusal::Future,
        StoreError::Compacted { .. } => Refusal::Compacted,
        error => panic!("the model never refuses with {error:?}"),
    }
}

fn take(machine: &mut Machine, model: &mut Model, step: &Step) {
    let outcome = |machine: &mut Machine, body: Body| machine.run(body).map(|_| ()).map_err(|error| refusal(&error));
    let back = |model: &Model, back: i64| (model.revision() - back).max(1);
    match step {
        Step::Txn(txn) => {
            let got = machine.txn(txn.clone()).map_err(|error| refusal(&error));
            assert_eq!(got, model.txn(txn));
        }
        Step::Grant(id) => {
            let got = outcome(machine, Body::LeaseGrant(LeaseGrantCommand { id: *id, ttl_secs: 60 }));
            assert_eq!(got, model.grant(*id));
        }
        Step::Revoke(id) => {
            let got = outcome(machine, Body::LeaseRevoke(LeaseRevokeCommand { id: *id, if_generation: 0 }));
            assert_eq!(got, model.revoke(*id));
        }
        Step::KeepAlive(id) => {
            let got = outcome(machine, Body::LeaseKeepAlive(LeaseKeepAliveCommand { id: *id }));
            assert_eq!(got.is_ok(), model.leases.contains(id));
        }
        Step::Compact(distance) => {
            let revision = back(model, *distance);
            let got = outcome(machine, Body::Compact(CompactCommand { revision, holder: String::new() }));
            assert_eq!(got, model.compact(revision));
        }
        Step::Hold(holder, distance) => {
            let revision = back(model, *distance);
            let got = outcome(machine, Body::Hold(HoldCommand { holder: (*holder).into(), revision, lease: 0 }));
            assert_eq!(got, model.hold(holder, revision));
        }
        Step::Release(holder) => {
            let got = outcome(machine, Body::Hold(HoldCommand { holder: (*holder).into(), revision: 0, lease: 0 }));
            assert_eq!(got, model.hold(holder, 0));
        }
        Step::Remove(changes) => {
            machine.state.compact_step(*changes).unwrap();
        }
        Step::Flush => {
            machine.state.flush().unwrap();
        }
        Step::Crash => machine.crash_and_replay(),
        Step::Batch(txns) => {
            let entries: Vec<ApplyEntry> = txns
                .iter()
                .enumerate()
                .map(|(place, txn)| ApplyEntry {
                    id: EntryId { term: 1, index: (machine.log.len() + place) as u64 + 1 },
                    body: EntryBody::Command(command(Body::Txn(txn.clone())).encode_to_vec().into()),
                })
                .collect();
            let results = machine.state.apply_batch(&entries, machine.now).unwrap();
            machine.log.extend(entries);
            for (result, txn) in results.into_iter().zip(txns) {
                let got = match into_outcome(result) {
                    Ok(CommandResult { result: Some(Outcome::Txn(response)), .. }) => Ok(response),
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => Err(refusal(&error)),
                };
                assert_eq!(got, model.txn(txn));
            }
        }
    }
    assert_eq!((machine.state.revision(), machine.state.compact_revision()), (model.revision(), model.floor));
}

/// Everything readable equals the model's: each revision, ranges of every shape, watches from each revision.
fn compare_all(machine: &Machine, model: &Model, requests: &[RangeRequest]) {
    for revision in 1..=model.revision() + 1 {
        let all = RangeRequest { key: bytes("\0"), range_end: bytes("\0"), revision, ..Default::default() };
        compare_range(machine, model, &all);
    }
    for request in requests {
        let revision = if request.revision == 0 { 0 } else { (model.revision() - request.revision).max(1) };
        compare_range(machine, model, &RangeRequest { revision, ..request.clone() });
    }
    for from in model.floor.max(1)..=model.revision() + 1 {
        compare_watch(machine, model, from);
    }
    let leases: Vec<i64> = model.leases.iter().copied().collect();
    assert_eq!(machine.state.leases().unwrap(), leases);
    for id in leases {
        let current = model.range(&RangeRequest { key: bytes("\0"), range_end: bytes("\0"), ..Default::default() }).unwrap();
        let attached: Vec<Bytes> = current.kvs.iter().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect();
        assert_eq!(machine.state.lease(id, machine.now).unwrap().unwrap().keys, attached);
    }
}

fn compare_range(machine: &Machine, model: &Model, request: &RangeRequest) {
    let got = machine.state.range(request).map_err(|error| refusal(&error)).map(|mut response| {
        assert_eq!(response.header.take().unwrap().revision, model.revision());
        response
    });
    assert_eq!(got, model.range(request), "{request:?}");
}

fn compare_watch(machine: &Machine, model: &Model, from: i64) {
    let (key, range_end) = (bytes("a"), bytes("b"));
    let mut watch = machine.state.watch(key.clone(), range_end.clone(), from).unwrap();
    let mut got = Vec::new();
    let mut reached = from - 1;
    while let Some(batch) = watch.next().now_or_never() {
        let batch = batch.unwrap();
        assert!(batch.revision > reached);
        reached = batch.revision;
        got.extend(batch.events.iter().cloned());
    }
    assert_eq!(reached, model.revision().max(from - 1));
    let mut wanted: Vec<etcd::Event> = model
        .events
        .iter()
        .filter(|(revision, event)| *revision >= from && event.kv.as_ref().is_some_and(|kv| kv.key >= key && kv.key < range_end))
        .map(|(_, event)| event.clone())
        .collect();
    // At the floor itself the previous version may already be gone.
    for (got, wanted) in got.iter().zip(&mut wanted) {
        if wanted.kv.as_ref().is_some_and(|kv| kv.mod_revision <= model.floor) && got.prev_kv.is_none() {
            wanted.prev_kv = None;
        }
    }
    assert_eq!(got, wanted, "watch from {from}");
}

fn check(disk: Box<dyn Disk>, ring_bytes: usize, steps: &[Step], requests: &[RangeRequest]) {
    let mut machine = Machine::with_ring(disk, ring_bytes);
    let mut model = Model::new();
    for (place, step) in steps.iter().enumerate() {
        take(&mut machine, &mut model, step);
        if place % 8 == 7 {
            compare_all(&machine, &model, requests);
        }
    }
    compare_all(&machine, &model, requests);
    while machine.state.compact_step(3).unwrap() {}
    compare_all(&machine, &model, requests);
    nothing_is_left_below_the_floor(&machine, &model);
}

/// Compaction has removed every version that is not readable any more.
fn nothing_is_left_below_the_floor(machine: &Machine, model: &Model) {
    let mut readable = std::collections::BTreeSet::new();
    for (_, keys) in model.revisions.range(model.floor..) {
        readable.extend(keys.values().map(|kv| (kv.key.clone(), kv.mod_revision)));
    }
    let engine = machine.disk.engine();
    let view = engine.view();
    let mut stored = std::collections::BTreeSet::new();
    let mut cursor = view.cursor(crate::engine::Table::Value, &[], None).unwrap();
    while let Some((key, _)) = cursor.entry() {
        let (key, revision) = super::super::keys::parse_versioned_key(key).unwrap();
        stored.insert((Bytes::from(key), revision));
        cursor.advance().unwrap();
    }
    assert_eq!(stored, readable);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn on_the_memory_engine(
        steps in prop::collection::vec(step(), 1..40),
        requests in prop::collection::vec(range_request(8), 1..6),
        ring_bytes in prop_oneof![Just(0usize), Just(2000), Just(1 << 20)],
    ) {
        check(memory(), ring_bytes, &steps, &requests);
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn on_rocksdb(
        steps in prop::collection::vec(step(), 1..60),
        requests in prop::collection::vec(range_request(8), 1..6),
        ring_bytes in prop_oneof![Just(0usize), Just(2000)],
    ) {
        check(Box::new(rocks::RocksDisk::new()), ring_bytes, &steps, &requests);
    }
}
