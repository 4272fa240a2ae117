//! The scheduler: gives each pod a node.
//!
//! Owns the binding of pods whose `spec.schedulerName` is ours, their `PodScheduled` condition and `nominatedNodeName`, the
//! `Scheduled`, `FailedScheduling` and `Preempted` events, the deletion of pods that have to leave a node to more
//! important ones, and the choice of volume or node for claims that wait for their first pod. Must not: change anything else, or place a pod that another scheduler owns.
//!
//! Shape: a pure [`queue`] (active, backing off, unschedulable), a pure decision ([`decide`]: the [`cycle`] filters, scores and
//! chooses; [`preemption`] looks for victims) over a [`cache`] of nodes that counts assumed and nominated pods, one file per
//! plugin in [`plugins`], and a thin shell ([`run`]) that binds and evicts.
//!
//! Not yet: resource claims. A pod that needs some stays pending and says why.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/>.

mod affinity;
mod cache;
mod cycle;
mod decide;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod fixtures;
mod framework;
mod informers;
mod metrics;
mod node_info;
mod nominations;
mod plugins;
mod preemption;
mod queue;
mod resources;
mod run;
#[cfg(test)]
mod tests;
mod unfit;
mod volumes;
mod world;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trireme_client::metrics::ComponentMetrics;
use trireme_client::{Client, EventRecorder, Fence};

pub use informers::SchedulerInformers;

/// Settings.
#[derive(Clone)]
pub struct SchedulerOptions {
    /// Pods with this `spec.schedulerName` are ours.
    pub scheduler_name: String,
    /// The name of the server we run on, for events.
    pub host: String,
    /// First wait of a pod that found no node.
    pub initial_backoff: Duration,
    /// Longest wait.
    pub max_backoff: Duration,
    /// A pod that nothing woke is tried again after this time.
    pub unschedulable_flush: Duration,
    /// Bindings at once.
    pub parallel_bindings: usize,
    /// A pod waits so long for its volumes on the node that was chosen for it.
    pub volume_patience: Duration,
    /// Where attempts and queues are counted.
    pub metrics: ComponentMetrics,
}

/// The Lease that names the leader.
const LEASE: &str = "kube-scheduler";

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".to_owned(),
            host: String::new(),
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            unschedulable_flush: Duration::from_secs(300),
            parallel_bindings: 64,
            volume_patience: Duration::from_secs(600),
            metrics: ComponentMetrics::new(),
        }
    }
}

/// The scheduler of one server: its informers are warm all the time, it works only while leading.
pub struct Scheduler {
    client: Client,
    informers: SchedulerInformers,
    options: SchedulerOptions,
    metrics: metrics::Metrics,
}

impl Scheduler {
    /// A scheduler that speaks through `client` (as `system:kube-scheduler`).
    #[must_use]
    pub fn new(client: Client, informers: SchedulerInformers, options: SchedulerOptions) -> Arc<Self> {
        options.metrics.set_leading(LEASE, false);
        let metrics = metrics::Metrics::new(options.metrics.registry(), &options.scheduler_name);
        Arc::new(Self { client, informers, options, metrics })
    }

    /// Works under this leadership until `cancel`; returns when nothing works any more. Starts when the informers have
    /// passed `revision`, one that the leadership's first entry produced or followed.
    pub async fn lead(&self, fence: Fence, revision: i64, cancel: CancellationToken) {
        tokio::select! {
            () = self.informers.ensure_revision(revision) => {}
            () = cancel.cancelled() => return,
        }
        tracing::info!(term = fence.term, revision, "scheduler starts");
        let client = self.client.clone().with_fence(fence).with_field_manager("kube-scheduler");
        let recorder = EventRecorder::start(client.clone(), &self.options.scheduler_name, &self.options.host, cancel.child_token());
        let holder = format!("{}_{}", self.options.host, fence.term);
        self.options.metrics.set_leading(LEASE, true);
        tokio::select! {
            () = run::run(client.clone(), recorder, self.informers.clone(), self.options.clone(), self.metrics.clone(), cancel) => {}
            () = trireme_client::publish_leader(client, LEASE, &holder) => {}
        }
        self.options.metrics.set_leading(LEASE, false);
        tracing::info!(term = fence.term, "scheduler stopped");
    }
}
