//! The server's own metrics, under upstream's names.
//!
//! Values that another component already has (objects in the cache) are read on each scrape; only requests are counted as they
//! happen. Other parts of the process register their own metrics (memory, certificates).

pub mod labels;

use std::time::Duration;

use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::catalog::rows::Rows;

pub use labels::RequestLabels;

/// Upstream's buckets of request durations.
const DURATION_BUCKETS: [f64; 24] =
    [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0];
/// Upstream's buckets of response sizes.
const SIZE_BUCKETS: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

const REQUEST: [&str; 7] = ["verb", "group", "version", "resource", "subresource", "scope", "component"];

/// Everything that `/metrics` shows.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    sli_durations: HistogramVec,
    response_sizes: HistogramVec,
    /// Requests being served, by `mutating` or `readOnly`.
    pub inflight: IntGaugeVec,
    /// Watches and other long requests.
    long_running: IntGaugeVec,
    watch_events: IntCounterVec,
    watch_bytes: HistogramVec,
    terminations: IntCounterVec,
    /// TLS handshakes that failed.
    pub tls_handshake_errors: IntCounter,
    /// Authentications, by `success`, `failure`, `error`.
    pub authentications: IntCounterVec,
    /// Decisions of the authorizer.
    pub authorizations: IntCounterVec,
    /// Store transactions.
    pub store_duration: HistogramVec,
    objects: GaugeVec,
    resource_objects: GaugeVec,
    resource_bytes: GaugeVec,
    cache_version: GaugeVec,
    /// When each certificate of this server ends, by its name.
    pub certificate_expiry: GaugeVec,
}

