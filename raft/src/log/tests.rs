//! openraft's public conformance suite on our log and state machine, and what it does not ask: damage.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};
use tempfile::TempDir;
use tokio::time::Instant;

use super::{LogStore, record};
use crate::engine::memory::MemoryEngine;
use crate::engine::{Durability, Engine, Table, WriteBatch};
use crate::error::StoreError;
use crate::metrics::StoreMetrics;
use crate::mvcc::{MvccOptions, StateMachine};
use crate::node::machine::{Machine, MachineShared};
use crate::snapshot::SnapshotDir;
use crate::store::datadir::DataDir;
use crate::store::engines::MemoryEngines;
use crate::store::options::Engines;
use crate::types::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig, Vote, log_id, term_of};

struct Builder<F>(F);

/// The suite applies entries with holes between them, which our state machine refuses on purpose: this fills them.
struct Filled(Machine);

impl RaftStateMachine<TypeConfig> for Filled {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.0.applied_state().await
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let mut next = self.applied_state().await?.0.map(|id| id.index() + 1);
        let mut filled = Vec::new();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let (term, index) = (term_of(&entry.log_id), entry.log_id.index());
            for hole in next.unwrap_or(index)..index {
                filled.push(Ok((Entry { log_id: log_id(term, hole), payload: EntryPayload::Blank }, None)));
            }
            next = Some(index + 1);
            filled.push(Ok((entry, responder)));
        }
        self.0.apply(futures::stream::iter(filled)).await
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.0.get_snapshot_builder().await
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotDir) -> Result<(), io::Error> {
        self.0.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, SnapshotDir>>, io::Error> {
        self.0.get_current_snapshot().await
    }
}

impl<E: Engines, F: Fn() -> E + Send + Sync> StoreBuilder<TypeConfig, LogStore, Filled, TempDir> for Builder<F> {
    async fn build(&self) -> Result<(TempDir, LogStore, Filled), StorageError<TypeConfig>> {
        let folder = TempDir::new().unwrap();
        let (log, machine) = open(folder.path(), Arc::new(self.0())).unwrap();
        Ok((folder, log, Filled(machine)))
    }
}

fn open(folder: &Path, engines: Arc<dyn Engines>) -> Result<(LogStore, Machine), StoreError> {
    let (log, machine, _) = open_parts(folder, engines)?;
    Ok((log, machine))
}

fn open_parts(folder: &Path, engines: Arc<dyn Engines>) -> Result<(LogStore, Machine, Arc<MachineShared>), StoreError> {
    let (data_dir, _) = DataDir::open(folder)?;
    let log = LogStore::open(engines.open_log(&data_dir.log())?, None)?;
    let (generation, directory) = data_dir.state()?;
    let state = StateMachine::open(engines.open_state(&directory)?, &MvccOptions::default(), Instant::now().into_std())?;
    let shared = MachineShared::new(1, Arc::new(data_dir), engines, generation, &state.info(), Arc::new(StoreMetrics::new()))?;
    let shared = Arc::new(shared);
    Ok((log, Machine::new(state, shared.clone()), shared))
}

