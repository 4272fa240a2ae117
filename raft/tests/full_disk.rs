//! Goal R8: a full disk refuses writes, serves reads and deletes, and heals by itself.

#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/small_disk.rs"]
mod small_disk;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Ca, PATIENCE, Seat, get, log_to_stderr, put, until};
use rand::RngCore;
use small_disk::{fill, on_small_disk};
use trireme_proto::etcd;
use trireme_raft::engine::wal::{Wal, WalOptions};
use trireme_raft::engine::{Durability, Engine, Table, WriteBatch};
use trireme_raft::{DiskEngines, Engines, SpaceLevel, Store, StoreError, StoreOptions, Upkeep, WhenEmpty};

fn options(seat: &mut Seat, when_empty: WhenEmpty) -> StoreOptions {
    let engines: Arc<dyn Engines> = Arc::new(DiskEngines);
    let mut options = seat.options(engines, when_empty);
    options.upkeep = Upkeep {
        low_bytes: Some(48 << 20),
        reserve_bytes: 16 << 20,
        space_every: Duration::from_millis(100),
        retention: Duration::from_secs(2),
        ..Upkeep::default()
    };
    options
}

fn big(key: &str) -> etcd::TxnRequest {
    // Nothing that could be compressed.
    let mut value = vec![0; 256 << 10];
    rand::rng().fill_bytes(&mut value);
    let put = etcd::PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), value: value.into(), ..Default::default() };
    let request = Some(etcd::request_op::Request::RequestPut(put));
    etcd::TxnRequest { success: vec![etcd::RequestOp { request }], ..Default::default() }
}

fn delete(prefix: &str) -> etcd::TxnRequest {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    let range = etcd::DeleteRangeRequest { key: Bytes::copy_from_slice(prefix.as_bytes()), range_end: end.into(), ..Default::default() };
    let request = Some(etcd::request_op::Request::RequestDeleteRange(range));
    etcd::TxnRequest { success: vec![etcd::RequestOp { request }], ..Default::default() }
}

fn count(store: &Store, prefix: &str) -> i64 {
    let mut range_end = prefix.as_bytes().to_vec();
    *range_end.last_mut().unwrap() += 1;
    let request = etcd::RangeRequest {
        key: Bytes::copy_from_slice(prefix.as_bytes()),
        range_end: range_end.into(),
        count_only: true,
        ..Default::default()
    };
    store.range(&request).unwrap().count
}

async fn level(store: &Store, wanted: impl Fn(SpaceLevel) -> bool, what: &str) {
    let mut space = store.space();
    let reached = tokio::time::timeout(PATIENCE, space.wait_for(|space| wanted(space.level))).await;
    assert!(reached.is_ok(), "not in time: {what}; {:?}", store.space().borrow().clone());
}

