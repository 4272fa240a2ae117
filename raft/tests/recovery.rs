//! Quorum lost for good: a survivor made a cluster of one, and a cluster made of a backup.

#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;

use std::time::Duration;

use cluster::{Ca, PATIENCE, Seat, engines, get, log_to_stderr, put, until};
use trireme_raft::backup::{BackupReader, restore};
use trireme_raft::reset::{Survivor, resume};
use trireme_raft::{Step, Store, StoreError, WhenEmpty};

const STEP: i64 = trireme_raft::mvcc::RESET_REVISION_STEP;

struct Group {
    base: tempfile::TempDir,
    ca: Ca,
    seats: Vec<Seat>,
    stores: Vec<Store>,
}

impl Group {
    async fn of(names: &[&str]) -> Group {
        log_to_stderr();
        let base = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        let mut group = Group { ca, seats: Vec::new(), stores: Vec::new(), base };
        for name in names {
            group.join(name).await;
        }
        group
    }

    async fn join(&mut self, name: &str) {
        let mut seat = Seat::new(&self.ca, name, self.base.path());
        let when_empty = match self.stores.first() {
            None => WhenEmpty::Initialize,
            Some(first) => WhenEmpty::Join(first.add_learner(seat.record()).await.unwrap()),
        };
        let store = seat.open(engines(), when_empty).await;
        until(&store, "its vote", |status| status.voters.contains(&status.node_id) && status.leader.is_some()).await;
        self.seats.push(seat);
        self.stores.push(store);
    }

    async fn stop(&mut self) {
        for store in self.stores.drain(..) {
            store.shutdown().await;
        }
    }
}

fn quietly(_: Step) -> Result<(), StoreError> {
    Ok(())
}

