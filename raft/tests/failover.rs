//! A leader goes, in order or not, and another one follows. Three members in one process, over real TLS sockets.
//!
//! The clocks here are so slow that no election by timeout can happen within the time limit of a test: a test that passes did not wait
//! for one.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use cluster::{Cluster, PATIENCE, engines, get, put, timing, until};
use trireme_raft::{Store, Timing};

/// A lease of four times the patience.
fn timeless() -> Timing {
    Timing { election_min: PATIENCE * 2, election_max: PATIENCE * 4, request: PATIENCE, ..timing() }
}

/// Writes `name/0`, `name/1`, ... through one member until told to stop; says how many were acknowledged.
fn writer(store: &Store, name: &'static str, stop: &CancellationToken) -> tokio::task::JoinHandle<usize> {
    let (store, stop) = (store.clone(), stop.clone());
    tokio::spawn(async move {
        let mut acknowledged = 0;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return acknowledged,
                written = store.txn(put(&format!("{name}/{acknowledged}"), "v"), None) => written.unwrap(),
            };
            acknowledged += 1;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_died_is_followed_before_its_lease_ends() {
    let mut cluster = Cluster::start(timeless(), engines()).await;
    let leader = cluster.leader().await;
    let (near, far) = ((leader + 1) % 3, (leader + 2) % 3);
    let term = cluster.store(leader).status().borrow().term;
    let stop = CancellationToken::new();
    let writer = writer(cluster.store(near), "k", &stop);
    until(cluster.store(near), "some writes", |status| status.applied_index > 50).await;

    let dead = cluster.stores[leader].take().unwrap();
    let dead_id = dead.node_id();
    dead.halt().await;
    drop(dead);

    let followed = |status: &trireme_raft::StoreStatus| status.leader.as_ref().is_some_and(|now| now.node_id != dead_id);
    let next = until(cluster.store(far), "a new leader", followed).await;
    assert!(next.term > term);
    let applied = next.applied_index;
    until(cluster.store(near), "further writes", |status| status.applied_index > applied + 20).await;
    stop.cancel();
    let acknowledged = writer.await.unwrap();
    for store in cluster.running() {
        store.barrier().await.unwrap();
        for i in 0..acknowledged {
            assert!(get(store, &format!("k/{i}")).is_some(), "k/{i} was acknowledged and is not at member {}", store.node_id());
        }
    }

    // It comes back as a follower of the new leader.
    cluster.restart(leader).await;
    cluster.store(leader).barrier().await.unwrap();
    assert!(get(cluster.store(leader), "k/0").is_some());
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_in_order_hands_over_first() {
    let cluster = Cluster::start(timeless(), engines()).await;
    let leader = cluster.leader().await;
    let stop = CancellationToken::new();
    // One writer at the leader itself: what it has under way must not be lost or fail.
    let writers = [writer(cluster.store(leader), "here", &stop), writer(cluster.store((leader + 1) % 3), "there", &stop)];
    until(cluster.store(leader), "some writes", |status| status.applied_index > 50).await;

    let old = cluster.store(leader).clone();
    assert!(old.hand_over().await, "nobody took the lead");
    let now = old.status().borrow().leader.clone().unwrap();
    assert_ne!(now.node_id, old.node_id());
    // Only a follower now, it still serves.
    let applied = old.status().borrow().applied_index;
    until(&old, "further writes", |status| status.applied_index > applied + 20).await;
    drop(old);
    for writer in &writers {
        assert!(!writer.is_finished());
    }
    stop.cancel();
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_disk_hangs_holds_up_nobody() {
    let gates = Arc::new(gate::Gates::new(engines()));
    let cluster = Cluster::start(timeless(), gates.clone()).await;
    let leader = cluster.leader().await;
    let slow = (leader + 1) % 3;
    gates.shut(&cluster.seats[slow].folder);
    let before = cluster.store(slow).status().borrow().applied_index;
    let writes = (0..300).map(|i| {
        let store = cluster.store(leader).clone();
        async move { store.txn(put(&format!("k/{i}"), &"v".repeat(4000)), None).await }
    });
    for written in futures::future::join_all(writes).await {
        written.unwrap();
    }
    cluster.store((leader + 2) % 3).barrier().await.unwrap();
    gates.open(&cluster.seats[slow].folder);
    until(cluster.store(slow), "catching up", |status| status.applied_index >= before + 300).await;
    assert_eq!(get(cluster.store(slow), "k/299").map(|value| value.len()), Some(4000));
    cluster.end().await;
}

/// The leader keeps its lead where every sync takes 100 ms: heartbeats do not queue behind them for a lease's length.
#[tokio::test(flavor = "multi_thread")]
async fn slow_disks_everywhere_depose_nobody() {
    let gates = Arc::new(gate::Gates::new(engines()));
    let cluster = Cluster::start(timing(), gates.clone()).await;
    let leader = cluster.leader().await;
    let term = cluster.store(leader).status().borrow().term;
    gates.delay(Duration::from_millis(100));
    for round in 0..8 {
        let writes = (0..64).map(|i| {
            let store = cluster.store(i % 3).clone();
            async move { store.txn(put(&format!("{round}/{i}"), &"v".repeat(1000)), None).await }
        });
        for written in futures::future::join_all(writes).await {
            written.unwrap();
        }
    }
    gates.delay(Duration::ZERO);
    for store in cluster.running() {
        assert_eq!(store.status().borrow().term, term, "member {}", store.node_id());
    }
    cluster.end().await;
}

#[path = "support/gate.rs"]
mod gate;
