//! What the kubelet counts about itself, under upstream's names: `kubelet_*` on `/metrics`, `prober_*` on `/metrics/probes`.
//!
//! Answers to <https://kubernetes.io/docs/reference/instrumentation/metrics/>.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, exponential_buckets};
use trireme_client::metrics::register;

const VALID: &str = "invariant: static names are valid";
/// Upstream's buckets of pod starts: images may take minutes to pull.
const START_BUCKETS: [f64; 17] = [0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 300.0, 600.0];

/// All of them; lives as long as the kubelet.
pub(crate) struct Metrics {
    /// What `/metrics` shows besides what is looked up.
    pub(crate) registry: Registry,
    /// What `/metrics/probes` shows.
    pub(crate) probes_registry: Registry,
    started_pods: IntCounter,
    started_pods_errors: IntCounterVec,
    started_containers: IntCounterVec,
    started_containers_errors: IntCounterVec,
    pod_start: Histogram,
    worker: HistogramVec,
    probes: IntCounterVec,
    probe_duration: HistogramVec,
    evictions: IntCounterVec,
    images_collected: IntCounterVec,
}

/// Names one probe of one container: its type, the container, the pod, the namespace and the pod's UID.
pub(crate) type ProbeLabels = [String; 5];

impl Metrics {
    /// Everything registered; the runtime's calls are counted by the runtime's handle.
    pub(crate) fn new(operations: &Operations) -> Self {
        let counter = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels).expect(VALID);
        let histogram = |name: &str, help: &str, buckets: &[f64]| HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let default = prometheus::DEFAULT_BUCKETS;
        let metrics = Self {
            registry: Registry::new(),
            probes_registry: Registry::new(),
            started_pods: IntCounter::new("kubelet_started_pods_total", "Cumulative number of pods started").expect(VALID),
            started_pods_errors: counter("kubelet_started_pods_errors_total", "Cumulative number of errors when starting pods", &["code"]),
            started_containers: counter("kubelet_started_containers_total", "Cumulative number of containers started", &["container_type"]),
            started_containers_errors: counter(
                "kubelet_started_containers_errors_total",
                "Cumulative number of errors when starting containers",
                &["code", "container_type"],
            ),
            pod_start: Histogram::with_opts(histogram(
                "kubelet_pod_start_duration_seconds",
                "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
                &START_BUCKETS,
            ))
            .expect(VALID),
            worker: HistogramVec::new(
                histogram(
                    "kubelet_pod_worker_duration_seconds",
                    "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
                    default,
                ),
                &["operation_type"],
            )
            .expect(VALID),
            probes: counter(
                "prober_probe_total",
                "Cumulative number of a liveness, readiness or startup probe for a container by result.",
                &["probe_type", "container", "pod", "namespace", "pod_uid", "result"],
            ),
            evictions: counter("kubelet_evictions", "Cumulative number of pod evictions by eviction signal", &["eviction_signal"]),
            images_collected: counter(
                "kubelet_image_garbage_collected_total",
                "Total number of images garbage collected by the kubelet, whether through disk usage or image age.",
                &["reason"],
            ),
            probe_duration: HistogramVec::new(
                histogram("prober_probe_duration_seconds", "Duration in seconds for a probe response.", default),
                &["probe_type", "container", "pod", "namespace"],
            )
            .expect(VALID),
        };
        register(&metrics.registry, metrics.evictions.clone());
        register(&metrics.registry, metrics.images_collected.clone());
        register(&metrics.registry, metrics.started_pods.clone());
        register(&metrics.registry, metrics.started_pods_errors.clone());
        register(&metrics.registry, metrics.started_containers.clone());
        register(&metrics.registry, metrics.started_containers_errors.clone());
        register(&metrics.registry, metrics.pod_start.clone());
        register(&metrics.registry, metrics.worker.clone());
        register(&metrics.registry, operations.total.clone());
        register(&metrics.registry, operations.errors.clone());
        register(&metrics.registry, operations.durations.clone());
        register(&metrics.probes_registry, metrics.probes.clone());
        register(&metrics.probes_registry, metrics.probe_duration.clone());
        metrics
    }

    /// A pod's sandbox is made, or was not, with the runtime's code.
    pub(crate) fn sandbox(&self, refused: Option<&str>) {
        self.started_pods.inc();
        if let Some(code) = refused {
            self.started_pods_errors.with_label_values(&[code]).inc();
        }
    }

    /// A container was started, or was not, with the reason that its status gives.
    pub(crate) fn container(&self, kind: &str, refused: Option<&str>) {
        self.started_containers.with_label_values(&[kind]).inc();
        if let Some(code) = refused {
            self.started_containers_errors.with_label_values(&[code, kind]).inc();
        }
    }

    /// A pod is evicted for this signal.
    pub(crate) fn evicted(&self, signal: &str) {
        self.evictions.with_label_values(&[signal]).inc();
    }

    /// An unused image was removed.
    pub(crate) fn image_collected(&self, reason: &str) {
        self.images_collected.with_label_values(&[reason]).inc();
    }

    /// A pod runs, so long after it was first seen.
    pub(crate) fn pod_runs(&self, after: Duration) {
        self.pod_start.observe(after.as_secs_f64());
    }

    /// One round of a pod's worker.
    pub(crate) fn synced(&self, operation: &str, took: Duration) {
        self.worker.with_label_values(&[operation]).observe(took.as_secs_f64());
    }

    /// One attempt of a probe.
    pub(crate) fn probed(&self, probe: &ProbeLabels, result: &str, took: Duration) {
        let [kind, container, pod, namespace, uid] = probe;
        self.probes.with_label_values(&[kind, container, pod, namespace, uid, &result.to_owned()]).inc();
        self.probe_duration.with_label_values(&[kind, container, pod, namespace]).observe(took.as_secs_f64());
    }

    /// Removes the series of a probe that has ended; otherwise the series of every pod that ever ran here would accumulate.
    pub(crate) fn forget_probe(&self, probe: &ProbeLabels) {
        let [kind, container, pod, namespace, uid] = probe;
        for result in ["successful", "failed", "unknown"] {
            let _ = self.probes.remove_label_values(&[kind, container, pod, namespace, uid, &result.to_owned()]);
        }
        let _ = self.probe_duration.remove_label_values(&[kind, container, pod, namespace]);
    }
}

