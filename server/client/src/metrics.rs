//! What the parts of a process count about themselves, under upstream's names.
//!
//! Owns: the registry of one component ([`ComponentMetrics`]) with what every component has (work queues, requests to the API
//! server, leadership), and the numbers of the process itself ([`ProcessCollector`]), which are exposed at one endpoint only.
//! What only one component counts is registered by that component.
//!
//! Must not: run anything between scrapes. Counters are incremented as events happen; all other values are read on each scrape.
//!
//! Answers to: <https://kubernetes.io/docs/reference/instrumentation/metrics/>.

mod process;
mod queues;
mod requests;

use std::sync::Arc;

use prometheus::{Encoder, IntGaugeVec, Opts, TextEncoder};

pub use process::ProcessCollector;
pub use prometheus::Registry;
pub use queues::QueueMetrics;
pub(crate) use queues::{Observation, Observed, QueueSeries};
pub use requests::CountedTransport;

/// The metrics of one component. Cheap to clone.
#[derive(Clone)]
pub struct ComponentMetrics {
    registry: Registry,
    queues: Arc<QueueMetrics>,
    leading: IntGaugeVec,
}

impl Default for ComponentMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ComponentMetrics {
    /// An empty registry, and what every component has.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let queues = Arc::new(QueueMetrics::new());
        register(&registry, queues.as_ref().clone());
        let leading = IntGaugeVec::new(
            Opts::new(
                "leader_election_master_status",
                "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master.",
            ),
            &["name"],
        )
        .expect("invariant: static names are valid");
        register(&registry, leading.clone());
        Self { registry, queues, leading }
    }

    /// Where the component registers what only it counts.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Of its work queues.
    #[must_use]
    pub fn queues(&self) -> &Arc<QueueMetrics> {
        &self.queues
    }

    /// Whether it leads, under the name of its Lease.
    pub fn set_leading(&self, name: &str, leads: bool) {
        self.leading.with_label_values(&[name]).set(i64::from(leads));
    }

    /// The exposition text.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        render(&self.registry)
    }
}

/// Registers a family or a collector whose names are static and its own.
pub fn register(registry: &Registry, collector: impl prometheus::core::Collector + 'static) {
    registry.register(Box::new(collector)).expect("invariant: every family is registered once, under a valid name");
}

/// The exposition text of a registry.
#[must_use]
pub fn render(registry: &Registry) -> Vec<u8> {
    let mut out = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut out) {
        tracing::error!(%error, "metrics cannot be encoded");
    }
    out
}
