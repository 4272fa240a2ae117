//! Engines that note what was synced when, can fail a sync, and can lose power.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

    pub fn crash(&self) {
        self.inner.crash();
    }
}

impl Engines for RecordingEngines {
    fn open_log(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(Arc::new(RecordingLog { inner: self.inner.open_log(directory)?, journal: self.journal.clone() }))
    }

    fn open_state(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        self.inner.open_state(directory)
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
        self.inner.write(batch.clone(), durability)?;
        if synced {
            self.journal.synced.lock().push(batch);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }

    fn checkpoint(&self, directory: &Path) -> Result<(), StoreError> {
        self.inner.checkpoint(directory)
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
}