async fn suite<E: Engines>(engines: impl Fn() -> E + Send + Sync) {
    Suite::test_all(Builder(engines)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn openraft_suite_in_memory() {
    suite(MemoryEngines::new).await;
}

#[cfg(feature = "rocksdb")]
#[tokio::test(flavor = "multi_thread")]
async fn openraft_suite_on_rocksdb() {
    suite(|| crate::store::engines::DiskEngines).await;
}

/// A log of a vote in term 1 and entries 0 to 4.
async fn sample() -> Arc<MemoryEngine> {
    let engine = Arc::new(MemoryEngine::new());
    let mut log = LogStore::open(engine.clone(), None).unwrap();
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    let entries = (0..5).map(|index| Entry { log_id: log_id(1, index), payload: EntryPayload::Blank });
    log.append(entries, IOFlushed::noop()).await.unwrap();
    // Serialized behind the append.
    log.save_vote(&Vote::new_committed(2, 1)).await.unwrap();
    log.close();
    engine
}

fn value(engine: &MemoryEngine, index: u64) -> Bytes {
    engine.view().get(Table::Entry, &index.to_be_bytes()).unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_refused_and_a_torn_tail_dropped() {
    type Damage = fn(&MemoryEngine, &mut WriteBatch);
    let cases: [(&str, Damage, Result<u64, &str>); 7] = [
        ("intact", |_, _| {}, Ok(4)),
        (
            "flipped bit in the middle",
            |engine, batch| {
                let mut bytes = value(engine, 2).to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                batch.put(Table::Entry, &2u64.to_be_bytes(), bytes);
            },
            Err("entry"),
        ),
        (
            "flipped bit in the last record",
            |engine, batch| {
                let mut bytes = value(engine, 4).to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                batch.put(Table::Entry, &4u64.to_be_bytes(), bytes);
            },
            Err("entry"),
        ),
        ("missing entry", |_, batch| batch.delete(Table::Entry, &2u64.to_be_bytes()), Err("entry 2 is missing")),
        ("torn in the middle", |engine, batch| batch.put(Table::Entry, &2u64.to_be_bytes(), value(engine, 2).slice(..6)), Err("cut short")),
        ("torn at the end", |engine, batch| batch.put(Table::Entry, &4u64.to_be_bytes(), value(engine, 4).slice(..6)), Ok(3)),
        ("vote lost", |_, batch| batch.delete(Table::LogMeta, record::VOTE), Err("vote")),
    ];
    for (name, damage, expected) in cases {
        let engine = sample().await;
        let mut batch = WriteBatch::new();
        damage(&engine, &mut batch);
        engine.write(batch, Durability::Synced).unwrap();
        match (LogStore::open(engine, None), expected) {
            (Ok(log), Ok(last)) => assert_eq!(log.last_log_id(), Some(log_id(1, last)), "{name}"),
            (Err(StoreError::Corrupt(text)), Err(part)) => assert!(text.contains(part), "{name}: {text}"),
            (result, _) => panic!("{name}: {:?}", result.map(|log| log.last_log_id())),
        }
    }
}

/// Other members may have committed what is still queued here: with it in the mark, a log that loses power would not open again.
/// The clock stands still while entries are queued, so all but the first round of the writer see the mark ahead of the log.
#[tokio::test(start_paused = true)]
async fn the_committed_mark_never_passes_the_end_of_the_log_on_disk() {
    const LAST: u64 = 3000;
    const SYNC: Duration = Duration::from_millis(2);
    let engine = Arc::new(MemoryEngine::with_sync_delay(SYNC));
    let mut log = LogStore::open_on_task(engine.clone(), None).unwrap();
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    for index in 0..=LAST {
        log.append([Entry { log_id: log_id(1, index), payload: EntryPayload::Blank }], IOFlushed::noop()).await.unwrap();
    }
    log.save_committed(Some(log_id(1, LAST))).await.unwrap();
    let mut lengths = std::collections::BTreeSet::new();
    while log.synced().load(std::sync::atomic::Ordering::Relaxed) < LAST {
        let mut after = LogStore::open_on_task(Arc::new(engine.crash()), None).unwrap();
        let committed = after.read_committed().await.unwrap();
        assert!(committed <= after.last_log_id(), "{committed:?} of {:?}", after.last_log_id());
        lengths.insert(after.last_log_id());
        tokio::time::sleep(SYNC / 2).await;
    }
    assert!(lengths.len() > 2, "all of it was written at once: {lengths:?}");
    let mut after = LogStore::open_on_task(Arc::new(engine.crash()), None).unwrap();
    assert_eq!(after.read_committed().await.unwrap(), Some(log_id(1, LAST)), "it comes with the entry it names");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_ahead_of_the_log_is_loss_unless_an_earlier_release_wrote_it() {
    let cases = [
        ("none", None, None, Ok(None)),
        ("of an earlier release", Some(3), None, Ok(Some(3))),
        ("of an earlier release, ahead", Some(7), None, Ok(None)),
        ("of both", Some(2), Some(3), Ok(Some(3))),
        ("of both, one ahead", Some(7), Some(4), Ok(Some(4))),
        ("ahead", None, Some(5), Err("it ends at entry 4, and 5 had been on disk")),
    ];
    for (name, old, new, expected) in cases {
        let engine = sample().await;
        let mut batch = WriteBatch::new();
        for (key, mark) in [(record::OLD_COMMITTED, old), (record::COMMITTED, new)] {
            if let Some(index) = mark {
                batch.put(Table::LogMeta, key, record::encode_mark(&log_id(1, index)));
            }
        }
        engine.write(batch, Durability::Synced).unwrap();
        match (LogStore::open(engine.clone(), None), expected) {
            (Ok(mut log), Ok(index)) => {
                assert_eq!(log.read_committed().await.unwrap(), index.map(|index| log_id(1, index)), "{name}");
                log.append([Entry { log_id: log_id(2, 5), payload: EntryPayload::Blank }], IOFlushed::noop()).await.unwrap();
                log.save_committed(Some(log_id(2, 5))).await.unwrap();
                log.save_vote(&Vote::new_committed(2, 1)).await.unwrap();
                log.close();
                let mut log = LogStore::open(engine.clone(), None).unwrap();
                assert_eq!(log.read_committed().await.unwrap(), Some(log_id(2, 5)), "{name}");
                assert!(engine.view().get(Table::LogMeta, record::OLD_COMMITTED).unwrap().is_none(), "{name}: it stayed");
            }
            (Err(StoreError::Corrupt(text)), Err(part)) => assert!(text.contains(part), "{name}: {text}"),
            (result, _) => panic!("{name}: {:?}", result.map(|log| log.last_log_id())),
        }
    }
}

/// As after a snapshot from the leader. The mark is all that says why the log does not reach it.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_beyond_the_end_of_the_log_survives_a_power_cut() {
    let engine = sample().await;
    let mut log = LogStore::open(engine.clone(), None).unwrap();
    log.purge(log_id(1, 100)).await.unwrap();
    log.close();
    let log = LogStore::open(Arc::new(engine.crash()), None).unwrap();
    assert_eq!((log.purged(), log.last_log_id()), (Some(log_id(1, 100)), Some(log_id(1, 100))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_snapshot_does_not_hide_that_a_received_one_reaches_beyond_the_log() {
    async fn apply(machine: &mut Machine, index: u64) {
        let entry = Entry { log_id: log_id(1, index), payload: EntryPayload::Blank };
        machine.apply(futures::stream::iter([Ok((entry, None))])).await.unwrap();
    }
    let folder = TempDir::new().unwrap();
    let (_log, mut machine, shared) = open_parts(folder.path(), Arc::new(MemoryEngines::new())).unwrap();
    apply(&mut machine, 7).await;
    let own = machine.build().unwrap().snapshot;
    assert_eq!(shared.received_last().unwrap(), None);

    let path = folder.path().join("received");
    std::fs::create_dir_all(path.join("data")).unwrap();
    for file in &own.manifest().files {
        std::fs::copy(own.data().join(&file.path), path.join("data").join(&file.path)).unwrap();
    }
    machine.adopt(SnapshotDir::seal_received(&path, own.manifest().clone()).unwrap()).unwrap();
    assert_eq!(shared.received_last().unwrap(), Some(log_id(1, 7)));
    machine.build().unwrap();
    assert_eq!(shared.received_last().unwrap(), Some(log_id(1, 7)), "the own one reaches no further");
    apply(&mut machine, 8).await;
    machine.build().unwrap();
    assert_eq!((shared.received_last().unwrap(), shared.snapshot_last().unwrap()), (None, Some(log_id(1, 8))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_power_cut() {
    let engine = sample().await;
    let log = LogStore::open(Arc::new(engine.crash()), None).unwrap();
    assert_eq!(log.last_log_id(), Some(log_id(1, 4)));
    assert!(!log.is_pristine());
}

/// RocksDB aborts a process that ends while one of its databases is still in use.
#[tokio::test(flavor = "multi_thread")]
async fn the_engine_is_free_when_the_last_handle_is_dropped() {
    let engine = sample().await;
    for _ in 0..100 {
        let log = LogStore::open(engine.clone(), None).unwrap();
        let other = log.clone();
        drop(log);
        assert!(other.shared.index.read().vote.is_some());
        drop(other);
        assert_eq!(Arc::strong_count(&engine), 1, "the writer still holds the engine");
    }
}
