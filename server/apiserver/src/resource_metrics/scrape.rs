//! One question to one kubelet.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, HOST, HeaderValue};
use http_body_util::{BodyExt, Empty, Limited};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::egress::Egress;
use crate::endpoints::connect::destination::Destination;
use crate::endpoints::nodes::kubelet;
use crate::resource_metrics::samples::Sample;
use crate::storage::lookup::ObjectReader;

const PATH: &str = "/stats/summary?only_cpu_and_memory=true";
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest summary: a node of a thousand containers has less than one MiB.
const SUMMARY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How kubelets are reached.
pub struct Kubelets {
    /// The way to them.
    pub egress: Arc<dyn Egress>,
    /// TLS with a certificate that they accept.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

// === impl Kubelets ===

impl Kubelets {
    /// Asks a node's kubelet for its counters.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn summary(&self, reader: &dyn ObjectReader, node: &str) -> Result<Sample, String> {
        let destination = kubelet::destination(reader, self.tls.as_ref(), node, PATH.to_owned()).map_err(|status| status.message)?;
        tokio::time::timeout(TIMEOUT, self.ask(&destination)).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    async fn ask(&self, destination: &Destination) -> Result<Sample, String> {
        let stream = destination.connect(&*self.egress).await.map_err(|status| status.message)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(text)?;
        let _ends_with_the_answer = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = destination.path.parse().map_err(text)?;
        request.headers_mut().insert(HOST, HeaderValue::from_str(&destination.authority()).map_err(text)?);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("the kubelet answered {status}"));
        }
        let body = Limited::new(response.into_body(), SUMMARY_BYTES_MAX).collect().await.map_err(text)?.to_bytes();
        let (at, time) = (Instant::now(), Timestamp::now());
        Sample::parse(&trireme_api::schema::parse_json(&body)?, at, time)
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
