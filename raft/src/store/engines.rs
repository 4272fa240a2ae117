//! Which engines a store runs on: those on disk, or the doubles in memory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::options::Engines;
use crate::engine::Engine;
use crate::engine::memory::MemoryEngine;
use crate::error::StoreError;
use crate::mvcc::MvccOptions;

/// Doubles in memory, found again by their folder within this process. For tests and simulation.
#[derive(Default)]
pub struct MemoryEngines {
    engines: Mutex<HashMap<PathBuf, Arc<MemoryEngine>>>,
}

/// A write-ahead log that is synced, and a state in RocksDB that is buffered.
#[cfg(feature = "rocksdb")]
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskEngines;

// === impl MemoryEngines ===

impl MemoryEngines {
    /// No engines yet.
    #[must_use]
    pub fn new() -> MemoryEngines {
        MemoryEngines::default()
    }

    /// The engine of a folder, made where there is none.
    #[must_use]
    pub fn engine(&self, directory: &Path) -> Arc<MemoryEngine> {
        self.engines.lock().entry(directory.to_owned()).or_default().clone()
    }

    /// A power cut: every engine forgets what was not made durable.
    pub fn crash(&self) {
        self.crash_below(Path::new(""));
    }

    /// A power cut of those below a folder.
    pub fn crash_below(&self, folder: &Path) {
        for (_, engine) in self.engines.lock().iter_mut().filter(|(directory, _)| directory.starts_with(folder)) {
            *engine = Arc::new(engine.crash());
        }
    }
}

impl Engines for MemoryEngines {
    fn open_log(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(self.engine(directory))
    }

    fn open_state(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(self.engine(directory))
    }

    fn watch_ring_bytes(&self) -> usize {
        MvccOptions::default().watch_ring_bytes
    }

    fn restore_state(&self, checkpoint: &Path, directory: &Path) -> Result<(), StoreError> {
        let engine = Arc::new(MemoryEngine::open_checkpoint(checkpoint)?);
        self.engines.lock().insert(directory.to_owned(), engine);
        Ok(())
    }
}

// === impl DiskEngines ===

#[cfg(feature = "rocksdb")]
impl Engines for DiskEngines {
    fn open_log(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        use crate::engine::wal::{Wal, WalOptions};
        Ok(Arc::new(Wal::open(directory, WalOptions::default())?))
    }

    fn open_state(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        use crate::engine::rocks::{RocksEngine, RocksOptions, Role};
        Ok(Arc::new(RocksEngine::open(directory, Role::State, &RocksOptions::default())?))
    }

    fn watch_ring_bytes(&self) -> usize {
        MvccOptions::default().watch_ring_bytes
    }

    fn restore_state(&self, checkpoint: &Path, directory: &Path) -> Result<(), StoreError> {
        let failed = |error| StoreError::io(directory.display(), error);
        crate::snapshot::link_tree(checkpoint, directory).map_err(failed)?;
        directory.parent().map_or(Ok(()), crate::snapshot::sync_dir).map_err(failed)
    }
}
