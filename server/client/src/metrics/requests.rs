//! Requests to the API server, as client-go counts them: `rest_client_*`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use tokio::time::Instant;

use super::register;
use crate::{Body, Transport, TransportError};

/// client-go's buckets.
const DURATION_BUCKETS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

/// A transport that counts what goes through it.
pub struct CountedTransport {
    inner: Arc<dyn Transport>,
    /// The server that a request goes to, as the label `host`.
    host: Arc<dyn Fn() -> String + Send + Sync>,
    counts: Counts,
}

#[derive(Clone)]
struct Counts {
    requests: IntCounterVec,
    durations: HistogramVec,
}

impl CountedTransport {
    /// Counts requests through `inner` in `registry`, which it may be called for once.
    pub fn new(inner: Arc<dyn Transport>, registry: &Registry, host: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let valid = "invariant: static names are valid";
        let requests = Opts::new("rest_client_requests_total", "Number of HTTP requests, partitioned by status code, method, and host.");
        let durations =
            HistogramOpts::new("rest_client_request_duration_seconds", "Request latency in seconds. Broken down by verb, and host.");
        let counts = Counts {
            requests: IntCounterVec::new(requests, &["code", "host", "method"]).expect(valid),
            durations: HistogramVec::new(durations.buckets(DURATION_BUCKETS.to_vec()), &["host", "verb"]).expect(valid),
        };
        register(registry, counts.requests.clone());
        register(registry, counts.durations.clone());
        Self { inner, host: Arc::new(host), counts }
    }
}

impl Transport for CountedTransport {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'static, Result<http::Response<Body>, TransportError>> {
        let (method, counts, host) = (request.method().to_string(), self.counts.clone(), (self.host)());
        let began = Instant::now();
        let answer = self.inner.send(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or_else(|_| "<error>".to_owned(), |response| response.status().as_u16().to_string());
            counts.observe(&code, &host, &method, began.elapsed());
            answer
        })
    }
}

impl Counts {
    fn observe(&self, code: &str, host: &str, method: &str, took: Duration) {
        self.requests.with_label_values(&[code, host, method]).inc();
        self.durations.with_label_values(&[host, method]).observe(took.as_secs_f64());
    }
}
