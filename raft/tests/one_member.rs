//! A cluster of one, end to end.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;

use std::time::Duration;

use bytes::Bytes;
use cluster::{Ca, Seat, engines, get, log_to_stderr, put, until};
use trireme_raft::{Fence, StoreError, WhenEmpty};

#[tokio::test(flavor = "multi_thread")]
async fn writes_reads_watches_and_restarts() {
    log_to_stderr();
    let base = tempfile::tempdir().unwrap();
    let engines = engines();
    let mut seat = Seat::new(&Ca::new(), "a", base.path());
    let store = seat.open(engines.clone(), WhenEmpty::Initialize).await;
    let led = until(&store, "leadership", |status| status.leadership.is_some_and(|led| led.caught_up)).await;
    assert!(led.has_quorum_contact);

    let mut watch = store.watch("k/".into(), "k0".into(), 0).unwrap();
    let first = store.txn(put("k/1", "one"), None).await.unwrap().header.unwrap().revision;
    let second = store.txn(put("k/2", "two"), None).await.unwrap().header.unwrap().revision;
    assert_eq!(second, first + 1);
    assert_eq!(get(&store, "k/1").as_deref(), Some("one"));
    assert!(store.barrier().await.unwrap() >= second);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let batch = tokio::time::timeout(cluster::PATIENCE, watch.next()).await.unwrap().unwrap();
        seen.extend(batch.events.iter().map(|event| event.kv.clone().unwrap().key));
    }
    assert_eq!(seen, [Bytes::from("k/1"), Bytes::from("k/2")]);

    let fence = led.leadership.unwrap().fence;
    store.txn(put("fenced", "yes"), Some(fence)).await.unwrap();
    let stale = Fence { term: fence.term - 1, ..fence };
    assert!(matches!(store.txn(put("fenced", "no"), Some(stale)).await, Err(StoreError::Fenced)));
    assert_eq!(get(&store, "fenced").as_deref(), Some("yes"));

    // Expired leases are revoked by the leader.
    let lease = store.lease_grant(1, 0).await.unwrap();
    let mut leased = put("leased", "x");
    if let Some(trireme_proto::etcd::request_op::Request::RequestPut(put)) = &mut leased.success[0].request {
        put.lease = lease.id;
    }
    store.txn(leased, None).await.unwrap();
    let gone = async {
        while get(&store, "leased").is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(cluster::PATIENCE, gone).await.unwrap();
    assert_eq!(store.leases().unwrap(), Vec::<i64>::new());

    let key = trireme_proto::store::SealedKey { ciphertext: "sealed".into(), ..Default::default() };
    assert_eq!(store.sealed_put("ca", key, 0).await.unwrap(), 1);

    let revision = store.revision();
    let (cluster_id, node_id) = (store.cluster_id(), store.node_id());
    store.shutdown().await;
    assert!(matches!(store.txn(put("k/3", "three"), None).await, Err(StoreError::Shutdown)));
    drop((store, watch));

    let store = seat.open(engines, WhenEmpty::Refuse).await;
    assert_eq!((store.cluster_id(), store.node_id()), (cluster_id, node_id));
    store.barrier().await.unwrap();
    assert_eq!(store.revision(), revision);
    assert_eq!(get(&store, "k/2").as_deref(), Some("two"));
    assert_eq!(store.sealed("ca").unwrap().unwrap().version, 1);
    let restarted = until(&store, "leadership", |status| status.leadership.is_some()).await;
    // A restarted leader is elected anew: its old fence is void.
    assert!(restarted.term > fence.term);
    store.shutdown().await;
}

/// More writes than clusters of feature level 1 remembered proposals.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_writes_is_not_refused() {
    const BURST: usize = 6000;
    log_to_stderr();
    let base = tempfile::tempdir().unwrap();
    let engines = std::sync::Arc::new(trireme_raft::MemoryEngines::new());
    let store = Seat::new(&Ca::new(), "a", base.path()).open(engines, WhenEmpty::Initialize).await;
    until(&store, "leadership", |status| status.leadership.is_some_and(|led| led.caught_up)).await;
    let raised = async {
        while store.feature_level() < trireme_proto::store::FEATURE_LEVEL {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(cluster::PATIENCE, raised).await.unwrap();
    let writes = (0..BURST).map(|i| {
        let store = store.clone();
        async move { store.txn(put(&format!("k/{i}"), "v"), None).await }
    });
    for (i, written) in futures::future::join_all(writes).await.into_iter().enumerate() {
        assert!(written.is_ok(), "write {i} of {BURST} at once: {written:?}");
    }
    store.shutdown().await;
}
