//! What the service proxy counts, under kube-proxy's names, and its endpoint on 10249: `/metrics`, `/healthz`, `/proxyMode`.
//!
//! Answers to <https://kubernetes.io/docs/reference/instrumentation/metrics/>, `kubeproxy_*`.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, exponential_buckets};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trireme_client::metrics::{register, render};

const VALID: &str = "invariant: static names are valid";
/// Rules are written for one family so far.
const FAMILY: [&str; 1] = ["IPv4"];
const IP_FAMILY: [&str; 1] = ["ip_family"];

/// The families. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    sync: HistogramVec,
    full: HistogramVec,
    partial: HistogramVec,
    last: GaugeVec,
    queued: GaugeVec,
    failures: IntCounterVec,
    /// Events of Services seen.
    pub(crate) service_changes: IntCounter,
    /// Events of EndpointSlices seen.
    pub(crate) endpoint_changes: IntCounter,
    healthz: IntCounterVec,
    livez: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let registry = Registry::new();
        let histogram = |name: &str, help: &str| {
            let buckets = exponential_buckets(0.001, 2.0, 15).expect("invariant: a positive start and a factor above one");
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &IP_FAMILY).expect(VALID)
        };
        let gauge = |name, help| GaugeVec::new(Opts::new(name, help), &IP_FAMILY).expect(VALID);
        let counter = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels).expect(VALID);
        let metrics = Self {
            sync: histogram("kubeproxy_sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds"),
            full: histogram("kubeproxy_sync_full_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for full resyncs"),
            partial: histogram(
                "kubeproxy_sync_partial_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for partial resyncs",
            ),
            last: gauge("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "The last time proxy rules were successfully synced"),
            queued: gauge("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "The last time a sync of proxy rules was queued"),
            failures: counter(
                "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
                "Cumulative proxy nftables sync failures",
                &IP_FAMILY,
            ),
            service_changes: IntCounter::new("kubeproxy_sync_proxy_rules_service_changes_total", "Cumulative proxy rules Service changes")
                .expect(VALID),
            endpoint_changes: IntCounter::new(
                "kubeproxy_sync_proxy_rules_endpoint_changes_total",
                "Cumulative proxy rules Endpoint changes",
            )
            .expect(VALID),
            healthz: counter("kubeproxy_proxy_healthz_total", "Cumulative proxy healthz HTTP status", &["code"]),
            livez: counter("kubeproxy_proxy_livez_total", "Cumulative proxy livez HTTP status", &["code"]),
            registry,
        };
        for histogram in [&metrics.sync, &metrics.full, &metrics.partial] {
            register(&metrics.registry, histogram.clone());
        }
        register(&metrics.registry, metrics.last.clone());
        register(&metrics.registry, metrics.queued.clone());
        register(&metrics.registry, metrics.failures.clone());
        register(&metrics.registry, metrics.service_changes.clone());
        register(&metrics.registry, metrics.endpoint_changes.clone());
        register(&metrics.registry, metrics.healthz.clone());
        register(&metrics.registry, metrics.livez.clone());
        metrics.failures.with_label_values(&FAMILY);
        metrics
    }

    /// A change waits to be written.
    pub(crate) fn queued(&self) {
        self.queued.with_label_values(&FAMILY).set(now_secs());
    }

    /// The rules were written (all of them, or what changed), or were not.
    pub(crate) fn synced(&self, well: bool, all: bool, took: Duration) {
        self.sync.with_label_values(&FAMILY).observe(took.as_secs_f64());
        let kind = if all { &self.full } else { &self.partial };
        kind.with_label_values(&FAMILY).observe(took.as_secs_f64());
        if well {
            self.last.with_label_values(&FAMILY).set(now_secs());
        } else {
            self.failures.with_label_values(&FAMILY).inc();
        }
    }

    /// The health port answered.
    pub(crate) fn health_asked(&self, path: &str, code: StatusCode) {
        let family = if path == "/livez" { &self.livez } else { &self.healthz };
        family.with_label_values(&[code.as_str()]).inc();
    }
}

fn now_secs() -> f64 {
    Timestamp::now().as_millisecond() as f64 / 1000.0
}

/// Serves them until cancelled.
pub async fn serve(address: SocketAddr, metrics: Metrics, cancel: CancellationToken) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let metrics = Arc::new(metrics);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted { Ok((stream, _)) => stream, Err(_) => continue },
            () = cancel.cancelled() => return Ok(()),
        };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &metrics);
                async move { Ok::<_, Infallible>(answer) }
            });
            // A peer that hangs up is not our error.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let text = "text/plain; charset=utf-8";
    let (status, kind, body) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", Bytes::from(render(&metrics.registry))),
        "/healthz" => (StatusCode::OK, text, Bytes::from_static(b"ok")),
        "/proxyMode" => (StatusCode::OK, text, Bytes::from_static(b"nftables")),
        _ => (StatusCode::NOT_FOUND, text, Bytes::from_static(b"404 page not found\n")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
