//! The endpoint of a component that runs in this process: health and metrics of the controllers (10257) and the scheduler (10259).
//!
//! Owns which of its paths are open and which are not. Who asks, and whether he may, is decided by this process's own API server,
//! where upstream's components send a TokenReview and a SubjectAccessReview. Answers to upstream's
//! `--authorization-always-allow-paths` and <https://kubernetes.io/docs/concepts/cluster-administration/system-metrics/>.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use jiff::Timestamp;

use crate::ApiServer;
use crate::authn::Peer;
use crate::error::Answer;
use crate::filters;
use crate::negotiate;
use crate::request_info::RequestInfo;
use crate::respond::{self, Body};

/// Prometheus's text format.
pub const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A component with an endpoint of its own.
pub struct Component {
    api: ApiServer,
    name: &'static str,
    metrics: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
}

impl Component {
    /// A component whose metrics are what `metrics` renders.
    pub fn new(api: ApiServer, name: &'static str, metrics: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Arc<Component> {
        Arc::new(Component { api, name, metrics: Box::new(metrics) })
    }

    /// The API server that judges who asks.
    pub(crate) fn api(&self) -> &ApiServer {
        &self.api
    }

    /// Answers a request from the network.
    pub(crate) async fn handle(&self, request: Request<Bytes>) -> Response<Body> {
        let encoding = negotiate::status_encoding(request.headers());
        let mut response = self.answer(&request).await.unwrap_or_else(|status| respond::status_as(&status, encoding));
        if request.method() == Method::HEAD {
            *response.body_mut() = Body::default();
        }
        response
    }

    async fn answer(&self, request: &Request<Bytes>) -> Answer<Response<Body>> {
        let path = request.uri().path();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        // Health is for everybody: what restarts a component has no credentials.
        if let [kind @ ("healthz" | "livez" | "readyz"), rest @ ..] = parts.as_slice() {
            return Ok(self.health(kind, rest, request.uri().query().unwrap_or_default()));
        }
        self.admit(request).await?;
        match parts.as_slice() {
            ["metrics"] if matches!(*request.method(), Method::GET | Method::HEAD) => Ok(respond::bytes(200, EXPOSITION, (self.metrics)())),
            ["metrics"] => Err(crate::handlers::method_not_allowed()),
            _ => Ok(crate::handlers::paths::not_found()),
        }
    }

    /// A component that answers is alive; whether it leads is no question of health.
    fn health(&self, kind: &str, check: &[&str], query: &str) -> Response<Body> {
        match check {
            [] if crate::request_info::query_value(query, "verbose").is_some() => {
                respond::text(200, format!("[+]ping ok\n[+]leaderElection ok\n{} {kind} check passed\n", self.name))
            }
            [] | ["ping" | "leaderElection"] => respond::text(200, "ok"),
            _ => crate::handlers::paths::not_found(),
        }
    }

    async fn admit(&self, request: &Request<Bytes>) -> Answer<()> {
        let nobody = Peer::default();
        let peer = request.extensions().get::<Arc<Peer>>().map_or(&nobody, |peer| peer.as_ref());
        let path = request.uri().path();
        let user = self.api.authenticator().authenticate(peer, request.headers(), path, Timestamp::now()).await?;
        let info = RequestInfo::parse(request.method(), path, "");
        self.api.authorizer().require(&filters::attributes_of(&user, &info, "")).await
    }
}
