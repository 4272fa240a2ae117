//! The API server: HTTP, filters, the generic registry over the replicated store, and the watch cache.
//!
//! Owns everything between a socket and a transaction. Must not know how the store replicates (`trireme-raft`), and holds no
//! controller logic. Answers to upstream's `k8s.io/apiserver` and `pkg/registry`.
//!
//! A request passes [`filters`], is dispatched by [`handlers`], reads from the [`cache`] or goes through the [`registry`]'s
//! pipeline into one transaction.

pub mod admin;
pub mod admission;
pub mod admission_request;
pub mod allocate;
pub mod attributes;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod cache;
pub mod component;
pub mod convert;
pub mod egress;
pub mod encode;
mod error;
pub mod filters;
pub mod handlers;
pub mod health;
pub mod join;
pub mod keys;
pub mod lookup;
pub mod metrics;
pub mod negotiate;
mod openapi;
mod options;
pub mod pending_kinds;
pub mod pki;
pub mod query;
pub mod registry;
pub mod request_info;
pub mod respond;
pub mod rows;
pub mod sealing;
pub mod selection;
pub mod serve;
pub mod server;
pub mod tokens;
pub mod transform;
pub mod user;
pub mod version;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use trireme_raft::Store;

pub use admission_request::{AdmissionEffects, AdmissionRequest, Operation};
pub use attributes::Attributes;
pub use error::{Answer, Error};
pub use lookup::{LookedUp, ObjectReader};
pub use options::ApiServerOptions;
pub use respond::{Body, BoxError};
pub use user::{Caller, UserInfo};

use authn::{Authenticator, Peer, ServiceAccountTokens};
use cache::Cache;
use filters::Source;
use registry::Registry;
use rows::Rows;
use sealing::Keyring;
use server::{Security, Server};

/// A running API server. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    server: Arc<Server>,
}

// === impl ApiServer ===

impl ApiServer {
    /// Fills the watch cache from the store and starts to follow it. Nothing is served yet.
    pub async fn start(options: ApiServerOptions, store: Store) -> Result<ApiServer, Error> {
        let stopping = CancellationToken::new();
        let sealing_keys = options.keys.keyring_keys().map_err(|e| Error::Option(format!("encryption keys: {e}")))?;
        let keyring = Arc::new(Keyring::new(sealing_keys));
        let rows = Arc::new(Rows::builtin(options.watch_window_bytes));
        let cache = Cache::start(store.clone(), rows.clone(), keyring.clone(), stopping.clone())?;
        let store_status = store.status();
        let registry = Arc::new(Registry::new(store, cache, rows.clone(), keyring));
        let authorizer = authz::Authorizer::new(registry.clone());
        let signing = options.keys.service_account.load().map_err(|e| Error::Option(format!("service-account keys: {e}")))?;
        let issuer = ServiceAccountTokens::default_issuer(&options.cluster_domain);
        let tokens = Arc::new(ServiceAccountTokens::new(issuer, Vec::new(), signing, registry.clone()));
        let authenticator = Authenticator::new(&options.keys, tokens).map_err(|e| Error::Option(format!("authorities: {e}")))?;
        let security = Security { authenticator, admission: admission::AdmissionChain::new(authorizer.clone()), authorizer };
        let (reading, writing) = (options.max_requests_inflight, options.max_mutating_requests_inflight);
        let server = Server {
            options,
            rows,
            registry,
            security,
            metrics: metrics::Metrics::new(),
            reading: Arc::new(Semaphore::new(reading)),
            writing: Arc::new(Semaphore::new(writing)),
            bootstrapped: AtomicBool::new(false),
            join: std::sync::OnceLock::new(),
            admin: admin::Admin::default(),
            stopping,
            contact_lost: health::ContactLost::default(),
            store_status,
        };
        Ok(ApiServer { server: Arc::new(server) })
    }

