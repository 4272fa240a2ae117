//! What the scheduler counts, under upstream's names.
//!
//! Decisions and bindings are counted as they happen; the number of pods in each queue is read on each scrape.
//!
//! Answers to: <https://kubernetes.io/docs/reference/instrumentation/metrics/>, `scheduler_*`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, exponential_buckets};
use trireme_client::metrics::register;

const VALID: &str = "invariant: static names are valid";

/// What is looked up in a running scheduler.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Waiting pods: ready to be tried, backing off, unschedulable, and held by gates.
    pub(crate) active: usize,
    pub(crate) backoff: usize,
    pub(crate) unschedulable: usize,
    pub(crate) gated: usize,
    /// Unschedulable pods that each plugin refused.
    pub(crate) refused_by: Vec<(&'static str, usize)>,
    /// In the cache.
    pub(crate) nodes: usize,
    pub(crate) pods: usize,
    pub(crate) assumed: usize,
}

/// A scheduler that can be looked at.
pub(crate) trait Look: Send + Sync {
    fn look(&self) -> Standing;
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Scheduled,
    Unschedulable,
    Error,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Scheduled => "scheduled",
            Outcome::Unschedulable => "unschedulable",
            Outcome::Error => "error",
        }
    }
}

/// The families. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    profile: String,
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    algorithm_duration: Histogram,
    bind_duration: HistogramVec,
    pod_attempts: Histogram,
    sli_duration: HistogramVec,
    /// Pods that came into a queue, by queue and event.
    pub(crate) incoming: IntCounterVec,
    /// How often victims were looked for.
    pub(crate) preemption_attempts: IntCounter,
    /// How many victims a preemption had.
    pub(crate) preemption_victims: Histogram,
    pending: IntGaugeVec,
    unschedulable: IntGaugeVec,
    cache: IntGaugeVec,
    /// The scheduler that works now, if this server leads.
    working: Arc<Mutex<Option<Weak<dyn Look>>>>,
}

fn options(name: &str, help: &str, start: f64, factor: f64, count: usize) -> HistogramOpts {
    HistogramOpts::new(name, help)
        .buckets(exponential_buckets(start, factor, count).expect("invariant: a positive start and a factor above one"))
}

impl Metrics {
    /// Registers everything, for the scheduler that pods name `profile`.
    pub(crate) fn new(registry: &Registry, profile: &str) -> Self {
        let counter = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels).expect(VALID);
        let gauge = |name, help, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID);
        let histogram = |options, labels: &[&str]| HistogramVec::new(options, labels).expect(VALID);
        let metrics = Self {
            profile: profile.to_owned(),
            attempts: counter(
                "scheduler_schedule_attempts_total",
                "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
                &["profile", "result"],
            ),
            attempt_duration: histogram(
                options(
                    "scheduler_scheduling_attempt_duration_seconds",
                    "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
                    0.001,
                    2.0,
                    20,
                ),
                &["profile", "result"],
            ),
            algorithm_duration: Histogram::with_opts(options(
                "scheduler_scheduling_algorithm_duration_seconds",
                "Scheduling algorithm latency in seconds",
                0.001,
                2.0,
                20,
            ))
            .expect(VALID),
            bind_duration: histogram(
                options(
                    "scheduler_framework_extension_point_duration_seconds",
                    "Latency for running all plugins of a specific extension point.",
                    0.0001,
                    2.0,
                    12,
                ),
                &["extension_point", "profile", "status"],
            ),
            pod_attempts: Histogram::with_opts(options(
                "scheduler_pod_scheduling_attempts",
                "Number of attempts to successfully schedule a pod.",
                1.0,
                2.0,
                5,
            ))
            .expect(VALID),
            sli_duration: histogram(
                options(
                    "scheduler_pod_scheduling_sli_duration_seconds",
                    "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.",
                    0.01,
                    2.0,
                    20,
                ),
                &["attempts"],
            ),
            incoming: counter(
                "scheduler_queue_incoming_pods_total",
                "Number of pods added to scheduling queues by event and queue type.",
                &["event", "queue"],
            ),
            preemption_attempts: IntCounter::new(
                "scheduler_preemption_attempts_total",
                "Total preemption attempts in the cluster till now",
            )
            .expect(VALID),
            preemption_victims: Histogram::with_opts(options(
                "scheduler_preemption_victims",
                "Number of selected preemption victims",
                1.0,
                2.0,
                7,
            ))
            .expect(VALID),
            pending: gauge(
                "scheduler_pending_pods",
                "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted to schedule and failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to schedule because they are gated.",
                &["queue"],
            ),
            unschedulable: gauge(
                "scheduler_unschedulable_pods",
                "The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all plugins that caused it to not schedule.",
                &["plugin", "profile"],
            ),
            cache: gauge("scheduler_cache_size", "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.", &["type"]),
            working: Arc::default(),
        };
        register(registry, metrics.clone());
        metrics
    }

    /// From now on this scheduler is looked at.
    pub(crate) fn watch(&self, working: Weak<dyn Look>) {
        *self.working.lock() = Some(working);
    }

    /// How long a decision took.
    pub(crate) fn decided(&self, took: Duration) {
        self.algorithm_duration.observe(took.as_secs_f64());
    }

    /// How long a binding took.
    pub(crate) fn bound(&self, well: bool, took: Duration) {
        let status = if well { "Success" } else { "Error" };
        self.bind_duration.with_label_values(&["Bind", &self.profile, status]).observe(took.as_secs_f64());
    }

    /// An attempt ended.
    pub(crate) fn attempted(&self, outcome: Outcome, took: Duration) {
        let labels = [self.profile.as_str(), outcome.as_str()];
        self.attempts.with_label_values(&labels).inc();
        self.attempt_duration.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// Records that a pod was placed, with the number of its attempts and the time since it was queued.
    pub(crate) fn placed(&self, attempts: u32, waited: Duration) {
        self.pod_attempts.observe(f64::from(attempts));
        // Upstream counts the rest as one.
        let label = if attempts < 15 { attempts.to_string() } else { "15+".to_owned() };
        self.sli_duration.with_label_values(&[label.as_str()]).observe(waited.as_secs_f64());
    }

    fn look(&self) {
        let working = self.working.lock().as_ref().and_then(Weak::upgrade);
        let seen = working.map(|working| working.look()).unwrap_or_default();
        let set = |family: &IntGaugeVec, labels: &[&str], count: usize| {
            family.with_label_values(labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        for (queue, count) in
            [("active", seen.active), ("backoff", seen.backoff), ("unschedulable", seen.unschedulable), ("gated", seen.gated)]
        {
            set(&self.pending, &[queue], count);
        }
        for (kind, count) in [("nodes", seen.nodes), ("pods", seen.pods), ("assumed_pods", seen.assumed)] {
            set(&self.cache, &[kind], count);
        }
        self.unschedulable.reset();
        for (plugin, count) in seen.refused_by {
            set(&self.unschedulable, &[plugin, &self.profile], count);
        }
    }

    fn families(&self) -> [&dyn Collector; 12] {
        [
            &self.attempts,
            &self.attempt_duration,
            &self.algorithm_duration,
            &self.bind_duration,
            &self.pod_attempts,
            &self.sli_duration,
            &self.incoming,
            &self.preemption_attempts,
            &self.preemption_victims,
            &self.pending,
            &self.unschedulable,
            &self.cache,
        ]
    }
}

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        self.families().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.look();
        self.families().into_iter().flat_map(Collector::collect).collect()
    }
}
