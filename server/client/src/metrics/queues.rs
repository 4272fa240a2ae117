//! Work queues, as client-go counts them: `workqueue_*`, one series for each queue's name.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, exponential_buckets};

/// What a queue is like at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observation {
    pub(crate) depth: usize,
    /// The time that all keys being worked on have taken so far, together and the longest.
    pub(crate) unfinished_secs: f64,
    pub(crate) longest_secs: f64,
}

/// A queue that can be looked at.
pub(crate) trait Observed: Send + Sync {
    fn observe(&self) -> Observation;
}

/// What one queue counts by itself.
pub(crate) struct QueueSeries {
    pub(crate) adds: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) waited: Histogram,
    pub(crate) worked: Histogram,
}

/// The families of all queues of a component.
#[derive(Clone)]
pub struct QueueMetrics {
    adds: IntCounterVec,
    retries: IntCounterVec,
    waited: HistogramVec,
    worked: HistogramVec,
    depth: IntGaugeVec,
    unfinished: GaugeVec,
    longest: GaugeVec,
    /// Queues end with a leadership; their series stay, at nothing.
    queues: Arc<Mutex<Vec<Named>>>,
}

type Named = (&'static str, Weak<dyn Observed>);

impl QueueMetrics {
    pub(crate) fn new() -> Self {
        let valid = "invariant: static names are valid";
        let name = ["name"];
        let counter = |metric, help| IntCounterVec::new(Opts::new(metric, help), &name).expect(valid);
        let gauge = |metric, help| GaugeVec::new(Opts::new(metric, help), &name).expect(valid);
        let histogram = |metric, help| {
            let buckets = exponential_buckets(1e-8, 10.0, 12).expect("invariant: a positive start and a factor above one");
            HistogramVec::new(HistogramOpts::new(metric, help).buckets(buckets), &name).expect(valid)
        };
        Self {
            adds: counter("workqueue_adds_total", "Total number of adds handled by workqueue"),
            retries: counter("workqueue_retries_total", "Total number of retries handled by workqueue"),
            waited: histogram("workqueue_queue_duration_seconds", "How long in seconds an item stays in workqueue before being requested."),
            worked: histogram("workqueue_work_duration_seconds", "How long in seconds processing an item from workqueue takes."),
            depth: IntGaugeVec::new(Opts::new("workqueue_depth", "Current depth of workqueue"), &name).expect(valid),
            unfinished: gauge(
                "workqueue_unfinished_work_seconds",
                "How many seconds of work has done that is in progress and hasn't been observed by work_duration. Large values indicate stuck threads.",
            ),
            longest: gauge(
                "workqueue_longest_running_processor_seconds",
                "How many seconds has the longest running processor for workqueue been running.",
            ),
            queues: Arc::default(),
        }
    }

    /// The series of the queue of this name, which is looked at from now on.
    pub(crate) fn watch(&self, name: &'static str, queue: Weak<dyn Observed>) {
        let mut queues = self.queues.lock();
        queues.retain(|(known, old)| *known != name || old.strong_count() > 0);
        queues.push((name, queue));
    }

    pub(crate) fn series(&self, name: &'static str) -> QueueSeries {
        QueueSeries {
            adds: self.adds.with_label_values(&[name]),
            retries: self.retries.with_label_values(&[name]),
            waited: self.waited.with_label_values(&[name]),
            worked: self.worked.with_label_values(&[name]),
        }
    }

    fn look(&self) {
        // Collected first: a queue is not looked at while the list is locked.
        let queues: Vec<(&'static str, Option<Arc<dyn Observed>>)> =
            self.queues.lock().iter().map(|(name, queue)| (*name, queue.upgrade())).collect();
        for (name, queue) in queues {
            let seen = queue.map(|queue| queue.observe()).unwrap_or_default();
            self.depth.with_label_values(&[name]).set(i64::try_from(seen.depth).unwrap_or(i64::MAX));
            self.unfinished.with_label_values(&[name]).set(seen.unfinished_secs);
            self.longest.with_label_values(&[name]).set(seen.longest_secs);
        }
    }

    fn families(&self) -> [&dyn Collector; 7] {
        [&self.adds, &self.retries, &self.waited, &self.worked, &self.depth, &self.unfinished, &self.longest]
    }
}

impl Collector for QueueMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.families().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.look();
        self.families().into_iter().flat_map(Collector::collect).collect()
    }
}
