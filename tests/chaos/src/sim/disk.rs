//! A host's disk: it keeps everything that was synced, and a random prefix of what was not. Syncs can be slow, fail, or find no space.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use trireme_raft::engine::memory::MemoryEngine;
use trireme_raft::engine::{Durability, Engine, Read, Table, WriteBatch};
use trireme_raft::{Engines, StoreError};

/// What a sync takes on a good day.
const SYNC_MS: u64 = 2;

/// All engines of one host. Survives the host's programs.
pub struct SimDisk {
    engines: Mutex<BTreeMap<PathBuf, Arc<SimEngine>>>,
    sync_ms: Arc<AtomicU64>,
    fail_next_sync: Arc<AtomicBool>,
    watch_ring_bytes: usize,
}

struct SimEngine {
    live: MemoryEngine,
    /// Written since the last sync, in order.
    unsynced: Mutex<Vec<WriteBatch>>,
    sync_ms: Arc<AtomicU64>,
    fail_next_sync: Arc<AtomicBool>,
    /// Whether a sync may be made to fail here: the log.
    is_log: bool,
}

// === impl SimDisk ===

impl SimDisk {
    /// An empty disk, and how much memory watches have on its host.
    #[must_use]
    pub fn new(watch_ring_bytes: usize) -> Arc<SimDisk> {
        Arc::new(SimDisk {
            engines: Mutex::default(),
            sync_ms: Arc::new(AtomicU64::new(SYNC_MS)),
            fail_next_sync: Arc::default(),
            watch_ring_bytes,
        })
    }

    /// Makes every sync take so long; 0 for the usual time.
    pub fn slow_down(&self, ms: u64) {
        self.sync_ms.store(if ms == 0 { SYNC_MS } else { ms }, Ordering::Relaxed);
    }

    /// The next sync of the log fails.
    pub fn fail_next_sync(&self) {
        self.fail_next_sync.store(true, Ordering::Relaxed);
    }

    /// Power is lost: of what was not synced, each engine keeps the first few writes, whole.
    pub fn lose_power(&self, rng: &mut StdRng) {
        for engine in self.engines.lock().values_mut() {
            let unsynced = std::mem::take(&mut *engine.unsynced.lock());
            // Often nothing, often all: the ends are where the bugs are.
            let kept = match rng.random_range(0..3) {
                0 => 0,
                1 => unsynced.len(),
                _ => rng.random_range(0..=unsynced.len()),
            };
            let live = engine.live.crash();
            for batch in unsynced.into_iter().take(kept) {
                // A memory engine does not fail.
                let _ = live.write(batch, Durability::Buffered);
            }
            let _ = live.flush();
            *engine = Arc::new(self.engine(live, engine.is_log));
        }
        self.fail_next_sync.store(false, Ordering::Relaxed);
    }

    /// A disk put in place of this one: all is gone.
    pub fn replace(&self) {
        self.engines.lock().clear();
    }

    fn engine(&self, live: MemoryEngine, is_log: bool) -> SimEngine {
        let (sync_ms, fail_next_sync) = (self.sync_ms.clone(), self.fail_next_sync.clone());
        SimEngine { live, unsynced: Mutex::default(), sync_ms, fail_next_sync, is_log }
    }

    fn open(&self, directory: &Path, is_log: bool) -> Arc<dyn Engine> {
        let mut engines = self.engines.lock();
        engines.entry(directory.to_owned()).or_insert_with(|| Arc::new(self.engine(MemoryEngine::new(), is_log))).clone()
    }
}

impl Engines for SimDisk {
    fn open_log(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(self.open(directory, true))
    }

    fn open_state(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(self.open(directory, false))
    }

    fn watch_ring_bytes(&self) -> usize {
        self.watch_ring_bytes
    }

    fn restore_state(&self, checkpoint: &Path, directory: &Path) -> Result<(), StoreError> {
        let engine = self.engine(MemoryEngine::open_checkpoint(checkpoint)?, false);
        self.engines.lock().insert(directory.to_owned(), Arc::new(engine));
        Ok(())
    }
}

// === impl SimEngine ===

impl Engine for SimEngine {
    fn view(&self) -> Box<dyn Read + '_> {
        self.live.view()
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        let mut unsynced = self.unsynced.lock();
        match durability {
            Durability::Synced => {
                if self.is_log && self.fail_next_sync.swap(false, Ordering::Relaxed) {
                    return Err(StoreError::Io("injected: the disk failed".into()));
                }
                unsynced.clear();
            }
            Durability::Buffered | Durability::Prompt => unsynced.push(batch.clone()),
        }
        self.live.write(batch, durability)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.unsynced.lock().clear();
        self.live.flush()
    }

    fn checkpoint(&self, directory: &Path, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.live.checkpoint(directory, table, key)
    }

    fn sync_delay(&self) -> Duration {
        Duration::from_millis(self.sync_ms.load(Ordering::Relaxed))
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.live.reclaim()
    }

    fn size_bytes(&self) -> u64 {
        self.live.size_bytes()
    }

    fn live_bytes(&self) -> u64 {
        self.live.live_bytes()
    }
}
