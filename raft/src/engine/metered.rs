//! Engines that are counted while they are open, and whose writes are timed: the log's syncs and the state's commits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Durability, Engine, Read, Table, WriteBatch};
use crate::StoreError;
use crate::metrics::{Histogram, StoreMetrics};
use crate::store::options::Engines;

/// [`Engines`] that count and time what they open.
pub(crate) struct MeteredEngines {
    inner: Arc<dyn Engines>,
    metrics: Arc<StoreMetrics>,
    open: Arc<watch::Sender<usize>>,
}

/// Counts an engine for as long as it lives.
struct Opened(Arc<watch::Sender<usize>>);

#[derive(Clone, Copy)]
enum Kind {
    Log,
    State,
}

struct MeteredEngine {
    inner: Arc<dyn Engine>,
    metrics: Arc<StoreMetrics>,
    kind: Kind,
    /// Fields are dropped in their order: the engine is closed before it is counted as closed.
    _opened: Opened,
}

// === impl MeteredEngines ===

impl MeteredEngines {
    pub(crate) fn new(inner: Arc<dyn Engines>, metrics: Arc<StoreMetrics>) -> MeteredEngines {
        MeteredEngines { inner, metrics, open: Arc::new(watch::Sender::new(0)) }
    }

    /// How many engines are open.
    pub(crate) fn open_count(&self) -> watch::Receiver<usize> {
        self.open.subscribe()
    }

    fn metered(&self, inner: Arc<dyn Engine>, kind: Kind) -> Arc<dyn Engine> {
        Arc::new(MeteredEngine { inner, metrics: self.metrics.clone(), kind, _opened: Opened::new(self.open.clone()) })
    }
}

impl Engines for MeteredEngines {
    fn open_log(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(self.metered(self.inner.open_log(directory)?, Kind::Log))
    }

    fn open_state(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(self.metered(self.inner.open_state(directory)?, Kind::State))
    }

    fn restore_state(&self, checkpoint: &Path, directory: &Path) -> Result<(), StoreError> {
        self.inner.restore_state(checkpoint, directory)
    }

    fn watch_ring_bytes(&self) -> usize {
        self.inner.watch_ring_bytes()
    }
}

// === impl Opened ===

impl Opened {
    fn new(count: Arc<watch::Sender<usize>>) -> Opened {
        count.send_modify(|open| *open += 1);
        Opened(count)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

// === impl MeteredEngine ===

impl MeteredEngine {
    fn histogram(&self, durability: Durability) -> Option<&Histogram> {
        match (self.kind, durability) {
            (Kind::Log, Durability::Synced) => Some(&self.metrics.log_sync),
            (Kind::Log, Durability::Buffered | Durability::Prompt) => None,
            (Kind::State, _) => Some(&self.metrics.state_commit),
        }
    }
}

impl Engine for MeteredEngine {
    fn view(&self) -> Box<dyn Read + '_> {
        self.inner.view()
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        let Some(histogram) = self.histogram(durability) else { return self.inner.write(batch, durability) };
        let began = Instant::now();
        let written = self.inner.write(batch, durability);
        histogram.observe(began.elapsed());
        written
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
