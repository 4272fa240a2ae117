//! Watches as a consumer sees them.

use futures::FutureExt as _;
use trireme_proto::store::{CompactCommand, StateHead};

use super::super::hub::WatchHub;
use super::super::{Watch, WatchBatch, WatchError};
use super::*;

/// What is ready now; none if the watch waits.
fn ready(watch: &mut Watch) -> Option<Result<WatchBatch, WatchError>> {
    watch.next().now_or_never()
}

fn keys(batch: &WatchBatch) -> Vec<String> {
    batch.events.iter().map(|event| String::from_utf8_lossy(&event.kv.as_ref().unwrap().key).into_owned()).collect()
}

#[test]
fn a_watch_waits_and_wakes_and_reports_progress_of_other_keys() {
    let mut machine = Machine::new(memory());
    let mut watch = machine.state.watch(bytes("a"), bytes("b"), 0).unwrap();
    assert!(ready(&mut watch).is_none());
    machine.put("z", "1");
    let batch = ready(&mut watch).unwrap().unwrap();
    assert_eq!((batch.revision, batch.events.len()), (2, 0));
    machine.put("a", "1");
    machine.put("ab", "1");
    machine.put("b", "1");
    let batch = ready(&mut watch).unwrap().unwrap();
    assert_eq!((batch.revision, keys(&batch)), (5, vec!["a".to_owned(), "ab".to_owned()]));
    assert!(ready(&mut watch).is_none());
}

#[tokio::test]
async fn a_waiting_watch_is_woken_by_an_apply_elsewhere() {
    let mut machine = Machine::new(memory());
    let mut watch = machine.state.watch(bytes("a"), Bytes::new(), 0).unwrap();
    let waiting = tokio::spawn(async move { watch.next().await });
    tokio::task::yield_now().await;
    machine.put("a", "1");
    let batch = waiting.await.unwrap().unwrap();
    assert_eq!((batch.revision, batch.events.len()), (2, 1));
    machine.state.wait_revision(2).await.unwrap();
}

#[test]
fn a_slow_watch_falls_back_to_history_and_misses_nothing() {
    for disk in disks() {
        // The ring holds about two small events.
        let mut machine = Machine::with_ring(disk, 600);
        let mut watch = machine.state.watch(bytes("a"), bytes("b"), 0).unwrap();
        for value in 0..2000 {
            machine.put(if value % 2 == 0 { "a" } else { "x" }, &value.to_string());
        }
        let mut values = Vec::new();
        let mut batches = 0;
        while let Some(batch) = ready(&mut watch) {
            let batch = batch.unwrap();
            batches += 1;
            for event in batch.events.iter() {
                let value: i32 = std::str::from_utf8(&event.kv.as_ref().unwrap().value).unwrap().parse().unwrap();
                let before = event.prev_kv.as_ref().map(|kv| kv.value.clone());
                assert_eq!(before, (value >= 2).then(|| bytes(&(value - 2).to_string())));
                values.push(value);
            }
        }
        assert_eq!(values, (0..2000).step_by(2).collect::<Vec<_>>());
        assert!(batches > 1, "history comes in bounded batches");
    }
}

#[test]
fn compaction_ends_a_watch_that_needs_what_is_gone() {
    let mut machine = Machine::with_ring(memory(), 0);
    for value in 0..5 {
        machine.put("a", &value.to_string());
    }
    let mut slow = machine.state.watch(bytes("a"), Bytes::new(), 3).unwrap();
    let mut fine = machine.state.watch(bytes("a"), Bytes::new(), 5).unwrap();
    machine.run(Body::Compact(CompactCommand { revision: 5, holder: String::new() })).unwrap();
    assert!(matches!(ready(&mut slow), Some(Err(WatchError::Compacted { compact_revision: 5 }))));
    assert!(matches!(machine.state.watch(bytes("a"), Bytes::new(), 4), Err(StoreError::Compacted { .. })));
    assert_eq!(ready(&mut fine).unwrap().unwrap().events.len(), 2);
    machine.state.close();
    assert!(matches!(ready(&mut fine), Some(Err(WatchError::Shutdown))));
}

#[test]
fn a_transaction_is_never_split_between_batches() {
    let mut machine = Machine::with_ring(memory(), 0);
    for round in 0..3 {
        let success = (0..400).map(|key| put(&format!("a{key:03}"), &round.to_string())).collect();
        machine.txn(etcd::TxnRequest { success, ..Default::default() }).unwrap();
    }
    let mut watch = machine.state.watch(bytes("a"), bytes("b"), 2).unwrap();
    let mut revisions = Vec::new();
    while let Some(batch) = ready(&mut watch) {
        let batch = batch.unwrap();
        assert_eq!(batch.events.len() % 400, 0);
        revisions.push(batch.revision);
    }
    assert_eq!(revisions, [3, 4], "two transactions fill a batch");
}

/// RocksDB aborts a process that ends while one of its databases is still being closed.
#[test]
fn no_replaced_engine_outlives_the_hub() {
    let engine = || Arc::new(MemoryEngine::new());
    for _ in 0..100 {
        let hub = WatchHub::new(engine(), &StateHead::default(), 0);
        let engines = [engine(), engine()];
        let replaced = Arc::downgrade(&engines[0]);
        for engine in engines {
            hub.replace(engine, &StateHead::default());
        }
        drop(hub);
        assert_eq!(replaced.strong_count(), 0, "an engine is closed after its hub is gone");
    }
}
