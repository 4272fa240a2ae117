//! What admission counts, under upstream's names.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, Registry};

use super::plugin::Phase;
use super::request::Operation;

/// Upstream's buckets, in seconds.
const BUCKETS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// How long plugins and phases took.
pub struct AdmissionMetrics {
    plugins: HistogramVec,
    steps: HistogramVec,
}

// === impl AdmissionMetrics ===

impl AdmissionMetrics {
    /// Nothing counted yet.
    pub fn new() -> AdmissionMetrics {
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
            HistogramVec::new(options, labels).expect("invariant: static names are valid")
        };
        AdmissionMetrics {
            plugins: histogram(
                "apiserver_admission_controller_admission_duration_seconds",
                "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
                &["name", "type", "operation", "rejected"],
            ),
            steps: histogram(
                "apiserver_admission_step_admission_duration_seconds",
                "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
                &["type", "operation", "rejected"],
            ),
        }
    }

    /// Shows them in `registry`.
    pub fn register(&self, registry: &Registry) {
        for histogram in [&self.plugins, &self.steps] {
            registry.register(Box::new(histogram.clone())).expect("invariant: registered once");
        }
    }

    /// A plugin has decided.
    pub(super) fn plugin(&self, name: &str, phase: Phase, operation: Operation, took: Duration, rejected: bool) {
        let labels = [name, phase.as_str(), operation.as_str(), text(rejected)];
        self.plugins.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// A phase is over.
    pub(super) fn step(&self, phase: Phase, operation: Operation, took: Duration, rejected: bool) {
        self.steps.with_label_values(&[phase.as_str(), operation.as_str(), text(rejected)]).observe(took.as_secs_f64());
    }
}

impl Default for AdmissionMetrics {
    fn default() -> AdmissionMetrics {
        AdmissionMetrics::new()
    }
}

fn text(flag: bool) -> &'static str {
    if flag { "true" } else { "false" }
}