/// Writes once there is space. A flush or a compaction may take what has just become free, for a moment.
async fn accepted(store: &Store, request: impl Fn() -> etcd::TxnRequest) {
    let attempts = async {
        while let Err(error) = store.txn(request(), None).await {
            assert!(matches!(error, StoreError::NoSpace), "{error}");
            level(store, |level| level == SpaceLevel::Ample, "space for a write").await;
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, attempts).await.is_ok(), "a write is still refused: {:?}", store.space().borrow().clone());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_refuses_growth_serves_the_rest_and_heals() {
    let Some(disk) = on_small_disk("one_member_refuses_growth_serves_the_rest_and_heals", 192) else { return };
    log_to_stderr();
    let mut seat = Seat::new(&Ca::new(), "a", &disk);
    let store = Store::open(options(&mut seat, WhenEmpty::Initialize)).await.unwrap();
    until(&store, "leadership", |status| status.leadership.is_some()).await;
    store.txn(put("small", "1"), None).await.unwrap();

    filled_by_its_own_writes(&store).await;
    filled_by_somebody_else(&store, &disk).await;

    let (small, revision) = (get(&store, "small"), store.revision());
    store.shutdown().await;
    drop(store);
    let store = Store::open(options(&mut seat, WhenEmpty::Refuse)).await.unwrap();
    store.barrier().await.unwrap();
    assert_eq!((get(&store, "small"), store.revision()), (small, revision));
    assert_eq!(count(&store, "big/"), 0);
    store.shutdown().await;
}

async fn filled_by_its_own_writes(store: &Store) {
    let mut written = 0;
    // Upkeep may free the log's space after a refusal: that is used up too, until nothing new is taken.
    for attempt in 0.. {
        assert!(attempt < 1000, "the disk is smaller than that: {:?}", store.space().borrow().clone());
        match store.txn(big(&format!("big/{written:04}")), None).await {
            Ok(_) => written += 1,
            Err(error) => {
                assert!(matches!(error, StoreError::NoSpace), "{error}");
                let level = store.space().borrow().level;
                match store.txn(put(&format!("new/{attempt}"), "x"), None).await {
                    Err(StoreError::NoSpace) if level != SpaceLevel::Ample => break,
                    Ok(_) | Err(StoreError::NoSpace) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    store.barrier().await.unwrap();
    assert_eq!(count(store, "big/"), written);
    store.txn(delete("big/"), None).await.unwrap();
    // History goes, the log goes, the space comes back: nobody does anything.
    level(store, |level| level == SpaceLevel::Ample, "space after deletes").await;
    accepted(store, || put("new", "x")).await;
    accepted(store, || put("small", "2")).await;
}

/// Fills the disk until an overwrite that grows nothing is refused too. What upkeep frees meanwhile is taken as well.
async fn filled(store: &Store, disk: &Path, overwrite: impl Fn() -> etcd::TxnRequest) -> PathBuf {
    let attempts = async {
        loop {
            let junk = fill(disk);
            let mut space = store.space();
            let until_full = space.wait_for(|space| space.level == SpaceLevel::Full);
            let is_full = tokio::time::timeout(Duration::from_secs(1), until_full).await.is_ok();
            if is_full && matches!(store.txn(overwrite(), None).await, Err(StoreError::NoSpace)) {
                return junk;
            }
        }
    };
    let junk = tokio::time::timeout(PATIENCE, attempts).await;
    junk.unwrap_or_else(|_| panic!("nothing is refused on a full disk: {:?}", store.space().borrow().clone()))
}

async fn filled_by_somebody_else(store: &Store, disk: &Path) {
    accepted(store, || big("big/again")).await;
    let junk = filled(store, disk, || put("small", "2")).await;
    store.barrier().await.unwrap();
    assert_eq!(get(store, "small").as_deref(), Some("2"));
    store.txn(delete("big/"), None).await.unwrap();
    let revision = store.revision();
    match store.compact(revision).await {
        Ok(()) | Err(StoreError::Compacted { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    assert_eq!(count(store, "big/"), 0);

    std::fs::remove_file(junk).unwrap();
    level(store, |level| level == SpaceLevel::Ample, "space again").await;
    accepted(store, || put("small", "4")).await;
    assert_eq!(get(store, "small").as_deref(), Some("4"));
}

/// How much space is left decides what fails first: the segment that is made ahead, or the one that is needed.
#[test]
fn a_log_on_a_full_disk_refuses_writes_and_loses_none() {
    let Some(disk) = on_small_disk("a_log_on_a_full_disk_refuses_writes_and_loses_none", 64) else { return };
    let (folder, mut left) = (disk.join("log"), 0);
    while left < 8 << 20 {
        let wal = Wal::open(&folder, WalOptions::default()).unwrap();
        let junk = fill(&disk);
        let file = File::options().write(true).open(&junk).unwrap();
        file.set_len(file.metadata().unwrap().len() - left).unwrap();
        // An open file keeps its space.
        drop(file);
        let mut acknowledged = 0;
        let refused = (0_u64..256).find_map(|index| {
            let written = wal.write(entry(index), Durability::Synced);
            acknowledged += u64::from(written.is_ok());
            written.err()
        });
        assert!(matches!(refused, Some(StoreError::NoSpace)), "{refused:?} with {left} bytes left");
        let again = wal.write(entry(acknowledged), Durability::Synced);
        assert!(matches!(again, Err(StoreError::NoSpace)), "what the disk holds is unknown until it is read: {again:?}");
        drop(wal);
        let _ = std::fs::remove_file(&junk);
        let wal = Wal::open(&folder, WalOptions::default()).unwrap();
        let last = wal.view().last(Table::Entry).unwrap().map_or(0, |(key, _)| u64::from_be_bytes(key.try_into().unwrap()) + 1);
        assert!(last >= acknowledged, "{last} of {acknowledged} with {left} bytes left");
        wal.write(entry(last), Durability::Synced).unwrap();
        drop(wal);
        std::fs::remove_dir_all(&folder).unwrap();
        left += 1 << 20;
    }
}

/// A log entry of 256 KiB that nothing compresses.
fn entry(index: u64) -> WriteBatch {
    let mut value = vec![0; 256 << 10];
    rand::rng().fill_bytes(&mut value);
    let mut batch = WriteBatch::new();
    batch.put(Table::Entry, &index.to_be_bytes(), value);
    batch
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_on_without_the_member_whose_disk_is_full() {
    let Some(disk) = on_small_disk("a_cluster_goes_on_without_the_member_whose_disk_is_full", 192) else { return };
    log_to_stderr();
    let base = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    // The one that leads first is the one whose disk fills up.
    let mut seats = [Seat::new(&ca, "a", &disk), Seat::new(&ca, "b", base.path()), Seat::new(&ca, "c", base.path())];
    let mut stores = vec![Store::open(options(&mut seats[0], WhenEmpty::Initialize)).await.unwrap()];
    until(&stores[0], "leadership", |status| status.leadership.is_some()).await;
    for seat in &mut seats[1..] {
        let ticket = stores[0].add_learner(seat.record()).await.unwrap();
        stores.push(Store::open(options(seat, WhenEmpty::Join(ticket))).await.unwrap());
        let voters = stores.len();
        until(&stores[0], "promotion", |status| status.voters.len() == voters && !status.changing_members).await;
    }

    let junk = fill(&disk);
    until(&stores[1], "another leader", |status| status.leader.as_ref().is_some_and(|leader| leader.node_id != 1)).await;
    // More than its reserve could take.
    for i in 0..160 {
        stores[1].txn(big(&format!("big/{i:04}")), None).await.unwrap();
    }
    assert_eq!(count(&stores[1], "big/"), 160);
    let behind = stores[0].range(&etcd::RangeRequest { key: "small".into(), ..Default::default() });
    assert!(behind.is_ok(), "the full member still reads: {behind:?}");
    stores[1].txn(delete("big/"), None).await.unwrap();
    stores[1].txn(put("small", "after"), None).await.unwrap();

    std::fs::remove_file(junk).unwrap();
    let revision = stores[1].revision();
    let caught_up = tokio::time::timeout(PATIENCE, stores[0].wait_revision(revision)).await;
    assert!(caught_up.is_ok(), "the full member has not caught up: {:?}", stores[0].status().borrow().clone());
    assert_eq!(get(&stores[0], "small").as_deref(), Some("after"));
    level(&stores[0], |level| level == SpaceLevel::Ample, "space again").await;
    stores[0].barrier().await.unwrap();
    for store in stores {
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_beyond_its_quota_takes_overwrites_and_deletes() {
    log_to_stderr();
    let base = tempfile::tempdir().unwrap();
    let mut seat = Seat::new(&Ca::new(), "a", base.path());
    let mut options = options(&mut seat, WhenEmpty::Initialize);
    options.upkeep.quota_bytes = 16 << 20;
    let store = Store::open(options).await.unwrap();
    until(&store, "leadership", |status| status.leadership.is_some()).await;
    store.txn(put("small", "1"), None).await.unwrap();
    let mut written = 0;
    while store.txn(big(&format!("big/{written:04}")), None).await.is_ok() {
        written += 1;
        assert!(written < 200, "the quota is smaller than that");
    }
    assert_eq!(store.space().borrow().level, SpaceLevel::Low);
    store.txn(put("small", "2"), None).await.unwrap();
    let larger = put("small", &"x".repeat(8192));
    assert!(matches!(store.txn(larger, None).await, Err(StoreError::NoSpace)), "an overwrite that grows is growth");
    assert!(matches!(store.txn(put("new", "x"), None).await, Err(StoreError::NoSpace)));
    let lease = store.lease_grant(600, 0).await.unwrap();
    store.lease_revoke(lease.id).await.unwrap();
    store.txn(delete("big/"), None).await.unwrap();
    level(&store, |level| level == SpaceLevel::Ample, "space after deletes").await;
    store.txn(put("new", "x"), None).await.unwrap();
    store.shutdown().await;
}
