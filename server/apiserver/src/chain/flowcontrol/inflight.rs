//! Fixed limits on requests in flight, by kind of request.

use std::sync::Arc;

use prometheus::{IntGauge, IntGaugeVec};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many watches and tunnels there may be. Each costs some kilobytes.
const LONG_RUNNING_MAX: usize = 10_000;
/// The same for nodes: ten for each of five thousand.
const NODE_LONG_RUNNING_MAX: usize = 50_000;

/// A kind of request that has places of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Short requests that change nothing.
    ReadOnly,
    /// Short requests that change something.
    Mutating,
    /// Watches, logs that are followed, tunnels.
    LongRunning,
    /// The same, of nodes: their places are reserved.
    NodeLongRunning,
}

/// All places.
pub struct InFlight {
    read_only: Arc<Semaphore>,
    mutating: Arc<Semaphore>,
    long_running: Arc<Semaphore>,
    node_long_running: Arc<Semaphore>,
    gauge: IntGaugeVec,
}

/// A taken place; dropping it frees it.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    gauge: IntGauge,
}

impl InFlight {
    /// Limits the number of concurrent short requests; `gauge` shows those in flight by `request_kind`.
    pub fn new(read_only: usize, mutating: usize, gauge: IntGaugeVec) -> InFlight {
        InFlight {
            read_only: Arc::new(Semaphore::new(read_only)),
            mutating: Arc::new(Semaphore::new(mutating)),
            long_running: Arc::new(Semaphore::new(LONG_RUNNING_MAX)),
            node_long_running: Arc::new(Semaphore::new(NODE_LONG_RUNNING_MAX)),
            gauge,
        }
    }

    /// A place, if one is free.
    pub fn try_place(&self, pool: Pool) -> Option<Place> {
        let (places, kind) = match pool {
            Pool::ReadOnly => (&self.read_only, "readOnly"),
            Pool::Mutating => (&self.mutating, "mutating"),
            Pool::LongRunning => (&self.long_running, "longRunning"),
            Pool::NodeLongRunning => (&self.node_long_running, "longRunning"),
        };
        let permit = places.clone().try_acquire_owned().ok()?;
        let gauge = self.gauge.with_label_values(&[kind]);
        gauge.inc();
        Some(Place { _permit: permit, gauge })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
