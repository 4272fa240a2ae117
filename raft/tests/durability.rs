//! Design D10: an acknowledged write is on disk on a majority. A build that does not sync
//! (`--features mutants`, TRIREME_MUTANT=unsynced-append) must fail here.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/gate.rs"]
mod gate;
#[path = "support/recording.rs"]
mod recording;

use std::sync::Arc;

use bytes::Bytes;
use cluster::{Ca, Cluster, PATIENCE, Seat, get, log_to_stderr, put, timing, until};
use recording::RecordingEngines;
use trireme_raft::engine::{Durability, Engine, Table, WriteBatch};
use trireme_raft::{MemoryEngines, Store, StoreError, WhenEmpty};

const WRITES: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_has_synced_before_each_acknowledgement() {
    log_to_stderr();
    let base = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let disks: Vec<Arc<RecordingEngines>> = (0..3).map(|_| Arc::new(RecordingEngines::default())).collect();
    let mut seats: Vec<Seat> = ["a", "b", "c"].map(|name| Seat::new(&ca, name, base.path())).into();
    let mut stores = vec![seats[0].open(disks[0].clone(), WhenEmpty::Initialize).await];
    let led = until(&stores[0], "leadership", |status| status.leadership.is_some()).await;
    assert!(disks[0].synced_vote(led.term, 1), "a leader has synced its vote");
    for index in 1..3 {
        let ticket = stores[0].add_learner(seats[index].record()).await.unwrap();
        let store = seats[index].open(disks[index].clone(), WhenEmpty::Join(ticket)).await;
        until(&store, "promotion", |status| status.voters.len() == index + 1).await;
        stores.push(store);
    }
    until(&stores[0], "three voters", |status| status.voters.len() == 3).await;

    // Sequentially: every single acknowledgement is checked at the moment it arrives. And at once, so that
    // group commit is in play.
    let one_after_another = 0..WRITES;
    for i in one_after_another {
        acknowledged(&stores[i % 3], &disks, format!("single/{i:04}/")).await;
    }
    let at_once = (0..WRITES).map(|i| acknowledged(&stores[i % 3], &disks, format!("batch/{i:04}/")));
    futures::future::join_all(at_once).await;

    // Everything loses power at the same moment.
    for store in stores.drain(..) {
        store.shutdown().await;
    }
    for disk in &disks {
        disk.crash();
    }
    for (seat, disk) in seats.iter_mut().zip(&disks) {
        stores.push(seat.open(disk.clone(), WhenEmpty::Refuse).await);
    }
    for store in &stores {
        store.barrier().await.unwrap();
        for i in 0..WRITES {
            assert!(get(store, &format!("single/{i:04}/")).is_some(), "lost write {i}");
            assert!(get(store, &format!("batch/{i:04}/")).is_some(), "lost write {i} of the batch");
        }
    }
    for store in &stores {
        store.shutdown().await;
    }
}