/// Two fresh members join the restarted survivor and have everything.
async fn grows_again(mut group: Group, key: &str, others: [&str; 2]) {
    for name in others {
        group.join(name).await;
    }
    for store in &group.stores {
        store.barrier().await.unwrap();
        assert_eq!(get(store, key).as_deref(), Some("kept"), "{key} at {}", store.node_id());
    }
    group.stores[2].txn(put("after", "all"), None).await.unwrap();
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_becomes_a_cluster_of_one_and_grows_again() {
    let mut group = Group::of(&["a", "b", "c"]).await;
    let before = group.stores[0].txn(put("k", "kept"), None).await.unwrap().header.unwrap().revision;
    let old_cluster = group.stores[0].cluster_id();
    group.stores[2].barrier().await.unwrap();
    // The last write is only in the survivor's log, and the survivor does not know that it was committed.
    group.stop().await;

    let db = group.seats[2].folder.clone();
    let survivor = Survivor::open(&db, engines(), &mut quietly).await.unwrap();
    let report = survivor.report().clone();
    assert_eq!((report.cluster_id, report.members.len()), (old_cluster, 3));
    assert!(report.revision >= before);
    survivor.refuse_if_quorum_answers(group.seats[2].identity.clone()).await.unwrap();
    let done = survivor.reset(&mut quietly).unwrap();
    assert_ne!(done.cluster.cluster_id, old_cluster);
    assert_eq!(done.cluster.revision, report.revision + STEP);
    assert!(done.cluster.node_id > 3, "member ids stay used up");

    let store = group.seats[2].open(engines(), WhenEmpty::Refuse).await;
    until(&store, "leadership", |status| status.leadership.is_some_and(|led| led.caught_up)).await;
    assert_eq!((store.cluster_id(), store.node_id()), (done.cluster.cluster_id, done.cluster.node_id));
    assert_eq!(get(&store, "k").as_deref(), Some("kept"));
    assert!(matches!(store.watch("k".into(), "".into(), before), Err(StoreError::Compacted { .. })));

    // One of the lost members comes back with its old disk: it is told what to do, and takes part in no election.
    let lone = group.seats[0].open(engines(), WhenEmpty::Refuse).await;
    let told = until(&lone, "the refusal", |status| status.failure.is_some()).await.failure.unwrap();
    assert!(told.contains("empty") && told.contains(&format!("{:016x}", done.cluster.cluster_id)), "{told}");
    lone.shutdown().await;

    group.stores = vec![store];
    grows_again(group, "k", ["b2", "c2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_refused_while_a_quorum_answers() {
    let mut group = Group::of(&["a", "b", "c"]).await;
    group.stores.pop().unwrap().shutdown().await;
    let db = group.seats[2].folder.clone();
    let identity = group.seats[2].identity.clone();
    let survivor = Survivor::open(&db, engines(), &mut quietly).await.unwrap();
    let refusal = survivor.refuse_if_quorum_answers(identity.clone()).await.unwrap_err().to_string();
    assert!(refusal.contains("the cluster lives without this server"), "{refusal}");
    group.stores.pop().unwrap().shutdown().await;
    let refusal = survivor.refuse_if_quorum_answers(identity.clone()).await.unwrap_err().to_string();
    assert!(refusal.contains("start this server instead"), "{refusal}");
    group.stop().await;
    survivor.refuse_if_quorum_answers(identity).await.unwrap();
    survivor.abandon().unwrap();
    assert!(!db.with_file_name("c.reset").exists());

    // Abandoned: it is still a member of the cluster that it was.
    let running = group.seats[2].open(engines(), WhenEmpty::Refuse).await;
    let in_use = Survivor::open(&db, engines(), &mut quietly).await.err().unwrap().to_string();
    assert!(in_use.contains("in use"), "{in_use}");
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_killed_after_any_step_is_done_by_the_next() {
    use Step::{Applied, Complete, Copied, InPlace, Log, MovedAside, Reset, Snapshot};
    for kill_after in [Copied, Applied, Reset, Snapshot, Log, Complete, MovedAside, InPlace] {
        let mut group = Group::of(&["a"]).await;
        let before = group.stores[0].txn(put("k", "kept"), None).await.unwrap().header.unwrap().revision;
        let old_cluster = group.stores[0].cluster_id();
        group.stop().await;
        let db = group.seats[0].folder.clone();
        std::fs::create_dir(db.join("snapshots")).unwrap();
        std::fs::write(db.join("snapshots/one"), "a backup").unwrap();

        let mut kill = |step| if step == kill_after { Err(StoreError::Io("killed".into())) } else { Ok(()) };
        let killed = match Survivor::open(&db, engines(), &mut kill).await {
            Ok(survivor) => survivor.reset(&mut kill).map(drop),
            Err(error) => Err(error),
        };
        assert!(killed.unwrap_err().to_string().contains("killed"), "{kill_after:?}");

        // The next start of the server, or the next reset, finds one of two whole things.
        let finished = resume(&db).unwrap();
        assert_eq!(finished, kill_after == MovedAside, "{kill_after:?}");
        if !matches!(kill_after, MovedAside | InPlace) {
            let survivor = Survivor::open(&db, engines(), &mut quietly).await.unwrap();
            assert_eq!(survivor.report().cluster_id, old_cluster, "{kill_after:?}");
            survivor.reset(&mut quietly).unwrap();
        }
        assert_eq!(std::fs::read(db.join("snapshots/one")).unwrap(), b"a backup", "{kill_after:?}");
        // The server may start with another key and another address.
        group.seats[0].identity = group.ca.identity();
        group.seats[0].move_to_another_port();
        let store = group.seats[0].open(engines(), WhenEmpty::Refuse).await;
        until(&store, "leadership", |status| status.leadership.is_some_and(|led| led.caught_up)).await;
        assert_eq!(get(&store, "k").as_deref(), Some("kept"), "{kill_after:?}");
        assert!(store.cluster_id() != old_cluster && store.revision() >= before + STEP, "{kill_after:?}");
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_becomes_a_cluster_elsewhere_and_grows() {
    let mut group = Group::of(&["a", "b"]).await;
    group.stores[0].txn(put("k", "kept"), None).await.unwrap();
    let lease = group.stores[0].lease_grant(3600, 0).await.unwrap();
    // From a follower, and what was acknowledged before the call is in it.
    let mut archive = Vec::new();
    let summary = group.stores[1].backup().await.unwrap().write_to(&mut archive).await.unwrap();
    let old_cluster = group.stores[0].cluster_id();
    group.stores[0].txn(put("k", "lost"), None).await.unwrap();
    group.stop().await;

    let mut seat = Seat::new(&group.ca, "elsewhere", group.base.path());
    let engine_kinds = engines();
    let reader = BackupReader::open(archive.as_slice()).unwrap();
    assert_eq!((reader.header().cluster_id, reader.header().members.len()), (old_cluster, 2));
    let restored = restore(reader, engine_kinds.as_ref(), &seat.folder).unwrap();
    assert_eq!(restored.summary, summary);
    let again = BackupReader::open(archive.as_slice()).unwrap();
    assert!(restore(again, engine_kinds.as_ref(), &seat.folder).unwrap_err().to_string().contains("has a store in it"));

    let store = seat.open(engine_kinds, WhenEmpty::Refuse).await;
    until(&store, "leadership", |status| status.leadership.is_some_and(|led| led.caught_up)).await;
    assert!(store.revision() >= summary.revision + STEP && store.cluster_id() != old_cluster);
    assert_eq!(get(&store, "k").as_deref(), Some("kept"));
    assert_eq!(store.leases().unwrap(), [lease.id]);
    let named = async {
        while store.members().await.iter().any(|member| member.name != "elsewhere") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, named).await.unwrap();
    group.seats = vec![seat];
    group.stores = vec![store];
    grows_again(group, "k", ["b2", "c2"]).await;
}