/// Calls to the container runtime, by operation.
#[derive(Clone)]
pub(crate) struct Operations {
    total: IntCounterVec,
    errors: IntCounterVec,
    durations: HistogramVec,
}

impl Operations {
    pub(crate) fn new() -> Self {
        let counter = |name, help| IntCounterVec::new(Opts::new(name, help), &["operation_type"]).expect(VALID);
        let buckets = exponential_buckets(0.005, 2.5, 14).expect("invariant: a positive start and a factor above one");
        let durations = HistogramOpts::new(
            "kubelet_runtime_operations_duration_seconds",
            "Duration in seconds of runtime operations. Broken down by operation type.",
        );
        Self {
            total: counter("kubelet_runtime_operations_total", "Cumulative number of runtime operations by operation type."),
            errors: counter("kubelet_runtime_operations_errors_total", "Cumulative number of runtime operation errors by operation type."),
            durations: HistogramVec::new(durations.buckets(buckets), &["operation_type"]).expect(VALID),
        }
    }

    /// A CRI call ended.
    pub(crate) fn observe(&self, call: &str, well: bool, took: Duration) {
        let operation = operation_type(call);
        let labels = [operation.as_str()];
        self.total.with_label_values(&labels).inc();
        self.durations.with_label_values(&labels).observe(took.as_secs_f64());
        if !well {
            self.errors.with_label_values(&labels).inc();
        }
    }
}

/// Upstream's name of a CRI call: `RunPodSandbox` is `run_podsandbox`.
fn operation_type(call: &str) -> String {
    let mut name = String::with_capacity(call.len() + 4);
    for letter in call.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name.replace("pod_sandbox", "podsandbox")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_upstreams_names() {
        for (call, name) in [
            ("RunPodSandbox", "run_podsandbox"),
            ("PodSandboxStatus", "podsandbox_status"),
            ("ListContainerStats", "list_container_stats"),
            ("ExecSync", "exec_sync"),
        ] {
            assert_eq!(operation_type(call), name);
        }
    }

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let metrics = Metrics::new(&Operations::new());
        let probe = ["Liveness", "c", "p", "ns", "uid"].map(str::to_owned);
        metrics.probed(&probe, "successful", Duration::from_millis(7));
        metrics.probed(&probe, "failed", Duration::from_millis(7));
        let shown = || String::from_utf8(trireme_client::metrics::render(&metrics.probes_registry)).unwrap();
        let line =
            "prober_probe_total{container=\"c\",namespace=\"ns\",pod=\"p\",pod_uid=\"uid\",probe_type=\"Liveness\",result=\"failed\"} 1";
        assert!(shown().contains(line), "{}", shown());
        metrics.forget_probe(&probe);
        assert_eq!(shown(), "");
    }
}
