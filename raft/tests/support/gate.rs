//! Engines whose log can be held up: that of one member completely, or that of every member by a delay.

#![allow(dead_code)]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use trireme_raft::engine::{Durability, Engine, Read, Table, WriteBatch};
use trireme_raft::{Engines, StoreError};

/// All members' disks.
pub struct Gates {
    inner: Arc<dyn Engines>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    shut: HashSet<PathBuf>,
    delay: Duration,
}

struct GatedLog {
    inner: Arc<dyn Engine>,
    folder: PathBuf,
    state: Arc<State>,
}

impl Gates {
    pub fn new(inner: Arc<dyn Engines>) -> Gates {
        Gates { inner, state: Arc::default() }
    }

    /// Synced writes below `folder` wait until [`Gates::open`].
    pub fn shut(&self, folder: &Path) {
        self.state.held.lock().shut.insert(folder.to_owned());
    }

    pub fn open(&self, folder: &Path) {
        self.state.held.lock().shut.remove(folder);
        self.state.changed.notify_all();
    }

    /// Every synced write takes this much longer.
    pub fn delay(&self, delay: Duration) {
        self.state.held.lock().delay = delay;
    }
}

impl Engines for Gates {
    fn open_log(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        let inner = self.inner.open_log(directory)?;
        Ok(Arc::new(GatedLog { inner, folder: directory.to_owned(), state: self.state.clone() }))
    }

    fn open_state(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        self.inner.open_state(directory)
    }

    fn watch_ring_bytes(&self) -> usize {
        self.inner.watch_ring_bytes()
    }

    fn restore_state(&self, checkpoint: &Path, directory: &Path) -> Result<(), StoreError> {
        self.inner.restore_state(checkpoint, directory)
    }
}

impl Engine for GatedLog {
    fn view(&self) -> Box<dyn Read + '_> {
        self.inner.view()
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        if durability == Durability::Synced {
            let mut held = self.state.held.lock();
            let delay = held.delay;
            while held.shut.iter().any(|folder| self.folder.starts_with(folder)) {
                self.state.changed.wait(&mut held);
            }
            drop(held);
            std::thread::sleep(delay);
        }
        self.inner.write(batch, durability)
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
