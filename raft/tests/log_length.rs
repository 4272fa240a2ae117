//! The log is kept by bytes and age: a member that was away for a short time catches up by log, and the log stays bounded.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;

use std::time::Duration;

use cluster::{Cluster, PATIENCE, engines, put, timing};
use trireme_raft::log::LogKept;
use trireme_raft::{LogUpkeep, Upkeep};

const VALUE_BYTES: usize = 64 << 10;

/// Which state a member is on: it begins another with each snapshot from the leader.
fn generation(cluster: &Cluster, member: usize) -> String {
    std::fs::read_to_string(cluster.seats[member].folder.join("state/current")).unwrap_or_default()
}

/// Writes so many mebibytes while a member is away, and waits until it has them.
async fn away(cluster: &mut Cluster, member: usize, mebibytes: usize) {
    cluster.stop(member).await;
    let leader = cluster.store(cluster.leader().await).clone();
    let value = "v".repeat(VALUE_BYTES);
    for i in 0..(mebibytes << 20) / VALUE_BYTES {
        leader.txn(put(&format!("k/{}", i % 50), &value), None).await.unwrap();
    }
    cluster.restart(member).await;
    let reached = cluster.store(member).wait_revision(leader.revision());
    tokio::time::timeout(PATIENCE, reached).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_comes_back_by_log_as_far_as_it_is_kept_and_by_snapshot_beyond() {
    let kept = LogKept { bytes: 8 << 20, young: Duration::ZERO, bytes_max: 8 << 20 };
    let log = LogUpkeep { snapshot_bytes: 2 << 20, snapshot_age: Duration::from_secs(3600), kept };
    let upkeep = Upkeep { reserve_bytes: 0, space_every: Duration::from_millis(50), log, ..Upkeep::default() };
    let mut cluster = Cluster::start_with(timing(), upkeep, engines()).await;
    let member = (cluster.leader().await + 1) % 3;
    let before = generation(&cluster, member);
    away(&mut cluster, member, 5).await;
    assert_eq!(generation(&cluster, member), before, "it came by snapshot");
    let snapshots = |member: usize| cluster.seats[member].folder.join("snapshot").read_dir().unwrap().count();
    assert!(snapshots(cluster.leader().await) > 0, "none was taken");
    away(&mut cluster, member, 20).await;
    assert_ne!(generation(&cluster, member), before, "it came by log");
    cluster.end().await;
}
