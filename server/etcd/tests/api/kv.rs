//! Keys: ranges with every option, puts, deletions, transactions, compaction, and what is refused.

use tonic::Code;
use trireme_proto::etcd;
use trireme_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use trireme_proto::etcd::range_request::{SortOrder, SortTarget};
use trireme_proto::etcd::request_op::Request as Op;
use trireme_proto::etcd::response_op::Response as Done;

use crate::server::{Server, bytes, delete_op, everything, get_op, keys, must_refuse, op, prefix, put_op};

fn mod_revision_is(key: &str, revision: i64) -> etcd::Compare {
    etcd::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: bytes(key),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_keep_and_return_what_they_are_asked_to() {
    let server = Server::start().await;
    let mut kv = server.kv();
    let first = server.put("a", "1").await;
    let put = etcd::PutRequest { key: bytes("a"), value: bytes("2"), prev_kv: true, ..Default::default() };
    let answer = kv.put(put).await.unwrap().into_inner();
    let header = answer.header.unwrap();
    assert_eq!((header.revision, header.cluster_id, header.member_id), (first + 1, server.store.cluster_id(), 1));
    assert!(header.raft_term > 0);
    assert_eq!(answer.prev_kv.unwrap().value, "1");
    let lease = server.store.lease_grant(600, 0).await.unwrap().id;
    let steps = [
        (etcd::PutRequest { ignore_value: true, lease, ..Default::default() }, "2", lease),
        (etcd::PutRequest { value: bytes("3"), ignore_lease: true, ..Default::default() }, "3", lease),
        (etcd::PutRequest { value: bytes("4"), ..Default::default() }, "4", 0),
    ];
    for (put, value, lease) in steps {
        kv.put(etcd::PutRequest { key: bytes("a"), ..put }).await.unwrap();
        let kv = server.get("a").await.unwrap();
        assert_eq!((kv.value, kv.lease), (bytes(value), lease));
    }
    let last = server.get("a").await.unwrap();
    assert_eq!((last.create_revision, last.mod_revision, last.version), (first, first + 4, 5));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_have_every_option() {
    let server = Server::start().await;
    let first = server.put("k/1", "c").await;
    server.put("k/2", "b").await;
    server.put("k/3", "a").await;
    let last = server.put("k/1", "d").await;
    let all = prefix("k/");
    let sorted =
        |target: SortTarget, order: SortOrder| etcd::RangeRequest { sort_target: target as i32, sort_order: order as i32, ..all.clone() };
    let cases: Vec<(etcd::RangeRequest, &[&str])> = vec![
        (all.clone(), &["k/1", "k/2", "k/3"]),
        (sorted(SortTarget::Key, SortOrder::Descend), &["k/3", "k/2", "k/1"]),
        (sorted(SortTarget::Mod, SortOrder::Ascend), &["k/2", "k/3", "k/1"]),
        (sorted(SortTarget::Create, SortOrder::Descend), &["k/3", "k/2", "k/1"]),
        (sorted(SortTarget::Value, SortOrder::Ascend), &["k/3", "k/2", "k/1"]),
        (sorted(SortTarget::Version, SortOrder::Descend), &["k/1", "k/3", "k/2"]),
        (etcd::RangeRequest { min_mod_revision: first + 2, ..all.clone() }, &["k/1", "k/3"]),
        (etcd::RangeRequest { max_mod_revision: first + 2, ..all.clone() }, &["k/2", "k/3"]),
        (etcd::RangeRequest { min_create_revision: first + 1, ..all.clone() }, &["k/2", "k/3"]),
        (etcd::RangeRequest { max_create_revision: first, ..all.clone() }, &["k/1"]),
        (etcd::RangeRequest { key: bytes("k/2"), range_end: bytes("\0"), ..Default::default() }, &["k/2", "k/3"]),
        (etcd::RangeRequest { key: bytes("k/2"), range_end: bytes("k/3"), serializable: true, ..Default::default() }, &["k/2"]),
    ];
    for (request, expected) in cases {
        let response = server.range(request.clone()).await;
        assert_eq!(keys(&response), expected, "{request:?}");
        assert_eq!(response.header.unwrap().revision, last);
    }
    // Pages at one revision, while keys change: as a list with limit and continue does.
    let page = server.range(etcd::RangeRequest { limit: 2, ..all.clone() }).await;
    assert_eq!((keys(&page), page.more, page.count), (vec!["k/1".into(), "k/2".into()], true, 3));
    server.put("k/25", "new").await;
    let rest = etcd::RangeRequest { key: bytes("k/2\0"), range_end: bytes("k0"), limit: 2, revision: last, ..Default::default() };
    let page = server.range(rest).await;
    assert_eq!((keys(&page), page.more, page.count), (vec!["k/3".into()], false, 1));
    let past = server.range(etcd::RangeRequest { revision: first, ..all.clone() }).await;
    assert_eq!((keys(&past), past.kvs[0].value.clone()), (vec!["k/1".into()], bytes("c")));
    let bare = server.range(etcd::RangeRequest { keys_only: true, ..all.clone() }).await;
    assert!(bare.kvs.len() == 4 && bare.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 0));
    let count = server.range(etcd::RangeRequest { count_only: true, limit: 1, ..all }).await;
    assert_eq!((count.count, count.kvs.len(), count.more), (4, 0, false));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_creates_updates_and_deletes_by_compares() {
    let server = Server::start().await;
    let mut kv = server.kv();
    // As kube-apiserver writes: the object if its revision is as known, else what is there instead.
    let write = |known: i64, then: etcd::RequestOp| etcd::TxnRequest {
        compare: vec![mod_revision_is("/pods/a", known)],
        success: vec![then],
        failure: vec![get_op("/pods/a")],
    };
    let created = kv.txn(write(0, put_op("/pods/a", "v1"))).await.unwrap().into_inner();
    let at = created.header.unwrap().revision;
    assert!(created.succeeded);
    let lost = kv.txn(write(0, put_op("/pods/a", "other"))).await.unwrap().into_inner();
    assert!(!lost.succeeded && lost.header.unwrap().revision == at);
    match lost.responses[0].response.as_ref().unwrap() {
        Done::ResponseRange(range) => assert_eq!((range.kvs[0].value.clone(), range.kvs[0].mod_revision), (bytes("v1"), at)),
        other => panic!("{other:?}"),
    }
    let updated = kv.txn(write(at, put_op("/pods/a", "v2"))).await.unwrap().into_inner();
    assert!(updated.succeeded);
    let deleted = kv.txn(write(updated.header.unwrap().revision, delete_op("/pods/a", ""))).await.unwrap().into_inner();
    match deleted.responses[0].response.as_ref().unwrap() {
        Done::ResponseDeleteRange(done) => assert_eq!((done.deleted, done.prev_kvs[0].value.clone()), (1, bytes("v2"))),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.get("/pods/a").await, None);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_nest_and_ranges_are_deleted() {
    let server = Server::start().await;
    let mut kv = server.kv();
    let inner =
        etcd::TxnRequest { compare: vec![mod_revision_is("none", 7)], failure: vec![put_op("b", "2"), get_op("b")], ..Default::default() };
    let outer = etcd::TxnRequest { success: vec![put_op("a", "1"), op(Op::RequestTxn(inner))], ..Default::default() };
    let done = kv.txn(outer).await.unwrap().into_inner();
    let Some(Done::ResponseTxn(nested)) = &done.responses[1].response else { panic!("{done:?}") };
    let Some(Done::ResponseRange(read)) = &nested.responses[1].response else { panic!("{done:?}") };
    assert!(!nested.succeeded && read.kvs[0].value == "2" && read.kvs[0].mod_revision == done.header.unwrap().revision);
    let delete = etcd::DeleteRangeRequest { key: bytes("a"), range_end: bytes("c"), prev_kv: true };
    let deleted = kv.delete_range(delete).await.unwrap().into_inner();
    assert_eq!((deleted.deleted, deleted.prev_kvs.len(), deleted.header.unwrap().revision), (2, 2, 3));
    assert_eq!(server.range(everything()).await.count, 0);
    let nothing = kv.delete_range(etcd::DeleteRangeRequest { key: bytes("a"), ..Default::default() }).await.unwrap().into_inner();
    assert_eq!((nothing.deleted, nothing.header.unwrap().revision), (0, 3));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_etcd_refuses_is_refused_in_its_words() {
    let server = Server::start().await;
    let mut kv = server.kv();
    let put = |put: etcd::PutRequest| {
        let mut kv = server.kv();
        async move { kv.put(put).await }
    };
    let key = bytes("k");
    let empty = "etcdserver: key is not provided";
    must_refuse(put(etcd::PutRequest::default()).await, Code::InvalidArgument, empty);
    must_refuse(kv.range(etcd::RangeRequest::default()).await, Code::InvalidArgument, empty);
    must_refuse(kv.delete_range(etcd::DeleteRangeRequest::default()).await, Code::InvalidArgument, empty);
    let ignored = etcd::PutRequest { key: key.clone(), ignore_value: true, ..Default::default() };
    must_refuse(put(ignored.clone()).await, Code::InvalidArgument, "etcdserver: key not found");
    let both = etcd::PutRequest { value: bytes("v"), ..ignored };
    must_refuse(put(both).await, Code::InvalidArgument, "etcdserver: value is provided");
    let both = etcd::PutRequest { key: key.clone(), lease: 7, ignore_lease: true, ..Default::default() };
    must_refuse(put(both).await, Code::InvalidArgument, "etcdserver: lease is provided");
    let leased = etcd::PutRequest { key: key.clone(), lease: 7, ..Default::default() };
    must_refuse(put(leased).await, Code::NotFound, "etcdserver: requested lease not found");
    let large = etcd::PutRequest { key: key.clone(), value: vec![0; 3 << 19].into(), ..Default::default() };
    must_refuse(put(large).await, Code::InvalidArgument, "etcdserver: request is too large");
    let fits = etcd::PutRequest { key: key.clone(), value: vec![0; (3 << 19) - 100].into(), ..Default::default() };
    put(fits).await.unwrap();
    let odd = etcd::RangeRequest { key: key.clone(), sort_order: 9, ..Default::default() };
    must_refuse(kv.range(odd).await, Code::InvalidArgument, "etcdserver: invalid sort option");

    let many = |n: usize| etcd::TxnRequest { success: (0..n).map(|i| put_op(&format!("{i}"), "")).collect(), ..Default::default() };
    must_refuse(kv.txn(many(129)).await, Code::InvalidArgument, "etcdserver: too many operations in txn request");
    let nested = etcd::TxnRequest { failure: vec![op(Op::RequestTxn(many(129)))], ..Default::default() };
    must_refuse(kv.txn(nested).await, Code::InvalidArgument, "etcdserver: too many operations in txn request");
    kv.txn(many(128)).await.unwrap();
    let twice = etcd::TxnRequest { success: vec![put_op("k", "1"), put_op("k", "2")], ..Default::default() };
    must_refuse(kv.txn(twice).await, Code::InvalidArgument, "etcdserver: duplicate key given in txn request");

    let now = server.store.revision();
    let future = etcd::RangeRequest { key: key.clone(), revision: now + 1, ..Default::default() };
    let text = "etcdserver: mvcc: required revision is a future revision";
    must_refuse(kv.range(future).await, Code::OutOfRange, text);
    let compact = |revision: i64| etcd::CompactionRequest { revision, physical: true };
    must_refuse(kv.compact(compact(now + 1)).await, Code::OutOfRange, text);
    kv.compact(compact(now)).await.unwrap();
    let text = "etcdserver: mvcc: required revision has been compacted";
    must_refuse(kv.compact(compact(now)).await, Code::OutOfRange, text);
    let past = etcd::RangeRequest { key, revision: now - 1, ..Default::default() };
    must_refuse(kv.range(past).await, Code::OutOfRange, text);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn young_history_is_not_compacted_by_clients() {
    let retention = std::time::Duration::from_secs(3600);
    let server = Server::with(trireme_etcd::EtcdOptions { retention, ..Default::default() }).await;
    let first = server.put("a", "1").await;
    let last = server.put("a", "2").await;
    server.kv().compact(etcd::CompactionRequest { revision: last, physical: true }).await.unwrap();
    let past = server.range(etcd::RangeRequest { key: bytes("a"), revision: first, ..Default::default() }).await;
    assert_eq!((past.kvs[0].value.clone(), server.store.compact_revision()), (bytes("1"), 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_stops_where_somebody_still_reads() {
    let server = Server::start().await;
    let first = server.put("a", "1").await;
    server.put("a", "2").await;
    let last = server.put("a", "3").await;
    server.store.hold("a reader", first, 0).await.unwrap();
    server.kv().compact(etcd::CompactionRequest { revision: last, physical: true }).await.unwrap();
    let past = etcd::RangeRequest { key: bytes("a"), revision: first, ..Default::default() };
    assert_eq!(server.range(past.clone()).await.kvs[0].value, "1");
    server.store.hold("a reader", 0, 0).await.unwrap();
    assert_eq!(server.kv().range(past).await.unwrap_err().code(), Code::OutOfRange);
    server.stop().await;
}
