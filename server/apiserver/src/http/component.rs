//! The endpoint of a component that runs in this process: health and metrics of the controllers (10257) and the scheduler (10259).
//!
//! Owns which of its paths need no authorization. This process's own API server authenticates and authorizes the other requests; upstream's
//! components send a TokenReview and a SubjectAccessReview for this. Answers to upstream's
//! `--authorization-always-allow-paths` and <https://kubernetes.io/docs/concepts/cluster-administration/system-metrics/>.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{Method, Request, Response};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use trireme_api::status::Status;

use crate::attributes::Attributes;
use crate::authn::{Authenticator, Peer};
use crate::authz::Authorizer;
use crate::error::Answer;
use crate::http::body::Payload;
use crate::http::negotiate;
use crate::http::request_info::RequestInfo;
use crate::http::respond::{self, Body, method_not_allowed, path_not_found};
use crate::http::serve::Service;

/// Prometheus's text format.
pub const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A component with an endpoint of its own.
pub struct Component {
    name: &'static str,
    authenticator: Authenticator,
    authorizer: Authorizer,
    metrics: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
    tls_errors: prometheus::IntCounter,
}

impl Component {
    /// A component whose metrics are what `metrics` renders.
    pub fn new(
        name: &'static str,
        authenticator: Authenticator,
        authorizer: Authorizer,
        tls_errors: prometheus::IntCounter,
        metrics: impl Fn() -> Vec<u8> + Send + Sync + 'static,
    ) -> Component {
        Component { name, authenticator, authorizer, metrics: Box::new(metrics), tls_errors }
    }

    async fn handle(&self, request: &Parts) -> Answer<Response<Body>> {
        let uri = &request.uri;
        let info = RequestInfo::parse(&request.method, uri.path(), uri.query().unwrap_or_default())
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let parts = info.parts().unwrap_or_default();
        // Health is for everybody: what restarts a component has no credentials.
        if let [kind @ ("healthz" | "livez" | "readyz"), check @ ..] = parts.as_slice() {
            return Ok(self.health(kind, check, info.query.has("verbose")));
        }
        self.admit(request, &info).await?;
        match parts.as_slice() {
            ["metrics"] if matches!(request.method, Method::GET | Method::HEAD) => Ok(respond::bytes(200, EXPOSITION, (self.metrics)())),
            ["metrics"] => Err(method_not_allowed()),
            _ => Ok(path_not_found()),
        }
    }

    /// A component that answers is alive; whether it leads is no question of health.
    fn health(&self, kind: &str, check: &[&str], verbose: bool) -> Response<Body> {
        match check {
            [] if verbose => respond::text(200, format!("[+]ping ok\n[+]leaderElection ok\n{} {kind} check passed\n", self.name)),
            [] | ["ping" | "leaderElection"] => respond::text(200, "ok"),
            _ => path_not_found(),
        }
    }

    async fn admit(&self, request: &Parts, info: &RequestInfo) -> Answer<()> {
        let nobody = Peer::default();
        let peer = request.extensions.get::<Arc<Peer>>().map_or(&nobody, |peer| peer.as_ref());
        let user = self.authenticator.authenticate(peer, &request.headers, &info.path, Timestamp::now()).await?;
        self.authorizer.require(&Attributes::of(&user, info)).await
    }
}

impl Service for Component {
    fn peer(&self, chain: &[CertificateDer<'_>]) -> Peer {
        self.authenticator.peer(chain, Timestamp::now())
    }

    fn answer(&self, request: Request<Payload>) -> BoxFuture<'_, Response<Body>> {
        async move {
            // No path of a component reads a body.
            let (request, _body) = request.into_parts();
            let encoding = negotiate::status_encoding(&request.headers);
            let mut response = self.handle(&request).await.unwrap_or_else(|status| respond::status_as(&status, encoding));
            if request.method == Method::HEAD {
                *response.body_mut() = Body::default();
            }
            response
        }
        .boxed()
    }

    fn count_tls_error(&self) {
        self.tls_errors.inc();
    }
}
