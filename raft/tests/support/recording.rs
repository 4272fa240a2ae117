//! Engines that note what was synced when, can fail a sync, and can lose power.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use trireme_proto::store::Vote;
use trireme_raft::engine::{Durability, Engine, Read, Table, Write, WriteBatch};
use trireme_raft::{Engines, MemoryEngines, StoreError};

/// One member's disk.
#[derive(Default)]
pub struct RecordingEngines {
    inner: MemoryEngines,
    journal: Arc<Journal>,
}

#[derive(Default)]
struct Journal {
    synced: Mutex<Vec<WriteBatch>>,
    fail_next_sync: AtomicBool,
    fail_next_state_write: AtomicBool,
    sync_delay_ms: AtomicU64,
}

struct RecordingState {
    inner: Arc<dyn Engine>,
    journal: Arc<Journal>,
}

struct RecordingLog {
    inner: Arc<dyn Engine>,
    journal: Arc<Journal>,
}

impl RecordingEngines {
    /// Whether an entry with these bytes in it has been synced.
    pub fn synced_entry_with(&self, bytes: &[u8]) -> bool {
        self.any(Table::Entry, |value| value.windows(bytes.len()).any(|window| window == bytes))
    }

    /// Whether this vote has been synced.
    pub fn synced_vote(&self, term: u64, node_id: u64) -> bool {
        self.any(Table::LogMeta, |value| Vote::decode(value).is_ok_and(|vote| (vote.term, vote.node_id) == (term, node_id)))
    }

    fn any(&self, table: Table, matches: impl Fn(&[u8]) -> bool) -> bool {
        let synced = self.journal.synced.lock();
        synced.iter().flat_map(WriteBatch::writes).any(|write| match write {
            Write::Put(key, value) => key[0] == table as u8 && matches(value),
            _ => false,
        })
    }

    pub fn fail_next_sync(&self) {
        self.journal.fail_next_sync.store(true, Ordering::SeqCst);
    }

    pub fn fail_next_state_write(&self) {
        self.journal.fail_next_state_write.store(true, Ordering::SeqCst);
    }

    /// From now on each sync of the log takes this much longer.
    pub fn delay_syncs(&self, by_ms: u64) {
        self.journal.sync_delay_ms.store(by_ms, Ordering::SeqCst);
    }

    /// The engine of a folder, to change something behind the store's back.
    pub fn behind_the_back(&self, directory: &Path) -> Arc<dyn Engine> {
        self.inner.engine(directory)
    }

    pub fn crash(&self) {
        self.inner.crash();
    }
}

impl Engines for RecordingEngines {
    fn open_log(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(Arc::new(RecordingLog { inner: self.inner.open_log(directory)?, journal: self.journal.clone() }))
    }

    fn open_state(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(Arc::new(RecordingState { inner: self.inner.open_state(directory)?, journal: self.journal.clone() }))
    }

    fn watch_ring_bytes(&self) -> usize {
        self.inner.watch_ring_bytes()
    }

    fn restore_state(&self, checkpoint: &Path, directory: &Path) -> Result<(), StoreError> {
        self.inner.restore_state(checkpoint, directory)
    }
}

impl Engine for RecordingLog {
    fn view(&self) -> Box<dyn Read + '_> {
        self.inner.view()
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        let synced = durability == Durability::Synced;
        if synced && self.journal.fail_next_sync.swap(false, Ordering::SeqCst) {
            return Err(StoreError::Io("injected: the disk failed".into()));
        }
        if synced {
            std::thread::sleep(Duration::from_millis(self.journal.sync_delay_ms.load(Ordering::SeqCst)));
        }
        self.inner.write(batch.clone(), durability)?;
        if synced {
            self.journal.synced.lock().push(batch);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }

    fn checkpoint(&self, directory: &Path, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.checkpoint(directory, table, key)
    }

    fn sync_delay(&self) -> Duration {
        self.inner.sync_delay()
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.inner.reclaim()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn live_bytes(&self) -> u64 {
        self.inner.live_bytes()
    }
}

impl Engine for RecordingState {
    fn view(&self) -> Box<dyn Read + '_> {
        self.inner.view()
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        match self.journal.fail_next_state_write.swap(false, Ordering::SeqCst) {
            true => Err(StoreError::Io("injected: the disk failed".into())),
            false => self.inner.write(batch, durability),
        }
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }

    fn checkpoint(&self, directory: &Path, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.checkpoint(directory, table, key)
    }

    fn sync_delay(&self) -> Duration {
        self.inner.sync_delay()
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.inner.reclaim()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn live_bytes(&self) -> u64 {
        self.inner.live_bytes()
    }
}
