//! Three members in one process, over real TLS sockets.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{Ca, Cluster, PATIENCE, Seat, engines, get, log_to_stderr, put, timing, until};
use trireme_proto::etcd;
use trireme_raft::{Store, WhenEmpty};

/// A write through one member, then a linearizable read at every member.
async fn everybody_sees(cluster: &Cluster, writer: usize, key: &str) {
    cluster.stores[writer].as_ref().unwrap().txn(put(key, "v"), None).await.unwrap();
    for store in cluster.running() {
        store.barrier().await.unwrap();
        assert_eq!(get(store, key).as_deref(), Some("v"), "{key} at member {}", store.node_id());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forwards_reads_everywhere_and_changes_its_leader() {
    let mut cluster = Cluster::start(timing(), engines()).await;
    let ids: Vec<u64> = cluster.running().map(Store::node_id).collect();
    assert_eq!(ids, [1, 2, 3]);
    for writer in 0..3 {
        everybody_sees(&cluster, writer, &format!("through-{writer}")).await;
    }

    // Many writers at a follower: forwarded in batches, each applied once.
    let follower = cluster.stores[2].clone().unwrap();
    let before = follower.barrier().await.unwrap();
    let writes = (0..200).map(|i| {
        let follower = follower.clone();
        async move { follower.txn(put(&format!("many/{i}"), "v"), None).await }
    });
    for result in futures::future::join_all(writes).await {
        result.unwrap();
    }
    assert_eq!(follower.revision(), before + 200);
    drop(follower);

    // A fence of the old leadership is void under the new one, wherever it is proposed.
    let old = cluster.leader().await;
    let fence = cluster.stores[old].as_ref().unwrap().status().borrow().leadership.unwrap().fence;
    let target = cluster.stores[(old + 1) % 3].clone().unwrap();
    cluster.stores[old].as_ref().unwrap().transfer_leader(target.node_id()).await.unwrap();
    let led = until(&target, "transferred leadership", |status| status.leadership.is_some_and(|led| led.caught_up)).await;
    assert!(led.term > fence.term);
    let deposed = cluster.stores[old].as_ref().unwrap().txn(put("fenced", "no"), Some(fence)).await;
    assert!(matches!(deposed, Err(trireme_raft::StoreError::Fenced)), "{deposed:?}");
    drop(target);

    // The leader goes: the others elect, and everything acknowledged is there.
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    let next = (leader + 1) % 3;
    everybody_sees(&cluster, next, "without-a-leader").await;
    assert_eq!(get(cluster.stores[next].as_ref().unwrap(), "many/199").as_deref(), Some("v"));
    cluster.restart(leader).await;
    everybody_sees(&cluster, leader, "after-restart").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_replaced_under_a_new_id() {
    let mut cluster = Cluster::start(timing(), engines()).await;
    everybody_sees(&cluster, 0, "before").await;
    // The leader is in none of the first memberships of the log: a member that replays them must go on listening to it.
    cluster.store(0).transfer_leader(3).await.unwrap();
    // Its disk is gone. It asks for a place again with the same key.
    let lost = (cluster.leader().await + 1) % 3;
    let old_id = cluster.stores[lost].as_ref().unwrap().node_id();
    cluster.stop(lost).await;
    std::fs::remove_dir_all(&cluster.seats[lost].folder).unwrap();
    cluster.seats[lost].folder.set_file_name("new");
    let helper = cluster.stores[cluster.leader().await].clone().unwrap();
    let ticket = helper.add_learner(cluster.seats[lost].record()).await.unwrap();
    assert!(ticket.node_id() > 3, "ids are never reused: {} after {old_id}", ticket.node_id());
    let store = cluster.seats[lost].open(cluster.engines.clone(), WhenEmpty::Join(ticket.clone())).await;
    until(&store, "promotion", |status| status.voters.contains(&ticket.node_id())).await;
    cluster.stores[lost] = Some(store);
    everybody_sees(&cluster, lost, "after").await;
    let members = helper.members().await;
    assert_eq!(members.len(), 3, "{members:?}");
    assert!(members.iter().all(|member| member.id != old_id));
    drop(helper);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_set_up_anew_takes_its_dead_self_s_place() {
    let mut cluster = Cluster::start(timing(), engines()).await;
    let lost = (cluster.leader().await + 1) % 3;
    let mut anew = Seat::new(&cluster.ca, &cluster.seats[lost].name, &cluster.base.path().join("anew"));
    let helper = cluster.stores[cluster.leader().await].clone().unwrap();
    // While its namesake lives, a second machine of that name is refused.
    let error = helper.add_learner(anew.record()).await.unwrap_err();
    assert!(error.to_string().contains("is alive"), "{error}");
    let old_id = cluster.stores[lost].as_ref().unwrap().node_id();
    cluster.stop(lost).await;
    let ticket = helper.add_learner(anew.record()).await.unwrap();
    assert!(ticket.node_id() > 3, "{}", ticket.node_id());
    let store = anew.open(cluster.engines.clone(), WhenEmpty::Join(ticket.clone())).await;
    until(&store, "promotion", |status| status.voters.contains(&ticket.node_id())).await;
    let members = helper.members().await;
    assert!(members.len() == 3 && members.iter().all(|member| member.id != old_id), "{members:?}");
    drop(helper);
    cluster.seats[lost] = anew;
    cluster.stores[lost] = Some(store);
    everybody_sees(&cluster, lost, "after").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_told_and_never_starts_again() {
    let mut cluster = Cluster::start(timing(), engines()).await;
    // The leader hands over before it goes.
    let gone = cluster.leader().await;
    let id = cluster.stores[gone].as_ref().unwrap().node_id();
    let other = cluster.stores[(gone + 1) % 3].clone().unwrap();
    other.remove(id).await.unwrap();
    let removed = cluster.stores[gone].clone().unwrap();
    let told = until(&removed, "the news", |status| status.failure.is_some()).await;
    assert!(told.failure.as_deref().unwrap().contains(&format!("member {id} was removed from the cluster")), "{told:?}");
    assert!(!told.has_quorum_contact && told.leader.is_none());
    assert!(removed.barrier().await.is_err());
    drop(removed);
    cluster.stop(gone).await;
    let options = cluster.seats[gone].options(cluster.engines.clone(), WhenEmpty::Refuse);
    let error = Store::open(options).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("was removed from the cluster"), "{error}");
    // With one of the two left stopped, there is no quorum to remove the other from.
    everybody_sees(&cluster, (gone + 1) % 3, "two").await;
    cluster.end().await;
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_without_whom_there_is_no_quorum_is_kept() {
    let mut cluster = Cluster::start(timing(), engines()).await;
    let leader = cluster.leader().await;
    let (dead, needed) = ((leader + 1) % 3, (leader + 2) % 3);
    let dead_id = cluster.stores[dead].as_ref().unwrap().node_id();
    let needed_id = cluster.stores[needed].as_ref().unwrap().node_id();
    cluster.stop(dead).await;
    let store = cluster.stores[leader].clone().unwrap();
    until_dead(&store, dead_id).await;
    let error = store.remove(needed_id).await.unwrap_err();
    assert!(error.to_string().contains("no quorum"), "{error}");
    // The dead one may go, and then the other: one that lives is left.
    store.remove(dead_id).await.unwrap();
    store.remove(needed_id).await.unwrap();
    until(&store, "one voter", |status| status.voters.len() == 1).await;
    drop(store);
    cluster.end().await;
}

async fn until_dead(store: &Store, id: u64) {
    let dead = async {
        while store.alive(std::time::Duration::from_secs(3)).contains(&id) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dead).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_raises_the_feature_level_and_nobody_joins_below_it() {
    log_to_stderr();
    let base = tempfile::tempdir().unwrap();
    let (ca, engines) = (Ca::new(), engines());
    let store = Seat::new(&ca, "a", base.path()).open(engines, WhenEmpty::Initialize).await;
    let raised = async {
        while store.feature_level() < trireme_proto::store::FEATURE_LEVEL {
            store.status().changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, raised).await.unwrap();
    let old = trireme_proto::store::MemberRecord { feature_level: 0, ..Seat::new(&ca, "old", base.path()).record() };
    let error = store.add_learner(old).await.unwrap_err();
    assert!(error.to_string().contains("feature level"), "{error}");
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_follower_gets_a_snapshot() {
    log_to_stderr();
    let base = tempfile::tempdir().unwrap();
    let (ca, engines) = (Ca::new(), engines());
    let mut first = Seat::new(&ca, "a", base.path());
    let mut options = first.options(engines.clone(), WhenEmpty::Initialize);
    // The log is purged early, so that the joiner cannot be served from it.
    (options.snapshot_every, options.log_kept) = (50, 10);
    let leader = Store::open(options).await.unwrap();
    until(&leader, "leadership", |status| status.leadership.is_some()).await;
    for i in 0..400 {
        leader.txn(put(&format!("k/{i}"), &"v".repeat(100)), None).await.unwrap();
    }
    let mut second = Seat::new(&ca, "b", base.path());
    let ticket = leader.add_learner(second.record()).await.unwrap();
    let mut options = second.options(engines.clone(), WhenEmpty::Join(ticket));
    (options.snapshot_every, options.log_kept) = (50, 10);
    let follower = Store::open(options).await.unwrap();
    until(&follower, "promotion", |status| status.voters.len() == 2).await;
    follower.barrier().await.unwrap();
    assert_eq!(get(&follower, "k/0").as_deref(), Some("v".repeat(100).as_str()));
    assert!(second.folder.join("snapshot").read_dir().unwrap().next().is_some(), "it came by log, not by snapshot");

    // History came with it, and watches on the follower go on from there.
    let mut watch = follower.watch("k/".into(), "k0".into(), 3).unwrap();
    let batch = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
    assert!(!batch.events.is_empty());
    follower.txn(put("k/new", "v"), None).await.unwrap();

    // And it restarts from what it was given.
    follower.shutdown().await;
    drop((follower, watch));
    let follower = second.open(engines, WhenEmpty::Refuse).await;
    follower.barrier().await.unwrap();
    assert_eq!(get(&follower, "k/new").as_deref(), Some("v"));
    follower.shutdown().await;
    leader.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_install_of_a_snapshot_and_the_purge_of_the_log_is_survived() {
    use trireme_raft::engine::{Durability, Engine, Table, WriteBatch};
    log_to_stderr();
    let base = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let mut first = Seat::new(&ca, "a", base.path());
    let mut options = first.options(std::sync::Arc::new(trireme_raft::MemoryEngines::new()), WhenEmpty::Initialize);
    (options.snapshot_every, options.log_kept) = (50, 10);
    let leader = Store::open(options).await.unwrap();
    until(&leader, "leadership", |status| status.leadership.is_some()).await;
    for i in 0..600 {
        leader.txn(put(&format!("k/{i}"), "v"), None).await.unwrap();
    }
    let mut second = Seat::new(&ca, "b", base.path());
    let ticket = leader.add_learner(second.record()).await.unwrap();
    let disk = std::sync::Arc::new(trireme_raft::MemoryEngines::new());
    let follower = second.open(disk.clone(), WhenEmpty::Join(ticket)).await;
    until(&follower, "promotion", |status| status.voters.len() == 2).await;
    follower.shutdown().await;
    drop(follower);
    assert!(second.folder.join("snapshot").read_dir().unwrap().next().is_some(), "it came by log, not by snapshot");

    // The state is as it was installed; the log has its vote and nothing else, as before the purge.
    disk.crash();
    let mut batch = WriteBatch::new();
    batch.delete_range(Table::Entry, &[], None);
    batch.delete(Table::LogMeta, b"purged");
    batch.delete(Table::LogMeta, b"committed-in-log");
    disk.engine(&second.folder.join("log")).write(batch, Durability::Synced).unwrap();
    let follower = second.open(disk, WhenEmpty::Refuse).await;
    follower.barrier().await.unwrap();
    assert_eq!(get(&follower, "k/599").as_deref(), Some("v"));
    follower.shutdown().await;
    leader.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_damaged_folders_are_refused() {
    log_to_stderr();
    let base = tempfile::tempdir().unwrap();
    let (ca, engines) = (Ca::new(), engines());
    let mut seat = Seat::new(&ca, "a", base.path());
    let store = seat.open(engines.clone(), WhenEmpty::Initialize).await;
    until(&store, "leadership", |status| status.leadership.is_some()).await;

    // The folder is in use.
    let mut twin = Seat::new(&ca, "a", base.path());
    let error = Store::open(twin.options(engines.clone(), WhenEmpty::Initialize)).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");

    // A ticket is of no use under another key than the one that it was made for.
    let guest = Seat::new(&ca, "guest", base.path());
    let ticket = store.add_learner(guest.record()).await.unwrap();
    let mut stranger = Seat::new(&ca, "stranger", base.path());
    let error = Store::open(stranger.options(engines.clone(), WhenEmpty::Join(ticket))).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("another key"), "{error}");
    store.txn(put("k", "v"), None).await.unwrap();

    // A folder with files of another program.
    let foreign = base.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("precious"), "x").unwrap();
    let mut seat = Seat::new(&ca, "foreign", base.path());
    let error = Store::open(seat.options(engines.clone(), WhenEmpty::Initialize)).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("not Trireme's") && foreign.join("precious").exists(), "{error}");

    // An empty one, where a member was expected.
    let mut seat = Seat::new(&ca, "nobody", base.path());
    let error = Store::open(seat.options(engines, WhenEmpty::Refuse)).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("is empty"), "{error}");
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_its_key_and_not_its_address() {
    let mut cluster = Cluster::start(timing(), engines()).await;
    let moved = (cluster.leader().await + 1) % 3;
    let id = cluster.stores[moved].as_ref().unwrap().node_id();
    cluster.stop(moved).await;
    let address = cluster.seats[moved].move_to_another_port();
    cluster.restart(moved).await;
    let leader = cluster.stores[cluster.leader().await].clone().unwrap();
    let learnt = async {
        loop {
            let members = leader.members().await;
            let member = members.iter().find(|member| member.id == id).unwrap();
            if member.addresses.as_ref().unwrap().peer == [address.clone()] {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, learnt).await.unwrap();
    drop(leader);
    // The others need it now.
    let third = (moved + 1) % 3;
    let stopped = if third == cluster.leader().await { (moved + 2) % 3 } else { third };
    cluster.stop(stopped).await;
    everybody_sees(&cluster, moved, "from-the-new-address").await;
    cluster.end().await;
}

/// Writers that never stop, leaders that do. What was acknowledged is there once; nothing is there twice.
#[tokio::test(flavor = "multi_thread")]
async fn no_write_is_lost_or_doubled_while_leaders_come_and_go() {
    const ROUNDS: usize = 4;
    let mut cluster = Cluster::start(timing(), engines()).await;
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let stop = tokio_util::sync::CancellationToken::new();
        let leader = cluster.leader().await;
        let survivors = (0..3).filter(|index| *index != leader).map(|index| cluster.stores[index].clone().unwrap());
        let writers: Vec<_> = survivors
            .enumerate()
            .map(|(writer, store)| {
                let stop = stop.clone();
                tokio::spawn(async move {
                    let mut done = Vec::new();
                    for i in 0.. {
                        if stop.is_cancelled() {
                            break;
                        }
                        let key = format!("load/{round}/{writer}/{i}");
                        // Nothing else is allowed here: a survivor finds the next leader within its deadline.
                        store.txn(put(&key, "v"), None).await.unwrap();
                        done.push(key);
                    }
                    done
                })
            })
            .collect();
        let first = cluster.stores[(leader + 1) % 3].clone().unwrap();
        let started = first.revision();
        first.wait_revision(started + 20).await.unwrap();
        cluster.stop(leader).await;
        let resumed = first.revision();
        tokio::time::timeout(PATIENCE, first.wait_revision(resumed + 20)).await.unwrap().unwrap();
        cluster.restart(leader).await;
        stop.cancel();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
        drop(first);
        let back = cluster.stores[leader].as_ref().unwrap();
        until(back, "a leader for the restarted", |status| status.has_quorum_contact).await;
    }
    for store in cluster.running() {
        store.barrier().await.unwrap();
        for key in &acknowledged {
            let request = etcd::RangeRequest { key: bytes::Bytes::copy_from_slice(key.as_bytes()), ..Default::default() };
            let found = store.range(&request).unwrap().kvs;
            assert_eq!(found.first().map(|kv| kv.version), Some(1), "{key} at member {}", store.node_id());
        }
    }
    assert!(acknowledged.len() >= ROUNDS * 30, "{}", acknowledged.len());
    cluster.end().await;
}