fn histogram(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels).expect("invariant: static names are valid")
}

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("invariant: static names are valid")
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    GaugeVec::new(Opts::new(name, help), labels).expect("invariant: static names are valid")
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// All families, empty.
    pub fn new() -> Metrics {
        let with = |more: &[&'static str]| -> Vec<&'static str> { REQUEST.iter().copied().chain(more.iter().copied()).collect() };
        let metrics = Metrics {
            registry: Registry::new(),
            requests: counter("apiserver_request_total", "Counter of apiserver requests.", &with(&["dry_run", "code"])),
            durations: histogram(
                "apiserver_request_duration_seconds",
                "Response latency in seconds.",
                &with(&["dry_run"]),
                &DURATION_BUCKETS,
            ),
            sli_durations: histogram(
                "apiserver_request_sli_duration_seconds",
                "Response latency in seconds, without time spent in webhooks and queues.",
                &REQUEST,
                &DURATION_BUCKETS,
            ),
            response_sizes: histogram("apiserver_response_sizes", "Response size in bytes.", &REQUEST, &SIZE_BUCKETS),
            inflight: IntGaugeVec::new(
                Opts::new("apiserver_current_inflight_requests", "Requests being served, by kind."),
                &["request_kind"],
            )
            .expect("invariant: static names are valid"),
            long_running: IntGaugeVec::new(Opts::new("apiserver_longrunning_requests", "Long-running requests being served."), &REQUEST)
                .expect("invariant: static names are valid"),
            watch_events: counter(
                "apiserver_watch_events_total",
                "Number of events sent in watch clients.",
                &["group", "version", "resource"],
            ),
            watch_bytes: histogram(
                "apiserver_watch_events_sizes",
                "Watch event size distribution in bytes.",
                &["group", "version", "resource"],
                &[1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0],
            ),
            terminations: counter(
                "apiserver_request_terminations_total",
                "Number of requests which apiserver terminated in self-defense.",
                &["component", "code", "group", "resource", "scope", "subresource", "verb", "version"],
            ),
            tls_handshake_errors: IntCounter::new(
                "apiserver_tls_handshake_errors_total",
                "Number of requests dropped with TLS handshake errors.",
            )
            .expect("invariant: static names are valid"),
            authentications: counter("authentication_attempts", "Counter of authenticated attempts.", &["result"]),
            authorizations: counter(
                "apiserver_authorization_decisions_total",
                "Decisions made by an authorizer.",
                &["decision", "name", "type"],
            ),
            store_duration: histogram(
                "etcd_request_duration_seconds",
                "Store request latency in seconds for each operation and resource.",
                &["operation", "group", "resource"],
                &[
                    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
                    45.0, 60.0,
                ],
            ),
            objects: gauge("apiserver_storage_objects", "Number of stored objects at the time of last check, by kind.", &["resource"]),
            resource_objects: gauge(
                "apiserver_resource_objects",
                "Number of stored objects at the time of last check, by kind.",
                &["group", "resource"],
            ),
            resource_bytes: gauge(
                "apiserver_resource_size_estimate_bytes",
                "Estimated size of stored objects in the store, by kind.",
                &["group", "resource"],
            ),
            cache_version: gauge(
                "apiserver_watch_cache_resource_version",
                "Revision of the watch cache, by resource.",
                &["group", "resource"],
            ),
            certificate_expiry: gauge(
                "trireme_certificate_expiration_timestamp_seconds",
                "When the certificate ends, in seconds since unix epoch, by its name.",
                &["name"],
            ),
        };
        metrics.register();
        metrics
    }

    /// Where other parts of this process register what they show here.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn register(&self) {
        let add = |collector: Box<dyn prometheus::core::Collector>| {
            self.registry.register(collector).expect("invariant: every family is registered once");
        };
        add(Box::new(self.requests.clone()));
        add(Box::new(self.durations.clone()));
        add(Box::new(self.sli_durations.clone()));
        add(Box::new(self.response_sizes.clone()));
        add(Box::new(self.inflight.clone()));
        add(Box::new(self.long_running.clone()));
        add(Box::new(self.watch_events.clone()));
        add(Box::new(self.watch_bytes.clone()));
        add(Box::new(self.terminations.clone()));
        add(Box::new(self.tls_handshake_errors.clone()));
        add(Box::new(self.authentications.clone()));
        add(Box::new(self.authorizations.clone()));
        add(Box::new(self.store_duration.clone()));
        add(Box::new(self.objects.clone()));
        add(Box::new(self.resource_objects.clone()));
        add(Box::new(self.resource_bytes.clone()));
        add(Box::new(self.cache_version.clone()));
        add(Box::new(self.certificate_expiry.clone()));
        let build = gauge(
            "kubernetes_build_info",
            "A metric with a constant '1' value labeled by version.",
            &["git_version", "major", "minor", "platform"],
        );
        build
            .with_label_values(&[crate::version::GIT_VERSION, crate::version::MAJOR, crate::version::MINOR, std::env::consts::ARCH])
            .set(1.0);
        add(Box::new(build));
    }

    /// Counts a finished request.
    pub fn observe(&self, request: &RequestLabels, dry_run: bool, code: u16, took: Duration, size_bytes: Option<u64>, long_running: bool) {
        let labels = request.values();
        let dry_run = if dry_run { "All" } else { "" };
        let code = code.to_string();
        let with = |more: &[&str]| -> Vec<String> { labels.iter().copied().chain(more.iter().copied()).map(str::to_owned).collect() };
        self.requests.with_label_values(&with(&[dry_run, &code])).inc();
        if !long_running {
            self.durations.with_label_values(&with(&[dry_run])).observe(took.as_secs_f64());
            self.sli_durations.with_label_values(&labels).observe(took.as_secs_f64());
            if let (Some(size), true) = (size_bytes, request.names_resource()) {
                self.response_sizes.with_label_values(&labels).observe(size as f64);
            }
        }
    }

    /// Counts a request that a filter refused to protect the server.
    pub fn observe_termination(&self, request: &RequestLabels, code: u16) {
        self.terminations.with_label_values(&request.termination(&code.to_string())).inc();
    }

    /// Counts a long-running request while the guard lives.
    fn long_running_guard(&self, request: &RequestLabels) -> GaugeGuard {
        GaugeGuard::new(self.long_running.with_label_values(&request.values()))
    }

    /// What a watch counts while it lives.
    pub fn watch_counters(&self, request: &RequestLabels) -> WatchCounters {
        let [_, group, version, resource, ..] = request.values();
        let labels = [group, version, resource];
        WatchCounters {
            events: self.watch_events.with_label_values(&labels),
            bytes: self.watch_bytes.with_label_values(&labels),
            _running: self.long_running_guard(request),
        }
    }

    /// The exposition text.
    pub fn render(&self, rows: &Rows, ingested: i64) -> Vec<u8> {
        for row in rows.all() {
            let (count, bytes) = row.cache.size();
            let (group, plural) = (row.group(), row.plural());
            self.objects.with_label_values(&[&row.group_resource().to_string()]).set(count as f64);
            self.resource_objects.with_label_values(&[group, plural]).set(count as f64);
            self.resource_bytes.with_label_values(&[group, plural]).set(bytes as f64);
            self.cache_version.with_label_values(&[group, plural]).set(ingested as f64);
        }
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "metrics cannot be encoded");
        }
        out
    }
}

/// The counters of one watch.
pub struct WatchCounters {
    events: IntCounter,
    bytes: Histogram,
    _running: GaugeGuard,
}

impl WatchCounters {
    /// Counts an event that was sent.
    pub fn count(&self, bytes: usize) {
        self.events.inc();
        self.bytes.observe(bytes as f64);
    }
}

/// Adds one to a gauge as long as it lives.
struct GaugeGuard(prometheus::IntGauge);

impl GaugeGuard {
    fn new(gauge: prometheus::IntGauge) -> GaugeGuard {
        gauge.inc();
        GaugeGuard(gauge)
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
