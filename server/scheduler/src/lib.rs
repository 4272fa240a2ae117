//! The scheduler: gives each pod a node.
//!
//! Owns the binding of pods whose `spec.schedulerName` is ours, their `PodScheduled` condition and the `Scheduled` and
//! `FailedScheduling` events. Must not: change anything else, or look at a pod that another scheduler owns.
//!
//! Shape: a pure [`queue`] (active, backing off, unschedulable), a pure [`cycle`] (filter, score, choose) over a
//! [`cache`] of nodes that counts assumed pods, one file per plugin in [`plugins`], and a thin shell that binds.
//!
//! Not yet: preemption, volumes, resource claims. A pod that needs volumes or claims stays pending and says why.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/>.

mod cache;
mod cycle;
mod framework;
mod metrics;
mod node_info;
mod plugins;
mod queue;
mod resources;
mod run;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use tokio_util::sync::CancellationToken;
use trireme_client::metrics::ComponentMetrics;
use trireme_client::{Client, EventRecorder, Fence, Informer};

/// What a scheduler reads. Share them with the controllers of the same server.
#[derive(Clone)]
pub struct SchedulerInformers {
    /// All pods.
    pub pods: Arc<Informer<Pod>>,
    /// All nodes.
    pub nodes: Arc<Informer<Node>>,
    /// All namespaces (pod affinity can select them by label).
    pub namespaces: Arc<Informer<Namespace>>,
}

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
    /// Where attempts and queues are counted.
    pub metrics: ComponentMetrics,
}

/// The Lease that tells who leads.
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
        const PATIENCE: Duration = Duration::from_secs(1);
        let caught_up = async {
            tokio::join!(
                self.informers.pods.ensure_revision(revision, PATIENCE),
                self.informers.nodes.ensure_revision(revision, PATIENCE),
                self.informers.namespaces.ensure_revision(revision, PATIENCE),
            )
        };
        tokio::select! {
            _ = caught_up => {}
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