async fn acknowledged(store: &Store, disks: &[Arc<RecordingEngines>], key: String) {
    store.txn(put(&key, "v"), None).await.unwrap();
    let on_disk = disks.iter().filter(|disk| disk.synced_entry_with(key.as_bytes())).count();
    assert!(on_disk >= 2, "{key} was acknowledged with {on_disk} synced copies");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_the_instance_and_not_the_store() {
    log_to_stderr();
    let base = tempfile::tempdir().unwrap();
    let disk = Arc::new(RecordingEngines::default());
    let mut seat = Seat::new(&Ca::new(), "a", base.path());
    let store = seat.open(disk.clone(), WhenEmpty::Initialize).await;
    let led = until(&store, "leadership", |status| status.leadership.is_some_and(|led| led.caught_up)).await;
    store.txn(put("k", "before"), None).await.unwrap();

    disk.fail_next_sync();
    let writer = store.clone();
    let write = tokio::spawn(async move { writer.txn(put("k", "during"), None).await });
    until(&store, "the failure", |status| status.failure.is_some()).await;
    assert_eq!(get(&store, "k").as_deref(), Some("before"), "reads go on");

    // Another instance takes over with another term. The write is applied once, or reported as unknown.
    let again = until(&store, "a new leadership", |status| status.leadership.is_some_and(|led| led.caught_up)).await;
    assert!(again.term > led.term);
    let result = tokio::time::timeout(PATIENCE, write).await.unwrap().unwrap();
    assert!(matches!(result, Ok(_) | Err(StoreError::OutcomeUnknown { .. })), "{result:?}");
    store.txn(put("k", "after"), None).await.unwrap();
    assert_eq!(get(&store, "k").as_deref(), Some("after"));
    let request = trireme_proto::etcd::RangeRequest { key: Bytes::from("k"), ..Default::default() };
    let versions = store.range(&request).unwrap().kvs[0].version;
    assert!(versions == 3 || (versions == 2 && result.is_err()), "applied more than once: version {versions}");
    store.shutdown().await;
}

/// Members apply what a majority has on disk. A member, follower or leader, that loses power before its own disk had an entry has lost nothing that
/// it acknowledged, and comes back; a member that lost what had been on its disk does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_ahead_of_what_its_log_had_synced_comes_back_after_a_power_cut() {
    const GONE: u64 = 8;
    for leads in [false, true] {
        let disks = Arc::new(MemoryEngines::new());
        let gates = Arc::new(gate::Gates::new(disks.clone()));
        let mut cluster = Cluster::start(timing(), gates.clone()).await;
        let leader = cluster.leader().await;
        let slow = if leads { leader } else { (leader + 1) % 3 };
        let folder = cluster.seats[slow].folder.clone();
        gates.shut(&folder);
        let written = cluster.store(leader).txn(put("k", "v"), None).await.unwrap().header.unwrap().revision;
        tokio::time::timeout(PATIENCE, cluster.store(slow).wait_revision(written)).await.unwrap().unwrap();

        // The state got to the disk by itself, as memtables do; the log did not.
        let state = disks.engine(&folder.join("state/0"));
        state.flush().unwrap();
        disks.crash_below(&folder);
        gates.open(&folder);
        cluster.stop(slow).await;
        cluster.restart(slow).await;
        assert!(cluster.store(slow).revision() >= written, "what was applied is there");
        cluster.store(slow).txn(put("k", "again"), None).await.unwrap();
        for store in cluster.running() {
            store.barrier().await.unwrap();
            assert_eq!(get(store, "k").as_deref(), Some("again"));
        }

        // The other way round: entries go that were on disk when a later one was applied.
        for _ in 0..GONE {
            cluster.store(slow).txn(put("k", "later"), None).await.unwrap();
        }
        cluster.stop(slow).await;
        let log = disks.engine(&folder.join("log"));
        let (last, _) = log.view().last(Table::Entry).unwrap().unwrap();
        let index = u64::from_be_bytes(last.try_into().unwrap());
        let mut batch = WriteBatch::new();
        batch.delete_range(Table::Entry, &(index - GONE).to_be_bytes(), None);
        log.write(batch, Durability::Synced).unwrap();
        let options = cluster.seats[slow].options(gates.clone(), WhenEmpty::Refuse);
        let error = Store::open(options).await.map(drop).unwrap_err();
        assert!(matches!(error, StoreError::MustRejoin(_)), "{error}");
        cluster.end().await;
    }
}

/// Damage to the state alone is healed; damage to the log is refused.
#[cfg(feature = "rocksdb")]
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_rebuilt_and_a_damaged_log_refused() {
    use std::fs;
    use std::path::Path;

    fn overwrite(directory: &Path, extension: &str) -> usize {
        let mut damaged = 0;
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|found| found == extension) {
                let mut bytes = fs::read(&path).unwrap();
                if bytes.len() > 200 {
                    // A segment of the log is zeros behind its last record.
                    let middle = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) / 2;
                    bytes[middle - 50..middle + 50].fill(0xa5);
                    fs::write(&path, bytes).unwrap();
                    damaged += 1;
                }
            }
        }
        damaged
    }

    log_to_stderr();
    let base = tempfile::tempdir().unwrap();
    let engines: Arc<dyn trireme_raft::Engines> = Arc::new(trireme_raft::DiskEngines);
    let mut seat = Seat::new(&Ca::new(), "a", base.path());
    let mut options = seat.options(engines.clone(), WhenEmpty::Initialize);
    (options.snapshot_every, options.log_kept) = (40, 5);
    let store = Store::open(options).await.unwrap();
    until(&store, "leadership", |status| status.leadership.is_some()).await;
    for i in 0..200 {
        store.txn(put(&format!("k/{i}"), "v"), None).await.unwrap();
    }
    let revision = store.revision();
    store.shutdown().await;
    drop(store);

    let state = fs::read_dir(seat.folder.join("state")).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap();
    fs::write(state.path().join("CURRENT"), "nonsense\n").unwrap();
    let store = seat.open(engines.clone(), WhenEmpty::Refuse).await;
    store.barrier().await.unwrap();
    assert_eq!((store.revision(), get(&store, "k/0").as_deref()), (revision, Some("v")));
    store.shutdown().await;
    drop(store);

    assert!(overwrite(&seat.folder.join("log/segments"), "wal") > 0);
    let error = Store::open(seat.options(engines.clone(), WhenEmpty::Refuse)).await.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::MustRejoin(_)), "{error}");
    fs::remove_dir_all(seat.folder.join("log")).unwrap();
    let error = Store::open(seat.options(engines, WhenEmpty::Initialize)).await.map(drop).unwrap_err();
    assert!(matches!(&error, StoreError::MustRejoin(text) if text.contains("rejoin")), "{error}");
}
