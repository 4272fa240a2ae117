//! Hidden keys: an outside client neither reads, counts, writes nor watches them.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use trireme_etcd::{EtcdOptions, HiddenKeys};
use trireme_proto::etcd;
use trireme_proto::etcd::lease_client::LeaseClient;
use trireme_proto::etcd::request_op::Request as Op;
use trireme_proto::etcd::watch_client::WatchClient;
use trireme_proto::etcd::watch_request::RequestUnion;

use crate::server::{PATIENCE, Server, bytes, everything, get_op, keys, must_refuse, op, put_op};

const DENIED: &str = "etcdserver: permission denied";

/// A server that holds `h/1` and `h/2`, hidden, beside `a` and `z`.
async fn server() -> Server {
    let hidden = HiddenKeys::new([(bytes("h/"), bytes("h0"))]);
    let server = Server::with(EtcdOptions { hidden, ..Default::default() }).await;
    let all = etcd::TxnRequest { success: ["a", "h/1", "h/2", "z"].map(|key| put_op(key, "x")).into(), ..Default::default() };
    // As the server's own parts write: not through the API.
    server.store.txn(all, None).await.unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_keys_are_neither_read_nor_counted() {
    let server = server().await;
    let all = server.range(everything()).await;
    assert_eq!((keys(&all), all.count), (vec!["a".into(), "z".into()], 2));
    let count = server.range(etcd::RangeRequest { count_only: true, ..everything() }).await;
    assert_eq!(count.count, 2);
    let descending = etcd::RangeRequest { sort_order: 2, limit: 1, ..everything() };
    let last = server.range(descending).await;
    assert_eq!((keys(&last), last.more), (vec!["z".into()], true));
    for (key, end) in [("h/1", ""), ("h/", "h0"), ("h/1", "h/2")] {
        let range = etcd::RangeRequest { key: bytes(key), range_end: bytes(end), ..Default::default() };
        must_refuse(server.kv().range(range).await, Code::PermissionDenied, DENIED);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_keys_are_not_written_nor_looked_at_by_transactions() {
    let server = server().await;
    let mut kv = server.kv();
    let put = etcd::PutRequest { key: bytes("h/1"), value: bytes("mine"), ..Default::default() };
    must_refuse(kv.put(put).await, Code::PermissionDenied, DENIED);
    let delete = etcd::DeleteRangeRequest { key: bytes("h/1"), ..Default::default() };
    must_refuse(kv.delete_range(delete).await, Code::PermissionDenied, DENIED);
    let compare = etcd::Compare { key: bytes("h/1"), ..Default::default() };
    let inner = etcd::TxnRequest { failure: vec![get_op("h/1")], ..Default::default() };
    let whole = etcd::RangeRequest { key: bytes("a"), range_end: bytes("z"), ..Default::default() };
    for txn in [
        etcd::TxnRequest { compare: vec![compare], ..Default::default() },
        etcd::TxnRequest { failure: vec![put_op("h/3", "")], ..Default::default() },
        etcd::TxnRequest { success: vec![op(Op::RequestTxn(inner))], ..Default::default() },
        etcd::TxnRequest { success: vec![op(Op::RequestRange(whole))], ..Default::default() },
    ] {
        must_refuse(kv.txn(txn).await, Code::PermissionDenied, DENIED);
    }
    // Everything, that is: everything one sees.
    let all = etcd::DeleteRangeRequest { key: bytes("\0"), range_end: bytes("\0"), prev_kv: true };
    let deleted = kv.delete_range(all).await.unwrap().into_inner();
    assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (2, 2));
    assert_eq!(server.store.range(&everything()).unwrap().count, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_keys_are_not_watched() {
    let server = server().await;
    let (requests, stream) = mpsc::channel(4);
    let mut answers = WatchClient::new(server.channel.clone()).watch(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let create = |key: &str, range_end: &str| {
        let create = etcd::WatchCreateRequest { key: bytes(key), range_end: bytes(range_end), ..Default::default() };
        etcd::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    };
    requests.send(create("h/1", "")).await.unwrap();
    let refused = answers.message().await.unwrap().unwrap();
    assert!(refused.created && refused.canceled && refused.cancel_reason == DENIED, "{refused:?}");
    requests.send(create("a", "\0")).await.unwrap();
    assert!(answers.message().await.unwrap().unwrap().created);
    let both = etcd::TxnRequest { success: vec![put_op("h/1", "new"), put_op("z", "new")], ..Default::default() };
    server.store.txn(both, None).await.unwrap();
    let seen = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
    let seen: Vec<_> = seen.events.iter().map(|event| event.kv.clone().unwrap().key).collect();
    assert_eq!(seen, ["z"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_hidden_keys_do_not_exist_outside() {
    let server = server().await;
    let lease = server.store.lease_grant(600, 0).await.unwrap().id;
    let put = etcd::PutRequest { key: bytes("h/1"), lease, ..Default::default() };
    let put = etcd::TxnRequest { success: vec![op(Op::RequestPut(put))], ..Default::default() };
    server.store.txn(put, None).await.unwrap();
    let mut leases = LeaseClient::new(server.channel.clone());
    must_refuse(leases.lease_revoke(etcd::LeaseRevokeRequest { id: lease }).await, Code::NotFound, "etcdserver: requested lease not found");
    let left = leases.lease_time_to_live(etcd::LeaseTimeToLiveRequest { id: lease, keys: true }).await.unwrap().into_inner();
    assert_eq!((left.ttl, left.keys.len()), (-1, 0));
    assert!(leases.lease_leases(etcd::LeaseLeasesRequest {}).await.unwrap().into_inner().leases.is_empty());
    server.stop().await;
}