    /// Serves HTTPS until `shutdown`, then drains connections. `tls` must ask for, and accept, any client certificate
    /// ([`authn::accept_any_verifier`]): authentication judges it and answers with a Status.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<rustls::ServerConfig>, shutdown: CancellationToken) {
        let stopping = self.server.stopping.clone();
        let ending = shutdown.clone();
        let _end_watches = tokio::spawn(async move {
            ending.cancelled().await;
            stopping.cancel();
        });
        serve::serve(serve::Front::Api(self.clone()), listener, tls, shutdown).await;
    }

    /// Serves a component's health and metrics over HTTPS until `shutdown`; `tls` as for [`ApiServer::serve`].
    pub async fn serve_component(
        component: Arc<component::Component>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        shutdown: CancellationToken,
    ) {
        serve::serve(serve::Front::Component(component), listener, tls, shutdown).await;
    }

    /// The in-process door: the same filters, the caller's identity already known.
    pub async fn call(&self, caller: Caller, request: Request<Bytes>) -> Response<Body> {
        filters::run(self.server.clone(), Source::Inside(Box::new(caller.user), caller.fence), request).boxed().await
    }

    /// A door for [`bootstrap::Bootstrap`]: writes under `fence` as an administrator.
    pub fn door(&self, fence: Option<trireme_raft::Fence>) -> bootstrap::Door {
        use http_body_util::BodyExt;
        let api = self.clone();
        bootstrap::Door::new(Arc::new(move |request| {
            let api = api.clone();
            let caller = Caller { user: UserInfo::new("system:apiserver", &[user::GROUP_MASTERS, user::GROUP_AUTHENTICATED]), fence };
            async move {
                let response = api.call(caller, request).await;
                let code = response.status().as_u16();
                let body = response.into_body().collect().await.map_err(|e| e.to_string())?;
                Ok((code, body.to_bytes()))
            }
            .boxed()
        }))
    }

    /// A request from the network; its connection's [`Peer`] is an extension.
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Body> {
        filters::run(self.server.clone(), Source::Network, request).boxed().await
    }

    /// What the certificates of a connection prove.
    pub fn peer(&self, chain: &[CertificateDer<'_>]) -> Peer {
        self.server.security.authenticator.peer(chain, Timestamp::now())
    }

    /// The objects, for parts of this process that read them.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.server.registry
    }

    /// The authorizer.
    pub fn authorizer(&self) -> &authz::Authorizer {
        &self.server.security.authorizer
    }

    /// The authenticator.
    pub fn authenticator(&self) -> &Authenticator {
        &self.server.security.authenticator
    }

    /// Where other parts of this process register what they show on this server's `/metrics`.
    pub fn metrics_registry(&self) -> &prometheus::Registry {
        self.server.metrics.registry()
    }

    /// Whether `/readyz` passes.
    pub fn is_ready(&self) -> bool {
        health::is_ready(&self.server)
    }

    /// From now on the objects that a cluster is born with are there: `/readyz` may pass.
    pub fn mark_bootstrapped(&self) {
        self.server.bootstrapped.store(true, Ordering::Release);
    }

    /// Opens the doors for joining nodes and servers. A second call changes nothing.
    pub fn open_join(&self, join: join::JoinService) {
        let _ = self.server.join.set(join);
    }

    /// Opens endpoints for the operator below `/trireme/v1/<name of the family>`.
    pub fn open_admin(&self, family: Arc<dyn admin::AdminFamily>) {
        self.server.admin.open(family);
    }

    /// Shows in `/metrics` when these certificates end.
    pub fn note_certificates(&self, certificates: &[trireme_api::admin::CertificateInfo]) {
        for certificate in certificates {
            self.server.metrics.certificate_expiry.with_label_values(&[certificate.name.as_str()]).set(certificate.not_after as f64);
        }
    }

    /// Ends watches and tunnels, and stops following the store.
    pub fn stop(&self) {
        self.server.stopping.cancel();
    }

    pub(crate) fn count_tls_error(&self) {
        self.server.metrics.tls_handshake_errors.inc();
    }
}
