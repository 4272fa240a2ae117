//! Bad disks in a cluster of three: a failure ends an instance but not the store, and a replica whose state differs from the majority's
//! is found, fenced and rebuilt.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/recording.rs"]
mod recording;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Ca, PATIENCE, Seat, get, log_to_stderr, put, until};
use recording::RecordingEngines;
use trireme_proto::etcd;
use trireme_raft::engine::{Durability, Table, WriteBatch};
use trireme_raft::{Store, StoreError, WatchError, WhenEmpty};

struct Three {
    _base: tempfile::TempDir,
    seats: Vec<Seat>,
    disks: Vec<Arc<RecordingEngines>>,
    stores: Vec<Store>,
}

impl Three {
    async fn start(compare_every: Duration) -> Three {
        log_to_stderr();
        let base = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        let mut seats: Vec<Seat> = ["a", "b", "c"].map(|name| Seat::new(&ca, name, base.path())).into();
        let disks: Vec<Arc<RecordingEngines>> = (0..3).map(|_| Arc::new(RecordingEngines::default())).collect();
        let mut stores: Vec<Store> = Vec::new();
        for (seat, disk) in seats.iter_mut().zip(&disks) {
            let when_empty = match stores.first() {
                Some(founder) => WhenEmpty::Join(founder.add_learner(seat.record()).await.unwrap()),
                None => WhenEmpty::Initialize,
            };
            let mut options = seat.options(disk.clone(), when_empty);
            options.upkeep.compare_every = compare_every;
            stores.push(Store::open(options).await.unwrap());
            let voters = stores.len();
            until(&stores[0], "a voter more", |status| status.voters.len() == voters && !status.changing_members).await;
            until(&stores[0], "leadership", |status| status.leadership.is_some_and(|led| led.caught_up)).await;
        }
        for store in &stores {
            until(store, "three voters", |status| status.voters.len() == 3 && status.leader.is_some()).await;
        }
        Three { _base: base, seats, disks, stores }
    }

    /// Gives `key` another value at one member, as a bug or a bad disk might.
    fn falsify(&self, member: usize, key: &str, value: &str) {
        let engine = self.disks[member].behind_the_back(&self.seats[member].folder.join("state/0"));
        let mut batch = WriteBatch::new();
        {
            let view = engine.view();
            let mut cursor = view.cursor(Table::Value, key.as_bytes(), None).unwrap();
            while let Some((found, _)) = cursor.entry().filter(|(found, _)| found.starts_with(key.as_bytes())) {
                batch.put(Table::Value, found, value.as_bytes().to_vec());
                cursor.advance().unwrap();
            }
        }
        assert!(!batch.is_empty());
        engine.write(batch, Durability::Synced).unwrap();
    }

    async fn diverges_and_heals(&self, member: usize) {
        let store = &self.stores[member];
        let mut watch = store.watch(Bytes::from("k"), Bytes::new(), 0).unwrap();
        self.falsify(member, "k", "wrong");
        assert_eq!(on_disk(store, "k").unwrap().as_deref(), Some("wrong"), "nobody has looked yet");
        let fenced = until(store, "the fault", |status| status.failure.is_some()).await;
        assert!(!fenced.has_quorum_contact, "not ready: {fenced:?}");
        let healed = async {
            loop {
                match on_disk(store, "k") {
                    Ok(value) => break assert_eq!(value.as_deref(), Some("right"), "the wrong value is never served again"),
                    Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                    Err(error) => panic!("{error}"),
                }
            }
            until(store, "contact", |status| status.has_quorum_contact && status.failure.is_none()).await;
            store.barrier().await.unwrap();
        };
        tokio::time::timeout(PATIENCE, healed).await.unwrap();
        assert_eq!(get(store, "k").as_deref(), Some("right"));
        let ended = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap();
        assert!(matches!(ended, Err(WatchError::Reset)), "what it was told may never have happened: {ended:?}");
        // Its vote and its id are what they were.
        assert_eq!(store.status().borrow().voters, [1, 2, 3]);
    }

    async fn end(self) {
        for store in self.stores {
            store.shutdown().await;
        }
    }
}

/// A read that names a revision is answered by the engine, not by what is kept in memory.
fn on_disk(store: &Store, key: &str) -> Result<Option<String>, StoreError> {
    let request = etcd::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), revision: store.revision(), ..Default::default() };
    let kvs = store.range(&request)?.kvs;
    Ok(kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_another_state_is_found_out_and_rebuilt() {
    let three = Three::start(Duration::from_millis(300)).await;
    three.stores[0].txn(put("k", "right"), None).await.unwrap();
    for store in &three.stores {
        store.barrier().await.unwrap();
    }
    three.diverges_and_heals(2).await;
    // The leader as well: the others are the majority then.
    let leader = three.stores.iter().position(|store| store.status().borrow().leadership.is_some()).unwrap();
    if leader != 2 {
        three.diverges_and_heals(leader).await;
    }
    three.stores[1].txn(put("k", "after"), None).await.unwrap();
    for store in &three.stores {
        store.barrier().await.unwrap();
        assert_eq!(get(store, "k").as_deref(), Some("after"));
    }
    three.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_writes_cost_an_instance_and_slow_ones_nothing() {
    let three = Three::start(Duration::ZERO).await;
    let write = async |key: &str| {
        // Whichever member leads: a write that is refused or in doubt is sent again, for it is the same write each time.
        let written = async {
            while let Err(error) = three.stores[1].txn(put(key, "v"), None).await {
                assert!(matches!(error, StoreError::OutcomeUnknown { .. } | StoreError::NoLeader(_)), "{error}");
            }
        };
        tokio::time::timeout(PATIENCE * 2, written).await.unwrap();
    };
    for member in 0..3 {
        three.disks[member].fail_next_sync();
        write(&format!("sync/{member}")).await;
        until(&three.stores[member], "Raft again", |status| status.failure.is_none() && status.has_quorum_contact).await;
        three.disks[member].fail_next_state_write();
        write(&format!("state/{member}")).await;
        until(&three.stores[member], "Raft again", |status| status.failure.is_none() && status.has_quorum_contact).await;
    }
    for store in &three.stores {
        store.barrier().await.unwrap();
        for member in 0..3 {
            assert_eq!(get(store, &format!("sync/{member}")).as_deref(), Some("v"));
            assert_eq!(get(store, &format!("state/{member}")).as_deref(), Some("v"));
        }
    }

    let term = three.stores[0].status().borrow().term;
    three.disks.iter().for_each(|disk| disk.delay_syncs(100));
    for i in 0..20 {
        write(&format!("slow/{i}")).await;
    }
    three.disks.iter().for_each(|disk| disk.delay_syncs(0));
    for store in &three.stores {
        assert_eq!(store.status().borrow().term, term, "nobody stood for election");
        store.barrier().await.unwrap();
        assert_eq!(get(store, "slow/19").as_deref(), Some("v"));
    }
    three.end().await;
}
