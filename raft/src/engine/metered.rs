//! Engines whose writes are timed: the log's syncs and the state's commits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Durability, Engine, Read, WriteBatch};
use crate::StoreError;
use crate::metrics::{Histogram, StoreMetrics};
use crate::store::options::Engines;

/// [`Engines`] that time what they open.
pub(crate) struct MeteredEngines {
    inner: Arc<dyn Engines>,
    metrics: Arc<StoreMetrics>,
}

#[derive(Clone, Copy)]
enum Kind {
    Log,
    State,
}

struct MeteredEngine {
    inner: Arc<dyn Engine>,
    metrics: Arc<StoreMetrics>,
    kind: Kind,
}

// === impl MeteredEngines ===

impl MeteredEngines {
    pub(crate) fn new(inner: Arc<dyn Engines>, metrics: Arc<StoreMetrics>) -> MeteredEngines {
        MeteredEngines { inner, metrics }
    }

    fn metered(&self, inner: Arc<dyn Engine>, kind: Kind) -> Arc<dyn Engine> {
        Arc::new(MeteredEngine { inner, metrics: self.metrics.clone(), kind })
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

    fn checkpoint(&self, directory: &Path) -> Result<(), StoreError> {
        self.inner.checkpoint(directory)
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
